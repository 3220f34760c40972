"""Every position of a row has one cell, cells of one position stand below one another, and marks stand below what moved."""

from __future__ import annotations

import numpy as np
import pytest

from causal_gen.data.tokenizer import ByteTokenizer, fit_bpe
from causal_gen.evaluate import texts
from causal_gen.evaluate.texts import Spelling

BYTES = Spelling(ByteTokenizer())


def row(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8).astype(np.int32)


@pytest.mark.parametrize("data", [b"plain", "caf\u00e9 \u20ac \U0001f600".encode(), b"\xff\xc3 cut \xe2\x82", bytes(range(256)), b""])
def test_bytes_have_a_cell_of_one_character_each(data):
    cells = BYTES.cells(row(data))
    assert len(cells) == len(data) and all(len(cell) == 1 and cell.isprintable() for cell in cells)


def test_characters_of_several_bytes_stand_at_their_first():
    assert "".join(BYTES.cells(row("a\u20acb\0\n".encode()))) == "a\u20ac\u00b7\u00b7b\u2205\u21b5"
    assert "".join(BYTES.cells(row(b"\xe2\x82z"))) == "\ufffd\ufffdz"


def test_a_passage_keeps_lines_and_shows_where_documents_end():
    assert BYTES.passage(row(b"one\n\ttwo\x1b[31m\0three\xff")) == "one\n\ttwo\ufffd[31m\u2205three\ufffd"
    bpe = Spelling(fit_bpe(["the cat the cat"], 262))
    (tokens,) = bpe.tokenizer.encode(["the cat"])
    assert bpe.passage(np.r_[tokens, 0, tokens]) == "the cat\u2205the cat"
    assert Spelling().passage(np.array([3, 12, 0])) == "3 12 0"


def test_marks_stand_below_what_was_set_and_what_moved():
    factual, answer = row(b"in 1812, war"), row(b"in 1912, bar")
    forced = np.arange(12) == 4
    lines = texts.side_by_side(BYTES, {"factual": factual}, {"answer": answer}, forced).splitlines()
    places = [line.index(text) for line, text in zip(lines, ("in 1812, war", "in 1912, bar"), strict=False)]
    assert places[0] == places[1] and lines[2] == " " * (places[0] + 4) + "=    ^"
    assert texts.first_difference(factual[None], answer[None], forced).tolist() == [9]
    assert "position 9, 'w' -> 'b'; from there on 1 of 3 tokens differ" in texts.moved(BYTES, factual, answer, forced)
    assert "nothing else differs" in texts.moved(BYTES, factual, factual, forced)


@pytest.mark.parametrize("spelling", [BYTES, Spelling(fit_bpe(["abcabc abc"], 260)), Spelling()], ids=["bytes", "bpe", "numbers"])
def test_long_rows_are_cut_into_lines_and_agreeing_stretches_written_once(spelling):
    factual = np.full(400, 97, np.int32)
    answer = np.where(np.arange(400) == 399, 98, factual)
    drawn = texts.side_by_side(spelling, {"factual": factual, "again": factual}, {"answer": answer}, np.zeros(400, bool), first=1000)
    lines = drawn.splitlines()
    assert max(map(len, lines)) <= texts.WIDTH + 17 and set(lines[-1].strip()) == {"^"}
    assert sum(line.split()[1] == "all" for line in lines[:-4]) == len(lines) - 4, "all that is before agrees"
    assert lines[0].split()[0] == "1000" and int(lines[1].split()[0]) - 1000 in range(14, 73)
