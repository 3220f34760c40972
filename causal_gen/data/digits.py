"""Stand-in digits: strokes of the ten figures, drawn by a few lines of code for tiny runs and tests that must not need MNIST.

Each figure is a polyline or two in a unit square, bent by a random shear, rotation, scale and shift and drawn with a random width, so that
digits of one class differ. They share the shape, dtype and range of the real ones and nothing else.
"""

from __future__ import annotations

import numpy as np

from causal_gen.types import Float, UInt8

Point = tuple[float, float]


def _arc(x: float, y: float, rx: float, ry: float, start: int, end: int, pieces: int = 10) -> list[Point]:
    """Points of an elliptic arc around (x, y), angles in degrees from the right, clockwise on the screen (y down)."""
    angles = np.deg2rad(np.linspace(start, end, pieces + 1))
    return [(float(x + rx * np.cos(a)), float(y + ry * np.sin(a))) for a in angles]


# x to the right and y down, both 0..1
FIGURES: tuple[tuple[list[Point], ...], ...] = (
    (_arc(0.5, 0.5, 0.32, 0.45, 0, 360, 18),),
    ([(0.35, 0.2), (0.52, 0.05), (0.52, 0.95)],),
    ([*_arc(0.5, 0.3, 0.3, 0.25, -170, 35), (0.2, 0.95), (0.82, 0.95)],),
    ([*_arc(0.47, 0.28, 0.28, 0.22, -160, 90), *_arc(0.47, 0.72, 0.31, 0.22, -90, 160)],),
    ([(0.68, 0.95), (0.68, 0.05), (0.18, 0.65), (0.88, 0.65)],),
    ([(0.78, 0.06), (0.3, 0.06), (0.26, 0.45), *_arc(0.47, 0.68, 0.31, 0.26, -120, 150)],),
    ([(0.68, 0.06), *_arc(0.5, 0.68, 0.28, 0.26, -180, 180, 14)],),
    ([(0.18, 0.07), (0.82, 0.07), (0.42, 0.95)],),
    (_arc(0.5, 0.27, 0.24, 0.21, 90, 450, 14), _arc(0.5, 0.72, 0.29, 0.23, -90, 270, 14)),
    ([*_arc(0.48, 0.32, 0.27, 0.26, 0, -360, 14), (0.75, 0.32), (0.68, 0.95)],),
)


def draw(seed: int, split: str, num: int) -> tuple[UInt8[np.ndarray, "{num} 28 28"], UInt8[np.ndarray, "{num}"]]:
    """`num` stand-in digits and their classes; classes take turns. A function of the arguments alone."""
    stream = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, 0xD161, ("train", "test").index(split)))))
    classes = (np.arange(num) % 10).astype(np.uint8)
    images = np.stack([_draw_one(stream, FIGURES[figure]) for figure in classes]) if num else np.zeros((0, 28, 28), np.uint8)
    return images, classes


def _draw_one(stream: np.random.Generator, strokes: tuple[list[Point], ...]) -> np.ndarray:
    turn, shear, width = stream.normal(0, 0.1), stream.normal(0.1, 0.15), stream.uniform(1.8, 3.4)
    scale, shift = stream.uniform(0.9, 1.1, 2) * (15.0, 19.0), stream.uniform(-1, 1, 2)
    bend = np.array([[np.cos(turn), -np.sin(turn) - shear], [np.sin(turn), np.cos(turn)]])
    coverage = np.zeros((28, 28))
    for stroke in strokes:
        points = (np.array(stroke) - 0.5) * scale @ bend.T + 14.0 + shift
        coverage = np.maximum(coverage, np.clip(0.5 + 0.5 * width - _distance(points), 0.0, 1.0))
    return np.round(255 * coverage).astype(np.uint8)


def _distance(points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "28 28"]:
    """Distance of each pixel's centre to a polyline."""
    axis = np.arange(28) + 0.5
    pixels = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 1, 2)
    start, along = points[None, :-1], (points[1:] - points[:-1])[None]
    place = ((pixels - start) * along).sum(-1) / np.maximum((along * along).sum(-1), 1e-9)
    gap = pixels - start - np.clip(place, 0.0, 1.0)[..., None] * along
    return np.sqrt((gap * gap).sum(-1)).min(1).reshape(28, 28)
