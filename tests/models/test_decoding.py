"""Decoding as users call it: caches of the right size, mistakes named before anything is compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.models.causal_transformer import START
from causal_gen.models.decoding import generate, search, speculate
from causal_gen.sampling import ar
from causal_gen.sampling.ar import Stop
from causal_gen.sampling.cache import rooms
from causal_gen.sampling.speculative import Tree
from causal_gen.sampling.truncation import Always, DecodingConfig, Trie
from causal_gen.scm.counterfactual import abduct, predict
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


@pytest.mark.parametrize(
    "sampling", [GREEDY, DecodingConfig(temperature=0.8), DecodingConfig(omega=2.0)], ids=["greedy", "drawn", "guided"]
)
def test_a_text_is_the_same_whether_its_cache_grows_or_is_large_at_once(sampling):
    """Also where rows end before the cache was ever widened, after 3 tokens and after 110."""
    model = make(classes=("kind",)) if sampling.omega != 1 else PLAIN
    context = {"kind": np.array([0, 1])} if sampling.omega != 1 else None
    assert rooms(3, 143) == (35, 71, 107, 143) and rooms(100, 143) == (143,) and rooms(0, 100) == (100,)
    for last in (0, 3, 110):
        stop = Stop(halt=lambda tokens, count, last=last: jnp.full(tokens.shape[:1], count == last))
        grown = generate(model, params(model), KEY, PROMPT, steps=140, sampling=sampling, context=context, stop=stop)
        engine = model.engine(params(model), context, 143, sampling.omega)
        whole = jax.jit(lambda p, e=engine, s=stop: ar.generate(e.prefill, e.advance, KEY, p, sampling, steps=140, stop=s))(PROMPT)
        np.testing.assert_array_equal(grown.tokens, whole.tokens)
        np.testing.assert_array_equal(grown.length, last or 140)
        np.testing.assert_allclose(grown.log_prob, whole.log_prob, atol=1e-4)


def test_a_long_text_comes_back_from_its_noise_though_its_cache_grows():
    """And is what it would be with all its room from the start."""
    model = make(length=140)
    noise = model.noise(KEY, 2)
    text = predict(model, params(model), noise)
    back = predict(model, params(model), abduct(model, params(model), KEY, text))
    np.testing.assert_array_equal(back["tokens"], text["tokens"])
    engine, none = model.engine(params(model), None, 140), jnp.zeros((2, 140), jnp.int32)
    cache, first = model.empty(params(model), 2, 140), jnp.full((2,), START)
    whole = jax.jit(lambda g: ar.replay(engine.advance, cache, first, g, none > 0, none, model.sampling))(noise["tokens"])
    np.testing.assert_array_equal(whole[0], text["tokens"])


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
