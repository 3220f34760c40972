"""Streams of a residual codec: codes are digits of a signal that is uniform and smooth over time."""

import numpy as np
import pytest

from causal_gen.data.codec import CodecConfig


@pytest.mark.parametrize(("values", "codebooks"), [(4, 4), (3, 2)])
def test_codes_are_the_digits_of_a_uniform_smooth_signal(values, codebooks):
    config = CodecConfig(size=4_000, test_size=50, steps=12, codebooks=codebooks, values=values, reach=2.0)
    source = config.make()
    codes = source.gather("train", np.arange(4_000))["tokens"].reshape(4_000, 12, codebooks)
    assert codes.min() == 0 and codes.max() == values - 1
    x = (codes * float(values) ** -np.arange(1, codebooks + 1)).sum(-1) + 0.5 * float(values) ** -codebooks
    for step in (0, 7):
        np.testing.assert_allclose(np.quantile(x[:, step], [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.04)
    from scipy.stats import norm

    z = norm.ppf(np.clip(x, 1e-4, 1 - 1e-4))
    for apart in (1, 2, 4):
        found = np.corrcoef(z[:, 0], z[:, apart])[0, 1]
        assert found == pytest.approx(np.exp(-(apart**2) / 8), abs=0.06)
    # a coarse code tells of itself a step later, the finest one next to nothing
    alike = (codes[:, 1:] == codes[:, :-1]).mean((0, 1))
    assert alike[0] > 1.4 / values and (codebooks < 4 or abs(alike[-1] - 1 / values) < 0.03)


def test_splits_and_seeds_differ_and_a_longer_draw_begins_with_the_shorter():
    one, other, more = (CodecConfig(size=size, test_size=8, seed=seed).make() for size, seed in ((8, 0), (8, 1), (16, 0)))
    rows = one.gather("train", np.arange(8))["tokens"]
    assert (rows != one.gather("test", np.arange(8))["tokens"]).any() and (rows != other.gather("train", np.arange(8))["tokens"]).any()
    np.testing.assert_array_equal(rows, more.gather("train", np.arange(8))["tokens"])
