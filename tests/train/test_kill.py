"""kill -9 at any moment: the same command goes on, and the run ends with the bytes of one that nobody killed.

Both sides run with 8 simulated devices (tests/conftest.py puts that into the environment, which the killed processes inherit).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from causal_gen.parallel.mesh import MeshConfig
from causal_gen.train.checkpoint import UNFINISHED, Checkpoints
from causal_gen.train.loop import prepare
from tests.train import killed
from tests.train.toy import ToyModel, ToySource

ROOT = Path(__file__).resolve().parents[2]


def start(workdir: Path, steps: int) -> subprocess.Popen[str]:
    # a cache of its own, filled by the run that nobody kills: JAX does not write its entries atomically, and other tests share theirs
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(workdir.parent / "cache")}
    command = [sys.executable, "-m", "tests.train.killed", str(workdir), str(steps)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def saved_steps(workdir: Path) -> set[int]:
    return {int(path.name) for path in (workdir / "checkpoints").glob("[0-9]*") if path.name.isdigit()}


def unfinished(workdir: Path) -> bool:
    return any((workdir / "checkpoints").glob(f"*{UNFINISHED}*"))


def kill(workdir: Path, steps: int, *, saves: int | None = None, late: float | None = None, early: float | None = None) -> str:
    """Start the command and kill it: while a save is being written after `saves` others of this start, `late` seconds after its first
    save, or `early` seconds after its birth.

    Returns "finished" if it was done before, "inside" if the kill left an unfinished folder behind, else "between".
    """
    born, old, process = time.monotonic(), saved_steps(workdir), start(workdir, steps)
    seen: set[int] = set()
    first = None
    try:
        while process.poll() is None:
            seen |= saved_steps(workdir) - old
            now = time.monotonic()
            first = first or (now if seen else None)
            due = saves is not None and len(seen) >= saves and unfinished(workdir)
            due |= late is not None and first is not None and now - first >= late
            if due or (early is not None and now - born >= early):
                break
            time.sleep(0.0005)
        process.send_signal(signal.SIGKILL)
        out, err = process.communicate()
    finally:
        process.kill()
    if process.returncode == 0:
        return "finished"
    assert process.returncode == -signal.SIGKILL, out + err
    return "inside" if unfinished(workdir) else "between"


def finish(workdir: Path, steps: int) -> None:
    process = start(workdir, steps)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0 and out.endswith("done\n"), out + err


def state(workdir: Path, steps: int) -> tuple[int, dict[str, bytes]]:
    """The last step and the bytes of every leaf of its state: parameters, average, optimiser."""
    with Checkpoints(workdir / "checkpoints", read_only=True) as saved:
        engine, _, _ = prepare(ToyModel(width=killed.WIDTH), ToySource(), killed.config(steps), MeshConfig(), saved)
        found, _ = saved.restore(engine.abstract)
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(found))
    return int(found.step), {jax.tree_util.keystr(path): leaf.tobytes() for path, leaf in leaves}


def whole(workdir: Path, steps: int) -> tuple[int, dict[str, bytes]]:
    """The state of a run that nobody killed."""
    finish(workdir, steps)
    return state(workdir, steps)


def test_two_kills_one_inside_a_save_and_the_run_ends_with_the_same_bytes(tmp_path):
    workdir, expected = tmp_path / "killed", whole(tmp_path / "whole", 30)
    hits = [kill(workdir, 30, saves=2), kill(workdir, 30, late=0.02)]
    assert "inside" in hits and "finished" not in hits
    finish(workdir, 30)
    assert expected[0] == 30 and state(workdir, 30) == expected


@pytest.mark.slow
def test_twenty_kills_at_random_moments_five_of_them_inside_a_save(tmp_path):
    """Of one run after the other, since one may come to its end before: every one has to end with the same bytes."""
    draw, expected = random.Random(0), whole(tmp_path / "whole", 150)
    hits: list[str] = []
    runs = 0
    while len(hits) < 20 or hits.count("inside") < 5:
        workdir = tmp_path / str(runs)
        while len(hits) < 20 or hits.count("inside") < 5:
            moment = draw.choice([{"saves": draw.randrange(4)}, {"late": 0.2 * draw.random()}, {"early": 8 * draw.random()}])
            hit = kill(workdir, 150, **moment)
            if hit == "finished":
                break
            hits.append(hit)
        finish(workdir, 150)
        assert state(workdir, 150) == expected, f"run {runs} after {hits}"
        runs += 1
    print(f"{len(hits)} kills of {runs} runs, {hits.count('inside')} inside of a save")
