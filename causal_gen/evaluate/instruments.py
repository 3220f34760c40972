"""Which instruments read which source, and the one instrument that is learned: a classifier of digits.

The classifier is fitted to the source's own training digits, redrawn by the morphology at thicknesses and intensities that do
not depend on the class, and sees every image with its brightness divided out, so that it cannot use either to guess the class. Its
accuracy on true test images is printed beside whatever it measures.
"""

from __future__ import annotations

import functools
import hashlib
import os
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from causal_gen.data import morphology
from causal_gen.evaluate.base import Bench, Instrument
from causal_gen.evaluate.oracle import pendulum_bench
from causal_gen.nn.classifier import Classifier
from causal_gen.types import Float, Int, Params

IMAGES, EPOCHS, BATCH, RATE = 24_000, 4, 128, 2e-3  # 750 steps, once per data set: under a minute of 2 cores
# E[intensity | do(thickness)] of the generating equations, by quadrature
EXPECTED_INTENSITY = ((1.5, 88.64), (2.5, 159.51), (3.5, 230.36))


def bench_of(source: Any) -> Bench:
    """The bench of a source, by the first word of its name; an empty one for sources that nobody has built instruments for."""
    name = source.name.split(" ")[0]  # stand-ins say what they are in further words
    if name == "pendulum":
        return pendulum_bench(int(source.entries["image"].shape[0]))
    if name == "morphomnist":
        return morphomnist_bench(source)
    return Bench()


def morphomnist_bench(source: Any) -> Bench:
    """Thickness [pixel] and intensity [0..255] by measurement, the digit by the classifier (fitted or read from the cache)."""
    tools = [
        Instrument("thickness", lambda images: morphology.measure_thickness(_plane(images)).astype(np.float64), "pixel"),
        Instrument("intensity", lambda images: 255.0 * morphology.measure_intensity(_plane(images)).astype(np.float64), "grey level"),
    ]
    if "digit" in source.entries:
        params = digit_params(source)
        tools.append(Instrument("digit", lambda images: classify(params, images), kind="accuracy"))
    known = tuple((("thickness", value, "intensity"), mean) for value, mean in EXPECTED_INTENSITY)
    return Bench(tuple(tools), "marginal", expectations=known)


def _plane(images: np.ndarray) -> np.ndarray:
    return np.clip(np.asarray(images, np.float32)[..., 0], 0.0, 1.0)


def normalise(images: Float[np.ndarray, "b h w 1"]) -> Float[np.ndarray, "b h w 1"]:
    """Images with their brightness (median of the pixels above half range) set to 1 and clipped."""
    level = np.maximum(morphology.measure_intensity(_plane(images)), 0.05)
    return np.clip(images / level[:, None, None, None], 0.0, 1.0).astype(np.float32)


@functools.partial(jax.jit, static_argnums=2)
def _read(params: Params, images: Any, features: bool) -> Any:
    return Classifier().apply({"params": params}, images, features)


def _each(params: Params, images: np.ndarray, batch: int, features: bool) -> np.ndarray:
    found = []
    for start in range(0, len(images), batch):
        part = normalise(np.asarray(images[start : start + batch], np.float32))
        padded = np.pad(part, ((0, batch - len(part)), (0, 0), (0, 0), (0, 0)))
        found.append(np.asarray(_read(params, padded, features))[: len(part)])
    return np.concatenate(found)


def classify(params: Params, images: Float[np.ndarray, "b h w 1"], batch: int = 256) -> Int[np.ndarray, "b"]:
    """The class with the largest logit, of images at any brightness."""
    return _each(params, images, batch, False).argmax(-1)


def features(params: Params, images: Float[np.ndarray, "b h w 1"], batch: int = 256) -> Float[np.ndarray, "b k"]:
    """The classifier's hidden layer, of images at any brightness."""
    return _each(params, images, batch, True)


def digit_params(source: Any) -> Params:
    """Parameters of the classifier for `source`: from the per-user cache where they were fitted to the same data, else fitted now."""
    rows = np.random.default_rng(0).permutation(source.size("train"))[:IMAGES]
    batch = source.gather("train", np.sort(rows))
    images, classes = normalise(batch["image"]), np.asarray(batch["digit"], np.int32)
    digest = hashlib.sha256(repr((IMAGES, EPOCHS, BATCH, RATE, images.shape)).encode())
    digest.update(classes.tobytes() + np.round(255 * images).astype(np.uint8).tobytes())
    path = cache_folder() / f"digits-{digest.hexdigest()[:16]}.npz"
    shapes = jax.eval_shape(Classifier().init, jax.random.key(0), jnp.zeros((1, *images.shape[1:])))
    shapes = dict(shapes)["params"]
    leaves, tree = jax.tree.flatten(shapes)
    stored = _load(path, [leaf.shape for leaf in leaves])
    if stored is not None:
        return jax.tree.unflatten(tree, stored)
    params = fit_classifier(images, classes)
    _store(path, [np.asarray(leaf) for leaf in jax.tree.leaves(params)])
    return params


def cache_folder() -> Path:
    """Where fitted instruments are kept: XDG_CACHE_HOME, or .cache in the home folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "causal_gen"


def _load(path: Path, shapes: list[tuple[int, ...]]) -> list[np.ndarray] | None:
    try:
        with open(path, "rb") as raw, np.load(raw) as file:
            leaves = [file[str(i)] for i in range(len(shapes))]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # not there, or cut short: fit it again
        return None
    return leaves if [leaf.shape for leaf in leaves] == shapes else None


def _store(path: Path, leaves: list[np.ndarray]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        with open(part, "wb") as file:
            named: dict[str, Any] = {str(i): leaf for i, leaf in enumerate(leaves)}
            np.savez(file, **named)
        part.replace(path)
    except OSError:  # a cache that cannot be written costs ten seconds next time, nothing else
        return


def fit_classifier(images: Float[np.ndarray, "n h w 1"], classes: Int[np.ndarray, "n"]) -> Params:
    """Fit the classifier by Adam, images shifted by up to two pixels. Deterministic: the same data give the same parameters."""
    network, rng = Classifier(), np.random.default_rng(1)
    params = network.init(jax.random.key(1), jnp.zeros((1, *images.shape[1:])))["params"]
    size = min(BATCH, len(images))
    steps = max(1, EPOCHS * (len(images) // size))
    optimiser = optax.adam(optax.cosine_decay_schedule(RATE, steps))

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def update(params: Any, state: Any, x: Any, y: Any) -> Any:
        def loss(params: Any) -> Any:
            logits: Any = network.apply({"params": params}, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        changes, state = optimiser.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, changes), state

    state = optimiser.init(params)
    for _ in range(steps):
        rows = rng.integers(0, len(images), size)
        moved = np.roll(images[rows], tuple(rng.integers(-2, 3, 2)), axis=(1, 2))
        params, state = update(params, state, moved, classes[rows])
    return params
