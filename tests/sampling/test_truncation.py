"""Truncated laws against their definitions, constraints, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from causal_gen.sampling.truncation import Always, DecodingConfig, Insert, Listing, Trie, min_p, top_k, top_p, warp
from causal_gen.types import ConfigError

LOGITS = 2 * jax.random.normal(jax.random.key(0), (50, 12))


def kept(logits):
    return np.isfinite(np.asarray(logits))


@pytest.mark.parametrize("k", [1, 3, 12, 40])
def test_top_k_keeps_the_k_largest_and_leaves_their_logits(k):
    got = np.asarray(top_k(LOGITS, k))
    for row, found in zip(np.asarray(LOGITS), got, strict=True):
        want = set(np.argsort(-row)[:k])
        assert set(np.flatnonzero(np.isfinite(found))) == want
        np.testing.assert_array_equal(found[list(want)], row[list(want)])


def test_top_k_breaks_ties_in_order_of_the_vocabulary():
    np.testing.assert_array_equal(kept(top_k(jnp.array([[1.0, 2.0, 1.0, 1.0]]), 2)), [[True, True, False, False]])
    np.testing.assert_array_equal(kept(top_k(jnp.zeros((1, 4)), 1)), [[True, False, False, False]])


@pytest.mark.parametrize("p", [1e-6, 0.3, 0.9, 1.0])
def test_top_p_is_the_smallest_set_of_most_probable_tokens_that_reaches_p(p):
    for row, found in zip(softmax(np.asarray(LOGITS, np.float64), -1), kept(top_p(LOGITS, p)), strict=True):
        order, total, want = np.argsort(-row), 0.0, set()
        for token in order:
            if total >= p:
                break
            want.add(token)
            total += row[token]
        assert set(np.flatnonzero(found)) == want


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_min_p_keeps_what_is_near_the_most_probable(share):
    probabilities = softmax(np.asarray(LOGITS, np.float64), -1)
    np.testing.assert_array_equal(kept(min_p(LOGITS, share)), probabilities >= share * probabilities.max(-1, keepdims=True) * (1 - 1e-9))


def test_everything_off_is_the_models_own_law_and_temperature_divides():
    np.testing.assert_array_equal(warp(LOGITS, DecodingConfig()), LOGITS)
    np.testing.assert_allclose(warp(LOGITS, DecodingConfig(temperature=0.5)), 2 * LOGITS, rtol=1e-6)


def test_the_penalty_lowers_what_was_seen_whatever_its_sign():
    seen = jnp.arange(12).reshape(1, -1) < jnp.full((50, 1), 6)
    got = warp(LOGITS, DecodingConfig(repetition=2.0), seen)
    np.testing.assert_array_equal(got[:, 6:], LOGITS[:, 6:])
    assert (got[:, :6] < LOGITS[:, :6]).all()
    np.testing.assert_allclose(got[:, :6], np.where(LOGITS[:, :6] > 0, LOGITS[:, :6] / 2, LOGITS[:, :6] * 2))


def test_a_constraint_comes_before_truncation():
    """The most probable of the allowed tokens is always kept, however improbable."""
    allowed = jax.nn.one_hot(jnp.argmin(LOGITS, -1), 12, dtype=bool)
    got = warp(LOGITS, DecodingConfig(top_k=1, top_p=0.1, min_p=0.9), allowed=allowed)
    np.testing.assert_array_equal(kept(got), allowed)


def test_a_trie_allows_its_sequences_and_nothing_else():
    words, end = [(1, 2, 3), (1, 2), (4,), (1, 5)], 0
    trie = Trie.of(words, 6, end)

    def texts(state, text):
        state = jnp.asarray(state)
        for token in np.flatnonzero(np.asarray(trie.allowed(state))[0]):
            if token == end:
                yield text
            else:
                yield from texts(trie.follow(state, jnp.array([token])), (*text, int(token)))

    assert set(texts(trie.start(1), ())) == set(words)
    over = trie.follow(trie.follow(trie.start(1), jnp.array([4])), jnp.array([end]))
    np.testing.assert_array_equal(trie.allowed(over)[0], np.arange(6) == end)


def test_without_an_end_a_whole_sequence_frees_the_rest():
    trie = Trie.of([(1, 2)], 4)
    state = trie.follow(trie.follow(trie.start(2), jnp.array([1, 1])), jnp.array([2, 2]))
    assert trie.allowed(state).all() and trie.allowed(trie.follow(state, jnp.array([0, 3]))).all()
    assert not trie.allowed(trie.start(1))[0, 2]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DecodingConfig(top_k=0), "sampling.top_k: must be at least 1, got 0"),
        (
            lambda: DecodingConfig(temperature=0.0),
            "sampling.temperature: must be positive, got 0.0; for greedy decoding use sampling.top_k=1",
        ),
        (lambda: DecodingConfig(temperature=-1.0), "sampling.temperature: must be positive"),
        (lambda: DecodingConfig(temperature=float("nan")), "sampling.temperature: must be positive"),
        (lambda: DecodingConfig(top_p=0.0), r"sampling.top_p: must lie in \(0, 1\]"),
        (lambda: DecodingConfig(min_p=1.5), "sampling.min_p: must lie in"),
        (lambda: DecodingConfig(repetition=0.0), "sampling.repetition: must be positive"),
        (lambda: Always(np.zeros(5, bool)), "constraint: it forbids every token"),
        (lambda: Trie.of([], 5), "forbids every token"),
        (lambda: Trie.of([(1, 9)], 5), "token 9 is not in the vocabulary of 5"),
    ],
)
def test_mistakes_are_named_in_one_line(make, message):
    with pytest.raises(ConfigError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_what_truncates_says_so():
    assert DecodingConfig(top_k=1).greedy and not DecodingConfig(top_k=2).greedy
    assert not DecodingConfig(temperature=0.3).truncates and not DecodingConfig(top_p=1.0, min_p=0.0).truncates
    for change in ({"top_k": 3}, {"top_p": 0.9}, {"min_p": 0.1}):
        assert dataclasses.replace(DecodingConfig(), **change).truncates


def test_tokens_are_put_in_at_their_place_unless_they_are_there_already():
    """Row 0 draws the first before its time, row 1 has it put in after three tokens, row 2 at once; before and after, anything goes."""
    force = Insert((2,), np.array([3, 3, 0]), 4)
    state, seen = force.start(3), []
    for tokens in ([0, 1, 2], [2, 1, 0], [0, 3, 0], [1, 2, 1], [3, 3, 3]):
        allowed = np.asarray(force.allowed(state))
        assert all(allowed[row, token] for row, token in enumerate(tokens))
        seen.append(allowed.sum(-1).tolist())
        state = force.follow(state, jnp.array(tokens))
    assert seen == [[4, 4, 1], [4, 4, 4], [4, 4, 4], [4, 1, 4], [4, 4, 4]]


def test_what_is_put_in_goes_on_as_an_instruction_wherever_its_first_token_was_drawn():
    force = Insert((2, 3, 1), np.array([3, 1]), 4)
    state, seen = force.start(2), []
    for tokens in ([2, 0], [3, 2], [1, 3], [2, 1], [0, 2]):  # row 0 draws 2 by itself; a later 2 starts nothing
        allowed = np.asarray(force.allowed(state))
        assert all(allowed[row, token] for row, token in enumerate(tokens))
        seen.append(allowed.sum(-1).tolist())
        state = force.follow(state, jnp.array(tokens))
    assert seen == [[4, 4], [1, 1], [1, 1], [4, 1], [4, 4]]


def test_what_cannot_be_put_in_is_named():
    force = Insert((2,), np.array([3]), 4)
    for make in (lambda: Insert((2, 4), np.array([0]), 4), lambda: Insert((), np.array([0]), 4), lambda: force.start(2)):
        with pytest.raises(ConfigError, match="constraint: "):
            make()


def test_a_list_can_always_be_read():
    """Tokens drawn at random under it: kinds and words of the row in turn, then the end and nothing but the end."""
    kinds, words = np.arange(9) >= 7, np.zeros((50, 9), bool)
    words[:25, 2:5] = words[25:, [1, 5]] = True
    rule, rng, texts = Listing(kinds, words, end=0, room=6), np.random.default_rng(0), []
    state = rule.start(50)
    for _ in range(6):
        allowed = np.asarray(rule.allowed(state))
        texts.append((rng.random((50, 9)) * allowed).argmax(1))
        state = rule.follow(state, jnp.array(texts[-1]))
    lengths = set()
    for row, text in enumerate(np.stack(texts, 1)):
        size = int((text == 0).argmax())
        assert size % 2 == 0 and (text[size:] == 0).all() and text[size] == 0
        assert kinds[text[:size:2]].all() and words[row][text[1:size:2]].all()
        lengths.add(size)
    assert lengths == {0, 2, 4}
    for make in (lambda: Listing(kinds, words, 7, 6), lambda: Listing(kinds, words, 0, 0), lambda: rule.start(3)):
        with pytest.raises(ConfigError, match="constraint: "):
            make()
