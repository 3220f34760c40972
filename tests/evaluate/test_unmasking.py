"""AR-ness against orders whose answer is known."""

import math

import numpy as np
import pytest

from causal_gen.evaluate.unmasking import arness


@pytest.mark.parametrize("k", [1, 2, 4])
def test_reading_order_is_1_and_its_reverse_is_only_as_early_as_the_end_allows(k):
    forwards = np.tile(np.arange(10), (3, 1))
    assert arness(forwards, k) == {"local": 1.0, "global": 1.0}
    assert arness(forwards[:, ::-1], k)["global"] == pytest.approx(k / 10)
    assert arness(forwards[:, ::-1], k)["local"] == (1.0 if k == 1 else 0.0)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_random_orders_have_the_value_of_chance(k):
    n = 6
    found = arness(np.random.default_rng(0).random((40_000, n)).argsort(1), k)
    assert found["local"] == pytest.approx(math.factorial(n - k + 1) / math.factorial(n), abs=0.005)
    assert found["global"] == pytest.approx(np.mean([min(1, k / m) for m in range(1, n + 1)]), abs=0.005)


def test_places_known_before_do_not_count():
    assert arness(np.array([[-1, 0, -1, 1, 2]]), 2) == {"local": 0.5, "global": 1.0}
