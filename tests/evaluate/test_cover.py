"""Which questions the training rows cover: known clouds of points, and questions beyond them."""

from __future__ import annotations

import types

import numpy as np

import causal_gen as cg
from causal_gen.data.scm import ScmConfig
from causal_gen.evaluate.cover import Cover
from causal_gen.structure.graph import Dag


def of(system: str):
    source = ScmConfig(system=system, size=2_000, test_size=400).make()
    graph = Dag.from_edges(source.config.equations().edges)
    return types.SimpleNamespace(model=types.SimpleNamespace(graph=graph), data=source), source.gather("test", np.arange(400))


def test_rows_as_they_are_are_covered_but_for_the_share_that_is_left_out():
    run, rows = of("triangle")
    assert 0.985 < Cover(run, rows).covers("x2", "x3", rows).mean() <= 0.995


def test_a_common_value_that_never_meets_the_rows_other_cause_is_not_covered():
    """x2 = 2 x1^2 + e: x2 = -.6 is common near x1 = 0 and never seen with x1 = 3; an intervention far off covers no row."""
    run, rows = of("triangle")
    cover, num = Cover(run, rows), np.arange(400)
    inside = cover.covers("x2", "x3", run.data.truth("test", num, cg.do(x2=-0.6)))
    near, far = np.abs(rows["x1"]) < 0.7, np.abs(rows["x1"]) > 1.5
    assert inside[near].mean() > 0.95 and not inside[far].any()
    assert not cover.covers("x2", "x3", run.data.truth("test", num, cg.do(x2=-30.0))).any()


def test_a_node_further_on_is_covered_only_where_those_between_are():
    run, rows = of("chain")
    truth = run.data.truth("test", np.arange(400), cg.do(x1=9.0))
    assert not Cover(run, rows).covers("x1", "x2", truth).any()
    # a value of x2 that is common again does not make up for the x1 that nobody has
    assert not Cover(run, rows).covers("x1", "x3", truth | {"x2": rows["x2"]}).any()
