"""The evaluation of a model of named variables: held-out likelihood, what each answer depends on, and effects by simulation.

For test rows x and the model's answers m_i(x) (mean, or logits) about each variable i:

    nll     = mean of -log p(x) [nats a row], and its distance from the best where the source knows that                      (1)
    rmse_i  = root mean square of x_i - m_i(x), for real variables                                                        (2)
    leak    = max over i and j of |m_i(x') - m_i(x)|, j no ancestor of i, x' = x with x_j of another row: must be 0          (3)
    reach   = the same, the least over i and its parents j: must not be 0                                                  (4)
    null    = max |predict(abduct(x)) - x| over the variables, in their own units                                         (5)
    effect  = mean of y under do(t = 1) less its mean under do(t = 0), the same noise in both: the g-formula                (6)
    naive   = mean of y among training rows with t = 1 less that among t = 0                                              (7)

Source: (6) Robins 1986. Letters: n rows.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.evaluate import likelihood
from causal_gen.evaluate.base import EvaluateConfig, recorded
from causal_gen.parallel.mesh import spread
from causal_gen.scm import counterfactual as asking
from causal_gen.scm.intervention import do
from causal_gen.types import Batch, Key, Params

DRAWS = 4_000  # rows that (6) is averaged over


@recorded
def evaluate(run: Any, settings: EvaluateConfig, seed: int, progress: Callable[[str], Any]) -> dict[str, Any]:
    """Measure `run`: the likelihood of all test rows, the rest on `settings.scenes` of them."""
    key, size = jax.random.key(seed), run.data.size("test")
    indices = np.sort(np.random.default_rng(seed).permutation(size)[: settings.scenes])
    out: dict[str, Any] = {"step": int(run.step), "scenes": len(indices), "seed": seed}
    out["heldout"] = heldout(run, key, settings.batch_size)
    progress(f"evaluate: {out['heldout']['nll']['value']:.4f} nats a row over {size:,} held-out rows")
    rows = spread(dict(run.data.gather("test", indices)))
    out["rmse"] = errors(run.model, run.params, rows)
    out |= dependence(run.model, run.params, rows)
    noise = asking.abduct(run.model, run.params, key, rows)
    back = asking.predict(run.model, run.params, noise)
    out["null"] = max(float(jnp.abs(back[name] - rows[name]).max()) for name in run.model.graph.nodes)
    progress(f"evaluate: leak {out['leak']:g}, reach {out['reach']:g}, null {out['null']:.2g}")
    known = getattr(run.data, "effects", {})
    if found := {f"{t} -> {y}": effect(run, key, t, y) | {"truth": truth} for (t, y), truth in known.items()}:
        out["effects"] = found
        progress(f"evaluate: effects {found}")
    return out


def heldout(run: Any, key: Key, batch_size: int) -> dict[str, Any]:
    """(1) over all test rows, with standard errors."""
    indices = np.arange(run.data.size("test"))
    losses = likelihood.nats(run.model, run.params, key, run.data, indices, batch_size)
    out: dict[str, Any] = {"rows": len(indices), "likelihood": run.model.likelihood}
    for name, values in {"nll": losses, **({"gap": losses - run.data.best("test", indices)} if hasattr(run.data, "best") else {})}.items():
        value, error = likelihood.rate(values, np.ones(len(indices)))
        out[name] = {"value": value, "se": error}
    return out


@functools.partial(jax.jit, static_argnums=0)
def _answers(model: Any, params: Params, rows: Batch) -> dict[str, Any]:
    told = model.conditionals(params, rows)
    return {name: one.logits if one.moments is None else one.moments[0] for name, one in told.items()}


def errors(model: Any, params: Params, rows: Batch) -> dict[str, float]:
    """(2) by variable."""
    return {
        name: math.sqrt(float(((rows[name] - told) ** 2).mean())) for name, told in _answers(model, params, rows).items() if told.ndim == 1
    }


def dependence(model: Any, params: Params, rows: Batch) -> dict[str, float]:
    """(3) and (4); `reach` is infinite where no variable has a parent."""
    plain, moved = _answers(model, params, rows), {}
    for cause in model.graph.nodes:
        other = _answers(model, params, {**rows, cause: jnp.roll(rows[cause], 1)})
        moved |= {(cause, node): float(jnp.abs(other[node] - plain[node]).max()) for node in plain}
    hidden = [gap for (cause, node), gap in moved.items() if cause not in model.graph.ancestors(node)]
    seen = [gap for (cause, node), gap in moved.items() if cause in model.graph.parents(node)]
    return {"leak": max(hidden), "reach": min(seen, default=math.inf)}


def effect(run: Any, key: Key, cause: str, result: str) -> dict[str, float]:
    """(6) and (7)."""
    means = [float(jnp.mean(asking.sample(run.model, run.params, key, DRAWS, do=do(**{cause: value}))[result])) for value in (0.0, 1.0)]
    rows = run.data.gather("train", np.arange(run.data.size("train")))
    groups = [float(rows[result][rows[cause] == value].mean()) for value in (0, 1)]
    return {"model": means[1] - means[0], "naive": groups[1] - groups[0]}
