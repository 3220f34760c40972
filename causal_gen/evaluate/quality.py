"""How good generated pictures are: a fixed classifier's opinion of them, and their distance from real ones in what it looks at.

For the hidden layer f(x) of the classifier of instruments.py, fitted once to the source's own training pictures and kept in the user's
cache, with mean m and covariance S over real pictures (training ones), and m', S' over those that are judged:

    d^2 = |m - m'|^2 + tr(S + S' - 2 (S^1/2 S' S^1/2)^1/2)                      Frechet distance of the two Gaussians      (1)
    class_accuracy = share of pictures that the classifier finds to be of the class that they were asked to be             (2)

(1) falls with the number of pictures, so that all sets have equally many, and stands beside `real`, as many test pictures, and `tokens`,
the same pictures as their tokens show them. Neither is a floor: a model of training pictures may come closer to them than test pictures
do, which other people wrote. Distances are of our own features and compare with nothing but each other. Source: Dowson and Landau 1982;
Heusel et al. 2017, in Inception's features.
Letters: n pictures, k features.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np

from causal_gen.evaluate import instruments
from causal_gen.evaluate.drawing import draws_of, rows_of
from causal_gen.types import Float, Int, Key, Params

LABEL = "digit"  # the entry that holds a picture's class


@dataclasses.dataclass(frozen=True)
class Shown:
    """What `instruments.digit_params` fits to: the pictures of a source as they are in its files, with their classes."""

    source: Any

    def size(self, split: str) -> int:
        return self.source.size(split)

    def gather(self, split: str, indices: Int[np.ndarray, "b"]) -> dict[str, np.ndarray]:
        return {"image": self.source.pictures(split, indices), LABEL: self.source.gather(split, indices)[LABEL]}


def measure(model: Any, params: Params, key: Key, source: Any, draws: int, batch_size: int) -> dict[str, Any]:
    """(1) and (2) of `draws` samples (0: nothing is measured); empty where the source's sequences are no pictures with classes."""
    if not draws or not hasattr(source, "pictures") or LABEL not in source.entries:
        return {}
    shown = Shown(source)
    classifier = instruments.digit_params(shown)
    rows = rows_of(source, draws)
    real = shown.gather("test", rows)
    started = time.monotonic()
    samples = source.images(draws_of(model, params, key, source, draws, batch_size))
    seconds = time.monotonic() - started
    node = next(iter(model.spans))
    sets = {"value": samples, "real": real["image"], "tokens": source.images(source.gather("test", rows)[node])}
    known = moments(instruments.features(classifier, shown.gather("train", np.arange(min(draws, source.size("train"))))["image"]))
    distance = {name: frechet(known, moments(instruments.features(classifier, images))) for name, images in sets.items()}
    out: dict[str, Any] = {"draws": draws, "seconds": round(seconds, 2), "frechet": distance}
    judged = {name: float((instruments.classify(classifier, images) == real[LABEL]).mean()) for name, images in sets.items()}
    if LABEL not in model.context:  # nobody asked for a class
        del judged["value"]
    return out | {"class_accuracy": judged}


def moments(found: Float[np.ndarray, "n k"]) -> tuple[Float[np.ndarray, "k"], Float[np.ndarray, "k k"]]:
    """Mean and covariance of features."""
    found = found.astype(np.float64)
    return found.mean(0), np.cov(found, rowvar=False)


def frechet(real: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> float:
    """Eq. (1) between two pairs of mean [k] and covariance [k, k]."""
    values, vectors = np.linalg.eigh(real[1])
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    # the eigenvalues of S^1/2 S' S^1/2 are those of S S', which has no symmetric root
    crossed = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ other[1] @ root), 0)).sum()
    return float(((real[0] - other[0]) ** 2).sum() + np.trace(real[1]) + np.trace(other[1]) - 2 * crossed)
