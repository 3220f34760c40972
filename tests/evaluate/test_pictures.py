"""Grids show the pictures they are given, unsmoothed, and differences on a stated scale."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from causal_gen.data.pendulum import PendulumConfig
from causal_gen.evaluate import pictures
from causal_gen.types import WorkdirError
from tests.evaluate.fakes import Simulator

IMAGE = np.random.default_rng(0).random((3, 8, 8, 3)).astype(np.float32)


def test_every_pixel_of_a_tile_is_there_enlarged_without_smoothing(tmp_path):
    path = pictures.grid({"factual": IMAGE, "other": IMAGE[::-1]}, tmp_path / "new" / "grid.png", "title")
    sheet = np.asarray(Image.open(path))
    zoom = pictures.SIDE // 8
    tile = np.round(IMAGE[0] * 255).astype(np.uint8).repeat(zoom, 0).repeat(zoom, 1)
    rows, columns = np.where((sheet == tile[0, 0]).all(-1))
    assert any(
        (sheet[y : y + 8 * zoom, x : x + 8 * zoom] == tile).all() for y, x in zip(rows, columns, strict=True) if y + 8 * zoom <= len(sheet)
    )


def test_heat_is_white_at_zero_and_monotone():
    shades = pictures.heat(np.linspace(0, 1, 11).reshape(-1, 1, 1, 1))[:, 0, 0]
    assert (shades[0] == 1).all() and (np.diff(shades, axis=0) <= 0).all()
    assert (shades[5] == shades[10]).all()  # FULL and above


def test_difference_is_symmetric_and_zero_for_equals():
    assert pictures.difference(IMAGE, IMAGE).max() == 0
    np.testing.assert_array_equal(pictures.difference(IMAGE, IMAGE[::-1]), pictures.difference(IMAGE[::-1], IMAGE))
    as_bytes = np.round(IMAGE * 255).astype(np.uint8)
    assert pictures.difference(IMAGE, as_bytes).max() <= 0.5 / 255 + 1e-6


def test_a_range_makes_a_row_of_pictures_for_each_scene():
    ranged = IMAGE[:, None].repeat(4, 1)
    plain = pictures.compose({"factual": IMAGE, "counterfactual": IMAGE})
    sheet = pictures.compose({"factual": IMAGE, "counterfactual": ranged, "truth": ranged}, labels=["1", "2", "3", "4"])
    assert sheet.shape[0] > 2.5 * plain.shape[0] and sheet.shape[1] > 2 * plain.shape[1]  # three rows a scene; difference was added


def test_one_channel_is_drawn_in_grey():
    sheet = pictures.compose({"factual": IMAGE[..., :1]})
    assert (sheet[..., 0] == sheet[..., 1]).all()


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match="cannot write"):
        pictures.grid({"factual": IMAGE}, tmp_path / "file" / "grid.png")


def test_training_pictures_are_one_uint8_picture():
    source = PendulumConfig(size=64, test_size=8).make()
    draw = pictures.training_pictures(Simulator(32), source, scenes=2)
    found = draw({}, 7, lambda: False)
    assert set(found) == {"counterfactuals"}
    assert found["counterfactuals"].dtype == np.uint8 and found["counterfactuals"].ndim == 3 and found["counterfactuals"].shape[-1] == 3
