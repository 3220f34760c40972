"""Attempts to refute a fitted model: what its own laws, held-out rows, refits and an interventional environment say against it.

    axioms         null intervention gives the rows back; what is set takes its value; do, then undo; what is not downstream stays exactly
    observations   the noise of held-out rows has its law, and is independent between nodes                                (1)
    refits         placebo, the cause shuffled: no effect; a random common cause: the same effect; four stretches of rows: one effect
    environment    rows under an intervention that training never saw: of every node that was not set, mean, spread and slope on what was,
                   against what the model says of these interventions:   z = (seen - told) / sqrt(s_seen^2/m + s_told^2/N + s_fit^2)  (2)

s_fit is the spread over refits, so that a model is not accused of having been fitted to few rows; where it is trained and there are no
refits, `TOLERANCE` standard deviations are granted in its place. All tests with a p-value share one level `ALPHA` by Holm's method, which
keeps the chance of any false alarm below it.

What no row of observations can refute is said: in a linear-Gaussian model an edge whose ends have the same other parents can be turned
round, and every law stays what it was (Verma & Pearl 1990); a hidden common cause along an edge can be traded for its slope. Without an
environment, or with one in which nothing moves that could have moved, the verdict is that these data cannot tell. Letters: m rows, N units
drawn, r refits.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from causal_gen.evaluate.intervals import closed
from causal_gen.scm import counterfactual as asking
from causal_gen.scm.intervention import acts_on, do
from causal_gen.structure.graph import Dag
from causal_gen.types import Key, Params, UserError

ALPHA = 0.01
TOLERANCE = 0.05
NOTICED = 3.0  # standard errors by which something has to move before an environment can tell anything
UNITS = 4_000
DISTRUST, OPEN, STANDS = "do not trust this", "these data cannot tell", "not refuted"
Rows = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Check:
    """One attempt. `passed` is None where it could not be made; with a p-value it is decided together with all others."""

    kind: str
    name: str
    detail: str
    passed: bool | None = None
    p: float | None = None


@dataclasses.dataclass(frozen=True)
class Scorecard:
    """All attempts and what follows from them; `open` says what these data cannot tell."""

    verdict: str
    checks: tuple[Check, ...]
    open: tuple[str, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.passed is False)


def holm(ps: Sequence[float], alpha: float) -> list[bool]:
    """Which hypotheses are rejected at a family-wise level `alpha` (Holm 1979)."""
    rejected, order = [False] * len(ps), np.argsort(ps)
    for rank, i in enumerate(order):
        if ps[i] > alpha / (len(ps) - rank):
            break
        rejected[i] = True
    return rejected


def judged(checks: Sequence[Check], unknown: Sequence[str], informative: bool, alpha: float = ALPHA) -> Scorecard:
    """The verdict: distrust where anything failed; else that it stands, where an environment could have told; else that nothing is told."""
    tested = [check for check in checks if check.p is not None]
    rejected = dict(zip(map(id, tested), holm([float(check.p or 0.0) for check in tested], alpha), strict=True))
    decided = tuple(dataclasses.replace(check, passed=not rejected[id(check)]) if check.p is not None else check for check in checks)
    if any(check.passed is False for check in decided):
        return Scorecard(DISTRUST, decided, tuple(unknown))
    return Scorecard(STANDS if informative else OPEN, decided, tuple(unknown))


# ---- axioms ----------------------------------------------------------------------------------------------------------------


def axioms(model: Any, params: Params, key: Key, rows: Rows, bound: float = 1e-3) -> list[Check]:
    """The laws of a counterfactual on given rows; distances in standard deviations of the node, shares of rows for discrete ones."""
    if not getattr(model, "exact", True):
        bound *= 100  # of abduction up to a sampler's steps
    noise = asking.abduct(model, params, key, rows)
    own = jax.device_get(asking.predict(model, params, noise))
    found = [_near("composition", "null intervention", own, rows, bound)]
    takes, stays, back = [], [], []
    for cause in (name for name in model.actable if np.ndim(rows[name]) == 1):
        value = np.roll(np.asarray(rows[cause]), 1)
        act = do(**{cause: jnp.asarray(value, jnp.float32)})
        told = jax.device_get(asking.predict(model, params, noise, do=act))
        takes.append(bool((told[cause] == value).all()))
        below = model.graph.descendants(cause) | {cause}
        stays += [bool((told[name] == own[name]).all()) for name in own if name not in below]
        if all(np.issubdtype(told[name].dtype, np.floating) for name in below - {cause}):
            again = asking.abduct(model, params, key, told)
            back.append(
                (cause, jax.device_get(asking.predict(model, params, again, do=do(**{cause: jnp.asarray(rows[cause], jnp.float32)}))))
            )
    found.append(Check("axioms", "effectiveness", f"{sum(takes)} of {len(takes)} nodes take the value they are set to", all(takes)))
    found.append(
        Check(
            "axioms",
            "reach",
            f"{sum(stays)} of {len(stays)} pairs of a node set and one not downstream of it: unchanged, exactly",
            all(stays),
        )
    )
    if not back:
        return [*found, Check("axioms", "reversibility", "not checked: discrete nodes draw their noise anew")]
    worst = max(
        (_near("reversibility", f"do({cause}), then undone", told, rows, 10 * bound) for cause, told in back), key=lambda c: not c.passed
    )
    return [*found, worst]


def _near(name: str, what: str, told: Rows, rows: Rows, bound: float) -> Check:
    gaps = {}
    for node in (node for node in told if node in rows):
        if np.issubdtype(np.asarray(rows[node]).dtype, np.floating):
            gaps[node] = float(np.abs(told[node] - rows[node]).max() / max(float(np.std(rows[node])), 1e-12))
        else:
            gaps[node] = float((told[node] != rows[node]).mean())
    worst = max(gaps, key=lambda node: gaps[node])
    return Check("axioms", name, f"{what}: off by at most {gaps[worst]:.2g} ({worst}), bound {bound:g}", gaps[worst] <= bound)


# ---- observations ----------------------------------------------------------------------------------------------------------


def observations(model: Any, params: Params, key: Key, rows: Rows, fitted: int) -> list[Check]:
    """(1) for the nodes whose noise is one standard normal number; `fitted` is how many rows the model was fitted to."""
    noise, single = jax.device_get(asking.abduct(model, params, key, rows)), {}
    for name, value in noise.items() if isinstance(noise, Mapping) else ():
        parts = {name: value} if hasattr(value, "ndim") else value  # a mechanism of several nodes has an entry for each
        single |= {node: np.asarray(e, np.float64) for node, e in parts.items() if getattr(e, "ndim", 0) == 1 and _normal(model, node)}
    if not single or not getattr(model, "exact", True):
        return [Check("observations", "noise", "not checked: no node has noise of one normal number that is abducted exactly")]
    num = len(next(iter(single.values())))
    granted = 0.0 if closed(model) else TOLERANCE
    error, share, found = np.sqrt(1 / num + 1 / fitted), num * fitted / (num + fitted), []
    for name, e in single.items():
        gap = float(stats.kstest(e, "norm").statistic)
        over = max(gap - granted * stats.norm.pdf(0), 0.0)  # the gap that a mean off by `granted` makes
        p = float(stats.kstwobign.sf(over * np.sqrt(share)))
        found.append(Check("observations", f"law of {name}'s noise", f"largest gap to the normal {gap:.3f}", p=p))
    names = list(single)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            r = float(np.corrcoef(single[a], single[b])[0, 1])
            z = np.arctanh(min(max(abs(r) - granted, 0.0), 0.999999)) / error
            found.append(Check("observations", f"noise of {a} and {b}", f"correlation {r:+.3f}", p=float(2 * stats.norm.sf(z))))
    return found


def _normal(model: Any, name: str) -> bool:
    return not dict(zip(model.graph.nodes, getattr(model, "discrete", ()), strict=False)).get(name)


def equivalents(graph: Dag) -> tuple[tuple[str, str], ...]:
    """The edges that can be turned round without changing which independences hold: both ends have the same other parents."""
    return tuple((a, b) for a, b in graph.edges if set(graph.parents(b)) - {a} == set(graph.parents(a)))


def unknown(model: Any) -> list[str]:
    """What observations cannot tell of this model, a line each."""
    linear = closed(model)
    turned = ", ".join(f"{b} -> {a}" for a, b in equivalents(model.graph))
    lines = []
    if turned:
        rest = (
            "the other model fits equally well"
            if linear
            else "the same independences hold; only the form assumed of the mechanisms speaks against it"
        )
        lines.append(f"an edge turned round ({turned}, each by itself): {rest}")
    if model.graph.edges:
        lines.append("a common cause of two joined nodes that is not in the data: its share is in the slope between them")
    return lines


# ---- an interventional environment -----------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=0)
def _told(model: Any, params: Params, noise: Any, acts: Any) -> dict[str, jax.Array]:
    """What each of r sets of parameters says, {node: [r, N]}."""
    return jax.lax.map(
        lambda own: {name: value.astype(jnp.float32) for name, value in model.predict(own, noise, None, acts).items()}, params
    )


def environment(
    model: Any, params: Params, refits: Params | None, key: Key, seen: Rows, acted: Sequence[str], before: Rows
) -> tuple[list[Check], bool]:
    """(2) for `seen` [m], rows in which the nodes `acted` were set to what stands there; `before` are rows without an intervention.

    `refits` are parameters stacked [r], or None. The second answer is whether anything moved, or should have, so that it could tell.

    Raises `UserError` where a column of the graph is missing in `seen`.
    """
    lacking = [name for name in model.graph.nodes if name not in seen]
    if lacking:
        raise UserError(f"environment: column {lacking[0]!r} is missing; the graph's nodes are {', '.join(model.graph.nodes)}")
    num = len(seen[acted[0]])
    units = max(UNITS, num)
    values = {name: jnp.asarray(np.resize(np.asarray(seen[name], np.float32), units)) for name in acted}
    noise = jax.jit(model.noise, static_argnums=1)(key, units)
    acts = acts_on(model, do(**values), units)
    told = _told(model, jax.tree.map(lambda leaf: leaf[None], params), noise, acts)
    anew = None if refits is None else jax.device_get(_told(model, refits, noise, acts))
    found, moved = [], False
    for name in (name for name in model.graph.nodes if name not in acted):
        for label, pick in _readings(seen[name]):
            checks, noticed = _compared(
                f"{name}{label}", pick, np.asarray(told[name])[0], seen, acted, name, before, None if anew is None else anew[name]
            )
            found += checks
            moved |= noticed
    return found, moved


def _readings(column: np.ndarray) -> list[tuple[str, Any]]:
    """A node as numbers whose means are compared: itself, or for whole numbers whether it is each value but the first."""
    if np.issubdtype(column.dtype, np.floating):
        return [("", lambda x: np.asarray(x, np.float64))]
    return [(f" = {value}", lambda x, value=value: (np.asarray(x) == value).astype(np.float64)) for value in np.unique(column)[1:]]


def _compared(
    label: str, pick: Any, told: np.ndarray, seen: Rows, acted: Sequence[str], name: str, before: Rows, anew: np.ndarray | None
) -> tuple[list[Check], bool]:
    real, y, x = np.issubdtype(seen[name].dtype, np.floating), pick(seen[name]), pick(told)
    levers = [other for other in acted if len(np.unique(seen[other])) > 1]
    repeated = {other: np.resize(np.asarray(seen[other], np.float64), len(x)) for other in levers}
    again = None if anew is None else [pick(row) for row in anew]
    statistics: list[tuple[str, Any]] = [("mean", lambda v, _: _mean(v))]
    if real:
        statistics.append(("log spread", lambda v, _: _log_spread(v)))
    statistics += [(f"slope on {other}", lambda v, at, other=other: _slope(v, at[other])) for other in levers]
    found, moved, scale = [], False, max(float(np.std(pick(before[name]))), 1e-12)
    for what, measure in statistics:
        (a, error_a), (b, error_b) = measure(y, {other: np.asarray(seen[other], np.float64) for other in levers}), measure(x, repeated)
        fit = float(np.std([measure(row, repeated)[0] for row in again], ddof=1)) if again is not None else 0.0
        granted = 0.0 if again is not None else TOLERANCE * (scale if what == "mean" else 1.0)
        error = max(float(np.sqrt(error_a**2 + error_b**2 + fit**2)), 1e-12)
        z = max(abs(a - b) - granted, 0.0) / error
        found.append(Check("environment", f"{label}: {what}", f"seen {a:.4g}, told {b:.4g}, z = {z:.2f}", p=float(2 * stats.norm.sf(z))))
        natural = pick(before[name])
        rest = {"mean": natural.mean(), "log spread": _log_spread(natural)[0]}.get(what, 0.0)
        moved |= bool(max(abs(a - rest), abs(b - rest)) > NOTICED * error)
    return found, moved


def _mean(v: np.ndarray) -> tuple[float, float]:
    return float(v.mean()), float(v.std(ddof=1) / np.sqrt(len(v)))


def _log_spread(v: np.ndarray) -> tuple[float, float]:
    """log standard deviation, and its error by the delta method."""
    gap = v - v.mean()
    variance = max(float((gap**2).mean()), 1e-24)
    return 0.5 * float(np.log(variance)), float(np.sqrt(max(float((gap**4).mean()) / variance**2 - 1, 1e-6) / (4 * len(v))))


def _slope(v: np.ndarray, x: np.ndarray) -> tuple[float, float]:
    """Of the regression line, and its error whatever the noise's spread (White 1980)."""
    gap = x - x.mean()
    slope = float((gap * v).sum() / (gap**2).sum())
    left = v - v.mean() - slope * gap
    return slope, float(np.sqrt(((gap * left) ** 2).sum()) / (gap**2).sum())
