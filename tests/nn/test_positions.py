"""Rotations and biases by their laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.nn.positions import Alibi, rotary, rotate, slopes
from causal_gen.structure.visibility import fields_for
from causal_gen.types import ConfigError

KINDS = {
    "rope": lambda shift: {"position": jnp.arange(6) ** 2 + shift},
    "rope2d": lambda shift: {"row": jnp.array([0, 0, 1, 1, 2, 2]) + shift, "column": jnp.array([0, 1, 0, 1, 0, 1]) - 2 * shift},
    "rope_dual": lambda shift: {"position": jnp.arange(6) + shift, "frame": jnp.array([0, 0, 1, 1, 2, 2]) + 3 * shift},
}


def scores(kind: str, fields: dict) -> jax.Array:
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 6, 1, 8))
    angles = rotary(kind, {"index": jnp.arange(6), **fields}, 8)
    return jnp.einsum("bqhd,bkhd->qk", rotate(q, angles), rotate(k, angles))


@pytest.mark.parametrize("kind", KINDS)
def test_scores_depend_on_differences_of_places_alone(kind):
    at, shifted = (scores(kind, KINDS[kind](shift)) for shift in (0, 7))
    np.testing.assert_allclose(at, shifted, atol=1e-4)
    elsewhere = {name: field[::-1] for name, field in KINDS[kind](0).items()}
    assert float(jnp.abs(scores(kind, elsewhere) - at).max()) > 0.1


def test_rotation_is_that_of_the_complex_plane():
    x, place = jax.random.normal(jax.random.key(1), (2, 5, 3, 6)), np.array([0, 1, 5, 9, 100])
    z = np.asarray(x[..., :3]) + 1j * np.asarray(x[..., 3:])
    turned = z * np.exp(1j * place[:, None] * 10_000.0 ** (-np.arange(3) / 3))[None, :, None, :]
    ours = rotate(x, rotary("rope", {"index": place}, 6))
    np.testing.assert_allclose(ours, np.concatenate([turned.real, turned.imag], -1), atol=1e-5)


def test_dual_rope_in_frame_zero_is_rope():
    position = {"position": jnp.arange(6) * 3}
    np.testing.assert_allclose(scores("rope_dual", {**position, "frame": jnp.zeros(6, int)}), scores("rope", position), atol=1e-6)


def test_slopes_are_geometric_and_interleave_for_other_numbers_of_heads():
    np.testing.assert_allclose(slopes(8), [2.0**-i for i in range(1, 9)])
    np.testing.assert_allclose(slopes(6), [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8, 2.0**-1, 2.0**-3])


def test_alibi_is_minus_slope_times_distance():
    q, k = fields_for(2, 5)
    bias = Alibi(2)(q, k)
    assert bias.shape == (1, 2, 2, 5)
    np.testing.assert_allclose(bias[0, 1], -(2.0**-8) * np.abs(np.array([[3], [4]]) - np.arange(5)))


def test_a_missing_field_is_named():
    with pytest.raises(ConfigError, match="'row'.*index"):
        rotary("rope2d", {"index": jnp.arange(4)}, 8)
