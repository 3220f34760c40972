"""Likelihoods over orders against a law that is known."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.sampling.orders import check_order, in_order, order_bound, profile, pseudo
from causal_gen.types import ConfigError
from tests.sampling.enumerable import MASK, TEXTS, T, V, law, predictor

P = law()
PREDICT = predictor(P)
SOME = np.random.default_rng(0).choice(len(P), 8, replace=False)
TOKENS = jnp.asarray(TEXTS[SOME])


def skewed(tokens, share):
    """Conditionals that no joint law has: orders disagree."""
    return PREDICT(tokens, share) * (1 + 0.3 * (tokens == MASK).sum(-1))[:, None, None]


@pytest.mark.parametrize("order", [range(T), (4, 2, 0, 1, 3)])
def test_any_order_of_exact_conditionals_gives_the_likelihood(order):
    np.testing.assert_allclose(in_order(PREDICT, TOKENS, jnp.array(order), MASK), np.log(P[SOME]), atol=1e-4)


def test_the_bound_of_exact_conditionals_is_the_likelihood_on_average_and_in_every_draw_of_full_steps():
    found = np.mean([order_bound(PREDICT, jax.random.key(i), TOKENS, MASK, draws=200) for i in range(4)], 0)
    np.testing.assert_allclose(found, np.log(P[SOME]), atol=0.25)
    whole = order_bound(PREDICT, jax.random.key(9), jnp.repeat(TOKENS, 200, 0), MASK, draws=T).reshape(8, 200)
    np.testing.assert_allclose(whole.mean(1), np.log(P[SOME]), atol=4 * float(whole.std(1).max()) / 200**0.5)


def test_the_bound_is_the_mean_over_all_orders():
    tokens, orders = TOKENS[:2], list(itertools.permutations(range(T)))
    every = jax.vmap(lambda order: in_order(skewed, tokens, order, MASK))(jnp.array(orders))
    drawn = order_bound(skewed, jax.random.key(0), jnp.repeat(tokens, 1_000, 0), MASK, draws=T).reshape(2, -1)
    error = np.asarray(drawn.std(1)) / 1_000**0.5
    assert (np.abs(np.asarray(drawn.mean(1) - every.mean(0))) < 4 * error).all()
    assert (error < 0.1).all() and float(every.std(0).min()) > 4 * error.max()


def test_places_that_are_not_scored_are_always_seen():
    scored = jnp.broadcast_to(jnp.array([True, False, True, True, False]), TOKENS.shape)
    found = order_bound(PREDICT, jax.random.key(0), jnp.repeat(TOKENS, 500, 0), MASK, draws=3, scored=jnp.repeat(scored, 500, 0))
    for row, told in zip(TEXTS[SOME], np.asarray(found).reshape(8, -1).mean(1), strict=True):
        given = P[(TEXTS[:, 1] == row[1]) & (TEXTS[:, 4] == row[4])].sum()
        assert told == pytest.approx(np.log(P[(TEXTS == row).all(1)][0] / given), abs=0.2)


def test_pseudo_likelihood_sums_each_token_given_all_others():
    want = []
    for row in TEXTS[SOME]:
        rest = [P[(np.delete(TEXTS, i, 1) == np.delete(row, i)).all(1)].sum() for i in range(T)]
        want.append(sum(np.log(P[(TEXTS == row).all(1)][0] / mass) for mass in rest))
    np.testing.assert_allclose(pseudo(PREDICT, TOKENS, MASK), want, atol=1e-4)


def test_the_profile_of_the_law_adds_up_to_its_entropy():
    rows = jnp.asarray(TEXTS[np.random.default_rng(2).choice(len(P), 5_000, p=P)])
    losses = jax.jit(lambda key: profile(PREDICT, key, rows, MASK))(jax.random.key(0))
    assert float(losses.sum()) == pytest.approx(-(P * np.log(P)).sum(), abs=0.06)
    assert (np.diff(losses) < 0).all()  # what is seen helps


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 1, 2, 3, 3), (1, 2, 3, 4, 5)])
def test_orders_that_are_no_permutation_are_refused(order):
    with pytest.raises(ConfigError, match=r"not a permutation of 0\.\.4"):
        check_order(order, T)
