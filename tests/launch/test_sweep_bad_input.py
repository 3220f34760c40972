"""What can be wrong with a sweep: every time one line on stderr that says cause, place and way out, and exit code 2."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from experiments import cli
from experiments.space import COMMAND
from launch import optuna_search
from launch.command import LaunchError
from launch.search import Journal
from launch.sweep import differing

UNIT = {"kind": "uniform", "low": 0, "high": 1, "points": None}


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a refusal, after checking that it is one, and that the exit code is 2."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: ") and "Traceback" not in done.stdout
    return done.stderr


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ('{"train.learning_rat": uniform(0.0, 1.0)}', ["train.learning_rat: unknown key; did you mean", "learning_rate"]),
        ('{"train.learning_rate": uniform(2.0, 1.0)}', ["train.learning_rate: uniform(2.0, 1.0): empty range"]),
        (
            '{"train.learning_rate": log_uniform(0.0, 1.0), "train.optimizer": categorical()}',
            ["above 0", "train.optimizer: categorical() has no"],
        ),
        ('{"train.batch_size": uniform(4, 8.5), "train.optimizer": categorical("adamw", "adamm")}', ["train.batch_size", "adamm"]),
        ("{}", ["not empty"]),
        ('{"train.steps": 5}', ["train.steps: no distribution: 5"]),
        ("missing", ["sweep() failed: NameError"]),
    ],
)
def test_a_space_that_means_nothing(bench, space, words, capsys):
    """By the command that checks spaces, whose line a sweep passes on."""
    bench.write(space=space)
    code = cli.main(COMMAND, [f"--config={bench.folder / 'space.py'}"])
    said = capsys.readouterr()
    line = refused(subprocess.CompletedProcess([], code, said.out, said.err))
    assert all(word in line for word in words), line


def test_a_config_without_a_space_says_so(capsys):
    assert cli.main(COMMAND, ["--config=configs/diffusion_ae/pendulum.py"]) == 2
    assert "defines no sweep()" in capsys.readouterr().err


def test_a_space_is_printed_with_the_config_under_it(bench, capsys):
    assert cli.main(COMMAND, [f"--config={bench.folder / 'space.py'}", "--config.train.steps=7"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["steps"] == said["config"]["train"]["steps"] == 7
    assert said["space"]["train.weight_decay"] == {"kind": "categorical", "choices": [0.0, 0.1]}


def test_a_sweep_passes_on_what_is_wrong_with_its_space(bench):
    bench.write(space='{"train.learning_rate": uniform(2.0, 1.0)}')
    assert "train.learning_rate: uniform(2.0, 1.0): empty range" in refused(bench.run("--trials=2"))
    shutil.rmtree(bench.study, ignore_errors=True)
    bench.write(space='{"train.learning_rate": uniform(1e-3, 1e-2)}')
    line = refused(bench.run("--sampler=grid"))
    assert "train.learning_rate is a range" in line and "points=5" in line, line


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--trials=0"], ["--trials", "'0'"]),
        (["--workers=-1"], ["--workers"]),
        (["--trails=3"], ["--trails"]),
        (["--sampler=cmaes"], ["--sampler", "random"]),
        (["--storage=postgresql://me:sesame@far/db"], ["others can read a command line", optuna_search.PASSWORD]),
        (["--storage=journal.log"], ["no address"]),
        (["--list"], ["holds no study"]),
    ],
)
def test_a_command_line_that_means_nothing(bench, flags, words):
    done = bench.run(*flags)
    line = refused(done)
    assert all(word in line for word in words), line
    assert "sesame" not in done.stderr


def test_a_study_without_a_config(bench):
    done = subprocess.run([sys.executable, "-m", "launch.sweep", f"--study={bench.study}"], capture_output=True, text=True)
    assert "--config is missing" in refused(done)


def test_a_study_that_another_launcher_holds(bench):
    bench.study.mkdir()
    with open(bench.study / ".lock", "w") as lock:
        lock.write(json.dumps({"pid": 4711, "host": "there", "start": time.time()}))
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        line = refused(bench.run("--trials=2"))
        assert "is held by launcher 4711 on there" in line and "launch.worker" in line, line


def test_a_study_that_would_go_on_as_another(bench):
    assert bench.run("--trials=1", PAUSE="0.001").returncode == 0
    bench.write(space='{"train.learning_rate": log_uniform(1e-3, 0.05)}')
    assert "another value of the space of train.learning_rate, the space of train.weight_decay" in refused(bench.run("--trials=2"))
    bench.write()
    assert "--seed" in refused(bench.run("--trials=2", "--seed=1"))
    assert "train.batch_size" in refused(bench.run("--trials=2", "--config.train.batch_size=16"))
    (bench.study / "study.json").write_text('{"trials": [')
    assert "study.json cannot be read" in refused(bench.run("--trials=2"))


def test_differences_of_a_space_name_keys():
    assert differing({"a": UNIT}, {"a": {**UNIT, "high": 2}, "b": UNIT}) == ["a", "b"]
    assert differing([{"a": 1}], [{"a": 2}]) == ["sweep()"] and differing({"a": UNIT}, {"a": UNIT}) == []


@pytest.mark.parametrize("lost", ["journal.jsonl", "study.json"])
def test_storage_that_is_lost_in_the_middle_ends_the_sweep_and_its_trials(bench, lost):
    bench.write(steps=200)
    running = bench.start("--trials=4", "--workers=1", PAUSE="0.02")
    deadline = time.monotonic() + 300
    while not list(bench.study.glob("trials/*/steps.txt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    (bench.study / lost).unlink()
    (bench.study / lost).mkdir()
    stdout, stderr = running.communicate(timeout=600)
    assert running.returncode == 2 and stderr.startswith("error: ") and stderr.count("\n") == 1, stdout + stderr
    assert lost in stderr and "run the same command again" in stderr
    assert not list((bench.study / "claims").iterdir())


def test_a_disk_that_fills_ends_the_sweep_and_no_trial_is_told_failed_for_it(bench):
    """The trial says so first: its line is the sweep's, and the trial goes on once there is space."""
    words = bench.command("--trials=2", "--workers=1", trainer=False)
    code = "import sys; print('error: /disk/run: No space left on device; free space', file=sys.stderr); sys.exit(2)"
    done = subprocess.run([*words, "--", sys.executable, "-c", code], capture_output=True, text=True)
    assert "trial 0: /disk/run: No space left on device" in refused(done)
    assert not any(trial["state"] == "failed" for trial in bench.told()["trials"])
    again = bench.run("--trials=2", "--workers=1", PAUSE="0.001")
    assert again.returncode == 0 and [trial["state"] for trial in bench.told()["trials"]] == ["complete"] * 2


def test_a_disk_that_is_full_for_the_journal_is_one_line(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    journal = Journal(tmp_path / "journal.jsonl", lambda number: {"train.learning_rate": 0.1})
    (tmp_path / "journal.jsonl").unlink()
    (tmp_path / "journal.jsonl").symlink_to("/dev/full")
    with pytest.raises(LaunchError, match="journal.jsonl cannot be written .No space left on device"):
        journal.ask()
    assert journal.asked() == []


def test_what_needs_optuna_says_so_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(LaunchError, match=r"pip install '\.\[sweep\]'"):
        optuna_search.load_optuna()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:sesame@far:5432/db?sslmode=require", "postgresql://me:***@far:5432/db?sslmode=require"),
        ("cannot reach postgresql+psycopg://far/db: sesame refused", "cannot reach postgresql+psycopg://far/db: *** refused"),
        ("runs/study/journal.log", "runs/study/journal.log"),
    ],
)
def test_passwords_are_taken_out(text, shown):
    assert optuna_search.redacted(text, {optuna_search.PASSWORD: "sesame"}) == shown


def test_a_journal_cut_short_goes_on_and_a_damaged_one_is_named(tmp_path):
    file = tmp_path / "journal.jsonl"
    draws = {0: {"train.learning_rate": 0.1}, 1: {"train.learning_rate": 0.2}}.get
    journal = Journal(file, draws)
    journal.ask()
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"tell": 0, "sta')  # a kill in the middle of a line
    again = Journal(file, draws)
    assert [trial.state for trial in again.asked()] == ["open"]
    again.tell(0, "complete", 1.5)
    again.ask()
    assert again.ask() is None  # no third setting
    assert [(trial.state, trial.value) for trial in Journal(file, draws).asked()] == [("complete", 1.5), ("open", None)]
    file.write_bytes(b"nonsense\n" + whole)
    with pytest.raises(LaunchError, match="damaged in line 1"):
        Journal(file, draws)
