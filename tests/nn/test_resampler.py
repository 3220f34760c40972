"""Who reads what of a film, from its fractions and windows alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.nn.resampler import Resampler
from causal_gen.nn.resampler_config import ResamplerConfig
from causal_gen.nn.transformer_config import TransformerConfig

SMALL = TransformerConfig(width=8, heads=2, backend="dense")
SHARES = ResamplerConfig(queries=4, visibility='causal("fraction", strict=True)')


def seen(config: ResamplerConfig, inputs: int) -> np.ndarray:
    q, k = config.fields(inputs)
    return np.asarray(config.seen(q, k))[0, 0]


@pytest.mark.parametrize("frames", [1, 3, 4, 8, 12, 32, 96, 97])
@pytest.mark.parametrize("queries", [1, 3, 4, 7])
def test_a_query_sees_its_share_of_any_film(frames, queries):
    """In whole numbers: query i of k sees frame f of F where f k < (i + 1) F. The first sees something, the last everything."""
    found = seen(ResamplerConfig(queries=queries, visibility='causal("fraction", strict=True)'), frames)
    i, f = np.arange(queries)[:, None], np.arange(frames)
    np.testing.assert_array_equal(found, f * queries < (i + 1) * frames)
    assert found[:, 0].all() and found[-1].all()


def test_windows_are_whole_frames_and_a_share_goes_on_over_them():
    config = ResamplerConfig(queries=2, frame=2, window=3, visibility='causal("window")')
    assert config.windows(12) == 2 and config.problem(12) is None and config.problem(8) is not None
    np.testing.assert_array_equal(seen(config, 12), np.repeat([[1, 0], [1, 1]], 2, 0).repeat(6, 1))
    q, k = config.fields(12)
    np.testing.assert_allclose(q["fraction"], [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(k["fraction"], np.repeat(np.arange(6) / 6, 2))
    np.testing.assert_array_equal(q["frame"], [2, 2, 5, 5])
    np.testing.assert_array_equal(k["frame"], np.repeat(np.arange(6), 2))


def test_what_a_query_reads_does_not_depend_on_the_order_of_what_it_sees():
    layer, x = Resampler(SHARES, SMALL), jax.random.normal(jax.random.key(0), (2, 8, 8))
    params = jax.jit(layer.init)(jax.random.key(1), x)
    run = jax.jit(layer.apply)
    plain, turned = run(params, x), run(params, x[:, np.array([1, 0, 2, 3, 5, 4, 7, 6])])
    np.testing.assert_allclose(turned, plain, atol=1e-5)
    across = run(params, x[:, np.array([0, 2, 1, 3, 4, 5, 6, 7])])
    moved = np.abs(np.asarray(across - plain)).max((0, 1, 3))
    assert moved[0] > 1e-3 and moved[1:].max() < 1e-5


def test_queries_share_their_weights_over_windows():
    """The same pictures in both windows, each seen by its own queries alone, read the same."""
    config = ResamplerConfig(queries=3, window=2, visibility='same("window")')
    layer, x = Resampler(config, SMALL), jax.random.normal(jax.random.key(0), (1, 2, 8))
    twice = jnp.tile(x, (1, 2, 1))
    params = jax.jit(layer.init)(jax.random.key(1), twice)
    found = jax.jit(layer.apply)(params, twice)
    assert found.shape == (1, 2, 3, 8)
    np.testing.assert_allclose(found[:, 0], found[:, 1], atol=1e-6)
    assert np.abs(np.asarray(found[:, :, 0] - found[:, :, 1])).max() > 1e-2
