"""Digits whose stroke thickness causes their brightness. The equations, and so the counterfactual of every digit, are known.

    thickness  t = 0.5 + Gamma(shape 10, rate 5)   [pixel]                                      mean 2.5            (1)
    intensity  i = 64 + 191 sigmoid(2 (t - 2.5) + e / 2),  e ~ N(0, 1)   [grey level]           mean 157.8          (2)
    image      SetIntensity(SetThickness(MNIST digit; t); i)   (data/morphology.py)                                 (3)

The digit, t and e of every row are kept, so that the counterfactual is (2) and (3) once more with the same digit and the same e.
The split is MNIST's own; row k of a split is MNIST's k-th digit, whatever the size asked for.

Source: Pawlowski, Castro and Glocker, Deep structural causal models, NeurIPS 2020, whose data this follows with
morphology of our own; digits: LeCun, Cortes and Burges. `standin` draws its own figures in
their place (data/digits.py), for runs without MNIST.
"""

from __future__ import annotations

import dataclasses
import hashlib
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jax.numpy as jnp
import numpy as np

from causal_gen.data import digits, idx, morphology, storage, workers
from causal_gen.data.labels import label_mask, mask_entry, statistics, withhold
from causal_gen.data.storage import Column, Fetch, Recipe
from causal_gen.scm.intervention import Acts, Intervention, canonical, read_by
from causal_gen.types import DataError, Entry, Float, Int

FACTORS = ("thickness", "intensity")
ADDRESS = "https://storage.googleapis.com/cvdf-datasets/mnist/"
AVAILABLE = {"train": 60_000, "test": 10_000}
# of the label bytes of both splits: tells MNIST from another set of digits in the same format
MNIST_LABELS = "1feba77c-ddeff807"

COLUMNS = {
    "image": Column((28, 28), "uint8", "digit with thickness and intensity set, grey level"),
    "original": Column((28, 28), "uint8", "digit before the morphology, grey level"),
    "thickness": Column((), "float32", "mean stroke thickness asked for, pixel"),
    "intensity": Column((), "float32", "median grey level of the stroke asked for, 0..255"),
    "noise": Column((), "float32", "standard normal noise of the intensity equation"),
    "digit": Column((), "int32", "class, 0..9"),
}
DESCRIPTION = """, 28x28, with stroke thickness t = 0.5 + Gamma(10, rate 5) pixels
and intensity i = 64 + 191 sigmoid(2 (t - 2.5) + e / 2) grey levels, e standard normal."""
CITATION = """@inproceedings{pawlowski2020deep, title={Deep Structural Causal Models for Tractable Counterfactual Inference},
  author={Pawlowski, Nick and Castro, Daniel C. and Glocker, Ben}, booktitle={NeurIPS}, year={2020}}
@article{lecun1998gradient, title={Gradient-based learning applied to document recognition},
  author={LeCun, Yann and Bottou, L{\\'e}on and Bengio, Yoshua and Haffner, Patrick}, journal={Proceedings of the IEEE}, year={1998}}"""


@dataclasses.dataclass(frozen=True)
class MorphoMNISTConfig:
    """`size` training and `test_size` test digits; idx files lie in `root` or $CAUSAL_GEN_DATA, or in a folder mnist there."""

    name: str = "morphomnist"
    root: str | None = None
    size: int = dataclasses.field(default=60_000, metadata={"min": 1, "max": 60_000})
    test_size: int = dataclasses.field(default=10_000, metadata={"min": 1, "max": 10_000})
    image_size: int = dataclasses.field(default=28, metadata={"choices": (28,)})
    seed: int = dataclasses.field(default=0, metadata={"min": 0})
    label_fraction: float = dataclasses.field(default=1.0, metadata={"min": 0.0, "max": 1.0})
    standin: bool = False

    @property
    def entries(self) -> Mapping[str, Entry]:
        """Image, factors with units and ranges, the class, which is no factor of the graph, and which rows are labelled if not all are."""
        return {
            "image": Entry((28, 28, 1), "float32", "", 0.0, 1.0, "grey image, strokes bright"),
            "thickness": Entry((), "float32", "pixel", 0.5, 6.5, "mean stroke thickness; its law has no upper end, .02% lie above 6.5"),
            "intensity": Entry((), "float32", "grey level", 64.0, 255.0, "median grey level of the stroke"),
            "digit": Entry((), "int32", "", 0.0, 9.0, "class of the digit"),
            **mask_entry(self.label_fraction),
        }

    def make(self) -> MorphoMNIST:
        """The source, its rows in memory (1.6 kB a digit); the first call builds the set (data/storage.py).

        Raises `DataError` where MNIST is missing and cannot be fetched, an idx file is damaged, or nothing can be written.
        """
        sizes = {"train": self.size, "test": self.test_size}
        files = None if self.standin else idx.locate(self.root, self.name)
        which = "standin" if self.standin else _identity(files)
        recipe = Recipe(
            name=self.name,
            variant=f"{which}_n{self.size}-{self.test_size}_seed{self.seed}",
            version="1.0.0",
            description=("Stand-in strokes, NOT MNIST digits" if self.standin else "MNIST digits") + DESCRIPTION,
            citation="" if self.standin else CITATION,
            columns=COLUMNS,
            sizes=sizes,
        )

        def produce(split: str, fetch: Fetch) -> storage.Columns:
            if self.standin:
                originals, classes = digits.draw(self.seed, split, sizes[split])
            else:
                originals, classes = idx.digits(*(files[split] if files else _download(split, fetch)))
            return _synthesise(self.seed, split, originals, classes, sizes[split])

        return MorphoMNIST(self, storage.load(recipe, produce, self.root), label_mask(self.seed, self.size, self.label_fraction))


def intensity_of(thickness: Float[np.ndarray, "b"], noise: Float[np.ndarray, "b"]) -> Float[np.ndarray, "b"]:
    """Eq. (2): grey levels of thickness [pixel] and standard normal noise."""
    return (64.0 + 191.0 / (1.0 + np.exp(-(2.0 * (thickness.astype(np.float64) - 2.5) + 0.5 * noise)))).astype(np.float32)


def noise_of(thickness: Float[np.ndarray, "b"], intensity: Float[np.ndarray, "b"]) -> Float[np.ndarray, "b"]:
    """Eq. (2) solved for the noise: the exact abduction from the labels. Infinite where the intensity is 64 or 255."""
    share = (intensity.astype(np.float64) - 64.0) / 191.0
    return (2.0 * (np.log(share) - np.log1p(-share) - 2.0 * (thickness - 2.5))).astype(np.float32)


def attributes(seed: int, split: str, num: int) -> tuple[Float[np.ndarray, "{num}"], Float[np.ndarray, "{num}"]]:
    """Draws of thickness by eq. (1) and of the noise e; a longer draw begins with the shorter one."""
    keys = [(seed, 0x7414, ("train", "test").index(split), place) for place in (0, 1)]
    first, second = (np.random.Generator(np.random.Philox(np.random.SeedSequence(key))) for key in keys)
    return (0.5 + first.gamma(10.0, 1 / 5.0, num)).astype(np.float32), second.standard_normal(num).astype(np.float32)


def _synthesise(seed: int, split: str, originals: np.ndarray, classes: np.ndarray, num: int) -> storage.Columns:
    if len(originals) < num:
        key = "data.size" if split == "train" else "data.test_size"
        raise DataError(f"morphomnist: {num} {split} digits asked for, the idx file holds {len(originals)}; lower {key}")
    originals, classes = originals[:num], classes[:num]
    thickness, noise = attributes(seed, split, num)
    intensity = intensity_of(thickness, noise)
    image = morphology.set_intensity(workers.set_thickness(originals, thickness, f"morphomnist: {split}"), intensity)
    return {
        "image": np.round(image).astype(np.uint8),
        "original": originals,
        "thickness": thickness,
        "intensity": intensity,
        "noise": noise,
        "digit": classes.astype(np.int32),
    }


def _identity(files: dict[str, tuple[Path, Path]] | None) -> str:
    """Short hashes of the labels: a set built from other digits is another set."""
    if files is None:
        return MNIST_LABELS
    return "-".join(hashlib.sha256(idx.read(files[split][1]).tobytes()).hexdigest()[:8] for split in AVAILABLE)


def _download(split: str, fetch: Fetch) -> tuple[Path, Path]:
    host = urlsplit(ADDRESS).hostname or ""
    ways = "set data.root or CAUSAL_GEN_DATA to a folder with the idx files"
    try:
        # asked first, since the download manager repeats a failed look-up for most of a minute
        socket.create_connection((host, 443), timeout=5).close()
        found = fetch({stem: f"{ADDRESS}{stem}.gz" for stem in idx.FILES[split]})
    except Exception as error:
        raise DataError(f"morphomnist: MNIST is in no data folder and {host} cannot be reached ({error}); {ways}") from None
    images, labels = idx.FILES[split]
    return found[images], found[labels]


@dataclasses.dataclass(frozen=True, eq=False)
class MorphoMNIST:
    """The source. `rows[split]` holds the columns of `COLUMNS`; `labelled` [size] says which training rows keep their labels."""

    config: MorphoMNISTConfig
    rows: Mapping[str, Mapping[str, np.ndarray]]
    labelled: np.ndarray

    @property
    def name(self) -> str:
        return self.config.name + (" (stand-in strokes, not MNIST)" if self.config.standin else "")

    @property
    def entries(self) -> Mapping[str, Entry]:
        return self.config.entries

    def size(self, split: str) -> int:
        return len(self.rows[split]["digit"])

    def gather(self, split: str, indices: Int[np.ndarray, "b"]) -> dict[str, np.ndarray]:
        """The examples at `indices`; where labels are withheld the factors and the class are 0 and `label_mask` is False."""
        rows = self.rows[split]
        out = {"image": rows["image"][indices][..., None].astype(np.float32) / np.float32(255)}
        out |= {name: rows[name][indices] for name in (*FACTORS, "digit")}
        if self.config.label_fraction < 1:
            mask = self.labelled[indices] if split == "train" else np.ones(len(indices), bool)
            out = withhold(out, (*FACTORS, "digit"), mask)
        return out

    def stats(self) -> dict[str, Any]:
        """Statistics of thickness and intensity over the labelled training rows (data/labels.py)."""
        return {name: statistics(self.rows["train"][name][self.labelled]) for name in FACTORS}

    def truth(self, split: str, indices: Int[np.ndarray, "b"], do: Intervention | Acts | None) -> dict[str, np.ndarray]:
        """The exact counterfactual of the digits at `indices` under `do`, by eq. (2) and (3) with their own noise: 3 ms a digit.

        Raises `InterventionError` for an unknown factor or a value of the wrong shape.
        """
        acts = canonical(do, FACTORS, len(indices), edges=(("thickness", "intensity"),))

        def act(name: str, natural: np.ndarray) -> np.ndarray:
            return np.asarray(acts[name].apply(jnp.asarray(natural))) if name in acts else natural

        rows = {name: values[indices] for name, values in self.rows[split].items()}
        thickness = act("thickness", rows["thickness"])
        intensity = act(
            "intensity", intensity_of(np.asarray(read_by("intensity", {"thickness": thickness}, acts)["thickness"]), rows["noise"])
        )
        image = morphology.set_intensity(workers.set_thickness(rows["original"], thickness, "exact counterfactuals"), intensity)
        return {"image": image[..., None] / np.float32(255), "thickness": thickness, "intensity": intensity, "digit": rows["digit"]}
