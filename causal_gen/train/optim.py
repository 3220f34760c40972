"""The optimiser of a TrainConfig: AdamW or Muon, with warm-up, cosine decay and clipping.

    lr(t)  = lr min(1, (t+1)/warmup) (1 + cos(pi (t - warmup)_+ / (steps - warmup))) / 2        (1)
    ema    <- d ema + (1 - d) params,  d = min(decay, (1 + t) / (10 + t))                       (2)
    Muon: a kernel [m, n] moves along  .2 sqrt(max(m, n)) U V^T,  U S V^T its momentum          (3)

t counts finished updates, or is the share `pace` of all of them where that is more, inside of the cosine. In (1) the first update is
already made with lr/warmup > 0. In (2) the decay warms up, since otherwise the average of a short run is mostly its initial weights. In (3)
U V^T comes from four Newton-Schulz sweeps (optax's), and all that is no kernel, such as vectors and tables of embeddings, moves as under
Adam with Nesterov's momentum, at the same rate. A model's groups() scale, turn, thin out or freeze the updates of its parts.
Sources: AdamW Loshchilov & Hutter 2019 (arXiv:1711.05101); (3) Jordan et al. 2024, its scale Liu et al. 2025 (arXiv:2502.16982).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, muon

from causal_gen.models.base import Group
from causal_gen.parallel.rules import leaf_path
from causal_gen.train.state import TrainConfig
from causal_gen.types import Array, ConfigError, Float, Params, PyTree

RMS = 0.2  # of the entries of an update (3), about that of Adam's, so that one learning rate serves both


def split_state(params: Params) -> tuple[Params, Any]:
    """The part that has a gradient, and the entry "state" (None where there is none)."""
    if isinstance(params, Mapping) and "state" in params:
        return {name: value for name, value in params.items() if name != "state"}, params["state"]
    return params, None


def join_state(trainable: Params, state: Any) -> Params:
    """The whole tree of parameters again, after `state` was taken out of what is trained."""
    return trainable if state is None else {**trainable, "state": state}


def learning_rate(train: TrainConfig) -> Callable[..., Float[Array, ""]]:
    """Eq. (1) as rate(step, pace): `pace` is the least share of the steps to count as done, where a clock hurries it (None: 0)."""

    def rate(step: Any, pace: Any = None) -> Float[Array, ""]:
        t = jnp.asarray(step, jnp.float32)
        value = jnp.minimum(1.0, (t + 1) / max(train.warmup_steps, 1)) * train.learning_rate
        if train.schedule == "constant":
            return value
        done = t if pace is None else jnp.maximum(t, pace * train.steps)
        progress = jnp.clip((done - train.warmup_steps) / max(train.steps - train.warmup_steps, 1), 0.0, 1.0)
        return value * 0.5 * (1 + jnp.cos(jnp.pi * progress))

    return rate


def _scale_by_rate(train: TrainConfig) -> optax.GradientTransformationExtraArgs:
    """Minus the rate times the update; `pace` comes with every update, since a clock is no function of the step."""
    rate = learning_rate(train)

    def init(params: PyTree) -> optax.ScaleByScheduleState:
        del params
        return optax.ScaleByScheduleState(jnp.zeros([], jnp.int32))

    def update(updates: PyTree, state: Any, params: PyTree = None, *, pace: Any = None, **extra: Any) -> tuple[PyTree, Any]:
        del params, extra
        size = -rate(state.count, pace)
        return jax.tree.map(lambda u: size.astype(u.dtype) * u, updates), optax.ScaleByScheduleState(state.count + 1)

    return optax.GradientTransformationExtraArgs(init, update)


def updates(opt: PyTree) -> Array:
    """How many updates an optimiser's state has seen (i32 []): the t of eq. (1)."""
    return opt[-1].count  # `optimizer` chains the rate last


def assign_groups(groups: Mapping[str, Group], trainable: PyTree) -> PyTree:
    """The index, as text, of the first group whose regex is found in each leaf's path. Raises ConfigError for a leaf of no group."""
    patterns = list(groups)

    def index(path: tuple, leaf: Any) -> str:
        del leaf
        name = leaf_path(path)
        for i, pattern in enumerate(patterns):
            if re.search(pattern, name):
                return str(i)
        raise ConfigError(f"parameter {name} is in none of the model's groups {patterns}: add a last group '.*'")

    return jax.tree_util.tree_map_with_path(index, trainable)


def zero_frozen(groups: Mapping[str, Group], grads: PyTree) -> PyTree:
    """Gradients with those of frozen groups set to 0, so that they do not count in the norm that is clipped."""
    frozen = [str(i) for i, group in enumerate(groups.values()) if group.frozen]
    if not frozen:
        return grads
    return jax.tree.map(lambda g, label: jnp.zeros_like(g) if label in frozen else g, grads, assign_groups(groups, grads))


def only_every(inner: optax.GradientTransformation, k: int) -> optax.GradientTransformation:
    """`inner` on updates 0, k, 2k, ...; between them nothing moves, its moments included."""

    def init(params: PyTree) -> tuple[Array, PyTree]:
        return jnp.zeros([], jnp.int32), inner.init(params)

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        count, old = state
        updates, new = inner.update(updates, old, params)
        due = count % k == 0
        updates = jax.tree.map(lambda u: jnp.where(due, u, jnp.zeros_like(u)), updates)
        return updates, (count + 1, jax.tree.map(lambda a, b: jnp.where(due, a, b), new, old))

    return optax.GradientTransformation(init, update)


def _muon() -> optax.GradientTransformation:
    """The direction (3) of every kernel, and Adam's of all else; rate and sign, which optax's has of its own, come last in our chain."""
    own = muon(1.0, ns_steps=4, preconditioning="aol", consistent_rms=RMS, muon_weight_dimension_numbers=_matrices)
    return optax.chain(own, optax.scale(-1.0))


def _matrices(params: PyTree) -> PyTree:
    """Which axes of a leaf make m and n of (3), None where it is no kernel: [m, n] in each layer of a stack, [hwc, n] in a convolution."""

    def axes(path: tuple, leaf: Any) -> MuonDimensionNumbers | None:
        names = leaf_path(path).split("/")
        if names[-1] != "kernel" or leaf.ndim < 2:
            return None
        inputs = (leaf.ndim - 2,) if "blocks" in names else tuple(range(leaf.ndim - 1))
        return MuonDimensionNumbers(inputs, leaf.ndim - 1)

    return jax.tree_util.tree_map_with_path(axes, params)


def _direction(train: TrainConfig, group: Group) -> optax.GradientTransformation:
    if group.frozen:
        return optax.set_to_zero()
    parts = [optax.scale_by_adam() if train.optimizer == "adamw" else _muon()]
    if group.sign != 1:
        parts.insert(0, optax.scale(float(group.sign)))
    if train.weight_decay:
        # biases, norm scales and other vectors are not shrunk: decay there only fights the normalisation
        parts.append(optax.add_decayed_weights(train.weight_decay, mask=lambda tree: jax.tree.map(lambda x: x.ndim >= 2, tree)))
    if group.scale != 1.0:
        parts.append(optax.scale(group.scale))
    chain = optax.chain(*parts)
    return only_every(chain, group.every) if group.every > 1 else chain


def optimizer(train: TrainConfig, groups: Mapping[str, Group]) -> optax.GradientTransformationExtraArgs:
    """Clipping over all groups together, then each group's own AdamW direction, then the learning rate of eq. (1) at `pace`."""
    directions: dict[Hashable, optax.GradientTransformation] = {str(i): _direction(train, group) for i, group in enumerate(groups.values())}
    if len(directions) == 1:
        (direction,) = directions.values()
    else:
        direction = optax.partition(directions, lambda params: assign_groups(groups, params))
    clip = optax.clip_by_global_norm(train.clip_norm) if train.clip_norm is not None else optax.identity()
    return optax.with_extra_args_support(optax.chain(clip, direction, _scale_by_rate(train)))


def average(decay: float, step: Array, ema: Params, params: Params) -> Params:
    """Eq. (2); the entry "state" is copied, since a running statistic is an average already."""
    t = jnp.asarray(step, jnp.float32)
    d = jnp.minimum(decay, (1 + t) / (10 + t))
    old, _ = split_state(ema)
    new, state = split_state(params)
    return join_state(jax.tree.map(lambda a, b: (d * a + (1 - d) * b).astype(a.dtype), old, new), state)
