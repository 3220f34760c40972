"""Tokenizers lose nothing, are functions of their texts, and refuse tokens that are none of theirs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causal_gen.data.tokenizer import END, ByteTokenizer, check_tokens, fingerprint, fit_bpe, read_bpe
from causal_gen.types import DataError

TEXTS = [
    "the cat sat on the mat, the cat sat",
    "The year=1912 party=r\nthe end \u2014 na\u00efve \U0001f600",
    "<|endoftext|> [PAD] <s>",
] * 3
BPE = fit_bpe(TEXTS, 300)
text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), BPE], ids=["bytes", "bpe"])
@settings(max_examples=60, deadline=None)
@given(words=text)
def test_what_is_encoded_is_decoded(tokenizer, words):
    """Also what looks like a special token, and characters that the corpus never had; no text holds END; lengths count the bytes."""
    tokens = tokenizer.encode([words])[0]
    assert tokenizer.decode(tokens) == words
    assert (tokens != END).all() and (tokens < tokenizer.size).all()
    assert tokenizer.byte_lengths[tokens].sum() == len(words.encode())


def test_bpe_merges_what_is_frequent_and_bytes_are_bytes():
    words = "the cat sat on the mat"
    assert ByteTokenizer().encode([words])[0].tolist() == list(words.encode())
    assert len(BPE.encode([words])[0]) <= len(words) // 2
    assert 256 < BPE.size <= 300 and len(BPE.byte_lengths) == BPE.size and BPE.byte_lengths[END] == 0


def test_the_same_texts_give_the_same_tokenizer():
    """Its hash is how a resumed run knows its vocabulary."""
    again, other = fit_bpe(TEXTS, 300), fit_bpe(TEXTS, 299)
    assert again.files == BPE.files and fingerprint(again) == fingerprint(BPE) != fingerprint(other)
    read = read_bpe(BPE.files["tokenizer.json"], "here")
    np.testing.assert_array_equal(read.encode(TEXTS[:1])[0], BPE.encode(TEXTS[:1])[0])


def test_documents_end_outside_of_the_text():
    tokens = np.concatenate([BPE.encode(["the cat"])[0], [END], BPE.encode([" sat"])[0]])
    assert BPE.decode(tokens) == "the cat sat"
    assert ByteTokenizer().decode([104, END, 105, 0xFF]) == "hi\ufffd"


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        ([[1, 2], [3, 256]], r"tokens\[1, 1\]: 256 is outside of the vocabulary 0..255"),
        ([5, -1], r"tokens\[1\]: -1 is outside"),
        (300, "tokens: 300 is outside"),
        ([0.5], "expected whole numbers 0..255, got float64"),
        (["a"], "expected whole numbers"),
    ],
)
def test_a_token_out_of_range_is_named_with_its_place(tokens, said):
    with pytest.raises(DataError, match=said):
        check_tokens(tokens, 256)
    assert check_tokens([3.0, 4.0], 256).tolist() == [3, 4]


@pytest.mark.parametrize("content", [b"{}", b"not json", b'{"model": {"type": "WordLevel", "vocab": {}, "unk_token": "a"}}', b"\xff"])
def test_a_file_that_is_no_tokenizer_is_named(content):
    with pytest.raises(DataError, match="place: not a byte-level BPE tokenizer"):
        read_bpe(content, "place")


def test_a_vocabulary_without_room_for_the_bytes_is_refused():
    with pytest.raises(ValueError, match="at least 257"):
        fit_bpe(TEXTS, 256)
