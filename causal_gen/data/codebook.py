"""A vocabulary of patches: k-means over grey levels, so that an image becomes a few tokens and tokens become an image again.

    assign   z_n = argmin_k |x_n - c_k|^2 = argmax_k 2 x_n . c_k - |c_k|^2,   the lowest k of equals                            (1)
    move     c_k = mean of the x_n with z_n = k, rounded to whole grey levels; a code that nobody chose takes the patch that is
             farthest from its own code                                                                                         (2)

The first codes are drawn by k-means++: each in proportion to the squared distance to those before it. Grey levels are whole numbers 0..255,
and so are the codes: every sum is exact in floating point, whatever the order of adding, and the same patches give the same bytes
on every machine, for a run to know its codebook by its hash. Codes are numbered from dark to bright.

Source: Lloyd 1982; k-means++: Arthur and Vassilvitskii, SODA 2007. Letters: n patches, d pixels of a patch, k codes.
"""

from __future__ import annotations

import io

import numpy as np

from causal_gen.types import DataError, Float, Int, UInt8

ROUNDS = 20  # of (1) and (2), or until no code moves
MOST = 100_000  # patches that are looked at
CHUNK = 1 << 14  # patches whose distances are held at once


def fit(patches: UInt8[np.ndarray, "n d"], size: int, seed: int) -> UInt8[np.ndarray, "{size} d"]:
    """`size` codes for the patches. Raises `DataError` where there are fewer distinct patches than that."""
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, 0xC0DE))))
    if len(patches) > MOST:
        patches = patches[np.sort(rng.permutation(len(patches))[:MOST])]
    distinct = len(np.unique(patches, axis=0))
    if distinct < size:
        raise DataError(
            f"pixels: a codebook of {size} needs as many distinct patches, the training images have {distinct}; "
            "lower data.codebook or raise data.size"
        )
    codes = _first(patches, size, rng)
    for _ in range(ROUNDS):
        chosen, gap = nearest(patches, codes)
        counts = np.bincount(chosen, minlength=size)
        sums = np.stack([np.bincount(chosen, column, size) for column in patches.T.astype(np.float64)], 1)
        moved = np.rint(sums / np.maximum(counts, 1)[:, None]).astype(np.uint8)
        idle = np.flatnonzero(counts == 0)
        moved[idle] = patches[np.argsort(-gap, kind="stable")[: len(idle)]]
        if np.array_equal(moved, codes):
            break
        codes = moved
    return codes[np.lexsort((*codes.T, codes.sum(1, dtype=np.int64)))]


def nearest(patches: UInt8[np.ndarray, "n d"], codes: UInt8[np.ndarray, "k d"]) -> tuple[Int[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """Eq. (1), and the squared distance to the code chosen, in grey levels."""
    # 2 x . c has to be a whole number that the type holds exactly
    exact = np.float32 if 2 * patches.shape[1] * 255**2 < 2**24 else np.float64
    points = codes.astype(exact)
    squares = (points**2).sum(1)
    chosen, gap = np.empty(len(patches), np.int32), np.empty(len(patches), np.float64)
    for start in range(0, len(patches), CHUNK):
        part = patches[start : start + CHUNK].astype(exact)
        score = 2 * (part @ points.T) - squares
        best = score.argmax(1)
        chosen[start : start + CHUNK] = best
        gap[start : start + CHUNK] = (part**2).sum(1) - score[np.arange(len(part)), best]
    return chosen, gap


def _first(patches: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    codes = np.empty((size, patches.shape[1]), np.uint8)
    codes[0] = patches[rng.integers(len(patches))]
    gap = np.full(len(patches), np.inf)
    for k in range(1, size):
        gap = np.minimum(gap, nearest(patches, codes[k - 1 : k])[1])
        steps = gap.cumsum()
        codes[k] = patches[np.searchsorted(steps, rng.random() * steps[-1], side="right")]
    return codes


def to_bytes(codes: UInt8[np.ndarray, "k d"]) -> bytes:
    """The file that a run keeps."""
    buffer = io.BytesIO()
    np.save(buffer, codes)
    return buffer.getvalue()


def from_bytes(content: bytes, where: str) -> UInt8[np.ndarray, "k d"]:
    """The codes in a kept file. Raises `DataError` where it holds none."""
    try:
        codes = np.load(io.BytesIO(content), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{where}: not a codebook ({error}); copy the workdir again") from None
    if codes.dtype != np.uint8 or codes.ndim != 2:
        raise DataError(f"{where}: not a codebook ({codes.dtype} {codes.shape}); copy the workdir again")
    return codes
