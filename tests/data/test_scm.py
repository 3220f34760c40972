"""Equations whose counterfactuals are known: rows obey them, and their densities are those of the rows."""

from __future__ import annotations

import numpy as np
import pytest

import causal_gen as cg
from causal_gen.data.scm import ScmConfig, X, Y, Z

SYSTEMS = ("linear", "triangle", "chain", "mediator", "ellipse", "discrete")


@pytest.mark.parametrize("system", SYSTEMS)
def test_without_an_intervention_the_truth_is_the_row_and_under_one_only_what_is_below_moves(system):
    source = ScmConfig(system=system, size=50, test_size=50).make()
    rows, edges = source.gather("test", np.arange(50)), source.config.equations().edges
    for name, value in source.truth("test", np.arange(50), None).items():
        np.testing.assert_array_equal(value, rows[name])
    for cause in rows:
        below, grown = {cause}, True
        while grown:
            more = {child for parent, child in edges if parent in below} - below
            below, grown = below | more, bool(more)
        truth = source.truth("test", np.arange(50), cg.do(**{cause: 1.0}))
        assert (truth[cause] == 1).all()
        moved = {name for name in rows if (truth[name] != rows[name]).any()}
        assert moved <= below and (system == "discrete" or moved == below)


def test_the_ellipse_obeys_the_closed_form_of_its_counterfactual():
    """x* = x (2 + cos t*) / (2 + cos t), y* = y (2 + sin t*) / (2 + sin t)."""
    source = ScmConfig(system="ellipse", size=8, test_size=100).make()
    rows = source.gather("test", np.arange(100))
    truth = source.truth("test", np.arange(100), cg.do(t=1.0))
    np.testing.assert_allclose(truth["x"], rows["x"] * (2 + np.cos(1)) / (2 + np.cos(rows["t"])), rtol=1e-5)
    np.testing.assert_allclose(truth["y"], rows["y"] * (2 + np.sin(1)) / (2 + np.sin(rows["t"])), rtol=1e-5)


@pytest.mark.parametrize("system", ["linear", "triangle", "chain", "mediator", "ellipse"])
def test_nats_are_those_of_the_noise_and_the_jacobian_of_the_equations(system):
    """Finite differences of all equations at once, in float64."""
    equations = ScmConfig(system=system).equations()
    noise = equations.draw(np.random.default_rng(0), 20)
    names, values = list(noise), equations.values(noise)
    jacobian, step = np.empty((20, len(names), len(names))), 1e-6
    for j, name in enumerate(names):
        up, down = (equations.values({**noise, name: noise[name] + side * step}) for side in (1, -1))
        jacobian[:, :, j] = np.stack([(up[other] - down[other]) / (2 * step) for other in names], -1)
    normal, flat = (lambda e: -0.5 * e**2 - 0.5 * np.log(2 * np.pi)), np.zeros_like
    ellipse = {"z": flat, "y": flat, "x": lambda e: -e, "t": normal}
    log_noise = ellipse if system == "ellipse" else dict.fromkeys(names, normal)
    want = -sum(log_noise[name](noise[name]) for name in names) + np.linalg.slogdet(jacobian)[1]
    found = equations.nats(values, noise)
    # a turn may wrap round, and then other draws give it too
    assert np.all(found <= want + 1e-4) and np.median(want - found) < 1e-3


def test_discrete_rows_have_the_probabilities_of_the_tables():
    source = ScmConfig(system="discrete", size=60_000, test_size=10).make()
    rows = source.gather("train", np.arange(60_000))
    joint = Z[:, None, None] * X[:, :, None] * Y
    counts = np.zeros_like(joint)
    np.add.at(counts, (rows["z"], rows["x"], rows["y"]), 1)
    assert (np.abs(counts / 60_000 - joint) <= 4.5 * np.sqrt(joint * (1 - joint) / 60_000)).all() and abs(joint.sum() - 1) < 1e-9
