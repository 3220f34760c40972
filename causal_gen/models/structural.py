"""A structural causal model: a graph over the columns of a table, and a mechanism for every node.

    x_i = f_i(x_pa(i), e_i),   the e_i independent, each of a fixed law                                          (1)
    log p(x) = sum_i log p(x_i | x_pa(i))                                                                        (2)

Noise is {node: what its mechanism draws}. `predict` goes through the graph's order; a node that is acted upon hands on what it was set to.
Mechanisms that have a closed form are fitted to all training rows before the first step and stay as they are (`groups`, `fit`); the others
are trained by the sum of their losses, which in (2) do not share anything. What is exact of each is exact of the whole. Source: Pearl 2009,
sec. 7.1; neural mechanisms Pawlowski et al. 2020. Letters: b batch.
"""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from causal_gen.models import base
from causal_gen.scm.intervention import Acts, Edge, Intervention, acts_on, moved, read_by
from causal_gen.scm.mechanism import Mechanism
from causal_gen.structure.graph import Dag
from causal_gen.types import Array, Batch, Bool, Float, InterventionError, Key, Noise, Params, UserError


@dataclasses.dataclass(frozen=True)
class Structural:
    """The model of eqs. (1, 2); see `models/base.py` for the interface. `mechanisms` are in the order of the graph; `discrete` says of
    each node how many values it takes (None: a real number)."""

    graph: Dag
    mechanisms: tuple[Mechanism, ...]
    discrete: tuple[int | None, ...]

    context: tuple[str, ...] = dataclasses.field(default=(), init=False)
    batch_coupled: bool = dataclasses.field(default=False, init=False)

    @property
    def likelihood(self) -> Literal["exact", "bound"] | None:
        """That of the weakest mechanism."""
        if any(mechanism.log_prob is None for mechanism in self.mechanisms):
            return None
        return "exact" if self.exact else "bound"

    @property
    def exact(self) -> bool:
        """Whether abduction is exact for every node."""
        return all(mechanism.exact for mechanism in self.mechanisms)

    @property
    def actable(self) -> tuple[str, ...]:
        """Every node."""
        return self.graph.nodes

    @property
    def edges(self) -> tuple[Edge, ...]:
        """Every edge: a mechanism can be told another value of one parent."""
        return self.graph.edges

    @property
    def needs(self) -> tuple[str, ...]:
        """Every node: a value that is missing would have to be integrated out."""
        return self.graph.nodes

    def mechanism(self, name: str) -> Mechanism:
        """That of a node."""
        return next(mechanism for mechanism in self.mechanisms if name in mechanism.nodes)

    def _key(self, mechanism: Mechanism) -> str:
        return "+".join(mechanism.nodes)

    def _split(self, mechanism: Mechanism, batch: Batch) -> tuple[Batch, Batch]:
        """The values of a mechanism's own nodes and of its parents."""
        return {name: batch[name] for name in mechanism.nodes}, {column.name: batch[column.name] for column in mechanism.parents}

    def _num(self, batch: Batch) -> int:
        return jnp.shape(batch[self.graph.nodes[0]])[0]

    # ---- training ------------------------------------------------------------------------------------------------------------

    def init(self, key: Key) -> Params:
        """Fresh parameters, {node: those of its mechanism}."""
        keys = jax.random.split(key, len(self.mechanisms))
        return {self._key(mechanism): mechanism.init(own) for mechanism, own in zip(self.mechanisms, keys, strict=True)}

    def fit(self, params: Params, rows: Batch) -> Params:
        """`params` with those of every mechanism that has a closed form taken from all of `rows` [n]."""
        found = {}
        for mechanism in self.mechanisms:
            if getattr(mechanism, "closed_form", False):
                found[self._key(mechanism)] = mechanism.fit(*self._split(mechanism, rows))  # pyright: ignore[reportAttributeAccessIssue]
        return {**params, **found}

    def groups(self) -> dict[str, base.Group]:
        """What was fitted in closed form is frozen."""
        fitted = [re.escape(self._key(mechanism)) for mechanism in self.mechanisms if getattr(mechanism, "closed_form", False)]
        frozen = {f"^({'|'.join(fitted)})/": base.Group(frozen=True)} if fitted else {}
        return {**frozen, ".*": base.Group()}

    def remarks(self, rows: int) -> list[str]:
        """A line for every mechanism that has more parameters than there are training rows."""
        shapes, lines = jax.eval_shape(self.init, jax.random.key(0)), []
        for name, found in shapes.items():
            count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(found))
            if count > rows:
                way = "expect it to learn rows by heart; give more rows, or a smaller mechanism (linear, narrower widths)"
                lines.append(f"warning: the mechanism of {name!r} has {count:,} parameters, and there are {rows:,} training rows: {way}")
        return lines

    def loss(self, params: Params, key: Key, batch: Batch, *, step: Any, train: bool) -> tuple[Float[Array, "b"], base.Aux]:
        """The sum of the mechanisms' losses; a term a node where there are several terms."""
        total, terms = jnp.zeros((self._num(batch),)), {}
        for i, mechanism in enumerate(self.mechanisms):
            own = jax.random.fold_in(key, i)
            value, found = mechanism.loss(params[self._key(mechanism)], own, *self._split(mechanism, batch), step=step, train=train)
            total = total + value
            terms |= {f"{name}_{self._key(mechanism)}": term for name, term in found.items()}
        return total, base.Aux(terms)

    def update_state(self, params: Params, stats: Any) -> Any:
        """There is no state."""
        return base.no_state(params, stats)

    def log_prob(self, params: Params, key: Key, batch: Batch, query: Any = None) -> Float[Array, "b"]:
        """Eq. (2) in nats, a density in the nodes' own units; a bound where a mechanism has no more (`likelihood`)."""
        del query
        total = jnp.zeros((self._num(batch),))
        for i, mechanism in enumerate(self.mechanisms):
            own = jax.random.fold_in(key, i)
            total = total + mechanism.log_prob(params[self._key(mechanism)], own, *self._split(mechanism, batch))
        return total

    def conditionals(self, params: Params, batch: Batch, query: Any = None) -> dict[str, base.Prediction]:
        """Each node's law given its parents' values: moments (mean [b], sd [b]) in own units, or logits [b, v]."""
        del query
        found, num = {}, self._num(batch)
        for mechanism in self.mechanisms:
            value, above = self._split(mechanism, batch)
            if len(mechanism.nodes) > 1:  # within a group too a node is told its parents, and does not look at itself
                above = {**value, **above}
            told = mechanism.conditional(params[self._key(mechanism)], above, num)
            for name, one in told.items():
                found[name] = base.Prediction(moments=one) if isinstance(one, tuple) else base.Prediction(logits=one)
        return {name: found[name] for name in self.graph.nodes}

    # ---- the causal interface ------------------------------------------------------------------------------------------------

    def noise(self, key: Key, num: int, context: Batch | None = None) -> Noise:
        """A draw of every mechanism's noise."""
        del context
        keys = jax.random.split(key, len(self.mechanisms))
        return {self._key(mechanism): mechanism.noise(own, num) for mechanism, own in zip(self.mechanisms, keys, strict=True)}

    def predict(
        self, params: Params, noise: Noise, context: Batch | None = None, do: Intervention | Acts | None = None
    ) -> dict[str, Float[Array, "b"] | Any]:
        """The values that the noise gives under `do`, eq. (1)."""
        del context
        acts, found = acts_on(self, do, jax.tree.leaves(noise)[0].shape[0]), {}
        for mechanism in self.mechanisms:
            name = self._key(mechanism)
            parents = read_by(name, {column.name: found[column.name] for column in mechanism.parents}, acts)
            found |= mechanism.predict(params[name], noise[name], parents, acts)
        return {name: found[name] for name in self.graph.nodes}

    def abduct(self, params: Params, key: Key, batch: Batch) -> Noise:
        """The noise behind the values of every node; a draw of its posterior where a mechanism is not exact, or discrete."""
        keys = jax.random.split(key, len(self.mechanisms))
        return {
            self._key(mechanism): mechanism.abduct(params[self._key(mechanism)], own, *self._split(mechanism, batch))
            for mechanism, own in zip(self.mechanisms, keys, strict=True)
        }

    def check_evidence(self, evidence: Batch) -> None:
        """Raises `UserError` for a value that is not finite, or none of a discrete node's, with its row and column, and where a mechanism
        cannot abduct."""
        for name, values in zip(self.graph.nodes, self.discrete, strict=True):
            if self.mechanism(name).abduct is None:
                raise UserError(
                    f"model: the mechanism of {name!r} cannot abduct, so that nothing counterfactual can be asked; sample instead"
                )
            value = np.asarray(evidence[name]) if getattr(evidence[name], "is_fully_addressable", True) else np.zeros(1)
            good = np.isfinite(value) if values is None else (value >= 0) & (value < values) & (value == np.round(value))
            if not good.all():
                row = int(np.flatnonzero(~good)[0])
                known = "not finite" if values is None else f"none of its values 0..{values - 1}"
                raise UserError(f"evidence: row {row + 1}, column {name!r}: {value[row]} is {known}; mend it, or leave the row out")

    def check_noise(self, evidence: Batch, noise: Noise) -> None:
        """Raises `UserError` for a row that the model holds impossible: no noise gives it."""
        for mechanism in self.mechanisms:
            for leaf in jax.tree.leaves(noise[self._key(mechanism)]):
                if not getattr(leaf, "is_fully_addressable", True):
                    continue
                bad = ~np.isfinite(np.asarray(leaf)).reshape(len(leaf), -1).all(-1)
                if bad.any():
                    row = int(np.flatnonzero(bad)[0])
                    value = ", ".join(f"{name}={np.asarray(evidence[name])[row]:g}" for name in mechanism.nodes)
                    raise UserError(
                        f"evidence: row {row + 1}: {value} has probability zero given its parents in this model; leave the row out"
                    )

    def check_acts(self, acts: Acts) -> None:
        """Raises `InterventionError` where a discrete node would be set to what is none of its values."""
        sizes = dict(zip(self.graph.nodes, self.discrete, strict=True))
        for name, act in acts.items():
            values = sizes.get(name.partition("->")[0])
            if values is None or isinstance(act.mask, Tracer) or not np.any(act.mask) or act.kind == "bernoulli":
                continue
            if act.kind != "do":
                raise InterventionError(f"intervention: {act.kind}({name}=...): its values are names, not amounts; only do sets them")
            asked = np.asarray(act.args[0])[np.asarray(act.mask)]
            wrong = asked[(asked != np.round(asked)) | (asked < 0) | (asked >= values)]
            if len(wrong):
                raise InterventionError(f"intervention: do({name}={wrong[0]:g}): its values are the whole numbers 0..{values - 1}")

    def descendants(self, noise: Noise, do: Intervention | Acts | None) -> dict[str, Bool[Array, "b"]]:
        """What an intervention may move: the nodes and children acted upon and their descendants."""
        return moved(self.graph, acts_on(self, do, jax.tree.leaves(noise)[0].shape[0]))
