"""Checkpoints: the only place that knows Orbax.

A checkpoint is one atomic folder with the items `params`, `ema` (if kept), `rest` (optimiser and step), `meta` (JSON: the config
with its normalisation, the graph, seconds trained) and `hashes` (JSON: the format, and one number a leaf). When it is finished it is read
back, and if it is what the devices held, the manifest of its files is added. Orbax restores a flipped bit without a word, casts dtypes in
silence, and prints thousands of lines for a shape that differs; so files, format, shapes and dtypes are compared before arrays are
read, and hashes after. What is damaged or unfinished is skipped, aloud, for the next older one.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath  # the paths that Orbax speaks, and installs

from causal_gen.parallel import hosts
from causal_gen.parallel.rules import leaf_path
from causal_gen.train import checkpoint_manifest as manifest
from causal_gen.train import checkpoint_match as match
from causal_gen.train import checkpoint_noise as noise
from causal_gen.train import checkpoint_retention as retention
from causal_gen.train.checkpoint_hash import hash_host, hashes
from causal_gen.train.checkpoint_retention import CheckpointConfig
from causal_gen.train.state import State
from causal_gen.types import CheckpointError, Params, PyTree

T = TypeVar("T")
ARRAYS = ("params", "ema", "rest")
TEXTS = ("meta", "hashes")
FORMAT = 2  # of the item hashes; 1, which had no number, was {path of a leaf: hash}
UNFINISHED = ".orbax-checkpoint-tmp"  # ends the name of a folder that is being written
Wanted = Callable[[int, Mapping[str, str]], dict[str, PyTree]]  # (step, {path: hash}) -> {item: abstract tree}


class DamagedError(CheckpointError):
    """A checkpoint that is not what was saved. The message is the reason alone."""


class Checkpoints:
    """The checkpoints of one workdir, in `folder`. Raises CheckpointError, one line, for whatever cannot be written or read."""

    def __init__(self, folder: str | Path, config: CheckpointConfig | None = None, *, read_only: bool = False):
        self.folder, self._config, self._read_only = Path(folder).absolute(), config or CheckpointConfig(), read_only
        self._writing: int | None = None
        self._sealing: threading.Thread | None = None
        self._unsealed: Exception | None = None
        if read_only and not self.folder.is_dir():
            raise CheckpointError(f"no checkpoints in {self.folder}: train first, or give another workdir")
        for path in sorted(self.folder.glob(f"*{UNFINISHED}*")):
            _say(f"checkpoint {path.name.partition('.')[0]} does not count: it is unfinished, by a kill or because a run still writes it")
        self._scope = contextlib.ExitStack()
        self._scope.enter_context(noise.quiet())
        try:
            self._manager = self._open()
            if not read_only and hosts.first():
                with tempfile.TemporaryFile(dir=self.folder):  # a folder that takes no file is better told of now than at the first save
                    pass
        except OSError as error:
            self._scope.close()
            raise CheckpointError(f"cannot write {self.folder} ({noise.line(error)}): give a --workdir that can be written") from error

    def _open(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            create=not self._read_only,
            read_only=self._read_only,
            save_interval_steps=0 if self._read_only else 1,
            cleanup_tmp_directories=not self._read_only,
            best_fn=retention.loss_of,  # or no metrics are stored
            best_mode="min",
            preservation_policy=retention.Policy(self.folder, self._config),
            lightweight_initialize=True,  # or one unreadable file of metrics in an old checkpoint would keep all from being opened
        )
        # named handlers, since a manager that has not saved yet cannot otherwise describe what lies on disk
        handlers = {**{name: ocp.PyTreeCheckpointHandler() for name in ARRAYS}, **{name: ocp.JsonCheckpointHandler() for name in TEXTS}}
        return ocp.CheckpointManager(self.folder, options=options, item_handlers=handlers)

    def steps(self) -> list[int]:
        """The steps of which there is a checkpoint, ascending."""
        return sorted(self._manager.all_steps())

    def latest(self) -> int | None:
        """The newest of them; None where there is none."""
        return max(self.steps(), default=None)

    def best(self) -> int | None:
        """The step with the lowest held-out loss; the latest where none was measured."""
        return next(iter(retention.best(retention.stored_losses(self.folder, self.steps()), 1)), self.latest())

    # -- writing

    def save(self, step: int, state: State, meta: Mapping[str, Any], loss: float | None = None) -> bool:
        """Write in the background; the state may be donated at once. `loss` is the held-out loss. False if `step` is there already."""
        if step in self.steps():
            return False
        items = _items(state)
        leaves = hashes(items)
        saved = {name: ocp.args.PyTreeSave(tree) for name, tree in items.items()}
        texts = {"meta": ocp.args.JsonSave(dict(meta)), "hashes": ocp.args.JsonSave({"format": FORMAT, "leaves": leaves})}
        self.wait()  # so that an error of the save before is told of that one
        self._writing = step
        if not self.folder.is_dir():
            raise CheckpointError(
                f"cannot write checkpoint {step}: {self.folder} was removed while the run went on; put it back and run again"
            )
        try:
            metrics = None if loss is None else {"loss": float(loss)}
            begun = bool(self._manager.save(step, args=ocp.args.Composite(**saved, **texts), metrics=metrics))
        except Exception as error:
            raise self._unwritten(error) from error
        if begun and hosts.first():
            self._sealing = threading.Thread(target=self._seal, args=(step, leaves), name=f"seal-{step}")
            self._sealing.start()
        return begun

    def _seal(self, step: int, leaves: Mapping[str, str]) -> None:
        """Read a finished checkpoint back, without the devices, and if it is what they held, write its manifest."""
        try:
            self._manager.wait_until_finished()
        except Exception:  # wait() tells of it: Orbax raises once in every thread that asks
            return
        try:
            folder = self.folder / str(step)
            for item in sorted({path.partition("/")[0] for path in leaves}):
                for path, leaf in jax.tree_util.tree_leaves_with_path(_read_back(folder / item)):
                    name = f"{item}/{leaf_path(path)}"
                    if hash_host(leaf) != leaves.get(name):
                        _say(f"checkpoint {step} did not come back from disk as it was saved ({name}): a restart will skip it")
                        return
            manifest.write(folder)
        except Exception as error:
            self._unsealed = error

    def wait(self) -> None:
        """Until everything is on disk, the manifest as well."""
        try:
            self._manager.wait_until_finished()
            if self._sealing is not None:
                self._sealing.join()
            error, self._unsealed = self._unsealed, None
            if error is not None:
                raise error
        except Exception as error:
            raise self._unwritten(error) from error

    def _unwritten(self, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"cannot write checkpoint {self._writing} to {self.folder} ({noise.line(error)}): free space or rights there and run again; "
            "earlier checkpoints are untouched"
        )

    def close(self) -> None:
        """Wait for what is being written, and let go."""
        with self._scope:
            try:
                self.wait()
            finally:
                self._manager.close()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            self.close()
        except Exception as error:  # a write in the background that failed must not hide the error that ended the run
            if kind is None:
                raise error if isinstance(error, CheckpointError) else self._unwritten(error) from error

    # -- reading

    def meta(self, step: int) -> dict[str, Any]:
        """The JSON that travels with a checkpoint."""
        return self._read(step, {"meta": ocp.args.JsonRestore()})["meta"]

    def restore(self, abstract: State, step: int | None = None) -> tuple[State, dict[str, Any]]:
        """The state (default: of the newest step that is whole) and its meta; `abstract` is a State of ShapeDtypeStructs with shardings.

        Damaged steps that were skipped for it are set aside as `damaged-STEP`, so that the run can save those steps again.
        """
        found, read, skipped = self._load(step, lambda _, leaves: _items(abstract), whole=True)
        if not self._read_only and skipped:
            self._set_aside(skipped)
        rest = read["rest"]
        pace = None if abstract.pace is None else jnp.zeros((), abstract.pace.dtype, device=abstract.pace.sharding)  # the clock's to write
        return State(params=read["params"], ema=read.get("ema"), opt=rest["opt"], step=rest["step"], pace=pace), read["meta"]

    def restore_params(self, abstract: Params, step: int | str | None = None) -> tuple[Params, int, dict[str, Any]]:
        """Parameters to sample from: the averaged ones where they were kept. Reads nothing else of the state."""
        found, read, _ = self._load(step, lambda _, leaves: {_sampled(leaves): abstract})
        return read[next(name for name in ARRAYS if name in read)], found, read["meta"]

    def stored(self, step: int | str | None = None) -> tuple[str, Params, int, dict[str, Any]]:
        """What is sampled from as it lies on disk, of whatever model: (item, nested dicts of arrays on the first device, step, meta)."""
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])

        def wanted(step: int, leaves: Mapping[str, str]) -> dict[str, PyTree]:
            item = _sampled(leaves)
            shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), self._metadata(step, item))
            return {item: shapes}

        found, read, _ = self._load(step, wanted)
        item = next(name for name in ARRAYS if name in read)
        return item, read[item], found, read["meta"]

    def _load(self, step: int | str | None, wanted: Wanted, whole: bool = False) -> tuple[int, dict[str, Any], list[int]]:
        """(step, items read, steps skipped): of `step`, or of the newest step that is not damaged."""
        steps = self.steps()
        if not steps:
            raise CheckpointError(f"no checkpoint in {self.folder}: train first, or give another workdir")
        if step is not None:
            if step not in steps:
                raise CheckpointError(f"no checkpoint of step {step} in {self.folder}: there are {', '.join(map(str, steps))}")
            try:
                return int(step), self._verified(int(step), wanted, whole), []
            except DamagedError as error:
                others = [str(other) for other in steps if other != step]
                others = f"take another step ({', '.join(others)})" if others else "restore a copy of it"
                raise CheckpointError(f"checkpoint {step} in {self.folder} is damaged: {error}; {others}") from error
        reasons: dict[int, str] = {}
        for one in reversed(steps):
            try:
                return one, self._verified(one, wanted, whole), list(reasons)
            except DamagedError as error:
                reasons[one] = str(error)
                _say(f"checkpoint {one} is skipped: {error}")
        told = "; ".join(f"{one}: {reason}" for one, reason in reasons.items())
        raise CheckpointError(
            f"no checkpoint in {self.folder} is whole ({told}): restore a copy, or move the folder away to train from step 0"
        )

    def _verified(self, step: int, wanted: Wanted, whole: bool) -> dict[str, Any]:
        """One checkpoint, in stages that succeed in every process or raise in every process, so that none waits for another for ever."""
        folder = self.folder / str(step)
        texts = _together(lambda: self._read(step, {name: ocp.args.JsonRestore() for name in TEXTS}))
        sealed = hosts.of_first(manifest.present(folder))
        leaves = _together(lambda: self._leaves(step, texts["hashes"], sealed))
        shapes = _together(lambda: wanted(step, leaves))
        if not sealed:
            _say(f"checkpoint {step} has no {manifest.NAME} (killed before it, still being written, or older code): its hashes decide")
        elif self._config.verify_files:
            _together(lambda: self._check_files(step, None if whole else (*shapes, *TEXTS)))
        _together(lambda: self._check_shapes(step, shapes))
        construct = ocp.checkpoint_utils.construct_restore_args
        args = {name: ocp.args.PyTreeRestore(tree, restore_args=construct(tree)) for name, tree in shapes.items()}
        read = _together(lambda: self._read(step, args))
        for path, value in hashes({name: read[name] for name in shapes}).items():
            if leaves.get(path) != value:
                raise DamagedError(f"{path} differs from what was saved")
        if whole and not sealed and not self._read_only and hosts.first():
            with contextlib.suppress(OSError):  # a disk that is full is told of by the next save
                manifest.write(folder)
        return {**read, "meta": texts["meta"]}

    def _leaves(self, step: int, stored: Any, sealed: bool) -> dict[str, str]:
        """{path: hash} of the item `hashes`. A format from the future stops: an older checkpoint in its stead would lose work."""
        if isinstance(stored, dict) and "format" not in stored:
            return stored  # format 1
        if not isinstance(stored, dict) or not isinstance(stored["format"], int) or not isinstance(stored.get("leaves"), dict):
            raise DamagedError("hashes/metadata is not what was written")
        if stored["format"] > FORMAT:
            if sealed:
                self._check_files(step, TEXTS)  # that number may itself be the damage
            raise CheckpointError(
                f"checkpoint {step} in {self.folder} has format {stored['format']}, and this version of the code reads up to {FORMAT}: "
                "update the code, or use a new workdir"
            )
        return stored["leaves"]

    def _check_files(self, step: int, items: Collection[str] | None) -> None:
        if not hosts.first():
            return
        try:
            reason = manifest.damage(self.folder / str(step), items)
        except PermissionError as error:
            raise CheckpointError(f"checkpoint {step} in {self.folder} may not be read ({noise.line(error)}): give it rights") from error
        except OSError as error:
            reason = noise.line(error)
        if reason:
            raise DamagedError(reason)

    def _check_shapes(self, step: int, wanted: Mapping[str, PyTree]) -> None:
        for name, tree in wanted.items():
            differs = match.mismatch(name, tree, self._metadata(step, name))
            if differs:
                raise CheckpointError(f"checkpoint {step} in {self.folder} {differs}")

    def _metadata(self, step: int, item: str) -> PyTree:
        """Shapes and dtypes of an item on disk; {} where there is no such item."""
        folder = self.folder / str(step) / item
        try:
            # item by item: the manager's own item_metadata opens every array of every item, wanted or not
            found: Any = ocp.PyTreeCheckpointHandler().metadata(epath.Path(folder)) if folder.is_dir() else {}
        except Exception as error:
            raise DamagedError(f"{item} cannot be read ({noise.line(error)})") from error
        return getattr(found, "tree", found)

    def _read(self, step: int, args: dict[str, Any]) -> dict[str, Any]:
        try:
            read = self._manager.restore(step, args=ocp.args.Composite(**args))
            return {name: read[name] for name in args}
        except Exception as error:
            time.sleep(0.2)  # late callbacks are filtered (checkpoint_noise) while the interpreter runs, but not while it ends
            if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
                raise CheckpointError(f"checkpoint {step} does not fit into memory ({noise.line(error)}): use more devices") from error
            raise DamagedError(f"it cannot be read ({noise.line(error)})") from error

    def _set_aside(self, steps: list[int]) -> None:
        """Rename, so that these steps can be saved again and nothing is lost."""
        self._manager.close()
        if hosts.first():
            for step in steps:
                names = (f"damaged-{step}" + (f"-{count}" if count > 1 else "") for count in itertools.count(1))
                aside = next(self.folder / name for name in names if not (self.folder / name).exists())
                try:
                    (self.folder / str(step)).rename(aside)
                except OSError as error:
                    raise CheckpointError(f"cannot move the damaged {self.folder / str(step)} away ({noise.line(error)}): do so") from error
                _say(f"the damaged checkpoint {step} is kept as {aside}, to look at or to delete")
        hosts.barrier("damaged checkpoints are set aside")
        self._manager = self._open()


def _say(text: str) -> None:
    if hosts.first():
        print(text, file=sys.stderr, flush=True)


def _together(work: Callable[[], T]) -> T:
    """What `work` gives where it succeeds in every process; else the same kind of error in all of them."""
    result: Any = None
    error: CheckpointError | None = None
    try:
        result = work()
    except CheckpointError as caught:
        error = caught
    kind = 0 if error is None else 1 if isinstance(error, DamagedError) else 2
    worst = hosts.highest(kind)
    if worst > kind:
        error = (CheckpointError if worst == 2 else DamagedError)("another process could not read it")
    if error is not None:
        raise error
    return result


def _items(state: State) -> dict[str, PyTree]:
    items = {"params": state.params, "ema": state.ema, "rest": {"opt": state.opt, "step": state.step}}
    return {name: tree for name, tree in items.items() if tree is not None}


def _sampled(leaves: Mapping[str, str]) -> str:
    """The item to sample from, by what was saved and not by what is there: a lost average must not be replaced in silence."""
    return "ema" if any(path.startswith("ema/") for path in leaves) else "params"


def _read_back(folder: Path) -> PyTree:
    """An item as numpy arrays, by this process alone."""
    handler = ocp.PyTreeCheckpointHandler()
    found: Any = handler.metadata(epath.Path(folder))
    how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), getattr(found, "tree", found))
    return handler.restore(epath.Path(folder), args=ocp.args.PyTreeRestore(restore_args=how))


def load_params(
    workdir: str | Path, abstract: Params, step: int | str | None = None, config: CheckpointConfig | None = None
) -> tuple[Params, int]:
    """Parameters of a workdir to sample from (averaged where trained so) and their step: the newest that is whole, "best", or a number.

    `abstract` is the tree of shapes, as from eval_shape(model.init, key); leaves without a sharding go whole to the first device.
    Reads only that item of the checkpoint and changes nothing in the workdir. Raises CheckpointError.
    """
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    placed = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None) or here), abstract)
    with Checkpoints(Path(workdir) / "checkpoints", config, read_only=True) as saved:
        params, found, _ = saved.restore_params(placed, saved.best() if step == "best" else step)
    return params, found
