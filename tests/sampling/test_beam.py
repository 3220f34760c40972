"""Beam search against every text there is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.sampling import cache as caches
from causal_gen.sampling.beam import beam
from causal_gen.sampling.truncation import Trie
from causal_gen.types import ConfigError
from tests.sampling.tables import engine, law_of_texts, table

V, STEPS = 3, 4
LOGITS = table(jax.random.key(0), V)
PROMPT = jnp.array([[1, 2], [0, 2]])
MODEL = engine(LOGITS, 8)


@functools.partial(jax.jit, static_argnames=("beams", "steps", "end", "length_penalty", "constraint"))
def search(prompt, **how):
    return beam(MODEL.prefill, MODEL.advance, caches.fork, prompt, **how)


def test_a_beam_that_cuts_nothing_finds_the_best_texts_in_order():
    out = search(PROMPT, beams=V ** (STEPS - 1), steps=STEPS)
    for row, prompt in enumerate(np.asarray(PROMPT)):
        law = law_of_texts(LOGITS, tuple(int(t) for t in prompt), STEPS)
        best = sorted(law, key=law.__getitem__, reverse=True)[:10]
        assert [tuple(text) for text in np.asarray(out.tokens[row, :10]).tolist()] == best
        np.testing.assert_allclose(out.score[row, :10], np.log([law[text] for text in best]), atol=1e-4)


def test_one_beam_is_greedy_decoding():
    out = search(PROMPT, beams=1, steps=STEPS)
    for prompt, text in zip(np.asarray(PROMPT), np.asarray(out.tokens)[:, 0], strict=True):
        seen = list(prompt)
        for token in text:
            assert token == int(jnp.argmax(LOGITS[seen[-2], seen[-1]]))
            seen.append(int(token))


def test_ended_texts_compete_at_their_score_and_a_penalty_favours_long_ones():
    """Exhaustive over texts that end with 0 or run out; scores by length^alpha."""
    out = search(PROMPT[:1], beams=V**STEPS, steps=STEPS, end=0, length_penalty=1.0)
    log_p = np.asarray(jax.nn.log_softmax(LOGITS), np.float64)

    def texts(text, score):
        if len(text) == STEPS + 2 or (len(text) > 2 and text[-1] == 0):
            yield tuple(text[2:]), score
            return
        for token in range(V):
            yield from texts([*text, token], score + log_p[text[-2], text[-1], token])

    want = sorted(texts([1, 2], 0.0), key=lambda pair: pair[1] / len(pair[0]), reverse=True)[:5]
    for (text, score), found, length, got in zip(want, np.asarray(out.tokens[0]), out.length[0], out.score[0], strict=False):
        assert tuple(found[: int(length)].tolist()) == text
        np.testing.assert_allclose(got, score, atol=1e-4)


def test_a_constraint_leaves_fewer_texts_than_beams():
    out = search(PROMPT[:1], beams=4, steps=2, constraint=Trie.of([(1, 2), (2, 2)], V))
    assert {tuple(text) for text in np.asarray(out.tokens[0, :2]).tolist()} == {(1, 2), (2, 2)}
    assert np.isfinite(out.score[0, :2]).all() and np.isneginf(out.score[0, 2:]).all()


def test_no_beams_are_refused():
    with pytest.raises(ConfigError, match="0 beams"):
        search(PROMPT, beams=0, steps=2)
