"""A worker of a sweep: takes trials of a study one after another and runs them, wherever it sees the study's folder.

    python -m launch.worker --study=/shared/study          # on another machine, beside the launcher's own workers

It runs the command that the launcher wrote on the ticket, in this folder, gives a sign of life every second, and says how it ended. SIGTERM
and SIGINT are passed on: the trial saves, and goes on with another worker. It ends with its study, or after --idle seconds without work.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launch.command import LaunchError, Parser, end_with_parent, finish, read_json, write_json
from launch.study import Folder, newest_checkpoint

BEAT, POLL = 1.0, 0.1  # seconds
PATIENCE = 60.0  # seconds for whoever still holds a workdir to let go of it
MARK = "-- attempt "  # begins a line of train.log, before those of each attempt
GRACE = 110.0  # seconds for a trial to save before it is killed: less than the two minutes that SLURM gives


class Worker:
    """Its heartbeat, and the trial that it runs."""

    def __init__(self, folder: Folder, name: str, idle: float):
        self._folder, self._name, self._idle = folder, name, idle
        self._asked: float | None = None  # when it was told to end
        self._beats, self._beaten = 0, -BEAT

    def run(self) -> int:
        """Until the study is over, or a signal; returns the exit code."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)
        since = time.monotonic()
        while self._asked is None:
            self._beat(None)
            ticket = self._folder.claim()
            if ticket is not None:
                self._attempt(ticket)
                since = time.monotonic()
                continue
            over = (read_json(self._folder.path / "study.json") or {}).get("state") == "over"
            if over or time.monotonic() - since > self._idle:
                print(f"worker {self._name}: {'the study is over' if over else 'no work'}", flush=True)
                break
            time.sleep(2 * POLL)
        self._sign().unlink(missing_ok=True)
        return 0

    def _note(self, number: int, frame: Any) -> None:
        del number, frame
        self._asked = self._asked or time.monotonic()

    def _sign(self) -> Path:
        return self._folder.path / "workers" / f"{self._name}.json"

    def _beat(self, ticket: dict[str, Any] | None) -> None:
        if time.monotonic() < self._beaten + BEAT:
            return
        self._beats, self._beaten = self._beats + 1, time.monotonic()
        sign = {"worker": self._name, "host": socket.gethostname(), "pid": os.getpid(), "beat": self._beats}
        with contextlib.suppress(OSError):  # a full disk is told of by what cannot do without it
            write_json(self._sign(), {**sign, "trial": None if ticket is None else ticket["number"]})
            if ticket is not None:
                write_json(self._folder.workdir(ticket["number"]) / "heartbeat", {**sign, "attempt": ticket["attempt"]})

    def _attempt(self, ticket: dict[str, Any]) -> None:
        """Run a ticket's command to its end, and say how it went."""
        workdir, began = self._folder.workdir(ticket["number"]), time.monotonic()
        self._beaten = -BEAT
        self._beat(ticket)
        kept, code, line, stopped = self._free(workdir, ticket), 0, "", True
        if kept and self._asked is None:
            with open(workdir / "train.log", "ab") as log:
                log.write(f"{MARK}{ticket['attempt']} by {self._name}, from step {max(newest_checkpoint(workdir), 0)}\n".encode())
                log.flush()
                child = subprocess.Popen(
                    words(ticket["command"], workdir),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C reaches the launcher alone, which passes it on
                    preexec_fn=end_with_parent,
                    env={**os.environ, "PYTHONUNBUFFERED": "1"},
                )
                kept = self._watch(child, ticket)
            code = child.returncode
            line, stopped = last_words(workdir / "train.log")
        if kept:
            facts = {"code": code, "line": line, "stopped": stopped, "asked": self._asked is not None}
            self._folder.result(ticket, **facts, seconds=time.monotonic() - began, worker=self._name)

    def _watch(self, child: subprocess.Popen[bytes], ticket: dict[str, Any]) -> bool:
        """Until the child has ended; False where the trial was given to another meanwhile."""
        kept, told = True, False
        while child.poll() is None:
            self._beat(ticket)
            kept = kept and self._folder.holds(ticket)
            if not told and (self._asked is not None or not kept):
                child.terminate()
                told = True
            if self._asked is not None and time.monotonic() - self._asked > GRACE:
                child.kill()
            time.sleep(POLL)
        return kept

    def _free(self, workdir: Path, ticket: dict[str, Any]) -> bool:
        """Wait until nobody trains in the workdir: the process of a worker that was killed saves first. False where it was taken away."""
        end, killed = time.monotonic() + PATIENCE, False
        while self._asked is None and is_held(workdir):
            self._beat(ticket)
            if not self._folder.holds(ticket):
                return False
            if time.monotonic() > end and not killed:
                end_holder(workdir)
                killed = True
            time.sleep(POLL)
        return True


def words(command: Sequence[str], workdir: Path) -> list[str]:
    """A ticket's command as this worker runs it: by its own Python, in the workdir where it sees it."""
    begin = [sys.executable] if command[0] == "python" else [command[0]]
    return [*begin, *command[1:], f"--workdir={workdir}"]


def is_held(workdir: Path) -> bool:
    """Whether a process of this machine trains in the workdir."""
    try:
        handle = os.open(workdir / ".lock", os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(handle)


def end_holder(workdir: Path) -> None:
    """Kill what has held the workdir for too long, if it is a process of this machine."""
    record = read_json(workdir / ".lock") or {}
    if record.get("host") == socket.gethostname() and isinstance(record.get("pid"), int):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(record["pid"], signal.SIGKILL)


def last_words(log: Path, size: int = 8192) -> tuple[str, bool]:
    """What the last attempt in a log said at its end, its error where it names one; and whether `train` stopped before its last step."""
    try:
        with open(log, "rb") as file:
            file.seek(max(os.path.getsize(log) - size, 0))
            text = file.read().decode(errors="replace")
    except OSError:
        return "", False
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    begin = max((i for i, line in enumerate(lines) if line.startswith(MARK)), default=-1)
    lines = lines[begin + 1 :]
    errors = [line for line in lines if line.removeprefix("[0] ").startswith("error: ")]
    stopped = any("train: stopped at step" in line for line in lines)
    return (errors or lines or [""])[-1][:500], stopped


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    parser = Parser("worker", __doc__)
    parser.add_argument("--study", type=Path, required=True, help="folder of a study that a launcher holds")
    parser.add_argument("--name", default=f"{socket.gethostname()}-{os.getpid()}", help="what it is called in tables [host and process]")
    parser.add_argument("--idle", type=float, default=600.0, help="seconds without work after which it ends [600]")
    options = parser.parse_args(argv)
    if not (options.study / "study.json").is_file():
        raise LaunchError(f"--study={options.study}: holds no study; python -m launch.sweep makes one")
    return Worker(Folder(options.study), options.name, options.idle).run()


if __name__ == "__main__":
    finish(main)
