"""The evaluation of a structural causal model of numbers: likelihood, abducted noise, and counterfactuals against the truth.

What evaluate/variables.py measures (held-out nats and their distance from the best, rmse, leak, reach, null), and over n test rows

    ks_i     = largest gap between the law of node i's abducted noise and the one that it is drawn from: 0 to 1             (1)
    parents_i = largest |rank correlation| of that noise with a parent of i: noise that knows causes hides part of their effect (2)
    error_j  = root mean square of  model's x_j under do(x_i = v) - true x_j,    as a share of that of  true x_j - factual x_j  (3)

(3) for every cause i and each node j below it, v in turn the 10% and the 90% quantile of the training rows (all values of a discrete i),
pooled; a share of 1 is what doing nothing scores. `covered` is the share over the answers that the training rows cover (cover.py), and
`rows_covered` how many of all they are. `mape` is the mean of |model - true| / |true| for nodes that are positive, doing nothing
beside it, v being another row's value. Discrete nodes: the share of rows that differ from the truth, beside that of doing nothing. Where
the source knows no truth, (3) is left out.

    share_i(x) = (V_i - V_i-1) / Var x,   V_i = Var E[x | e_1 .. e_i]       of a real node x without effects                   (4)

how much of x's variance comes from the noise of each node above it and of its own, in the graph's order: its intrinsic causal contribution
(Janzing et al. 2024, of variance), by V_i = Cov(x, x') over draws x' that share e_1 .. e_i alone (Sobol 2001). They sum to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from causal_gen.evaluate import axioms, variables
from causal_gen.evaluate.base import EvaluateConfig, recorded
from causal_gen.evaluate.cover import Cover
from causal_gen.parallel.mesh import spread
from causal_gen.scm import counterfactual as asking
from causal_gen.scm.intervention import Intervention, do
from causal_gen.types import Key, Params

QUANTILES = {"low": 0.1, "high": 0.9}
DRAWS = 20_000  # that (4) is summed over


@recorded
def evaluate(run: Any, settings: EvaluateConfig, seed: int, progress: Callable[[str], Any]) -> dict[str, Any]:
    """Measure `run`: the likelihood of all test rows, the rest on `settings.scenes` of them. Of a model with a picture, what
    evaluate/axioms.py measures, and the likelihood node by node."""
    if hasattr(run.model, "factors"):
        return {**axioms.measure(run, settings, seed, progress), "heldout_nodes": by_node(run, jax.random.key(seed), settings, progress)}
    key, size = jax.random.key(seed), run.data.size("test")
    indices = np.sort(np.random.default_rng(seed).permutation(size)[: settings.scenes])
    out: dict[str, Any] = {"step": int(run.step), "scenes": len(indices), "seed": seed}
    if run.model.likelihood is not None:
        out["heldout"] = variables.heldout(run, key, settings.batch_size)
        progress(f"evaluate: {out['heldout']['nll']['value']:.4f} nats a row over {size:,} held-out rows")
    rows = dict(run.data.gather("test", indices))
    given = spread(rows)
    out["rmse"] = variables.errors(run.model, run.params, given)
    out |= variables.dependence(run.model, run.params, given)
    noise = asking.abduct(run.model, run.params, key, given)
    back = asking.predict(run.model, run.params, noise)
    out["null"] = max(float(jnp.abs(back[name] - given[name]).max()) for name in run.model.graph.nodes)
    out["noise"] = noises(run.model, noise, rows)
    progress(f"evaluate: leak {out['leak']:g}, reach {out['reach']:g}, null {out['null']:.2g}")
    out["contributions"] = {name: contributions(run.model, run.params, key, name) for name in run.model.graph.nodes if _ends(run, name)}
    if found := counterfactuals(run, key, indices, rows):
        out["do"] = found
        for cause, below in found.items():
            progress(f"evaluate: do({cause}): " + ", ".join(f"{name} {_told(one)}" for name, one in below.items()))
    return out


def by_node(run: Any, key: Key, settings: EvaluateConfig, progress: Callable[[str], Any]) -> dict[str, dict[str, float]]:
    """-log p of every node given its parents, in nats in the nodes' own units, over all test rows: mean and its standard error."""
    size, found = run.data.size("test"), {}
    ask = jax.jit(run.model.log_probs)
    for start in range(0, size, settings.batch_size):
        rows = np.minimum(np.arange(start, start + settings.batch_size), size - 1)  # the last row repeats as padding
        parts = ask(run.params, jax.random.fold_in(key, start), spread(dict(run.data.gather("test", rows))))
        for name, part in parts.items():
            found.setdefault(name, []).append(-np.asarray(part)[: size - start])
    out = {}
    for name, parts in found.items():
        values = np.concatenate(parts)
        out[name] = {"value": float(values.mean()), "se": float(values.std() / math.sqrt(size))}
        progress(f"evaluate: {out[name]['value']:.4f} nats for {name} given its parents, over {size:,} held-out rows")
    return out


def _told(one: dict[str, float]) -> str:
    if "share" in one:
        covered = f" ({100 * one['covered']:.1f}% on the {100 * one['rows_covered']:.0f}% that data cover)" if "covered" in one else ""
        return f"off by {one['rmse']:.3g}, {100 * one['share']:.1f}% of the change{covered}"
    return f"wrong in {100 * one['wrong']:.1f}% (doing nothing {100 * one['nothing']:.1f}%)"


def noises(model: Any, noise: Any, rows: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """(1) and (2) for every node whose noise is one number an example; a Gumbel draw is judged by all its entries, pooled."""
    found, single = {}, {}
    for value in noise.items():
        single |= dict([value]) if hasattr(value[1], "ndim") else {name: part for name, part in value[1].items() if name in rows}
    for name in (name for name in model.graph.nodes if name in single):
        value = np.asarray(single[name], np.float64)
        law = "norm" if value.ndim == 1 else "gumbel_r"
        flat = value.reshape(len(value), -1)
        one = {"std": float(flat.std()), "ks": float(stats.kstest(flat.reshape(-1), law).statistic)}
        pairs = [(flat[:, k], rows[parent]) for parent in model.graph.parents(name) for k in range(flat.shape[1])]
        found[name] = one | {"parent_correlation": max((_rank(e, x) for e, x in pairs), default=math.nan)}
    return found


def _rank(e: np.ndarray, x: np.ndarray) -> float:
    return abs(float(np.corrcoef(stats.rankdata(e), stats.rankdata(x))[0, 1])) if np.ptp(x) and np.ptp(e) else 0.0


def _ends(run: Any, name: str) -> bool:
    """Whether a node is real, has causes and no effects."""
    graph = run.model.graph
    return bool(graph.parents(name)) and not graph.children(name) and run.data.entries[name].vocabulary is None


def contributions(model: Any, params: Params, key: Key, name: str) -> dict[str, float]:
    """(4) for the node `name`, over `DRAWS` draws; of a mechanism of several nodes the contribution of all of them together."""
    num = DRAWS if model.exact else DRAWS // 10  # what is not exact takes many passes of its networks for one value
    own, other = (model.noise(part, num) for part in jax.random.split(key))
    value, before, found = np.asarray(asking.predict(model, params, own)[name], np.float64), 0.0, {}
    upstream = model.graph.ancestors(name) | {name}
    shared = dict(other)
    for mechanism in (mechanism for mechanism in model.mechanisms if upstream & set(mechanism.nodes)):
        label = "+".join(mechanism.nodes)
        shared[label] = own[label]
        again = np.asarray(asking.predict(model, params, shared)[name], np.float64)
        now = float(((value - value.mean()) * (again - again.mean())).mean()) / float(value.var())
        found[label], before = now - before, now
    return found


def counterfactuals(run: Any, key: Key, indices: np.ndarray, rows: dict[str, np.ndarray]) -> dict[str, dict[str, dict[str, float]]]:
    """(3): {cause: {node below it: figures}}, {} where the source knows no truth.

    `indices` [b] are those of the `rows` in the test split.
    """
    model, params, found = run.model, run.params, {}
    if run.data.truth("test", indices, None) is None:
        return {}
    noise = asking.abduct(model, params, key, spread(rows))
    other = {name: np.roll(value, 1) for name, value in rows.items()}
    cover = Cover(run, rows) if all(value.dtype != np.int32 for value in rows.values()) else None
    for cause in model.graph.nodes:
        below = sorted(model.graph.descendants(cause), key=model.graph.order.index)
        if not below:
            continue
        if rows[cause].dtype == np.int32:
            fixed = [np.full(len(indices), value) for value in range(int(run.data.entries[cause].vocabulary))]
        else:
            spaced = run.config["data"]["stats"][cause]["quantiles"]
            fixed = [np.full(len(indices), np.quantile(spaced, q), np.float32) for q in QUANTILES.values()]
        asked = [_pair(run, params, noise, indices, do(**{cause: value})) for value in (*fixed, other[cause])]
        found[cause] = {name: _figures(name, rows, asked, len(fixed)) for name in below}
        if cover is not None:
            for name in below:
                within = np.concatenate([cover.covers(cause, name, truth) for _, truth in asked[: len(fixed)]])
                found[cause][name] |= _covered(name, rows, asked[: len(fixed)], within)
    return found


def _pair(run: Any, params: Params, noise: Any, indices: np.ndarray, act: Intervention) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The model's answer and the truth."""
    told = jax.device_get(asking.predict(run.model, params, noise, do=act))
    return told, run.data.truth("test", indices, act)


def _figures(name: str, rows: dict[str, np.ndarray], asked: list[Any], fixed: int) -> dict[str, float]:
    """Of one node: over the first `fixed` answers, and of a positive one `mape` over the last."""
    gap, change = _gaps(name, rows, asked[:fixed])
    if rows[name].dtype == np.int32:
        return {"wrong": float((gap != 0).mean()), "nothing": float((change != 0).mean())}
    rms = math.sqrt(float((change**2).mean()))
    out = {"rmse": math.sqrt(float((gap**2).mean())), "mae": float(np.abs(gap).mean()), "change": rms}
    out["share"] = out["rmse"] / rms if rms else math.inf
    told, truth = (np.asarray(part[name], np.float64) for part in asked[-1])
    if (truth > 0).all():
        out |= {"mape": float(np.abs(told / truth - 1).mean()), "mape_nothing": float(np.abs(rows[name] / truth - 1).mean())}
    return out


def _gaps(name: str, rows: dict[str, np.ndarray], asked: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """How far each answer about a node is off, and how far the truth moved."""
    gap = np.concatenate([np.asarray(told[name], np.float64) - truth[name] for told, truth in asked])
    return gap, np.concatenate([np.asarray(truth[name], np.float64) - rows[name] for _, truth in asked])


def _covered(name: str, rows: dict[str, np.ndarray], asked: list[Any], within: np.ndarray) -> dict[str, float]:
    """The share of (3) over the answers `within` the data's reach, and how many of all they are."""
    gap, change = (part[within] for part in _gaps(name, rows, asked))
    moved = math.sqrt(float((change**2).mean())) if len(change) else 0.0
    return {"rows_covered": float(within.mean())} | ({"covered": math.sqrt(float((gap**2).mean())) / moved} if moved else {})
