"""What training needs to know (TrainConfig), what it carries from step to step (State), and what it leaves behind (Run)."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from causal_gen.nn.precision import Policy
from causal_gen.types import ConfigError, Params, PyTree, UserError


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How a model is trained. `steps` count updates; a batch of `batch_size` examples is cut into `accumulate` microbatches.

    `optimizer` is "adamw", or "muon", which turns the momentum of every kernel into its nearest orthogonal matrix: fewer steps, each a
    little longer (train/optim.py). The learning rate rises over `warmup_steps` and follows `schedule` to step `steps`. Weight decay acts on
    leaves of rank 2 and more. Gradients are clipped to a global norm of `clip_norm` (None: not). `ema_decay` None keeps no average.
    `time_limit` in seconds (compilation included, over all resumes of a run) stops it early. `annealing` "steps" leaves the schedule as it
    is then; "time" hurries it, so that the rate has fallen to its end when the limit is reached: such a run is a function of the machine's
    speed, unless the steps are done well before the limit. `precision` and `remat` are handed to the model. `init_from` = {path regex:
    workdir[:subtree]} takes parameters of earlier runs, or of exported files, to start from (train/warmstart.py).
    """

    steps: int = dataclasses.field(default=1000, metadata={"min": 1})
    batch_size: int = dataclasses.field(default=32, metadata={"min": 1})
    seed: int = dataclasses.field(default=0, metadata={"min": 0, "max": 2**31 - 1})
    optimizer: str = dataclasses.field(default="adamw", metadata={"choices": ("adamw", "muon")})
    learning_rate: float = dataclasses.field(default=1e-3, metadata={"min": 0.0})
    warmup_steps: int = dataclasses.field(default=0, metadata={"min": 0})
    schedule: str = dataclasses.field(default="cosine", metadata={"choices": ("cosine", "constant")})
    weight_decay: float = dataclasses.field(default=0.0, metadata={"min": 0.0})
    clip_norm: float | None = dataclasses.field(default=1.0, metadata={"min": 0.0})
    accumulate: int = dataclasses.field(default=1, metadata={"min": 1})
    ema_decay: float | None = dataclasses.field(default=0.999, metadata={"min": 0.0, "max": 1.0})
    precision: str = "params=float32,compute=float32,output=float32"
    remat: str = dataclasses.field(default="none", metadata={"choices": ("none", "dots", "full")})
    time_limit: float | None = dataclasses.field(default=None, metadata={"min": 0.0})
    annealing: str = dataclasses.field(default="steps", metadata={"choices": ("steps", "time")})
    init_from: Mapping[str, str] = dataclasses.field(default_factory=dict)
    nonfinite: str = dataclasses.field(default="stop", metadata={"choices": ("stop", "skip", "rollback")})
    nonfinite_limit: int = dataclasses.field(default=10, metadata={"min": 1})
    watchdog: float = dataclasses.field(default=100.0, metadata={"min": 0.0})

    def __post_init__(self):
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size={self.batch_size} must be a multiple of accumulate={self.accumulate}")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ValueError(f"clip_norm must be positive, or None for no clipping, got {self.clip_norm}")
        for pattern in self.init_from:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConfigError(f"init_from {pattern!r} is no regular expression ({error}); write, for instance, ^decoder") from error
        Policy.parse(self.precision)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """The whole of a training run between two steps: `ema` is None where none is kept, `step` counts batches (i32 []), which are as many
    updates unless some were passed over (`train.nonfinite`).

    `pace` (f32 []) is the least share of the schedule to count as done, written by the loop's clock; None where steps alone count.
    """

    params: Params
    ema: Params
    opt: PyTree
    step: Any  # an array, or in abstract states a ShapeDtypeStruct or a sharding, like every other leaf
    pace: Any = None

    @property
    def best_params(self) -> Params:
        """What is evaluated and sampled from: the average where one is kept."""
        return self.params if self.ema is None else self.ema


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained model: `params` are the averaged ones where an average was kept. `interrupted` says that a signal ended training."""

    model: Any
    params: Params
    config: dict[str, Any]
    step: int
    data: Any
    workdir: Path
    interrupted: bool = False


class NonFiniteError(UserError):
    """A loss term, the loss or the gradient is no longer finite."""
