"""Every prefix read anew is the prefix alone: in parallel, step by step and in a tree, under visibilities that are not causal."""

from __future__ import annotations

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.models.causal_transformer import CausalTransformer
from causal_gen.models.causal_transformer_config import CacheConfig, CausalTransformerConfig
from causal_gen.models.decoding import generate
from causal_gen.nn.transformer_config import TransformerConfig
from causal_gen.sampling.speculative import Tree
from causal_gen.sampling.truncation import DecodingConfig
from causal_gen.scm.counterfactual import abduct, predict
from causal_gen.scm.intervention import do
from causal_gen.types import ConfigError, Entry

V, T, B = 5, 8, 2
KEY = jax.random.key(0)
TOKENS = jax.random.randint(jax.random.key(5), (B, T), 0, V)
SEGMENT = jnp.broadcast_to(jnp.array([0, 0, 0, 1, 1, -1, -1, -1]), (B, T))
BATCH = {"tokens": TOKENS, "segment": SEGMENT}


def make(visibility: str = "full()", prefixes: int = T, layers: int = 2, length: int = T, vocabulary: int = V) -> CausalTransformer:
    transformer = TransformerConfig(width=8, layers=layers, heads=2, backend="dense", mlp_ratio=2.0)
    config = CausalTransformerConfig(visibility=visibility, prefixes=prefixes, cache=CacheConfig("reread"), transformer=transformer)
    return config.make({"tokens": Entry((length,), "int32", vocabulary=vocabulary)}, {}, DecodingConfig(), "", "none")


@functools.cache
def params(layers: int = 2, vocabulary: int = V):
    """Off the start, so that logits differ by some nats; no visibility has a say in them."""
    with jax.ensure_compile_time_eval():
        leaves, tree = jax.tree.flatten(jax.jit(make(layers=layers, vocabulary=vocabulary).init)(KEY))
        keys = jax.random.split(jax.random.key(1), len(leaves))
        return jax.tree.unflatten(tree, [p + 0.4 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)])


@functools.partial(jax.jit, static_argnums=0)
def logits(model, params, batch):
    return model.conditionals(params, batch)["tokens"].logits


@pytest.mark.parametrize("visibility", ["full()", "segment_block()"])
def test_a_token_is_predicted_by_what_comes_before_it_alone(visibility):
    """Against one run for each prefix, whose last slot is read. The last `prefixes` are asked for, no others."""
    once, found = make(visibility, 0), logits(make(visibility), params(), BATCH)
    for t in (1, 4, 5, T):
        alone = logits(once, params(), {name: value[:, :t] for name, value in BATCH.items()})
        np.testing.assert_allclose(found[:, t - 1], alone[:, -1], atol=1e-5)
    few = logits(make(visibility, 3), params(), BATCH)
    np.testing.assert_allclose(few[:, -3:], found[:, -3:], atol=1e-5)
    assert not few[:, :-3].any()


def test_with_one_layer_the_last_token_is_the_causal_decoders_and_with_two_it_is_not():
    """One layer reads embeddings, which know of nobody; a second reads what the first made of each slot, by what was there to see."""
    for layers, same in ((1, True), (2, False)):
        gap = jnp.abs(logits(make(layers=layers), params(layers), BATCH) - logits(make("causal()", 0, layers), params(layers), BATCH))
        assert gap.max() < 1e-5 if same else gap[:, 2:].max(-1).min() > 1e-2


def test_nothing_leaks_though_nothing_is_masked():
    plain = np.asarray(logits(make(), params(), BATCH))
    for j in range(T):
        other = np.where(np.arange(T) == j, (TOKENS + 1) % V, TOKENS)
        moved = (np.asarray(logits(make(), params(), {**BATCH, "tokens": other})) != plain).any(-1)
        assert not moved[:, : j + 1].any() and moved[:, j + 1 :].all()


def test_probabilities_of_all_texts_add_up_to_one():
    model = make(length=3, prefixes=3, vocabulary=3)
    texts = jnp.array(list(itertools.product(range(3), repeat=3)))
    found = jax.jit(lambda texts: model.log_prob(params(vocabulary=3), KEY, {"tokens": texts}))(texts)
    np.testing.assert_allclose(np.exp(np.asarray(found, np.float64)).sum(), 1, atol=1e-5)
    assert np.exp(found).max() > 2 / 27


@pytest.mark.parametrize("visibility", ["full()", "segment_block()"])
def test_steps_over_the_tokens_kept_give_the_logits_of_the_whole_pass(visibility):
    """A prompt, several tokens at once, then one at a time."""
    model = make(visibility)
    want = logits(model, params(), BATCH)

    @jax.jit
    def run(tokens):
        first, cache = model.prefill(params(), tokens[:, :2], BATCH)
        more, cache = model.advance(params(), cache, tokens[:, 2:4])

        def step(cache, token):
            out, cache = model.advance(params(), cache, token[:, None])
            return cache, out[:, 0]

        return jnp.concatenate([first, more, jnp.swapaxes(jax.lax.scan(step, cache, tokens[:, 4 : T - 1].T)[1], 0, 1)], 1)

    np.testing.assert_allclose(run(TOKENS), want, atol=1e-5)


def test_a_tree_of_candidates_is_read_along_each_of_its_paths_and_one_is_kept():
    model = make()
    _, cache = jax.jit(lambda tokens: model.prefill(params(), tokens, BATCH))(TOKENS[:, :2])
    nodes = jnp.concatenate([TOKENS[:, 2:3], (TOKENS[:, 3:4] + jnp.array([[0, 1]])) % V, (TOKENS[:, 4:5] + jnp.array([[0, 2]])) % V], 1)
    fields = {name: jnp.asarray(value)[None] for name, value in Tree((2, 1)).fields().items()}
    out, cache = jax.jit(lambda cache: model.advance(params(), cache, nodes, fields))(cache)
    texts = {path: jnp.concatenate([TOKENS[:, :2], nodes[:, jnp.array(path)], TOKENS[:, 5:]], 1) for path in ((0, 1, 3), (0, 2, 4))}
    for path, text in texts.items():
        np.testing.assert_allclose(out[:, jnp.array(path)], logits(model, params(), {**BATCH, "tokens": text})[:, 3:6], atol=1e-5)
    cache = model.commit(cache, jnp.array([[0, 2, 4]] * B))
    out, _ = jax.jit(lambda cache: model.advance(params(), cache, TOKENS[:, 5:7]))(cache)
    np.testing.assert_allclose(out, logits(model, params(), {**BATCH, "tokens": texts[0, 2, 4]})[:, 6:8], atol=1e-5)


def test_greedy_text_is_the_likeliest_next_token_of_every_prefix():
    model, text = make(), TOKENS[:, :3]
    drawn = generate(model, params(), KEY, text, steps=4, sampling=DecodingConfig(top_k=1), context=BATCH)
    for _ in range(4):
        padded = jnp.pad(text, ((0, 0), (0, T - text.shape[1])))
        token = jnp.argmax(logits(model, params(), {**BATCH, "tokens": padded})[:, text.shape[1]], -1)
        text = jnp.concatenate([text, token[:, None]], 1)
    np.testing.assert_array_equal(drawn.tokens, text[:, 3:])


def test_a_prompt_that_is_read_whole_is_abducted_and_changed_like_any_text():
    """The answer's laws are those of the one run that training makes; a null intervention changes nothing, another nothing before it."""
    model = make("segment_block()", 0)
    noise = abduct(model, params(), KEY, BATCH)
    np.testing.assert_array_equal(predict(model, params(), noise, BATCH)["tokens"], TOKENS)
    moved = predict(model, params(), noise, BATCH, do(tokens={2: 3}))["tokens"]
    assert (moved[:, 2] == 3).all() and (moved[:, :2] == TOKENS[:, :2]).all()
    _, laws = jax.jit(lambda tokens: model._replay(params(), noise["tokens"], BATCH, jnp.ones((B, T), bool), tokens))(TOKENS)
    whole = logits(model, params(), BATCH)
    gap = np.abs(np.asarray(jax.nn.log_softmax(laws) - jax.nn.log_softmax(whole))).max((0, 2))
    assert gap[4:].max() < 1e-5 and gap[1] > 1e-2  # slots 5.. hold answers; slot 4 holds the prompt's last token


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cache": CacheConfig()}, "set cache.kind to reread"),
        ({"capture": (0,)}, "about one run of the stack"),
        ({"latents": 3}, "leave capture empty and prefixes at 0"),
    ],
)
def test_what_cannot_be_read_anew_is_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        dataclasses.replace(make().config, **changes)
