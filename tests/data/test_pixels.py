"""Images as sequences: what goes in comes out, in raster order, from real files and stand-ins alike."""

from __future__ import annotations

import numpy as np
import pytest

from causal_gen.data.pixels import PixelsConfig, shrunk
from causal_gen.types import DataError
from tests.data.test_morphomnist import write_mnist

ROWS = np.arange(6)


def source(**fields):
    return PixelsConfig(**{"size": 12, "test_size": 6, "standin": True, **fields}).make()


def test_pixel_tokens_are_the_grey_levels_in_raster_order():
    found = source()
    batch, images = found.gather("test", ROWS), found.rows["test"][0]
    for row, column in ((0, 0), (13, 14), (20, 11)):
        np.testing.assert_array_equal(batch["tokens"][:, 28 * row + column], images[:, row, column])
    np.testing.assert_array_equal(np.round(found.images(batch["tokens"])[..., 0] * 255), images)
    assert images.max() > 200 and batch["loss_mask"].all()


@pytest.mark.parametrize("fields", [{}, {"shrink": 4, "levels": 2}, {"shrink": 2, "patch": 7}, {"patch": 4}])
def test_batches_have_the_declared_shapes_and_ranges(fields):
    found = source(**fields)
    batch = found.gather("train", np.array([3, 1, 3]))
    assert set(batch) == set(found.entries) and "stand-in" in found.name and found.stats()
    for name, entry in found.entries.items():
        assert batch[name].shape == (3, *entry.shape) and str(batch[name].dtype) == entry.dtype
        assert (batch[name] >= entry.low).all() and (batch[name] <= entry.high).all()


def test_patches_come_back_as_the_image():
    found = source(patch=7)
    batch = found.gather("test", ROWS)
    assert batch["patches"].shape == (6, 16, 49)
    pixels = found.rows["test"][0] / np.float32(255)
    np.testing.assert_allclose(batch["patches"][:, 6], pixels[:, 7:14, 14:21].reshape(6, 49))  # second row of patches, third column
    np.testing.assert_allclose(found.images(batch["patches"])[..., 0], pixels)


def test_shrinking_averages_blocks():
    images = np.arange(16, dtype=np.uint8).reshape(1, 4, 4)
    np.testing.assert_array_equal(shrunk(images, 2), [[[2, 4], [10, 12]]])  # 2.5 rounds to even
    assert shrunk(images, 1) is images


def test_real_files_are_read(tmp_path):
    write_mnist(tmp_path)
    found = PixelsConfig(root=str(tmp_path), size=10, test_size=5).make()
    assert found.name == "pixels" and found.size("train") == 10
    with pytest.raises(DataError, match="13 train digits asked for, the idx file holds 12; lower data.size"):
        PixelsConfig(root=str(tmp_path), size=13, test_size=5).make()


def test_what_is_missing_or_wrong_is_said():
    with pytest.raises(DataError, match="pixels: MNIST is in no data folder"):
        PixelsConfig().make()
    with pytest.raises(DataError, match="pixels: data.root /nowhere is not a folder"):
        PixelsConfig(root="/nowhere").make()
    with pytest.raises(ValueError, match="patch=5 does not divide the image's side, 28"):
        PixelsConfig(patch=5)
    with pytest.raises(DataError, match=r"tokens\[0, 3\]: 4 is outside of the vocabulary 0..3"):
        source(levels=4).images(np.eye(1, 784, 3) * 4)
