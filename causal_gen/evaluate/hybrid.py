"""The evaluation of a hybrid transformer: what that of sequences measures, and what each of its objectives makes of held-out rows.

    objectives    nats a token of every objective, as training asks it, over all test rows: next tokens exactly, masks at the shares that
                  it hides, diffusion and any order as the bound, spans with their rest where they predict it                  (1)
    pseudo        nats a token given all others, of the objective that fills in masks, on `settings.scenes` rows               (2)
    infill        nats a token of a span given both sides, by the objective of spans; `left`: by next tokens, from the left     (3)
    null, takes   as in sequences.py;  earlier: share of tokens filled in before an intervened one that it moves, must be 0;
                  later: share of the tokens filled in after it that it moves, over the rows in which it was another           (4)
    unmasking     what the order of filling in does (evaluate/unmasking.py)                                                     (5)
    spread        of a bound: sqrt(mean of (a - b)^2 / 2), nats a token, of two estimates a, b of the same row, with masks of their
                  own, on `settings.scenes` rows: what chance adds to the figure of a row                                       (6)

Letters: b batch, t position.

The measures are this project's own, after those of sequences.py.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.evaluate import likelihood, sequences, unmasking
from causal_gen.evaluate.base import EvaluateConfig, recorded
from causal_gen.models.hybrid_transformer_config import FILLED
from causal_gen.models.objectives import Query, draw_spans
from causal_gen.parallel.mesh import fetch, spread
from causal_gen.scm import counterfactual as asking
from causal_gen.scm.intervention import do
from causal_gen.types import Int, Key, Params


@recorded
def evaluate(run: Any, settings: EvaluateConfig, seed: int, progress: Callable[[str], Any]) -> dict[str, Any]:
    """Measure `run`: likelihoods of all test rows, the rest on `settings.scenes` of them."""
    key, size = jax.random.key(seed), run.data.size("test")
    indices = np.sort(np.random.default_rng(seed).permutation(size)[: settings.scenes])
    out: dict[str, Any] = {"step": int(run.step), "scenes": len(indices), "seed": seed}
    out["objectives"] = objectives(run.model, run.params, key, run.data, settings.batch_size)
    progress("evaluate: " + ", ".join(f"{name} {told['value']:.4f}" for name, told in out["objectives"].items()) + " nats a token")
    out["heldout"] = likelihood.heldout(run.model, run.params, key, run.data, batch_size=settings.batch_size)
    progress("evaluate: " + sequences.summary(out["heldout"]))
    if run.model.likelihood == "bound":
        out["spread"] = uncertainty(run.model, run.params, key, run.data, indices, settings.batch_size)
    if any(o.kind in FILLED for o in run.model.config.objectives):
        out["pseudo"] = pseudo(run.model, run.params, run.data, indices, settings.batch_size)
    if told := infill(run.model, run.params, key, run.data, indices, settings.batch_size):
        out["infill"] = told
        progress(f"evaluate: infill {told}")
    out |= sequences.accuracy(run.model, run.params, run.data, indices, settings.batch_size)
    if told := unmasking.measure(run.model, run.params, key, run.data, indices, settings.batch_size):
        out["unmasking"] = told
        progress("evaluate: " + unmasking.summary(told))
    out |= sequences.beyond(run, key, settings)
    out |= interventions(run, key, indices[: settings.batch_size], seed)
    progress(f"evaluate: null {out['null']:.6f}, do takes {out['takes']:.6f}, moved earlier {out['earlier']}, later {out['later']}")
    return out


@functools.partial(jax.jit, static_argnums=0)
def _terms(model: Any, params: Params, key: Key, batch: Mapping[str, Any]) -> dict[str, Any]:
    terms = model.loss(params, key, batch, step=jnp.int32(0), train=False)[1].terms
    (name,) = [o.called for o in model.config.objectives][:1]
    return {called.removeprefix("nll_"): nll for called, nll in terms.items() if called != "nll"} or {name: terms["nll"]}


def objectives(model: Any, params: Params, key: Key, source: Any, batch_size: int) -> dict[str, dict[str, float]]:
    """(1) with standard errors over rows."""
    size, found = source.size("test"), {}
    for start in range(0, size, batch_size):
        rows = np.minimum(np.arange(start, start + min(batch_size, size)), size - 1)
        told = fetch(_terms(model, params, jax.random.fold_in(key, start), spread(dict(source.gather("test", rows)))))
        for name, nll in told.items():
            found.setdefault(name, []).append(np.asarray(nll, np.float64))
    rates = {name: likelihood.rate(np.concatenate(parts)[:size], np.ones(size)) for name, parts in found.items()}
    return {name: {"value": value, "se": error} for name, (value, error) in rates.items()}


def uncertainty(model: Any, params: Params, key: Key, source: Any, indices: Int[np.ndarray, "n"], batch_size: int) -> float:
    """(6)."""
    first, second = (
        likelihood.nats(model, params, one, source, indices, batch_size) for one in jax.random.split(jax.random.fold_in(key, 6))
    )
    tokens = likelihood.scored(source.gather("test", indices))
    return float(np.sqrt(np.mean(((first - second) / tokens) ** 2) / 2))


@functools.partial(jax.jit, static_argnums=0)
def _pseudo(model: Any, params: Params, batch: Mapping[str, Any]) -> Any:
    return model.pseudo_log_prob(params, batch)


def pseudo(model: Any, params: Params, source: Any, indices: Int[np.ndarray, "n"], batch_size: int) -> dict[str, float]:
    """(2)."""
    nats, tokens = [], []
    for start in range(0, len(indices), batch_size):
        batch = source.gather("test", indices[start : start + batch_size])
        nats.append(-np.asarray(fetch(_pseudo(model, params, spread(dict(batch)))), np.float64))
        tokens.append(likelihood.scored(batch))
    value, error = likelihood.rate(np.concatenate(nats), np.concatenate(tokens))
    return {"value": value, "se": error}


@functools.partial(jax.jit, static_argnums=(0, 1))
def _masked(model: Any, query: Any, params: Params, key: Key, batch: Mapping[str, Any], mask: Any) -> Any:
    return model.log_prob(params, key, batch, Query(objective=query, mask=mask))


def infill(model: Any, params: Params, key: Key, source: Any, indices: Int[np.ndarray, "n"], batch_size: int) -> dict[str, Any]:
    """(3), one span a row, of the lengths that the objective of spans is trained for; empty for a model without one."""
    ways = {o.kind: o for o in model.config.objectives if o.kind in ("span", "next")}
    if "span" not in ways:
        return {}
    found: dict[str, list[Any]] = {"both": [], "left": []}
    tokens, alone = [], dataclasses.replace(ways["span"], spans=1)
    for start in range(0, len(indices), batch_size):
        batch = source.gather("test", indices[start : start + batch_size])
        t = batch["tokens"].shape[1]
        first, last = draw_spans(alone, jax.random.fold_in(key, start), len(batch["tokens"]), t)
        place = np.arange(t)[None]
        mask = (place >= np.asarray(first)) & (place < np.asarray(last))
        held = spread(dict(batch))
        for name, kind in (("both", "span"), ("left", "next")):
            if kind in ways:
                found[name].append(-np.asarray(fetch(_masked(model, ways[kind].called, params, key, held, jnp.asarray(mask))), np.float64))
        tokens.append((mask * batch.get("loss_mask", 1.0)).sum(1))
    counts, out = np.concatenate(tokens), {}
    for name, nats in found.items():
        if nats:
            value, error = likelihood.rate(np.concatenate(nats), counts)
            out[name] = {"value": value, "se": error, "bits": value / math.log(2)}
    return out


def interventions(run: Any, key: Key, indices: Int[np.ndarray, "n"], seed: int) -> dict[str, Any]:
    """(4) for the test rows at `indices`, each under one intervention on a place in the middle half, with the law of their noise."""
    held = run.data.gather("test", indices)
    tokens, batch, rng = held["tokens"], spread(dict(held)), np.random.default_rng(seed)
    place = int(rng.integers(tokens.shape[1] // 4, max(3 * tokens.shape[1] // 4, 1)))
    value = int(tokens[rng.integers(len(tokens)), place])
    noise = asking.abduct(run.model, run.params, key, batch)
    back = fetch(asking.predict(run.model, run.params, noise, batch)["tokens"])
    answer = fetch(asking.predict(run.model, run.params, noise, batch, do(tokens={place: value}))["tokens"])
    when = np.asarray(fetch(noise["when"])) if "when" in noise else np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    moved, later, other = answer != tokens, when > when[:, place : place + 1], tokens[:, place] != value
    earlier = ~later
    earlier[:, place] = False
    row = int(np.argmax(other))
    example = {"row": int(indices[row]), "place": place, "factual": tokens[row], "counterfactual": answer[row]}
    return {
        "null": float((back == tokens).mean()),
        "takes": float((answer[:, place] == value).mean()),
        "earlier": _share(moved, earlier),
        "later": _share(moved[other], later[other]),
        "noise": sequences.noise_law(fetch(noise)),
        "example": sequences.shown(run.data, example, f"tokens[{place}]={value}"),
    }


def _share(hits: np.ndarray, among: np.ndarray) -> float | None:
    return float(hits[among].mean()) if among.any() else None
