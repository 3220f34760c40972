"""A signal to one of several processes that answer a question ends all of them, each with 128 + its number, in one line between them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from causal_gen.parallel import interrupt

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def begun(tmp_path):
    """begun(place) -> (launcher, pids) of two processes that are at work at that place."""
    running = []

    def begin(place):
        ask = [sys.executable, "-m", "tests.parallel.asker", f"--out={tmp_path / 'answer.txt'}", f"--at={place}"]
        call = [sys.executable, "-m", "launch.local", "--processes=2", "--devices=1", "--", *ask]
        running.append(subprocess.Popen(call, stdout=subprocess.PIPE, text=True, cwd=ROOT))
        pids, there = [], 0
        for line in running[0].stdout:
            pids = pids or [int(pid) for pid in re.findall(r"pids (\d+) (\d+)", line)[0]]
            there += "is there" in line
            if there == 2:
                return running[0], pids
        raise AssertionError("they never got to work")

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def said(launcher, number):
    """What all processes said after the signal; sees that they ended as interrupted."""
    out = launcher.communicate(timeout=100)[0]
    assert launcher.returncode == 128 + number, out
    *lines, last = out.splitlines()
    assert re.fullmatch(rf"launch\.local: process \d \(pid \d+\) exited with {128 + number}; the other 1 ended; it was asked to", last), out
    return lines


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "process", "number"),
    [("device", 1, signal.SIGTERM), ("together", 0, signal.SIGINT), ("together", 1, signal.SIGTERM)],
)
def test_a_signal_to_one_ends_both_in_one_line(begun, place, process, number):
    launcher, pids = begun(place)
    os.kill(pids[process], number)
    name = signal.Signals(number).name
    assert said(launcher, number) == [f"[0] interrupted by {name} to process {process}: all 2 processes end; the same command starts again"]


@pytest.mark.slow
def test_a_file_that_is_being_written_is_finished_first(begun, tmp_path):
    launcher, pids = begun("file")
    os.kill(pids[1], signal.SIGTERM)
    said(launcher, signal.SIGTERM)
    assert [path.name for path in tmp_path.iterdir()] == ["answer.txt"]
    assert (tmp_path / "answer.txt").read_text() == "".join(f"{line}\n" for line in range(20))


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "answer.txt"
    with pytest.raises(ZeroDivisionError), interrupt.whole(path) as part:
        part.write_text("half")
        print(1 // 0)
    assert not list(tmp_path.iterdir())
    path.write_text("old")
    with interrupt.whole(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_one_process_keeps_its_signals():
    before = signal.getsignal(signal.SIGTERM)
    interrupt.end_together()
    assert signal.getsignal(signal.SIGTERM) is before
