"""Scalings and fitted marginals are bijections with the law they claim."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats as st

from causal_gen.scm.marginal import Marginal, Scaling

RNG = np.random.default_rng(0)
GAMMA = 0.5 + RNG.gamma(10, 1 / 5, 50_000)


def _stats(values):
    return {"mean": values.mean(), "std": values.std(), "quantiles": np.quantile(values, np.linspace(0, 1, 65))}


@pytest.mark.parametrize("kind", ["standard", "logit"])
def test_scaling_is_inverted(kind):
    values = 64 + 191 * RNG.uniform(0.01, 0.99, 1000)
    scaling = Scaling.fit(kind, _stats(values), 64.0, 255.0)
    unit = scaling.forward(jnp.asarray(values, jnp.float32))
    np.testing.assert_allclose(scaling.inverse(unit), values, rtol=1e-4)
    assert abs(float(unit.mean())) < 0.1 and abs(float(unit.std()) - 1) < 0.1


def test_logit_makes_noise_before_a_sigmoid_additive():
    """i = 64 + 191 sigmoid(m + e): on logit scale the effect of m is a shift, whatever e; on the standard scale it is not."""
    e = RNG.normal(size=2000)
    low, high = (64 + 191 / (1 + np.exp(-(m + e))) for m in (-1.0, 1.0))
    fit = {kind: Scaling.fit(kind, _stats(np.concatenate([low, high])), 64.0, 255.0) for kind in ("logit", "standard")}
    spread = {
        kind: float(jnp.std(s.forward(jnp.asarray(high, jnp.float32)) - s.forward(jnp.asarray(low, jnp.float32))))
        for kind, s in fit.items()
    }
    assert spread["logit"] < 1e-3 < 0.05 < spread["standard"]


def test_logit_needs_bounds():
    with pytest.raises(ValueError, match="bounded on both sides"):
        Scaling.fit("logit", _stats(GAMMA), None, 3.0)


def test_marginal_is_inverted_in_the_tails_too():
    scaling = Scaling.fit("standard", _stats(GAMMA), None, None)
    marginal = Marginal.fit(_stats(GAMMA)["quantiles"], scaling)
    noise = jnp.linspace(-4, 4, 10_001)
    unit = marginal.forward(noise)
    assert (jnp.diff(unit) > 0).all()
    np.testing.assert_allclose(marginal.inverse(unit), noise, atol=1e-3)


def test_standard_normal_noise_takes_the_law_of_the_data():
    """Kolmogorov-Smirnov against the generating Gamma; the identity map in its place must fail."""
    scaling = Scaling.fit("standard", _stats(GAMMA), None, None)
    marginal = Marginal.fit(_stats(GAMMA)["quantiles"], scaling)
    noise = jax.random.normal(jax.random.key(1), (20_000,))
    law = st.gamma(10, 0.5, 1 / 5).cdf
    assert st.kstest(np.asarray(scaling.inverse(marginal.forward(noise))), law).statistic < 0.015
    assert st.kstest(np.asarray(scaling.inverse(noise)), law).statistic > 0.03
