"""What every model of every family is: a small set of pure functions over one pytree of parameters.

A model is a frozen, hashable dataclass that closes over Linen modules; it can be a static argument of jit. Members that do
not apply to a family are None. Letters: b batch.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import jax

from causal_gen.scm.intervention import Acts, Intervention, Span
from causal_gen.structure.graph import Dag
from causal_gen.types import Array, Batch, Key, Noise, Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Aux:
    """What a loss reports: `terms`, each [b] and unweighted, and `stats` for `update_state` (summed over devices)."""

    terms: dict[str, Array]
    stats: Any = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prediction:
    """A teacher-forced conditional: logits, or moments (mean, scale). The rest is filled only for captured layers."""

    logits: Any = None
    moments: Any = None
    attention: Any = None
    hidden: Any = None


@dataclasses.dataclass(frozen=True)
class Group:
    """How training treats the parameters whose path matches: learning-rate scale, sign, every k steps, frozen."""

    scale: float = 1.0
    sign: int = 1
    every: int = 1
    frozen: bool = False


@runtime_checkable
class Trainable(Protocol):
    """What training asks of a model, which every family answers."""

    @property
    def graph(self) -> Dag: ...
    @property
    def context(self) -> tuple[str, ...]: ...
    @property
    def needs(self) -> tuple[str, ...]: ...
    @property
    def batch_coupled(self) -> bool: ...

    def init(self, key: Key) -> Params: ...
    def loss(self, params: Params, key: Key, batch: Batch, *, step: Array, train: bool) -> tuple[Array, Aux]: ...
    def update_state(self, params: Params, stats: Any) -> Any: ...
    def groups(self) -> Mapping[str, Group]: ...


@runtime_checkable
class Model(Trainable, Protocol):
    """The fixed interface of design.md; the argument `do` is an Intervention, its canonical form, or None.

    Some have more: `spans`, nodes that are sequences, acted upon by position; `edges`, the (parent, child) pairs whose child reads its
    parents by `scm.intervention.read_by`, so that an intervention may name them; `check_evidence`, `check_noise` and `check_acts`.
    """

    @property
    def actable(self) -> tuple[str, ...]: ...  # the nodes that an intervention may name
    @property
    def likelihood(self) -> Literal["exact", "bound"] | None: ...

    def conditionals(self, params: Params, batch: Batch, query: Any = None) -> Mapping[str, Prediction]: ...
    def noise(self, key: Key, num: int, context: Batch | None = None) -> Noise: ...
    def predict(
        self, params: Params, noise: Noise, context: Batch | None = None, do: Intervention | Acts | None = None
    ) -> dict[str, Array]: ...
    def abduct(self, params: Params, key: Key, batch: Batch) -> Noise: ...
    def descendants(self, noise: Noise, do: Intervention | Acts | None) -> dict[str, Array]: ...
    def log_prob(self, params: Params, key: Key, batch: Batch, query: Any = None) -> Array: ...


class OneSequence:
    """What a model says whose one node is a sequence: `config.tokens` names it, of `length` tokens out of `vocabulary`."""

    if TYPE_CHECKING:

        @property
        def config(self) -> Any: ...
        @property
        def length(self) -> int: ...
        @property
        def vocabulary(self) -> int: ...

    @functools.cached_property
    def graph(self) -> Dag:
        """One array-valued node; its inner graph is who sees whom."""
        return Dag((self.config.tokens,))

    @property
    def actable(self) -> tuple[str, ...]:
        """Interventions name the tokens, by position."""
        return (self.config.tokens,)

    @property
    def needs(self) -> tuple[str, ...]:
        """Abduction reads the tokens."""
        return (self.config.tokens,)

    @property
    def spans(self) -> dict[str, Span]:
        """The node is a sequence."""
        return {self.config.tokens: Span(self.length, self.vocabulary)}


def no_state(params: Params, stats: Any) -> Any:
    """`update_state` of a model without state: there is nothing to update."""
    del params, stats
    return None


def one_group() -> dict[str, Group]:
    """`groups` of a model that is trained as a whole."""
    return {".*": Group()}
