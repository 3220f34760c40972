"""Checkpoints: the only place that knows Orbax.

A checkpoint is one atomic folder with the items `params`, `ema` (if kept), `rest` (optimiser and step), `meta` (JSON: the config
with its normalisation, the graph, seconds trained) and `hashes` (JSON: one number a leaf). Orbax restores a flipped bit without a word,
casts dtypes in silence, and prints thousands of lines for a shape that differs; so shapes and dtypes are compared before anything is
read, and hashes after.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import sys
import time
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath  # the paths that Orbax speaks, and installs

from causal_gen.parallel.rules import leaf_path
from causal_gen.train.state import State
from causal_gen.types import Array, CheckpointError, Params, PyTree

ARRAYS = ("params", "ema", "rest")
TEXTS = ("meta", "hashes")


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Save every `every` steps; keep the newest `keep_latest` and the `keep_best` with the lowest held-out loss."""

    every: int = dataclasses.field(default=1000, metadata={"min": 1})
    keep_latest: int = dataclasses.field(default=2, metadata={"min": 1})
    keep_best: int = dataclasses.field(default=1, metadata={"min": 0})


def hash_leaf(x: Array) -> Array:
    """u32 [2]: position-dependent sums of the bits of x, the same for every sharding (integer sums do not round).

    Every entry is mixed with its index by a bijection of 32 bits, so a change of one entry always changes the first sum. A check
    for accidents, not attackers.
    """
    if x.dtype == jnp.bool_:
        x = x.astype(jnp.uint8)
    bits = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * min(x.dtype.itemsize, 4)}"))  # 64-bit entries gain an axis of two words
    words = bits.astype(jnp.uint32).reshape(-1)
    index = jax.lax.iota(jnp.uint32, words.size)

    def mix(h: Array) -> Array:  # the finaliser of MurmurHash3 (public domain, A. Appleby): a bijection
        h = (h ^ (h >> 16)) * jnp.uint32(0x85EBCA6B)
        h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
        return h ^ (h >> 16)

    first = jnp.sum(mix(words ^ mix(index)), dtype=jnp.uint32)
    second = jnp.sum(mix(words + mix(index ^ jnp.uint32(0x9E3779B9))), dtype=jnp.uint32)
    return jnp.stack([first, second])


_hash_leaves = jax.jit(lambda leaves: [hash_leaf(x) for x in leaves])


def hashes(tree: PyTree) -> dict[str, str]:
    """{path of a leaf: 16 hex digits}."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    values = jax.device_get(_hash_leaves([leaf for _, leaf in leaves]))
    return {leaf_path(path): f"{int(a):08x}{int(b):08x}" for (path, _), (a, b) in zip(leaves, values, strict=True)}


def _items(state: State) -> dict[str, PyTree]:
    items = {"params": state.params, "ema": state.ema, "rest": {"opt": state.opt, "step": state.step}}
    return {name: tree for name, tree in items.items() if tree is not None}


def _line(error: BaseException) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    text = text.split(" See full TensorStore details")[0].split(" [tensorstore_spec=")[0]
    return text if len(text) <= 240 else f"{text[:120]} ... {text[-110:]}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """While open, Orbax's threads do not log the failures that are raised here in one line (hundreds of lines of traceback a write)."""
    _filter_hooks()
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _filter_hooks() -> None:
    """Drop, for the rest of the process, two complaints that follow a failed read or write at any later time and mean nothing more:

    TensorStore calling back into an event loop that Orbax has closed, and the reads that Orbax leaves unawaited. All else passes.
    """
    hook, forgotten = sys.excepthook, sys.unraisablehook
    if getattr(hook, "filters_orbax", False):
        return

    def late(error: BaseException | None) -> bool:
        return isinstance(error, RuntimeError) and str(error) == "Event loop is closed"

    def excepthook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if not late(error):
            hook(kind, error, trace)

    def unraisablehook(about: Any) -> None:
        unawaited = isinstance(about.object, types.CoroutineType) and "orbax" in about.object.cr_code.co_filename
        # a callback's error reaches either hook, by the thread it comes on
        if not (unawaited or late(about.exc_value)):
            forgotten(about)

    excepthook.filters_orbax = True
    sys.excepthook, sys.unraisablehook = excepthook, unraisablehook


class Checkpoints:
    """The checkpoints of one workdir, in `folder`. Raises CheckpointError, one line, for whatever cannot be written or read."""

    def __init__(self, folder: str | Path, config: CheckpointConfig | None = None, *, read_only: bool = False):
        config = config or CheckpointConfig()
        self.folder = Path(folder).absolute()
        self._writing: int | None = None
        if read_only and not self.folder.is_dir():
            raise CheckpointError(f"no checkpoints in {self.folder}: train first, or give another workdir")
        policies = ocp.checkpoint_managers
        keep = [
            policies.LatestN(config.keep_latest),
            policies.BestN(n=config.keep_best, get_metric_fn=_loss_of, reverse=True, keep_checkpoints_without_metrics=False),
        ]
        # best_fn AND a policy: with max_to_keep Orbax deletes the newest, and without best_fn it stores no metrics to find the best by
        self._scope = contextlib.ExitStack()
        self._scope.enter_context(_quiet())
        options = ocp.CheckpointManagerOptions(
            create=not read_only,
            read_only=read_only,
            save_interval_steps=0 if read_only else 1,
            cleanup_tmp_directories=not read_only,
            best_fn=_loss_of,
            best_mode="min",
            preservation_policy=policies.AnyPreservationPolicy(keep[: 1 + (config.keep_best > 0)]),
        )
        try:
            # named handlers, since a manager that has not saved yet cannot otherwise describe what lies on disk
            handlers = {**{name: ocp.PyTreeCheckpointHandler() for name in ARRAYS}, **{name: ocp.JsonCheckpointHandler() for name in TEXTS}}
            self._manager = ocp.CheckpointManager(self.folder, options=options, item_handlers=handlers)
        except OSError as error:
            self._scope.close()
            raise CheckpointError(f"cannot write {self.folder} ({_line(error)}): give a --workdir that can be written") from error

    def steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def latest(self) -> int | None:
        return max(self.steps(), default=None)

    def best(self) -> int | None:
        """The step with the lowest held-out loss; the latest where none was measured."""
        scored = {step: _loss_of(self._manager.metrics(step)) for step in self.steps()}
        scored = {step: loss for step, loss in scored.items() if math.isfinite(loss)}
        return min(scored, key=lambda step: scored[step]) if scored else self.latest()

    def save(self, step: int, state: State, meta: Mapping[str, Any], loss: float | None = None) -> bool:
        """Write in the background; the state may be donated at once. `loss` is the held-out loss. False if `step` is there already."""
        if step in self.steps():
            return False
        items = _items(state)
        saved = {name: ocp.args.PyTreeSave(tree) for name, tree in items.items()}
        args = ocp.args.Composite(**saved, meta=ocp.args.JsonSave(dict(meta)), hashes=ocp.args.JsonSave(hashes(items)))
        self.wait()  # so that an error of the save before is told of that one
        self._writing = step
        try:
            return bool(self._manager.save(step, args=args, metrics=None if loss is None else {"loss": float(loss)}))
        except Exception as error:
            raise self._unwritten(error) from error

    def wait(self) -> None:
        """Until everything is on disk."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._unwritten(error) from error

    def _unwritten(self, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"cannot write checkpoint {self._writing} to {self.folder} ({_line(error)}): free space or rights there and run again; "
            "earlier checkpoints are untouched"
        )

    def close(self) -> None:
        with self._scope:
            self._manager.close()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            self.close()
        except Exception as error:  # a write in the background that failed must not hide the error that ended the run
            if kind is None:
                raise self._unwritten(error) from error

    def meta(self, step: int) -> dict[str, Any]:
        """The JSON that travels with a checkpoint."""
        return self._read(step, {"meta": ocp.args.JsonRestore()})["meta"]

    def restore(self, abstract: State, step: int | None = None) -> tuple[State, dict[str, Any]]:
        """The state (default: of the latest step) with the shardings of `abstract`, a State of ShapeDtypeStructs, and its meta."""
        step = self._existing(step)
        read = self._verified(step, _items(abstract))
        rest = read["rest"]
        state = State(params=read["params"], ema=read.get("ema"), opt=rest["opt"], step=rest["step"])
        return state, read["meta"]

    def restore_params(self, abstract: Params, step: int | str | None = None) -> tuple[Params, int, dict[str, Any]]:
        """Parameters to sample from: the averaged ones where they were kept. Reads nothing else of the state."""
        step = self._existing(step)
        item = "ema" if (self.folder / str(step) / "ema").is_dir() else "params"
        read = self._verified(step, {item: abstract})
        return read[item], step, read["meta"]

    def stored(self) -> tuple[Params, int]:
        """The parameters of the latest step as they lie on disk, whatever model they are of: nested dicts of arrays on the first device."""
        step = self._existing(None)
        item = "ema" if (self.folder / str(step) / "ema").is_dir() else "params"
        try:
            found: Any = ocp.PyTreeCheckpointHandler().metadata(epath.Path(self.folder / str(step) / item))
        except Exception as error:
            raise CheckpointError(f"checkpoint {step} cannot be read ({_line(error)}){self._way_out(step)}") from error
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), getattr(found, "tree", found))
        return self._verified(step, {item: shapes})[item], step

    def _existing(self, step: int | str | None) -> int:
        steps = self.steps()
        if not steps:
            raise CheckpointError(f"no checkpoint in {self.folder}: train first, or give another workdir")
        if step is not None and step not in steps:
            raise CheckpointError(f"no checkpoint of step {step} in {self.folder}: there are {', '.join(map(str, steps))}")
        return steps[-1] if step is None else int(step)

    def _verified(self, step: int, wanted: dict[str, PyTree]) -> dict[str, Any]:
        self._check_shapes(step, wanted)
        construct = ocp.checkpoint_utils.construct_restore_args
        args = {name: ocp.args.PyTreeRestore(tree, restore_args=construct(tree)) for name, tree in wanted.items()}
        read = self._read(step, {**args, "meta": ocp.args.JsonRestore(), "hashes": ocp.args.JsonRestore()})
        found = hashes({name: read[name] for name in wanted})
        for path, value in found.items():
            if read["hashes"].get(path) != value:
                raise CheckpointError(f"checkpoint {step} is damaged: {path} differs from what was saved{self._way_out(step)}")
        return read

    def _check_shapes(self, step: int, wanted: dict[str, PyTree]) -> None:
        try:
            # item by item: the manager's own item_metadata opens every array of every item, wanted or not
            present = {name: self.folder / str(step) / name for name in wanted}
            stored = {
                name: ocp.PyTreeCheckpointHandler().metadata(epath.Path(path)) if path.is_dir() else {} for name, path in present.items()
            }
            trees = {name: _described(getattr(value, "tree", value)) for name, value in stored.items()}
        except Exception as error:
            raise CheckpointError(f"checkpoint {step} cannot be read ({_line(error)}){self._way_out(step)}") from error
        for name, tree in wanted.items():
            expected = _described(tree)
            if not trees[name] and expected:
                raise CheckpointError(
                    f"checkpoint {step} in {self.folder} holds no {name}: set what it was trained with, or use a new workdir"
                )
            for path in sorted(expected.keys() | trees[name].keys()):
                here, there = expected.get(path, "nothing"), trees[name].get(path, "nothing")
                if here != there:
                    raise CheckpointError(
                        f"checkpoint {step} in {self.folder} is of another model: {name}/{path} is {there} there, {here} in this config; "
                        "restore the config it was trained with, or use a new workdir"
                    )

    def _read(self, step: int, args: dict[str, Any]) -> dict[str, Any]:
        try:
            read = self._manager.restore(step, args=ocp.args.Composite(**args))
            return {name: read[name] for name in args}
        except Exception as error:
            time.sleep(0.2)  # late callbacks are filtered (_filter_hooks) while the interpreter runs, but not while it ends
            raise CheckpointError(f"checkpoint {step} cannot be read ({_line(error)}){self._way_out(step)}") from error

    def _way_out(self, step: int) -> str:
        older = [other for other in self.steps() if other < step]
        go_on = f" to go on from step {older[-1]}" if older else " and train again"
        return f"; move {self.folder / str(step)} away{go_on}"


def _loss_of(metrics: Any) -> float:
    """Of a checkpoint that was saved without a held-out loss: never the best."""
    return float(metrics["loss"]) if metrics and "loss" in metrics else math.inf


def _described(tree: PyTree) -> dict[str, str]:
    """{path: "float32 (3, 3)"}, the same text for arrays, ShapeDtypeStructs and Orbax metadata; containers without leaves drop out."""
    described = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
            described[leaf_path(path)] = f"{np.dtype(leaf.dtype)} {tuple(leaf.shape)}"
    return described


def load_params(workdir: str | Path, abstract: Params, step: int | str | None = None) -> tuple[Params, int]:
    """Parameters of a workdir to sample from (averaged where trained so) and their step: the latest, "best", or a number.

    `abstract` is the tree of shapes, as from eval_shape(model.init, key); leaves without a sharding go whole to the first device.
    Reads only that item of the checkpoint and changes nothing in the workdir. Raises CheckpointError.
    """
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    placed = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None) or here), abstract)
    with Checkpoints(Path(workdir) / "checkpoints", read_only=True) as saved:
        params, found, _ = saved.restore_params(placed, saved.best() if step == "best" else step)
    return params, found
