"""FLOPs against hand counts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from causal_gen.parallel.mesh import MeshConfig, make_mesh
from causal_gen.train.meter import count_flops, peak_flops

A, B = jnp.ones((3, 5)), jnp.ones((5, 7))


def flops(f, *args):
    return count_flops(jax.make_jaxpr(f)(*args).jaxpr)


def conv(x, w, stride=1):
    return jax.lax.conv_general_dilated(x, w, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def test_a_matrix_product_is_two_a_multiply_add_and_its_gradient_twice_that():
    one = 2 * 3 * 5 * 7
    assert flops(lambda a, b: a @ b, A, B) == one
    assert flops(jax.jit(jax.grad(lambda a, b: jnp.sum((a @ b) ** 2), (0, 1))), A, B) == 3 * one
    batched = flops(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), jnp.ones((4, 3, 5)), jnp.ones((4, 5, 7)))
    assert batched == 4 * one


def test_a_loop_counts_its_length_and_a_branch_its_dearest():
    one = 2 * 3 * 5 * 7
    assert flops(lambda a, b: jax.lax.scan(lambda c, _: (c, a @ b), 0.0, None, length=6)[1], A, B) == 6 * one
    branch = flops(lambda p, a, b: jax.lax.cond(p, lambda: jnp.sum(a @ b), lambda: 0.0), True, A, B)
    assert branch == one


@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_and_its_two_gradients_cost_three_times_one(stride):
    x, w = jnp.ones((2, 8, 8, 4)), jnp.ones((3, 3, 4, 6))
    one = 2 * (2 * (8 // stride) ** 2 * 6) * 3 * 3 * 4
    assert flops(lambda x, w: conv(x, w, stride), x, w) == one
    both = flops(jax.grad(lambda x, w: jnp.sum(conv(x, w, stride) ** 2), (0, 1)), x, w)
    assert both == pytest.approx(3 * one, rel=0.01)


def test_a_cpu_is_measured_and_simulated_devices_share_it():
    assert 1e8 < peak_flops(make_mesh(MeshConfig())) < 1e14
