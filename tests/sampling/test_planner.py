"""The step planner against every plan there is."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.sampling.planner import even, plan, price, profile
from causal_gen.types import ConfigError
from tests.sampling.enumerable import MASK, TEXTS, law, predictor


def every_plan(n: int, budget: int):
    for ends in itertools.combinations(range(1, n), budget - 1):
        yield tuple(int(step) for step in np.diff([0, *ends, n]))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("falling", [True, False])
def test_the_plan_is_the_best_of_all_there_are(seed, falling):
    losses = np.random.default_rng(seed).gamma(1.0, size=9)
    losses = np.sort(losses)[::-1] if falling else losses
    for budget in (1, 2, 4, 9):
        found = plan(losses, budget)
        assert sum(found) == 9 and len(found) == budget
        best = min(price(losses, counts) for counts in every_plan(9, budget))
        assert price(losses, found) == pytest.approx(best, rel=1e-12)
        assert price(losses, found) <= price(losses, even(9, budget)) + 1e-12


def test_losses_that_fall_fast_at_first_are_met_one_place_at_a_time():
    assert plan([5, 3, 1, 1, 1, 1, 1, 1], 3) == (1, 1, 6)


def test_even_counts_are_those_of_the_loop():
    assert even(10, 4) == (3, 2, 3, 2)


@pytest.mark.parametrize(("losses", "budget"), [([1.0, 1.0], 3), ([1.0, 1.0], 0), ([1.0, np.nan], 1)])
def test_budgets_and_losses_that_mean_nothing_are_refused(losses, budget):
    with pytest.raises(ConfigError, match="planner"):
        plan(losses, budget)


def test_the_profile_of_a_known_law_adds_up_to_its_entropy():
    p = law()
    rows = jnp.asarray(TEXTS[np.random.default_rng(2).choice(len(p), 4_000, p=p)])
    losses = jax.jit(lambda key: profile(predictor(p), key, rows, MASK))(jax.random.key(0))
    assert float(losses.sum()) == pytest.approx(-(p * np.log(p)).sum(), abs=0.06)
    assert (np.diff(losses) < 0).all()  # what is seen helps
