"""The training step ahead of time: traced and compiled for devices that need not be here, from shapes alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from causal_gen.data.base import Source
from causal_gen.models.base import Trainable
from causal_gen.parallel import compile as compiling
from causal_gen.parallel import rules
from causal_gen.parallel.mesh import MeshConfig, batch_sharding, check_batch_size, make_mesh
from causal_gen.train import meter
from causal_gen.train import step as steps
from causal_gen.train.state import State, TrainConfig


@dataclasses.dataclass(frozen=True)
class Planned:
    """A step that was traced: `traced.lower().compile()` is the program. `flops` are counted over all devices, and `model_flops` are three
    times those of the loss: what computing again in the backward pass adds is no work of the model."""

    mesh: Mesh
    traced: Any
    state: State
    batch: dict[str, jax.ShapeDtypeStruct]
    flops: float
    model_flops: float


def abstract_state(init: Callable[[], State], mesh: Mesh, placing: Sequence[rules.Rule] = ()) -> State:
    """The shapes of the state of step 0 and where they lie, with no array made. Raises ConfigError for a parameter that does not split.

    Under jit, so that whoever compiles the same `init` after it finds it traced.
    """
    return rules.place(jax.eval_shape(jax.jit(init)), mesh, placing)


def plan(model: Trainable, data: Source, train: TrainConfig, config: MeshConfig, devices: Sequence[Any]) -> Planned:
    """Trace the step for a mesh over `devices`. Of `data` only its entries are asked.

    Raises ConfigError for sizes that do not fit the devices, and for a batch or a parameter that does not split.
    """
    mesh = make_mesh(config, devices)
    check_batch_size(mesh, train.batch_size, train.accumulate)
    state, rows = abstract_state(steps.make_init(model, train), mesh, config.rules), batch_sharding(mesh)
    batch = {
        name: jax.ShapeDtypeStruct((train.batch_size, *entry.shape), jnp.dtype(entry.dtype), sharding=rows)
        for name, entry in data.entries.items()
    }
    placed = jax.tree.map(lambda leaf: leaf.sharding, state)
    step = compiling.compile_step(steps.make_step(model, train), mesh, placed, config.mode, model.batch_coupled and type(model).__name__)
    traced = step.trace(state, batch)
    loss = jax.make_jaxpr(steps.make_heldout(model, train))(state.params, batch, jnp.int32(0))
    return Planned(mesh, traced, state, batch, meter.count_flops(traced.jaxpr.jaxpr), 3 * meter.count_flops(loss.jaxpr))
