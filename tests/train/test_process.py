"""A run as a process of its own: signals in its long parts, a hang, a second run beside it, a kill.

`python -m tests.train.test_process MODE WORKDIR` trains the toy with one part made long.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from causal_gen.parallel.mesh import MeshConfig
from causal_gen.train import guard, watchdog
from causal_gen.train.checkpoint import CheckpointConfig, Checkpoints, load_params
from causal_gen.train.log import LogConfig
from causal_gen.train.loop import fit
from causal_gen.train.state import TrainConfig
from causal_gen.types import WorkdirError
from tests.train.toy import CONFIG, ToyModel, ToySource

LONG = 300.0  # seconds that nobody waits for
ROOT = Path(__file__).resolve().parents[2]
TRAIN = TrainConfig(steps=40, batch_size=16)


@dataclasses.dataclass(frozen=True)
class LongSource(ToySource):
    mode: str = ""

    def gather(self, split, indices):
        SEEN.append(split)
        if split == "test" and self.mode == "evaluate":
            print("evaluating", flush=True)
            time.sleep(0.3)
        if split == "test" and self.mode == "hang" and SEEN.count("test") == 1:
            time.sleep(8)  # longer than a step may take, shorter than an evaluation may
        if split == "train" and self.mode == "hang" and SEEN.count("train") == 30:
            time.sleep(LONG)
        if split == "train" and self.mode == "kill" and SEEN.count("train") == 12:
            time.sleep(5)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().gather(split, indices)


SEEN: list[str] = []


def train(mode, workdir):
    if mode == "compile":

        def compile(self, *args, **kwargs):
            print("compiling", flush=True)
            time.sleep(LONG)

        jax.stages.Lowered.compile = compile
    watchdog.FLOOR = 5.0
    batches = 10**4 if mode == "evaluate" else 1
    log = LogConfig(eval_every=0, eval_batches=batches, tensorboard=False)
    settings = {"train": TRAIN, "mesh": MeshConfig(), "checkpoint": CheckpointConfig(every=8), "log": log, "config": CONFIG}
    return fit(ToyModel(), LongSource(mode=mode), workdir, **settings)


@pytest.fixture
def started(tmp_path):
    """started(mode) -> the process."""
    running = []

    def start(mode):
        running.append(
            subprocess.Popen(
                [sys.executable, "-m", "tests.train.test_process", mode, str(tmp_path)],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
            )
        )  # fmt: skip
        return running[0]

    yield start
    for process in running:
        process.kill()
        process.communicate()


def until(process, word):
    for line in process.stdout:
        if word in line:
            return
    raise AssertionError(f"never said {word!r}: {process.stderr.read()}")


def steps(workdir):
    with Checkpoints(workdir / "checkpoints", read_only=True) as saved:
        return saved.steps()


def test_a_signal_while_compiling_saves_and_ends_well_without_waiting(started, tmp_path):
    process = started("compile")
    until(process, "compiling")
    process.terminate()
    out, err = process.communicate(timeout=LONG / 2)
    assert process.returncode == 0 and "stopped at step 0 and saved" in out, out + err
    assert steps(tmp_path) == [0]
    assert train("", tmp_path).step == TRAIN.steps


def test_a_signal_in_an_evaluation_saves_that_step_and_a_second_run_was_refused_meanwhile(started, tmp_path):
    process = started("evaluate")
    until(process, "evaluating")
    with pytest.raises(WorkdirError, match=f"process {process.pid} on ") as caught:
        train("", tmp_path)
    assert "\n" not in str(caught.value)
    process.terminate()
    begun = time.monotonic()
    out, err = process.communicate(timeout=LONG / 2)
    assert time.monotonic() - begun < LONG / 4  # 10,000 batches of .3 s would take longer
    assert process.returncode == 0 and "stopped at step 8 and saved" in out, out + err
    assert steps(tmp_path) == [8]
    assert load_params(tmp_path, jax.eval_shape(ToyModel().init, jax.random.key(0)))[1] == 8


def test_a_step_that_hangs_dumps_all_stacks_and_ends_the_process(started, tmp_path):
    process = started("hang")
    out, err = process.communicate(timeout=LONG / 2)
    lines = err.strip().splitlines()
    assert process.returncode == watchdog.EXIT, out + err
    assert lines[-1].startswith("error: step 28 has taken") and "train.watchdog=100" in lines[-1], err
    assert "in gather" in err and err.count("Current thread") == 1 and err.count("Thread 0x") > 1  # all of them, the one that hangs too
    assert steps(tmp_path)[-1] == 24


def test_what_a_kill_costs_is_in_goodput(started, tmp_path):
    process = started("kill")
    process.communicate(timeout=LONG / 2)
    assert process.returncode == -signal.SIGKILL
    whole = train("", tmp_path)
    told = json.loads((tmp_path / "goodput.json").read_text())
    assert whole.step == told["step"] == TRAIN.steps
    assert told["seconds"]["lost"] > 3  # five seconds asleep after step 8 was saved, by signs of life two seconds apart
    assert told["total"] == pytest.approx(sum(told["seconds"].values()), abs=0.01) and told["seconds"]["compile"] > 0
    assert not (tmp_path / ".lock").read_text()


def test_a_signal_cuts_drawing_short(tmp_path):
    def pictures(params, step, stopped):
        assert not stopped()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopped()
        return {}

    log = LogConfig(eval_every=0, eval_batches=1, pictures_every=3, tensorboard=False)
    settings = {"train": TRAIN, "mesh": MeshConfig(), "checkpoint": CheckpointConfig(every=8), "log": log, "config": CONFIG}
    cut = fit(ToyModel(), ToySource(), tmp_path, pictures=pictures, **settings)
    assert cut.interrupted and cut.step == 3 and steps(tmp_path) == [3]


def test_work_that_no_signal_cuts_short_gives_its_value_or_its_error():
    with guard.Signals() as signals:
        assert guard.unless(signals, lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            guard.unless(signals, lambda: 1 // 0)
        assert not guard.left_behind()


def test_the_median_sets_what_a_step_may_take_and_pauses_do_not_count(tmp_path, monkeypatch):
    from causal_gen.train.goodput import Goodput

    clock = Goodput(tmp_path)
    dog = watchdog.Watchdog(100.0, clock)
    monkeypatch.setattr(watchdog, "FLOOR", 1.0)
    monkeypatch.setattr(Goodput, "worked", property(lambda self: self.seconds_in_steps))
    for step, worked in enumerate(np.arange(30) * 0.05):
        clock.seconds_in_steps = worked
        assert dog._allowed("step") == (watchdog.HOUR if step <= watchdog.FIRST else pytest.approx(5.0))
        dog.step(step)
    assert dog._allowed("compile") == watchdog.ALLOWED["compile"]


if __name__ == "__main__":
    train(sys.argv[1], Path(sys.argv[2]))
    if guard.left_behind():
        sys.stdout.flush()
        os._exit(0)
