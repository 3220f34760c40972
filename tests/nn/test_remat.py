"""Named policies: what is computed twice, counted in the program, in a transformer and in a U-Net."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.nn.remat import remat
from causal_gen.nn.transformer import Decoder
from causal_gen.nn.transformer_config import TransformerConfig
from causal_gen.nn.unet import UNet
from causal_gen.structure.masks import causal
from causal_gen.train.meter import count_flops


def flops(model, *args):
    """Of a gradient, and of the forward pass."""
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), *args))
    first = lambda params: jax.tree.leaves(model.apply(params, *args))[0].sum()  # noqa: E731
    return [count_flops(jax.make_jaxpr(f)(params).jaxpr) for f in (jax.grad(first), first)]


@pytest.mark.parametrize("scan", [False, True])
def test_a_transformer_recomputes_nothing_its_attention_or_all(scan):
    x, fields, width, layers, t = jnp.zeros((2, 12, 16)), {"index": np.arange(12)}, 16, 3, 12

    def of(policy):
        config = TransformerConfig(width=width, layers=layers, heads=4, backend="dense", scan=scan, remat=policy)
        return flops(Decoder(config, causal()), x, fields)

    (none, forward), (dots, _), (full, _) = of("none"), of("dots"), of("full")
    attention = layers * 2 * 2 * 2 * t * t * width  # scores and their product with values, 2 texts, 2 FLOPs a multiply-add
    assert none < dots <= none + attention
    assert full == pytest.approx(none + forward, rel=0.2) and full - none > 2 * attention


def test_a_unet_recomputes_its_blocks_under_full_and_no_convolution_under_dots():
    args = jnp.zeros((2, 8, 8, 3)), jnp.ones((2,), jnp.int32)
    none, dots, full = (
        flops(UNet(out=3, channels=8, multipliers=(1, 1), groups=4, middle_attention=False, remat=policy), *args)[0]
        for policy in ("none", "dots", "full")
    )
    assert none == dots < full


@pytest.mark.parametrize("policy", ["none", "dots", "full"])
def test_values_and_gradients_are_those_of_the_plain_block(policy):
    w, x = jax.random.normal(jax.random.key(0), (2, 5, 5))
    block = lambda w: jnp.tanh(jnp.tanh(x @ w) @ w).sum()  # noqa: E731
    found, plain = jax.grad(remat(policy, block))(w), jax.grad(block)(w)
    np.testing.assert_allclose(found, plain, atol=1e-6)
