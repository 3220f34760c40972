"""Several processes that act as one: how they find each other, wait for each other, agree, and gather what is spread over them.

The runtime is JAX's own (`jax.distributed`): its coordination service, run by process 0, also carries the few words that the processes
say to each other here, as keys and values. With one process every function below is a shortcut.

JAX answers a failed start by aborting in C++ (pages of stack, no Python exception). So processes whose addresses are given by hand call
the roll first (parallel/roll.py); where JAX finds the addresses itself (SLURM, TPU, GKE) a timer ends a start that nobody joins.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
from jax._src import distributed  # the coordination service's keys and barriers have no public name
from jax.experimental import multihost_utils

from causal_gen.parallel.roll import LOOPBACK, PATIENCE, HostsError, call_roll, late
from causal_gen.types import PyTree

INTERVAL = 0.5  # seconds between two decisions of process 0, at least a step
KEPT = 100  # decisions that stay readable; a process that is further behind than that cannot be


# -- start and end -----------------------------------------------------------------------------------------------------------


def connect(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    *,
    initialization_timeout: int = 300,
    heartbeat_timeout: int = 100,
) -> None:
    """Join the other processes; before any device is touched. Without arguments JAX asks SLURM, the TPU's metadata or GKE.

    `coordinator` is HOST:PORT of process 0. Times in seconds: how long to wait for all to come, and after how long without a sign of life
    a process counts as lost (JAX then ends all others). Raises HostsError.
    """
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM away from whoever handles it
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    where: dict[str, Any] = {}
    if any(value is not None for value in (coordinator, processes, process)):
        host = call_roll(coordinator, processes, process, initialization_timeout)
        where = {"coordinator_address": coordinator, "num_processes": processes, "process_id": process}
        where["cluster_detection_method"] = "deactivate"
        if host in LOOPBACK:  # JAX would listen on every interface
            where["coordinator_bind_address"] = coordinator
    place = f" at {coordinator}" if coordinator else ""
    with limited(initialization_timeout, late(place, initialization_timeout)):  # JAX itself would abort with a stack
        try:
            jax.distributed.initialize(
                **where, initialization_timeout=initialization_timeout + 60, heartbeat_timeout_seconds=heartbeat_timeout
            )  # fmt: skip
        except ValueError as error:  # from the detection: nothing was started yet
            raise HostsError(f"no cluster was found ({error}): give --coordinator=HOST:PORT --processes=N --process=K") from error
    _client().key_value_set(f"hosts/{index()}", f"{socket.gethostname()}, pid {os.getpid()}")


def leave() -> None:
    """Wait for all to be done, then part. Only for a process that ended well: one that failed must go at once, or it holds the others."""
    if count() > 1:
        barrier("the end of the command")
        jax.distributed.shutdown()


def abandon(code: int) -> NoReturn:
    """End this process with an exit code, where others may still be waiting for it: JAX's own end would wait for them in turn."""
    sys.stdout.flush()
    sys.stderr.flush()
    if first():
        time.sleep(1)  # with process 0 goes the coordinator, and JAX aborts whoever has not said yet why it ends
    os._exit(code)


@contextlib.contextmanager
def limited(seconds: float, line: str) -> Iterator[None]:
    """End this process with `line` if the block takes longer: for work that Python cannot stop, as joining others and compiling."""

    def end() -> None:
        print(f"error: {line}", file=sys.stderr, flush=True)
        os._exit(2)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


# -- who is who --------------------------------------------------------------------------------------------------------------


def count() -> int:
    """How many processes train together; 1 of a process alone."""
    return distributed.global_state.num_processes if distributed.global_state.client is not None else 1


def index() -> int:
    """Which of them this is, from 0."""
    return distributed.global_state.process_id if distributed.global_state.client is not None else 0


def first() -> bool:
    """Whether this process writes what is written once: pictures, metrics, config.json, answers."""
    return index() == 0


def _client() -> Any:
    return distributed.global_state.client


def _name(process: int) -> str:
    try:
        return f"process {process} ({_client().key_value_try_get(f'hosts/{process}')})"
    except jax.errors.JaxRuntimeError:
        return f"process {process}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# -- words for all -----------------------------------------------------------------------------------------------------------


def post(key: str, word: str) -> None:
    """A word that every process can read from now on. The first one under a key stands."""
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        _client().key_value_set(key, word)


def posted(key: str) -> str | None:
    """The word under `key`, None where there is none, or none any more: this process has left."""
    client = _client()
    try:
        return None if client is None else client.key_value_try_get(key)
    except jax.errors.JaxRuntimeError as error:
        if "NOT_FOUND" not in str(error):
            raise
        return None


def posts(folder: str) -> int:
    """How many words there are under `folder`/."""
    return len(_client().key_value_dir_get(folder))


# -- waiting and agreeing ----------------------------------------------------------------------------------------------------

_counter = itertools.count()  # every process enters the calls below in one order, so that the same number means the same call


def barrier(name: str, timeout: float = 3600.0) -> None:
    """Wait until every process has come here. After PATIENCE seconds, and again and again, says what for and for whom.

    Raises HostsError after `timeout` seconds.
    """
    if count() == 1:
        return
    key, began, passed = f"barrier/{next(_counter)}", time.monotonic(), threading.Event()
    _client().key_value_set(f"{key}/{index()}", name)

    def absent() -> str:
        here = {int(entry.rpartition("/")[2]) for entry, _ in _client().key_value_dir_get(key)}
        others = [_name(k) for k in range(count()) if k not in here]
        return ", ".join(others[:4]) + (f" and {len(others) - 4} more" if len(others) > 4 else "")

    def tell() -> None:
        while not passed.wait(PATIENCE):
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                _say(f'process {index()} has waited {time.monotonic() - began:.0f} s at "{name}" for {absent() or "an answer"}')

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        _client().wait_at_barrier(key, int(timeout * 1000))
    except jax.errors.JaxRuntimeError as error:
        raise HostsError(f'{absent() or "a process"} did not come to "{name}" within {timeout:.0f} s; see its log') from error
    finally:
        passed.set()
        teller.join()
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        _client().key_value_delete(f"{key}/{index()}")


def agree(what: str, facts: Mapping[str, Any], timeout: float = 600.0) -> None:
    """See that `facts` are the same on every process. Raises HostsError on all of them, naming a host and the first key that differs.

    `facts` is nested and JSON-able; the others are waited for `timeout` seconds.
    """
    if count() == 1:
        return
    key, text = f"agree/{next(_counter)}", json.dumps(facts, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()
    _client().key_value_set(f"{key}/facts/{index()}", text)
    _client().key_value_set(f"{key}/digest/{index()}", digest)
    barrier(f"comparing {what}", timeout)
    if first():  # alone, so that a thousand hosts do not each read the facts of a thousand
        digests = {int(entry.rpartition("/")[2]): value for entry, value in _client().key_value_dir_get(f"{key}/digest")}
        odd = next((k for k in sorted(digests) if digests[k] != digest), None)
        problem = "" if odd is None else _difference(what, text, odd, _client().key_value_try_get(f"{key}/facts/{odd}"))
        _client().key_value_set(f"{key}/verdict", problem)
    problem = _client().blocking_key_value_get(f"{key}/verdict", int(timeout * 1000))
    _client().key_value_delete(f"{key}/facts/{index()}")
    if problem:
        barrier("the end of the comparison", 60)  # all have read it before the first of them goes
        raise HostsError(problem)


def _difference(what: str, mine: str, process: int, theirs: str) -> str:
    here, there = flat(json.loads(mine)), flat(json.loads(theirs))
    key = min(name for name in here.keys() | there.keys() if here.get(name, "absent") != there.get(name, "absent"))
    values = [json.dumps(found[key])[:80] if key in found else "absent" for found in (there, here)]
    return f"{what}: {key} is {values[0]} on {_name(process)}, {values[1]} on {_name(0)}: start all processes with the same"


def flat(tree: Any, path: str = "") -> dict[str, Any]:
    """{dotted path: value} of nested mappings; tuples as lists, as JSON would hold them."""
    if isinstance(tree, Mapping):
        return {k: v for name, value in tree.items() for k, v in flat(value, f"{path}.{name}" if path else str(name)).items()}
    return {path: list(tree) if isinstance(tree, tuple) else tree}


def agree_on_run(config: Mapping[str, Any]) -> None:
    """`agree` on what all processes of a run share: jax, every file of the package, the config. Where its data lie may differ."""
    if count() == 1:
        return
    root = Path(__file__).resolve().parents[1]
    files = {path.relative_to(root.parent).as_posix(): path for path in sorted(root.rglob("*.py"))}
    code = {name: hashlib.sha256(path.read_bytes()).hexdigest()[:12] for name, path in files.items()}
    shared = {section: dict(body) for section, body in config.items()}
    shared.get("data", {}).pop("root", None)
    agree("config or code", {"config": shared, "code": code, "jax": jax.__version__})


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What holds at a step boundary: whether a signal asks to stop, whether the time is over, the schedule's pace, and what ends all
    processes with an error (train/guard.py)."""

    interrupted: bool
    over: bool
    pace: float
    problem: str = ""


class Council:
    """Makes one verdict of all processes'. Process 0's clock decides, and a signal to any one process counts for all.

    Process 0 decides at some steps only, about every INTERVAL seconds, and says each time at which step next; between them the verdict
    stands. A process that gets to such a step early waits there for process 0, which never waits for anybody here. So all stop after the
    same step, and a step costs nothing.
    """

    def __init__(self) -> None:
        self._scope = f"council/{next(_counter)}"
        self._call, self._next, self._gap, self._decided, self._time = -1, 0, 1, -1, time.monotonic()
        self._last, self._told = Verdict(False, False, 0.0), False
        self._said: list[str] = []

    def asked(self, own: bool) -> bool:
        """Whether a signal has come to any process, `own` to this one: true of all soon, but not of all at once, so that only work may end
        by it in which no process waits for another, and that all `hear` of after it, at once."""
        if count() == 1:
            return own
        if own and not self._told:
            post(f"{self._scope}/asked/{index()}", "signal")
            self._told = True
        return own or posts(f"{self._scope}/asked") > 0

    def hear(self, own: Verdict, at_once: bool = False) -> Verdict:
        """The verdict at a step boundary. Every process calls this at every boundary: the same number of times, whatever the step, and
        `at_once` at the same ones: there process 0 decides in any case."""
        if count() == 1:
            return own
        self._call += 1
        if own.interrupted:
            self.asked(True)
        if self._call == self._next or at_once:
            decided = self._decide(own) if first() else json.loads(self._await(f"{self._scope}/{self._call}"))
            self._next = decided["next"]
            self._last = Verdict(decided["interrupted"], decided["over"], decided["pace"], decided["problem"])
        return self._last

    def _decide(self, own: Verdict) -> dict[str, Any]:
        now = time.monotonic()
        if self._said:
            wished = (self._call - self._decided) * INTERVAL / max(now - self._time, 1e-3)
            self._gap = max(1, min(int(wished), 2 * self._gap, 1000))
        self._decided, self._time = self._call, now
        asked = posts(f"{self._scope}/asked") > 0
        decided = {"interrupted": asked, "over": own.over, "pace": own.pace, "problem": own.problem, "next": self._call + self._gap}
        self._said.append(f"{self._scope}/{self._call}")
        _client().key_value_set(self._said[-1], json.dumps(decided))
        if len(self._said) > KEPT:
            _client().key_value_delete(self._said.pop(0))
        return decided

    def _await(self, key: str) -> str:
        began = time.monotonic()
        while True:
            try:
                return _client().blocking_key_value_get(key, int(PATIENCE * 1000))
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise
                _say(f'process {index()} has waited {time.monotonic() - began:.0f} s at "decision {self._call}" for {_name(0)}')


def gather(tree: PyTree) -> PyTree:
    """A tree whose arrays process 0 can use alone: with several processes host arrays, whole on each. Every process has to call it."""

    def whole(leaf: Any) -> np.ndarray:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable and not leaf.is_fully_replicated:
            return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
        return np.asarray(leaf)

    return tree if count() == 1 else jax.tree.map(whole, tree)


def of_first(value: bool) -> bool:
    """What process 0 says."""
    return value if count() == 1 else bool(multihost_utils.broadcast_one_to_all(np.array(value)))


def highest(value: int) -> int:
    """The largest that any process says."""
    return value if count() == 1 else int(np.max(multihost_utils.process_allgather(np.array(value))))


def once(write: Callable[..., Any], *args: Any) -> None:
    """Let process 0 alone call `write`; the others wait for it."""
    if first():
        write(*args)
    barrier("process 0 writes")
