"""An anti-aliased rasteriser for a few shapes: coverage of each pixel from signed distances, painted back to front.

A shape covers a pixel by the length of the overlap between the pixel's unit interval and the shape along the normal of
its nearest edge. For axis-parallel edges that is the exact area, for slanted edges and for discs of a few
pixels it errs by a few hundredths of a grey level at the boundary. All coordinates are pixels, x to the right and y down, pixel
(i, j) centred at (j + .5, i + .5). Pure jnp, for one image; use vmap.
"""

from __future__ import annotations

import jax.numpy as jnp

from causal_gen.types import Array, Float

Point = tuple[Array | float, Array | float]  # x, y
Plane = tuple[Array, Array]  # what `grid` returns


def grid(size: int) -> tuple[Float[Array, "1 w"], Float[Array, "h 1"]]:
    """Pixel centres x [1, size] and y [size, 1]; broadcasting them gives the image plane."""
    centres = jnp.arange(size, dtype=jnp.float32) + 0.5
    return centres[None, :], centres[:, None]


def overlap(offset: Array, half: Array | float) -> Array:
    """Length of [offset - 1/2, offset + 1/2] inside [-half, half]: coverage of a pixel by a band of half-width `half`."""
    return jnp.clip(jnp.minimum(offset + 0.5, half) - jnp.maximum(offset - 0.5, -half), 0.0, 1.0)


def disc(plane: Plane, centre: Point, radii: tuple[float, float]) -> Float[Array, "h w"]:
    """Coverage of an ellipse with axes `radii` along x and y (a disc on a canvas whose units differ in x and y)."""
    u, v = (plane[0] - centre[0]) / radii[0], (plane[1] - centre[1]) / radii[1]
    # first-order distance to the ellipse: (|p| - 1) / |grad |p||, exact for a circle; 1e-6 keeps the centre differentiable
    norm = jnp.sqrt(u * u + v * v + 1e-6)
    slope = jnp.sqrt((u / radii[0]) ** 2 + (v / radii[1]) ** 2 + 1e-12) / norm
    return jnp.clip(0.5 - (norm - 1.0) / slope, 0.0, 1.0)


def segment(plane: Plane, start: Point, end: Point, width: float) -> Float[Array, "h w"]:
    """Coverage of a straight line of `width` with square-cut ends."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = jnp.sqrt(dx * dx + dy * dy + 1e-12)
    x, y = plane[0] - 0.5 * (start[0] + end[0]), plane[1] - 0.5 * (start[1] + end[1])
    along, across = (x * dx + y * dy) / length, (x * dy - y * dx) / length
    return overlap(along, 0.5 * length) * overlap(across, 0.5 * width)


def paint(layers: list[tuple[Array, tuple[float, float, float]]]) -> Float[Array, "h w 3"]:
    """An RGB image in [0, 1]: white, with each (coverage, colour) laid over what came before."""
    channels = []
    for channel in range(3):
        value = jnp.ones_like(layers[0][0])
        for coverage, colour in layers:
            value = value + coverage * (colour[channel] - value)
        channels.append(value)
    return jnp.stack(channels, axis=-1)
