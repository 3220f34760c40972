"""The sweep over real trainings: `python -m experiments.train` as trials, in tiny form. Minutes."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from launch.worker import MARK

ROOT = Path(__file__).resolve().parents[2]
SPACE = '{"train.learning_rate": log_uniform(1e-4, 1e-1), "train.weight_decay": categorical(0.0, 0.1)}'
FLAGS = ("--config.log.every=1", "--config.model.transformer.layers=1", "--config.log.tensorboard=no")


def attempts(log: Path) -> list[tuple[int, list[int]]]:
    """Of every attempt in train.log the step that it began from, and the steps that it logged."""
    found: list[tuple[int, list[int]]] = []
    for line in log.read_text().splitlines():
        if line.startswith(MARK):
            found.append((int(line.rpartition(" ")[2]), []))
        elif step := re.match(r"step (\d+)/", line):
            found[-1][1].append(int(step[1]))
    return found


@pytest.mark.slow
def test_twenty_trainings_end_though_workers_are_killed_five_times(bench):
    """Issue: all 20 finish or are told failed; none left running; no step trained twice except since its last checkpoint."""
    bench.write(space=SPACE, steps=30, every=10)
    words = bench.command("--trials=20", "--workers=2", "--patience=10", *FLAGS, trainer=False)
    running = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    rng, killed = random.Random(1), 0
    while killed < 5 and running.poll() is None:
        time.sleep(rng.uniform(5, 40))
        signs = [path for path in (bench.study / "workers").glob("*.json")] if bench.study.exists() else []
        if signs and list((bench.study / "claims").glob("*.json")):
            os.kill(json.loads(rng.choice(signs).read_text())["pid"], signal.SIGKILL)
            killed += 1
    said, _ = running.communicate(timeout=3600)
    assert running.returncode == 0 and killed == 5, said
    told = bench.told()
    states = [trial["state"] for trial in told["trials"]]
    assert len(states) == 20 and set(states) <= {"complete", "failed"} and told["state"] == "over", said
    again = 0
    for trial in told["trials"]:
        found = attempts(bench.study / "trials" / f"{trial['number']:04d}" / "train.log")
        reached = 0
        for first, steps in found:
            if steps:
                assert steps == list(range(first + 1, steps[-1] + 1)) and first >= reached - reached % 10
                reached = steps[-1]
        assert trial["state"] != "complete" or reached == 30
        again += len(found) - 1
    print(f"{states.count('complete')} complete, {again} attempts after a loss\n{said[-3000:]}")
    assert again >= 1


@pytest.mark.slow
def test_the_same_seed_gives_the_same_trainings(bench):
    bench.write(space=SPACE, steps=4, every=2)
    rows = []
    for name in ("one", "two"):
        words = bench.command("--trials=2", "--workers=1", "--seed=3", *FLAGS, trainer=False, study=bench.folder / name)
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=1800)
        assert done.returncode == 0, done.stdout + done.stderr
        rows.append([(trial["params"], trial["value"]) for trial in bench.told(bench.folder / name)["trials"]])
    assert rows[0] == rows[1] and len({value for _, value in rows[0]}) == 2
