"""How well a model of sequences predicts held-out ones: nats per scored token, and bits per byte of text.

For rows r with nats l_r = -log p(r), and units u_r (scored tokens, or bytes) in clusters c that are alike (the rows of one document):

    rate = sum_r l_r / sum_r u_r                                                                          (1)
    se^2 = C / (C - 1)  sum_c (sum_{r in c} l_r - rate u_r)^2 / (sum_r u_r)^2                             (2)

(2) is the linearised variance of a ratio under sampling of whole clusters (Cochran, Sampling techniques, 1977, chapter 9A). Rows of one
speech are no independent draws, and a standard error over rows would be too small.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from causal_gen.parallel.mesh import fetch, spread
from causal_gen.types import ConfigError, Float, Int, Key, Params


def rate(nats: Float[np.ndarray, "n"], units: Float[np.ndarray, "n"], clusters: Int[np.ndarray, "n"] | None = None) -> tuple[float, float]:
    """Eq. (1) and its standard error (2); every row is a cluster of its own unless told. NaN where one cluster is all there is."""
    total = float(units.sum())
    value = float(nats.sum()) / total
    _, group = np.unique(np.arange(len(nats)) if clusters is None else clusters, return_inverse=True)
    errors = np.bincount(group, nats - value * units)
    count = len(errors)
    return value, math.sqrt(count / (count - 1) * float((errors**2).sum())) / total if count > 1 else math.nan


def scored(rows: Mapping[str, Any]) -> Float[np.ndarray, "n"]:
    """How many tokens of each row [n, t] count: all of them, where the source has no `loss_mask`."""
    return np.asarray(rows.get("loss_mask", np.ones(rows["tokens"].shape)), np.float64).sum(1)


@functools.partial(jax.jit, static_argnums=0)
def _log_prob(model: Any, params: Params, key: Key, batch: Mapping[str, Any]) -> Any:
    return model.log_prob(params, key, batch)


def nats(model: Any, params: Params, key: Key, source: Any, indices: Int[np.ndarray, "n"], batch_size: int) -> Float[np.ndarray, "n"]:
    """-log p of the test rows at `indices`, `batch_size` at a time, the last batch padded with its last row.

    Raises `ConfigError` for a model that has no likelihood.
    """
    if model.log_prob is None or model.likelihood is None:
        raise ConfigError(f"evaluate: {type(model).__name__} has no likelihood; its family is evaluated by samples")
    size, found = min(batch_size, len(indices)), []
    for part in range(math.ceil(len(indices) / size)):
        rows = indices[np.minimum(np.arange(part * size, (part + 1) * size), len(indices) - 1)]
        batch = spread(dict(source.gather("test", rows)))
        found.append(np.asarray(fetch(_log_prob(model, params, jax.random.fold_in(key, part), batch)), np.float64))
    return -np.concatenate(found)[: len(indices)]


def heldout(model: Any, params: Params, key: Key, source: Any, num: int | None = None, batch_size: int = 64) -> dict[str, Any]:
    """Rates over the first `num` test rows (None: all), with standard errors and the counts that they rest on.

    `bits_per_byte` where the source knows its text's bytes; `best` and `gap` [nats per token] where it knows the best possible loss of
    these very rows. `likelihood` says whether the model's log_prob is exact or a bound.
    """
    indices = np.arange(min(num or source.size("test"), source.size("test")))
    rows = source.gather("test", indices)
    tokens = scored(rows)
    losses = nats(model, params, key, source, indices, batch_size)
    clusters = source.clusters("test", indices) if hasattr(source, "clusters") else None
    out: dict[str, Any] = {"rows": len(indices), "tokens": int(tokens.sum()), "likelihood": model.likelihood}
    if clusters is not None:
        out["documents"] = len(np.unique(clusters))
    value, error = rate(losses, tokens, clusters)
    out["nats_per_token"] = {"value": value, "se": error}
    out["bits_per_token"] = {"value": value / math.log(2), "se": error / math.log(2)}
    if hasattr(source, "byte_counts"):
        counts = source.byte_counts("test", indices)
        value, error = rate(losses, counts, clusters)
        out["bits_per_byte"] = {"value": value / math.log(2), "se": error / math.log(2)}
        out["bytes"] = int(counts.sum())
    if hasattr(source, "best"):
        best = source.best("test", indices)
        # of the differences: what a row's own draws add to both cancels
        value, error = rate(losses - best, tokens, clusters)
        out["best"] = float(best.sum() / tokens.sum())
        out["gap"] = {"value": value, "se": error}
    return out
