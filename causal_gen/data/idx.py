"""Reading idx files, the format of MNIST: a magic number, the sizes as big-endian 32-bit integers, then the bytes.

Source: the format's description on the MNIST page (LeCun, Cortes and Burges).
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from causal_gen.data import storage
from causal_gen.types import DataError, UInt8

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def read(path: Path) -> UInt8[np.ndarray, "..."]:
    """The array of unsigned bytes in an idx file, raw or gzipped.

    Raises `DataError` for a file that cannot be read, is cut short, is longer than it says, or is not idx of unsigned bytes.
    """
    data = storage.unpacked(path, "idx")
    # bytes 0-1 are zero, byte 2 is the type (8: unsigned byte), byte 3 the number of dimensions
    if len(data) < 4 or data[:3] != b"\x00\x00\x08" or not 1 <= data[3] <= 4:
        raise DataError(f"idx: {path} does not start like an idx file of bytes (found {data[:4].hex() or 'nothing'}); copy it again")
    rank = data[3]
    start = 4 + 4 * rank
    shape = tuple(int(size) for size in np.frombuffer(data[4:start], ">u4")) if len(data) >= start else ()
    wanted = start + math.prod(shape)
    if len(shape) != rank or len(data) != wanted:
        kind = "cut short" if len(data) < wanted or len(shape) != rank else "too long"
        raise DataError(f"idx: {path} is {kind}: {len(data)} bytes where its header promises {wanted}; copy it again")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def find(folder: Path, split: str, within: str = "mnist") -> tuple[Path, Path] | None:
    """Images and labels of a split in `folder` or its subfolder `within`, raw or with .gz; None where either is missing."""
    for place in (folder / within, folder):
        found = []
        for stem in FILES[split]:
            found += [path for path in (place / stem, place / f"{stem}.gz") if path.is_file()][:1]
        if len(found) == 2:
            return found[0], found[1]
    return None


def locate(root: str | None, name: str, within: str = "mnist") -> dict[str, tuple[Path, Path]] | None:
    """The files of both splits, in `root` or else a data folder, or their subfolder `within`; None where no folder holds them.

    `name` is the source that asks.

    Raises `DataError` where `root`, which the user named, is no folder or holds none.
    """
    if root is not None and not Path(root).expanduser().is_dir():
        raise DataError(f"{name}: data.root {root} is not a folder; give the folder that holds {FILES['train'][0]}[.gz]")
    for folder in [Path(root).expanduser()] if root is not None else storage.folders(None):
        files = {split: find(folder, split, within) for split in FILES}
        if all(files.values()):
            return {split: pair for split, pair in files.items() if pair}
    if root is not None:
        names = ", ".join(sum(FILES.values(), ()))
        raise DataError(f"{name}: {root} holds no {within.upper()}; it, or its folder {within}, needs {names}, raw or .gz")
    return None


def digits(images: Path, labels: Path) -> tuple[UInt8[np.ndarray, "b 28 28"], UInt8[np.ndarray, "b"]]:
    """Digit images and their classes. Raises `DataError` where the two files do not belong together."""
    pixels, classes = read(images), read(labels)
    if pixels.ndim != 3 or pixels.shape[1:] != (28, 28) or classes.shape != pixels.shape[:1]:
        found = f"{images.name} {pixels.shape} and {labels.name} {classes.shape} in {images.parent}"
        raise DataError(f"idx: {found} are not n digits of 28x28 and n labels; copy both again")
    return pixels, classes
