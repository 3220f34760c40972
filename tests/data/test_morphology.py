"""Instruments and morphology of strokes, against closed forms, scipy and slow re-implementations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from causal_gen.data import digits, morphology, workers

EIGHT = np.ones((3, 3))


@pytest.fixture(scope="module")
def strokes():
    return digits.draw(0, "train", 40)[0]


def test_distances_are_euclidean(strokes):
    """Against scipy, with a frame of background; including strokes that touch the frame."""
    binary = morphology._binary(strokes[:10])
    binary[0, :9] = True
    binary[1] = True
    for ours, mask in zip(morphology._squared_distance(binary), binary, strict=True):
        np.testing.assert_allclose(np.sqrt(ours), ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1], rtol=1e-6)


def test_skeleton_is_thin_and_keeps_the_topology(strokes):
    """As many pieces and as many holes as the stroke, inside it, and no 2x2 block of pixels is left."""
    binary = morphology._binary(strokes)
    middle = morphology.skeleton(binary)
    assert not (middle & ~binary).any()
    assert not (middle[:, 1:, 1:] & middle[:, :-1, 1:] & middle[:, 1:, :-1] & middle[:, :-1, :-1]).any()
    for thin, thick in zip(middle, binary, strict=True):
        assert ndimage.label(thin, EIGHT)[1] == ndimage.label(thick, EIGHT)[1]
        assert ndimage.label(~np.pad(thin, 1))[1] == ndimage.label(~np.pad(thick, 1))[1]


@pytest.mark.parametrize("width", [1.5, 2.5, 4.0, 6.0])
def test_thickness_of_a_bar_is_its_width(width):
    """A vertical bar with exact edges. The discrete distance counts up to half an enlarged pixel on either side."""
    edge = np.clip(0.5 + 0.5 * width - np.abs(np.arange(28) + 0.5 - 13.7), 0, 1)
    image = np.zeros((1, 28, 28), np.float32)
    image[0, 4:24] = edge
    np.testing.assert_allclose(morphology.measure_thickness(image), width, atol=0.3)


def test_thickness_does_not_depend_on_brightness_or_scale(strokes):
    full = morphology.measure_thickness(strokes)
    np.testing.assert_allclose(morphology.measure_thickness(strokes.astype(np.float32) / 255), full, rtol=1e-6)
    np.testing.assert_allclose(morphology.measure_thickness(strokes.astype(np.float32) * 0.3), full, rtol=1e-6)


def test_redrawn_strokes_have_the_thickness_asked_for(strokes):
    """Targets drawn by the dataset's own law, and far from the original."""
    target = (0.5 + np.random.default_rng(1).gamma(10, 0.2, len(strokes))).astype(np.float32)
    before = np.abs(morphology.measure_thickness(strokes) - target)
    after = np.abs(morphology.measure_thickness(morphology.set_thickness(strokes, target)) - target)
    assert after.mean() <= 0.02 and np.quantile(after, 0.95) <= 0.06
    assert before.mean() > 0.4  # doing nothing fails


def test_redrawing_keeps_the_figure(strokes):
    """At its own thickness a digit comes back nearly unchanged, and thickening adds ink around the old strokes."""
    own = morphology.measure_thickness(strokes)
    same = morphology.set_thickness(strokes, own)
    assert np.abs(same - strokes).mean() < 3.0
    thicker = morphology.set_thickness(strokes, own + 1)
    assert (thicker - same).min() > -60 and (thicker - same).mean() > 5


def test_images_do_not_depend_on_their_neighbours_in_the_stack(strokes):
    target = np.linspace(1.2, 4.5, 40, dtype=np.float32)
    together = morphology.set_thickness(strokes, target)
    np.testing.assert_array_equal(together[7:9], morphology.set_thickness(strokes[7:9], target[7:9]))


def test_intensity_set_is_intensity_read(strokes):
    target = np.linspace(70, 250, 40, dtype=np.float32)
    thick = morphology.set_thickness(strokes, np.full(40, 3.0, np.float32))
    bright = np.round(morphology.set_intensity(thick, target)).astype(np.uint8)
    assert np.abs(morphology.measure_intensity(bright) - target).mean() <= 0.5
    assert np.abs(morphology.measure_thickness(bright) - morphology.measure_thickness(thick)).mean() <= 0.02


def test_intensity_is_the_median_of_the_upper_half():
    image = np.array([[[0, 10, 100], [120, 200, 90]]], np.uint8)
    np.testing.assert_array_equal(morphology.measure_intensity(image), [np.median([100, 120, 200])])


def test_empty_and_flat_images_are_measured_without_noise():
    flat = np.stack([np.zeros((28, 28)), np.full((28, 28), 7.0)]).astype(np.float32)
    np.testing.assert_array_equal(morphology.measure_thickness(flat), [0, 0])
    np.testing.assert_array_equal(morphology.measure_intensity(flat), [0, 7])
    assert morphology.measure_thickness(np.zeros((0, 28, 28), np.float32)).shape == (0,)
    assert np.isfinite(morphology.set_thickness(np.zeros((1, 28, 28), np.uint8), np.ones(1, np.float32))).all()


def test_worker_processes_do_what_one_process_does(strokes, monkeypatch):
    target = np.linspace(1.2, 4.5, 40, dtype=np.float32)
    monkeypatch.setattr(workers, "JOB", 25)
    np.testing.assert_array_equal(workers.set_thickness(strokes, target), morphology.set_thickness(strokes, target))


def test_after_an_error_queued_jobs_do_not_run(strokes, monkeypatch):
    """Ctrl-C during a long build must not wait for the rest of it."""
    started = []

    def interrupted(part, target):
        started.append(len(part))
        raise KeyboardInterrupt

    monkeypatch.setattr(workers, "JOB", 1)
    monkeypatch.setattr(workers, "_job", interrupted)
    monkeypatch.setattr(workers.os, "sched_getaffinity", lambda process: {0})
    with pytest.raises(KeyboardInterrupt):
        workers.set_thickness(np.concatenate([strokes] * 50), np.ones(2000, np.float32))
    assert len(started) < 2000


def test_a_failing_worker_says_why(monkeypatch):
    monkeypatch.setattr(workers, "PROGRAM", "raise SystemExit('no room')")
    with pytest.raises(RuntimeError, match="no room"):
        workers._job(np.zeros((1, 28, 28), np.uint8), np.ones(1, np.float32))


def test_standin_digits_are_a_function_of_their_key():
    images, classes = digits.draw(3, "train", 30)
    assert images.shape == (30, 28, 28) and images.dtype == np.uint8 and images.max() == 255
    np.testing.assert_array_equal(classes[:12], [*range(10), 0, 1])
    np.testing.assert_array_equal(digits.draw(3, "train", 12)[0], images[:12])
    assert np.abs(digits.draw(3, "test", 12)[0].astype(int) - images[:12]).mean() > 5
    assert np.abs(images[0].astype(int) - images[10]).mean() > 5  # two zeros differ
    holes = [ndimage.label(image < 128)[1] - 1 for image in images[:10]]
    assert holes[0] == 1 and holes[1] == 0 and holes[7] == 0 and holes[8] == 2
