"""The unmasking loop against a law that is known: which orders, how many calls, which law, which noise."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.sampling import ar
from causal_gen.sampling.unmask import BLANK, check_template, noise, replay, unmask
from causal_gen.sampling.unmask_config import UnmaskConfig
from causal_gen.types import ConfigError, UserError
from tests.sampling.enumerable import MASK, TEXTS, T, V, law, number, predictor

P = law()
PREDICT = predictor(P)
NOISE = noise(jax.random.key(0), 64, T, V)


@functools.partial(jax.jit, static_argnums=0)
def draw(config, told=NOISE, steps=None, template=None, when=None, force=None):
    return unmask(PREDICT, told, config, mask=MASK, steps=steps, template=template, when=when, force=force)


def nothing_known(tokens, share):
    return jnp.zeros((*tokens.shape, V))


def variation(tokens, p) -> float:
    found = np.bincount(number(tokens), minlength=len(p)) / len(tokens)
    return 0.5 * float(np.abs(found - p).sum())


EVERY = [
    UnmaskConfig(),
    UnmaskConfig(policy="confidence", choice=1.0),
    UnmaskConfig(policy="margin"),
    UnmaskConfig(policy="entropy", block=2),
    UnmaskConfig(policy="order", order=(4, 2, 0, 1, 3)),
]


@pytest.mark.parametrize("config", EVERY[:1] + EVERY[2:], ids=lambda config: config.policy)
def test_one_place_a_call_draws_the_law_whatever_the_order(config):
    """Orders that look at laws, not at draws, leave the law of the text as it is; as close as draws of the law itself come."""
    told = noise(jax.random.key(1), 8_000, T, V)
    floor = variation(TEXTS[np.random.default_rng(0).choice(len(P), 8_000, p=P)], P)
    found = draw(config, told)
    assert int(found.calls) == T
    assert variation(found.tokens, P) < 1.3 * floor
    np.testing.assert_allclose(found.log_prob, np.log(P)[number(found.tokens)], atol=1e-4)


def test_all_places_in_one_call_draw_from_the_product_of_marginals():
    told = noise(jax.random.key(1), 8_000, T, V)
    tokens = draw(UnmaskConfig(), told, 1).tokens
    marginals = np.stack([[P[TEXTS[:, i] == v].sum() for v in range(V)] for i in range(T)])
    product = marginals[np.arange(T), TEXTS].prod(1)
    floor = variation(TEXTS[np.random.default_rng(0).choice(len(P), 8_000, p=product)], product)
    assert variation(tokens, product) < 1.3 * floor < 0.5 * variation(tokens, P)


@pytest.mark.parametrize("config", EVERY, ids=lambda config: config.policy)
def test_the_budget_is_no_other_program_and_is_kept(config):
    traces = []

    @jax.jit
    def run(told, steps):
        traces.append(1)
        return unmask(PREDICT, told, config, mask=MASK, steps=steps)

    for steps in range(config.blocks(T), T + 1):
        found = run(NOISE, steps)
        assert int(found.calls) == steps
        filled = np.apply_along_axis(np.bincount, 1, np.asarray(found.when), minlength=steps)
        assert filled.min() >= 1 and (np.asarray(found.tokens) < V).all()
        if config.block == 0:
            np.testing.assert_array_equal(filled, filled[:1].repeat(len(filled), 0))
            assert filled.max() - filled.min() <= 1
    assert len(traces) == 1


def test_blocks_are_filled_from_left_to_right():
    when = np.asarray(draw(UnmaskConfig(policy="entropy", block=2)).when)
    assert (when[:, :2].max(1) < when[:, 2:4].min(1)).all() and (when[:, 2:4].max(1) < when[:, 4]).all()


def test_a_given_order_is_kept():
    when = np.asarray(draw(UnmaskConfig(policy="order", order=(4, 2, 0, 1, 3))).when)
    np.testing.assert_array_equal(when, np.broadcast_to([2, 3, 1, 4, 0], when.shape))


@pytest.mark.parametrize("policy", ["margin", "entropy", "confidence"])
def test_the_first_place_is_the_one_that_the_score_names(policy):
    found = draw(UnmaskConfig(policy=policy, top_k=1))
    marginals = np.stack([[P[TEXTS[:, i] == v].sum() for v in range(V)] for i in range(T)])
    ordered = np.sort(marginals, 1)
    score = {
        "margin": ordered[:, -1] - ordered[:, -2],
        "entropy": (marginals * np.log(marginals)).sum(1),
        "confidence": ordered[:, -1],  # the drawn token is the likeliest one
    }[policy]
    np.testing.assert_array_equal(np.asarray(found.when).argmin(1), score.argmax())


def test_the_ascending_loop_needs_a_call_for_every_doubling():
    length = 37
    found = jax.jit(lambda told: unmask(nothing_known, told, UnmaskConfig(counts="ascending"), mask=MASK))(
        noise(jax.random.key(0), 2, length, V)
    )
    assert int(found.calls) == math.floor(math.log2(length)) + 1
    np.testing.assert_array_equal(np.bincount(found.when[0]), [1, 2, 4, 8, 16, length - 31])


def test_cosine_steps_fill_few_places_first():
    told = noise(jax.random.key(0), 1, 100, V)
    found = jax.jit(lambda told: unmask(nothing_known, told, UnmaskConfig(counts="cosine", steps=4), mask=MASK))(told)
    left = 100 - np.cumsum(np.bincount(found.when[0]))
    np.testing.assert_array_equal(left, [math.floor(100 * math.cos(math.pi / 2 * k / 4)) for k in (1, 2, 3)] + [0])


def test_ancestral_steps_fill_each_place_by_the_schedule_apart_from_the_others():
    """MD4, eq. 6: by step k of K a share alpha(1 - k / K) is filled, independently; here alpha(t) = (1 - t)^2."""
    told, config = noise(jax.random.key(3), 4_000, 8, V), UnmaskConfig(counts="ancestral", steps=4)
    found = jax.jit(lambda told: unmask(nothing_known, told, config, mask=MASK, alpha=lambda t: (1 - t) ** 2))(told)
    by = np.stack([(np.asarray(found.when) < k) for k in (1, 2, 3)])
    np.testing.assert_allclose(by.mean((1, 2)), [1 / 16, 1 / 4, 9 / 16], atol=0.01)
    half = by[1].sum(1)
    np.testing.assert_allclose([half.mean(), half.var()], [8 / 4, 8 / 4 * 3 / 4], rtol=0.08)


def test_a_plan_is_followed():
    found = draw(UnmaskConfig(counts="plan", plan=(1, 3, 1)))
    np.testing.assert_array_equal(np.apply_along_axis(np.bincount, 1, np.asarray(found.when)), [[1, 3, 1]] * 64)


def test_evidence_is_held_and_the_rest_is_drawn_given_it():
    template = jnp.broadcast_to(jnp.array([[BLANK, 2, BLANK, BLANK, 1]]), (8_000, T))
    found = draw(UnmaskConfig(policy="margin"), noise(jax.random.key(5), 8_000, T, V), None, template)
    np.testing.assert_array_equal(found.tokens[:, 1], 2)
    np.testing.assert_array_equal(found.tokens[:, 4], 1)
    given = np.where((TEXTS[:, 1] == 2) & (TEXTS[:, 4] == 1), P, 0)
    given /= given.sum()
    floor = variation(TEXTS[np.random.default_rng(0).choice(len(P), 8_000, p=given)], given)
    assert variation(found.tokens, given) < 1.5 * floor
    assert int(found.calls) == 3
    np.testing.assert_allclose(found.log_prob, np.log(given[number(found.tokens)]), atol=1e-4)


def test_a_row_does_not_depend_on_the_other_rows():
    template = jnp.full((64, T), BLANK).at[1:, 1:].set(2)
    config = UnmaskConfig(policy="confidence", choice=1.0, steps=3)
    whole = draw(config, NOISE, None, template)
    for row in (0, 1):
        alone = draw(config, {name: g[row : row + 1] for name, g in NOISE.items()}, None, template[row : row + 1])
        np.testing.assert_array_equal(alone.tokens[0], whole.tokens[row])


@pytest.mark.parametrize("config", EVERY, ids=lambda config: config.policy)
def test_abducted_noise_gives_the_text_back_and_a_change_moves_only_what_was_filled_later(config):
    tokens = jnp.asarray(TEXTS[np.random.default_rng(1).choice(len(P), 64, p=P)])
    told = jax.jit(lambda key: replay(PREDICT, key, tokens, config, V, mask=MASK))(jax.random.key(2))
    np.testing.assert_array_equal(draw(config, told, None, None, told["when"]).tokens, tokens)
    where = jnp.zeros((64, T), bool).at[:, 2].set(True)
    changed = draw(config, told, None, None, told["when"], (where, jnp.where(where, (tokens + 1) % V, 0)))
    np.testing.assert_array_equal(changed.tokens[:, 2], (tokens[:, 2] + 1) % V)
    before = told["when"] < told["when"][:, 2:3]
    np.testing.assert_array_equal(np.where(before, changed.tokens, tokens), tokens)
    assert (np.asarray(changed.tokens) != np.asarray(tokens)).sum() > 64


def test_abducted_noise_of_a_random_order_is_standard_gumbel():
    from scipy import stats

    tokens = jnp.asarray(TEXTS[np.random.default_rng(1).choice(len(P), 4_000, p=P)])
    told = jax.jit(lambda key: replay(PREDICT, key, tokens, UnmaskConfig(), V, mask=MASK))(jax.random.key(2))
    assert stats.kstest(np.asarray(told["tokens"]).ravel()[:8_000], "gumbel_r").pvalue > 1e-3


def test_a_text_that_truncation_excludes_is_refused():
    tokens = jnp.asarray(TEXTS[[number(np.full((1, T), 3))[0], P.argmin()]])
    told = replay(PREDICT, jax.random.key(0), tokens, UnmaskConfig(top_k=1), V, mask=MASK)
    with pytest.raises(UserError, match="has probability 0 under sampling.top_k"):
        ar.check_noise(tokens, told["tokens"])


def test_emptied_places_are_drawn_anew_and_the_budget_holds():
    config = UnmaskConfig(policy="confidence", remask=0.5, steps=4)
    found = draw(config)
    assert int(found.calls) == 4 and (np.asarray(found.tokens) < V).all() and np.isnan(found.log_prob).all()
    assert (np.asarray(found.tokens) != np.asarray(draw(dataclasses.replace(config, remask=0.0)).tokens)).any()
    with pytest.raises(UserError, match=r"remask=0.5 writes places more than once"):
        replay(PREDICT, jax.random.key(0), found.tokens, config, V, mask=MASK)


def test_early_rejection_puts_end_tokens_off():
    """Every law favours token 0; rejected at first, the places that drew it wait for those that did not."""

    def predict(tokens, share):
        return jnp.broadcast_to(jnp.log(jnp.array([[[0.7, 0.1, 0.1, 0.1]]])), (*tokens.shape, V))

    told = noise(jax.random.key(0), 256, T, V)

    def first(reject):
        config = UnmaskConfig(policy="confidence", end=0, reject=reject)
        found = jax.jit(lambda told: unmask(predict, told, config, mask=MASK))(told)
        return np.asarray(found.tokens)[np.asarray(found.when) == 0]

    some = (np.asarray(draw_alone(predict, told)) != 0).any(1)
    assert (first(1.0)[some] == 0).mean() > 0.9
    assert (first(0.05)[some] == 0).mean() == 0


def draw_alone(predict, told):
    return unmask(predict, told, UnmaskConfig(steps=1), mask=MASK).tokens


@pytest.mark.parametrize("window", [1, 2, 4])
def test_a_window_shows_so_many_masks_behind_the_text_and_then_its_end(window):
    """A network that says how many masks and ends it sees: as many as the window has and the row leaves."""

    def predict(tokens, share):
        seen = 4 * (tokens == 24).sum(-1) + (tokens == 0).sum(-1)
        return jnp.broadcast_to(50.0 * jax.nn.one_hot(seen, 24)[:, None], (*tokens.shape, 24))

    config = UnmaskConfig(policy="order", end=0, window=window)
    told = noise(jax.random.key(0), 3, 4, 24)
    found = jax.jit(lambda told: unmask(predict, told, config, mask=24))(told)
    masks = [min(window, 4 - k) for k in range(4)]
    np.testing.assert_array_equal(found.tokens, [[4 * m + (4 - k - m) for k, m in enumerate(masks)]] * 3)
    np.testing.assert_array_equal(found.when, [range(4)] * 3)


def test_a_text_written_in_a_window_comes_back_from_its_noise():
    config = UnmaskConfig(policy="order", end=0, window=2)
    tokens = jnp.asarray(TEXTS[np.random.default_rng(1).choice(len(P), 64, p=P)])
    told = jax.jit(lambda key: replay(PREDICT, key, tokens, config, V, mask=MASK))(jax.random.key(2))
    np.testing.assert_array_equal(draw(config, told, None, None, told["when"]).tokens, tokens)


REFUSED = [
    (dict(order=(0, 2), policy="order"), "not a permutation of 0..1"),
    (dict(order=(0, 0, 1), policy="order"), "not a permutation of 0..2"),
    (dict(order=(1, 0)), "read by policy=order alone"),
    (dict(repetition=1.2), "places are filled in any order"),
    (dict(counts="ancestral", policy="margin"), "leave which places come to chance"),
    (dict(counts="plan"), "counts=plan and its numbers come together"),
    (dict(counts="plan", plan=(1, 0)), "numbers from 1 on"),
    (dict(reject=0.5), "needs an end token"),
    (dict(policy="order", window=3), "set policy=order and an end"),
    (dict(policy="order", end=0, window=3, steps=4), "leave order, steps, plan, remask and block as they are"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_configs_that_contradict_themselves_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        UnmaskConfig(**fields)


UNFIT = [
    (dict(steps=6), "6 are more than the 5 places to fill"),
    (dict(steps=2, block=2), "2 steps for 3 blocks"),
    (dict(order=(1, 0), policy="order"), "2 places, but rows have 5"),
    (dict(counts="plan", plan=(2, 2)), "fills 4 places, but rows have 5"),
]


@pytest.mark.parametrize(("fields", "message"), UNFIT, ids=[message for _, message in UNFIT])
def test_configs_that_do_not_fit_the_rows_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        UnmaskConfig(**fields).budget(T)


BAD = [(np.zeros((1, 4)), "rows of 5 places"), (np.zeros((1, 5), int), "no blank"), (np.array([[-1, 0, 4, 0, 0]]), "token 4 at place 2")]


@pytest.mark.parametrize(("template", "message"), BAD, ids=[message for _, message in BAD])
def test_templates_that_cannot_be_filled_are_refused(template, message):
    with pytest.raises(UserError, match=message):
        check_template(template, T, V)
