"""Pendulum scenes: a swinging ball, a light, and the shadow that both cast. Every counterfactual image is known exactly.

    angle ~ U(-36, 38.7) degrees from the vertical          light ~ U(54, 132.3) degrees above the horizon
    p_0 = x_0 + (y_g - y_0) cot(light)                      shadow end of the pivot (x_0, y_0) = (10, 10.5)           (1)
    p_1 = x_1 + (y_g - y_1) cot(light)                      shadow end of the rod's tip, 9.5 from the pivot at `angle`  (2)
    shadow_length = max(3, |p_0 - p_1|)                     shadow_position = (p_0 + p_1) / 2                         (3)

with the ground at y_g = -0.5 and all lengths in the simulator's units: the canvas is 20 wide (x from 0) and 22 high (y from -1).
The children follow from their parents without noise, so that the exact counterfactual of any scene under any intervention is the scene
drawn with the factors that (1) to (3) give. The cotangent, unlike the tangent, has no singularity at light = 90.

The drawing has the proportions of the original one, a square inch by matplotlib: lines are 3 points wide, and discs carry an
edge line of 1 point, half of it outside. Each split is drawn from its own key, so that its first rows do not depend on its size.

Source: Yang et al., CausalVAE, CVPR 2021, and its published generator, which puts the factors on a grid of integers (one count is
pi / 200 rad) and truncates the labels; here both are continuous.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.data import raster, storage
from causal_gen.data.labels import label_mask, mask_entry, statistics, withhold
from causal_gen.data.storage import Column, Columns, Fetch, Recipe
from causal_gen.scm.intervention import Acts, Intervention, canonical, read_by
from causal_gen.types import Array, Entry, Float, Int

PIVOT, GROUND, ROD, BALL_AT, BALL_RADIUS = (10.0, 10.5), -0.5, 9.5, 8.0, 1.5
SUN_Y, SUN_RADIUS = 20.5, 3.0
CANVAS = (20.0, 22.0)  # width and height in the simulator's units; the lower left corner is (0, -1)
POINT = 1 / 72  # a point as a fraction of the canvas, which is one inch
BLACK, FIREBRICK, ORANGE = (0.0, 0.0, 0.0), (178 / 255, 34 / 255, 34 / 255), (1.0, 165 / 255, 0.0)
FACTORS = ("angle", "light", "shadow_length", "shadow_position")
EDGES = tuple((cause, shadow) for cause in FACTORS[:2] for shadow in FACTORS[2:])
RANGES = {"angle": (-36.0, 38.7), "light": (54.0, 132.3), "shadow_length": (3.0, 12.578), "shadow_position": (2.008, 19.606)}
UNITS = {"angle": "degree", "light": "degree", "shadow_length": "simulator unit", "shadow_position": "simulator unit"}
TEXTS = {
    "angle": "swing of the ball from the vertical, positive to the right",
    "light": "elevation of the light; 90 is overhead, below it the sun stands to the right",
    "shadow_length": "length of the shadow on the ground, at least 3",
    "shadow_position": "x of the shadow's middle on a canvas of 0..20",
}
CITATION = """@inproceedings{yang2021causalvae,
  title={{CausalVAE}: Disentangled Representation Learning via Neural Structural Causal Models},
  author={Yang, Mengyue and Liu, Furui and Chen, Zhitang and Shen, Xinwei and Hao, Jianye and Wang, Jun}, booktitle={CVPR}, year={2021}}"""


@dataclasses.dataclass(frozen=True)
class PendulumConfig:
    """`size` training and `test_size` test scenes of `image_size` pixels; labels are kept for `label_fraction` of the training set."""

    name: str = "pendulum"
    root: str | None = None
    size: int = dataclasses.field(default=10_000, metadata={"min": 1})
    test_size: int = dataclasses.field(default=2_000, metadata={"min": 1})
    image_size: int = dataclasses.field(default=32, metadata={"min": 8})
    seed: int = dataclasses.field(default=0, metadata={"min": 0})
    label_fraction: float = dataclasses.field(default=1.0, metadata={"min": 0.0, "max": 1.0})

    @property
    def entries(self) -> Mapping[str, Entry]:
        """The image, the four factors, with units and the ranges that the simulator covers, and which rows are labelled if not all are."""
        size = self.image_size
        factors = {name: Entry((), "float32", UNITS[name], *RANGES[name], TEXTS[name]) for name in FACTORS}
        return {"image": Entry((size, size, 3), "float32", "", 0.0, 1.0, "RGB image"), **factors, **mask_entry(self.label_fraction)}

    def make(self) -> Pendulum:
        """The source, its scenes in memory (3 kB a scene at 32 pixels); the first call builds the set (data/storage.py).

        Raises `DataError` where nothing can be written, or a stored file is damaged.
        """
        pixels = Column((self.image_size, self.image_size, 3), "uint8", "RGB image")
        factors = {name: Column((), "float32", f"{TEXTS[name]} [{UNITS[name]}]") for name in FACTORS}
        recipe = Recipe(
            name=self.name,
            variant=f"n{self.size}-{self.test_size}_px{self.image_size}_seed{self.seed}",
            version="1.0.0",
            description="Scenes of a pendulum, a light and their shadow; angle and light are continuous and determine the shadow.",
            citation=CITATION,
            columns={"image": pixels, **factors},
            sizes={"train": self.size, "test": self.test_size},
        )

        def produce(split: str, fetch: Fetch) -> Columns:
            del fetch  # nothing to download
            return _simulate(self.seed, split, recipe.sizes[split], self.image_size)

        return Pendulum(self, storage.load(recipe, produce, self.root), label_mask(self.seed, self.size, self.label_fraction))


def children(angle: Float[Array, "*b"], light: Float[Array, "*b"]) -> tuple[Float[Array, "*b"], Float[Array, "*b"]]:
    """Shadow length and position [simulator units] of the parents [degrees], eq. (1) to (3)."""
    theta, phi = jnp.deg2rad(angle), jnp.deg2rad(light)
    cot = jnp.cos(phi) / jnp.sin(phi)
    pivot = PIVOT[0] + (GROUND - PIVOT[1]) * cot
    tip = PIVOT[0] + ROD * jnp.sin(theta) + (GROUND - PIVOT[1] + ROD * jnp.cos(theta)) * cot
    return jnp.maximum(3.0, jnp.abs(pivot - tip)), 0.5 * (pivot + tip)


def _scene(angle: Array, light: Array, shadow_length: Array, shadow_position: Array, size: int) -> Float[Array, "h w 3"]:
    scale = (size / CANVAS[0], size / CANVAS[1])

    def pixel(x: Array | float, y: Array | float) -> raster.Point:
        return x * scale[0], (CANVAS[1] - 1.0 - y) * scale[1]

    def radii(radius: float) -> tuple[float, float]:
        return radius * scale[0] + 0.5 * POINT * size, radius * scale[1] + 0.5 * POINT * size

    theta, phi = jnp.deg2rad(angle), jnp.deg2rad(light)
    plane, width = raster.grid(size), 3 * POINT * size
    ball = pixel(PIVOT[0] + BALL_AT * jnp.sin(theta), PIVOT[1] - BALL_AT * jnp.cos(theta))
    sun = pixel(PIVOT[0] + (SUN_Y - PIVOT[1]) * jnp.cos(phi) / jnp.sin(phi), SUN_Y)
    left, right = (pixel(shadow_position + side * 0.5 * shadow_length, GROUND) for side in (-1.0, 1.0))
    return raster.paint(
        [
            (raster.segment(plane, pixel(*PIVOT), ball, width), BLACK),
            (raster.disc(plane, ball, radii(BALL_RADIUS)), FIREBRICK),
            (raster.disc(plane, sun, radii(SUN_RADIUS)), ORANGE),
            (raster.segment(plane, left, right, width), BLACK),
        ]
    )


@functools.partial(jax.jit, static_argnums=4)
def render(
    angle: Float[Array, "b"], light: Float[Array, "b"], shadow_length: Float[Array, "b"], shadow_position: Float[Array, "b"], size: int
) -> Float[Array, "b {size} {size} 3"]:
    """Images in [0, 1] of scenes given by all four factors, so that the shadow can be set apart from its causes.

    Angles in degrees, the shadow in simulator units. Differentiable in the factors.
    """
    return jax.vmap(functools.partial(_scene, size=size))(angle, light, shadow_length, shadow_position)


def _simulate(seed: int, split: str, num: int, image_size: int) -> dict[str, np.ndarray]:
    """`num` scenes: factors f32 [num] and images uint8 [num, image_size, image_size, 3]."""
    rows = {}
    for place, name in enumerate(("angle", "light")):
        # one stream a factor: the first rows of a larger set are the rows of a smaller one
        stream = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, ("train", "test").index(split), place))))
        rows[name] = stream.uniform(*RANGES[name], num).astype(np.float32)
    length, position = jax.jit(children)(jnp.asarray(rows["angle"]), jnp.asarray(rows["light"]))
    rows |= {"shadow_length": np.asarray(length), "shadow_position": np.asarray(position)}
    return {"image": _draw(rows, image_size), **rows}


def _draw(rows: Mapping[str, np.ndarray], image_size: int, chunk: int = 256) -> np.ndarray:
    """uint8 images of the scenes in `rows`; chunks of one size stay in the cache and are one trace."""
    num = len(rows["angle"])
    images = np.empty((num, image_size, image_size, 3), np.uint8)
    for start in range(0, num, chunk):
        part = [np.asarray(rows[name][start : start + chunk]) for name in FACTORS]
        padded = [jnp.asarray(np.pad(values, (0, chunk - len(values)), mode="edge")) for values in part]
        drawn = _render_bytes(*padded, image_size)
        images[start : start + chunk] = np.asarray(drawn)[: len(part[0])]
    return images


@functools.partial(jax.jit, static_argnums=4)
def _render_bytes(angle: Array, light: Array, shadow_length: Array, shadow_position: Array, size: int) -> Array:
    return jnp.round(255.0 * render(angle, light, shadow_length, shadow_position, size)).astype(jnp.uint8)


@dataclasses.dataclass(frozen=True, eq=False)
class Pendulum:
    """The source. `rows[split]` holds the stored columns; `labelled` [size] says which training rows keep their labels."""

    config: PendulumConfig
    rows: Mapping[str, Mapping[str, np.ndarray]]
    labelled: np.ndarray

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def entries(self) -> Mapping[str, Entry]:
        return self.config.entries

    def size(self, split: str) -> int:
        return len(self.rows[split]["angle"])

    def gather(self, split: str, indices: Int[np.ndarray, "b"]) -> dict[str, np.ndarray]:
        """The examples at `indices`; where labels are withheld the factors are 0 and `label_mask` is False."""
        rows = self.rows[split]
        out = {"image": rows["image"][indices].astype(np.float32) / np.float32(255)}
        out |= {name: rows[name][indices] for name in FACTORS}
        if self.config.label_fraction < 1:
            mask = self.labelled[indices] if split == "train" else np.ones(len(indices), bool)
            out = withhold(out, FACTORS, mask)
        return out

    def stats(self) -> dict[str, Any]:
        """Statistics of the four factors over the labelled training rows (data/labels.py)."""
        return {name: statistics(self.rows["train"][name][self.labelled]) for name in FACTORS}

    def truth(self, split: str, indices: Int[np.ndarray, "b"], do: Intervention | Acts | None) -> dict[str, np.ndarray]:
        """The simulator's answer: all four factors and the image [b, h, w, 3] of the scenes at `indices` under `do`.

        Raises `InterventionError` for an unknown factor or a value of the wrong shape.
        """
        acts = canonical(do, FACTORS, len(indices), edges=EDGES)
        values: dict[str, Array] = {}
        for name in FACTORS:
            if name in ("angle", "light"):
                natural = jnp.asarray(self.rows[split][name][indices])
            else:
                natural = children(*(read_by(name, values, acts)[parent] for parent in ("angle", "light")))[FACTORS.index(name) - 2]
            values[name] = acts[name].apply(natural) if name in acts else natural
        image = render(*(values[name] for name in FACTORS), self.config.image_size)
        return {"image": np.asarray(image), **{name: np.asarray(value) for name, value in values.items()}}
