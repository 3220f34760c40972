"""Plug-in estimates: exact on exact frequencies, and intervals that hold the truth as often as they say."""

import numpy as np
import pytest

from causal_gen.scm import plugin
from causal_gen.scm.identify import Effect, identify
from causal_gen.structure.graph_mixed import Admg
from causal_gen.types import DataError
from tests.scm.discrete_at_hand import DiscreteModel

GRAPH = Admg.parse("x -> m -> y, x <-> y")
FOUND = identify(GRAPH, Effect.parse("p(y | do(x))"))


def test_intervals_of_90_percent_hold_the_truth_in_about_90_percent_of_data_sets():
    model, rng = DiscreteModel(GRAPH, np.random.default_rng(2)), np.random.default_rng(0)
    joint, truth, held, biased = model.distribution(), model.effect(("y",), ("x",)), [], []
    for seed in range(60):
        counts = rng.multinomial(1500, joint.ravel()).reshape(joint.shape).astype(float)
        told = plugin.estimate(FOUND, GRAPH.nodes, counts, 80, seed)
        held.append((told.low <= truth) & (truth <= told.high))
        seen = plugin.conditioned(FOUND, GRAPH.nodes, counts)
        biased.append((told.low <= seen) & (seen <= told.high))
    assert 0.8 < np.mean(held) < 0.98 and np.mean(biased) < 0.5, (np.mean(held), np.mean(biased))


def test_many_rows_give_the_truth_and_one_seed_gives_one_answer():
    model = DiscreteModel(GRAPH, np.random.default_rng(1), 3)
    counts = model.distribution() * 1e9
    told = [plugin.estimate(FOUND, GRAPH.nodes, counts, 5, 3) for _ in range(2)]
    np.testing.assert_allclose(told[0].value, model.effect(("y",), ("x",)), atol=1e-10)
    assert (told[0].low == told[1].low).all() and np.abs(told[0].high - told[0].low).max() < 1e-3


def test_counting_gives_every_row_its_cell_and_what_was_never_seen_is_undefined():
    names, counts = plugin.count({"x": np.array([0, 0, 1]), "y": np.array([0, 1, 1])}, {"x": 3, "y": 2})
    np.testing.assert_array_equal(counts, [[1, 1], [0, 1], [0, 0]])
    told = plugin.estimate(identify(Admg.parse("x -> y"), Effect.parse("p(y | do(x))")), names, counts, 50)
    np.testing.assert_array_equal(np.isnan(told.value), [[False, False, True]] * 2)
    assert np.isnan(told.low[:, 2]).all() and np.isfinite(told.low[:, :2]).all() and told.rows == 3


@pytest.mark.parametrize(
    ("columns", "sizes", "message"),
    [
        (
            {"x": np.array([0]), "y": np.array([0])},
            {"x": 3000, "y": 3000},
            "9,000,000 joint states of x, y; 'x' has 3000: put it into fewer",
        ),
        ({"x": np.array([], int)}, {"x": 2}, "there are no rows"),
    ],
)
def test_what_cannot_be_counted_is_refused(columns, sizes, message):
    with pytest.raises(DataError, match=message):
        plugin.count(columns, sizes)
