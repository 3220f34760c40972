"""What a sampler is told; a field of the model, so that abduct and predict always use the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

from causal_gen.types import Array

Denoiser: TypeAlias = Callable[[Array, Array], tuple[Array, Array]]  # (x_t, t [b]) -> (x_0, eps)

ENCODERS = ("invert", "renoise")
SAMPLERS = ("ddim", "ddpm")


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """Steps of the sampler, guidance weight omega (1: none), and how x_T is abducted.

    `encode` is "invert" (deterministic DDIM inversion) or "renoise" (a fresh draw of x_T given x_0, as released, which does not
    abduct the residual). `sampler` is "ddim" or, for unconditional pictures, ancestral "ddpm". `refine` adds fixed-point sweeps
    to every inversion step, each one more network call. `spacing` below 1 puts more of the steps at high noise, where what an
    intervention changes in the large is decided, and fewer where details are (ddim.grid). `clip` bounds the predicted x_0 to
    [-1, 1]; it makes inversion inexact.
    """

    steps: int = dataclasses.field(default=50, metadata={"min": 1})
    omega: float = 1.0
    encode: str = dataclasses.field(default="invert", metadata={"choices": ENCODERS})
    sampler: str = dataclasses.field(default="ddim", metadata={"choices": SAMPLERS})
    refine: int = dataclasses.field(default=0, metadata={"min": 0})
    spacing: float = dataclasses.field(default=1.0, metadata={"min": 0.25, "max": 4.0})
    clip: bool = False
