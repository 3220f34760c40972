"""The decoding loop over a model that is a table: laws, stops, constraints, guidance, and texts as functions of their noise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from causal_gen.sampling import ar, gumbel
from causal_gen.sampling.truncation import Always, DecodingConfig, Trie
from causal_gen.types import ConfigError, UserError
from tests.sampling.tables import engine, law_of_texts, table

V, STEPS = 4, 5
LOGITS = table(jax.random.key(0), V)
PROMPT = jnp.array([[1, 2], [3, 0], [2, 2]])
MODEL = engine(LOGITS, 16)


def draw(key=0, prompt=PROMPT, config=None, steps=STEPS, **more):
    run = jax.jit(
        lambda key, prompt: ar.generate(MODEL.prefill, MODEL.advance, key, prompt, config or DecodingConfig(), steps=steps, **more)
    )
    return run(jax.random.key(key), prompt)


def test_texts_have_the_law_of_the_model_and_their_log_probability():
    out = draw(prompt=jnp.broadcast_to(PROMPT[:1], (6_000, 2)), steps=3)
    law = law_of_texts(LOGITS, (1, 2), 3)
    texts = [tuple(text) for text in np.asarray(out.tokens).tolist()]
    observed = np.array([texts.count(text) for text in law])
    expected = np.array(list(law.values())) * len(texts)
    rare = expected < 5
    pooled = [np.append(x[~rare], x[rare].sum()) for x in (observed, expected)]
    assert stats.chisquare(pooled[0], pooled[1] * pooled[0].sum() / pooled[1].sum()).pvalue > 1e-3
    np.testing.assert_allclose(out.log_prob[:50], [np.log(law[text]) for text in texts[:50]], atol=1e-4)


def test_greedy_decoding_takes_the_most_probable_token_each_time():
    out = draw(config=DecodingConfig(top_k=1))
    for prompt, text in zip(np.asarray(PROMPT), np.asarray(out.tokens), strict=True):
        seen = list(prompt)
        for token in text:
            assert token == int(jnp.argmax(LOGITS[seen[-2], seen[-1]]))
            seen.append(int(token))


def test_a_row_ends_at_its_end_token_or_where_it_is_halted_and_the_rest_is_padding():
    for stop, ends in (
        (ar.Stop(end=(3,), pad=1), lambda text: text[-1] == 3),
        (ar.Stop(pad=1, halt=ar.until((2, 0))), lambda text: text[-2:] == [2, 0]),
    ):
        out = draw(prompt=jnp.broadcast_to(PROMPT[:1], (100, 2)), steps=8, stop=stop)
        lengths = np.asarray(out.length)
        assert lengths.min() < 8 <= lengths.max()
        for text, length in zip(np.asarray(out.tokens).tolist(), lengths, strict=True):
            assert not any(ends(text[:n]) for n in range(1, length))
            assert (length == 8 or ends(text[:length])) and text[length:] == [1] * (8 - length)


def test_the_loop_ends_when_all_rows_have():
    calls = []

    def advance(cache, tokens, fields=None):
        jax.debug.callback(lambda: calls.append(1))
        return MODEL.advance(cache, tokens, fields)

    stop = ar.Stop(halt=lambda tokens, count: jnp.full(tokens.shape[:1], count >= 2))
    jax.jit(lambda: ar.generate(MODEL.prefill, advance, jax.random.key(0), PROMPT, DecodingConfig(), steps=8, stop=stop))()
    jax.effects_barrier()
    assert len(calls) == 1


def test_a_constraint_is_never_broken_and_one_that_forbids_everything_is_named():
    words = [(1, 2, 3), (2, 0), (1, 1)]
    out = draw(prompt=jnp.broadcast_to(PROMPT[:1], (100, 2)), constraint=Trie.of(words, V, end=0), stop=ar.Stop(end=(0,)), steps=4)
    found = {tuple(text) for text in np.asarray(out.tokens).tolist()}
    assert found <= {(*word, *(0,) * (4 - len(word))) for word in [(1, 2, 3), (2,), (2, 0), (1, 1)]} and len(found) == 3
    assert ar.check_draws(out) is out

    class DeadEnd(Always):
        def allowed(self, state):
            return jnp.zeros((state.shape[0], V), bool)

    stuck = draw(constraint=DeadEnd(np.ones(V, bool)))
    assert stuck.stuck.all() and not stuck.length.any() and np.isfinite(stuck.log_prob).all()
    with pytest.raises(UserError, match="constraint: it forbids every token at place 0 of row 0"):
        ar.check_draws(stuck)


def test_a_strong_penalty_repeats_nothing_while_there_is_something_else():
    positive = engine(jnp.abs(LOGITS) + 1, 16)
    config = DecodingConfig(repetition=1e6, top_k=1)
    run = jax.jit(lambda: ar.generate(positive.prefill, positive.advance, jax.random.key(0), PROMPT[:, :1], config, steps=V - 1))
    for prompt, text in zip(np.asarray(PROMPT), np.asarray(run().tokens), strict=True):
        assert len({prompt[0], *text}) == V


@functools.partial(jax.jit, static_argnums=3)
def replay(noise, forced, values, config):
    _, cache = MODEL.prefill(jnp.zeros((noise.shape[0], 1), jnp.int32))
    first = jnp.full((noise.shape[0],), 1, jnp.int32)
    return ar.replay(MODEL.advance, cache, first, noise, forced, values, config)


def test_a_text_is_a_function_of_its_noise_and_abduction_finds_noise_that_gives_it_back():
    config = DecodingConfig(temperature=0.7, repetition=1.3)
    free, nothing = jnp.zeros((50, STEPS), bool), jnp.zeros((50, STEPS), jnp.int32)
    tokens, laws = replay(gumbel.prior(jax.random.key(1), (50, STEPS, V)), free, nothing, config)
    _, again = replay(jnp.zeros((50, STEPS, V)), ~free, tokens, config)
    np.testing.assert_allclose(again, laws, atol=1e-6)
    noise = gumbel.posterior(jax.random.key(2), again, tokens)
    np.testing.assert_array_equal(replay(noise, free, nothing, config)[0], tokens)
    forced = free.at[:, 2].set(True)
    moved, _ = replay(noise, forced, nothing + 3, config)
    np.testing.assert_array_equal(moved[:, :2], tokens[:, :2])
    assert (moved[:, 2] == 3).all() and (moved[:, 3:] != tokens[:, 3:]).any()


def test_guidance_weighs_log_probabilities_and_one_is_the_conditional_model():
    given, free = LOGITS[0], LOGITS[1]
    np.testing.assert_array_equal(ar.mix(given, free, 1.0), given)
    lp = [np.asarray(jax.nn.log_softmax(x)) for x in (given, free)]
    np.testing.assert_allclose(ar.mix(given, free, 2.5), 2.5 * lp[0] - 1.5 * lp[1], rtol=1e-5)
    other = engine(table(jax.random.key(7), V), 16)
    both = (MODEL.prefill(PROMPT)[1], other.prefill(PROMPT)[1])
    out, _ = ar.guide(MODEL.advance, other.advance, 0.0)(both, PROMPT[:, :1])
    np.testing.assert_allclose(jax.nn.softmax(out), jax.nn.softmax(other.advance(both[1], PROMPT[:, :1])[0]), rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: draw(steps=0), ConfigError, "0 tokens to draw"),
        (lambda: ar.until(()), ConfigError, "empty sequence"),
        (lambda: ar.check_prompt(np.zeros((1, 9), int), V, 8), UserError, "prompt: 9 tokens are more than the 8 that fit"),
        (lambda: ar.check_prompt(np.array([[0, 1], [2, 4]]), V, 8), UserError, "token 4 at place 1 of row 1 is out of range"),
        (lambda: ar.check_prompt(np.array([[0, -1]]), V, 8), UserError, "token -1"),
        (lambda: ar.check_prompt(np.zeros((1, 2)), V, 8), UserError, "expected integer tokens"),
        (lambda: draw(prompt=jnp.zeros((1, 17), jnp.int32)), ConfigError, "17 tokens do not fit into 16 slots"),
    ],
)
def test_mistakes_are_named_in_one_line(make, kind, message):
    with pytest.raises(kind, match=message) as error:
        make()
    assert "\n" not in str(error.value)
