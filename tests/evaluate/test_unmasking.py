"""AR-ness against orders whose answer is known, and what is measured of networks that know all or nothing."""

import dataclasses
import math
from typing import Any

import jax
import numpy as np
import pytest

from causal_gen.build import build, load_config
from causal_gen.evaluate.unmasking import arness, measure


@pytest.mark.parametrize("k", [1, 2, 4])
def test_reading_order_is_1_and_its_reverse_is_only_as_early_as_the_end_allows(k):
    forwards = np.tile(np.arange(10), (3, 1))
    assert arness(forwards, k) == {"local": 1.0, "global": 1.0}
    assert arness(forwards[:, ::-1], k)["global"] == pytest.approx(k / 10)
    assert arness(forwards[:, ::-1], k)["local"] == (1.0 if k == 1 else 0.0)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_random_orders_have_the_value_of_chance(k):
    n = 6
    found = arness(np.random.default_rng(0).random((10_000, n)).argsort(1), k)
    assert found["local"] == pytest.approx(math.factorial(n - k + 1) / math.factorial(n), abs=0.01)
    assert found["global"] == pytest.approx(np.mean([min(1, k / m) for m in range(1, n + 1)]), abs=0.01)


def test_places_known_before_do_not_count():
    assert arness(np.array([[-1, 0, -1, 1, 2]]), 2) == {"local": 0.5, "global": 1.0}


def test_both_orders_are_measured_on_puzzles_with_the_networks_own_plan():
    """An oracle that knows the answers solves all in any order; a network fresh from its start nothing."""
    experiment = build(load_config("configs/hybrid_transformer/sudoku.py:tiny", {"sampling.steps": 4}))
    model, indices = experiment.model, np.arange(6)
    params = jax.jit(model.init)(jax.random.key(0))
    found = measure(model, params, jax.random.key(1), experiment.data, indices, 3)
    for policy in ("margin", "random"):
        assert found[policy]["calls"] == 4 and found[policy]["places"] == 10
        assert found[policy]["solved"] == found[policy]["rows"] == 0 and 0 < found[policy]["right"] < 1
    assert sum(found["plan"]["counts"]) == 16 and len(found["plan"]["counts"]) == 4
    assert found["plan"]["nats"] <= found["plan"]["nats_even"]
    known = dataclasses.replace(Knows(model), answers=experiment.data.gather("test", indices)["tokens"])
    for told in measure(known, params, jax.random.key(1), experiment.data, indices, 6).values():
        assert "solved" not in told or told["solved"] == told["rows"] == told["right"] == 1


@dataclasses.dataclass(frozen=True, eq=False)
class Knows:
    """`model`, whose network is the answers."""

    model: Any
    answers: Any = None

    def __getattr__(self, name):
        return getattr(self.model, name)

    def predictor(self, params, context):
        return lambda tokens, share: 50.0 * jax.nn.one_hot(self.answers, self.model.vocabulary)


def test_a_model_that_fills_nothing_in_is_left_alone():
    model = build(load_config("configs/causal_transformer/text.py:tiny")).model
    assert measure(model, None, jax.random.key(0), None, np.arange(1), 1) == {}
