"""The rows of pictures behind the report's sliders: a few scenes, every factor set to a few values over its range."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np

from causal_gen.evaluate.base import EvaluateConfig, to_bytes
from causal_gen.parallel import hosts
from causal_gen.parallel.interrupt import whole
from causal_gen.scm.intervention import do
from causal_gen.types import WorkdirError


def span(source: Any, factor: str) -> tuple[float, float]:
    """The values between which a slider runs: the middle 96% of the training labels, or the entry's limits without them."""
    found, entry = source.stats().get(factor, {}), source.entries[factor]
    if "quantiles" in found:
        low, high = np.quantile(found["quantiles"], [0.02, 0.98])
        return float(low), float(high)
    return float(entry.low), float(entry.high)


def write_sliders(scenes: Any, settings: EvaluateConfig, path: Path) -> Path:
    """Write `path` (npz), uint8 pictures of s = `slider_scenes` scenes and v = `slider_values` values:

    `factual` and `reconstruction` [s, h, w, c]; for every factor F `values_F` [v], `unit_F`, `counterfactual_F` and, where
    the source knows it, `truth_F`, both [s, v, h, w, c]. `factors` lists F in the model's order.

    Raises `WorkdirError` where the disk refuses.
    """
    num, count = min(settings.slider_scenes, scenes.num), settings.slider_values
    noise = jax.tree.map(lambda leaf: leaf[:num], scenes.noise)
    repeated = jax.tree.map(lambda leaf: np.repeat(leaf, count, axis=0), noise)
    rows: dict[str, Any] = {
        "factors": np.array(scenes.ask.model.factors),
        "factual": to_bytes(scenes.image[:num]),
        "reconstruction": to_bytes(scenes.ask.predict(noise)["image"]),
    }
    for factor in scenes.ask.model.factors:
        values = np.linspace(*span(scenes.source, factor), count, dtype=np.float32)
        act = do(**{factor: np.tile(values, num)})
        answer = to_bytes(scenes.ask.predict(repeated, act)["image"])
        rows |= {f"values_{factor}": values, f"unit_{factor}": np.array(scenes.source.entries[factor].unit)}
        rows[f"counterfactual_{factor}"] = answer.reshape(num, count, *answer.shape[1:])
        truth = scenes.source.truth("test", np.repeat(scenes.indices[:num], count), act)
        if truth is not None:
            rows[f"truth_{factor}"] = to_bytes(truth["image"]).reshape(num, count, *answer.shape[1:])
    if not hosts.first():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as part:
            np.savez_compressed(part, **rows)
    except OSError as error:
        raise WorkdirError(f"evaluate: cannot write {path}: {error.strerror or error}; free space or choose another workdir") from error
    return path
