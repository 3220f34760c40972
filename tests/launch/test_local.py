"""Laws of the local launcher: its children see what it promises, a lost one is named, all start again, and a mistake is not repeated."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from launch import local

ROOT = Path(__file__).resolve().parents[2]


def command(*flags: str, code: str) -> list[str]:
    """The launcher over children that run `code`, with `k` their number and the flags given after it in sys.argv."""
    begin = "import os, sys, time, signal\nk = int(sys.argv[-1].removeprefix('--process='))\n"
    return [sys.executable, "-m", "launch.local", *flags, "--", sys.executable, "-c", begin + textwrap.dedent(code)]


def launched(*flags: str, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*flags, code=code), capture_output=True, text=True, cwd=ROOT, timeout=60)


def test_children_get_their_number_port_and_devices_and_lines_are_told_apart():
    code = "print(sys.argv[1:], os.environ['XLA_FLAGS'], os.environ['JAX_PLATFORMS']); print('to stderr', file=sys.stderr)"
    done = launched("--processes=3", "--devices=4", code=code)
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    (port,) = set(re.findall(r"--coordinator=127\.0\.0\.1:(\d+)", done.stdout))
    assert f"coordinator 127.0.0.1:{port}" in lines[0]
    for k in range(3):
        mine = [line for line in lines if line.startswith(f"[{k}] ")]
        assert f"'--processes=3', '--process={k}'] " in mine[0] and mine[0].endswith("device_count=4 cpu")
        assert mine[1] == f"[{k}] to stderr"


def test_what_gloo_says_is_left_out_and_nothing_else_of_its_line_is_lost():
    said = "[Gloo] Rank 1 is connected to 3 peer ranks. Expected number of connected peer ranks is : 3"
    broken = "[Gloo] Rank 1 is con"
    code = f"print({said!r}); print({said + 'reads train'!r}); print({'step' + said + ' 6/6'!r}); print({broken!r}); print()"
    done = launched("--processes=1", code=code)
    assert done.stdout.splitlines()[1:] == ["[0] reads train", "[0] step 6/6", f"[0] {broken}", "[0] "]


def test_a_killed_process_is_named_the_rest_is_ended_and_all_start_again(tmp_path):
    code = f"""
        first = not os.path.exists({str(tmp_path / "again")!r})
        if first and k == 1:
            while not os.path.exists({str(tmp_path / "waits")!r}):
                time.sleep(.01)
            open({str(tmp_path / "again")!r}, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        if first:
            open({str(tmp_path / "waits")!r}, "w").close()
            time.sleep(60)  # as a computation that waits for the lost one
        print("done")
    """
    start = time.monotonic()
    done = launched("--processes=2", code=code)
    assert done.returncode == 0 and time.monotonic() - start < 30
    (said,) = [line for line in done.stdout.splitlines() if "killed" in line]
    pid = re.search(r"pids \d+ (\d+)", done.stdout).group(1)
    assert said == f"launch.local: process 1 (pid {pid}) was killed by SIGKILL; the other 1 ended; starting again, 1 of 3"
    assert done.stdout.count("] done") == 2


def test_starts_are_counted_and_the_last_loss_is_the_exit_code():
    done = launched("--processes=2", "--restarts=1", code="time.sleep(60 * (1 - k)); sys.exit(7)")
    assert done.returncode == 7
    assert done.stdout.count("started 2 processes") == 2
    assert "process 1" in done.stdout and "not started again, after 2 starts" in done.stdout
    killed = launched("--processes=1", "--restarts=0", code="os.kill(os.getpid(), signal.SIGKILL)")
    assert killed.returncode == 128 + signal.SIGKILL


@pytest.mark.parametrize(
    ("first", "final", "process"),
    [
        ((None, -9), (-6, -9), 1),  # JAX aborts process 0 for the sake of 1
        ((-6, -9), (-6, -9), 1),
        ((-6, None), (-6, 2), 1),  # 1 still says why
        ((None, -6), (None, -6), 1),
        ((0, 3, 4), (0, 3, 4), 1),
    ],
)
def test_the_loss_is_named_and_not_those_whom_it_ends(first, final, process):
    assert local.culprit(first, final) == process


def test_a_mistake_of_the_user_is_not_repeated():
    done = launched("--processes=2", code="print('error: mend this', file=sys.stderr); sys.exit(2)")
    assert done.returncode == 2 and done.stdout.count("started 2 processes") == 1
    assert "[0] error: mend this" in done.stdout and "what to mend" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_to_all_and_ends_well_if_they_do(number):
    code = """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: (print("saved after", number), sys.exit(0)))
        print("ready")
        time.sleep(60)
    """
    running = subprocess.Popen(command("--processes=2", code=code), stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True)
    assert running.stdout is not None
    seen = ""
    while seen.count("ready") < 2:
        seen += running.stdout.readline()
    running.send_signal(number)
    rest, _ = running.communicate(timeout=30)
    assert running.returncode == 0 and rest.count(f"saved after {int(number)}") == 2 and "starting again" not in rest


def test_a_process_that_a_passed_on_signal_ends_is_not_started_again():
    code = "print('ready')\ntime.sleep(60)"
    running = subprocess.Popen(command("--processes=1", code=code), stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert running.stdout is not None
    while "ready" not in running.stdout.readline():
        pass
    running.send_signal(signal.SIGTERM)
    rest, _ = running.communicate(timeout=30)
    assert running.returncode == 128 + signal.SIGTERM and "after SIGTERM" in rest


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_launcher_that_is_killed_leaves_nobody_behind():
    code = "print('ready')\ntime.sleep(60)"
    running = subprocess.Popen(command("--processes=1", code=code), stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert running.stdout is not None
    pid = re.search(r"pids (\d+)", running.stdout.readline()).group(1)
    while "ready" not in running.stdout.readline():
        pass
    running.kill()
    running.communicate()
    end = time.monotonic() + 20
    while (alive := Path(f"/proc/{pid}/cmdline")).exists() and alive.read_bytes() and time.monotonic() < end:
        time.sleep(0.05)
    assert time.monotonic() < end


@pytest.mark.parametrize(
    ("argv", "said"),
    [(["--processes=0", "--", "x"], "--processes"), (["--devices=2"], "command is missing"), (["--nodes=2", "--", "x"], "--nodes")],
)
def test_a_command_line_that_means_nothing_is_one_line(argv, said):
    done = subprocess.run([sys.executable, "-m", "launch.local", *argv], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and said in done.stderr and done.stderr.count("\n") == 1


def test_the_launcher_pulls_in_neither_jax_nor_the_package():
    code = "import sys, launch.local; print([name for name in ('jax', 'causal_gen', 'numpy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"
