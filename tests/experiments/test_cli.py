"""Flags, overrides, help and the allocator's environment."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments import cli

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (
    "train",
    "sample",
    "counterfactual",
    "evaluate",
    "report",
    "explore",
    "export",
    "benchmark",
    "dry_run",
    "space",
    "effects",
    "identify",
    "refute",
)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_quick_shows_an_example_and_leaves_jax_alone(name):
    code = (
        f"import runpy, sys; sys.argv = ['x', '--help']; sys.path.insert(0, '.')\n"
        f"try: runpy.run_module('experiments.{name}', run_name='__main__')\n"
        "except SystemExit as end: print('exit', end.code, 'jax' in sys.modules)"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert time.perf_counter() - start < 2
    assert done.stdout.endswith("exit 0 False\n")
    assert f"python -m experiments.{name} --" in done.stdout and done.stderr == ""


def test_overrides_are_taken_out_in_both_spellings():
    argv = ["--workdir=w", "--config=c.py:tiny", "--config.train.steps=20", "--config.data.root", "none", "--config.a.b=x=y", "--num", "3"]
    rest, overrides = cli.split_overrides(argv)
    assert rest == ["--workdir=w", "--config=c.py:tiny", "--num", "3"]
    assert overrides == {"train.steps": "20", "data.root": "none", "a.b": "x=y"}


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--wrkdir=x"], "unknown flag --wrkdir; did you mean --workdir?"),
        (["--zzz"], "unknown flag --zzz; --help lists them"),
        (["--workdir=x", "--config.train.steps"], "--config.train.steps needs a value"),
        (["--workdir=x", "--config.train.steps", "--num=3"], "--config.train.steps needs a value"),
        (["--workdir=x", "more"], "unexpected argument 'more'"),
        ([], "--workdir is missing"),
    ],
)
def test_a_command_line_that_means_nothing_is_one_line(refused, argv, said):
    assert said in refused("train", *argv)


def test_a_flag_of_the_wrong_type_is_one_line(refused):
    assert "--num" in refused("sample", "--workdir=x", "--num=many")
    assert "--num" in refused("sample", "--workdir=x", "--num=0")


def test_an_interruption_is_no_traceback():
    def stop(values, overrides):
        raise KeyboardInterrupt

    assert cli.main(cli.Command("x", "", "", lambda values: None, stop), []) == 130


def test_a_bug_is_not_dressed_up_as_a_users_error():
    def fail(values, overrides):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cli.main(cli.Command("x", "", "", lambda values: None, fail), [])


@pytest.fixture
def glibc(monkeypatch):
    monkeypatch.setattr(cli.platform, "system", lambda: "Linux")
    monkeypatch.setattr(cli.platform, "libc_ver", lambda: ("glibc", "2.39"))
    monkeypatch.setattr(cli, "_ACCELERATORS", ())


def test_the_allocators_setting_is_added_once_and_the_users_own_wins(glibc):
    made = cli.allocator_environment([], {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=2:glibc.rtld.nns=4", "HOME": "h"})
    assert made is not None and made["HOME"] == "h"
    pairs = dict(pair.split("=") for pair in made["GLIBC_TUNABLES"].split(":"))
    assert pairs["glibc.malloc.hugetlb"] == "2" and pairs["glibc.rtld.nns"] == "4" and pairs["glibc.malloc.mmap_max"] == "0"
    assert cli.allocator_environment([], made) is None, "the process that was started anew does not start another"
    assert cli.allocator_is_tuned({"GLIBC_TUNABLES": cli.allocator_environment([], {})["GLIBC_TUNABLES"]})


def test_the_allocators_setting_can_be_refused_and_is_glibcs_alone(glibc, monkeypatch):
    assert cli.allocator_environment(["--no-allocator-tuning"], {}) is None
    monkeypatch.setattr(cli.platform, "libc_ver", lambda: ("", ""))
    assert cli.allocator_environment([], {}) is None


def test_a_process_starts_anew_with_the_same_arguments(glibc, monkeypatch):
    started = []
    monkeypatch.setattr(cli.os, "execve", lambda *args: started.append(args) or sys.exit(0))
    monkeypatch.delenv(cli._TUNED, raising=False)
    monkeypatch.setattr(cli.sys, "argv", ["train.py", "--workdir=x"])
    monkeypatch.setattr(cli.sys, "orig_argv", ["python", "-X", "dev", "-m", "experiments.train", "--workdir=x"])
    with pytest.raises(SystemExit):
        cli.start(cli.Command("train", "", "", lambda values: None, lambda values, overrides: None, tune=True))
    (program, arguments, environment) = started[0]
    assert program == sys.executable and arguments[1:] == ["-X", "dev", "-m", "experiments.train", "--workdir=x"]
    assert cli.allocator_is_tuned(environment)


def test_a_cpu_is_cut_into_devices_before_the_work_begins(monkeypatch):
    import jax

    seen = []
    monkeypatch.setattr(jax.config, "update", lambda *args: seen.append(args))
    command = cli.Command("train", "", "", lambda values: None, lambda values, overrides: seen.append("work"), spread=True)
    assert cli.main(command, ["--cpu-devices=2"]) == 0
    assert seen == [("jax_num_cpu_devices", 2), "work"]
    assert cli.main(command, ["--cpu-devices=0"]) == 2
