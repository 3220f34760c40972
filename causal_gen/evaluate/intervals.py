"""Intervals of an effect that include how well the model was estimated: the same question put to models fitted anew.

    value -+ t_{r-1} sqrt(s^2 + m^2)      s the spread over r refits, each on rows drawn with replacement; m that of the units drawn     (1)

A refit on rows drawn with replacement differs from the model as the model differs from the law behind the rows (Efron 1979). Mechanisms
with a closed form are refitted all at once (a line from its weighted normal equations, the weights being how often a row was drawn; other
closed forms one after another); what is trained is trained r times, each time with a seed of its own as well, so that s holds both the
rows' chance and training's. Letters: r refits, n rows, k features of a line.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from causal_gen.scm.mechanism import Monotone, features_of
from causal_gen.scm.transform import LEAST, raw_of
from causal_gen.types import Float, Int, Params

REFITS = 200  # of a closed form


def closed(model: Any) -> bool:
    """Whether a model is fitted without training."""
    return all(getattr(mechanism, "closed_form", False) for mechanism in getattr(model, "mechanisms", (None,)))


def interval(value: float, error: float, refits: Float[np.ndarray, "r"], level: float = 0.9) -> tuple[float, float]:
    """Eq. (1); without refits (r below 2) nothing but m is in it."""
    r = len(refits)
    t = stats.t.ppf(0.5 + level / 2, r - 1) if r > 1 else stats.norm.ppf(0.5 + level / 2)
    half = float(t * np.hypot(np.std(refits, ddof=1) if r > 1 else 0.0, error))
    return value - half, value + half


def drawn_rows(rng: np.random.Generator, num: int, refits: int) -> Float[np.ndarray, "r n"]:
    """How often each of `num` rows is drawn, with replacement, for each refit."""
    return rng.multinomial(num, np.full(num, 1 / num), refits).astype(np.float64)


def refit(model: Any, rows: Mapping[str, np.ndarray], weights: Float[np.ndarray, "r n"]) -> Params:
    """Parameters of a closed-form model, each array with a leading axis [r]."""
    found = {}
    for mechanism in model.mechanisms:
        value = {name: rows[name] for name in mechanism.nodes}
        parents = {column.name: rows[column.name] for column in mechanism.parents}
        if isinstance(mechanism, Monotone):
            found["+".join(mechanism.nodes)] = _lines(mechanism, value, parents, weights)
            continue
        several = []
        for counts in weights.astype(int):  # a table counts rows, so rows are repeated
            which = np.repeat(np.arange(len(counts)), counts)
            several.append(
                mechanism.fit(*({name: np.asarray(column)[which] for name, column in part.items()} for part in (value, parents)))
            )
        found["+".join(mechanism.nodes)] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *several)
    return found


def _lines(mechanism: Monotone, value: Any, parents: Any, weights: np.ndarray) -> Params:
    """A linear-Gaussian mechanism by weighted least squares, in float64."""
    u = np.asarray(mechanism.column.unit(value[mechanism.column.name]), np.float64)
    x = np.ones((len(u), 1))
    if mechanism.parents:
        x = np.concatenate([np.asarray(features_of(mechanism.parents, parents), np.float64), x], -1)
    k = x.shape[1]
    gram = (weights @ (x[:, :, None] * x[:, None, :]).reshape(len(u), k * k)).reshape(-1, k, k)
    moment, square, total = weights @ (x * u[:, None]), weights @ u**2, weights.sum(1)
    line = np.linalg.solve(gram, moment[..., None])[..., 0]
    std = np.sqrt(np.maximum(square - (line * moment).sum(-1), 0.0) / total)
    free = jnp.asarray(raw_of(np.maximum(std, 2 * LEAST)), jnp.float32)[:, None]
    line = jnp.asarray(line, jnp.float32)
    if not mechanism.parents:
        return {"free": jnp.concatenate([line, free], -1)}
    return {"net": {"kernel": line[:, :-1, None], "bias": line[:, -1:]}, "free": free}


@dataclasses.dataclass(frozen=True, eq=False)
class Redrawn:
    """A data source whose training rows are drawn with replacement from those of `source`."""

    source: Any
    rows: Int[np.ndarray, "n"]

    def gather(self, split: str, indices: Int[np.ndarray, "b"]) -> dict[str, np.ndarray]:
        """The rows at `indices`, of the training split those that were drawn."""
        return self.source.gather(split, self.rows[indices] if split == "train" else indices)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)


def retrained(experiment: Any, train: Callable[[Any, Path], Any], folder: Path, refits: int, say: Callable[[str], Any]) -> Params:
    """`refits` trainings of a run's experiment under `folder`, each on rows drawn anew and from its own seed: parameters stacked [r].

    `train` is what trains an experiment into a folder. One that was done before is read, not repeated.
    """
    found = []
    size = experiment.data.size("train")
    for i in range(refits):
        config = copy.deepcopy(experiment.config)
        config["train"]["seed"] += 1 + i
        rows = np.random.default_rng((0xB007, i, size)).integers(0, size, size)
        own = dataclasses.replace(
            experiment,
            config=config,
            train=dataclasses.replace(experiment.train, seed=config["train"]["seed"]),
            data=Redrawn(experiment.data, rows),
        )
        say(f"effects: refit {i + 1} of {refits}, on rows drawn with replacement, in {folder / str(i)}")
        found.append(jax.device_get(train(own, folder / str(i)).params))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)
