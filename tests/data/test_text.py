"""The text source: rows that are the corpus, a split by documents, a tokenizer that stays with its run."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from causal_gen.data import kept
from causal_gen.data.text import TextConfig
from causal_gen.types import DataError, WorkdirError

SPEECHES = [{"year": 1900 + i, "party": "rd"[i % 2], "text": f"Speech {i} of the house. " * (1 + i % 4)} for i in range(40)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("corpus")
    (place / "s.jsonl").write_text("".join(json.dumps(speech) + "\n" for speech in SPEECHES))
    return place


def config(folder, **fields):
    return TextConfig(**{"root": str(folder), "corpus": "s.jsonl", "header": ("year", "party"), "length": 32, **fields})


def rows_of(source, split):
    return source.gather(split, np.arange(source.size(split)))


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
def test_the_rows_of_a_split_are_its_documents(folder, tokenizer):
    """Every byte of every document is scored once; the held-out documents are the last two of forty and in no training row."""
    source = config(folder, tokenizer=tokenizer, vocabulary=256 if tokenizer == "bytes" else 320).make()
    texts = [f"year={s['year']} party={s['party']}\n{s['text']}" for s in SPEECHES]
    for split, expected in (("train", texts[:38]), ("test", texts[38:])):
        batch = rows_of(source, split)
        stream = batch["tokens"].reshape(-1)[batch["loss_mask"].reshape(-1) > 0]
        ends = np.flatnonzero(stream == 0)
        assert [source.tokenizer.decode(part) for part in np.split(stream, ends)[:-1]] == expected
        rows = np.arange(source.size(split))
        assert source.byte_counts(split, rows).sum() == sum(len(text.encode()) for text in expected)
        assert source.clusters(split, rows)[0] == 0 and source.clusters(split, rows)[-1] <= len(expected)
        assert (np.diff(source.clusters(split, rows)) >= 0).all()


def test_batches_have_the_declared_shapes_and_ranges(folder):
    source = config(folder).make()
    batch = source.gather("train", np.array([3, 1, 3]))
    assert set(batch) == set(source.entries) and source.entries["tokens"].vocabulary == 256
    for name, entry in source.entries.items():
        assert batch[name].shape == (3, *entry.shape) and str(batch[name].dtype) == entry.dtype
        assert (batch[name] >= entry.low).all() and (batch[name] <= entry.high).all()
    np.testing.assert_array_equal(batch["tokens"][0], batch["tokens"][2])


def test_pieces_belong_to_their_documents(folder):
    """Rows that begin in a piece are counted to the whole document, whatever order the pieces are packed in."""
    for split, order, documents in (("test", "given", 2), ("train", "random", 38)):
        source = config(folder, piece=40, order=order, documents=None).make()
        texts = [f"year={s['year']} party={s['party']}\n" for s in SPEECHES][{"train": slice(38), "test": slice(38, None)}[split]]
        rows = np.arange(source.size(split))
        owners = source.clusters(split, rows)
        assert set(owners) <= set(range(documents)) and len(set(owners)) > 1
        tokens = source.gather(split, rows)["tokens"]
        for row in np.flatnonzero(tokens[:-1, -1] == 0):  # the next row begins with a header, which names its document
            assert source.tokenizer.decode(tokens[row + 1]).startswith(texts[owners[row + 1]])


def test_order_moves_training_documents_and_no_others(folder):
    sources = {order: config(folder, order=order, piece=40).make() for order in ("given", "random", "bm25")}
    given = sources["given"]
    assert all(text.startswith("year=") and len(text.partition("\n")[2]) <= 40 for text in given.texts["train"])
    for order in ("random", "bm25"):
        assert sources[order].texts["train"] != given.texts["train"]
        assert sorted(sources[order].texts["train"]) == sorted(given.texts["train"])
        np.testing.assert_array_equal(rows_of(sources[order], "test")["tokens"], rows_of(given, "test")["tokens"])


def test_a_split_is_cut_to_the_size_asked_for(folder):
    whole, few = config(folder).make(), config(folder, size=3, test_size=1, documents=30).make()
    assert (few.size("train"), few.size("test")) == (3, 1) and whole.size("train") > 30
    np.testing.assert_array_equal(few.gather("train", np.arange(3))["tokens"], whole.gather("train", np.arange(3))["tokens"])
    assert few.gather("test", np.arange(1))["loss_mask"].all()


def test_a_runs_tokenizer_outlives_its_corpus(folder, tmp_path):
    """Reopened from what the run kept, it reads and writes the same tokens, and needs the corpus for nothing but rows."""
    first = config(folder, tokenizer="bpe", vocabulary=300).make()
    kept.store(tmp_path / "data", first.files)
    kept.store(tmp_path / "data", first.files)  # a resumed run stores it again
    stats = json.loads(json.dumps(first.stats()))
    gone = dataclasses.replace(first.config, root=str(tmp_path / "gone"))
    again = gone.reopen(tmp_path / "data", stats)
    np.testing.assert_array_equal(again.tokenizer.encode(["year=1912"])[0], first.tokenizer.encode(["year=1912"])[0])
    with pytest.raises(DataError, match="no corpus"):
        again.size("train")
    other = config(folder, tokenizer="bpe", vocabulary=300, corpus="s.jsonl", documents=10).reopen(tmp_path / "data", stats)
    assert other.tokenizer.files == first.files  # another corpus is read with the old vocabulary


def test_another_vocabulary_is_refused(folder, tmp_path):
    first = config(folder, tokenizer="bpe", vocabulary=300).make()
    kept.store(tmp_path, first.files)
    with pytest.raises(WorkdirError, match=r"tokenizer.json differs from what this corpus gives"):
        kept.store(tmp_path, config(folder, tokenizer="bpe", vocabulary=299).make().files)
    stats = first.stats()
    with pytest.raises(DataError, match="has 300 tokens, data.vocabulary 280"):
        config(folder, tokenizer="bpe", vocabulary=280).reopen(tmp_path, stats).tokenizer  # noqa: B018
    (tmp_path / "tokenizer.json").write_bytes(first.files["tokenizer.json"] + b" ")
    with pytest.raises(DataError, match="is not the one that this run was trained with"):
        first.config.reopen(tmp_path, stats)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(DataError, match="cannot read .*tokenizer.json"):
        first.config.reopen(tmp_path, stats)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"vocabulary": 300}, "tokenizer=bytes has a vocabulary of 256"),
        ({"tokenizer": "bpe"}, "at least 257, got 256"),
        ({"piece": 3}, "piece=3 is shorter than 16"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        TextConfig(**fields)


def test_the_standin_says_what_it_is():
    source = TextConfig(documents=4, length=64).make()
    assert "standard library" in source.name and source.size("test") >= 1
    assert source.stats()["tokens"]["vocabulary"] == 256 and source.truth("test", np.arange(1), None) is None
