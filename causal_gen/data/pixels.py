"""Handwritten digits as sequences: grey levels as tokens in raster order, or patches as vectors.

    token at (row r, column c) of an image of side s = place r s + c of the sequence, value floor(levels grey / 256)      (1)

Grey levels are bytes of the idx files; with 256 levels (1) loses nothing. `shrink` averages blocks first, so that
a sequence of 49 or 196 tokens is at hand for quick runs. The split is MNIST's own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from causal_gen.data import digits, idx
from causal_gen.data.text import token_entries
from causal_gen.data.tokenizer import check_tokens
from causal_gen.scm.intervention import Acts, Intervention
from causal_gen.types import DataError, Entry, Float, Int, UInt8

SIDE = 28


@dataclasses.dataclass(frozen=True)
class PixelsConfig:
    """`size` training and `test_size` test digits; idx files lie in `root` or $CAUSAL_GEN_DATA, or in a folder mnist there.

    patch: 0 gives tokens of `levels` grey levels; p > 0 gives vectors, the grey levels in [0, 1] of p x p patches in raster order.
    standin: draw figures in the place of MNIST (data/digits.py).
    """

    name: str = "pixels"
    root: str | None = None
    size: int = dataclasses.field(default=60_000, metadata={"min": 1, "max": 60_000})
    test_size: int = dataclasses.field(default=10_000, metadata={"min": 1, "max": 10_000})
    seed: int = dataclasses.field(default=0, metadata={"min": 0})
    shrink: int = dataclasses.field(default=1, metadata={"choices": (1, 2, 4, 7)})
    levels: int = dataclasses.field(default=256, metadata={"min": 2, "max": 256})
    patch: int = dataclasses.field(default=0, metadata={"min": 0})
    standin: bool = False

    def __post_init__(self):
        if self.patch and self.side % self.patch:
            raise ValueError(f"patch={self.patch} does not divide the image's side, {self.side} pixels after shrink={self.shrink}")

    @property
    def side(self) -> int:
        """Height and width of the image that becomes a sequence."""
        return SIDE // self.shrink

    @property
    def entries(self) -> Mapping[str, Entry]:
        """The sequence, and the digit's class."""
        digit = {"digit": Entry((), "int32", "", 0.0, 9.0, "class of the digit", 10)}
        if self.patch:
            shape = ((self.side // self.patch) ** 2, self.patch**2)
            return {"patches": Entry(shape, "float32", "", 0.0, 1.0, "grey levels of patches in raster order"), **digit}
        return {**token_entries(self.side**2, self.levels, "grey levels of pixels in raster order"), **digit}

    def make(self) -> Pixels:
        """The source, its images in memory. Raises `DataError` where MNIST is in no data folder or a file is damaged."""
        files = None if self.standin else idx.locate(self.root, self.name)
        if files is None and not self.standin:
            raise DataError("pixels: MNIST is in no data folder; set data.root or CAUSAL_GEN_DATA to its folder, or data.standin=true")
        rows = {}
        for split, num in (("train", self.size), ("test", self.test_size)):
            images, classes = idx.digits(*files[split]) if files else digits.draw(self.seed, split, num)
            if len(images) < num:
                key = "data.size" if split == "train" else "data.test_size"
                raise DataError(f"pixels: {num} {split} digits asked for, the idx file holds {len(images)}; lower {key}")
            rows[split] = shrunk(images[:num], self.shrink), classes[:num].astype(np.int32)
        return Pixels(self, rows)


def shrunk(images: UInt8[np.ndarray, "b h w"], factor: int) -> UInt8[np.ndarray, "b {images.shape[1]//factor} {images.shape[2]//factor}"]:
    """Means of blocks of `factor` by `factor` grey levels, rounded."""
    if factor == 1:
        return images
    num, height, width = images.shape
    blocks = images.reshape(num, height // factor, factor, width // factor, factor)
    return np.round(blocks.mean((2, 4))).astype(np.uint8)


@dataclasses.dataclass(frozen=True, eq=False)
class Pixels:
    """The source. `rows[split]`: grey levels u8 [n, side, side] and classes i32 [n]."""

    config: PixelsConfig
    rows: Mapping[str, tuple[np.ndarray, np.ndarray]]

    @property
    def name(self) -> str:
        return self.config.name + (" (stand-in strokes, not MNIST)" if self.config.standin else "")

    @property
    def entries(self) -> Mapping[str, Entry]:
        return self.config.entries

    def size(self, split: str) -> int:
        return len(self.rows[split][1])

    def gather(self, split: str, indices: Int[np.ndarray, "b"]) -> dict[str, np.ndarray]:
        """Sequences of the images at `indices`, eq. (1) or patches, with their classes."""
        images, classes = self.rows[split]
        pixels, digit = images[indices], {"digit": classes[indices]}
        if self.config.patch:
            side, patch = self.config.side, self.config.patch
            blocks = pixels.reshape(-1, side // patch, patch, side // patch, patch).swapaxes(2, 3)
            return {"patches": blocks.reshape(len(pixels), -1, patch * patch) / np.float32(255), **digit}
        tokens = (pixels.astype(np.int32) * self.config.levels // 256).reshape(len(pixels), -1)
        return {"tokens": tokens, "loss_mask": np.ones(tokens.shape, np.float32), **digit}

    def images(self, sequences: Any) -> Float[np.ndarray, "b h w 1"]:
        """The pictures in [0, 1] of tokens [b, t] or patches [b, n, p p]. Raises `DataError` for a token out of range."""
        side, patch, levels = self.config.side, self.config.patch, self.config.levels
        if patch:
            blocks = np.asarray(sequences, np.float32).reshape(-1, side // patch, side // patch, patch, patch).swapaxes(2, 3)
            return blocks.reshape(-1, side, side, 1)
        tokens = check_tokens(sequences, levels)
        return (tokens.reshape(-1, side, side, 1) / np.float32(levels - 1)).astype(np.float32)

    def stats(self) -> dict[str, Any]:
        """The size of the vocabulary, or mean and standard deviation over all patches."""
        if not self.config.patch:
            return {"tokens": {"vocabulary": self.config.levels}}
        pixels = self.rows["train"][0] / 255.0
        return {"patches": {"mean": float(pixels.mean()), "std": float(pixels.std())}}

    def truth(self, split: str, indices: Int[np.ndarray, "b"], do: Intervention | Acts | None) -> None:
        """Nobody knows what a digit would have been with another pixel."""
        del split, indices, do
