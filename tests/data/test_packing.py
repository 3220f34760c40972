"""Packing keeps every token once and in order; BM25 ordering is the greedy chain of its formula."""

from __future__ import annotations

import collections
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causal_gen.data import packing
from causal_gen.structure import layout


@given(st.lists(st.integers(0, 30), min_size=1, max_size=12), st.integers(2, 17))
def test_rows_hold_every_token_once_and_say_whose_it_is(lengths, size):
    """Against structure/layout.py, which makes the rows by index maps, and knows each token's document from its length alone."""
    rng = np.random.default_rng(0)
    documents = [rng.integers(1, 9, length) for length in lengths]
    rows, filling = packing.pack(documents, size, 9)
    whole = np.concatenate([np.append(tokens, packing.END) for tokens in documents])
    assert 0 <= filling < size
    np.testing.assert_array_equal(rows.reshape(-1)[: rows.size - filling], whole)
    ours, theirs = packing.fields(rows), layout.pack([length + 1 for length in lengths], size)
    np.testing.assert_array_equal(rows, theirs.apply(whole, fill=packing.END))
    real = np.asarray(theirs.fields["document"]) >= 0
    for row in range(len(rows)):
        document, position = (np.asarray(theirs.fields[name])[row][real[row]] for name in ("document", "position"))
        np.testing.assert_array_equal(ours["document"][row][real[row]], document - document[0])
        began = np.where(document == document[0], position[0], 0)  # a document that began in an earlier row starts anew in this one
        np.testing.assert_array_equal(ours["position"][row][real[row]], position - began)


@pytest.mark.parametrize(("size", "dtype"), [(256, np.uint8), (257, np.uint16), (70_000, np.int32)])
def test_rows_take_the_smallest_type_that_holds_the_vocabulary(size, dtype):
    rows, _ = packing.pack([np.array([size - 1])], 2, size)
    assert rows.dtype == dtype and rows[0, 0] == size - 1


TOPICS = ["tax coin bank gold", "ship sea port sail", "rain corn field plough"]


def stories(num=60):
    rng = np.random.default_rng(1)
    return [" ".join([*rng.choice(TOPICS[i % 3].split(), 6), *rng.choice(["the", "of", "and"], 5)]) for i in range(num)]


def slow_chain(texts):
    """The formula of the docstring, word by word, and the greedy choice."""
    words = [re.findall(r"\w+", text.lower()) for text in texts]
    mean = sum(map(len, words)) / len(words)
    holds = collections.Counter(word for document in words for word in set(document))

    def score(query, document):
        total = 0.0
        for word in query:  # a word that comes twice counts twice
            f = document.count(word)
            rarity = math.log(1 + (len(words) - holds[word] + 0.5) / (holds[word] + 0.5))
            total += rarity * f * 2.5 / (f + 1.5 * (0.25 + 0.75 * len(document) / mean))
        return total

    chain, left = [0], list(range(1, len(words)))
    while left:
        scores = [score(words[chain[-1]], words[i]) for i in left]
        chain.append(left.pop(max(range(len(left)), key=lambda i: round(scores[i], 9))))
    return chain


def test_bm25_chain_is_the_formulas():
    texts = [*stories(20), "", "nothing shared here"]
    np.testing.assert_array_equal(packing._chain(texts), slow_chain(texts))


def test_bm25_puts_alike_documents_side_by_side():
    """The claim of S099: neighbours share more words than under a random order; blocks of any size give a permutation."""
    texts = stories()

    def overlap(order):
        sets = [set(texts[i].split()) for i in order]
        return np.mean([len(a & b) / len(a | b) for a, b in zip(sets, sets[1:], strict=False)])

    by_chance = overlap(packing.random_order(0, len(texts)))
    assert overlap(packing.bm25_order(0, texts)) > 2 * by_chance
    for block in (1, 7, 60, 100):
        np.testing.assert_array_equal(np.sort(packing.bm25_order(0, texts, block)), np.arange(len(texts)))
    np.testing.assert_array_equal(packing.bm25_order(3, texts, 16), packing.bm25_order(3, texts, 16))
    assert not np.array_equal(packing.bm25_order(3, texts, 16), packing.bm25_order(4, texts, 16))
    np.testing.assert_array_equal(packing.bm25_order(3, texts, 1), packing.random_order(3, len(texts)))
