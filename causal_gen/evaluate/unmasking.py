"""What the order of filling in does for a model that fills in: rows solved, calls of the network, and how close the order is to reading.

Test rows are drawn given what is not scored of them (loss_mask 0: the clues of a puzzle), under the sampler of the config and, beside it,
with the places in random order and all else alike:

    right   = share of the drawn tokens that are those of the row;   rows = share of rows of which all are                       (1)
    solved  = share of rows that the source accepts, where it knows (data/sudoku.py)                                             (2)
    local_k = share of drawn places, from the k-th of a row on, that with the k - 1 drawn before them make a run i, i + 1, ..    (3)
    global_k = share of drawn places that are among the first k of those still open                                              (4)

(3) and (4) are the AR-ness of Gong et al., DiffuCoder (2025), sec. 4: both are 1 left to right, where one place is drawn a call, and
(n - k + 1)! / n! and the mean of min(1, k / m) over m = 1 .. n places in a random order. Places drawn in one call count left to right.
`plan` is the best way to spend the steps of the sampler, by the measured losses of sampling/planner.py, beside the even one.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.parallel.mesh import fetch, spread
from causal_gen.sampling import planner, unmask
from causal_gen.sampling.unmask_config import UnmaskConfig
from causal_gen.types import Int, Key, Params

RUNS = (2, 4)  # k of (3) and (4)
PROFILED = 64  # rows that a plan is measured on


def measure(model: Any, params: Params, key: Key, source: Any, indices: Int[np.ndarray, "n"], batch_size: int) -> dict[str, Any]:
    """(1) to (4) by sampler, and a plan; empty for a model that does not fill in."""
    how = getattr(model, "sampling", None)
    if not isinstance(how, UnmaskConfig) or "template" not in model.context:
        return {}
    ways = {how.policy: how}
    if how.policy != "random":
        ways["random"] = dataclasses.replace(how, policy="random", order=(), choice=0.0, reject=1.0)
    out: dict[str, Any] = {name: _filled(model, params, key, source, indices, batch_size, way) for name, way in ways.items()}
    budget = how.budget(model.length)
    if 1 < budget < model.length:
        batch = spread(dict(source.gather("test", indices[:PROFILED])))
        losses = np.asarray(fetch(_profile(model, params, key, batch)), np.float64)
        counts = planner.plan(losses, budget)
        even = planner.price(losses, planner.even(model.length, budget))
        out["plan"] = {"counts": counts, "nats": planner.price(losses, counts), "nats_even": even, "nats_one_a_step": float(losses.sum())}
    return out


@functools.partial(jax.jit, static_argnums=(0, 1))
def _draw(model: Any, way: UnmaskConfig, params: Params, noise: Any, batch: Any, template: Any) -> unmask.Unmasked:
    told = {"tokens": noise[model.config.tokens], "order": noise["order"]}
    predict = model.predictor(params, batch)
    return unmask.unmask(predict, told, way, mask=model.mask, template=template, alpha=model.way.schedule.alpha)


@functools.partial(jax.jit, static_argnums=0)
def _profile(model: Any, params: Params, key: Key, batch: Any) -> Any:
    return planner.profile(model.predictor(params, batch), key, batch[model.config.tokens], model.mask)


def _filled(
    model: Any, params: Params, key: Key, source: Any, indices: Int[np.ndarray, "n"], batch_size: int, way: UnmaskConfig
) -> dict[str, Any]:
    """(1) to (4) of one sampler."""
    found, held, calls = [], [], []
    for start in range(0, len(indices), batch_size):
        rows = source.gather("test", indices[start : start + batch_size])
        template = np.where(rows["loss_mask"] > 0, unmask.BLANK, rows["tokens"]).astype(np.int32)
        noise = model.noise(jax.random.fold_in(key, start), len(template))
        told = fetch(_draw(model, way, params, noise, spread(dict(rows)), jnp.asarray(template)))
        found.append((np.asarray(told.tokens), np.asarray(told.when)))
        held.append((rows["tokens"], template == unmask.BLANK))
        calls.append(int(told.calls))
    tokens, when = (np.concatenate(parts) for parts in zip(*found, strict=True))
    truth, blank = (np.concatenate(parts) for parts in zip(*held, strict=True))
    out = {"calls": float(np.mean(calls)), "places": float(blank.sum(1).mean())}
    if not blank.all():
        out |= {"right": float((tokens == truth)[blank].mean()), "rows": float(((tokens == truth) | ~blank).all(1).mean())}
    if hasattr(source, "solved"):
        out["solved"] = float(source.solved(tokens).mean())
    return out | {f"{name}_{k}": value for k in RUNS for name, value in arness(when, k).items()}


def arness(when: Int[np.ndarray, "b t"], k: int) -> dict[str, float]:
    """(3) and (4) of the steps in which places were filled; negative ones were known before and do not count."""
    near, early = [], []
    for row in when:
        places = np.flatnonzero(row >= 0)
        order = places[np.argsort(row[places], kind="stable")]
        ahead = (order[None, :] < order[:, None]) & (np.arange(len(order))[None, :] > np.arange(len(order))[:, None])
        early.append(ahead.sum(1) < k)
        steps = np.diff(order) == 1
        if len(order) >= k:
            near.append(np.lib.stride_tricks.sliding_window_view(steps, k - 1).all(1) if k > 1 else np.ones(len(order), bool))
    return {"local": _mean(near), "global": _mean(early)}


def _mean(parts: list[np.ndarray]) -> float:
    joined = np.concatenate(parts) if parts else np.zeros(0)
    return float(joined.mean()) if len(joined) else float("nan")
