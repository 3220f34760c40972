"""The whole evaluation on models whose answers are known: the true mechanism passes everything, each wrong one fails what it should."""

from __future__ import annotations

import dataclasses
import json
import types
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.data.pendulum import PendulumConfig
from causal_gen.evaluate import axioms, meaning
from causal_gen.evaluate.base import EvaluateConfig
from causal_gen.types import WorkdirError
from tests.evaluate.fakes import Simulator

SETTINGS = EvaluateConfig(scenes=48, cycles=3, batch_size=32, disentangle_images=200, slider_values=3, slider_scenes=2)
SOURCE = PendulumConfig(size=64, test_size=256).make()


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory):
    """kind of Simulator -> metrics; each evaluated once."""
    done: dict[str, Any] = {}

    def of(kind: str) -> dict[str, Any]:
        if kind not in done:
            workdir = tmp_path_factory.mktemp(kind)
            run = types.SimpleNamespace(model=Simulator(32, kind), params={}, data=SOURCE, workdir=workdir, step=1)
            done[kind] = axioms.evaluate(run, SETTINGS, progress=lambda line: None) | {"workdir": workdir}
        return done[kind]

    return of


def test_the_true_mechanism_is_found_to_be_exact(measured):
    """A simulator behind the model interface: any slip in scenes, noise reuse, interventions or truth would show here."""
    out = measured("oracle")
    quantum = 0.5 / 255  # factual images are stored as bytes, rendered ones are not
    assert max(out["composition"]["every_cycle"]) <= quantum and len(out["composition"]["every_cycle"]) == 3
    for factor, found in out["do"].items():
        assert found["mae"] <= 1e-6 and found["strips"]["shadow"]["mae"] <= 1e-6, factor
        assert found["copy"] > 1e-3
        assert found["reversibility"] <= quantum
        assert found["non_descendants_z"] == 0.0
        assert all(child["mae"] < 1e-5 < child["copy"] for child in found["children"].values())
        assert all(abs(tool["mae"] - tool["floor"]) < 1e-3 for tool in found["effectiveness"].values())
        followed = [tool for tool in found["effectiveness"].values() if "direction" in tool]
        assert len(followed) == 1 + len(found["children"]) and min(tool["r2"] for tool in followed) > 0.99, factor
        assert min(tool["direction"] for tool in followed) >= 0.9, (
            factor
        )  # what moves by less than the instrument's error may read as still
        assert all(abs(tool["excess"]) < 1e-3 for tool in found["held"].values())
    assert set(out["do"]["angle"]["children"]) == {"shadow_length", "shadow_position"}
    assert out["do"]["angle"]["not_propagated"] > 1e-3 and "not_propagated" not in out["do"]["shadow_length"]
    assert out["do"]["shadow_length"]["outside"]["change"] <= out["do"]["shadow_length"]["outside"]["composition"] + 1e-6
    assert out["do"]["shadow_length"]["outside"]["moved"] <= 1e-6
    assert min(out["label_r2"].values()) > 0.999 and out["mcc"]["blocks"] > 0.999 and out["dci"]["disentanglement"] > 0.9


def test_the_identity_composes_perfectly_and_fails_effectiveness(measured):
    out = measured("identity")
    assert max(out["composition"]["every_cycle"]) == 0.0
    for factor, found in out["do"].items():
        own = found["effectiveness"][factor]
        assert own["mae"] > 20 * own["floor"] and own["mae"] > 0.3 * own["chance"], factor
        assert own["direction"] == 0 and own["r2"] < 0.5, factor  # a picture handed back moves nowhere
        assert abs(found["mae"] - found["copy"]) < 1e-6


def test_a_constant_generator_fails_composition(measured):
    out = measured("constant")
    assert out["composition"]["mae"]["1"] > 0.3
    # there is no ball in a grey image: nothing is read, rather than something at random
    assert all(found["effectiveness"]["angle"]["read"] == 0 for found in out["do"].values())
    assert out["do"]["angle"]["effectiveness"]["angle"]["mae"] is None


def test_a_model_that_does_not_propagate_scores_its_baseline(measured):
    """Moving the ball alone must score what the not-propagated image scores, and the children must be as wrong as copied ones."""
    out = measured("frozen")
    for factor in ("angle", "light"):
        found = out["do"][factor]
        assert found["mae"] == pytest.approx(found["not_propagated"], rel=1e-3)
        assert found["strips"]["shadow"]["mae"] == pytest.approx(found["strips"]["shadow"]["not_propagated"], rel=1e-3)
        assert all(child["mae"] == pytest.approx(child["copy"], rel=1e-3) for child in found["children"].values())


def test_shuffled_values_drop_effectiveness_to_chance(measured):
    """A model that sets the factors to other scenes' values, as one trained on shuffled labels would."""

    @dataclasses.dataclass(frozen=True)
    class Shuffled(Simulator):
        def values(self, noise, do):
            do = {name: dataclasses.replace(act, args=tuple(jnp.roll(arg, 7) for arg in act.args)) for name, act in do.items()}
            return super().values(noise, do)

    scenes = axioms.choose(Shuffled(32), {}, SOURCE, dataclasses.replace(SETTINGS, scenes=200, batch_size=200), 0)
    values = axioms.draw(scenes, "light", np.random.default_rng(3))
    own = axioms.intervene(scenes, "light", values, scenes.image, 8)["effectiveness"]["light"]
    assert own["mae"] == pytest.approx(own["chance"], rel=0.25)


def test_what_is_written_is_strict_json_and_every_figure_has_a_meaning(measured):
    out = dict(measured("constant"))
    stored = json.loads((out.pop("workdir") / "evaluate" / "metrics.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert stored == out
    rows = [row for kind in ("oracle", "constant") for _, group in meaning.rows(measured(kind)) for row in group]
    assert {row.metric for row in rows} <= set(meaning.METRICS) and len(rows) > 50


def test_slider_rows_show_the_same_scene_under_every_value(measured):
    with np.load(measured("oracle")["workdir"] / "evaluate" / "sliders.npz") as rows:
        assert list(rows["factors"]) == list(SOURCE.entries)[1:]
        assert rows["counterfactual_angle"].shape == (2, 3, 32, 32, 3) and rows["counterfactual_angle"].dtype == np.uint8
        assert np.abs(rows["counterfactual_light"].astype(int) - rows["truth_light"]).max() <= 1
        assert (rows["counterfactual_angle"][:, 0] != rows["counterfactual_angle"][:, 2]).any()
        low, high = rows["values_angle"][[0, -1]]
        assert -36 <= low < -30 and 30 < high <= 38.7


def test_the_seed_picks_the_scenes_and_nothing_else_does():
    one, same, other = (axioms.choose(Simulator(32), {}, SOURCE, SETTINGS, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.indices, same.indices)
    assert (one.indices != other.indices).any()


def test_a_workdir_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "evaluate").write_text("in the way")
    run = types.SimpleNamespace(model=Simulator(32), params={}, data=SOURCE, workdir=tmp_path, step=1)
    with pytest.raises(WorkdirError, match="evaluate") as error:
        axioms.evaluate(run, dataclasses.replace(SETTINGS, scenes=2), progress=lambda line: None)
    assert "\n" not in str(error.value)
