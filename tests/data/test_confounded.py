"""Confounded rows against their own equations: densities, effects with and without intervening."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import stats

from causal_gen.data.confounded import NOISE, ConfoundedConfig

CONFIG = ConfoundedConfig(size=100, test_size=100_000, covariates=3, effect=1.5)


def test_covariates_are_standard_normal_in_a_chain_and_residuals_are_the_noise():
    rows = CONFIG.draw("test")
    for name in CONFIG.chain:
        assert stats.kstest(rows[name][:5_000], "norm").pvalue > 1e-3
    assert abs(np.corrcoef(rows["x1"], rows["x2"])[0, 1] - 0.6) < 0.01 and abs(np.corrcoef(rows["x1"], rows["x3"])[0, 1] - 0.36) < 0.01
    for residual in (rows["outcome"] - CONFIG.mean_outcome(rows), rows["after"] - rows["outcome"]):
        assert stats.kstest(residual[:5_000] / NOISE, "norm").pvalue > 1e-3


def test_the_closed_form_is_the_effect_of_intervening_and_the_naive_difference_is_not():
    rows = CONFIG.draw("test")
    means = [CONFIG.mean_outcome({**rows, "treatment": np.full(len(rows["x1"]), value)}).mean() for value in (0, 1)]
    assert abs(means[1] - means[0] - CONFIG.make().effects["treatment", "outcome"]) < 0.01
    naive = rows["outcome"][rows["treatment"] == 1].mean() - rows["outcome"][rows["treatment"] == 0].mean()
    assert naive > CONFIG.effect + 0.5


def test_without_pull_nothing_is_confounded():
    rows = dataclasses.replace(CONFIG, pull=0.0).draw("test")
    naive = rows["outcome"][rows["treatment"] == 1].mean() - rows["outcome"][rows["treatment"] == 0].mean()
    assert abs(naive - CONFIG.effect) < 0.03 and abs(rows["treatment"].mean() - 0.5) < 0.01


def test_the_best_loss_is_the_entropy_of_the_equations():
    """That of five Gaussians in closed form, plus the treatment's, which is averaged."""
    rows = CONFIG.draw("test")
    sds = np.array([1, 0.8, 0.8, NOISE, NOISE])
    share = 1 / (1 + np.exp(-CONFIG.pull * (rows["x1"] + rows["x2"])))
    want = (np.log(sds) + 0.5 * np.log(2 * np.pi * np.e)).sum() + stats.bernoulli.entropy(share).mean()
    assert abs(CONFIG.best(rows).mean() - want) < 0.02
    moved = {**rows, "x2": rows["x2"] + 0.1}
    assert CONFIG.best(moved).mean() > CONFIG.best(rows).mean()
