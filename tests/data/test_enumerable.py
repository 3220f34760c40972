"""What is said of the enumerable law is true of it: counted out one sequence at a time, and seen in its draws."""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.build import build
from causal_gen.data.enumerable import EnumerableConfig
from causal_gen.types import ConfigError

SMALL = EnumerableConfig(size=4_000, test_size=500, values=3, items=4, alpha=0.5)


def law(task):
    """{sequence: probability}, by walking through the numbers in base v."""
    return dict(zip(itertools.product(range(task.values), repeat=task.items), task.probabilities, strict=True))


@pytest.mark.parametrize("task", [SMALL, EnumerableConfig(values=3, items=4, law="chain")], ids=["table", "chain"])
def test_the_law_is_a_law_and_its_entropy_is_the_chain_rule_s(task):
    known = law(task)
    assert math.isclose(sum(known.values()), 1.0, abs_tol=1e-12) and list(task.number(list(known))) == list(range(81))
    total = 0.0
    for place in range(task.items):  # H(x) = sum_i H(x_i | x_<i), each from sums over prefixes
        prefixes: dict[tuple, np.ndarray] = {}
        for x, p in known.items():
            prefixes.setdefault(x[:place], np.zeros(3))[x[place]] += p
        total -= sum((mass * np.log(mass / mass.sum())).sum() for mass in prefixes.values())
    assert math.isclose(task.entropy, total, rel_tol=1e-9)


def test_a_chain_forgets_all_but_the_last():
    """p(x_3 | x_1, x_2) is the same whatever x_1: a table has no such law."""
    known, other = (
        np.array(list(law(task).values())).reshape((3,) * 4) for task in (EnumerableConfig(values=3, items=4, law="chain"), SMALL)
    )

    def spread(p):
        joint = p.sum(3)
        return np.ptp(joint / joint.sum(2, keepdims=True), axis=0).max()

    assert spread(known) < 1e-12 < 0.1 < spread(other)


def test_the_posterior_is_the_law_counted_out_and_ignores_what_is_hidden():
    known, rng = law(SMALL), np.random.default_rng(0)
    tokens, shown = rng.integers(0, 3, (20, 4)), rng.random((20, 4)) < 0.5
    found = jax.jit(SMALL.posterior)(jnp.asarray(tokens), jnp.asarray(shown))
    for row, mask, answer in zip(tokens, shown, found, strict=True):
        agrees = {x: p for x, p in known.items() if all(a == b or not m for a, b, m in zip(x, row, mask, strict=True))}
        for place in range(4):
            mass = [sum(p for x, p in agrees.items() if x[place] == value) for value in range(3)]
            np.testing.assert_allclose(answer[place], np.array(mass) / sum(mass), atol=1e-6)
    np.testing.assert_array_equal(found, SMALL.posterior(jnp.where(jnp.asarray(shown), jnp.asarray(tokens), 2), jnp.asarray(shown)))


def test_draws_are_as_near_to_the_law_as_its_floor_says_and_other_draws_are_not():
    train = SMALL.make().rows["train"]["tokens"]
    assert abs(SMALL.total_variation(train) / SMALL.floor(len(train)) - 1) < 0.3
    assert SMALL.total_variation(train[:, ::-1]) > 5 * SMALL.floor(len(train))
    p = SMALL.probabilities
    assert math.isclose(SMALL.floor(10**6), np.sqrt(p * (1 - p) / (2 * math.pi * 10**6)).sum(), rel_tol=0.1)


def test_the_best_loss_is_the_entropy_up_to_the_test_rows_spread():
    source = SMALL.make()
    best = source.best("test", np.arange(500))
    assert abs(best.mean() - SMALL.entropy) < 4 * best.std() / math.sqrt(500)
    assert math.isclose(source.stats()["tokens"]["best_loss"], best.mean() / 4)
    np.testing.assert_allclose(best, -np.log([law(SMALL)[tuple(x)] for x in source.rows["test"]["tokens"]]))


def test_a_table_too_large_is_refused_in_a_line():
    with pytest.raises(ConfigError, match=r"data: 4\^9 sequences are more than the 65,536 of a table; lower values or items"):
        build({"data": {"name": "enumerable", "items": 9}, "model": {"name": "causal_transformer"}})
