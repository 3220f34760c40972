"""The reader of pendulum images: exact enough on true images, of factors that say nothing about each other."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.data import pendulum as sim
from causal_gen.evaluate import oracle


def independent(num: int, seed: int = 5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(*sim.RANGES[name], num).astype(np.float32) for name in sim.FACTORS}


def draw(scenes: dict[str, np.ndarray], size: int) -> np.ndarray:
    return np.asarray(sim.render(*(jnp.asarray(scenes[name]) for name in sim.FACTORS), size))


@pytest.mark.parametrize("size", [32, 64])
def test_true_images_are_read_to_a_fraction_of_a_pixel(size):
    scenes = independent(300)
    found, whole = oracle.calibrate(size).read(draw(scenes, size)), oracle.inside(scenes)
    error = {name: np.abs(found[name] - scenes[name]) for name in sim.FACTORS}
    assert error["angle"].max() < 0.3 and error["light"].max() < 0.2
    assert error["shadow_length"][whole].max() < 0.15 and error["shadow_position"][whole].max() < 0.15
    assert whole.mean() > 0.5


def test_blur_moves_the_readings_little():
    """Decoders blur. Moments hardly move under it, so that the oracle judges where things are and not how sharp they are."""
    scenes = independent(100)
    image = draw(scenes, 32)
    kernel = np.array([0.25, 0.5, 0.25])
    for axis in (1, 2):
        padded = np.pad(image, [(1, 1) if a == axis else (0, 0) for a in range(4)], mode="edge")
        image = sum(w * np.take(padded, np.arange(32) + i, axis) for i, w in enumerate(kernel))
    found = oracle.calibrate(32).read(image)
    assert np.abs(found["angle"] - scenes["angle"]).mean() < 0.5
    assert np.abs(found["light"] - scenes["light"]).mean() < 1.5


def test_what_is_not_there_is_not_read():
    found = oracle.calibrate(32).read(np.ones((2, 32, 32, 3), np.float32))
    assert np.isnan(found["angle"]).all() and np.isnan(found["light"]).all() and np.isnan(found["shadow_position"]).all()


def test_a_shadow_that_is_cut_off_is_not_judged():
    labels = {"shadow_length": np.array([4.0, 4.0, 12.0]), "shadow_position": np.array([10.0, 19.0, 3.0])}
    assert oracle.inside(labels).tolist() == [True, False, False]


def test_unmixing_inverts_mixing():
    """Eq. (1): random mixtures of the four colours come back as their weights."""
    weights = np.random.default_rng(0).dirichlet(np.ones(4), (1, 8, 8))
    colours = np.array([sim.FIREBRICK, sim.ORANGE, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)])
    found = oracle.unmix(weights @ colours)
    for name, place in (("ball", 0), ("sun", 1), ("black", 3)):
        expected = np.where(weights[..., place] > oracle.SIGNAL, weights[..., place], 0)
        np.testing.assert_allclose(found[name], expected, atol=1e-9)
