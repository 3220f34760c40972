"""Several processes are one run: same losses, same bytes after any loss, one step to stop at, and whatever cannot start says so in a line.

Processes are those of tests/parallel/worker.py under launch/local.py, over loopback.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from causal_gen.parallel import hosts
from experiments import cli
from tests.parallel.worker import COMMAND

ROOT = Path(__file__).resolve().parents[2]
WORKER = [sys.executable, "-m", "tests.parallel.worker"]


def environment(devices=None):
    """That of the suite, with its compile cache and no devices of its own."""
    import jax

    changed = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    changed |= {"JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return changed | ({"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"} if devices else {})


def together(workdir, *flags, processes=2, devices=2, launcher=()):
    """A worker as several processes; its output."""
    start = [sys.executable, "-m", "launch.local", f"--processes={processes}", f"--devices={devices}", *launcher, "--"]
    call = [*start, *WORKER, f"--workdir={workdir}", *flags]
    return subprocess.run(call, capture_output=True, text=True, cwd=ROOT, env=environment(), timeout=900)


def alone(workdir, *flags, devices=4):
    call = [*WORKER, f"--workdir={workdir}", *flags]
    done = subprocess.run(call, capture_output=True, text=True, cwd=ROOT, env=environment(devices), timeout=900)
    assert done.returncode == 0, done.stderr
    return done


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def losses(workdir, first=1):
    return {row["step"]: row["loss"] for row in rows(workdir) if row["step"] >= first}


def final(workdir):
    with np.load(workdir / "final.npz") as file:
        return dict(file)


def steps(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").glob("[0-9]*"))


def read(output, process):
    """The examples of the training split that a process gathered, a list a batch."""
    return [json.loads(found) for found in re.findall(rf"process {process} reads train (\[.*\])", output)]


def same_bytes(one, other):
    assert one.keys() == other.keys()
    return all(one[name].tobytes() == other[name].tobytes() for name in one)


def close(found, expected):
    assert found.keys() == expected.keys() and found
    np.testing.assert_allclose([found[step] for step in expected], list(expected.values()), atol=2e-5, rtol=0)


def test_two_processes_of_two_devices_train_as_one_of_four(tmp_path):
    """Losses, rows read, and who writes; the second half of the first kernel lies on the other process and is gathered at the end."""
    two = together(tmp_path / "two", "--mesh=fsdp=-1")
    assert two.returncode == 0, two.stdout
    one = alone(tmp_path / "one", "--mesh=fsdp=-1")
    close(losses(tmp_path / "two"), losses(tmp_path / "one"))
    assert [row["step"] for row in rows(tmp_path / "two")] == list(range(1, 7))  # process 0 alone, each once
    parts, whole = [read(two.stdout, 0), read(two.stdout, 1)], read(one.stderr, 0)
    assert len(whole) == len(parts[0]) >= 7 and all(len(mine) == 8 for mine in parts[0])
    assert [first + second for first, second in zip(*parts, strict=True)] == whole
    assert two.stdout.count("stopped at step 6 interrupted=False") == 2
    assert "step 6/6" not in "".join(line for line in two.stdout.splitlines() if line.startswith("[1]"))
    for name, value in final(tmp_path / "one").items():
        np.testing.assert_allclose(
            final(tmp_path / "two")[name], value, atol=1e-3, err_msg=name
        )  # Adam magnifies rounding where gradients vanish


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run of two processes of four devices, 12 steps."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    done = together(workdir, "--steps=12", "--mesh=data=2,fsdp=4", devices=4)
    assert done.returncode == 0, done.stdout
    return workdir


@pytest.mark.slow
@pytest.mark.parametrize(("process", "place"), [(0, "train"), (1, "train"), (1, "evaluate")])
def test_a_killed_process_costs_nothing_but_time(whole, tmp_path, process, place):
    """kill -9 of one of two: the launcher says who and starts both again; the parameters are the uninterrupted run's, bit for bit."""
    fault = f"--fault={process}:{place}:{int(signal.SIGKILL)}"
    done = together(tmp_path / "run", "--steps=12", "--mesh=data=2,fsdp=4", fault, devices=4)
    assert done.returncode == 0, done.stdout
    (said,) = [line for line in done.stdout.splitlines() if line.startswith("launch.local: process")]
    assert re.fullmatch(
        rf"launch\.local: process {process} \(pid \d+\) was killed by SIGKILL; the other 1 ended; starting again, 1 of 3", said
    )
    assert same_bytes(final(tmp_path / "run"), final(whole))
    assert losses(tmp_path / "run") == losses(whole)


@pytest.mark.slow
@pytest.mark.parametrize(("process", "place"), [(0, "train"), (1, "compile"), (1, "train"), (1, "evaluate")])
def test_sigterm_to_one_process_saves_the_same_step_on_both_and_resumes(tmp_path, process, place):
    flags = ("--mesh=data=2,fsdp=4", f"--fault={process}:{place}:{int(signal.SIGTERM)}")
    cut = together(tmp_path / "run", "--steps=100000", *flags, devices=4)
    assert cut.returncode == 0, cut.stdout
    stopped = re.findall(r"\[(\d)\] process \d stopped at step (\d+) interrupted=True", cut.stdout)
    assert sorted(k for k, _ in stopped) == ["0", "1"]
    (step,) = {int(step) for _, step in stopped}
    assert steps(tmp_path / "run")[-1] == step < 100000
    target = step + 3
    again = together(tmp_path / "run", f"--steps={target}", "--mesh=data=2,fsdp=4", devices=4)
    assert again.returncode == 0, again.stdout
    assert [row["step"] for row in rows(tmp_path / "run")] == list(range(1, target + 1))


@pytest.mark.slow
@pytest.mark.parametrize(("process", "place", "step"), [(0, "compile", 0), (1, "compile", 0), (0, "evaluate", 4), (1, "evaluate", 4)])
def test_sigterm_cuts_long_compiling_and_evaluation_of_both_short(tmp_path, process, place, step):
    """An hour of compiling, a day of evaluation: both processes leave them, save the step that they have made, and go on from it later."""
    start = time.monotonic()
    cut = together(tmp_path / "run", "--long", f"--fault={process}:{place}:{int(signal.SIGTERM)}")
    assert cut.returncode == 0, cut.stdout
    assert time.monotonic() - start < 600
    assert sorted(re.findall(r"\[(\d)\] process \d stopped at step (\d+) interrupted=True", cut.stdout)) == [
        ("0", str(step)),
        ("1", str(step)),
    ]
    assert steps(tmp_path / "run") == [step]
    again = together(tmp_path / "run")
    assert again.returncode == 0, again.stdout
    assert [row["step"] for row in rows(tmp_path / "run")] == list(range(1, 7))


@pytest.mark.slow
def test_eight_devices_go_on_as_two_processes_and_as_fewer_devices_and_back(tmp_path):
    """Saved at step 4 by 8 devices; five steps by others, of the same batches; five more by 8 again. What is only read is equal."""
    flags = ("--mesh=fsdp=-1",)
    alone(tmp_path / "eight", "--steps=4", *flags, devices=8)
    others = {"4": {"devices": 4}, "2": {"devices": 2}, "1": {"devices": 1}, "2x2": {"processes": 2}, "2x4": {"processes": 2, "devices": 4}}
    for name in others:
        shutil.copytree(tmp_path / "eight", tmp_path / name)
    begun = final(tmp_path / "eight")
    expected = [read(alone(tmp_path / "eight", f"--steps={steps}", *flags, devices=8).stderr, 0) for steps in (9, 14)]
    for name, how in others.items():
        if "processes" in how:
            looked = together(tmp_path / name, "--steps=4", *flags, **how)
            assert looked.returncode == 0 and same_bytes(final(tmp_path / name), begun), looked.stdout
            done = together(tmp_path / name, "--steps=9", *flags, **how)
            assert done.returncode == 0, done.stdout
            found = [sum(parts, []) for parts in zip(*(read(done.stdout, k) for k in range(2)), strict=True)]
        else:
            found = read(alone(tmp_path / name, "--steps=9", *flags, **how).stderr, 0)
        back = read(alone(tmp_path / name, "--steps=14", *flags, devices=8).stderr, 0)
        assert [found, back] == expected, name
        close(losses(tmp_path / name), losses(tmp_path / "eight"))
    assert list(losses(tmp_path / "eight")) == list(range(1, 15))


@pytest.mark.slow
def test_process_0s_clock_paces_and_stops_both(tmp_path):
    """A time limit with a rate that falls with it: two clocks would stop at two steps, and feed two rates to one computation."""
    done = together(tmp_path / "run", "--steps=1000000", "--time-limit=4", "--every=1000000")
    assert done.returncode == 0, done.stdout
    stopped = re.findall(r"stopped at step (\d+) interrupted=False", done.stdout)
    assert len(stopped) == 2 and len(set(stopped)) == 1 and 0 < int(stopped[0]) < 1000000
    assert rows(tmp_path / "run")[-1]["lr"] < 0.2e-3


# -- what cannot start -------------------------------------------------------------------------------------------------------


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def refused(capfd, *flags):
    """The one line with which the command refuses to start."""
    assert cli.main(COMMAND, ["--workdir=unused", *flags]) == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line]
    return line


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--processes=2"], "are given together"),
        (["--coordinator=127.0.0.1:1234", "--processes=2", "--process=2"], "--process=2 of --processes=2: processes are numbered 0 .. 1"),
        (["--coordinator=nowhere", "--processes=2", "--process=1"], "write HOST:PORT"),
        (["--coordinator=127.0.0.1:99999", "--processes=2", "--process=1"], "write HOST:PORT"),
        (["--distributed", "--processes=2"], "give either it, or the three flags"),
    ],
)
def test_flags_that_mean_no_set_of_processes_are_one_line(capfd, flags, said):
    assert said in refused(capfd, *flags)


def test_no_cluster_is_one_line():
    """In a process of its own: this one may have used its devices already."""
    command = [sys.executable, "-m", "experiments.evaluate", "--workdir=unused", "--distributed", "--no-allocator-tuning"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment())
    assert done.returncode == 2 and done.stderr.startswith("error: no cluster was found") and done.stderr.count("\n") == 1


def test_a_port_in_use_is_one_line(capfd):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        line = refused(capfd, f"--coordinator=127.0.0.1:{port}", "--processes=2", "--process=0")
    assert f"cannot listen at 127.0.0.1:{port} (Address already in use)" in line


def test_a_coordinator_that_never_comes_is_one_line(capfd):
    flags = [f"--coordinator=127.0.0.1:{free_port()}", "--processes=2", "--process=1", "--initialization-timeout=1"]
    assert "no coordinator came to 127.0.0.1" in refused(capfd, *flags)


def test_processes_that_never_come_are_named(capfd):
    flags = [f"--coordinator=127.0.0.1:{free_port()}", "--processes=3", "--process=0", "--initialization-timeout=1"]
    assert "processes 1, 2 did not come to 127.0.0.1" in refused(capfd, *flags)


@pytest.mark.parametrize(
    ("others", "said"),
    [([(1, 3), (1, 3)], "--process=1 was given twice"), ([(1, 4)], "process 1 on .* was told --processes=4, process 0 --processes=3")],
)
def test_processes_that_count_differently_are_all_told(others, said):
    port, heard = free_port(), []

    def come(process, processes):
        try:
            hosts.connect(f"127.0.0.1:{port}", processes, process, initialization_timeout=20)
        except hosts.HostsError as error:
            heard.append(str(error))

    callers = [threading.Thread(target=come, args=pair) for pair in [(0, 3), *others]]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=30)
    assert len(heard) == 1 + len(others) and len(set(heard)) == 1 and re.search(said, heard[0]), heard


def test_a_file_that_differs_between_hosts_is_named(monkeypatch):
    """As two checkouts would: the same config, one line of code more."""
    told = []
    monkeypatch.setattr(hosts, "count", lambda: 2)
    monkeypatch.setattr(hosts, "agree", lambda what, facts: told.append(json.dumps(facts)))
    monkeypatch.setattr(hosts, "_name", lambda process: f"process {process}")
    config = {"train": {"steps": 1}, "data": {"root": "/here"}}
    hosts.agree_on_run(config)
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + b"\n" * path.as_posix().endswith("train/loop.py"))
    hosts.agree_on_run({**config, "data": {"root": "/there"}})
    line = hosts._difference("config or code", told[0], 1, told[1])
    assert re.search(r"config or code: code\.causal_gen/train/loop\.py is \"\w{12}\" on process 1, \"\w{12}\" on process 0", line)


@pytest.mark.slow
def test_hosts_of_different_configs_are_refused_before_compiling(tmp_path):
    """The flag of one process differs: both end with 2 and a line that names host and key; nothing was compiled or written."""
    port = free_port()
    flags = [f"--coordinator=127.0.0.1:{port}", "--processes=2"]
    calls = [[*WORKER, f"--workdir={tmp_path}", *flags, f"--process={k}", f"--config.rate={k}"] for k in range(2)]
    both = [subprocess.Popen(call, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment(2)) for call in calls]
    said = [process.communicate(timeout=900)[1] for process in both]
    assert [process.returncode for process in both] == [2, 2], said
    for text in said:
        (line,) = [line for line in text.splitlines() if line.startswith("error:")]
        assert re.search(r'config\.train\.rate is "1" on process 1 \(.*, pid \d+\), "0" on process 0', line)
        assert "reads train" not in text and "Traceback" not in text


@pytest.mark.slow
def test_waiting_at_a_barrier_is_told_of_with_its_name_and_who_is_missing():
    code = """
import sys, time
from causal_gen.parallel import hosts
k = int(sys.argv[-1][-1])
hosts.connect(sys.argv[-3].partition("=")[2], 2, k)
hosts.PATIENCE = 0.5
time.sleep(3 * k)
hosts.barrier("saved step 100")
hosts.leave()
"""
    call = [sys.executable, "-m", "launch.local", "--devices=1", "--restarts=0", "--", sys.executable, "-c", code]
    done = subprocess.run(call, capture_output=True, text=True, cwd=ROOT, env=environment(), timeout=900)
    assert done.returncode == 0, done.stdout
    told = [line for line in done.stdout.splitlines() if "has waited" in line]
    assert told and re.search(r'\[0\] process 0 has waited \d s at "saved step 100" for process 1 \(.*, pid \d+\)', told[0])
    assert not any(line.startswith("[1]") for line in told)


@pytest.mark.slow
def test_slurms_environment_is_enough(tmp_path):
    """What srun sets, as far as JAX reads it."""
    job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    both = []
    for k in range(2):
        given = {**environment(2), **job, "SLURM_PROCID": str(k), "SLURM_LOCALID": str(k), "JAX_PLATFORMS": "cpu"}
        call = [*WORKER, f"--workdir={tmp_path}", "--distributed"]
        both.append(subprocess.Popen(call, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=given))
    said = [process.communicate(timeout=900)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert [f"process {k} stopped at step 6" in said[k] for k in range(2)] == [True, True]


@pytest.mark.slow
def test_a_cluster_whose_other_half_never_comes_is_one_line(tmp_path):
    job = {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
    }
    call = [*WORKER, f"--workdir={tmp_path}", "--distributed", "--initialization-timeout=2"]
    done = subprocess.run(call, capture_output=True, text=True, cwd=ROOT, env={**environment(2), **job}, timeout=900)
    assert done.returncode == 2
    assert done.stderr.strip() == "error: not all processes came together within 2 s: start them all, or raise --initialization-timeout"
