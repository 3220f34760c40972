"""One run a workdir: the second is refused by name, and a run that was killed blocks nobody."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from causal_gen.train import lock
from causal_gen.train.lock import Lock
from causal_gen.types import WorkdirError

HOLD = """
import sys, time
from pathlib import Path
from causal_gen.train.lock import Lock
with Lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the workdir."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_second_is_refused_naming_host_and_process(tmp_path, holder):
    with pytest.raises(WorkdirError, match=rf"process {holder.pid} on {socket.gethostname()}") as caught, Lock(tmp_path):
        pass
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_process_that_was_killed_does_not_block_and_is_known(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with Lock(tmp_path) as taken:
        assert taken.before is not None and taken.before["pid"] == holder.pid and not taken.before["over"]
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    with Lock(tmp_path) as again:
        assert again.before is None  # the one before ended well


def test_a_run_on_another_host_counts_as_dead_when_it_has_been_silent_for_long(tmp_path):
    record = {"host": "elsewhere", "pid": 7, "start": time.time() - 1000, "over": False, "seen": time.time() - 5}
    (tmp_path / ".lock").write_text(json.dumps(record))
    with pytest.raises(WorkdirError, match=r"process 7 on elsewhere.*start again in 5\d s"), Lock(tmp_path):
        pass
    for gone in ({"seen": time.time() - lock.PATIENCE - 1}, {"over": True}):
        (tmp_path / ".lock").write_text(json.dumps(record | gone))
        with Lock(tmp_path) as taken:
            assert taken.before is not None and taken.before["host"] == "elsewhere"


def test_a_run_that_failed_is_over_and_gives_signs_of_life_while_it_lasts(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.05)
    with pytest.raises(ZeroDivisionError), Lock(tmp_path):
        first = json.loads((tmp_path / ".lock").read_text())["seen"]
        while json.loads((tmp_path / ".lock").read_text())["seen"] == first:
            time.sleep(0.01)
        raise ZeroDivisionError
    with Lock(tmp_path) as taken:
        assert taken.before is not None and taken.before["over"]


def test_only_the_first_of_several_processes_holds(tmp_path, holder):
    with Lock(tmp_path, first=False) as other:
        assert other.before is None


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(WorkdirError, match="cannot write") as caught, Lock(tmp_path / "nowhere"):
        pass
    assert "\n" not in str(caught.value)
