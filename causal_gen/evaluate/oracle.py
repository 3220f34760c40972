"""A reader of pendulum images that learns nothing: colours are unmixed, then measured by their moments.

Every pixel is a mixture of firebrick (ball), orange (sun), white (sky) and black (rod, shadow), with weights that sum to one, so
that three channels fix the weights exactly:

    rgb = a_f firebrick + a_o orange + a_w white,     a_black = 1 - a_f - a_o - a_w                         (1)
    angle = atan2(x_f - x_pivot, y_pivot - y_f)        of the centroid (x_f, y_f) of a_f                      (2)
    light from the centroid x of a_o;  shadow_position = centroid x of a_black in the strip;  shadow_length = its mass / thickness  (3)

A sun that is cut off by the canvas has its centroid shifted, and the thickness in (3) depends on the rasteriser. Both are
calibrated once on scenes whose four factors are drawn independently of each other (never on observational data, where a reader
could use one factor to guess another). Letters: b images, s side.

The readings are this project's own, from the geometry of the renderer (data/raster.py).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from causal_gen.data import pendulum as sim
from causal_gen.evaluate.base import Bench, Instrument
from causal_gen.types import Float

STRIP = 3 / 32  # the ground's share of the image height
SIGNAL = 0.1  # weights below this are taken for noise of a generated image
SCENES, LIGHTS = 1024, 256  # scenes that calibrate the shadow, lights that calibrate the sun


def unmix(images: Float[np.ndarray, "b s s 3"]) -> dict[str, Float[np.ndarray, "b s s"]]:
    """Weights of "ball", "sun" and "black" in every pixel, eq. (1), clipped to [0, 1]; weak ones are set to zero."""
    colours = np.array([sim.FIREBRICK, sim.ORANGE, (1.0, 1.0, 1.0)])
    weights = np.asarray(images, np.float64) @ np.linalg.inv(colours)
    found = {"ball": weights[..., 0], "sun": weights[..., 1], "black": 1.0 - weights.sum(-1)}
    return {name: np.where(weight > SIGNAL, np.minimum(weight, 1.0), 0.0) for name, weight in found.items()}


def _centroid(weight: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centroid of `weight` [b, s, s]; NaN where less than a quarter of a pixel is covered."""
    mass = weight.sum((1, 2))
    mass = np.where(mass > 0.25, mass, np.nan)
    return (weight * x).sum((1, 2)) / mass, (weight * y).sum((1, 2)) / mass


@dataclasses.dataclass(frozen=True, eq=False)
class PendulumOracle:
    """Eq. (2, 3) at one image size. `suns` [2, LIGHTS]: centroid x and light; `gain` and `offset`: shadow length from mass."""

    size: int
    suns: np.ndarray
    gain: float
    offset: float

    def read(self, images: Float[np.ndarray, "b s s 3"]) -> dict[str, Float[np.ndarray, "b"]]:
        """The four factors, degrees and simulator units; NaN where the object is not to be seen."""
        raw = _moments(images)
        return {
            "angle": raw["angle"],
            "light": np.where(np.isnan(raw["sun"]), np.nan, np.interp(raw["sun"], *self.suns)),
            "shadow_length": self.gain * raw["mass"] + self.offset,
            "shadow_position": raw["position"],
        }


def _moments(images: np.ndarray) -> dict[str, np.ndarray]:
    size = images.shape[1]
    x = ((np.arange(size) + 0.5) / size * sim.CANVAS[0])[None, None, :]
    y = (sim.CANVAS[1] - 1.0 - (np.arange(size) + 0.5) / size * sim.CANVAS[1])[None, :, None]
    weights = unmix(images)
    # each object has its place: what a poor decoder leaves elsewhere is no part of it
    ball_x, ball_y = _centroid(weights["ball"] * (y < 8.0), x, y)
    sun_x, _ = _centroid(weights["sun"] * (y > 14.0), x, y)
    strip = weights["black"] * (np.arange(size) >= size - max(1, round(STRIP * size)))[None, :, None]
    shadow_x, _ = _centroid(strip, x, y)
    angle = np.rad2deg(np.arctan2(ball_x - sim.PIVOT[0], sim.PIVOT[1] - ball_y))
    mass = strip.sum((1, 2)) * sim.CANVAS[0] / size
    return {"angle": angle, "sun": sun_x, "mass": mass, "position": shadow_x}


def inside(labels: Mapping[str, np.ndarray]) -> np.ndarray:
    """Where the whole shadow lies on the canvas: of one that is cut off, an image tells neither length nor middle. One an image, [b]."""
    half = 0.5 * np.asarray(labels["shadow_length"])
    centre = np.asarray(labels["shadow_position"])
    return (centre - half >= 0.0) & (centre + half <= sim.CANVAS[0])


@functools.lru_cache(maxsize=4)
def calibrate(size: int) -> PendulumOracle:
    """The oracle for images of `size` pixels, from SCENES + LIGHTS rendered scenes with independent factors."""
    rng = np.random.default_rng(20)

    def draw(num: int) -> dict[str, np.ndarray]:
        return {name: rng.uniform(*sim.RANGES[name], num).astype(np.float32) for name in sim.FACTORS}

    def moments(scenes: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return _moments(np.asarray(sim.render(*(jnp.asarray(scenes[name]) for name in sim.FACTORS), size)))

    suns = draw(LIGHTS) | {"light": np.linspace(*sim.RANGES["light"], LIGHTS).astype(np.float32)}
    centroids = np.maximum.accumulate(moments(suns)["sun"][::-1])  # the sun moves left as the light rises
    scenes = draw(SCENES)
    whole = inside(scenes)
    gain, offset = np.polyfit(moments(scenes)["mass"][whole], scenes["shadow_length"][whole], 1)
    return PendulumOracle(size, np.stack([centroids, suns["light"][::-1]]), float(gain), float(offset))


def pendulum_bench(size: int) -> Bench:
    """How pendulum images of `size` pixels are judged."""
    oracle = calibrate(size)

    def reader(name: str):
        return lambda images: oracle.read(images)[name]

    units = {"angle": "degree", "light": "degree", "shadow_length": "simulator unit", "shadow_position": "simulator unit"}
    instruments = tuple(
        Instrument(name, reader(name), units[name], valid=inside if name.startswith("shadow") else None) for name in sim.FACTORS
    )
    return Bench(instruments, "uniform", {"shadow": STRIP}, {"shadow_length": "shadow", "shadow_position": "shadow"})
