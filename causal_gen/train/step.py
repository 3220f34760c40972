"""One training step and the held-out loss, as pure functions.

step(state, batch) -> (state, metrics) draws its key as fold_in(base, state.step), so that no generator is carried or saved. The loss
is per example; the mean over the batch is taken here. Metrics are the mean loss, the mean of every term of Aux, `grad_norm` (before
clipping), `lr`, and BLAME: the first leaf, in tree order, whose gradient is not finite (i32 [], -1 where all are).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from causal_gen.models.base import Trainable
from causal_gen.train import optim
from causal_gen.train.state import State, TrainConfig
from causal_gen.types import Array, Batch, ConfigError, Key, Params, PyTree

Metrics = dict[str, Array]
BLAME = "bad_gradient"


def keys(seed: int) -> tuple[Key, Key, Key]:
    """The base keys of a run: for the initial parameters, for the steps, for the held-out loss."""
    init, steps, heldout = jax.random.split(jax.random.key(seed), 3)
    return init, steps, heldout


def make_init(model: Trainable, train: TrainConfig) -> Callable[[], State]:
    """A function of no arguments, for jit or eval_shape, that makes the state of step 0."""
    tx = optim.optimizer(train, model.groups())

    def init() -> State:
        params = model.init(keys(train.seed)[0])
        optim.assign_groups(model.groups(), optim.split_state(params)[0])  # every leaf is in a group, or a ConfigError says which not
        # the copy keeps the two trees in separate buffers, so that donating the state never gives one buffer away twice
        ema = None if train.ema_decay is None else jax.tree.map(jnp.copy, params)
        pace = jnp.zeros([], jnp.float32) if train.annealing == "time" else None
        return State(params=params, ema=ema, opt=tx.init(optim.split_state(params)[0]), step=jnp.zeros([], jnp.int32), pace=pace)

    return init


def _reduce(model: Trainable, params: Params, key: Key, batch: Batch, step: Array, train: bool) -> tuple[Array, tuple[Metrics, Any]]:
    losses, aux = model.loss(params, key, batch, step=step, train=train)
    loss = jnp.mean(losses.astype(jnp.float32))
    terms = {name: jnp.mean(value.astype(jnp.float32)) for name, value in aux.terms.items()}
    return loss, ({**terms, "loss": loss}, aux.stats)


def _gradient(model: Trainable, params: Params, key: Key, batch: Batch, step: Array) -> tuple[PyTree, Metrics, Any]:
    trainable, carried = optim.split_state(params)

    def objective(trainable: Params) -> tuple[Array, tuple[Metrics, Any]]:
        return _reduce(model, optim.join_state(trainable, carried), key, batch, step, True)

    grads, (metrics, stats) = jax.grad(objective, has_aux=True)(trainable)
    return grads, metrics, stats


def accumulate_gradient(model: Trainable, params: Params, key: Key, batch: Batch, step: Array, pieces: int) -> tuple[PyTree, Metrics, Any]:
    """Mean gradient and metrics, and summed stats, over `pieces` microbatches of equal size, one at a time in memory.

    Microbatch i holds rows i, i + pieces, ...: rows of one device stay on it. Each has its own key.
    """
    if pieces == 1:
        return _gradient(model, params, key, batch, step)
    micro = jax.tree.map(lambda x: jnp.swapaxes(x.reshape(x.shape[0] // pieces, pieces, *x.shape[1:]), 0, 1), dict(batch))

    def body(total: PyTree, xs: tuple[Array, Batch]) -> tuple[PyTree, tuple[Metrics, Any]]:
        index, rows = xs
        grads, metrics, stats = _gradient(model, params, jax.random.fold_in(key, index), rows, step)
        return jax.tree.map(jnp.add, total, grads), (metrics, stats)

    zeros = jax.tree.map(jnp.zeros_like, optim.split_state(params)[0])
    total, (metrics, stats) = jax.lax.scan(body, zeros, (jnp.arange(pieces), micro))
    mean = jax.tree.map(lambda g: g / pieces, total)
    return mean, jax.tree.map(lambda m: jnp.mean(m, 0), metrics), jax.tree.map(lambda s: jnp.sum(s, 0), stats)


def _norm(grads: PyTree) -> tuple[Array, Array]:
    """The global norm, and the first leaf whose own is not finite (-1: none)."""
    squares = jnp.stack([optax.tree.norm(leaf, squared=True) for leaf in jax.tree.leaves(grads)])
    bad = ~jnp.isfinite(squares)
    return jnp.sqrt(squares.sum()), jnp.where(bad.any(), jnp.argmax(bad), -1).astype(jnp.int32)


def make_step(model: Trainable, train: TrainConfig) -> Callable[..., tuple[State, Metrics]]:
    """The pure step(state, batch, axis=None). `axis` names the mapped axis to reduce over in pmap mode; under jit XLA reduces.

    Raises ConfigError when a loss that mixes examples is to be accumulated over microbatches.
    """
    if model.batch_coupled and train.accumulate > 1:
        raise ConfigError(
            f"train.accumulate={train.accumulate}: this model's loss mixes the examples of a batch, so it cannot be cut: use 1"
        )
    groups = model.groups()
    tx, rate = optim.optimizer(train, groups), optim.learning_rate(train)

    def step(state: State, batch: Batch, axis: str | None = None) -> tuple[State, Metrics]:
        key = jax.random.fold_in(keys(train.seed)[1], state.step)
        if axis is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis))
        grads, metrics, stats = accumulate_gradient(model, state.params, key, batch, state.step, train.accumulate)
        if axis is not None:
            grads, metrics, stats = jax.lax.pmean(grads, axis), jax.lax.pmean(metrics, axis), jax.lax.psum(stats, axis)
        grads = optim.zero_frozen(groups, grads)
        norm, blame = _norm(grads)
        metrics = {**metrics, "grad_norm": norm, "lr": rate(optim.updates(state.opt), state.pace)}
        good = jnp.isfinite(jnp.stack(list(metrics.values()))).all()
        metrics[BLAME] = blame
        trainable, carried = optim.split_state(state.params)
        updates, opt = tx.update(grads, state.opt, trainable, pace=state.pace)
        params = optim.join_state(optax.apply_updates(trainable, updates), carried)
        if stats is not None:
            params = optim.join_state(optim.split_state(params)[0], model.update_state(params, stats))
        ema = None if train.ema_decay is None else optim.average(train.ema_decay, state.step, state.ema, params)
        new = State(params=params, ema=ema, opt=opt, step=state.step, pace=state.pace)
        if train.nonfinite == "skip":  # here, since by the time that the host has seen the numbers the next step is under way
            new = jax.tree.map(lambda a, b: jnp.where(good, a, b), new, state)
        return dataclasses.replace(new, step=state.step + 1), metrics

    return step


def make_heldout(model: Trainable, train: TrainConfig) -> Callable[[Params, Batch, Array], Metrics]:
    """heldout(params, batch, index) -> mean loss and terms without training noise, with a key that depends on `index` alone.

    The step is that of the end of training: while weights of the loss are still warming up, losses of different steps would otherwise
    not be comparable, and the best checkpoint would be the first one.
    """

    def heldout(params: Params, batch: Batch, index: Array) -> Metrics:
        key = jax.random.fold_in(keys(train.seed)[2], index)
        return _reduce(model, params, key, batch, jnp.asarray(train.steps, jnp.int32), False)[1][0]

    return heldout
