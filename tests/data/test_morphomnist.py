"""Laws of the digits: equations, exact counterfactuals, files that are missing or wrong. On stand-ins, except where marked `data`."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from causal_gen.data import idx, morphology
from causal_gen.data.morphomnist import MorphoMNISTConfig, attributes, intensity_of, noise_of
from causal_gen.scm.intervention import do, shift
from causal_gen.types import DataError
from tests.data.test_idx import encode

ROWS = np.arange(20)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return MorphoMNISTConfig(root=str(tmp_path_factory.mktemp("data")), size=40, test_size=20, standin=True).make()


@pytest.fixture
def fresh_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CAUSAL_GEN_DATA", raising=False)


def write_mnist(folder, train=12, test=8):
    stream = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for stem, count in (("train", train), ("t10k", test)):
        images = np.zeros((count, 28, 28), np.uint8)
        images[:, 6:22, 12:15] = stream.integers(200, 256, (count, 1, 1))
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(encode(images))
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(encode(stream.integers(0, 10, count).astype(np.uint8)))


def test_attributes_follow_their_law():
    """Moments and distributions of 60,000 draws; E[i | do(t)] at three thicknesses to 1.5 grey levels."""
    thickness, noise = attributes(0, "train", 60_000)
    assert thickness.mean() == pytest.approx(2.5, abs=0.01) and thickness.std() == pytest.approx(0.632, abs=0.01)
    assert stats.kstest((thickness - 0.5), "gamma", args=(10, 0, 0.2)).pvalue > 0.01
    assert stats.kstest(noise, "norm").pvalue > 0.01
    assert abs(np.corrcoef(thickness, noise)[0, 1]) < 0.015
    intensity = intensity_of(thickness, noise)
    assert intensity.mean() == pytest.approx(157.8, abs=0.7) and intensity.std() == pytest.approx(48.35, abs=0.5)
    for level, expected in ((1.5, 88.64), (2.5, 159.51), (3.5, 230.36)):
        assert intensity_of(np.full_like(noise, level), noise).mean() == pytest.approx(expected, abs=0.5)


def test_abduction_from_labels_inverts_the_equation():
    thickness, noise = attributes(1, "test", 2000)
    inside = np.abs(2 * (thickness - 2.5) + noise / 2) < 5  # beyond, float32 holds less than three digits of 255 - i
    np.testing.assert_allclose(noise_of(thickness, intensity_of(thickness, noise))[inside], noise[inside], atol=0.02)


def test_stored_images_read_as_their_labels(source):
    rows = source.rows["train"]
    thickness = np.abs(morphology.measure_thickness(rows["image"]) - rows["thickness"])
    intensity = np.abs(morphology.measure_intensity(rows["image"]) - rows["intensity"])
    assert thickness.mean() <= 0.03 and intensity.mean() <= 0.8


def test_null_intervention_gives_the_stored_digit(source):
    truth, stored = source.truth("test", ROWS, None), source.gather("test", ROWS)
    assert np.abs(truth["image"] - stored["image"]).max() <= 0.5 / 255 + 1e-6
    for name in ("thickness", "intensity", "digit"):
        np.testing.assert_array_equal(truth[name], stored[name])


def test_intensity_does_not_cause_thickness(source):
    before, after = source.truth("test", ROWS, None), source.truth("test", ROWS, do(intensity=120.0))
    np.testing.assert_array_equal(after["thickness"], before["thickness"])
    np.testing.assert_array_equal(after["intensity"], 120.0)
    assert np.abs(morphology.measure_intensity(after["image"][..., 0]) * 255 - 120).max() <= 1.0
    # the same strokes at another brightness, wherever neither image is clipped
    own = before["image"] * (120 / before["intensity"])[:, None, None, None]
    free = (before["image"] < 0.999) & (after["image"] < 0.999)
    np.testing.assert_allclose(after["image"][free], own[free], atol=2e-3)


def test_thickness_causes_intensity_with_the_digits_own_noise(source):
    target = np.linspace(1.5, 4.0, 20, dtype=np.float32)
    after = source.truth("test", ROWS, do(thickness=target))
    noise = source.rows["test"]["noise"]
    expected = 64 + 191 / (1 + np.exp(-(2 * (target - 2.5) + 0.5 * noise)))
    np.testing.assert_allclose(after["intensity"], expected, rtol=1e-5)
    assert np.abs(morphology.measure_thickness(after["image"][..., 0]) - target).mean() <= 0.05
    assert np.abs(morphology.measure_intensity(after["image"][..., 0]) * 255 - expected).mean() <= 2.0
    held = source.truth("test", ROWS, do(thickness=target, intensity=source.rows["test"]["intensity"]))
    np.testing.assert_array_equal(held["intensity"], source.rows["test"]["intensity"])
    thicker = source.truth("test", ROWS, shift(thickness=0.5))
    np.testing.assert_allclose(thicker["thickness"], source.rows["test"]["thickness"] + 0.5, rtol=1e-6)
    brighter = source.truth("test", ROWS, shift(thickness=0.5, edge=("thickness", "intensity")))
    np.testing.assert_array_equal(brighter["thickness"], source.rows["test"]["thickness"])
    np.testing.assert_array_equal(brighter["intensity"], thicker["intensity"])


def test_gathered_batches_have_the_declared_shapes_and_ranges(source):
    batch = source.gather("train", np.array([3, 1, 3]))
    assert set(batch) == set(source.entries)
    for name, entry in source.entries.items():
        assert batch[name].shape == (3, *entry.shape) and str(batch[name].dtype) == entry.dtype
        assert (batch[name] >= entry.low).all() and (batch[name] <= entry.high).all()


def test_standins_say_so(source):
    assert "not MNIST" in source.name
    assert set(source.stats()) == {"thickness", "intensity"}


def test_withheld_labels_are_zero(source):
    partial = dataclasses.replace(source.config, label_fraction=0.5).make()
    batch, full = partial.gather("train", np.arange(40)), source.gather("train", np.arange(40))
    mask = batch["label_mask"]
    assert mask.sum() == 20
    for name in ("thickness", "intensity", "digit"):
        np.testing.assert_array_equal(batch[name], np.where(mask, full[name], 0))
        assert batch[name].dtype == full[name].dtype


@pytest.mark.parametrize("sub", ["", "mnist"])
def test_idx_files_are_found_and_a_smaller_set_begins_a_larger_one(tmp_path, fresh_cache, sub):
    write_mnist(tmp_path / "raw" / sub)
    larger, smaller = (MorphoMNISTConfig(root=str(tmp_path / "raw"), size=size, test_size=4).make() for size in (12, 6))
    assert larger.size("train") == 12 and larger.size("test") == 4 and larger.name == "morphomnist"
    for name, values in smaller.rows["train"].items():
        np.testing.assert_array_equal(values, larger.rows["train"][name][:6])


def test_other_digits_are_another_set(tmp_path, fresh_cache):
    """The built set is found again by what the idx files hold, not by where they lie."""
    write_mnist(tmp_path / "one")
    write_mnist(tmp_path / "two", train=13)
    first, second = (MorphoMNISTConfig(root=str(tmp_path / name), size=5, test_size=2).make() for name in ("one", "two"))
    assert not np.array_equal(first.rows["train"]["digit"], second.rows["train"]["digit"])


def one_line(config: MorphoMNISTConfig) -> str:
    with pytest.raises(DataError) as raised:
        config.make()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_missing_and_damaged_files_are_named_in_one_line(tmp_path, fresh_cache, monkeypatch):
    small = MorphoMNISTConfig(root=str(tmp_path / "raw"), size=6, test_size=4)
    assert "is not a folder; give the folder that holds train-images-idx3-ubyte" in one_line(small)
    (tmp_path / "raw").mkdir()
    assert "holds no MNIST" in one_line(small)
    write_mnist(tmp_path / "raw")
    assert "20 train digits asked for, the idx file holds 12; lower data.size" in one_line(dataclasses.replace(small, size=20))
    images = tmp_path / "raw" / "t10k-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-100])
    assert f"{images} is cut short" in one_line(small)

    def offline(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("causal_gen.data.morphomnist.socket.create_connection", offline)
    message = one_line(dataclasses.replace(small, root=None))
    assert "cannot be reached (no route to host); set data.root or CAUSAL_GEN_DATA" in message


@pytest.mark.data
def test_real_digits_reach_their_targets(tmp_path):
    """300 MNIST digits: thickness to .02 pixel and intensity to .5 grey level on average."""
    found = {split: idx.find(Path(os.environ.get("CAUSAL_GEN_DATA", ".")), split) for split in ("train", "test")}
    if not all(found.values()):
        pytest.skip("needs MNIST: set CAUSAL_GEN_DATA")
    for path in sum(found.values(), ()):
        (tmp_path / path.name).symlink_to(path.resolve())  # so that the set is built here and not beside the files
    rows = MorphoMNISTConfig(root=str(tmp_path), size=300, test_size=10).make().rows["train"]
    assert np.abs(morphology.measure_thickness(rows["image"]) - rows["thickness"]).mean() <= 0.02
    assert np.abs(morphology.measure_intensity(rows["image"]) - rows["intensity"]).mean() <= 0.5
