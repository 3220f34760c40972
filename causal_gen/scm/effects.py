"""Effects of a cause on an outcome in any model, of a unit and on average, with the same noise in all worlds.

With Y(x) the outcome under do(X = x), M(x) all that lies between under do(X = x), and Y(x, m) the outcome with both set:

    total       TE  = Y(x1) - Y(x0)                                                                           (1)
    direct      NDE = Y(x1, M(x0)) - Y(x0)                  what is left when everything between stays natural     (2)
    indirect    NIE = Y(x0, M(x1)) - Y(x0)                  what comes through it alone                             (3)
    controlled  CDE = Y(x1, m) - Y(x0, m)                   for an m of the asker's own                            (4)
    path        Y's value when, from X on, only the edges of the paths given hand on what x1 brings about, less Y(x0)  (5)

TE = NDE + NIE where cause and what lies between do not interact; always TE(x0, x1) = NDE(x0, x1) - NIE(x1, x0). In (5) a node that no
given path enters is natural under x0; edge by edge: v_X = x1, v_c = c under do(X = x0) with each given edge p -> c reading v_p. Every
world is one `predict` from the same noise, so that what the worlds share cancels: an average over n units has the standard error of the
difference's mean, not of the levels'. On noise abducted from given rows the same functions are the effects on these rows. An average over
the units whose natural values fulfil a condition is the CATE where the condition is on covariates, and the effect on the treated where it
is on the cause. Sources: Pearl, Direct and indirect effects, UAI 2001; (5) Avin, Shpitser & Pearl, IJCAI 2005. Letters: b units, r sets of
parameters.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.scm.intervention import Intervention, acts_on, do, edge_name
from causal_gen.structure.graph import Dag
from causal_gen.types import Array, Batch, Bool, Float, InterventionError, Noise, Params, UserError

KINDS = ("total", "direct", "indirect", "controlled", "path")
LEAST = 30  # units that fulfil a condition, below which an average over them is refused
_SIGNS = {">=": operator.ge, "<=": operator.le, "!=": operator.ne, ">": operator.gt, "<": operator.lt, "=": operator.eq}


@dataclasses.dataclass(frozen=True)
class Contrast:
    """What is asked: an effect (1-5) of `cause` going from one value to another, on `outcome`.

    `paths` are those of (5), each from cause to outcome; `held` the nodes of (4). With `event` the outcome is whether it takes that value.
    """

    cause: str
    outcome: str
    kind: str = "total"
    paths: tuple[tuple[str, ...], ...] = ()
    held: tuple[str, ...] = ()
    event: float | None = None

    def check(self, model: Any) -> None:
        """Raises `UserError` for what this model cannot be asked."""
        graph: Dag = model.graph
        actable = [name for name in model.actable if name not in getattr(model, "spans", {})]
        for what, name in (("cause", self.cause), *(("hold", name) for name in self.held)):
            if name not in actable:
                raise InterventionError(f"effect: {what} {name!r} is no factor that can be set; they are {', '.join(actable)}")
        if self.outcome not in graph.nodes or self.outcome == self.cause:
            others = ", ".join(name for name in graph.nodes if name != self.cause)
            raise UserError(f"effect: outcome {self.outcome!r} is no other node of the graph; give one of {others}")
        if self.kind not in KINDS:
            raise UserError(f"effect: unknown kind {self.kind!r}; known are {', '.join(KINDS)}")
        if (self.kind == "path") != bool(self.paths) or (self.kind == "controlled") != bool(self.held):
            raise UserError(f"effect: kind {self.kind!r} and what was given differ: paths go with 'path', held nodes with 'controlled'")
        if self.cause in self.held or self.outcome in self.held:
            raise UserError("effect: cause and outcome cannot be held; hold what lies between")
        between = [name for name in between_of(graph, self.cause, self.outcome) if name not in actable]
        if self.kind in ("direct", "indirect") and between:
            raise InterventionError(
                f"effect: {self.kind} sets what lies between, and {between[0]!r} cannot be set; ask for the total effect"
            )
        edges = [edge_name(*edge) for edge in getattr(model, "edges", ())]
        for path in self.paths:
            if (path[0], path[-1]) != (self.cause, self.outcome):
                raise UserError(f"effect: path {' -> '.join(path)} does not lead from {self.cause} to {self.outcome}")
            for edge in zip(path, path[1:], strict=False):
                if edge not in graph.edges:
                    raise UserError(f"effect: path {' -> '.join(path)}: the graph has no edge {edge_name(*edge)}")
                if edge_name(*edge) not in edges:
                    raise InterventionError(
                        f"effect: this model's mechanisms read no parent apart, {edge_name(*edge)} cannot be acted upon"
                    )


def between_of(graph: Dag, cause: str, outcome: str) -> tuple[str, ...]:
    """The nodes on directed paths from cause to outcome, both left out."""
    inner = graph.descendants(cause) & graph.ancestors(outcome)
    return tuple(name for name in graph.order if name in inner)


@dataclasses.dataclass(frozen=True)
class Condition:
    """`name` compared with `value`, read from text such as "z>0"."""

    name: str
    sign: str
    value: float

    @classmethod
    def parse(cls, text: str, names: Sequence[str], called: Mapping[str, Sequence[str]] | None = None) -> Condition:
        """Raises `UserError` for what is no comparison of one of `names` with a number, or with a value as it is `called` there."""
        found = re.fullmatch(r"\s*(\w+)\s*(>=|<=|!=|>|<|==?)\s*(.*\S)\s*", text)
        try:
            if found and found[1] in names:
                values = list((called or {}).get(found[1], ()))
                number = float(values.index(found[3])) if found[3] in values else float(found[3])
                return cls(found[1], "=" if found[2] == "==" else found[2], number)
        except ValueError:
            pass
        raise UserError(f"condition {text!r}: write NAME>NUMBER, with one of > >= < <= = != and NAME one of {', '.join(names)}")

    def holds(self, values: Batch) -> Bool[Array, "b"]:
        """Of which units it holds."""
        return _SIGNS[self.sign](jnp.asarray(values[self.name]), self.value)

    def __str__(self) -> str:
        return f"{self.name}{self.sign}{self.value:g}"


@functools.partial(jax.jit, static_argnums=(0, 1))
def unit_effects(
    model: Any,
    contrast: Contrast,
    params: Params,
    noise: Noise,
    low: Any,
    high: Any,
    held: Mapping[str, Any] | None = None,
    context: Batch | None = None,
) -> Float[Array, "b"]:
    """The effect on every unit, a row of noise, of the cause going from `low` to `high`, eqs. (1-5); `held` has the values of (4)."""
    num = jax.tree.leaves(noise)[0].shape[0]

    def world(*acts: Intervention) -> dict[str, Array]:
        joint = functools.reduce(operator.and_, acts)
        return model.predict(params, noise, context, acts_on(model, joint, num))

    def outcome(*acts: Intervention) -> Array:
        value = world(*acts)[contrast.outcome]
        return (value == contrast.event if contrast.event is not None else value).astype(jnp.float32)

    at, to = do(**{contrast.cause: low}), do(**{contrast.cause: high})
    if contrast.kind == "controlled":
        fixed = do(**dict(held or {}))
        return outcome(to, fixed) - outcome(at, fixed)
    if contrast.kind == "path":
        return _along(contrast, model.graph, world, outcome, at, high) - outcome(at)
    if contrast.kind == "total":
        return outcome(to) - outcome(at)
    inner = between_of(model.graph, contrast.cause, contrast.outcome)
    one, other = (to, at) if contrast.kind == "direct" else (at, to)
    natural = world(other)
    kept = [do(**{name: natural[name] for name in inner})] if inner else []
    return outcome(one, *kept) - outcome(at)


def _along(contrast: Contrast, graph: Dag, world: Any, outcome: Any, at: Intervention, high: Any) -> Array:
    """The outcome's value of eq. (5)."""
    edges = {edge for path in contrast.paths for edge in zip(path, path[1:], strict=False)}
    handed: dict[str, Any] = {contrast.cause: high}
    for node in graph.order:
        into = [do(edge=(parent, node), **{parent: handed[parent]}) for parent, child in sorted(edges) if child == node]
        if node == contrast.outcome:
            return outcome(at, *into)
        if into:
            handed[node] = world(at, *into)[node]
    raise AssertionError("the outcome is a node of the graph")


@functools.partial(jax.jit, static_argnums=(0, 1))
def refitted_effects(
    model: Any,
    contrast: Contrast,
    params: Params,
    noise: Noise,
    low: Any,
    high: Any,
    held: Mapping[str, Any] | None,
    kept: Bool[Array, "b"],
) -> Float[Array, "r"]:
    """The average over the units `kept`, for each of r sets of parameters stacked along the first axis of `params`."""

    def one(own: Params) -> Array:
        return jnp.where(kept, unit_effects(model, contrast, own, noise, low, high, held), 0.0).sum() / kept.sum()

    return jax.lax.map(one, params)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """An average over `units`, and its standard error from their number alone."""

    value: float
    error: float
    units: int


def average(effects: Float[Array, "b"], kept: Bool[Array, "b"] | None = None) -> Estimate:
    """Over all units, or those `kept`. Raises `UserError` where a condition leaves fewer than `LEAST`."""
    found = np.asarray(effects, np.float64)
    if kept is not None:
        found = found[np.asarray(kept)]
        if len(found) < LEAST:
            raise UserError(
                f"effect: {len(found)} of {len(kept)} units fulfil the condition, at least {LEAST} are needed; draw more, or widen it"
            )
    return Estimate(float(found.mean()), float(found.std(ddof=1) / np.sqrt(len(found))) if len(found) > 1 else float("inf"), len(found))


def fulfil(conditions: Sequence[Condition], natural: Batch, num: int) -> Bool[Array, "b"]:
    """The units for which all `conditions` hold in their `natural` values."""
    return functools.reduce(jnp.logical_and, (condition.holds(natural) for condition in conditions), jnp.ones((num,), bool))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _causation(model: Any, cause: str, outcome: str, params: Params, noise: Noise, low: Any, high: Any, event: Any) -> dict[str, Array]:
    num = jax.tree.leaves(noise)[0].shape[0]
    now, without, with_ = (
        model.predict(params, noise, None, acts_on(model, act, num)) for act in (None, do(**{cause: low}), do(**{cause: high}))
    )
    hit, missed = with_[outcome] == event, without[outcome] != event
    taken, spared = (now[cause] == high) & (now[outcome] == event), (now[cause] == low) & (now[outcome] != event)
    rows = {"pns": (hit & missed, jnp.ones((num,), bool)), "pn": (missed, taken), "ps": (hit, spared)}
    rows |= {"with": (hit, jnp.ones((num,), bool)), "without": (~missed, jnp.ones((num,), bool))}
    return {name: jnp.stack(pair) for name, pair in rows.items()}


def causation(
    model: Any, params: Params, noise: Noise, cause: str, outcome: str, low: float, high: float, event: float
) -> dict[str, Estimate]:
    """Probabilities of necessity, of sufficiency and of both in the fitted model, and P(event) `with` and `without` the cause set.

    They rest on the model's noise: for discrete nodes on the Gumbel-max choice.
    """
    found = _causation(model, cause, outcome, params, noise, low, high, event)
    out = {}
    for name, (happened, counted) in jax.device_get(found).items():
        kept = happened[counted].astype(np.float64)
        out[name] = (
            Estimate(float(kept.mean()), float(np.sqrt(kept.var() / len(kept))), len(kept))
            if len(kept)
            else Estimate(float("nan"), float("inf"), 0)
        )
    return out
