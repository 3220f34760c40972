"""Attempts to refute an effect by fitting a closed form anew: placebo, random common cause, stretches of rows.

    placebo              the cause's column shuffled, `TRIES` times: the mean effect is 0 within 3 of its standard errors
    random common cause  a column of noise made a parent of cause and outcome: the effect moves by less than 2 of its standard errors
    stability            the effect in `STRETCHES` stretches of rows as they stand:  sum_k (a_k - a)^2 / (K s^2) ~ chi2_{K-1}          (1)

with s the effect's standard error over refits on rows drawn with replacement. A model that passes is a fit that works; that its graph is
wrong none of them can show. The first two are after the refuters of DoWhy (Sharma & Kiciman 2020). Letters: n rows.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from causal_gen.evaluate.intervals import closed, refit
from causal_gen.evaluate.refute import Check, Rows
from causal_gen.scm.effects import Contrast, refitted_effects
from causal_gen.scm.marginal import Scaling
from causal_gen.scm.mechanism import Column, Line, Monotone
from causal_gen.structure.graph import Dag
from causal_gen.types import Params

TRIES, STRETCHES, UNITS = 20, 4, 500
RANDOM = "a random cause"


def attempts(model: Any, refits: Params | None, key: Any, rows: Rows, cause: str, outcome: str, seed: int = 0) -> list[Check]:
    """Of the total effect of `cause`, going up by one standard deviation, on `outcome`; `refits` as evaluate/intervals.py makes them."""
    if not closed(model) or refits is None or not all(isinstance(mechanism, Monotone) for mechanism in model.mechanisms):
        told = "not made: each would be a training of its own (linear models are fitted anew)"
        return [Check("refits", "placebo, random common cause, stability", told)]
    rng, num = np.random.default_rng(seed), len(rows[cause])
    ones, noise = np.ones((1, num)), jax.jit(model.noise, static_argnums=1)(key, UNITS)
    low = float(np.mean(rows[cause]))
    ends = (low, low + float(np.std(rows[cause])))

    def effects(of: Any, params: Params, units: Any = noise) -> np.ndarray:
        found = refitted_effects(of, Contrast(cause, outcome), params, units, *ends, None, jnp.ones(UNITS, bool))
        return np.asarray(found, np.float64)

    own, error = effects(model, refit(model, rows, ones))[0], float(effects(model, refits).std(ddof=1))
    shuffled = [refit(model, {**rows, cause: rng.permutation(rows[cause])}, ones) for _ in range(TRIES)]
    placebo = effects(model, _stacked(shuffled))
    limit = 3 * placebo.std(ddof=1) / np.sqrt(TRIES) + 1e-6
    text = (
        f"the effect of {cause} on {outcome} is {own:.4g}; with {cause} shuffled {placebo.mean():.2g} +- {placebo.std(ddof=1):.2g} a time"
    )
    found = [Check("refits", "placebo", text, bool(abs(placebo.mean()) <= limit))]
    wider = with_random(model, cause, outcome)
    again = refit(wider, {**rows, RANDOM: rng.standard_normal(num).astype(np.float32)}, ones)
    moved = effects(wider, again, {**noise, RANDOM: jnp.zeros(UNITS)})[0] - own
    text = f"with a column of noise as parent of both it moves by {moved:+.2g} (its standard error is {error:.2g})"
    found.append(Check("refits", "random common cause", text, bool(abs(moved) <= 2 * error + 1e-6)))
    parts = np.zeros((STRETCHES, num))
    for k, stretch in enumerate(np.array_split(np.arange(num), STRETCHES)):
        parts[k, stretch] = 1
    each = effects(model, refit(model, rows, parts))
    square = float(((each - each.mean()) ** 2).sum() / max(STRETCHES * error**2, 1e-24))
    p = float(stats.chi2.sf(square, STRETCHES - 1)) if error > 1e-9 else 1.0
    return [*found, Check("refits", "stability", f"in {STRETCHES} stretches of rows {', '.join(f'{one:.4g}' for one in each)}", p=p)]


def _stacked(params: list[Params]) -> Params:
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *params)


def with_random(model: Any, cause: str, outcome: str) -> Any:
    """The model with one more root, which is a parent of both."""
    column = Column(RANDOM, Scaling("standard", 0.0, 1.0))
    edges = tuple((parent, child) for parent, child in model.graph.edges)
    graph = Dag((RANDOM, *model.graph.nodes), ((RANDOM, cause), (RANDOM, outcome), *edges))
    mechanisms = [Monotone(column, (), model.mechanisms[0].transform)]
    for one in model.mechanisms:
        if one.column.name in (cause, outcome):
            one = dataclasses.replace(
                one, parents=(column, *one.parents), driven=1, conditioner=Line(1 + sum(p.width for p in one.parents))
            )
        mechanisms.append(one)
    return dataclasses.replace(model, graph=graph, mechanisms=tuple(mechanisms), discrete=(None, *model.discrete))
