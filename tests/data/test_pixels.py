"""Images as sequences: what goes in comes out, in raster order, from real files and stand-ins alike."""

from __future__ import annotations

import numpy as np
import pytest

from causal_gen.data import codebook, kept
from causal_gen.data.pixels import PixelsConfig, cut, shrunk
from causal_gen.types import DataError
from tests.data.test_idx import encode
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


@pytest.mark.parametrize("fields", [{}, {"shrink": 4, "levels": 2, "places": True}, {"shrink": 2, "patch": 7}, {"patch": 4}])
def test_batches_have_the_declared_shapes_and_ranges(fields):
    found = source(**fields)
    batch = found.gather("train", np.array([3, 1, 3]))
    assert set(batch) == set(found.entries) and "stand-in" in found.name and found.stats()
    for name, entry in found.entries.items():
        assert batch[name].shape == (3, *entry.shape) and str(batch[name].dtype) == entry.dtype
        assert (batch[name] >= entry.low).all() and (entry.high is None or (batch[name] <= entry.high).all())


def test_places_are_rows_and_columns_of_the_raster():
    batch = source(patch=4, codebook=10, places=True).gather("test", ROWS)
    assert (batch["row"][:, 7 * 2 + 5] == 2).all() and (batch["column"][:, 7 * 2 + 5] == 5).all() and batch["row"].max() == 6
    with pytest.raises(ValueError, match="places=true is about tokens"):
        PixelsConfig(patch=4, places=True)


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


def test_patch_tokens_are_the_nearest_codes_and_come_back_as_pictures():
    found = source(patch=4, codebook=30, size=40)
    batch = found.gather("test", ROWS)
    assert batch["tokens"].shape == (6, 49) and batch["tokens"].max() < 30 == found.entries["tokens"].vocabulary
    pixels = found.rows["test"][0].astype(np.int64)
    patch = pixels[:, 4:8, 12:16].reshape(6, 16)  # second row of patches, fourth column
    gaps = ((patch[:, None] - found.codes[None].astype(np.int64)) ** 2).sum(-1)
    np.testing.assert_array_equal(batch["tokens"][:, 7 + 3], gaps.argmin(1))
    shown = found.images(batch["tokens"])
    np.testing.assert_allclose(shown[:, 4:8, 12:16, 0].reshape(6, 16), found.codes[gaps.argmin(1)] / 255, rtol=1e-6)
    np.testing.assert_array_equal(source(patch=4, codebook=30, size=40).images(batch["tokens"]), shown)  # the same codes again
    lost = np.sqrt(((shown[..., 0] - pixels / 255) ** 2).mean())
    assert lost == pytest.approx(found.stats()["tokens"]["lost"]["test"], rel=1e-6) and lost < 0.15


def test_as_many_codes_as_patches_lose_nothing_and_one_more_is_refused():
    patches = len(np.unique(cut(source(patch=14).rows["train"][0], 14).reshape(-1, 196), axis=0))
    found = source(patch=14, codebook=patches)
    assert found.stats()["tokens"]["lost"]["train"] == 0
    pixels = found.rows["train"][0] / np.float32(255)
    np.testing.assert_array_equal(found.images(found.gather("train", np.arange(12))["tokens"])[..., 0], pixels)
    with pytest.raises(DataError, match=f"a codebook of {patches + 1} needs as many distinct patches, the training images have {patches}"):
        source(patch=14, codebook=patches + 1)
    with pytest.raises(ValueError, match="codebook=4 is of patches, two codes or more: set patch"):
        PixelsConfig(codebook=4)


def test_a_run_reads_its_codebook_again_and_knows_another(tmp_path):
    found = source(patch=4, codebook=20, size=40)
    kept.store(tmp_path, found.files)
    again = found.config.reopen(tmp_path, found.stats())
    np.testing.assert_array_equal(again.codes, found.codes)
    kept.store(tmp_path / "other", source(patch=4, codebook=20, size=40, seed=1).files)
    with pytest.raises(DataError, match="codebook.npy is not the one that this run was trained with"):
        found.config.reopen(tmp_path / "other", found.stats())
    with pytest.raises(DataError, match="cannot read .*codebook.npy .*copy the workdir again"):
        found.config.reopen(tmp_path / "nowhere", found.stats())
    with pytest.raises(DataError, match="x: not a codebook"):
        codebook.from_bytes(b"garbage", "x")


def test_the_two_sets_lie_in_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("CAUSAL_GEN_DATA", str(tmp_path))
    write_mnist(tmp_path / "mnist")
    with pytest.raises(DataError, match="pixels: Fashion-MNIST is in no data folder; set data.root"):
        PixelsConfig(images="fashion", size=10, test_size=5).make()
    write_mnist(tmp_path / "fashion-mnist", train=20)
    found = PixelsConfig(images="fashion", size=15, test_size=5).make()
    assert found.name == "pixels (Fashion-MNIST)" and found.size("train") == 15
    with pytest.raises(DataError, match="13 train digits asked for, the idx file holds 12"):
        PixelsConfig(size=13, test_size=5).make()
    labels = encode(np.array([5, 0, 4, 1, 9, 2, 1, 3] + 12 * [0], np.uint8))
    (tmp_path / "fashion-mnist" / "train-labels-idx1-ubyte").write_bytes(labels)
    with pytest.raises(DataError, match="fashion-mnist holds MNIST's digits, not Fashion-MNIST; put that into a folder fashion-mnist"):
        PixelsConfig(images="fashion", size=15, test_size=5).make()


@pytest.mark.data
def test_a_codebook_of_256_loses_little_of_real_digits():
    found = PixelsConfig(patch=4, codebook=256, size=4_000, test_size=500).make()
    lost = found.stats()["tokens"]["lost"]
    assert lost["train"] < lost["test"] < 0.09
