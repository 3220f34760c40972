"""What the layers of a sequence model that `model.capture` names know and do: positions, parents in a graph, size of their gradients.

For rows x of the test split, with hidden states h of slot i (which holds token i - 1) after a layer and its attention A, mean over heads:

    position:  MAE of  w h_i + b  as a guess of i, in shares of the length t; w, b by least squares on half of the rows, the error on
               the others. Chance is the MAE of the one best guess, the middle: about 1/4.                                      (1)
    parents:   share of (row, token k with a parent p(k)) with argmax_j A_{k+1, j} = p(k) + 1, where the source knows p             (2)
    gradient:  norm of the mean loss's gradient with respect to all of the layer's parameters                                    (3)
    edges:     area under the ROC curve of the mean over rows of A_{i, j+1}, j < i - 1, as a guess whether token j is a parent of the
               token i that slot i predicts, where the source knows the graph; token i - 1 is in the slot itself               (4)

(1) is asked again with the visibility taken away, `full()`: without positions of its own a network without a mask is equivariant under
permutations and knows nothing of order, whatever its weights. Sources: (1) Haviv et al., EMNLP 2022, who classify; (2) Nichani et al.,
ICML 2024; (3) Shleifer et al. 2021, figure 1; (4) as structure learners are scored. Letters: n rows, t position, d width, l layers.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.types import Array, Bool, Float, Int, Params

RIDGE = 1e-6  # of the mean square of a feature: keeps the solution where features are linearly dependent


def measure(model: Any, params: Params, source: Any, indices: Int[np.ndarray, "n"], batch_size: int) -> dict[str, Any]:
    """(1) to (4) by layer, over the test rows at `indices`; empty where the model captures no layer."""
    capture = getattr(getattr(model, "config", None), "capture", ())
    if not capture or len(indices) < 2:
        return {}
    blind = dataclasses.replace(model, config=dataclasses.replace(model.config, visibility="full()"))
    seen, unseen = (_hidden(one, params, source, indices, batch_size) for one in (model, blind))
    out: dict[str, Any] = {
        "position": {str(layer): position_error(seen[layer]) for layer in capture},
        "position_without_mask": {str(layer): position_error(unseen[layer]) for layer in capture},
    }
    out["position_by_chance"] = guess_error(seen[capture[0]].shape[1])
    parents = getattr(getattr(source, "config", None), "parents", None)
    if parents is not None:
        tops = _each(model, params, source, indices, batch_size, _looks_at)
        out["parents"] = {str(layer): parent_share(tops[layer], parents) for layer in capture}
    adjacency = getattr(getattr(source, "config", None), "adjacency", None)
    if adjacency is not None:
        weights = _each(model, params, source, indices, batch_size, _weights)
        out["edges"] = {str(layer): edge_area(weights[layer].mean(0), adjacency) for layer in capture}
    norms = np.asarray(_gradients(model, params, _batch(source, indices[:batch_size])))
    out["gradient"] = {str(layer): float(norms[layer]) for layer in capture}
    return out


def position_error(hidden: Float[np.ndarray, "n t d"]) -> float:
    """(1): fitted on the even rows, measured on the odd ones."""
    n, t, d = hidden.shape
    features = np.concatenate([hidden, np.ones((n, t, 1))], -1).astype(np.float64)
    fit, check = features[::2].reshape(-1, d + 1), features[1::2].reshape(-1, d + 1)
    places = np.arange(t, dtype=np.float64)
    gram = fit.T @ fit
    weight = np.linalg.solve(gram + RIDGE * np.trace(gram) / (d + 1) * np.eye(d + 1), fit.T @ np.tile(places, len(fit) // t))
    return float(np.abs(check @ weight - np.tile(places, len(check) // t)).mean() / t)


def guess_error(t: int) -> float:
    """Chance in (1)."""
    return float(np.abs(np.arange(t) - (t - 1) / 2).mean() / t)


def parent_share(tops: Int[np.ndarray, "n t"], parents: Int[np.ndarray, "t"]) -> float:
    """(2), from the slot that each slot looks at most; the last token is in no slot."""
    children = np.flatnonzero(parents[:-1] >= 0)
    return float((tops[:, children + 1] == parents[children] + 1).mean())


def edge_area(weights: Float[np.ndarray, "t t"], adjacency: Bool[np.ndarray, "t t"]) -> float:
    """(4): the chance that an edge has more weight than a pair that is none; ties count half."""
    slot, other = np.tril_indices(len(weights), -1)
    slot, other = slot[other > 0], other[other > 0]  # slot 0 holds the start
    score, edge = weights[slot, other], adjacency[slot, other - 1]
    above = (score[edge][:, None] > score[~edge][None]) + 0.5 * (score[edge][:, None] == score[~edge][None])
    return float(above.mean())


def _batch(source: Any, indices: Int[np.ndarray, "n"]) -> dict[str, Array]:
    return jax.tree.map(jnp.asarray, dict(source.gather("test", indices)))


@functools.partial(jax.jit, static_argnums=(0, 3))
def _apply(model: Any, params: Params, batch: Mapping[str, Array], read: Any) -> dict[int, Array]:
    return read(model.conditionals(params, batch)["tokens"])


def _states(prediction: Any) -> dict[int, Array]:
    return prediction.hidden


def _looks_at(prediction: Any) -> dict[int, Array]:
    return {layer: jnp.argmax(seen.mean(1), -1) for layer, seen in prediction.attention.items()}


def _weights(prediction: Any) -> dict[int, Array]:
    return {layer: seen.mean(1) for layer, seen in prediction.attention.items()}


def _each(model: Any, params: Params, source: Any, indices: Int[np.ndarray, "n"], batch_size: int, read: Any) -> dict[int, np.ndarray]:
    """What `read` finds in the prediction, by layer, for all rows."""
    starts = range(0, len(indices), batch_size)
    found = [_apply(model, params, _batch(source, indices[start : start + batch_size]), read) for start in starts]
    return {layer: np.concatenate([np.asarray(part[layer]) for part in found]) for layer in found[0]}


def _hidden(model: Any, params: Params, source: Any, indices: Int[np.ndarray, "n"], batch_size: int) -> dict[int, np.ndarray]:
    return _each(model, params, source, indices, batch_size, _states)


@functools.partial(jax.jit, static_argnums=0)
def _gradients(model: Any, params: Params, batch: Mapping[str, Array]) -> Float[Array, "l"]:
    """(3) of every layer."""

    def mean(params: Params) -> Array:
        return model.loss(params, jax.random.key(0), batch, step=jnp.int32(0), train=False)[0].mean()

    leaves = jax.tree.leaves(jax.grad(mean)(params)["decoder"]["blocks"])
    return jnp.sqrt(sum((leaf.reshape(leaf.shape[0], -1) ** 2).sum(-1) for leaf in leaves))
