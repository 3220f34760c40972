"""Decoding as users call it: caches of the right size, mistakes named before anything is compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.models.decoding import generate, search, speculate
from causal_gen.sampling.ar import Stop
from causal_gen.sampling.speculative import Tree
from causal_gen.sampling.truncation import Always, DecodingConfig, Trie
from causal_gen.types import UserError
from tests.models.test_causal_transformer import KEY, PLAIN, TOKENS, V, make, params

PROMPT = np.asarray(TOKENS[:2, :3])
GREEDY = DecodingConfig(top_k=1)


def test_texts_may_be_longer_than_the_data_and_start_from_nothing():
    out = generate(PLAIN, params(PLAIN), KEY, PROMPT, steps=12)
    assert out.tokens.shape == (2, 12) and (out.length == 12).all()
    whole = jnp.concatenate([PROMPT, out.tokens], 1)
    scored = {"tokens": whole, "loss_mask": (jnp.arange(15)[None] >= 3) * jnp.ones((2, 1))}
    np.testing.assert_allclose(out.log_prob, jax.jit(lambda b: PLAIN.log_prob(params(PLAIN), KEY, b))(scored), atol=1e-4)
    assert generate(PLAIN, params(PLAIN), KEY, np.zeros((2, 0), int), steps=4).tokens.shape == (2, 4)


def test_one_beam_a_speculation_and_the_greedy_text_are_one_text():
    plain = generate(PLAIN, params(PLAIN), KEY, PROMPT, steps=6, sampling=GREEDY)
    one = search(PLAIN, params(PLAIN), PROMPT, beams=1, steps=6)
    np.testing.assert_array_equal(one.tokens[:, 0], plain.tokens)
    spoken = speculate(PLAIN, params(PLAIN), PLAIN, params(PLAIN), KEY, PROMPT, steps=6, tree=Tree((1, 1)), sampling=GREEDY)
    np.testing.assert_array_equal(spoken.tokens, plain.tokens)
    np.testing.assert_array_equal(spoken.rounds, 2)  # a first token, then three a round


def test_constraints_and_stops_reach_the_loop():
    out = generate(PLAIN, params(PLAIN), KEY, PROMPT, steps=5, constraint=Trie.of([(1, 2), (3,)], V, end=0), stop=Stop(end=(0,), pad=6))
    assert {tuple(text) for text in np.asarray(out.tokens).tolist()} <= {(1, 2, 0, 6, 6), (3, 0, 6, 6, 6)}


class Nothing(Always):
    def allowed(self, state):
        return jnp.zeros((state.shape[0], V), bool)


LEARNED = make(transformer={"position": "learned"})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: generate(PLAIN, None, KEY, np.array([[V]]), steps=2), "token 7 at place 0 of row 0 is out of range"),
        (lambda: generate(LEARNED, None, KEY, PROMPT, steps=14), "prompt: 3 tokens are more than the 2 that fit"),
        (
            lambda: generate(PLAIN, params(PLAIN), KEY, PROMPT, steps=2, constraint=Nothing(np.ones(V, bool))),
            "forbids every token at place 0",
        ),
        (
            lambda: speculate(PLAIN, None, make(vocabulary=5), None, KEY, PROMPT, steps=2, tree=Tree()),
            "target has 7 tokens, the draft 5",
        ),
        (lambda: speculate(make(classes=("kind",)), None, PLAIN, None, KEY, PROMPT, steps=2, tree=Tree()), "'kind' conditions the text"),
    ],
)
def test_mistakes_are_named_in_one_line(call, message):
    with pytest.raises(UserError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
