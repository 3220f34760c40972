"""The absorbing process against quadrature, counting and a law that is a table."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.data.enumerable import EnumerableConfig
from causal_gen.losses import categorical, masked
from causal_gen.process import masking
from causal_gen.process.masking import Schedule, SubTokens
from causal_gen.types import ConfigError

SCHEDULES = [
    Schedule(),
    Schedule("cosine"),
    Schedule("polynomial", power=2.0),
    Schedule("geometric"),
    Schedule("table", values=(1.0, 0.7, 0.2, 0.0)),
]
LAW = EnumerableConfig(values=4, items=5)
NODES, WEIGHTS = np.polynomial.legendre.leggauss(200)
TIMES, WEIGHTS = (NODES + 1) / 2, WEIGHTS / 2  # over [0, 1]


def named(schedule: Schedule) -> str:
    return schedule.kind


def subset_weights(schedule: Schedule, places: int) -> np.ndarray:
    """Of (3), for k = 0 .. places: int h'/h h^k (1 - h)^(places - k) dt, by quadrature between the corners of a table."""
    corners = np.linspace(0, 1, max(len(schedule.values), 2))
    total = np.zeros(places + 1)
    for low, high in zip(corners, corners[1:], strict=False):
        t = jnp.asarray(low + (high - low) * TIMES)
        h, rate = np.asarray(schedule.hidden(t), float), np.asarray(schedule.weight(t), float)
        for k in range(1, places + 1):
            total[k] += (high - low) * (WEIGHTS * rate * h**k * (1 - h) ** (places - k)).sum()
    return total


@functools.cache
def losses_of(parts: int) -> list[tuple[int, float]]:
    """For every set of masked digits: how many they are, and the exact posterior's mean loss on them, eqs. (3) and (6) of the losses."""
    coding = SubTokens(LAW.values, parts)
    tokens, p = LAW.outcomes, LAW.probabilities
    digits = np.asarray(coding.encode(jnp.asarray(tokens))).reshape(len(tokens), -1)
    term = jax.jit(lambda logits, shown: masked.parts(logits, jnp.asarray(tokens), shown, jnp.asarray(coding.digits)).sum(-1))
    found = []
    for bits in range(1, 2 ** digits.shape[1]):
        hidden = np.array([bits >> i & 1 for i in range(digits.shape[1])], bool)
        key = (np.where(hidden, 0, digits) * coding.base ** np.arange(digits.shape[1])).sum(1)
        joint = np.zeros((key.max() + 1, LAW.items, LAW.values))
        for i in range(LAW.items):
            np.add.at(joint[:, i], (key, tokens[:, i]), p)
        with np.errstate(divide="ignore"):
            logits = jnp.asarray(np.log(joint[key]), jnp.float32)
        shown = jnp.broadcast_to(jnp.asarray(~hidden.reshape(1, LAW.items, parts)), (len(tokens), LAW.items, parts))
        found.append((int(hidden.sum()), float((p * np.asarray(term(logits, shown), float)).sum())))
    return found


@pytest.mark.parametrize("schedule", SCHEDULES, ids=named)
def test_the_bound_of_the_exact_posterior_is_the_entropy_under_every_schedule(schedule):
    """MD4: eq. (3) over all sets of masked tokens, integrated over time; nothing is drawn."""
    weights = subset_weights(schedule, LAW.items)
    bound = sum(weights[count] * loss for count, loss in losses_of(1))
    assert bound == pytest.approx(LAW.entropy, abs=1e-3)


def test_the_bound_over_orders_of_the_exact_posterior_is_the_entropy():
    """ARDM: the mean over uniform numbers of hidden tokens of their mean loss, over all sets of each size."""
    sizes = {}
    for count, loss in losses_of(1):
        sizes.setdefault(count, []).append(loss / count)
    assert LAW.items * np.mean([np.mean(found) for found in sizes.values()]) == pytest.approx(LAW.entropy, abs=1e-3)


def test_in_finite_steps_the_bound_is_larger_and_falls_to_the_entropy():
    found = []
    for steps in (1, 4, 64):
        schedule = Schedule("cosine", steps=steps)
        t = np.arange(1, steps + 1) / steps
        h, rate = np.asarray(schedule.hidden(jnp.asarray(t))), np.asarray(schedule.weight(jnp.asarray(t)))
        chance = {k: (rate * h**k * (1 - h) ** (LAW.items - k)).mean() for k in range(LAW.items + 1)}
        found.append(sum(chance[count] * loss for count, loss in losses_of(1)))
    assert found[0] > found[1] > found[2] > LAW.entropy and found[2] < LAW.entropy + 0.03


def test_the_bound_over_digits_of_the_exact_posterior_is_the_entropy():
    """Prime with two digits a token: eq. (6) of the losses over all sets of masked digits, integrated over time."""
    weights = subset_weights(Schedule(), 2 * LAW.items)
    assert sum(weights[count] * loss for count, loss in losses_of(2)) == pytest.approx(LAW.entropy, abs=1e-3)


def test_one_digit_is_the_token_itself():
    """Prime with one sub-token is MD4: the same loss of the same logits."""
    keys = jax.random.split(jax.random.key(0), 3)
    logits, targets = jax.random.normal(keys[0], (3, 6, 7)), jax.random.randint(keys[1], (3, 6), 0, 7)
    hidden = jax.random.bernoulli(keys[2], 0.5, targets.shape)
    found = masked.parts(logits, targets, ~hidden[..., None], jnp.asarray(SubTokens(7, 1).digits))
    np.testing.assert_allclose(found, categorical.nll(logits, targets) * hidden, atol=1e-6)


@pytest.mark.parametrize(("vocabulary", "parts", "base"), [(4, 2, 2), (256, 2, 16), (256, 8, 2), (10, 2, 4), (257, 2, 17), (1000, 3, 10)])
def test_digits_name_every_token_and_no_smaller_base_would(vocabulary, parts, base):
    coding, tokens = SubTokens(vocabulary, parts), jnp.arange(vocabulary)
    np.testing.assert_array_equal(coding.decode(coding.encode(tokens)), tokens)
    assert coding.base == base and coding.digits.max() < base and (base - 1) ** parts < vocabulary


@pytest.mark.parametrize("schedule", SCHEDULES, ids=named)
def test_schedules_run_from_nothing_to_everything_and_their_weight_is_their_slope(schedule):
    t = jnp.asarray([0.0, 0.15, 0.3, 0.55, 0.9, 1.0])
    h = np.asarray(schedule.hidden(t), float)
    np.testing.assert_allclose(h[[0, -1]], [0, 1], atol=1e-6)
    assert (np.diff(h) > 0).all()
    inner = t[1:-1]
    slope = (np.asarray(schedule.hidden(inner + 1e-3), float) - np.asarray(schedule.hidden(inner - 1e-3), float)) / 2e-3
    np.testing.assert_allclose(schedule.weight(inner), slope / h[1:-1], rtol=2e-3)


def test_revealing_undoes_masking():
    """Eq. (2): what is masked at s is what is masked at t and not revealed since, by Bayes' rule on the two-step process."""
    schedule, s, t = Schedule("cosine"), jnp.float32(0.3), jnp.float32(0.8)
    stays = schedule.hidden(t) * (1 - schedule.reveal(s, t))
    assert float(stays) == pytest.approx(float(schedule.hidden(s)), rel=1e-5)
    rng = np.random.default_rng(0)
    first = rng.random(200_000) < float(schedule.hidden(s))  # masked by s
    later = (float(schedule.hidden(t)) - float(schedule.hidden(s))) / float(schedule.alpha(s))
    masked_at_t = first | (rng.random(200_000) < later)
    assert (~first)[masked_at_t].mean() == pytest.approx(float(schedule.reveal(s, t)), abs=0.01)


def test_learned_rates_all_one_lose_what_one_schedule_loses():
    """Eq. (8) with w = 1 throughout is (3); and with w = 2 twice that, as t^2 has twice the rate."""
    keys = jax.random.split(jax.random.key(0), 2)
    logits, targets = jax.random.normal(keys[0], (2, 5, 4)), jax.random.randint(keys[1], (2, 5), 0, 4)
    plain = categorical.nll(logits, targets)
    np.testing.assert_allclose(masked.rates(logits, targets, jnp.ones(4)), plain, rtol=1e-5)
    np.testing.assert_allclose(masked.rates(logits, targets, jnp.full(4, 2.0)), 2 * plain, rtol=1e-5)
    np.testing.assert_allclose(masking.powers(masking.raw_powers(1.7, 4)), 1.7, rtol=1e-6)


def test_the_bound_of_a_learned_schedule_is_the_entropy_too():
    """GenMD4 on one token, in closed form: mu(v | mask, t) is proportional to p_v h_v(t), and (8) integrates to the entropy."""
    p, w = np.array([0.5, 0.3, 0.15, 0.05]), jnp.asarray([0.6, 1.0, 1.5, 2.5])
    t = jnp.asarray(np.linspace(0, 1, 40_001)[1:] ** 3)  # finer near 0
    width = np.diff(np.linspace(0, 1, 40_001) ** 3)
    chance = np.asarray(masking.learned_chance(t, w, jnp.broadcast_to(jnp.arange(4), (len(t), 4))), float)
    logits = jnp.asarray(np.log(p * chance), jnp.float32)
    total = 0.0
    for token in range(4):
        term = np.asarray(masked.rates(logits[:, None], jnp.full((len(t), 1), token), w)[:, 0], float)
        total += p[token] * (width * chance[:, token] * term / np.asarray(t)).sum()
    assert total == pytest.approx(-(p * np.log(p)).sum(), abs=2e-3)


def test_hiding_counts_what_it_is_told_to_and_spares_the_rest():
    allowed = jnp.broadcast_to(jnp.arange(40) >= 8, (64, 40))
    count = jnp.arange(64) % 32 + 1
    for span in (1, 4):
        hidden = masking.hide(jax.random.key(0), count, allowed, span)
        np.testing.assert_array_equal(hidden.sum(1), count)
        assert not hidden[:, :8].any()
    runs = np.diff(np.pad(np.asarray(hidden[15:16]), ((0, 0), (1, 1))).astype(int)) == 1
    assert runs.sum() <= 16 / 4 + 2  # 16 hidden in runs of four, of which the ends may be cut


def test_times_are_spread_evenly_whatever_the_key():
    for seed in range(3):
        at = np.sort(np.asarray(masking.spread(jax.random.key(seed), 16)))
        np.testing.assert_allclose(np.diff(at), 1 / 16, atol=1e-6)
    steps = Schedule(steps=4).time(jnp.asarray([0.0, 0.2, 0.26, 0.99]))
    np.testing.assert_allclose(steps, [0.25, 0.25, 0.5, 1.0])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Schedule("polynomial", power=-1.0), r"alpha = 1 - t\^-1.0 does not decrease; give a power above 0"),
        (lambda: Schedule("geometric", low=2.0, high=1.0), "does not decrease; give 0 < low < high"),
        (lambda: Schedule("table", values=(1.0, 0.4, 0.6, 0.0)), r"\[1.0, 0.4, 0.6, 0.0\] do not decrease from 1 to 0"),
        (lambda: Schedule("table"), "kind=table and its values come together"),
        (lambda: Schedule("learned", steps=4), "learned one is in continuous time"),
        (lambda: SubTokens(4, 3), "a token of 4 has 1 to 2 digits"),
        (lambda: masking.check_mask(3, 4), r"token 3 is also one of the data's, 0\.\.3"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(make, said):
    with pytest.raises(ConfigError, match=said) as caught:
        make()
    assert "\n" not in str(caught.value)
