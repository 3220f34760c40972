"""What is counted around an intervention on a position, and the noise law, on arrays whose answer is known."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.data.sequences import CopyConfig
from causal_gen.evaluate import sequences
from causal_gen.models.base import Prediction

ROWS = np.array([[1, 2, 3, 4], [1, 5, 3, 4], [2, 2, 2, 2]])


def test_effects_count_what_moved_on_either_side():
    """The second row has the value already, so that nothing is asked of what follows in it."""
    answer = np.array([[1, 5, 0, 4], [1, 5, 3, 4], [0, 5, 2, 2]])
    found = sequences.effects(ROWS, answer, {1: 5})
    assert found == {"takes": 1.0, "before": pytest.approx(1 / 3), "after": pytest.approx(1 / 4)}
    assert sequences.effects(ROWS, ROWS, {1: 5})["takes"] == pytest.approx(1 / 3)


def test_effects_of_a_span_leave_out_what_was_set_and_what_was_filled_up():
    answer = np.array([[9, 9, 3, 0], [9, 9, 0, 4], [2, 9, 9, 9]])
    own = np.array([[True] * 4, [True, True, True, False], [True, True, False, False]])
    found = sequences.effects(ROWS, answer, {0: 9, 1: 9}, own)
    assert math.isnan(found["before"]) and found["takes"] == pytest.approx(5 / 6) and found["after"] == pytest.approx(2 / 3)


def test_there_is_nothing_before_the_first_place_nor_after_the_last():
    first, last = sequences.effects(ROWS, ROWS, {0: 1}), sequences.effects(ROWS, ROWS, {3: 4})
    assert math.isnan(first["before"]) and first["after"] == 0 and last["before"] == 0 and math.isnan(last["after"])


def test_the_noise_law_knows_gumbel_noise_from_other():
    draws = {"tokens": jax.random.gumbel(jax.random.key(0), (8, 40, 64))}
    found = sequences.noise_law(draws)
    assert found["mean"] == pytest.approx(0.5772, abs=0.03) and found["std"] == pytest.approx(1.2825, abs=0.03) and found["ks"] < 0.01
    # noise that hides the evidence: the observed token's entry is raised until it wins
    hidden = draws["tokens"].at[..., 0].add(20.0)
    assert sequences.noise_law({"tokens": hidden})["mean"] > 0.8
    assert sequences.noise_law({"tokens": jax.random.normal(jax.random.key(0), (8, 40, 64))})["ks"] > 0.1


@dataclasses.dataclass(frozen=True)
class Copier:
    """Knows how a copy goes: what stood `back` places before."""

    back: int

    def conditionals(self, params, batch, query=None):
        return {"tokens": Prediction(jax.nn.one_hot(jnp.roll(batch["tokens"], self.back, 1), 99))}


def test_accuracy_is_over_the_scored_tokens():
    source = CopyConfig(size=1, test_size=300, symbols=98, items=5).make()
    rows = np.arange(300)
    assert sequences.accuracy(Copier(6), None, source, rows, 64) == {"accuracy": 1.0, "exact": 1.0}
    assert sequences.accuracy(Copier(1), None, source, rows, 64)["accuracy"] < 0.05


def test_a_row_is_shown_as_text_or_as_numbers():
    source = CopyConfig(size=1, test_size=1, items=2).make()
    example = {"row": 7, "place": 1, "factual": np.array([3, 4, 5]), "counterfactual": np.array([3, 9, 6])}
    found = sequences.shown(source, example, "tokens[1]=9")
    assert found["factual"] == "3 4 5" and found["counterfactual"] == "3 9 6" and found["row"] == 7
    assert [line.split() for line in found["side_by_side"].splitlines()][-1] == ["=", "^"]
    assert "bits per byte 1.5000 (se 0.1000)" in sequences.summary({"bits_per_byte": {"value": 1.5, "se": 0.1}, "tokens": 9})
