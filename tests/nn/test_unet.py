"""The U-Net's layers against slow references, and what its input can reach."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.nn.norm import GroupNorm
from causal_gen.nn.unet import Canvas, UNet, Up, fold, footprint, timestep_embedding, unfold


def test_group_norm_is_flaxs():
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (2, 4, 4, 12))
    ours, theirs = GroupNorm(3), nn.GroupNorm(3, epsilon=1e-5)
    params = {"params": {"scale": jnp.linspace(0.5, 2, 12), "bias": jnp.linspace(-1, 1, 12)}}
    np.testing.assert_allclose(ours.apply(params, x), theirs.apply(params, x), atol=2e-5)


def test_folding_pixels_into_channels_is_undone():
    x = jax.random.normal(jax.random.key(0), (2, 6, 4, 3))
    assert fold(x, 2).shape == (2, 3, 2, 12)
    np.testing.assert_array_equal(unfold(fold(x, 2), 2), x)


def test_up_is_a_convolution_of_the_doubled_picture():
    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Conv(x.shape[-1], (3, 3), name="conv")(jnp.repeat(jnp.repeat(x, 2, 1), 2, 2))

    x = jax.random.normal(jax.random.key(0), (2, 5, 3, 4))
    params = Plain().init(jax.random.key(1), x)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, Up().init(jax.random.key(1), x))  # one checkpoint serves both
    weight = jax.random.normal(jax.random.key(2), (2, 10, 6, 4))

    def graded(module):
        return jax.value_and_grad(lambda params, x: (weight * module.apply(params, x) ** 2).sum(), (0, 1))(params, x)

    for plain, ours in zip(jax.tree.leaves(graded(Plain())), jax.tree.leaves(graded(Up())), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-4)


def test_embedding_separates_times():
    rows = timestep_embedding(jnp.arange(1, 1001), 32)
    gaps = jnp.abs(rows[1:] - rows[:-1]).max(-1)
    assert rows.shape == (1000, 32) and float(gaps.min()) > 0.05


@pytest.mark.parametrize("patch", [1, 2])
def test_every_pixel_hears_of_time_condition_and_every_other_pixel(patch):
    unet = UNet(out=3, channels=8, multipliers=(1, 2), groups=4, head_dim=8, patch=patch, coordinates=2)
    x, t, condition = jax.random.normal(jax.random.key(0), (1, 8, 8, 3)), jnp.array([500]), jnp.ones((1, 2, 5))
    params = unet.init(jax.random.key(1), x, t, condition)
    # at initialisation a block is the identity and the output zero: move off that point
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    params = jax.tree.unflatten(tree, [p + 0.1 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)])
    corner = jax.jit(jax.grad(lambda x, c: unet.apply(params, x, t, c)[0, 0, 0].sum(), argnums=(0, 1)))
    dx, dc = corner(x, condition)
    assert (jnp.abs(dx).sum(-1) > 0).all() and (jnp.abs(dc) > 0).all()
    later = unet.apply(params, x, jnp.array([100]), condition)
    assert float(jnp.abs(later - unet.apply(params, x, t, condition)).max()) > 1e-4


def test_a_factors_map_is_drawn_by_that_factor_alone():
    canvas = Canvas((2, 3, 4), hidden=5)
    factors = jax.random.normal(jax.random.key(0), (2, 3, 6))
    params = canvas.init(jax.random.key(1), factors)
    jacobian = jax.jacrev(lambda f: canvas.apply(params, f).sum((3, 4, 2)))(factors)  # [b, n] by [b, n, f]
    felt = jnp.abs(jacobian).sum(-1)
    own = jnp.einsum("bn,cm->bncm", jnp.ones((2, 3)), jnp.ones((2, 3))) * jnp.eye(2)[:, None, :, None] * jnp.eye(3)[None, :, None, :]
    assert (felt[own == 0] == 0).all() and (felt[own > 0] > 0).all()


def test_of_two_factors_that_draw_the_same_the_cheaper_one_is_left():
    """Subgradient descent on maps whose sum is fixed: the price decides, and at equal footprints sharing costs no less."""
    target = jnp.ones((1, 2, 2, 3))
    price = jnp.array([1.5, 1.0])

    def cost(first):
        return footprint(jnp.stack([first, target - first], 1), price)[0]

    slope, first = jax.jit(jax.grad(cost)), 0.5 * target
    for _ in range(200):
        first = first - 0.1 * slope(first)
    assert float(jnp.abs(first).max()) < 0.1 and float(cost(first)) < float(cost(0.5 * target))
