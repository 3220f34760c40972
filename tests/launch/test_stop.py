"""Laws of the file STOP: it ends a run as SIGTERM does, after the same step on all processes, and so does a workdir that is lost."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from causal_gen.train.guard import Clock, Signals, hear
from causal_gen.types import WorkdirError
from tests.parallel.worker import COMMAND

ROOT = Path(__file__).resolve().parents[2]


def test_a_stop_file_is_noted_like_a_signal(tmp_path):
    clock = Clock(None)
    with Signals(tmp_path) as signals:
        hear(signals, clock)
        assert not signals.requested and signals.why == ""
        (tmp_path / "STOP").write_text("pruned")
        time.sleep(0.6)
        hear(signals, clock)
        assert signals.requested and str(tmp_path / "STOP") in signals.why
    with Signals() as signals:  # of a run without a workdir
        hear(signals, clock)
        assert not signals.requested


def test_a_workdir_that_cannot_be_looked_into_ends_the_run(tmp_path):
    (tmp_path / "STOP").symlink_to("STOP")  # leads to itself: ELOOP, for any user
    with Signals(tmp_path) as signals, pytest.raises(WorkdirError, match="STOP cannot be looked for .*symbolic links.*same command again"):
        hear(signals, Clock(None))


def together(workdir: Path) -> subprocess.Popen[str]:
    """The toy model of tests/parallel as two processes, for as many steps as it is let."""
    environ = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environ |= {"JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir)}
    start = [sys.executable, "-m", "launch.local", "--processes=2", "--devices=1", "--restarts=0", "--"]
    call = [*start, sys.executable, "-m", "tests.parallel.worker", f"--workdir={workdir}", "--steps=1000000", "--width=8"]
    running = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=environ)
    deadline = time.monotonic() + 200
    while not (workdir / "metrics.jsonl").exists() and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    return running


@pytest.mark.slow
def test_a_stop_file_stops_both_processes_after_the_same_step(tmp_path):
    assert COMMAND.hosts
    running = together(tmp_path / "run")
    (tmp_path / "run" / "STOP").touch()
    said, _ = running.communicate(timeout=200)
    assert running.returncode == 0, said
    stopped = re.findall(r"\[(\d)\] process \d stopped at step (\d+) interrupted=True", said)
    assert sorted(k for k, _ in stopped) == ["0", "1"] and len({step for _, step in stopped}) == 1
    assert "STOP asks for it" in said


@pytest.mark.slow
def test_a_workdir_lost_by_process_0_ends_both_with_the_same_line(tmp_path):
    """Issue: storage made to fail on host 0. Process 1 sees nothing of it: it is told."""
    running = together(tmp_path / "run")
    (tmp_path / "run" / "STOP").symlink_to("STOP")
    said, _ = running.communicate(timeout=200)
    assert running.returncode == 2, said
    lines = re.findall(r"^\[(\d)\] (error: .*)$", said, re.MULTILINE)
    assert sorted(k for k, _ in lines) == ["0", "1"] and len({line for _, line in lines}) == 1, said
    assert "STOP cannot be looked for" in lines[0][1] and "Traceback" not in said


@pytest.mark.slow
def test_a_trial_of_two_processes_is_one_run_of_one_config(bench):
    """A sweep whose trials are trained by two processes each; they agree on config and code before they compile, or end."""
    bench.write(space='{"train.learning_rate": log_uniform(1e-4, 1e-2)}', steps=4, every=2)
    command = [sys.executable, "-m", "launch.local", "--processes=2", "--devices=1", "--", sys.executable, "-m", "experiments.train"]
    words = [*bench.command("--trials=1", "--workers=1", trainer=False), "--", *command]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=500, env={**os.environ, "XLA_FLAGS": ""})
    assert done.returncode == 0, done.stdout + done.stderr
    for trial in bench.told()["trials"]:
        workdir = bench.study / "trials" / f"{trial['number']:04d}"
        assert trial["state"] == "complete" and trial["step"] == 4 and trial["parameters"] > 0
        assert json.loads((workdir / "metadata.json").read_text())["mesh"]["data"] == 2
        assert json.loads((workdir / "config.json").read_text())["train"]["learning_rate"] == trial["params"]["train.learning_rate"]
        assert (workdir / "train.log").read_text().count("train: finished at step 4") == 1
