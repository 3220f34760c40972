"""The folder of a study: what is known of every trial, and how the launcher that holds it and the workers speak through files.

    study.json            what is searched and how every trial stands; written by the launcher alone, read by reports
    journal.jsonl|.log    what was asked and told (launch/search.py, launch/optuna_search.py), unless a database keeps it
    trials/0007/          the workdir of a trial: config.json, train.log, heartbeat, STOP, and what `train` writes
    queue/0007.json       a ticket: a trial that waits for a worker
    claims/0007.json      the ticket in a worker's hands: renamed, so that two cannot take it
    results/0007.json     how the worker's attempt ended
    workers/NAME.json     a worker's sign of life
    best.py               the config of the best trial, once there is one

A worker needs nothing but to see the folder. Whether one lives is told by its heartbeat changing, not by anybody's clock.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import math
import os
import pprint
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.command import LaunchError, last_rows, read_json, write_json, write_text

FOLDERS = ("trials", "queue", "claims", "results", "workers")
ENDED = ("complete", "pruned", "failed")


@dataclasses.dataclass
class Trial:
    """A trial as study.json holds it. `value` is the metric at the end, `best` the best one on the way, `step` the last that was logged.

    `attempts` counts its starts, `failures` those in a row that got no further than the checkpoint that they began from.
    """

    number: int
    params: dict[str, Any]
    state: str = "waiting"  # running, complete, pruned, failed
    value: float | None = None
    best: float | None = None
    step: int = 0
    attempts: int = 0
    failures: int = 0
    reached: int = -1  # the newest checkpoint when the last attempt ended
    seconds: float = 0.0
    parameters: int | None = None
    worker: str = ""
    line: str = ""  # why it failed

    @property
    def ended(self) -> bool:
        return self.state in ENDED


class Folder:
    """The paths of a study, and its tickets."""

    def __init__(self, path: Path):
        self.path = path

    def make(self) -> None:
        for name in FOLDERS:
            (self.path / name).mkdir(parents=True, exist_ok=True)

    def workdir(self, number: int) -> Path:
        return self.path / "trials" / f"{number:04d}"

    def file(self, place: str, number: int) -> Path:
        return self.path / place / f"{number:04d}.json"

    def numbers(self, place: str) -> list[int]:
        """Trials with a file in queue, claims or results, lowest first."""
        return sorted(int(path.stem) for path in (self.path / place).glob("[0-9]*.json"))

    # -- a worker's side

    def claim(self) -> dict[str, Any] | None:
        """The first ticket that no other worker is faster to take; None where none waits."""
        for number in self.numbers("queue"):
            taken = self.file("claims", number)
            with contextlib.suppress(FileNotFoundError):
                os.rename(self.file("queue", number), taken)
                return read_json(taken)
        return None

    def holds(self, ticket: Mapping[str, Any]) -> bool:
        """Whether the claim is still this worker's: a trial that was thought lost has been given to another."""
        found = read_json(self.file("claims", ticket["number"]))
        return found is not None and found.get("attempt") == ticket["attempt"]

    def result(self, ticket: Mapping[str, Any], **facts: Any) -> None:
        """How the attempt ended; the claim ends with it."""
        write_json(self.file("results", ticket["number"]), {"number": ticket["number"], "attempt": ticket["attempt"], **facts})
        self.file("claims", ticket["number"]).unlink(missing_ok=True)

    # -- the launcher's side

    def enqueue(self, trial: Trial, command: Sequence[str]) -> None:
        """Let a worker have the trial: its next attempt, by `command`, to which the worker adds the workdir as it sees it."""
        trial.state, trial.attempts = "waiting", trial.attempts + 1
        (self.workdir(trial.number) / "heartbeat").unlink(missing_ok=True)
        self.file("claims", trial.number).unlink(missing_ok=True)
        self.file("results", trial.number).unlink(missing_ok=True)
        write_json(self.file("queue", trial.number), {"number": trial.number, "attempt": trial.attempts, "command": list(command)})

    def save(self, head: Mapping[str, Any], trials: Sequence[Trial]) -> None:
        """study.json."""
        write_text(self.path / "study.json", json.dumps({**head, "trials": [dataclasses.asdict(trial) for trial in trials]}) + "\n")

    def load(self) -> tuple[dict[str, Any], dict[int, Trial]] | None:
        """What study.json holds: its head, and the trials by number; None where there is no study. Raises LaunchError."""
        file = self.path / "study.json"
        if not file.exists():
            return None
        try:
            head = json.loads(file.read_text(encoding="utf-8"))
            return head, {row["number"]: Trial(**row) for row in head.pop("trials")}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LaunchError(f"{file} cannot be read ({type(error).__name__}: {error}): restore it, or begin another --study") from error


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the study for this process; the kernel lets go of it however the process ends. Raises LaunchError naming who holds it."""
    file = path / ".lock"
    try:
        path.mkdir(parents=True, exist_ok=True)
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise LaunchError(f"cannot make the study {path} ({error.strerror or error}): give another --study") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            who = read_json(file) or {"pid": "unknown", "host": "this host"}
            raise LaunchError(
                f"the study {path} is held by launcher {who['pid']} on {who['host']}: end it first; to help it, "
                f"python -m launch.worker --study={path}"
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "start": time.time()}).encode(), 0)
        yield
    finally:
        os.close(handle)


# -- what a workdir says of its trial ----------------------------------------------------------------------------------------


def newest_checkpoint(workdir: Path) -> int:
    """The step of the last checkpoint; -1 where there is none."""
    return max((int(path.name) for path in (workdir / "checkpoints").glob("[0-9]*") if path.name.isdigit()), default=-1)


def progress(workdir: Path, metric: str) -> tuple[int, list[tuple[int, float]]]:
    """The last step that was logged, and (step, value) of the metric where it stands, from the end of metrics.jsonl."""
    rows = [row for row in last_rows(workdir / "metrics.jsonl") if isinstance(row.get("step"), int)]
    values = [(row["step"], float(row[metric])) for row in rows if isinstance(row.get(metric), int | float)]
    return (rows[-1]["step"] if rows else 0), values


def known_metrics(workdir: Path) -> list[str]:
    """Names in metrics.jsonl, for a message."""
    return sorted({name for row in last_rows(workdir / "metrics.jsonl") for name in row} - {"step"})


def better(value: float | None, than: float | None, goal: str) -> bool:
    """Whether a value beats another; one that is missing or no number never does."""
    if value is None or math.isnan(value):
        return False
    return than is None or math.isnan(than) or (value < than if goal == "min" else value > than)


def best_of(trials: Sequence[Trial], goal: str) -> Trial | None:
    """The complete trial with the best value; the earlier one of equals."""
    found: Trial | None = None
    for trial in trials:
        if trial.state == "complete" and better(trial.value, found.value if found else None, goal):
            found = trial
    return found


def write_best(folder: Folder, head: Mapping[str, Any], trial: Trial) -> Path:
    """The best trial's config as a config file, complete and without the base that it came from."""
    config = read_json(folder.workdir(trial.number) / "config.json")
    config.get("data", {}).pop("stats", None)  # fitted anew from the data
    file, count = folder.path / "best.py", sum(1 for _ in (folder.path / "trials").iterdir())
    lines = [
        f'"""Trial {trial.number} of {count}: {head["metric"]} {trial.value:.6g}, the best of a sweep over {head["config"]}.',
        "",
        f"    python -m experiments.train --config={file} --workdir=WORKDIR",
        "",
        "What the sweep chose:",
        *(f"    {key} = {value!r}" for key, value in trial.params.items()),
        '"""',
        "",
        "from typing import Any",
        "",
        "CONFIG: dict[str, Any] = " + pprint.pformat(config, width=120, sort_dicts=False),
        "",
        "",
        "def get_config() -> dict[str, Any]:",
        "    return CONFIG",
    ]
    write_text(file, "\n".join(lines) + "\n")
    return file
