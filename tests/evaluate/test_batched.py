"""Answers over more rows than are asked at once are those of each row alone."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.evaluate import batched
from causal_gen.scm.intervention import Span, do


@dataclasses.dataclass(frozen=True)
class Memory:
    """A model of four tokens below 9 whose noise is the tokens themselves, as one-hot rows, plus the class of each example."""

    needs: tuple[str, ...] = ("tokens",)
    actable: tuple[str, ...] = ("tokens",)
    context: tuple[str, ...] = ("digit",)

    @property
    def spans(self):
        return {"tokens": Span(4, 9)}

    def noise(self, key, num, context=None):
        return {"tokens": jax.random.gumbel(key, (num, 4, 9))}

    def abduct(self, params, key, batch):
        return {"tokens": jax.nn.one_hot(batch["tokens"], 9)}

    def predict(self, params, noise, context=None, do=None):
        natural = (jnp.argmax(noise["tokens"], -1) + context["digit"][:, None]) % 9
        return {"tokens": do["tokens"].apply(natural)}


EVIDENCE = {"tokens": np.arange(20).reshape(5, 4) % 9, "digit": np.array([0, 1, 2, 3, 4])}
ACTS = [None, do(tokens={2: 7})]


def test_answers_are_those_of_each_row_however_many_are_asked_at_once(monkeypatch):
    expected = (EVIDENCE["tokens"] + EVIDENCE["digit"][:, None]) % 9
    for held in (1, 72, 1 << 26):  # a row, two rows (the last part is padded), all of them
        monkeypatch.setattr(batched, "HELD", held)
        plain, acted = batched.answers(Memory(), {}, jax.random.key(0), EVIDENCE, ACTS)
        np.testing.assert_array_equal(plain["tokens"], expected)
        np.testing.assert_array_equal(acted["tokens"], np.where(np.arange(4) == 2, 7, expected))


def test_draws_share_their_noise_among_interventions_and_not_among_rows(monkeypatch):
    monkeypatch.setattr(batched, "HELD", 72)
    context = {"digit": np.zeros(5, int)}
    plain, acted = batched.draws(Memory(), {}, jax.random.key(0), 5, ACTS, context)
    assert plain["tokens"].shape == (5, 4) and len(np.unique(plain["tokens"], axis=0)) == 5
    np.testing.assert_array_equal(acted["tokens"], np.where(np.arange(4) == 2, 7, plain["tokens"]))
