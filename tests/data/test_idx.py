"""idx files: round trip, and each way in which a file can be wrong is named in one line."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from causal_gen.data import idx
from causal_gen.types import DataError


def encode(array: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


@pytest.mark.parametrize("shape", [(4,), (3, 2, 5), (300, 1, 2)])
@pytest.mark.parametrize("packed", [False, True])
def test_what_is_written_is_read(tmp_path, shape, packed):
    array = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(encode(array)) if packed else encode(array))
    np.testing.assert_array_equal(idx.read(path), array)


GOOD = encode(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (GOOD[:-1], "cut short: 39 bytes where its header promises 40"),
        (GOOD[:9], "cut short"),
        (GOOD + b"\0", "too long"),
        (gzip.compress(GOOD)[:-6], "cut short or damaged"),
        (b"", "does not start like an idx file of bytes (found nothing)"),
        (b"\x89PNG" + GOOD, "does not start like an idx file of bytes (found 89504e47)"),
        (b"\0\0\x0d\x03" + GOOD[4:], "does not start like an idx file of bytes"),
    ],
    ids=["cut", "cut header", "long", "cut gzip", "empty", "png", "not bytes"],  # gzip's time stamp would differ between xdist's workers
)
def test_bad_files_are_named_in_one_line(tmp_path, data, message):
    path = tmp_path / "digits-idx3-ubyte"
    path.write_bytes(data)
    with pytest.raises(DataError) as raised:
        idx.read(path)
    assert message in str(raised.value) and str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_a_flipped_byte_inside_a_gzip_is_noticed(tmp_path):
    data = bytearray(gzip.compress(encode(np.random.default_rng(0).integers(0, 256, (50, 28, 28)).astype(np.uint8))))
    data[len(data) // 2] ^= 1
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        idx.read(tmp_path / "file")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"^idx: cannot read .*nowhere .*; check the path"):
        idx.read(tmp_path / "nowhere")


def test_images_and_labels_must_belong_together(tmp_path):
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.write_bytes(encode(np.zeros((3, 28, 28), np.uint8)))
    labels.write_bytes(encode(np.zeros(4, np.uint8)))
    with pytest.raises(DataError, match="not n digits of 28x28 and n labels"):
        idx.digits(images, labels)
