"""Visibilities that vary: from layer to layer, from head to head, by a schedule, or by a gate that is learned.

    per_layer(a, b, ...)      layer i sees by choice i mod n (so that a pattern may repeat)
    per_head(a, b, ...)       head i sees by choice i; as many choices as heads
    soft(a, b, alpha)         weight (1 - alpha) a + alpha b: the causal mask dissolves as alpha goes from 0 to 1        (1)
    learned(gate, node)       weight 1 where logit > 0, else 0; its gradient is that of sigmoid(logit)                   (2)

Sources: (1) Li et al., Conan-embedding-v2 (2025), soft mask; (2) straight-through estimator, Bengio et al. (2013).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from causal_gen.structure.masks import prefix
from causal_gen.structure.visibility import Layer, Side, Visibility, as_weight
from causal_gen.types import Array, ConfigError


def per_layer(*choices: Visibility) -> Visibility:
    """Layer i sees by `choices[i % len(choices)]`; `layer` may be traced, as in a scan over layers.

    Picture: `per_layer(causal(), full()).show(3, layer=1)`

        ###
        ###
        ###
    """
    return PerLayer(choices)


def latents(seen: Visibility, first: int, layers: int) -> Visibility:
    """Perceiver AR: the first of `layers` layers sees by `seen`, the later ones nothing before slot `first` either.

    Picture: `latents(causal(), 2, 3).show(4, layer=1)`

        ....
        ....
        ..#.
        ..##
    """
    return per_layer(*[seen, *[seen & ~prefix(first)] * (layers - 1)])


def per_head(*choices: Visibility) -> Visibility:
    """Head i sees by `choices[i]`.

    Picture: `per_head(causal(), causal() & window(2)).show(4)`

        #...  #...
        ##..  ##..
        ###.  .##.
        ####  ..##
    """
    return PerHead(choices)


def soft(start: Visibility, end: Visibility, alpha: float | str = "alpha") -> Visibility:
    """`start` at alpha 0, `end` at 1, a mixture between, eq. (1); `alpha` is a number, or the query field that holds it (a schedule).

    Picture: `soft(causal(), full(), 0.5).show(4)`

        #555
        ##55
        ###5
        ####
    """
    return Soft(start, end, alpha)


def learned(gate: str = "gate", node: str = "node") -> Visibility:
    """A learned adjacency: query q sees key k where entry node[k] of q's own gate logits is positive, eq. (2).

    `gate` is a vector field [b, tq, n] of the queries, `node` (in 0 .. n-1) an integer field of the keys; other nodes are never seen.
    Noise for a stochastic gate is added to the logits by who makes them. Attention must use `weight`: see `Visibility.gated`.

    Picture: `learned().show(3, gate=([[[1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]]], [[[0.0]] * 3]), node=[0, 1, 1])`

        #..
        .##
        ###
    """
    return Gate(gate, node)


@dataclasses.dataclass(frozen=True)
class PerLayer(Visibility):
    """See `per_layer`."""

    choices: tuple[Visibility, ...]

    def __post_init__(self):
        if not self.choices:
            raise ConfigError("per_layer: no choices; give at least one visibility")
        super().__post_init__()

    @property
    def parts(self) -> tuple[Visibility, ...]:
        return self.choices

    @property
    def layered(self) -> bool:
        return True

    def evaluate(self, q: Side, k: Side, layer: Layer) -> Array:
        """That of its part for `layer`. Raises `ConfigError` where no layer is named."""
        if layer is None:
            raise ConfigError("per_layer: this visibility differs by layer; pass layer=")
        if isinstance(layer, int):
            value = self.choices[layer % len(self.choices)].evaluate(q, k, layer)
            return value if self.hard else as_weight(value)
        # each distinct choice is one branch: 48 layers of two kinds compile as two
        distinct = tuple(dict.fromkeys(self.choices))
        values = [choice.evaluate(q, k, layer) for choice in distinct]
        shape = jnp.broadcast_shapes(*(value.shape for value in values))
        which = jnp.asarray([distinct.index(choice) for choice in self.choices])[layer % len(self.choices)]
        values = [jnp.broadcast_to(value if self.hard else as_weight(value), shape) for value in values]
        return jax.lax.select_n(which, *values)

    def bounds(self, q: Side, k: Side, layer: Layer) -> tuple[Array, Array]:
        if isinstance(layer, int):
            return self.choices[layer % len(self.choices)].bounds(q, k, layer)
        return _envelope(self.choices, q, k, layer)


@dataclasses.dataclass(frozen=True)
class PerHead(Visibility):
    """See `per_head`."""

    choices: tuple[Visibility, ...]

    def __post_init__(self):
        if not self.choices or any(choice.heads > 1 for choice in self.choices):
            raise ConfigError("per_head: each choice is the visibility of one head; give at least one, and none made by per_head")
        super().__post_init__()

    @property
    def parts(self) -> tuple[Visibility, ...]:
        return self.choices

    @property
    def heads(self) -> int:
        return len(self.choices)

    def evaluate(self, q: Side, k: Side, layer: Layer) -> Array:
        distinct = {choice: choice.evaluate(q, k, layer) for choice in dict.fromkeys(self.choices)}
        shape = jnp.broadcast_shapes(*(value.shape for value in distinct.values()))
        values = {choice: jnp.broadcast_to(value if self.hard else as_weight(value), shape) for choice, value in distinct.items()}
        return jnp.concatenate([values[choice] for choice in self.choices], axis=1)

    def bounds(self, q: Side, k: Side, layer: Layer) -> tuple[Array, Array]:
        return _envelope(self.choices, q, k, layer)


@dataclasses.dataclass(frozen=True)
class Soft(Visibility):
    """See `soft`."""

    start: Visibility
    end: Visibility
    alpha: float | str

    def __post_init__(self):
        if not isinstance(self.alpha, str) and not 0 <= self.alpha <= 1:
            raise ConfigError(f"soft: alpha is {self.alpha}; give a number in [0, 1] or the name of a query field")
        super().__post_init__()

    @property
    def parts(self) -> tuple[Visibility, ...]:
        return self.start, self.end

    @property
    def reads(self) -> tuple[frozenset[str], frozenset[str]]:
        q, k = super().reads
        return q | ({self.alpha} if isinstance(self.alpha, str) else frozenset()), k

    @property
    def hard(self) -> bool:
        return False

    def evaluate(self, q: Side, k: Side, layer: Layer) -> Array:
        alpha = q[self.alpha].astype(jnp.float32) if isinstance(self.alpha, str) else self.alpha
        start, end = as_weight(self.start.evaluate(q, k, layer)), as_weight(self.end.evaluate(q, k, layer))
        return (1 - alpha) * start + alpha * end

    def bounds(self, q: Side, k: Side, layer: Layer) -> tuple[Array, Array]:
        if self.alpha in (0, 1):
            return (self.end if self.alpha else self.start).bounds(q, k, layer)
        return _envelope(self.parts, q, k, layer)


@dataclasses.dataclass(frozen=True)
class Gate(Visibility):
    """See `learned`."""

    gate: str
    node: str

    @property
    def reads(self) -> tuple[frozenset[str], frozenset[str]]:
        return frozenset({self.gate}), frozenset({self.node})

    @property
    def hard(self) -> bool:
        return False

    @property
    def gated(self) -> bool:
        return True

    def evaluate(self, q: Side, k: Side, layer: Layer) -> Array:
        logits, node = q.vector(self.gate)[:, :, :, 0], k[self.node]
        shape = jnp.broadcast_shapes(logits.shape[:-1] + (1,), node.shape)
        logits = jnp.broadcast_to(logits, shape[:-1] + logits.shape[-1:])
        logit = jnp.take_along_axis(logits, jnp.broadcast_to(node, shape), axis=-1, mode="fill", fill_value=-jnp.inf)
        probability = jax.nn.sigmoid(logit)
        # in this order: the bracket is exactly 0, so that the weight is exactly 0 or 1
        return (logit > 0) + (probability - jax.lax.stop_gradient(probability))


def _envelope(choices: tuple[Visibility, ...], q: Side, k: Side, layer: Layer) -> tuple[Array, Array]:
    """(some choice may see, every choice surely sees)."""
    bounds = [choice.bounds(q, k, layer) for choice in choices]
    may, must = bounds[0]
    for other_may, other_must in bounds[1:]:
        may, must = may | other_may, must & other_must
    return may, must
