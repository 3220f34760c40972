"""Laws of the sweep: every trial ends once, whatever is killed; the same seed is the same study; what is pruned was worth little."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from causal_gen.build import build, complete, load_config
from launch import search as searching
from launch import supervisor
from launch.command import LaunchError
from launch.space import drawer
from launch.study import Folder

ROOT = Path(__file__).resolve().parents[2]
TRAINER = "tests/launch/trainer.py"


def processes(*words: str) -> list[int]:
    """Processes of this machine whose command line holds all these words."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        found += [int(path.parent.name)] if all(word in line for word in words) else []
    return found


def steps_done(workdir: Path) -> list[list[int]]:
    """The steps that each start of the trainer did, in order."""
    starts: dict[str, list[int]] = {}
    for line in (workdir / "steps.txt").read_text().splitlines():
        pid, step = line.split()
        starts.setdefault(pid, []).append(int(step))
    return list(starts.values())


def begin_again_at_checkpoints(workdir: Path, every: int) -> None:
    """No step is done twice but those since the last checkpoint, and none is left out."""
    starts = steps_done(workdir)
    for steps in starts:
        assert steps == list(range(steps[0], steps[-1] + 1))
    for before, after in zip(starts, starts[1:], strict=False):
        assert before[-1] - before[-1] % every < after[0] <= before[-1] + 1


def test_twenty_trials_end_though_workers_are_killed_five_times(bench):
    """Issue: all 20 finish or are told failed, none is left running, no step is trained twice except since its last checkpoint."""
    bench.write(steps=40)
    running = bench.start("--trials=20", "--workers=2", "--patience=2", PAUSE="0.02")
    rng, killed, end = random.Random(0), 0, time.monotonic() + 400
    while killed < 5 and running.poll() is None and time.monotonic() < end:
        time.sleep(rng.uniform(0.2, 0.9))
        alive = [pid for pid in processes("launch.worker", str(bench.study)) if list((bench.study / "claims").glob("*.json"))]
        if alive:
            os.kill(rng.choice(alive), signal.SIGKILL)
            killed += 1
    stdout, stderr = running.communicate(timeout=600)
    assert running.returncode == 0 and killed == 5, stdout + stderr
    told = bench.told()
    assert [trial["number"] for trial in told["trials"]] == list(range(20)) and told["state"] == "over"
    assert all(trial["state"] in ("complete", "failed") for trial in told["trials"])
    assert sum(trial["attempts"] - 1 for trial in told["trials"]) >= 1 and "is gone; starting another" in stdout
    journal = [json.loads(line) for line in (bench.study / "journal.jsonl").read_text().splitlines()]
    assert sorted(row["tell"] for row in journal if "tell" in row) == list(range(20))
    for trial in told["trials"]:
        begin_again_at_checkpoints(bench.study / "trials" / f"{trial['number']:04d}", 5)
        if trial["state"] == "complete":
            assert trial["step"] == 40
    assert not [path for place in ("queue", "claims", "results") for path in (bench.study / place).iterdir()]
    assert not processes(TRAINER, str(bench.study)) and not processes("launch.worker", str(bench.study))


def test_a_trial_that_dies_every_time_without_a_new_checkpoint_is_told_failed(bench):
    """It dies on its first step; two others are not touched by it."""
    bench.write(steps=4, every=100)
    done = bench.run("--trials=3", "--workers=1", "--failures=3", CRASH="0001", PAUSE="0.001")
    assert done.returncode == 0, done.stderr
    states = {trial["number"]: trial for trial in bench.told()["trials"]}
    assert [states[k]["state"] for k in range(3)] == ["complete", "failed", "complete"]
    assert states[1]["attempts"] == 3 and "SIGKILL" in states[1]["line"] and "3 attempts" in states[1]["line"]


def test_a_trial_that_dies_often_but_gets_on_each_time_is_not_given_up(bench):
    """Every start saves a checkpoint further on before it dies: more deaths than --failures allows in one place."""
    bench.write(steps=12, every=3)
    done = bench.run("--trials=1", "--workers=1", "--failures=2", CRASH="0000", CRASH_ON="last", PAUSE="0.001")
    assert done.returncode == 0, done.stderr
    (trial,) = bench.told()["trials"]
    assert trial["state"] == "complete" and trial["attempts"] == 4
    begin_again_at_checkpoints(bench.study / "trials" / "0000", 3)


def test_the_same_seed_with_one_worker_is_the_same_study(bench):
    studies = [bench.folder / name for name in ("one", "two")]
    for study in studies:
        assert bench.run("--trials=4", "--workers=1", "--seed=5", study=study, PAUSE="0.001").returncode == 0
    rows = [[(trial["params"], trial["value"], trial["state"]) for trial in bench.told(study)["trials"]] for study in studies]
    space = bench.told(studies[0])["space"]
    assert rows[0] == rows[1] and len(rows[0]) == 4 and rows[0][0][0] == drawer("random", space, 5)(0) != drawer("random", space, 6)(0)


def test_a_study_goes_on_where_it_was_stopped_and_grows(bench):
    """Stopped by SIGTERM, and by kill -9: what the first starts did is not done again, and the trials are those of one start."""
    bench.write(steps=30)

    def steps() -> int:
        return sum(path.read_text().count("\n") for path in bench.study.glob("trials/*/steps.txt"))

    for number in (signal.SIGTERM, signal.SIGKILL):
        before = steps()
        running = bench.start("--trials=6", "--workers=1", PAUSE="0.05")
        deadline = time.monotonic() + 300
        while steps() < before + 10 and time.monotonic() < deadline:
            time.sleep(0.05)
        running.send_signal(number)
        stdout, stderr = running.communicate(timeout=600)
        assert running.returncode == (0 if number == signal.SIGTERM else -9), stderr
        assert "to go on: python -m launch.sweep" in stdout or number == signal.SIGKILL
    deadline = time.monotonic() + 300
    while processes(TRAINER, str(bench.study)) and time.monotonic() < deadline:
        time.sleep(0.05)
    words = [sys.executable, "-m", "launch.sweep", f"--study={bench.study}", "--trials=7", "--workers=1", "--", sys.executable, TRAINER]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600, env={**os.environ, "PAUSE": "0.001"})
    assert done.returncode == 0, done.stderr
    told = bench.told()
    assert [trial["state"] for trial in told["trials"]] == ["complete"] * 7
    draws = drawer("random", told["space"], 0)
    assert [trial["params"] for trial in told["trials"]] == [draws(number) for number in range(7)]
    for trial in told["trials"]:
        begin_again_at_checkpoints(bench.study / "trials" / f"{trial['number']:04d}", 1)  # saved at SIGTERM: nothing twice


def test_the_best_config_is_a_file_that_runs(bench):
    assert bench.run("--trials=3", PAUSE="0.001").returncode == 0
    told = bench.told()
    best = min(told["trials"], key=lambda trial: trial["value"])
    assert told["best"] == best["number"]
    written = json.loads((bench.study / "trials" / f"{best['number']:04d}" / "config.json").read_text())
    assert complete(load_config(str(bench.study / "best.py"))) == written == json.loads(json.dumps(written))
    assert build(written).train.learning_rate == best["params"]["train.learning_rate"]


def test_a_mistake_that_a_trial_names_is_told_once(bench):
    bench.write(space='{"train.learning_rate": categorical(0.01, 0.2)}')
    done = bench.run("--trials=2", "--sampler=grid", PAUSE="0.001")
    assert done.returncode == 0, done.stderr
    good, bad = bench.told()["trials"]
    assert good["state"] == "complete"
    assert (bad["state"], bad["attempts"], bad["line"]) == ("failed", 1, "train.learning_rate: 0.2 is too high")
    ended = bench.run("--trials=9", "--sampler=grid")
    assert ended.returncode == 0 and len(bench.told()["trials"]) == 2  # a grid has an end


def test_another_worker_helps_a_study_that_has_none(bench):
    running = bench.start("--trials=2", "--workers=0", PAUSE="0.001")
    deadline = time.monotonic() + 300
    while not (bench.study / "study.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    words = [sys.executable, "-m", "launch.worker", f"--study={bench.study}", "--name=far"]
    helper = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600)
    stdout, stderr = running.communicate(timeout=600)
    assert running.returncode == 0 and helper.returncode == 0, stdout + stderr + helper.stderr
    assert {trial["worker"] for trial in bench.told()["trials"]} == {"far"} and "the study is over" in helper.stdout


def test_a_thousand_trials_are_opened_listed_and_ranked_within_two_seconds(bench, capsys):
    draws = drawer("random", {"train.learning_rate": {"kind": "log_uniform", "low": 1e-4, "high": 1e-2, "points": None}}, 0)
    bench.study.mkdir()
    rows = []
    for number in range(1000):
        rows += [{"ask": number, "params": draws(number)}, {"tell": number, "state": "complete", "value": abs(number - 321) / 7}]
    (bench.study / "journal.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    start = time.perf_counter()
    asked = searching.Journal(bench.study / "journal.jsonl", draws).asked()
    assert len(asked) == 1000 and min(asked, key=lambda trial: trial.value).number == 321
    assert time.perf_counter() - start < 2
    from launch import sweep
    from launch.study import Trial

    trials = [Trial(a.number, a.params, a.state, a.value, a.value, 20, 1) for a in asked]
    head = {"metric": "eval_loss", "goal": "min", "steps": 20, "trials_wanted": 1000}
    start = time.perf_counter()
    Folder(bench.study).save(head, trials)
    assert sweep.listed(Folder(bench.study)) == 0
    assert time.perf_counter() - start < 2
    said = capsys.readouterr().out
    assert "best: trial 321, eval_loss 0" in said and "1000 of 1000 trials: 1000 complete" in said


def test_workers_that_cannot_begin_are_not_started_for_ever(tmp_path, monkeypatch):
    """An environment in which no worker comes up, as one whose Python is broken: its last line is the sweep's."""
    folder = Folder(tmp_path)
    folder.make()
    started = []

    def dead(study, k, workers):
        started.append(k)
        (study / "workers" / f"local-{k}.log").write_text("No module named launch\n")
        process = subprocess.Popen(["false"])
        process.wait()
        return process

    monkeypatch.setattr(supervisor, "start_worker", dead)
    journal = searching.Journal(tmp_path / "journal.jsonl", lambda number: {"train.steps": 4})
    sweep = supervisor.Supervisor(
        folder, {"steps": 4, "metric": "loss", "goal": "min"}, {}, journal, {}, supervisor.Plan(1, 1, ("python",))
    )
    with pytest.raises(LaunchError, match=r"before they begin: No module named launch; see .*local-0.log"):
        for _ in range(20):
            sweep._keep_workers()
    assert 2 <= len(started) < 10


@pytest.mark.parametrize(("workers", "cards", "given"), [(1, "0,1", {}), (2, "0,1,2", "0,2"), (4, "0,1", "0")])
def test_workers_share_gpus(workers, cards, given):
    found = supervisor.gpus(0, workers, {"CUDA_VISIBLE_DEVICES": cards})
    assert found.get("CUDA_VISIBLE_DEVICES", {}) == given
    assert ("XLA_PYTHON_CLIENT_MEM_FRACTION" in found) == (workers == 4)
    assert supervisor.gpus(0, workers, {}, []) == {}


def test_workers_share_cores():
    mine = sorted(os.sched_getaffinity(0))
    shares = [supervisor.cores(k, len(mine)) for k in range(len(mine))]
    assert sorted(core for share in shares for core in share) == mine and all(len(share) == 1 for share in shares)
    assert supervisor.cores(0, len(mine) + 1) == set()
