"""The grammar's law sums to one and is that of its rows; minimal pairs differ in one word, and no row is the good one of any."""

from __future__ import annotations

import math
import re
from collections import Counter

import numpy as np
import pytest

from causal_gen.data.grammar import (
    INTRANSITIVE_FORMS,
    NOUNS,
    PATTERNS,
    PHENOMENA,
    PLURALS,
    TRANSITIVE_FORMS,
    WORDS,
    GrammarConfig,
    grammatical,
)
from causal_gen.types import DataError

CONFIG = GrammarConfig(size=30_000, test_size=200, pairs=60)


@pytest.fixture(scope="module")
def source():
    return CONFIG.make()


def parses(text):
    """An acceptor written apart from the generator: number agreement by regular expressions over one number at a time."""
    found = False
    for number in (0, 1):
        nouns, verbs, doing = (
            "|".join(words)
            for words in ((NOUNS, PLURALS)[number], [p[number] for p in INTRANSITIVE_FORMS], [p[number] for p in TRANSITIVE_FORMS])
        )
        phrase = f"(?:the|some|{('this', 'these')[number]}) (?:{nouns})"
        other = "|".join(f"(?:the|some|{det}) (?:{'|'.join(words)})" for det, words in (("this", NOUNS), ("these", PLURALS)))
        clause = "|".join(
            f"(?:the|some|{det}) (?:{'|'.join(words)}) (?:{'|'.join(p[n] for p in TRANSITIVE_FORMS)})"
            for n, (det, words) in enumerate((("this", NOUNS), ("these", PLURALS)))
        )
        men, women = "|".join(NOUNS[:6]), "|".join(NOUNS[6:])
        own = "themselves" if number else "(?:himself|herself)"
        shapes = [
            f"{phrase}(?: (?:near|behind|beside|opposite) (?:{other})| that (?:{clause}))? (?:{verbs})",
            f"{phrase} (?:{doing}) (?:{other})",
            f"{phrase} (?:{doing}) {own}",
            f"no (?:{nouns}) ever (?:{verbs})",
        ]
        wrong = not number and re.search(rf"\b(?:{men})\b.*herself|\b(?:{women})\b.*himself", text)
        found |= any(re.fullmatch(shape, text) for shape in shapes) and not wrong
    return found


def test_rows_are_sentences_with_an_end_that_the_grammar_accepts(source):
    for split in ("train", "test"):
        rows = source.gather(split, np.arange(200))
        assert set(rows) == set(source.entries) and rows["tokens"].shape == rows["loss_mask"].shape == (200, 8)
        for tokens, mask in zip(rows["tokens"], rows["loss_mask"], strict=True):
            text = source.tokenizer.decode(tokens)
            assert parses(text), text
            assert mask.sum() == len(text.split()) + 1 and (tokens[mask == 0] == 0).all()


def test_the_law_is_the_frequency_of_the_rows(source):
    """The short sentences come often enough to be counted; the law of each pattern's sentences sums to that of the pattern."""
    counts, law = Counter(), {}
    for tokens, nats in zip(source.rows["train"]["tokens"], source.rows["train"]["nats"], strict=True):
        counts[source.tokenizer.decode(tokens)] += 1
        law[source.tokenizer.decode(tokens)] = math.exp(-nats)
    short = {
        text: p for text, p in law.items() if len(text.split()) == 3
    }  # "the queen sleeps": 12 nouns, 2 numbers, 3 determiners, 7 verbs
    assert len(short) == 12 * 2 * 3 * 7 and sum(short.values()) == pytest.approx(1 / len(PATTERNS))
    expected = np.array([30_000 * p for p in short.values()])
    seen = np.array([counts[text] for text in short])
    assert ((seen - expected) ** 2 / expected).sum() < len(short) + 5 * math.sqrt(2 * len(short))


def test_minimal_pairs_differ_in_one_word_and_are_good_and_bad(source):
    rows = {source.tokenizer.decode(tokens) for split in ("train", "test") for tokens in source.rows[split]["tokens"]}
    found = source.statements()
    assert tuple(found) == PHENOMENA
    for name, pairs in found.items():
        assert pairs.tokens.shape == (60, 2, 8) and (pairs.truth == 0).all() and (pairs.mask[:, 0] == pairs.mask[:, 1]).all()
        assert ((pairs.tokens[:, 0] != pairs.tokens[:, 1]).sum(-1) == 1).all()
        for good, bad in pairs.tokens:
            assert parses(source.tokenizer.decode(good)) and not parses(source.tokenizer.decode(bad)), name
            assert source.tokenizer.decode(good) not in rows


def test_words_are_encoded_and_an_unknown_one_is_named(source):
    assert len(set(WORDS)) == len(WORDS)
    text = "the queens that the boy sees sleep"
    assert source.tokenizer.decode(source.tokenizer.encode([text])[0]) == text
    with pytest.raises(DataError, match="word 'dog'"):
        source.tokenizer.encode(["the dog sleeps"])


@pytest.mark.parametrize("letters", [0, 2, 3])
def test_pieces_of_words_say_the_same_sentences(letters):
    """Whatever a token is, the rows of a seed are the same texts, and the longest of them all but fills its row."""
    config = GrammarConfig(size=2_000, test_size=40, pairs=20, letters=letters, ends=True)
    source, words = config.make(), GrammarConfig(size=2_000, test_size=40, pairs=20).make()
    rows = source.gather("train", np.arange(2_000))
    assert [source.tokenizer.decode(row) for row in rows["tokens"]] == [
        words.tokenizer.decode(row) for row in words.gather("train", np.arange(2_000))["tokens"]
    ]
    assert (rows["loss_mask"] == 1).all() and (rows["tokens"][:, -1] == 0).all() and (rows["tokens"][:, -4] != 0).any()
    assert max(len(piece.removeprefix("##")) for piece in source.tokenizer.tokens) == (letters or max(map(len, WORDS)))
    assert source.tokenizer.decode(source.tokenizer.encode(["these princesses see themselves"])[0]) == "these princesses see themselves"
    law = source.stats()["tokens"]["best_loss"]
    assert law == pytest.approx(source.best("test", np.arange(40)).sum() / (40 * config.length))


def test_the_grammar_accepts_what_the_regular_expressions_accept(source):
    """Good and bad sentences of all phenomena, and sentences with a word exchanged at random."""
    rng, texts = np.random.default_rng(0), []
    for pairs in source.statements().values():
        texts += [source.tokenizer.decode(row) for row in pairs.tokens.reshape(-1, 8)]
    for text in texts[::2]:
        words = text.split()
        words[rng.integers(len(words))] = str(rng.choice(WORDS[1:]))
        texts.append(" ".join(words))
    verdicts = [grammatical(text) for text in texts]
    assert verdicts == [bool(parses(text)) for text in texts]
    assert 0.2 < np.mean(verdicts) < 0.8


def test_a_row_is_solved_by_a_sentence_up_to_its_first_end():
    source = GrammarConfig(size=4, test_size=4, letters=3).make()

    def row(text, then=""):
        parts = [source.tokenizer.encode([part])[0] for part in (text, then)]
        told = np.concatenate([parts[0], [0], parts[1]])
        return np.pad(told, (0, source.config.length - len(told)))

    rows = [row("the queen sleeps"), row("the queen sleep"), row("the queen sleeps", "boys"), row("")]
    endless = np.full(source.config.length, source.tokenizer.numbers["the"])
    np.testing.assert_array_equal(source.solved(np.stack([*rows, endless])), [True, False, True, False, False])
