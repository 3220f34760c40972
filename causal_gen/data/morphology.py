"""Stroke thickness and brightness of digit images: how to measure them and how to set them. No learning, no randomness.

A digit is enlarged four times by cubic convolution and cut at half its range. With d(p) the Euclidean distance of a stroke's
pixel to the background and S the stroke's skeleton,

    thickness = 2 mean_{p in S} d(p) / 4    [pixels of the 28x28 image]                                (1)
    redrawn at scale s: the union over p in S of the discs of radius s d(p), edges anti-aliased, averaged down over 4x4 blocks       (2)

`set_thickness` starts (2) at s = target / measured and corrects s after measuring the result again, since cutting and averaging
move the edges. Thickness by (1) depends a little on the enlargement, so there is one factor for everything. Brightness is the
median of the pixels above half range, and is set by multiplying the image.

Sources: Castro et al., Morpho-MNIST, JMLR 20 (2019), for (1); Pawlowski et al., Deep SCM, NeurIPS 2020, for the brightness; Guo and Hall,
Comm. ACM 32 (1989), algorithm A1, for the skeleton; Felzenszwalb and Huttenlocher, Theory of Computing 8 (2012), for
distances one axis at a time.

Everything runs on NumPy, over stacks of images [b, h, w]; JAX is not imported, so worker processes start quickly.
"""

from __future__ import annotations

import functools
import io
import sys

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

FACTOR = 4  # enlargement, the same in every measurement
CORRECTIONS = 3  # of the scale, each after measuring the image again; the closest of the four drawings is kept
CHUNK = 16  # images handled at once: their working arrays stay in the cache


def measure_thickness(images: Float[np.ndarray, "b h w"] | UInt8[np.ndarray, "b h w"]) -> Float[np.ndarray, "b"]:
    """Mean stroke thickness [pixel], eq. (1), of images on any scale of brightness; 0 for an image without contrast."""
    return np.concatenate([_measure(_binary(part))[0] for part in _chunks(images)] or [np.zeros(0, np.float32)])


def measure_intensity(images: Float[np.ndarray, "b h w"] | UInt8[np.ndarray, "b h w"]) -> Float[np.ndarray, "b"]:
    """Median of the pixels at or above half range, on the scale of `images` (multiply by 255 for images in [0, 1])."""
    pixels = images.reshape(len(images), -1).astype(np.float32)
    half = 0.5 * (pixels.min(1, keepdims=True) + pixels.max(1, keepdims=True))
    return np.nanmedian(np.where(pixels >= half, pixels, np.nan), axis=1).astype(np.float32)


def set_thickness(digits: UInt8[np.ndarray, "b h w"], thickness: Float[np.ndarray, "b"]) -> Float[np.ndarray, "b h w"]:
    """The digits redrawn with mean stroke `thickness` [pixel], eq. (2); grey levels 0..255, full brightness inside the strokes."""
    parts = zip(_chunks(digits), _chunks(thickness), strict=True)
    return np.concatenate([_redraw(part, target) for part, target in parts] or [np.zeros(digits.shape, np.float32)])


def set_intensity(images: Float[np.ndarray, "b h w"], intensity: Float[np.ndarray, "b"]) -> Float[np.ndarray, "b h w"]:
    """The images multiplied so that their measured brightness is `intensity`, clipped to 0..255 and not rounded."""
    gain = intensity / np.maximum(measure_intensity(images), 1e-6)
    return np.clip(images * gain[:, None, None], 0.0, 255.0).astype(np.float32)


def serve() -> None:
    """Body of a worker process (data/workers.py): {digits, thickness} as npz on stdin, the redrawn images as npy on stdout."""
    received = np.load(io.BytesIO(sys.stdin.buffer.read()))
    sent = io.BytesIO()
    np.save(sent, set_thickness(received["digits"], received["thickness"]))
    sys.stdout.buffer.write(sent.getvalue())


def _chunks(values: np.ndarray) -> list[np.ndarray]:
    return [values[start : start + CHUNK] for start in range(0, len(values), CHUNK)]


@functools.lru_cache(maxsize=4)
def _enlarging(size: int) -> np.ndarray:
    """Matrix [FACTOR size, size] of cubic convolution (Keys 1981, a = -1/2), pixel centres aligned, black outside."""
    at = (np.arange(FACTOR * size) + 0.5) / FACTOR - 0.5
    gap = np.abs(at[:, None] - np.arange(size)[None, :])
    near = 1.5 * gap**3 - 2.5 * gap**2 + 1
    far = -0.5 * gap**3 + 2.5 * gap**2 - 4 * gap + 2
    return np.where(gap < 1, near, np.where(gap < 2, far, 0.0)).astype(np.float32)


def _binary(images: np.ndarray) -> Bool[np.ndarray, "b H W"]:
    """Strokes at FACTOR times the size: at or above half range; nothing where the image is flat."""
    height, width = images.shape[1:]
    large = _enlarging(height) @ images.astype(np.float32) @ _enlarging(width).T
    half = 0.5 * (large.min((1, 2), keepdims=True) + large.max((1, 2), keepdims=True))
    return (large >= half) & (images.max((1, 2), keepdims=True) > images.min((1, 2), keepdims=True))


def _squared_distance(strokes: Bool[np.ndarray, "b H W"]) -> Int[np.ndarray, "b H W"]:
    """Exact squared Euclidean distance, in pixels, to the nearest background pixel; outside the frame is background."""
    frame = np.pad(strokes, ((0, 0), (1, 1), (1, 1)))
    place = np.arange(frame.shape[2], dtype=np.int16)[None, None, :]
    last = np.maximum.accumulate(np.where(frame, np.int16(0), place), axis=2)
    following = np.minimum.accumulate(np.where(frame, np.int16(frame.shape[2] - 1), place)[:, :, ::-1], axis=2)[:, :, ::-1]
    row = np.minimum(place - last, following - place)[:, 1:-1, 1:-1]
    row = row * row
    best = row.copy()
    # a column offset d cannot improve on a distance below d, so the largest distance left bounds the search
    offset = 1
    while offset * offset < best.max(initial=0):
        square = np.int16(offset * offset)
        np.minimum(best[:, offset:], row[:, :-offset] + square, out=best[:, offset:])
        np.minimum(best[:, :-offset], row[:, offset:] + square, out=best[:, :-offset])
        # rows beyond the frame are background
        np.minimum(best[:, offset - 1], square, out=best[:, offset - 1])
        np.minimum(best[:, -offset], square, out=best[:, -offset])
        offset += 1
    return best


@functools.cache
def _deletable() -> tuple[np.ndarray, np.ndarray]:
    """Guo-Hall's rule for both half-steps as tables over the 8 neighbours' bits; clockwise from north, as P2..P9 in the paper."""
    code = np.arange(256)
    p2, p3, p4, p5, p6, p7, p8, p9 = (((code >> bit) & 1).astype(bool) for bit in range(8))
    pairs = [(p2, p3, p4), (p4, p5, p6), (p6, p7, p8), (p8, p9, p2)]
    crossings = sum((~a & (b | c)).astype(int) for a, b, c in pairs)
    first = sum((a | b).astype(int) for a, b in [(p9, p2), (p3, p4), (p5, p6), (p7, p8)])
    second = sum((a | b).astype(int) for a, b in [(p2, p3), (p4, p5), (p6, p7), (p8, p9)])
    neighbours = np.minimum(first, second)
    simple = (crossings == 1) & (neighbours >= 2) & (neighbours <= 3)
    return simple & ~((p6 | p7 | ~p9) & p8), simple & ~((p2 | p3 | ~p5) & p4)


def skeleton(strokes: Bool[np.ndarray, "b H W"]) -> Bool[np.ndarray, "b H W"]:
    """Connected lines one pixel wide along the middle of the strokes (thinning by Guo and Hall until nothing changes)."""
    count, height, width = strokes.shape
    frame = np.pad(strokes, ((0, 0), (1, 1), (1, 1))).astype(np.uint8).reshape(-1)
    step = width + 2
    shifts = (-step, -step + 1, 1, step + 1, step, step - 1, -1, -step - 1)
    bits = (1 << np.arange(8, dtype=np.uint8))[:, None]
    around = np.array(shifts)[:, None]
    alive = np.flatnonzero(frame)
    idle = 0
    tables, half = _deletable(), 0
    while idle < 2 and alive.size:
        codes = (frame[alive[None, :] + around] * bits).sum(0, dtype=np.uint8)
        gone = tables[half][codes]
        frame[alive[gone]] = 0
        idle = 0 if gone.any() else idle + 1
        alive, half = alive[~gone], 1 - half
    return frame.reshape(count, height + 2, step)[:, 1:-1, 1:-1].astype(bool)


def _measure(strokes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thickness [b] of the strokes, their skeleton and their squared distances."""
    squares, middle = _squared_distance(strokes), skeleton(strokes)
    radii = np.where(middle, np.sqrt(squares.astype(np.float32)), 0)
    thickness = 2 * radii.sum((1, 2)) / np.maximum(middle.sum((1, 2)), 1) / FACTOR
    return thickness.astype(np.float32), middle, squares


def _discs(middle: np.ndarray, squares: np.ndarray, scale: np.ndarray) -> Float[np.ndarray, "b H W"]:
    """Eq. (2): coverage by the union of discs. With D(q) = min_p |q - p|^2 - r_p^2, found one axis at a time, the distance of
    q to the union's edge is D / (2 r) to first order; the digit's mean radius stands for r. Hard edges would
    let the thickness jump by the width of a pixel, which the corrections cannot follow."""
    reach = scale[:, None, None] ** 2 * squares
    power = np.where(middle, -reach, np.float32(1e6)).astype(np.float32)
    limit = 1 + np.sqrt(max(0.0, float(-power.min(initial=0))))
    for axis in (2, 1):
        source = np.moveaxis(power, axis, 1)
        best = source.copy()
        offset = 1
        while offset < limit:
            square = np.float32(offset * offset)
            np.minimum(best[:, offset:], source[:, :-offset] + square, out=best[:, offset:])
            np.minimum(best[:, :-offset], source[:, offset:] + square, out=best[:, :-offset])
            offset += 1
        power = np.moveaxis(best, 1, axis)
    radius = np.where(middle, np.sqrt(reach), 0).sum((1, 2)) / np.maximum(middle.sum((1, 2)), 1)
    return np.clip(0.5 - power / (2 * np.maximum(radius, 0.5)[:, None, None]), 0, 1).astype(np.float32)


def _shrink(strokes: np.ndarray) -> Float[np.ndarray, "b h w"]:
    count, height, width = strokes.shape
    blocks = strokes.reshape(count, height // FACTOR, FACTOR, width // FACTOR, FACTOR)
    return 255 * blocks.mean((2, 4), dtype=np.float32)


def _redraw(digits: np.ndarray, target: np.ndarray) -> Float[np.ndarray, "b h w"]:
    natural, middle, squares = _measure(_binary(digits))
    natural = np.maximum(natural, 1e-3)
    scale, slope = target / natural, natural
    best, images, before = np.full(len(digits), np.inf), np.zeros(digits.shape, np.float32), None
    for _ in range(1 + CORRECTIONS):
        drawn = _shrink(_discs(middle, squares, scale))
        found = _measure(_binary(drawn))[0]
        closer = np.abs(target - found) < best
        best = np.where(closer, np.abs(target - found), best)
        images[closer] = drawn[closer]
        if before is not None:
            # the secant's slope, held near the natural one: topology changes (a loop fills) make thickness jump
            moved = scale - before[0]
            slope = np.where(np.abs(moved) > 1e-4, (found - before[1]) / np.where(moved == 0, 1, moved), natural)
            slope = np.clip(slope, 0.5 * natural, 2 * natural)
        before = (scale, found)
        scale = np.maximum(scale + (target - found) / slope, 0.1 / natural)
    return images
