"""Rates and their standard errors, against simulation and against a model whose likelihood is known."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.data.sequences import CopyConfig, MarkovConfig
from causal_gen.data.text import TextConfig
from causal_gen.evaluate import likelihood
from causal_gen.types import ConfigError

KEY = jax.random.key(0)


@dataclasses.dataclass(frozen=True)
class Uniform:
    """Every token has probability 1 / size, whatever came before."""

    size: int
    likelihood: str | None = "exact"

    def log_prob(self, params, key, batch, query=None):
        return -params * math.log(self.size) * batch["loss_mask"].sum(-1)


def test_a_uniform_model_loses_the_logarithm_of_the_vocabulary():
    """8 bits a byte, but for END, which is a token and no byte; batches that do not divide the rows change nothing."""
    source = TextConfig(documents=30, length=64).make()
    found = [likelihood.heldout(Uniform(256), jnp.float32(1), KEY, source, batch_size=size) for size in (7, 64)]
    for out in found:
        assert out["bits_per_token"]["value"] == pytest.approx(8.0, rel=1e-6) and out["bits_per_token"]["se"] == pytest.approx(0, abs=1e-5)
        texts = source.texts["test"]
        assert out["bytes"] == sum(len(text.encode()) for text in texts) and out["tokens"] == out["bytes"] + len(texts)
        assert out["bits_per_byte"]["value"] == pytest.approx(8 * out["tokens"] / out["bytes"], rel=1e-6)
        assert out["likelihood"] == "exact" and out["documents"] >= 1
    few = likelihood.heldout(Uniform(256), jnp.float32(1), KEY, source, num=3)
    assert few["rows"] == 3 and few["tokens"] == 192


def test_the_gap_to_the_best_loss_is_what_is_missing():
    source = MarkovConfig(size=1, test_size=500, states=4, items=16, scored="all", graph="chain").make()
    out = likelihood.heldout(Uniform(4), jnp.float32(1), KEY, source)
    assert out["nats_per_token"]["value"] == pytest.approx(math.log(4), rel=1e-6)
    assert out["best"] == pytest.approx(source.stats()["tokens"]["best_loss"])
    assert out["gap"]["value"] == pytest.approx(math.log(4) - out["best"], rel=1e-5) and 0 < out["gap"]["se"] < 0.05
    copy = likelihood.heldout(Uniform(17), jnp.float32(1), KEY, CopyConfig(size=1, test_size=9).make())
    assert copy["best"] == 0.0 and copy["tokens"] == 9 * 16


def test_the_standard_error_is_the_spread_of_the_rate():
    """Over 600 draws of 12 clusters of unequal sizes whose rows share an effect; counting rows as independent would halve it."""
    rng = np.random.default_rng(0)
    rates, errors, naive = [], [], []
    for _ in range(600):
        sizes = rng.integers(3, 9, 12)
        clusters = np.repeat(np.arange(12), sizes)
        units = rng.uniform(50, 100, len(clusters))
        nats = units * (1.0 + 0.2 * rng.standard_normal(12)[clusters] + 0.1 * rng.standard_normal(len(clusters)))
        value, error = likelihood.rate(nats, units, clusters)
        rates.append(value)
        errors.append(error)
        naive.append(likelihood.rate(nats, units)[1])
    assert np.mean(rates) == pytest.approx(1.0, abs=0.01)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(rates), rel=0.12)
    assert np.mean(naive) < 0.6 * np.std(rates)


def test_one_cluster_has_no_standard_error():
    value, error = likelihood.rate(np.array([1.0, 3.0]), np.array([1.0, 1.0]), np.array([5, 5]))
    assert value == 2.0 and math.isnan(error)


def test_a_model_without_a_likelihood_is_refused():
    with pytest.raises(ConfigError, match="Uniform has no likelihood"):
        likelihood.heldout(Uniform(17, None), jnp.float32(1), KEY, CopyConfig(size=1, test_size=9).make())
