"""The launcher of a sweep while it runs: asks for trials, hands them out, watches over workers and trials, and tells how they ended.

It alone speaks to the search, so that a storage sees one writer, and it computes nothing. A trial that ends is settled by how it ended:

    finished             complete, with the last value of the metric
    STOP in its workdir  pruned
    exit code 2          failed, with the line that it said: it would say it again
    anything else        its worker or another takes it up from its last checkpoint; failed after `failures` times without a new one
"""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launch import table
from launch.command import MENDABLE, LaunchError, end_with_parent, one_line, read_json, write_json, write_text
from launch.optuna_search import SECRET
from launch.search import OPEN, Search
from launch.space import place, spell
from launch.study import Folder, Trial, best_of, better, known_metrics, newest_checkpoint, progress, write_best
from launch.worker import last_words

POLL = 0.2  # seconds between two looks
LEAVE = 125.0  # seconds for workers to let their trials save
STILLBORN = 3  # workers in a row that end without a sign of life
BUSY = "is being trained by"  # train's line over a workdir that another process has: no mistake of the config
FULL = (os.strerror(28), os.strerror(122))  # ENOSPC and EDQUOT, in the line of a trial


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a launcher is to do: how many trials in all, with how many workers of its own, by which command.

    `failures` is after how many attempts without progress a trial has failed, `patience` after how many seconds without a heartbeat a
    worker is lost.
    """

    trials: int
    workers: int
    command: tuple[str, ...]
    failures: int = 3
    patience: float = 15.0


@dataclasses.dataclass
class Pulse:
    """A heartbeat as it was last seen, and when it last changed, by this launcher's clock."""

    beat: Any
    changed: float


class Supervisor:
    """One sweep. `head` is the part of study.json that does not change, `tree` the complete config under every trial."""

    def __init__(self, folder: Folder, head: dict[str, Any], tree: Mapping[str, Any], search: Search, trials: dict[int, Trial], plan: Plan):
        self._folder, self._head, self._tree, self._search, self._plan = folder, head, tree, search, plan
        self._trials = trials
        self._workers: dict[int, subprocess.Popen[bytes]] = {}
        self._pulses: dict[str, Pulse] = {}
        self._seen: dict[int, int] = {}  # the step up to which a trial's values have been reported
        self._exhausted, self._asked, self._changed, self._stillborn = False, 0, True, 0
        self._began = time.monotonic()
        self._view = table.View(sys.stdout)

    # -- from start to end

    def run(self) -> int:
        """Until all trials have ended or a signal comes; the exit code. Raises LaunchError where the storage or the disk refuses."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)
        self._folder.make()
        try:
            self._take_up()
            self._save("running")  # workers look whether there is a study, and whether it is over
            while not self._asked and not self._over():
                self._turn()
                time.sleep(POLL)
            self._end_workers()
        except BaseException as error:
            self._view.close()
            self._end_workers(said=one_line(error))
            raise
        self._settle_results()
        self._save("stopped" if self._asked and not self._over() else "over")
        self._view.close()
        return self._conclude()

    def _turn(self) -> None:
        """One look at everything."""
        self._keep_workers()
        self._settle_results()
        self._watch_trials()
        self._hand_out()
        if self._changed:
            self._save("running")
        self._view.show(self._head, list(self._trials.values()), self._plan.trials, time.monotonic() - self._began)

    def _note(self, number: int, frame: Any) -> None:
        del number, frame
        self._asked += 1
        if self._asked > 2:
            raise KeyboardInterrupt

    def _over(self) -> bool:
        enough = len(self._trials) >= self._plan.trials or self._exhausted
        return enough and all(trial.ended for trial in self._trials.values())

    def _save(self, state: str) -> None:
        self._folder.save({**self._head, "state": state, "best": getattr(self._best(), "number", None)}, self._ordered())
        self._changed = False

    def _ordered(self) -> list[Trial]:
        return [self._trials[number] for number in sorted(self._trials)]

    def _best(self) -> Trial | None:
        return best_of(self._ordered(), self._head["goal"])

    def _conclude(self) -> int:
        """The last words: the table, the best config, and how to go on."""
        trials, best = self._ordered(), self._best()
        print(table.text(self._head, trials, self._plan.trials, None), flush=True)
        if best is not None:
            file = write_best(self._folder, self._head, best)
            print(f"best: trial {best.number}, {self._head['metric']} {best.value:.6g}: {spell(best.params)}")
            print(f"    python -m experiments.train --config={file} --workdir=runs/best")
            print(f"    python -m experiments.report --workdir={self._folder.path}    # the study on a page", flush=True)
        if not self._over():
            print(f"sweep: stopped; to go on: python -m launch.sweep --study={self._folder.path}", flush=True)
        return 0

    # -- what an earlier launcher left

    def _take_up(self) -> None:
        """Bring what the search knows, study.json and the tickets into line: a kill may have come between any two of them."""
        for asked in self._search.asked():
            trial = self._trials.setdefault(asked.number, Trial(asked.number, asked.params))
            if asked.state != OPEN:
                trial.state, trial.value = asked.state, asked.value
                self._folder.file("queue", trial.number).unlink(missing_ok=True)
            elif trial.ended:  # told, but the search did not hear of it
                self._search.tell(trial.number, trial.state, trial.value)
            elif not asked.params:
                self._tell(trial, "failed", None, "was being asked for when the launcher was killed")
            elif not (self._folder.workdir(trial.number) / "config.json").is_file():
                self._begin(trial)
            elif (ticket := self._ticket(trial.number)) is None:
                self._folder.enqueue(trial, self._plan.command)
            else:
                trial.attempts = ticket["attempt"]
        lost = [number for number in self._trials if number not in {asked.number for asked in self._search.asked()}]
        if lost:
            raise LaunchError(
                f"the study {self._folder.path} holds trial {lost[0]}, of which its journal or storage knows nothing: restore it, or "
                "begin another --study"
            )
        for path in (self._folder.path / "workers").glob("*.json"):  # whoever lives will write again
            path.unlink(missing_ok=True)

    def _ticket(self, number: int) -> dict[str, Any] | None:
        """The ticket of a trial, wherever it is, or what came of it."""
        return next((found for place in ("queue", "claims", "results") if (found := read_json(self._folder.file(place, number)))), None)

    # -- workers

    def _keep_workers(self) -> None:
        """Start those that are missing, each with its share of cores and GPUs."""
        for k in range(self._plan.workers):
            running = self._workers.get(k)
            if running is not None and running.poll() is None:
                continue
            sign = self._folder.path / "workers" / f"local-{k}.json"
            if running is not None:
                self._view.say(f"worker {k} (pid {running.pid}) is gone; starting another")
                self._stillborn = 0 if sign.exists() else self._stillborn + 1
                if self._stillborn > STILLBORN:
                    raise LaunchError(
                        f"workers end before they begin: {last_words(sign.with_suffix('.log'))[0]}; see {sign.with_suffix('.log')}"
                    )
            sign.unlink(missing_ok=True)
            self._workers[k] = start_worker(self._folder.path, k, self._plan.workers)

    def _end_workers(self, said: str = "") -> None:
        """Ask the workers of this launcher to end, and wait while their trials save."""
        alive = [worker for worker in self._workers.values() if worker.poll() is None]
        for worker in alive:
            worker.terminate()
        if alive and any(trial.state == "running" for trial in self._trials.values()):
            self._view.say(f"{said + ': ' if said else ''}waiting for running trials to save")
        end = time.monotonic() + LEAVE
        for worker in alive:
            while worker.poll() is None and time.monotonic() < end and self._asked < 2:
                time.sleep(POLL / 4)
            if worker.poll() is None:
                worker.kill()

    def _capacity(self) -> int:
        """Workers that can take a trial: this launcher's, and others that give signs of life."""
        own = {f"local-{k}" for k in range(self._plan.workers)}
        return len(own) + sum(
            self._lives(path, path.stem) for path in (self._folder.path / "workers").glob("*.json") if path.stem not in own
        )

    def _lives(self, path: Path, key: str) -> bool:
        """Whether a heartbeat has changed within the patience."""
        sign, now = read_json(path), time.monotonic()
        beat = None if sign is None else (sign.get("pid"), sign.get("beat"), sign.get("attempt"))
        pulse = self._pulses.setdefault(key, Pulse(beat, now))
        if beat != pulse.beat and beat is not None:
            pulse.beat, pulse.changed = beat, now
        return now - pulse.changed < self._plan.patience

    # -- trials

    def _hand_out(self) -> None:
        """Ask for trials while a worker is free."""
        capacity = self._capacity()
        while sum(not trial.ended for trial in self._trials.values()) < capacity and len(self._trials) < self._plan.trials:
            if self._exhausted or (asked := self._search.ask()) is None:
                self._exhausted = True
                return
            trial = Trial(asked.number, asked.params)
            self._trials[asked.number] = trial
            self._begin(trial)

    def _begin(self, trial: Trial) -> None:
        """Make its workdir, with a complete config, and let it wait for a worker."""
        workdir = self._folder.workdir(trial.number)
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(workdir / "config.json", place(self._tree, trial.params))
        self._folder.enqueue(trial, self._plan.command)
        self._changed = True

    def _watch_trials(self) -> None:
        """Of every trial in a worker's hands: whether that lives, how far it is, and whether it is worth going on."""
        for number in self._folder.numbers("claims"):
            trial = self._trials.get(number)
            if trial is None or trial.ended or self._folder.file("results", number).is_file():
                continue
            heartbeat, key = self._folder.workdir(number) / "heartbeat", f"{number}/{trial.attempts}"
            if trial.state == "waiting":
                trial.state, self._changed = "running", True
            trial.worker = (read_json(heartbeat) or {}).get("worker", trial.worker)
            if not self._lives(heartbeat, key):
                self._view.say(f"trial {number}: its worker {trial.worker} gave no sign of life for {self._plan.patience:g} s")
                self._again(trial, f"worker {trial.worker} was lost")
                continue
            self._follow(trial)

    def _follow(self, trial: Trial) -> None:
        """Take in what a trial has logged; give it up where the pruner says so."""
        workdir = self._folder.workdir(trial.number)
        trial.step, values = progress(workdir, self._head["metric"])
        for step, value in values:
            if better(value, trial.best, self._head["goal"]):
                trial.best = value
            if step > self._seen.get(trial.number, -1):
                self._seen[trial.number] = step
                self._search.report(trial.number, step, value)
                if not (workdir / "STOP").exists() and step < self._head["steps"] and self._search.pruned(trial.number):
                    write_text(workdir / "STOP", f"pruned by {self._head['pruner']['name']} at step {step}\n")

    def _settle_results(self) -> None:
        for number in self._folder.numbers("results"):
            file = self._folder.file("results", number)
            found, trial = read_json(file), self._trials.get(number)
            if trial is not None and found is not None and not trial.ended and found["attempt"] == trial.attempts:
                self._follow(trial)
                trial.seconds += found["seconds"]
                self._settle(trial, found)
            file.unlink(missing_ok=True)

    def _settle(self, trial: Trial, found: Mapping[str, Any]) -> None:
        """What becomes of a trial whose attempt has ended."""
        workdir, code, line = self._folder.workdir(trial.number), found["code"], found["line"]
        trial.parameters = (read_json(workdir / "metadata.json") or {}).get("parameters")
        if code == 0 and not found["stopped"]:
            _, values = progress(workdir, self._head["metric"])
            value = values[-1][1] if values else math.nan
            if math.isfinite(value):
                self._tell(trial, "complete", value)
            else:
                known = ", ".join(known_metrics(workdir)) or "nothing"
                self._tell(trial, "failed", None, f"no {self._head['metric']} at its end; metrics.jsonl holds {known}")
        elif (workdir / "STOP").exists():
            self._tell(trial, "pruned", trial.best)
        elif any(text in line for text in FULL):
            self._folder.file("results", trial.number).unlink(missing_ok=True)  # not what became of it: the next launcher starts it again
            raise LaunchError(f"trial {trial.number}: {line.partition('error: ')[2] or line}; free space, then run the same command again")
        elif found["asked"]:
            self._folder.enqueue(trial, self._plan.command)
            self._changed = True
        elif code == MENDABLE and BUSY not in line:
            self._tell(trial, "failed", None, line.partition("error: ")[2] or line)
        else:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
            self._again(trial, f"{how}: {line}" if line and code > 0 else how)

    def _again(self, trial: Trial, why: str) -> None:
        """Let a trial go on from its last checkpoint, unless it has failed too often without coming any further."""
        reached = newest_checkpoint(self._folder.workdir(trial.number))
        trial.failures = 1 if reached > trial.reached else trial.failures + 1
        trial.reached = max(reached, trial.reached)
        if trial.failures >= self._plan.failures:
            self._tell(
                trial, "failed", None, f"{why}, the last of {trial.failures} attempts that came no further than step {max(reached, 0)}"
            )
            return
        self._view.say(f"trial {trial.number} {why}; it goes on from step {max(reached, 0)}")
        self._folder.enqueue(trial, self._plan.command)
        self._changed = True

    def _tell(self, trial: Trial, state: str, value: float | None, line: str = "") -> None:
        trial.state, trial.value, trial.line = state, value, line
        self._search.tell(trial.number, state, value)
        for folder in ("queue", "claims"):
            self._folder.file(folder, trial.number).unlink(missing_ok=True)
        self._changed = True
        self._view.say(table.told(self._head, trial))


def start_worker(study: Path, k: int, workers: int) -> subprocess.Popen[bytes]:
    """Worker `k` of this machine, which ends with this process. It knows nothing of the storage's password."""
    environment = {name: value for name, value in os.environ.items() if name not in SECRET} | gpus(k, workers)
    mine = cores(k, workers)

    def prepare() -> None:
        end_with_parent()
        if mine:
            os.sched_setaffinity(0, mine)

    command = [sys.executable, "-m", "launch.worker", f"--study={study}", f"--name=local-{k}", "--idle=inf"]
    with open(study / "workers" / f"local-{k}.log", "ab") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True, preexec_fn=prepare
        )


def cores(k: int, workers: int) -> set[int]:
    """The cores of worker `k`: a share of its own where there are enough, else none are set and all share them."""
    if not hasattr(os, "sched_getaffinity"):
        return set()
    given = sorted(os.sched_getaffinity(0))
    return set(given[k::workers]) if workers <= len(given) else set()


def gpus(k: int, workers: int, environ: Mapping[str, str] = os.environ, devices: Sequence[str] | None = None) -> dict[str, str]:
    """What worker `k` is told of this machine's NVIDIA GPUs: a share of its own where there are enough, else its share of one's memory."""
    if devices is None:
        devices = [path.name.removeprefix("nvidia") for path in sorted(Path("/dev").glob("nvidia[0-9]*"))]
    if "CUDA_VISIBLE_DEVICES" in environ:
        devices = [name for name in environ["CUDA_VISIBLE_DEVICES"].split(",") if name]
    if not devices or workers == 1:
        return {}
    if workers <= len(devices):
        return {"CUDA_VISIBLE_DEVICES": ",".join(devices[k::workers])}
    sharing = -(-workers // len(devices))
    return {"CUDA_VISIBLE_DEVICES": devices[k % len(devices)], "XLA_PYTHON_CLIENT_MEM_FRACTION": f"{0.9 / sharing:.2f}"}
