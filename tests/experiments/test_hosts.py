"""Commands on several devices and processes give the answer of one, written once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


def together(name, *flags):
    """A command as two processes of one device each; the lines of process 0."""
    changed = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir)}
    start = [sys.executable, "-m", "launch.local", "--processes=2", "--devices=1", "--restarts=0", "--"]
    call = [*start, sys.executable, "-m", f"experiments.{name}", "--no-allocator-tuning", *flags]
    done = subprocess.run(call, capture_output=True, text=True, cwd=ROOT, env=changed, timeout=900)
    assert done.returncode == 0, done.stdout
    assert not any(line.startswith("[1] {") for line in done.stdout.splitlines())  # answers are process 0's
    return [line.removeprefix("[0] ") for line in done.stdout.splitlines() if line.startswith("[0] ")]


def alone(name, *flags):
    """A command as one process of one device; its lines."""
    changed = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    changed["JAX_COMPILATION_CACHE_DIR"] = str(jax.config.jax_compilation_cache_dir)
    call = [sys.executable, "-m", f"experiments.{name}", "--no-allocator-tuning", *flags]
    done = subprocess.run(call, capture_output=True, text=True, cwd=ROOT, env=changed, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def same(one, other):
    with np.load(one) as a, np.load(other) as b:
        assert set(a.files) == set(b.files) and len(a.files) > 1
        for name in a.files:
            np.testing.assert_allclose(a[name], b[name], atol=1e-4, rtol=1e-4, err_msg=name)


@pytest.mark.slow
def test_samples_of_two_processes_are_those_of_one(trained, call, tmp_path):
    flags = (f"--workdir={trained}", "--num=4", "--do=angle=20")
    assert call("sample", *flags, f"--out={tmp_path / 'one'}").code == 0
    together("sample", *flags, f"--out={tmp_path / 'two'}")
    same(tmp_path / "one" / "samples.npz", tmp_path / "two" / "samples.npz")
    assert (tmp_path / "two" / "grid.png").is_file()


@pytest.mark.slow
def test_samples_of_eight_devices_are_those_of_one(trained, call, tmp_path):
    """A size of the mesh on the command line spreads the scenes over this process's devices."""
    flags = (f"--workdir={trained}", "--num=8", "--do=angle=20")
    assert call("sample", *flags, f"--out={tmp_path / 'one'}").code == 0
    assert call("sample", *flags, f"--out={tmp_path / 'eight'}", "--config.mesh.data=8").code == 0
    same(tmp_path / "one" / "samples.npz", tmp_path / "eight" / "samples.npz")


@pytest.mark.slow
def test_counterfactuals_of_two_processes_are_those_of_one(trained, call, tmp_path):
    """Five scenes do not divide over two devices: such a batch is whole on both."""
    for num in (4, 5):
        flags = (f"--workdir={trained}", f"--num={num}", "--do=angle=20")
        one = call("counterfactual", *flags, f"--out={tmp_path / f'one{num}'}")
        lines = together("counterfactual", *flags, f"--out={tmp_path / f'two{num}'}")
        same(tmp_path / f"one{num}" / "counterfactual.npz", tmp_path / f"two{num}" / "counterfactual.npz")
        assert json.loads(lines[-1]).keys() == json.loads(one.out.splitlines()[-1]).keys()


def differences(a, b, path=""):
    """Where two answers as JSON differ by more than times and rounding."""
    if type(a) is not type(b):
        return [path]
    if isinstance(a, dict):
        found = [differences(a[name], b[name], f"{path}.{name}") for name in a.keys() & b.keys()]
        return sum(found, [f"{path}.{name}" for name in a.keys() ^ b.keys()])
    if isinstance(a, list):
        found = [differences(*pair, f"{path}[{i}]") for i, pair in enumerate(zip(a, b, strict=False))]
        return sum(found, [path] if len(a) != len(b) else [])
    same = ("seconds" in path or a == pytest.approx(b, abs=1e-3, rel=1e-3)) if isinstance(a, float) else a == b
    return [] if same else [path]


@pytest.mark.slow
def test_an_evaluation_by_two_processes_is_that_of_one(trained, call):
    flags = (f"--workdir={trained}",)
    one = json.loads(call("evaluate", *flags).out.splitlines()[-1])
    two = json.loads(together("evaluate", *flags)[-1])
    written = json.loads((trained / "evaluate" / "metrics.json").read_text())
    assert written["seconds"] == two["seconds"]
    assert differences(one, two) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["conan", "illama", "layer_masks", "dag_aware", "text"])  # the evaluators of the other families
def test_every_familys_evaluation_by_two_processes_is_that_of_one(name, tmp_path):
    workdir = f"--workdir={tmp_path / 'run'}"
    alone("train", f"--config=configs/causal_transformer/{name}.py:tiny", workdir)
    one, two = (json.loads(ask("evaluate", workdir)[-1]) for ask in (alone, together))
    assert differences(one, two) == []
