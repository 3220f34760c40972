"""What an evaluation is asked to do, and the small pieces that all of its parts share.

Letters: b batch, h height, w width, c channels.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from causal_gen.parallel import hosts
from causal_gen.train.log import write_json
from causal_gen.types import WorkdirError, at_least, choice


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """How much is measured. Everything is measured on the test split; a scene is one of its examples."""

    scenes: int = dataclasses.field(default=512, metadata={"min": 1})  # scenes that every intervention is tried on
    cycles: int = dataclasses.field(default=10, metadata={"min": 1})  # null interventions in a row, for composition
    cycle_scenes: int | None = dataclasses.field(default=None, metadata={"min": 1})  # scenes of cycles and reversals; None: all
    steps: int | None = dataclasses.field(default=None, metadata={"min": 1})  # DDIM steps; None: as the model samples
    batch_size: int = dataclasses.field(default=64, metadata={"min": 1})
    seed: int = dataclasses.field(default=0, metadata={"min": 0})  # picks the scenes and the values of the interventions
    slider_values: int = dataclasses.field(default=7, metadata={"min": 2, "max": 64})  # values a slider of the report has
    slider_scenes: int = dataclasses.field(default=4, metadata={"min": 0, "max": 32})  # 0: write no sliders
    disentangle_images: int = dataclasses.field(default=2000, metadata={"min": 0})  # for R2, DCI and MCC; 0: leave them out
    draws: int = at_least(0, 0)  # samples drawn for what is measured of samples of a model of tokens (laws.py, quality.py); 0: none
    statements: str | None = None  # file of statements to be ranked (data/statements.py); None: the source's own, where it has any
    scoring: str = choice("likelihood", "pseudo")  # what statements are ranked by (ranking.py)


@dataclasses.dataclass(frozen=True)
class Instrument:
    """Reads one property from images, whoever made them.

    `read` takes float images [b, h, w, c] in [0, 1] and gives [b], NaN where it cannot tell. `kind` says how two
    readings are compared: by mean absolute error in `unit`, or as the share that agrees. `valid` takes the true
    entries of the images and says which of them the instrument can read at all (None: all).
    """

    name: str
    read: Callable[[np.ndarray], np.ndarray]
    unit: str = ""
    kind: Literal["mae", "accuracy"] = "mae"
    valid: Callable[[Mapping[str, np.ndarray]], np.ndarray] | None = None


@dataclasses.dataclass(frozen=True)
class Bench:
    """What is known about one data source beyond its batches: how to read its images and where to look.

    `values` says how the values of interventions are drawn: "uniform" over the entry's limits, or "marginal", by
    giving each scene the value of another one. `strips` names groups of bottom rows as a share of the height.
    `outside` gives, for a factor, the strip outside of which an intervention on it must change nothing. `expectations`
    are known interventional means: ((do, value, effect), mean), in the entries' units.
    """

    instruments: tuple[Instrument, ...] = ()
    values: Literal["uniform", "marginal"] = "uniform"
    strips: Mapping[str, float] = dataclasses.field(default_factory=dict)
    outside: Mapping[str, str] = dataclasses.field(default_factory=dict)
    expectations: tuple[tuple[tuple[str, float, str], float], ...] = ()

    def rows(self, strip: str, height: int) -> slice:
        """The rows of a strip in an image of `height` rows: 3 of 32 for the pendulum's shadow, at any size."""
        return slice(height - max(1, round(self.strips[strip] * height)), height)


def mean_abs(a: Any, b: Any) -> float:
    """Mean absolute difference; entries where either is NaN are left out, and nothing left gives NaN."""
    gap = np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64))
    return float(np.nanmean(gap)) if np.isfinite(gap).any() else math.nan


def to_bytes(image: Any) -> np.ndarray:
    """uint8 pictures from floats in [0, 1]; what is outside is clipped."""
    return np.round(np.clip(np.asarray(image, np.float32), 0.0, 1.0) * 255.0).astype(np.uint8)


def jsonable(value: Any) -> Any:
    """Plain Python numbers; NaN and infinities become null, since JSON has neither."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, np.ndarray | np.generic) or hasattr(value, "tolist"):
        return jsonable(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def open_folder(workdir: Path) -> Path:
    """The folder evaluate/ of a workdir, made where it is missing. Raises `WorkdirError` where it cannot be."""
    folder = workdir / "evaluate"
    try:  # before the work, not after it
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkdirError(f"evaluate: cannot write {folder} ({error.strerror or error}); mend its rights or copy the workdir") from error
    return folder


def recorded(measure: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """An evaluation from `measure(run, settings, seed, progress)`: what it finds, timed, JSON-able, in `evaluate/metrics.json`.

    `run` is a model, params, data and workdir; `seed` defaults to that of the settings; `progress` is told one line a stage. Raises
    `WorkdirError` where the workdir cannot be written, before the work.
    """

    @functools.wraps(measure)
    def evaluate(run: Any, settings: EvaluateConfig, seed: int | None = None, progress: Callable[[str], Any] = print) -> dict[str, Any]:
        started, folder = time.time(), open_folder(Path(run.workdir))
        out = measure(run, settings, settings.seed if seed is None else seed, progress)
        out = jsonable({**out, "seconds": round(time.time() - started, 1)})
        if hosts.first():
            write_json(folder / "metrics.json", out)
        return out

    return evaluate
