"""One pure step, compiled for any mesh and either mode, gives the same run."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src import lru_cache

from causal_gen.data import batches
from causal_gen.parallel import rules
from causal_gen.parallel.compile import _put_whole, compile_step, enable_compile_cache
from causal_gen.parallel.mesh import MeshConfig, make_mesh, put_batch
from causal_gen.train.state import TrainConfig
from causal_gen.train.step import make_init, make_step
from causal_gen.types import ConfigError
from tests.train.toy import ToyModel, ToySource

ROOT = Path(__file__).resolve().parents[2]
TRAIN = TrainConfig(steps=20, batch_size=16, learning_rate=1e-2, weight_decay=0.01)


def losses(model, config, devices=None, steps=5):
    """Losses and the last state of `steps` steps, and how often the step was traced."""
    mesh = make_mesh(config, devices)
    init, step, traces = make_init(model, TRAIN), make_step(model, TRAIN), []

    def counted(state, batch, axis=None):
        traces.append(axis)
        return step(state, batch, axis)

    placed = rules.shardings(jax.eval_shape(init), mesh)
    state, compiled = jax.jit(init, out_shardings=placed)(), compile_step(counted, mesh, placed, config.mode)
    out = []
    for i in range(steps):
        state, metrics = compiled(state, put_batch(mesh, batches.batch(ToySource(), "train", 0, i, 16)))
        out.append(float(metrics["loss"]))
    return np.array(out), state, traces


@pytest.mark.parametrize(
    "config",
    [
        MeshConfig(),
        MeshConfig(data=1, fsdp=8),
        MeshConfig(data=2, fsdp=2, tensor=2),
        MeshConfig(data=1, fsdp=2, tensor=2, sequence=2),
    ],
)
def test_eight_devices_give_the_losses_of_one(config):
    model = ToyModel(width=1024)  # large enough that fsdp really splits the kernels
    one, _, _ = losses(model, MeshConfig(), jax.devices()[:1])
    eight, state, traces = losses(model, config)
    assert len(traces) == 1
    np.testing.assert_allclose(eight, one, atol=2e-5)
    assert one[-1] < one[0]
    if config.fsdp == 8:
        assert state.params["first"]["kernel"].addressable_shards[0].data.shape == (4, 128)


def test_pmap_mode_gives_the_losses_and_statistics_of_jit_mode():
    model = ToyModel(noisy=False)  # with noise each device draws its own, and only the law of the loss is the same
    jit, a, _ = losses(model, MeshConfig())
    pmap, b, _ = losses(model, MeshConfig(mode="pmap"))
    np.testing.assert_allclose(pmap, jit, atol=2e-5)
    np.testing.assert_allclose(b.params["state"]["mean"], a.params["state"]["mean"], atol=1e-6)
    # negative control: without the reduction over devices the first loss would be that of two rows, not of sixteen
    two = ToySource().gather("train", batches.indices(0, 0, 16, 96)[:2])
    alone, _ = model.loss(make_init(model, TRAIN)().params, jax.random.key(0), jax.tree.map(jnp.asarray, two), step=0, train=True)
    assert abs(float(alone.mean()) - jit[0]) > 1e-3


def test_pmap_mode_refuses_a_loss_that_mixes_examples():
    mesh = make_mesh(MeshConfig())
    with pytest.raises(ConfigError, match="mesh.mode=jit"):
        compile_step(lambda s, b: (s, {}), mesh, {}, "pmap", batch_coupled=True)


def test_the_state_is_donated():
    mesh = make_mesh(MeshConfig())
    init = make_init(ToyModel(with_state=False), TRAIN)
    placed = rules.shardings(jax.eval_shape(init), mesh)
    state = jax.jit(init, out_shardings=placed)()
    batch = put_batch(mesh, batches.batch(ToySource(), "train", 0, 0, 16))
    compile_step(make_step(ToyModel(with_state=False), TRAIN), mesh, placed)(state, batch)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((state.params, state.ema, state.opt)))


def test_the_compile_cache_is_the_users_own(tmp_path, monkeypatch):
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    try:
        folder = enable_compile_cache()
        assert folder == tmp_path / "causal_gen" / "xla"
        assert folder.stat().st_mode & 0o777 == 0o700
        assert jax.config.jax_compilation_cache_dir == str(folder)
        blocked = tmp_path / "file"
        blocked.write_text("")
        enable_compile_cache(blocked / "below")  # a home that cannot be written is no reason not to train
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_a_kept_program_that_was_cut_short_costs_a_compilation_and_nothing_else(tmp_path):
    code = (
        "import jax, causal_gen.parallel.compile as c; c.enable_compile_cache(); print(float(jax.jit(lambda x: jax.numpy.sin(x) + 1)(3.0)))"
    )

    def start():
        call = [sys.executable, "-c", code]
        done = subprocess.run(call, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)})
        assert done.returncode == 0, done.stderr
        return done

    first = start()
    entries = list((tmp_path / "causal_gen" / "xla").glob("*-cache"))
    assert entries and "Error reading" not in first.stderr
    for entry in entries:
        entry.write_bytes(entry.read_bytes()[: entry.stat().st_size // 2])
    second = start()
    assert second.stdout == first.stdout and "Error reading persistent compilation cache entry" in second.stderr


def test_a_program_that_cannot_be_kept_leaves_nothing(tmp_path, monkeypatch):
    """A full disk, or a kill, while an entry is written: the next start finds none, not a piece."""
    cache = lru_cache.LRUCache(str(tmp_path), max_size=-1)

    def full(path, value):
        with open(path, "wb") as file:
            file.write(value[:50])
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(lru_cache.LRUCache, "put", _put_whole)
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space"):
            cache.put("key", b"x" * 100)
        assert not list(tmp_path.iterdir())
        patch.undo()
        patch.setattr(lru_cache.LRUCache, "put", _put_whole)
        cache.put("key", b"x" * 100)
    assert cache.get("key") == b"x" * 100
