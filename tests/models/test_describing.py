"""Pairs of a description and its code: the loss mask exactly, and the limits in which it is that of next tokens."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.data.text import token_entries
from causal_gen.models import objectives
from causal_gen.models.hybrid_transformer_config import HybridTransformerConfig, ObjectiveConfig
from causal_gen.models.objectives import Query
from causal_gen.nn.transformer_config import TransformerConfig
from causal_gen.sampling.unmask_config import UnmaskConfig
from causal_gen.types import ConfigError

T, V = 10, 7
KEY = jax.random.key(0)
TOKENS = jax.random.randint(jax.random.key(9), (4, T), 0, V)
CODE = jnp.broadcast_to(jnp.arange(T) >= 6, (4, T)).at[1, 9].set(False)  # the second row's code is shorter
WORDS = jnp.broadcast_to(jnp.arange(T) < 6, (4, T))
BATCH = {"tokens": TOKENS, "loss_mask": CODE.astype(jnp.float32)}
NEXT = ObjectiveConfig("next")
PAIRS = ObjectiveConfig("described", shifted=True, low=0.4, high=0.4)


def model(*kinds: ObjectiveConfig) -> Any:
    stack = TransformerConfig(width=8, layers=2, heads=2, backend="dense")
    config = HybridTransformerConfig(objectives=(NEXT, *kinds), transformer=stack, drawn="next")
    return config.make(token_entries(T, V, ""), {}, UnmaskConfig(), "params=float32,compute=float32,output=float32", "none")


def perturbed(of: Any) -> Any:
    leaves, tree = jax.tree.flatten(jax.jit(of.init)(KEY))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return jax.tree.unflatten(tree, [leaf + 0.3 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)])


def loss_of(of: Any, params: Any, name: str, batch: Any = BATCH) -> np.ndarray:
    """The loss of one objective as evaluation asks for it."""
    return np.asarray(jax.jit(lambda: of.loss(params, KEY, batch, step=jnp.int32(0), train=False)[1].terms[f"nll_{name}"])())


@pytest.mark.parametrize(("share", "masked"), [(0.0, 0), (0.4, 2), (1.0, 6)])
def test_the_loss_counts_code_and_masked_words_alike_and_nothing_else(share, masked):
    """Six words, of which so many are masked; neither code nor what fills the row up behind it ever is."""
    o = dataclasses.replace(PAIRS, low=share, high=share)
    row = objectives.hide(o, KEY, jnp.linspace(0, 0.9, 4), TOKENS, CODE, V, V)
    np.testing.assert_array_equal(row.hidden.sum(1), [masked] * 4)
    assert not (row.hidden & ~WORDS).any()
    np.testing.assert_array_equal(row.prefix, WORDS)
    np.testing.assert_array_equal(row.inputs, np.where(row.hidden, V, TOKENS))
    counted = np.asarray(row.hidden | CODE)
    np.testing.assert_allclose(row.weight, counted / counted.sum(1, keepdims=True), rtol=1e-6)


def test_shares_are_spread_between_low_and_high():
    at = jnp.array([0.0, 0.3, 0.5, 1.0])
    row = objectives.hide(dataclasses.replace(PAIRS, low=0.0, high=1.0), KEY, at, TOKENS, CODE, V, V)
    np.testing.assert_array_equal(row.hidden.sum(1), [0, 2, 3, 6])


def test_without_masked_words_it_is_the_loss_of_next_tokens_of_code_and_with_all_counted_that_of_all_tokens():
    of = model(dataclasses.replace(PAIRS, name="bare", low=0.0, high=0.0), dataclasses.replace(PAIRS, name="all", hides="all"))
    params = perturbed(of)
    np.testing.assert_allclose(loss_of(of, params, "bare"), loss_of(of, params, "next"), rtol=1e-5)
    every = {"tokens": TOKENS, "loss_mask": jnp.ones((4, T))}
    np.testing.assert_allclose(loss_of(of, params, "all"), loss_of(of, params, "next", every), rtol=1e-5)


def test_a_masked_word_is_told_where_the_one_before_it_stands_and_seen_by_none():
    """With the whole description masked, the words do not matter but as targets: the loss is the sum of nats of a row of masks."""
    of = model(dataclasses.replace(PAIRS, low=1.0, high=1.0))
    params, o = perturbed(of), of.config.objective("described")
    inputs = jnp.where(WORDS, V, TOKENS)
    logits = of._tell(params, o, inputs, BATCH, prefix=WORDS)
    terms = -jnp.take_along_axis(jax.nn.log_softmax(logits), TOKENS[..., None], -1)[..., 0]
    np.testing.assert_allclose(loss_of(of, params, "described"), terms.mean(1, where=WORDS | CODE), rtol=1e-5)
    later = of._tell(params, o, inputs.at[:, 8].set((inputs[:, 8] + 1) % V), BATCH, prefix=WORDS)
    np.testing.assert_array_equal(later[:, :9], logits[:, :9])
    assert (later[:, 9] != logits[:, 9]).any()


def test_with_a_prefix_the_description_sees_itself_whole_and_code_what_comes_before():
    of = model(dataclasses.replace(PAIRS, visibility="causal() | prefix()"))
    params, o = perturbed(of), of.config.objective("described")
    told = lambda tokens: np.asarray(of._tell(params, o, tokens, BATCH, prefix=WORDS))  # noqa: E731
    base, words, code = told(TOKENS), told(TOKENS.at[0, 5].set((TOKENS[0, 5] + 1) % V)), told(TOKENS.at[0, 8].set((TOKENS[0, 8] + 1) % V))
    assert (words[0, 1] != base[0, 1]).any() and (words[0, 6:] != base[0, 6:]).any(1).all()
    np.testing.assert_array_equal(code[0, :9], base[0, :9])


def test_what_it_cannot_be_asked_is_refused_in_a_line():
    with pytest.raises(ConfigError, match="described: a described token is predicted where the one before it stands; set shifted to true"):
        ObjectiveConfig("described")
    of = model(PAIRS)
    with pytest.raises(ConfigError, match="'described' says nothing of a whole row"):
        of.conditionals(perturbed(of), BATCH, Query(objective="described"))
