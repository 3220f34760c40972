"""The mixture of experts against a loop over tokens, and its limit of one expert."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.nn.experts import Experts, balance
from causal_gen.nn.mlp import Mlp, activate

INIT = nn.initializers.lecun_normal()


@pytest.mark.parametrize(("kind", "active", "heard"), [("gelu", 1, 0), ("swiglu", 2, 0), ("gelu", 2, 3)])
def test_every_token_gets_its_experts_as_in_a_loop(kind, active, heard):
    """Also where the router, and it alone, hears more than the token."""
    layer = Experts(5, active, kind, 6, INIT)
    x = jax.random.normal(jax.random.key(0), (2, 7, 4))
    z = jax.random.normal(jax.random.key(2), (2, 7, heard)) if heard else None
    params = layer.init(jax.random.key(1), x, z)
    out, even = jax.jit(layer.apply)(params, x, z)
    p = params["params"]
    expected, choices = np.zeros((2, 7, 4)), np.zeros((2, 5))
    probabilities = np.asarray(jax.nn.softmax((x if z is None else jnp.concatenate([x, z], -1)) @ p["router"], -1))
    for b, t in np.ndindex(2, 7):
        for e in np.argsort(-probabilities[b, t])[:active]:
            expected[b, t] += probabilities[b, t, e] * np.asarray(activate(kind, x[b, t] @ p["in"][e]) @ p["out"][e])
            choices[b, e] += 1 / (7 * active)
    np.testing.assert_allclose(out, expected, atol=1e-5)
    np.testing.assert_allclose(even, 5 * (choices * probabilities.mean(1)).sum(-1), rtol=1e-5)


def test_one_expert_is_the_plain_layer():
    x = jax.random.normal(jax.random.key(0), (2, 7, 4))
    one, plain = Experts(1, 1, "swiglu", 6, INIT), Mlp("swiglu", 6, INIT, bias=False)
    params = one.init(jax.random.key(1), x)["params"]
    same = {name: {"kernel": params[name][0]} for name in ("in", "out")}
    out, even = one.apply({"params": params}, x)
    np.testing.assert_allclose(out, plain.apply({"params": same}, x), atol=1e-6)
    np.testing.assert_allclose(even, 1.0)


def test_no_token_hears_of_another():
    """A router with capacity would drop a token because of who else came; here the Jacobian across tokens is 0."""
    layer = Experts(3, 1, "gelu", 6, INIT)
    x = jax.random.normal(jax.random.key(0), (2, 5, 4))
    params = layer.init(jax.random.key(1), x)
    felt = jnp.abs(jax.jit(jax.jacrev(lambda x: layer.apply(params, x)[0].sum(-1)))(x)).sum(-1)
    own = np.eye(10).reshape(2, 5, 2, 5) > 0
    assert (felt[~own] == 0).all() and (felt[own] > 0).all()


def test_balance_is_one_when_even_and_the_number_of_experts_at_worst():
    even = balance(jnp.full((1, 8, 4), 0.25), jnp.arange(8).reshape(1, 8, 1) % 4)
    worst = balance(jax.nn.one_hot(jnp.zeros((1, 8), int), 4), jnp.zeros((1, 8, 1), int))
    np.testing.assert_allclose(jnp.concatenate([even, worst]), [1.0, 4.0])
