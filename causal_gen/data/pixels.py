"""Small grey pictures as sequences: grey levels as tokens in raster order, patches as vectors, or patches as tokens of a codebook.

    token at (row r, column c) of an image of side s = place r s + c of the sequence, value floor(levels grey / 256)      (1)
    token of the patch x in a raster of p x p patches = the nearest code of k-means over the training patches                (2)

Pictures are MNIST's digits or Fashion-MNIST's articles. Grey levels are bytes of the idx files; with 256 levels (1) loses nothing. What
(2) loses is among the statistics. `shrink` averages blocks first, so that a sequence of 49 or 196 tokens is at hand for quick runs. The
split is the set's own. Source: LeCun, Cortes and Burges; Xiao, Rasul and Vollgraf 2017.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from causal_gen.data import codebook, digits, idx, kept
from causal_gen.data.text import token_entries
from causal_gen.data.tokenizer import check_tokens
from causal_gen.scm.intervention import Acts, Intervention
from causal_gen.types import DataError, Entry, Float, Int, UInt8, at_least, choice

SIDE = 28
SETS = {"mnist": "MNIST", "fashion": "Fashion-MNIST"}
FOLDERS = {"mnist": "mnist", "fashion": "fashion-mnist"}
DIGITS = (5, 0, 4, 1, 9, 2, 1, 3)  # the first classes of MNIST, by which it is told from a set of the same file names
KEPT = "codebook.npy"
LOOKED_AT = 2_000  # pictures that the codebook is fitted to, at most, and of either split that its loss is measured on


@dataclasses.dataclass(frozen=True)
class PixelsConfig:
    """`size` training and `test_size` test pictures; idx files lie in `root` or $CAUSAL_GEN_DATA, or in mnist or fashion-mnist there.

    patch: 0 gives tokens of `levels` grey levels; p > 0 gives vectors, the grey levels in [0, 1] of p x p patches in raster order.
    codebook: k > 0 gives tokens in the place of those vectors, eq. (2), of k codes that are fitted here.
    places: every token also says in which row and column it is, for positions and visibilities that read that.
    standin: draw figures in the place of the set (data/digits.py).
    """

    name: str = "pixels"
    root: str | None = None
    images: str = choice("mnist", "fashion")
    size: int = at_least(60_000, 1, 60_000)
    test_size: int = at_least(10_000, 1, 10_000)
    seed: int = at_least(0, 0)
    shrink: int = dataclasses.field(default=1, metadata={"choices": (1, 2, 4, 7)})
    levels: int = at_least(256, 2, 256)
    patch: int = at_least(0, 0)
    codebook: int = at_least(0, 0, 1 << 16)
    places: bool = False
    standin: bool = False

    def __post_init__(self):
        if self.patch and self.side % self.patch:
            raise ValueError(f"patch={self.patch} does not divide the image's side, {self.side} pixels after shrink={self.shrink}")
        if self.codebook and (not self.patch or self.codebook < 2):
            raise ValueError(f"codebook={self.codebook} is of patches, two codes or more: set patch, or codebook to 0")
        if self.places and self.patch and not self.codebook:
            raise ValueError("places=true is about tokens, and patches without a codebook are vectors; set codebook, or places to false")

    @property
    def side(self) -> int:
        """Height and width of the image that becomes a sequence."""
        return SIDE // self.shrink

    @property
    def length(self) -> int:
        """Pixels or patches of a picture."""
        return (self.side // max(self.patch, 1)) ** 2

    @property
    def vocabulary(self) -> int:
        """Values of a token."""
        return self.codebook or self.levels

    @property
    def grid(self) -> dict[str, Int[np.ndarray, "t"]]:
        """Row and column of every token, where they are asked for."""
        columns = self.side // max(self.patch, 1)
        index = np.arange(self.length, dtype=np.int32)
        return {"row": index // columns, "column": index % columns} if self.places else {}

    @property
    def entries(self) -> Mapping[str, Entry]:
        """The sequence, and the picture's class."""
        digit = {"digit": Entry((), "int32", "", 0.0, 9.0, "class of the picture", 10)}
        if self.patch and not self.codebook:
            shape = (self.length, self.patch**2)
            return {"patches": Entry(shape, "float32", "", 0.0, 1.0, "grey levels of patches in raster order"), **digit}
        what = "codes of patches" if self.codebook else "grey levels of pixels"
        tokens = token_entries(self.length, self.vocabulary, f"{what} in raster order")
        return {**tokens, **{name: Entry((self.length,), "int32", "", 0.0, None, f"{name} of a token") for name in self.grid}, **digit}

    def make(self) -> Pixels:
        """The source, its images in memory. Raises `DataError` where the set is in no data folder, a file is damaged, or there are fewer
        distinct patches than codes."""
        rows = self._rows()
        if not self.codebook:
            return Pixels(self, rows)
        shown = np.random.default_rng(self.seed).permutation(self.size)[:LOOKED_AT]
        patches = cut(rows["train"][0][np.sort(shown)], self.patch)
        return Pixels(self, rows, codebook.fit(patches.reshape(-1, self.patch**2), self.codebook, self.seed))

    def reopen(self, folder: Path, stats: Mapping[str, Any]) -> Pixels:
        """The source of a run, with the codebook that it kept in `folder`."""
        if not self.codebook:
            return Pixels(self, self._rows())
        content = kept.load(folder, KEPT, stats["tokens"]["sha256"])
        return Pixels(self, self._rows(), codebook.from_bytes(content, str(folder / KEPT)))

    def _rows(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        called = SETS[self.images]
        files = None if self.standin else idx.locate(self.root, self.name, FOLDERS[self.images])
        if files is None and not self.standin:
            raise DataError(f"pixels: {called} is in no data folder; set data.root or CAUSAL_GEN_DATA to its folder, or data.standin=true")
        rows = {}
        for split, num in (("train", self.size), ("test", self.test_size)):
            images, classes = idx.digits(*files[split]) if files else digits.draw(self.seed, split, num)
            if len(images) < num:
                key = "data.size" if split == "train" else "data.test_size"
                raise DataError(f"pixels: {num} {split} digits asked for, the idx file holds {len(images)}; lower {key}")
            rows[split] = shrunk(images[:num], self.shrink), classes[:num].astype(np.int32)
        if files and self.images != "mnist" and tuple(rows["train"][1][: len(DIGITS)]) == DIGITS:
            place = files["train"][0].parent
            raise DataError(f"pixels: {place} holds MNIST's digits, not {called}; put that into a folder {FOLDERS[self.images]}")
        return rows


def cut(images: UInt8[np.ndarray, "b h w"], patch: int) -> UInt8[np.ndarray, "b n d"]:
    """The `patch` by `patch` blocks of images in raster order, each row by row."""
    num, side, _ = images.shape
    blocks = images.reshape(num, side // patch, patch, side // patch, patch).swapaxes(2, 3)
    return blocks.reshape(num, -1, patch * patch)


def shrunk(images: UInt8[np.ndarray, "b h w"], factor: int) -> UInt8[np.ndarray, "b {images.shape[1]//factor} {images.shape[2]//factor}"]:
    """Means of blocks of `factor` by `factor` grey levels, rounded."""
    if factor == 1:
        return images
    num, height, width = images.shape
    blocks = images.reshape(num, height // factor, factor, width // factor, factor)
    return np.round(blocks.mean((2, 4))).astype(np.uint8)


@dataclasses.dataclass(frozen=True, eq=False)
class Pixels:
    """The source. `rows[split]`: grey levels u8 [n, side, side] and classes i32 [n]; `codes` u8 [k, p p] where patches are tokens."""

    config: PixelsConfig
    rows: Mapping[str, tuple[np.ndarray, np.ndarray]]
    codes: np.ndarray | None = None

    @property
    def name(self) -> str:
        called = SETS[self.config.images]
        if self.config.standin:
            return f"{self.config.name} (stand-in strokes, not {called})"
        return self.config.name + ("" if self.config.images == "mnist" else f" ({called})")

    @functools.cached_property
    def files(self) -> dict[str, bytes]:
        """What a run keeps in its workdir's data/: the codebook."""
        return {} if self.codes is None else {KEPT: codebook.to_bytes(self.codes)}

    @property
    def entries(self) -> Mapping[str, Entry]:
        return self.config.entries

    def size(self, split: str) -> int:
        return len(self.rows[split][1])

    def gather(self, split: str, indices: Int[np.ndarray, "b"]) -> dict[str, np.ndarray]:
        """Sequences of the images at `indices`, eq. (1), (2) or patches, with their classes."""
        images, classes = self.rows[split]
        pixels, digit = images[indices], {"digit": classes[indices]}
        if self.codes is not None:
            tokens = self._encode(pixels)
        elif self.config.patch:
            return {"patches": cut(pixels, self.config.patch) / np.float32(255), **digit}
        else:
            tokens = (pixels.astype(np.int32) * self.config.levels // 256).reshape(len(pixels), -1)
        places = {name: np.broadcast_to(place, tokens.shape) for name, place in self.config.grid.items()}
        return {"tokens": tokens, "loss_mask": np.ones(tokens.shape, np.float32), **places, **digit}

    def _encode(self, images: UInt8[np.ndarray, "b h w"]) -> Int[np.ndarray, "b n"]:
        assert self.codes is not None
        patches = cut(images, self.config.patch)
        return codebook.nearest(patches.reshape(-1, patches.shape[-1]), self.codes)[0].reshape(patches.shape[:2])

    def images(self, sequences: Any) -> Float[np.ndarray, "b h w 1"]:
        """The pictures in [0, 1] of tokens [b, t] or patches [b, n, p p]. Raises `DataError` for a token out of range."""
        side, patch, levels = self.config.side, self.config.patch, self.config.levels
        if patch:
            known = sequences if self.codes is None else self.codes[check_tokens(sequences, self.config.codebook)] / np.float32(255)
            blocks = np.asarray(known, np.float32).reshape(-1, side // patch, side // patch, patch, patch).swapaxes(2, 3)
            return blocks.reshape(-1, side, side, 1)
        tokens = check_tokens(sequences, levels)
        return (tokens.reshape(-1, side, side, 1) / np.float32(levels - 1)).astype(np.float32)

    def pictures(self, split: str, indices: Int[np.ndarray, "b"]) -> Float[np.ndarray, "b h w 1"]:
        """The pictures in [0, 1] as they are in the files, before levels or codes took anything away."""
        return self.rows[split][0][indices][..., None] / np.float32(255)

    def stats(self) -> dict[str, Any]:
        """The size of the vocabulary, of a codebook its sha256 and the root mean square of what it loses [share of the grey range]; or
        mean and standard deviation over all patches."""
        if self.codes is not None:
            lost = {split: math.sqrt(self._lost(split)) / 255 for split in ("train", "test")}
            digest = hashlib.sha256(self.files[KEPT]).hexdigest()
            return {"tokens": {"vocabulary": self.config.codebook, "sha256": digest, "lost": lost}}
        if not self.config.patch:
            return {"tokens": {"vocabulary": self.config.levels}}
        pixels = self.rows["train"][0] / 255.0
        return {"patches": {"mean": float(pixels.mean()), "std": float(pixels.std())}}

    def _lost(self, split: str) -> float:
        """Mean squared error of a pixel, in grey levels."""
        assert self.codes is not None
        patches = cut(self.rows[split][0][:LOOKED_AT], self.config.patch)
        return float(codebook.nearest(patches.reshape(-1, patches.shape[-1]), self.codes)[1].mean()) / self.config.patch**2

    def truth(self, split: str, indices: Int[np.ndarray, "b"], do: Intervention | Acts | None) -> None:
        """Nobody knows what a picture would have been with another pixel."""
        del split, indices, do
