"""The Frechet distance is the closed form, and tells noise and one class from pictures as good as real ones."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.data.enumerable import EnumerableConfig
from causal_gen.data.grammar import GrammarConfig
from causal_gen.data.pixels import PixelsConfig
from causal_gen.evaluate import laws, quality
from causal_gen.scm.intervention import Span

KEY = jax.random.key(0)


def test_the_distance_of_gaussians_is_the_closed_form():
    """Diagonal covariances: |m - m'|^2 + sum (s - s')^2; and it does not change when both are turned alike."""
    a, b = (np.array([1.0, 2.0, 0.0]), np.diag([4.0, 1.0, 0.0])), (np.array([0.0, 2.0, 2.0]), np.diag([1.0, 9.0, 0.0]))
    assert quality.frechet(a, b) == pytest.approx(1 + 4 + (2 - 1) ** 2 + (1 - 3) ** 2)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turned = [(turn @ m, turn @ s @ turn.T) for m, s in (a, b)]
    assert quality.frechet(*turned) == pytest.approx(quality.frechet(a, b)) == quality.frechet(b, a)
    assert quality.frechet(a, a) == pytest.approx(0, abs=1e-9)


@dataclasses.dataclass(frozen=True)
class Fake:
    """Draws rows that were put into it: what it "samples" is known."""

    context: tuple[str, ...]
    rows: str = ""

    likelihood = "exact"
    spans = {"tokens": Span(1, 1)}
    actable = ()

    def noise(self, key, num, context=None):
        return jax.random.uniform(key, (num,))

    def predict(self, params, noise, context=None, do=None):
        if self.rows == "asked":  # of each class one picture
            return {"tokens": params[context["digit"]]}
        chosen = jnp.floor(noise * len(params)).astype(jnp.int32)
        return {"tokens": params[chosen]}

    def log_prob(self, params, key, batch, query=None):
        return params[(batch["tokens"] * 3 ** jnp.arange(3)[::-1][None]).sum(1)]


def test_pictures_that_are_real_are_as_good_as_the_floor_and_noise_is_not():
    source = PixelsConfig(standin=True, size=600, test_size=120, patch=4, codebook=40).make()
    rows = jnp.asarray(source.gather("test", np.arange(120))["tokens"])
    real = quality.measure(Fake(()), rows, KEY, source, 120, 60)
    assert real["frechet"]["value"] < 3 * real["frechet"]["tokens"] and "value" not in real["class_accuracy"]
    noise = jnp.asarray(np.random.default_rng(0).integers(0, 40, (120, 49)))
    assert quality.measure(Fake(()), noise, KEY, source, 120, 60)["frechet"]["value"] > 10 * real["frechet"]["tokens"]
    ordered = quality.measure(Fake(("digit",), "asked"), rows[:10], KEY, source, 120, 60)["class_accuracy"]
    assert ordered["real"] > 0.7 and ordered["value"] > 0.5
    mixed = quality.measure(Fake(("digit",), "asked"), rows[1:11], KEY, source, 120, 60)["class_accuracy"]["value"]
    assert mixed < 0.2 and quality.measure(Fake(()), rows, KEY, source, 0, 60) == {}


def test_a_law_that_is_sampled_is_found_at_its_floor_and_its_log_prob_exactly():
    task = EnumerableConfig(values=3, items=3, size=1_000, test_size=100)
    source, log_p = task.make(), jnp.log(jnp.asarray(task.probabilities))

    @dataclasses.dataclass(frozen=True)
    class Sampler(Fake):
        def predict(self, params, noise, context=None, do=None):
            return {"tokens": jnp.asarray(task.outcomes)[jnp.searchsorted(jnp.exp(params).cumsum(), noise)]}

    right = laws.measure(Sampler(()), log_p, KEY, source, 5_000, 64)
    assert right["total_variation"] < 1.6 * right["floor"] and right["exact"]["kl"] == pytest.approx(0, abs=1e-6)
    flat = jnp.full(27, -jnp.log(27.0))
    wrong = laws.measure(Sampler(()), flat, KEY, source, 5_000, 64)
    gap = 0.5 * np.abs(task.probabilities - 1 / 27).sum()
    assert wrong["exact"]["total_variation"] == pytest.approx(gap, rel=1e-5) and abs(wrong["total_variation"] - gap) < 3 * wrong["floor"]
    assert wrong["exact"]["kl"] == pytest.approx(np.log(27) - task.entropy, rel=1e-5)
    assert laws.measure(Fake(()), None, KEY, PixelsConfig(standin=True, size=4, test_size=4).make(), 10, 4) == {}


def test_samples_are_judged_by_the_rules_of_their_source():
    """Of four rows that are drawn alike two are sentences, one of them twice."""
    source = GrammarConfig(size=8, test_size=8).make()
    texts = ("the queen sleeps", "the queen sleep", "no boy ever runs", "the the the")
    rows = jnp.asarray([[*source.tokenizer.encode([text])[0], *[0] * (8 - len(text.split()))] for text in texts])
    found = laws.measure(Fake(()), rows, KEY, source, 2_000, 500)
    assert found["solved"] == pytest.approx(0.5, abs=0.06) and found["distinct"] == 2 and found["draws"] == 2_000
    assert laws.measure(Fake(()), rows, KEY, source, 0, 500) == {}
