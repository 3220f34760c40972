"""Linear layers by rows: the numbers of the plain product, and gradients that contract one axis."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from causal_gen.nn.linear import Dense, by_rows
from causal_gen.parallel import mesh as meshes

PLAIN = (((2,), (0,)), ((), ()))


@pytest.mark.parametrize("widths", [(6, 10), (10, 6), (8, 8)])
def test_values_and_gradients_are_those_of_the_plain_product(widths):
    x, kernel = jax.random.normal(jax.random.key(0), (2, 3, widths[0])), jax.random.normal(jax.random.key(1), widths)

    def slopes(product):
        return jax.value_and_grad(lambda x, kernel: jnp.sin(product(x, kernel, PLAIN)).sum(), (0, 1))(x, kernel)

    jax.tree.map(lambda found, wanted: np.testing.assert_allclose(found, wanted, atol=1e-5), slopes(by_rows), slopes(jax.lax.dot_general))


def test_a_gradient_contracts_one_axis_of_rows_and_no_weight_is_named_anew():
    layer, x = Dense(5, name="in"), jnp.ones((2, 3, 4))
    params = layer.init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, params) == {"params": {"kernel": (4, 5), "bias": (5,)}}
    traced = jax.make_jaxpr(jax.grad(lambda p: layer.apply(p, x).sum()))(params).jaxpr
    dots = [e for e in _equations(traced) if e.primitive.name == "dot_general"]
    assert dots and all(len(e.params["dimension_numbers"][0][0]) == 1 for e in dots)


def test_where_a_mesh_splits_positions_rows_stay_apart():
    x, kernel = jnp.ones((2, 4, 6)), jnp.ones((6, 6))
    mesh = meshes.make_mesh(meshes.MeshConfig(data=1, sequence=2), jax.devices()[:2])
    with jax.set_mesh(mesh):
        assert "reshape" not in str(jax.make_jaxpr(lambda x: by_rows(x, kernel, PLAIN))(x))
    assert "reshape" in str(jax.make_jaxpr(lambda x: by_rows(x, kernel, PLAIN))(x))


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from _equations(inner)
