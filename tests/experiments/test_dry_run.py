"""A dry run says what a step needs: its numbers against arithmetic done by hand, and one line for everything that goes wrong."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
TEXT = "--config=configs/causal_transformer/text.py:tiny"
POD = "configs/causal_transformer/pod.py"
WIDTH, LAYERS, HEADS, LENGTH, VOCABULARY, BATCH = 16, 2, 2, 16, 256, 8  # of the tiny mode
UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
tpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: pip install 'jax[tpu]'")


def held(text: str, name: str) -> float:
    """Bytes in the first column of the line that begins with `name`."""
    found = re.search(rf"^  {name} +([\d.,]+) (B|KiB|MiB|GiB)", text, re.MULTILINE)
    assert found, text
    return float(found[1].replace(",", "")) * UNITS[found[2]]


def exchanged(text: str, kind: str) -> tuple[int, int, float]:
    """(devices of a group, times, bytes of the arrays) of a kind of collective."""
    found = re.search(rf"^  {kind} +(\d+) +\w+ +([\d,]+) +([\d.,]+) (B|KiB|MiB|GiB)", text, re.MULTILINE)
    assert found, text
    return int(found[1]), int(found[2].replace(",", "")), float(found[3].replace(",", "")) * UNITS[found[4]]


def parameters(text: str) -> int:
    found = re.search(r"([\d,]+) parameters", text)
    assert found
    return int(found[1].replace(",", ""))


def test_replicas_hold_the_whole_state_and_sum_all_gradients(call):
    """State: parameters, their average and two moments. Exchanged: every gradient once, and the two numbers of the loss."""
    out = call("dry_run", TEXT, "--topology=cpu:8", "--config.model.transformer.tie=False").out
    size = 4 * parameters(out)
    rows = 2 * 4 * LENGTH  # tokens and loss_mask of the one text that a device has
    assert held(out, "arguments") == pytest.approx(4 * size + rows, rel=2e-3)
    assert held(out, "together") > held(out, "arguments")
    devices, _, summed = exchanged(out, "all-reduce")
    assert devices == 8 and summed == pytest.approx(size + 8, rel=2e-3)
    assert "all-gather" not in out and "data=8" in out and "no published peaks" in out


def test_shards_hold_an_eighth_and_gather_what_they_need(call):
    out = call("dry_run", TEXT, "--topology=cpu:8", "--config.mesh.data=1", "--config.mesh.fsdp=8").out
    whole = call("dry_run", TEXT, "--topology=cpu:8").out
    assert held(out, "arguments") < held(whole, "arguments") / 1.5  # what is smaller than 4,096 entries stays whole
    assert exchanged(out, "all-gather")[0] == 8


def test_flops_are_those_of_the_matrices(call):
    """2 a multiply-add: qkv, out and two of the feed-forward layer; scores and sums of the 3 tiles of 8 x 8 that are seen; readout."""
    out = call("dry_run", f"--config={POD}:tiny", "--topology=cpu:8").out
    tokens, square = 2 * BATCH * LENGTH, WIDTH**2
    matrices = tokens * LAYERS * (3 + 1 + 4 + 4) * square
    attention = 2 * 2 * BATCH * LAYERS * WIDTH * 3 * 8**2
    own = 3 * (matrices + attention + tokens * WIDTH * VOCABULARY)
    # computed anew for the backward pass: all of a block but its last matrix; attention's own backward takes five products, not four,
    # and one with ones for <do, o>
    step = own + tokens * LAYERS * ((3 + 1 + 4) * square + WIDTH) + attention + attention // 2
    assert f"FLOPs of a step        {step:.4g}, {step / 8:.4g} a device; the model's {own:.4g}" in out


def test_what_a_layer_exchanges_is_multiplied_by_the_depth(call):
    def times(layers: int) -> int:
        return exchanged(
            call("dry_run", f"--config={POD}:tiny", "--topology=cpu:8", "--config.mesh.fsdp=1", "--config.mesh.data=-1",
                 f"--config.model.transformer.layers={layers}").out, "all-reduce",
        )[1]  # fmt: skip

    two, five = times(2), times(5)
    assert five - two == (times(8) - five) > 0


def test_no_data_is_opened(call, toy, monkeypatch):
    from causal_gen.data.pendulum import PendulumConfig

    def opened(*args: object) -> None:
        raise AssertionError("a dry run opened its data")

    monkeypatch.setattr(PendulumConfig, "make", opened)
    answer = call("dry_run", f"--config={toy}", "--topology=cpu:1", "--slices=2")
    assert answer.code == 0 and "2 slices of cpu:1 (2 x cpu, mesh slice=2)" in answer.out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ((TEXT,), "--topology is missing"),
        (("--topology=cpu:8",), "--config is missing"),
        ((TEXT, "--topology=v5e:3x5"), "topology 'v5e:3x5' does not exist; known are v4"),
        ((TEXT, "--topology=v9:16x16"), "does not exist; known are v4"),
        ((TEXT, "--topology=cpu:8", "--slices=0"), "slices"),
        ((TEXT, "--topology=cpu:8", "--config.mesh.data=3"), "do not multiply to the 8 devices"),
        ((TEXT, "--topology=cpu:8", "--config.train.batch_size=12"), "train.batch_size=12 does not split"),
        ((TEXT, "--topology=cpu:8", "--config.mesh.fsdpp=2"), "mesh.fsdpp: unknown key"),
        (("--config=configs/nowhere.py", "--topology=cpu:8"), "no such file"),
    ],
)
def test_bad_input_is_one_line(refused, argv, said):
    assert said in refused("dry_run", *argv)


def test_without_libtpu_it_says_how_to_get_it(refused, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'jax[tpu]'" in refused("dry_run", TEXT, "--topology=v5e:16x16")


def test_a_program_that_does_not_fit_is_a_verdict_and_a_list(call, monkeypatch):
    def exhausted(self: object, *args: object, **kwargs: object) -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: total memory required (272.53G) exceeds available HBM (15.75G).")

    monkeypatch.setattr(jax.stages.Lowered, "compile", exhausted)
    answer = call("dry_run", TEXT, "--topology=cpu:8")
    lines = answer.out.splitlines()
    assert answer.code == 2 and lines[1] == "does not fit: the compiler needs 272.53G where a device has 15.75G of HBM"
    assert any(re.match(r" +16\.00 KiB  float32\[1,16,256\]|.*float32\[.*\].* at ", line) for line in lines[3:])
    assert answer.err.startswith("error: ") and "take more devices" in answer.err and "Traceback" not in answer.err


def test_a_compile_that_takes_too_long_ends_with_one_line():
    argv = [sys.executable, "-m", "experiments.dry_run", f"--config={POD}:tiny", "--topology=cpu:8", "--limit=0.01"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith("error: ") and "not compiled within 0.01 s" in done.stderr
    assert "Traceback" not in done.stderr


@tpu
@pytest.mark.slow
@pytest.mark.parametrize("slices", [1, 2])
def test_the_pods_config_compiles_for_a_pod_in_four_minutes(slices):
    """1.3 billion parameters on 256 chips and on twice as many; what crosses the network between slices is the gradient."""
    argv = [sys.executable, "-m", "experiments.dry_run", f"--config={POD}", "--topology=v5e:16x16", f"--slices={slices}", "--limit=240"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert 1.29e9 < parameters(done.stdout) < 1.33e9
    assert 0.05 * 2**30 < held(done.stdout, "arguments") < 0.1 * 2**30
    assert held(done.stdout, "together") < 16 * 2**30
    # a layer's matrices are gathered in bfloat16, forward and again backward
    assert exchanged(done.stdout, "all-gather")[2] > 2 * 24 * 12 * 2048**2 * 2
    assert re.search(r"MFU \d+%", done.stdout) and ("DCN" in done.stdout) == (slices == 2)


@tpu
@pytest.mark.slow
def test_a_config_that_cannot_fit_says_so_in_four_minutes():
    """Every chip holding the whole state: 4 + 8 bytes a parameter are 14.6 GiB before a single activation."""
    argv = [sys.executable, "-m", "experiments.dry_run", f"--config={POD}", "--topology=v5e:16x16", "--limit=240"]
    done = subprocess.run([*argv, "--config.mesh.data=-1", "--config.mesh.fsdp=1"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert re.search(r"^does not fit: the compiler needs [\d.]+G where a device has 15\.75G of HBM$", done.stdout, re.MULTILINE)
    assert "float32[24,2048,8192]" in done.stdout


@tpu
@pytest.mark.slow
def test_a_small_program_compiles_for_every_generation():
    for topology in ("v4:2x2x1", "v5e:2x4", "v5p:2x2x1", "v6e:2x4"):
        argv = [sys.executable, "-m", "experiments.dry_run", f"--config={POD}:tiny", f"--topology={topology}"]
        done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0 and re.search(r"MFU \d+%", done.stdout), done.stdout + done.stderr
