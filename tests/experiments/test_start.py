"""How long a run takes to its first step, and what its kept programs do for the next one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "configs/causal_transformer/text.py"  # at its full size; its text is the standard library's, so that nothing is built


def environment(cache):
    """That of a person with an empty cache folder: not the suite's kept programs, nor its devices."""
    ours = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR", "CAUSAL_GEN_ALLOCATOR_TUNED")
    return {name: value for name, value in os.environ.items() if name not in ours} | {"XDG_CACHE_HOME": str(cache)}


def start(workdir, cache):
    """Trains a few steps; seconds from the command to the line of its first step, and what it said on stderr."""
    flags = [f"--config.{flag}" for flag in ("log.every=1", "train.steps=2", "log.eval_every=0", "log.eval_batches=1")]
    call = [sys.executable, "-m", "experiments.train", f"--config={CONFIG}", f"--workdir={workdir}", *flags]
    begun, seconds = time.perf_counter(), None
    with open(workdir.with_suffix(".err"), "w+") as errors:
        with subprocess.Popen(call, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT, env=environment(cache)) as process:
            for line in process.stdout:
                if seconds is None and line.startswith("step 1/"):
                    seconds = time.perf_counter() - begun
        errors.seek(0)
        said = errors.read()
    assert process.returncode == 0 and seconds is not None, said
    return seconds, said


@pytest.mark.slow
def test_a_second_start_takes_less_than_two_fifths_of_the_first_to_its_first_step(tmp_path):
    first, _ = start(tmp_path / "first", tmp_path / "cache")
    second = min(start(tmp_path / f"again{i}", tmp_path / "cache")[0] for i in range(2))
    print(f"to the first step: {first:.1f} s, then {second:.1f} s, {second / first:.2f} of it")
    assert second <= 0.4 * first
