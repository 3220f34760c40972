"""The learned instrument and the benches: fitted once, read again, blind to brightness."""

from __future__ import annotations

import types

import jax
import numpy as np
import pytest

from causal_gen.evaluate import axioms, instruments, scores
from causal_gen.evaluate.base import Bench, EvaluateConfig, Instrument, jsonable
from causal_gen.evaluate.batched import Batched
from causal_gen.structure.graph import Dag
from causal_gen.types import Entry


class Bars:
    """Ten classes of a bar at one of five places, lying or standing, at any brightness: a stand-in for digits that is learned at once."""

    name = "morphomnist (bars)"
    entries = {"image": Entry((28, 28, 1)), "digit": Entry((), "int32")}

    def size(self, split: str) -> int:
        return 400

    def gather(self, split: str, indices: np.ndarray) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(0 if split == "train" else 1)
        digits, level = rng.integers(0, 10, 400).astype(np.int32), rng.uniform(0.3, 1.0, 400)
        image = np.zeros((400, 28, 28, 1), np.float32)
        for row, (digit, bright) in enumerate(zip(digits, level, strict=True)):
            place = slice(2 + 5 * (digit % 5), 5 + 5 * (digit % 5))  # five pixels apart: fitting shifts images by up to two
            image[(row, place, slice(6, 22)) if digit < 5 else (row, slice(6, 22), place)] = bright
        return {"image": image[indices], "digit": digits[indices]}


@pytest.fixture
def fitted(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(instruments, "EPOCHS", 30)
    return instruments.digit_params(Bars())


def test_the_classifier_reads_classes_and_not_brightness(fitted):
    batch = Bars().gather("test", np.arange(200))
    found = instruments.classify(fitted, batch["image"])
    assert (found == batch["digit"]).mean() > 0.95
    np.testing.assert_array_equal(found, instruments.classify(fitted, 0.5 * batch["image"]))
    assert (found == np.roll(batch["digit"], 1)).mean() < 0.3


def test_it_is_fitted_once_and_a_damaged_cache_is_fitted_again(fitted, tmp_path, monkeypatch):
    (path,) = (tmp_path / "causal_gen").glob("digits-*.npz")

    def refuse(*args):
        raise AssertionError("fitted again")

    with monkeypatch.context() as patch:
        patch.setattr(instruments, "fit_classifier", refuse)
        again = instruments.digit_params(Bars())
        np.testing.assert_array_equal(again["out"]["bias"], fitted["out"]["bias"])
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(AssertionError, match="fitted again"):
            instruments.digit_params(Bars())


def test_a_source_without_instruments_is_evaluated_without_them():
    assert instruments.bench_of(types.SimpleNamespace(name="something new")) == Bench()


def test_a_strip_scales_with_the_image():
    bench = Bench(strips={"shadow": 3 / 32})
    assert [bench.rows("shadow", height) for height in (8, 32, 64)] == [slice(7, 8), slice(29, 32), slice(58, 64)]


def test_marginal_values_are_values_of_other_scenes():
    source = types.SimpleNamespace(
        size=lambda split: 50, gather=lambda split, i: {"f": i.astype(np.float32)}, entries={"f": Entry((), low=0, high=1)}
    )
    ask = Batched(None, None, 1)
    scenes = axioms.Scenes(ask, source, Bench(values="marginal"), jax.random.key(0), np.arange(20), {}, {})
    values = axioms.draw(scenes, "f", np.random.default_rng(0))
    assert len(set(values)) == 20 and set(values) <= set(range(50))


def test_a_reading_that_follows_the_intervention_is_no_excess_over_the_floor():
    """`held` compares against what the instrument shows between true images, not against zero."""
    tool = Instrument("width", lambda images: images.mean((1, 2, 3)), "pixel")
    x, moved = np.zeros((4, 2, 2, 1)), np.full((4, 2, 2, 1), 0.5)
    found = scores.held(Bench((tool,)), {"width"}, moved, {"image": moved}, {}, {"width": tool.read(x)})
    assert found["width"]["change"] == 0.5 and found["width"]["excess"] == 0.0
    drifted = scores.held(Bench((tool,)), {"width"}, moved, {"image": x}, {}, {"width": tool.read(x)})
    assert drifted["width"]["excess"] == 0.5


def test_noise_that_hides_a_parent_is_found_out():
    rng, graph = np.random.default_rng(0), Dag.from_edges([("a", "b")])
    labels = {"a": rng.normal(size=2000)}
    clean = {"b": rng.normal(size=(2000, 4)).astype(np.float32)}
    leaky = {"b": (clean["b"] + labels["a"][:, None]).astype(np.float32)}
    assert (
        scores.noise_law(clean, labels, graph)["b"]["ks"] < 0.02 and scores.noise_law(clean, labels, graph)["b"]["parent_correlation"] < 0.1
    )
    assert (
        scores.noise_law(leaky, labels, graph)["b"]["std"] > 1.3 and scores.noise_law(leaky, labels, graph)["b"]["parent_correlation"] > 0.8
    )


def test_figures_become_plain_json():
    assert jsonable({"a": np.float32(0.5), "b": [np.nan, np.arange(2)], 3: (True, None)}) == {
        "a": 0.5,
        "b": [None, [0, 1]],
        "3": [True, None],
    }


def test_settings_are_frozen_and_have_ranges():
    assert EvaluateConfig().scenes == 512 and EvaluateConfig().cycles == 10
    assert hash(EvaluateConfig()) == hash(EvaluateConfig())


def test_grey_levels_are_the_same_errors_times_255_and_only_for_grey_images():
    errors = {"mae": 0.5, "not_propagated": None}
    assert scores.grey(errors, np.zeros((1, 2, 2, 1))) == {"grey": {"mae": 127.5}}
    assert scores.grey(errors, np.zeros((1, 2, 2, 3))) == {}
