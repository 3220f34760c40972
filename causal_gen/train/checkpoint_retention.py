"""How often checkpoints are made, and which of them stay."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from causal_gen.train import checkpoint_manifest as manifest


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Save every `every` steps; keep the newest `keep_latest`, the `keep_best` with the lowest held-out loss, those at multiples of
    `keep_every` steps (0: none for that reason), and beyond these the last one known to be good.

    `verify_files` compares the files with their sha256 manifest before they are read; the hashes of the arrays are always compared.
    """

    every: int = dataclasses.field(default=1000, metadata={"min": 1})
    keep_latest: int = dataclasses.field(default=2, metadata={"min": 1})
    keep_best: int = dataclasses.field(default=1, metadata={"min": 0})
    keep_every: int = dataclasses.field(default=0, metadata={"min": 0})
    verify_files: bool = True

    def __post_init__(self):
        if self.keep_every % self.every:
            raise ValueError(f"keep_every={self.keep_every} must be a multiple of every={self.every}, or 0; both count steps")


def best(losses: Mapping[int, float], count: int) -> list[int]:
    """The steps with the lowest finite losses, lowest first; of equals the newer."""
    return sorted((step for step in losses if math.isfinite(losses[step])), key=lambda step: (losses[step], -step))[:count]


def last_good(losses: Mapping[int, float], verified: Collection[int]) -> int | None:
    """The newest step that is known to be good: its held-out loss was finite, and it was read back from disk as it was saved."""
    return max((step for step in verified if math.isfinite(losses.get(step, math.inf))), default=None)


def kept(config: CheckpointConfig, losses: Mapping[int, float], verified: Collection[int]) -> set[int]:
    """Of the steps that `losses` has (inf: not measured), those to keep. A run gone bad thus cannot push its last good state out."""
    steps = sorted(losses)
    every = [step for step in steps if config.keep_every and step % config.keep_every == 0]
    good = last_good(losses, verified)
    return {*steps[-config.keep_latest :], *best(losses, config.keep_best), *every, *([] if good is None else [good])}


def loss_of(metrics: Any) -> float:
    """inf where none was measured: never the best, and not known to be good."""
    return float(metrics["loss"]) if metrics and "loss" in metrics else math.inf


def stored_losses(folder: Path, steps: Iterable[int]) -> dict[int, float]:
    """{step: held-out loss}, inf where none was measured or it cannot be read."""
    losses = {}
    for step in steps:
        try:
            losses[step] = loss_of(json.loads((folder / str(step) / "metrics" / "metrics").read_text()))
        except (OSError, ValueError, TypeError):
            losses[step] = math.inf
    return losses


def verified(folder: Path, steps: Iterable[int]) -> set[int]:
    """The steps that have a manifest, which is written after they were read back."""
    return {step for step in steps if manifest.present(folder / str(step))}


@dataclasses.dataclass(frozen=True)
class Policy:
    """`kept`, in the form that a checkpoint manager asks for: before a save it gives the old steps and the new one."""

    folder: Path
    config: CheckpointConfig

    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
        """Whether each of `checkpoints` (with `step`, and `metrics` where it was saved by this process) stays."""
        del context
        losses = stored_losses(self.folder, [info.step for info in checkpoints])
        losses |= {info.step: loss_of(info.metrics) for info in checkpoints if info.metrics is not None}  # the new one is not on disk yet
        keep = kept(self.config, losses, verified(self.folder, losses))
        return [info.step in keep for info in checkpoints]
