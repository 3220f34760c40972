"""The single figures of an evaluation, each from arrays on the host. Images are [b, h, w, c] in [0, 1].

Wherever a figure needs something to be held against, it is returned beside it, under the same names everywhere: `floor` (the
instrument on true images), `copy` (the factual image handed back), `not_propagated`, `chance` (values shuffled over the scenes).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import jax
import numpy as np

from causal_gen.evaluate import disentangle
from causal_gen.evaluate.base import Bench, Instrument, mean_abs
from causal_gen.evaluate.batched import Batched
from causal_gen.scm.intervention import do
from causal_gen.structure.graph import Dag
from causal_gen.types import Key, Noise

DRAWS = 4096  # of an interventional mean: a standard error of half a grey level where the sd is 30


def grey(errors: Mapping[str, float | None], image: np.ndarray) -> dict[str, Any]:
    """For single-channel images the same errors in grey levels of 0..255, the habit of the literature; else nothing.

    `image` [b, h, w, c].
    """
    if image.shape[-1] != 1:
        return {}
    return {"grey": {name: 255.0 * value for name, value in errors.items() if value is not None}}


def pixels(
    bench: Bench,
    factor: str,
    image: np.ndarray,
    answer: np.ndarray,
    truth: np.ndarray,
    held: np.ndarray | None,
    reconstruction: np.ndarray,
) -> dict[str, Any]:
    """Counterfactual pixel error with its baselines, over the image and over the strips of the bench.

    `held` is the truth with the descendants at their factual values (None: there are none). For factors with an
    `outside`, the mean change outside of that strip stands beside the change that a null intervention makes there, and `moved`, what
    setting the factor changes in the model's answer to the null intervention.

    Pictures are [b, h, w, c].
    """
    per_scene = np.abs(answer - truth).mean((1, 2, 3))
    out: dict[str, Any] = {"mae": float(per_scene.mean()), "mae_p95": float(np.quantile(per_scene, 0.95)), "copy": mean_abs(image, truth)}
    if held is not None:
        out["not_propagated"] = mean_abs(held, truth)
    for strip in bench.strips:
        rows = bench.rows(strip, image.shape[1])
        found = {"mae": mean_abs(answer[:, rows], truth[:, rows]), "copy": mean_abs(image[:, rows], truth[:, rows])}
        if held is not None:
            found["not_propagated"] = mean_abs(held[:, rows], truth[:, rows])
        out.setdefault("strips", {})[strip] = found
    if factor in bench.outside:
        rest = slice(0, bench.rows(bench.outside[factor], image.shape[1]).start)
        out["outside"] = {
            "change": mean_abs(answer[:, rest], image[:, rest]),
            "composition": mean_abs(reconstruction[:, rest], image[:, rest]),
            "moved": mean_abs(answer[:, rest], reconstruction[:, rest]),
        }
    return out


def _compare(tool: Instrument, found: Any, target: Any, keep: np.ndarray) -> float:
    found, target = np.asarray(found, np.float64)[keep], np.asarray(target, np.float64)[keep]
    if tool.kind == "mae":
        return mean_abs(found, target)
    return float(np.mean(found == target)) if len(found) else float("nan")


def instruments(bench: Bench, batch: Mapping[str, np.ndarray], read: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Each instrument's own error on the true test images, where it can read them."""
    out = {}
    for tool in bench.instruments:
        if tool.name in batch:
            keep = tool.valid(batch) if tool.valid else np.ones(len(batch["image"]), bool)
            out[tool.name] = {tool.kind: _compare(tool, read[tool.name], batch[tool.name], keep), "unit": tool.unit}
    return out


def effectiveness(
    bench: Bench,
    factor: str,
    values: np.ndarray,
    answer: np.ndarray,
    truth: Mapping[str, np.ndarray] | None,
    factual: Mapping[str, np.ndarray],
    batch: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """What every instrument reads from the counterfactual images, against the truth (the intervened value alone without one).

    `factual` holds the readings of the factual images. `read` is the share of scenes that the figures rest on. Of what moves in the truth,
    `direction` is the share of scenes in which the reading moves the same way (one that reads nothing moves the wrong way), and `r2` how
    well the readings follow the truth over the scenes.

    `values` and readings are [b], pictures [b, h, w, c].
    """
    shuffle = np.random.default_rng(0).permutation(len(answer))
    targets = {factor: values} if truth is None else {name: value for name, value in truth.items() if name != "image"}
    out = {}
    for tool in bench.instruments:
        if tool.name not in targets:
            continue
        target = np.asarray(targets[tool.name])
        keep = tool.valid(targets) if tool.valid else np.ones(len(target), bool)
        found = np.asarray(tool.read(answer))
        entry = {
            tool.kind: _compare(tool, found, target, keep),
            "unit": tool.unit,
            "copy": _compare(tool, factual[tool.name], target, keep),
        }
        if truth is not None:
            entry["floor"] = _compare(tool, tool.read(truth["image"]), target, keep)
        entry["chance"] = _compare(tool, target[shuffle], target, keep)
        entry["read"] = float(np.mean(keep & np.isfinite(found)))
        if truth is not None and tool.kind == "mae":
            entry |= _followed(found[keep], target[keep], np.asarray(factual[tool.name])[keep], np.asarray(batch[tool.name])[keep])
        out[tool.name] = entry
    return out


def _followed(found: np.ndarray, target: np.ndarray, read: np.ndarray, before: np.ndarray) -> dict[str, float]:
    """`direction` and `r2` of readings `found` against `target`, from the factual readings `read` and values `before`; all [b].

    Readings are of one instrument, so that what it errs by alike on both pictures moves nothing. {} where the truth hardly moves.
    """
    told = np.isfinite(found)
    if not told.any():
        return {}
    moved = np.abs(target - before) > 1e-3 * np.ptp(target) + 1e-9  # by more than what computing it anew does
    if moved.mean() < 0.05:
        return {}
    right = np.sign(found - read) == np.sign(target - before)  # NaN has no sign that is right
    return {"direction": float(right[moved].mean()), "r2": disentangle.r2(target[told], found[told])}


def held(
    bench: Bench,
    names: Collection[str],
    answer: np.ndarray,
    truth: Mapping[str, np.ndarray] | None,
    batch: Mapping[str, np.ndarray],
    factual: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """How far the readings of what must stay still moved from the factual image to the counterfactual one.

    `floor` is what the same instrument shows between the factual and the true counterfactual image, `excess` the difference.

    Readings are [b], pictures [b, h, w, c].
    """
    out = {}
    for tool in bench.instruments:
        if tool.name not in names or tool.kind != "mae":
            continue
        keep = np.ones(len(answer), bool)
        if tool.valid:
            keep = tool.valid(batch) & tool.valid(batch if truth is None else truth)
        entry: dict[str, Any] = {"change": _compare(tool, tool.read(answer), factual[tool.name], keep), "unit": tool.unit}
        if truth is not None:
            entry["floor"] = _compare(tool, tool.read(truth["image"]), factual[tool.name], keep)
            entry["excess"] = entry["change"] - entry["floor"]
        out[tool.name] = entry
    return out


def noise_law(noise: Any, batch: Mapping[str, np.ndarray], graph: Dag) -> dict[str, Any]:
    """How far abducted noise is from the standard normal that `noise()` draws, and from independence of the parents.

    Per entry: mean, standard deviation, Kolmogorov-Smirnov distance of the pooled values (at most 50,000 of them), and
    the largest absolute correlation of an example's mean with a parent's label. `noise` is {entry: [b, ...]}.
    """
    from scipy import stats

    out = {}
    for name, value in noise.items():
        if name not in graph.nodes or not hasattr(value, "shape") or not np.issubdtype(np.asarray(value).dtype, np.floating):
            continue
        pooled = np.asarray(value, np.float64).reshape(-1)
        sample = np.random.default_rng(0).choice(pooled, min(len(pooled), 50_000), replace=False)
        means = np.asarray(value, np.float64).reshape(len(value), -1).mean(1)
        parents = [p for p in graph.parents(name) if p in batch]
        corr = [abs(_correlation(means, np.asarray(batch[p], np.float64))) for p in parents]
        ks = float(stats.kstest(sample, "norm").statistic)
        out[name] = {"mean": float(pooled.mean()), "std": float(pooled.std()), "ks": ks, "parent_correlation": max(corr, default=None)}
    return out


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt(np.sum(a**2) * np.sum(b**2)))
    return float(np.sum(a * b)) / scale if scale > 1e-12 else 0.0


def alignment(
    values: Mapping[str, np.ndarray], latents: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], seed: int
) -> dict[str, Any]:
    """Label recovery R2 of the factor values read by the model, and DCI and MCC of its latents {factor: [b, k]}.

    MCC is over block means (`blocks`), and over all entries of all blocks (`codes`).

    Causes and effects among the factors are dependent, so that a code may serve both: DCI of the labels themselves
    stands beside as `labels`.
    """
    names = list(labels)
    out: dict[str, Any] = {"label_r2": {name: disentangle.r2(labels[name], values[name]) for name in names}}
    target = np.stack([np.asarray(labels[name], np.float64) for name in names], axis=1)
    edges = np.cumsum([0, *(latents[name].shape[1] for name in names)])
    blocks = {name: slice(int(low), int(high)) for name, low, high in zip(names, edges[:-1], edges[1:], strict=True)}
    codes = np.concatenate([latents[name] for name in names], axis=1)
    out["dci"] = {**disentangle.dci(codes, labels, blocks, seed), "labels": disentangle.dci(target, labels, seed=seed)}
    means = np.stack([latents[name].mean(1) for name in names], axis=1)
    return out | {"mcc": {"blocks": disentangle.mcc(means, target), "codes": disentangle.mcc(codes, target)}}


def expectations(ask: Batched, bench: Bench, key: Key) -> list[dict[str, Any]]:
    """Means of `DRAWS` samples of the model under the interventions whose answer the bench knows. Draws no image."""
    out = []
    for (node, value, effect), mean in bench.expectations:
        if {node, effect} <= set(ask.model.factors):
            found = _drawn(ask.model, ask.params, key, node, value, effect)
            out.append({"do": node, "value": value, "effect": effect, "mean": found, "truth": mean, "error": abs(found - mean)})
    return out


def _drawn(model: Any, params: Any, key: Key, node: str, value: float, effect: str) -> float:
    def draw(params: Any, key: Key) -> Any:
        noise: Noise = model.noise(key, DRAWS)
        return model.predict(params, noise, do=do(**{node: value}))[effect].mean()

    return float(jax.jit(draw)(params, key))
