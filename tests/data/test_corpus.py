"""Documents from files of every kind, and what is said of files that are none."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causal_gen.data import corpus
from causal_gen.types import DataError


def read(path, name="", pattern="**/*.txt", field="text", header=(), limit=None):
    return corpus.read(name, str(path), pattern, field, header, limit)


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.txt").write_text("three")
    (tmp_path / "a.txt.md").write_text("not asked for")
    (tmp_path / "a.txt").write_text("\ufeffone\r\n")
    (tmp_path / "a2.txt").write_text(" \n")  # holds nothing, so that it is no document
    assert read(tmp_path) == ["one\r\n", "three"]
    assert read(tmp_path, limit=1) == ["one\r\n"]
    assert read(tmp_path, "b") == ["three"] and read(tmp_path, str(tmp_path / "a.txt.md")) == ["not asked for"]


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
def test_json_lines_begin_with_their_header(tmp_path, name):
    """U+2028 is no end of a line; spaces in a value do not end the header."""
    text = lines({"year": 1912, "party": "r", "text": "Fellow\u2028citizens"}, {"year": 1913, "party": "d\nx", "text": "Gentlemen"})
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    found = read(tmp_path, name, header=("year", "party"))
    assert found == ["year=1912 party=r\nFellow\u2028citizens", "year=1913 party=d x\nGentlemen"]
    assert read(tmp_path, pattern="*.json*")[1] == "Gentlemen"


def test_the_corpus_is_looked_for_where_the_user_says(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    for place in (tmp_path, tmp_path / "here"):
        (place / "x.txt").write_text(place.name)
    monkeypatch.chdir(tmp_path / "here")
    assert corpus.read("x.txt", None, "*", "text", ()) == ["here"]
    monkeypatch.setenv("CAUSAL_GEN_DATA", str(tmp_path))
    assert corpus.read("x.txt", None, "*", "text", ()) == [tmp_path.name]


def test_the_standard_library_is_there_without_its_tests():
    found = corpus.read(corpus.STDLIB, None, "", "", (), 3)
    assert len(found) == 3 and all("\0" not in text and text.strip() for text in found)
    assert found == corpus.read(corpus.STDLIB, "nowhere", "", "", (), 3)


def test_the_last_twentieth_is_held_out():
    for num, held in ((2, 1), (19, 1), (40, 2), (202, 10)):
        parts = corpus.split([str(i) for i in range(num)])
        assert len(parts["test"]) == held and parts["train"] + parts["test"] == [str(i) for i in range(num)]
    one = corpus.split(["line\n" * 40])
    assert one == {"train": ["line\n" * 38], "test": ["line\n" * 2]}
    with pytest.raises(DataError, match="cannot be split"):
        corpus.split(["x"])


@given(st.text("ab .\n", max_size=120), st.integers(16, 40))
def test_pieces_are_the_text_cut(text, limit):
    pieces = corpus.cut(text, limit)
    assert "".join(pieces) == text and all(0 < len(piece) <= limit for piece in pieces)
    assert all(len(piece) > limit // 2 for piece in pieces[:-1])


def test_pieces_end_at_lines_before_sentences_before_words():
    assert corpus.cut("one two. three\nfour five six seven", 16) == ["one two. three\n", "four five six ", "seven"]


def write(tmp_path, content):
    (tmp_path / "x.jsonl").write_bytes(content)
    return tmp_path


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no text"),
        (b'{"text": "  "}\n', "holds no text"),
        (b"plain words\n", "line 1: not JSON"),
        (b'{"text": "a"}\n{"body": "b"}\n', "line 2: no field 'text'; set data.field and data.header among body"),
        (b'["text"]\n', "line 1: no field 'text'"),
        (b'{"text": 5}\n', "field 'text' is not a string but int"),
        (b'{"text": "a\\u0000b"}\n', "line 1: not text, it holds a byte 0"),
        (b'{"text": "caf\xe9"}\n', "not UTF-8 text (byte 0xe9 at 13)"),
        (b"\x89PNG\0\0", "is not text (a byte 0 at 4)"),
        (gzip.compress(b"x" * 100)[:-9], "cut short or damaged"),
    ],
    ids=["empty", "blank", "no json", "no field", "a list", "a number", "nul", "latin-1", "binary", "cut gzip"],
)
def test_what_is_not_text_is_named_in_one_line(tmp_path, content, said):
    with pytest.raises(DataError) as raised:
        read(write(tmp_path, content), "x.jsonl")
    assert said in str(raised.value) and str(tmp_path) in str(raised.value) and "\n" not in str(raised.value)


def test_a_corpus_that_is_missing_is_named_with_the_places(tmp_path):
    with pytest.raises(DataError, match="no corpus 'speeches.txt' in .*; set data.root or CAUSAL_GEN_DATA"):
        read(tmp_path, "speeches.txt")
    with pytest.raises(DataError, match=r"no file of .* matches '\*\*/\*.txt'; set data.pattern"):
        read(tmp_path)
