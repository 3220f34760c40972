"""Low-rank updates: zero at the start, merged weights are the update itself, and only what is named is touched."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.nn import adapters
from causal_gen.nn.adapters import AdapterConfig
from causal_gen.types import ConfigError

QKV = {"kernel": jnp.ones((3, 4, 6)), "bias": jnp.zeros((3, 6))}
WEIGHTS = {"blocks": {"attention": {"qkv": QKV}, "mlp": {"in": {"kernel": jnp.ones((3, 4, 8))}}}, "norm": {"scale": jnp.ones((4,))}}
CONFIG = AdapterConfig(rank=2, scale=6.0)


def test_merged_weights_are_the_weights_plus_the_scaled_product_layer_by_layer():
    made = adapters.init(jax.random.key(0), WEIGHTS, CONFIG)
    update = made["blocks"]["attention"]["qkv"]["kernel"]
    assert set(made["blocks"]) == {"attention"} and not np.any(update["up"]) and np.any(update["down"])
    jax.tree.map(np.testing.assert_array_equal, adapters.merge(WEIGHTS, made, CONFIG), WEIGHTS)
    update["up"] = jax.random.normal(jax.random.key(1), update["up"].shape)
    merged = adapters.merge(WEIGHTS, made, CONFIG)
    x = jax.random.normal(jax.random.key(2), (5, 4))
    for layer in range(3):
        beside = x @ WEIGHTS["blocks"]["attention"]["qkv"]["kernel"][layer] + 3.0 * (x @ update["down"][layer]) @ update["up"][layer]
        np.testing.assert_allclose(x @ merged["blocks"]["attention"]["qkv"]["kernel"][layer], beside, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(merged["blocks"]["mlp"]["in"]["kernel"], WEIGHTS["blocks"]["mlp"]["in"]["kernel"])
    assert np.linalg.matrix_rank(merged["blocks"]["attention"]["qkv"]["kernel"][0] - 1) == 2


def test_targets_that_are_not_there_are_named():
    with pytest.raises(ConfigError, match="'attn' is found in no matrix; there are blocks/attention/qkv/kernel, blocks/mlp/in/kernel"):
        adapters.init(jax.random.key(0), WEIGHTS, AdapterConfig(rank=1, targets="attn"))
    with pytest.raises(ConfigError, match="no regular expression"):
        AdapterConfig(targets="(")
