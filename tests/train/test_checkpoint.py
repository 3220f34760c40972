"""Checkpoints: what comes back is what was saved, or one line that says why not."""

from __future__ import annotations

import dataclasses
import math
import re
import shutil
import sys
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.models.base import Group
from causal_gen.parallel import rules
from causal_gen.parallel.mesh import MeshConfig, make_mesh
from causal_gen.train import checkpoint, checkpoint_noise
from causal_gen.train import checkpoint_manifest as manifest
from causal_gen.train import checkpoint_retention as retention
from causal_gen.train.checkpoint import CheckpointConfig, Checkpoints, load_params
from causal_gen.train.checkpoint_hash import hash_host, hash_leaf
from causal_gen.train.state import TrainConfig
from causal_gen.train.step import make_init
from causal_gen.types import CheckpointError
from tests.train.toy import ToyModel

TRAIN = TrainConfig(steps=10, batch_size=16)
TOY = ToyModel()


def made(model=TOY, mesh=None, train=TRAIN):
    """A state of step 0 on a mesh, and its abstract tree."""
    mesh = mesh or make_mesh(MeshConfig())
    init = make_init(model, train)
    shapes = jax.eval_shape(init)
    placed = rules.shardings(shapes, mesh)
    state = jax.jit(init, out_shardings=placed)()
    # moments that are not all zero (those compress to nothing) and an average that differs from the parameters, so that a mistake shows
    opt = jax.tree.map(lambda x: x + jax.random.normal(jax.random.key(7), x.shape).astype(x.dtype), state.opt)
    state = dataclasses.replace(state, opt=opt, ema=None if state.ema is None else jax.tree.map(lambda x: x + 1, state.ema))
    return state, jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, placed)


def saved_at(folder, *losses, state=None, config=None, meta=None):
    state = made()[0] if state is None else state
    with Checkpoints(folder, config) as checkpoints:
        for step, loss in enumerate(losses):
            checkpoints.save(step, state, meta or {"config": {"step": step}}, loss)
        checkpoints.wait()


def payloads(folder, item):
    """The files of an item that hold numbers, the largest first."""
    files = [path for path in (folder / item).rglob("*") if path.is_file() and path.parent.name == "d"]
    return sorted(files, key=lambda path: -path.stat().st_size)


def one_line(caught):
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_state_comes_back_bit_by_bit_with_its_meta(tmp_path):
    state, abstract = made()
    saved_at(tmp_path, 1.0, state=state)
    with Checkpoints(tmp_path) as checkpoints:
        back, meta = checkpoints.restore(abstract)
        assert checkpoints.meta(0) == meta == {"config": {"step": 0}}
    chex.assert_trees_all_equal(back, state)
    chex.assert_trees_all_equal_dtypes(back, state)


def test_saved_on_eight_devices_and_read_on_four_two_and_one_and_from_each_back_on_eight(tmp_path):
    model = ToyModel(width=1024)
    eight = make_mesh(MeshConfig(data=1, fsdp=8))
    state, whole = made(model, eight)
    saved_at(tmp_path / "8", 1.0, state=state)
    meshes = {
        "4": make_mesh(MeshConfig(data=1, fsdp=4), jax.devices()[:4]),
        "2x2": make_mesh(MeshConfig(data=2, fsdp=2), jax.devices()[4:]),
        "2": make_mesh(MeshConfig(data=1, fsdp=2), jax.devices()[:2]),
        "1": make_mesh(MeshConfig(), jax.devices()[:1]),
    }
    for name, mesh in meshes.items():
        _, abstract = made(model, mesh)
        with Checkpoints(tmp_path / "8") as checkpoints:
            there, _ = checkpoints.restore(abstract)
        assert there.params["first"]["kernel"].sharding == abstract.params["first"]["kernel"].sharding
        chex.assert_trees_all_equal(jax.device_get(there), jax.device_get(state))
        saved_at(tmp_path / name, 1.0, state=there)
        with Checkpoints(tmp_path / name) as checkpoints:
            back, _ = checkpoints.restore(whole)
        assert len(back.params["first"]["kernel"].sharding.device_set) == 8
        chex.assert_trees_all_equal(jax.device_get(back), jax.device_get(state))


def test_sampling_reads_the_average_alone_and_the_parameters_where_none_was_kept(tmp_path):
    state, _ = made()
    saved_at(tmp_path / "a" / "checkpoints", 1.0, state=state)
    shapes = jax.eval_shape(ToyModel().init, jax.random.key(0))
    shutil.rmtree(tmp_path / "a" / "checkpoints" / "0" / "rest")  # would break a restore that reads the optimiser
    for path in (tmp_path / "a" / "checkpoints" / "0" / "params").rglob("*"):
        if path.is_file():
            path.write_bytes(b"not what was written")
    params, step = load_params(tmp_path / "a", shapes)
    assert step == 0
    chex.assert_trees_all_equal(params, state.ema)
    shutil.rmtree(tmp_path / "a" / "checkpoints" / "0" / "ema")
    with pytest.raises(CheckpointError, match="ema/.* is missing"):  # the plain parameters are no stand-in
        load_params(tmp_path / "a", shapes)
    plain, _ = made(train=dataclasses.replace(TRAIN, ema_decay=None))
    saved_at(tmp_path / "b" / "checkpoints", 1.0, state=plain)
    chex.assert_trees_all_equal(load_params(tmp_path / "b", shapes)[0], plain.params)


def test_the_latest_and_the_best_are_both_kept(tmp_path):
    saved_at(tmp_path / "checkpoints", 3.0, 1.0, 2.0, 4.0, None, 5.0, config=CheckpointConfig(keep_latest=2, keep_best=1))
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.steps() == [1, 3, 4, 5]  # 3: when 5 was saved, the newest that was measured and read back
        assert checkpoints.latest() == 5
        assert checkpoints.best() == 1
    shapes = jax.eval_shape(ToyModel().init, jax.random.key(0))
    assert [load_params(tmp_path, shapes, step)[1] for step in (None, "best", 4)] == [5, 1, 4]


def test_every_kth_is_kept_and_counts_in_steps(tmp_path):
    saved_at(tmp_path, *range(9), config=CheckpointConfig(every=2, keep_latest=1, keep_best=0, keep_every=4))
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [0, 4, 7, 8]  # 7: the last good one when 8 was saved
    with pytest.raises(ValueError, match="keep_every=3 must be a multiple of every=2"):
        CheckpointConfig(every=2, keep_every=3)


def test_a_run_gone_bad_does_not_push_its_last_good_state_out(tmp_path):
    """One whose held-out loss is not finite is never the last good one, nor is one that did not come back from disk as it was saved."""
    config = CheckpointConfig(keep_latest=1, keep_best=0)
    saved_at(tmp_path, 3.0, 1.0, math.nan, math.inf, None, math.nan, config=config)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [1, 5]
    losses = {0: 3.0, 1: 1.0, 2: 2.0}
    assert retention.kept(config, losses, verified={0, 2}) == {2}
    assert retention.kept(config, losses, verified={0, 1}) == {1, 2}
    assert retention.kept(config, losses, verified={0}) == {0, 2}
    assert retention.kept(config, losses, verified=()) == {2}


def test_what_does_not_come_back_as_it_was_saved_is_told_at_once_and_gets_no_manifest(tmp_path, capfd, monkeypatch):
    """As if the writer had taken the parameters after the next step had overwritten their buffers."""
    state, abstract = made()
    read = checkpoint._read_back
    monkeypatch.setattr(checkpoint, "_read_back", lambda folder: jax.tree.map(lambda x: x + (folder.name == "params"), read(folder)))
    saved_at(tmp_path, 1.0, state=state)
    assert re.search(r"checkpoint 0 did not come back from disk as it was saved \(params/\S+\)", capfd.readouterr().err)
    assert not (tmp_path / "0" / manifest.NAME).exists()
    monkeypatch.undo()
    saved_at(tmp_path / "whole", 1.0, state=state)
    assert capfd.readouterr().err == "" and (tmp_path / "whole" / "0" / manifest.NAME).exists()


@pytest.mark.parametrize(("error", "passes"), [(RuntimeError("Event loop is closed"), False), (RuntimeError("boom"), True)])
def test_only_the_late_callbacks_of_a_failed_read_are_dropped(monkeypatch, error, passes):
    seen = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: seen.append(error))
    monkeypatch.setattr(sys, "unraisablehook", lambda about: seen.append(about.exc_value))
    checkpoint_noise.filter_hooks()
    sys.excepthook(type(error), error, None)
    sys.unraisablehook(types.SimpleNamespace(object=None, exc_value=error))
    assert seen == [error] * 2 * passes


@pytest.mark.parametrize(
    ("model", "train", "words"),
    [
        (ToyModel(width=9), TRAIN, r"params/first/bias is float32 \(8,\) there"),
        (ToyModel(with_state=False), TRAIN, "of another model: params/state/mean"),
        (ToyModel(groups_=(("first", Group(frozen=True)), (".*", Group()))), TRAIN, "of another optimiser: rest/opt/"),
        (ToyModel(), dataclasses.replace(TRAIN, clip_norm=None), None),
        (ToyModel(), dataclasses.replace(TRAIN, ema_decay=None), None),
    ],
)
def test_another_shape_is_refused_before_reading_and_names_the_path(tmp_path, model, train, words):
    saved_at(tmp_path, 1.0)
    _, abstract = made(model, train=train)
    with Checkpoints(tmp_path) as checkpoints:
        if words is None:
            checkpoints.restore(abstract)  # clipping has no arrays; an average that is no longer wanted is left where it is
            return
        with pytest.raises(CheckpointError, match=words) as caught:
            checkpoints.restore(abstract)
    one_line(caught)


def test_another_dtype_is_not_cast_in_silence(tmp_path):
    saved_at(tmp_path, 1.0)
    _, abstract = made()
    half = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16, sharding=x.sharding), abstract.params)
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(CheckpointError, match="another dtype: params/first/bias is float32.*bfloat16"),
    ):
        checkpoints.restore(dataclasses.replace(abstract, params=half))


def test_an_average_that_was_not_kept_cannot_be_restored(tmp_path):
    saved_at(tmp_path, 1.0, state=made(train=dataclasses.replace(TRAIN, ema_decay=None))[0])
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(CheckpointError, match="ema") as caught:
        checkpoints.restore(made()[1])
    one_line(caught)


def test_a_folder_without_checkpoints_and_a_step_that_is_not_there(tmp_path):
    shapes = jax.eval_shape(ToyModel().init, jax.random.key(0))
    with pytest.raises(CheckpointError, match="no checkpoints in"):
        load_params(tmp_path / "nothing", shapes)
    saved_at(tmp_path / "checkpoints", 1.0, 2.0)
    with pytest.raises(CheckpointError, match="no checkpoint of step 7.*0, 1"):
        load_params(tmp_path, shapes, 7)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write") as caught:
        Checkpoints(tmp_path / "file" / "checkpoints")
    one_line(caught)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32, jnp.uint8, jnp.bool_])
def test_the_hash_sees_every_bit_and_every_place_and_no_sharding(dtype):
    """Exhaustive over single bits of a small array; swapped entries; the same array in shards."""
    raw = np.random.default_rng(0).integers(0, 2 if dtype == jnp.bool_ else 256, 64 * jnp.dtype(dtype).itemsize).astype(np.uint8)
    value = lambda data: jnp.asarray(data.view(dtype))  # noqa: E731
    code = jax.jit(hash_leaf)
    base = np.asarray(code(value(raw)))
    bits = 1 if dtype == jnp.bool_ else 8
    seen = set()
    for place in range(raw.size):
        for bit in range(bits):
            changed = raw.copy()
            changed[place] ^= 1 << bit
            seen.add(tuple(np.asarray(code(value(changed)))))
    assert tuple(base) not in seen and len(seen) == raw.size * bits
    swapped = np.asarray(value(raw)).copy()
    other = int(np.argmax(swapped != swapped[0]))
    swapped[[0, other]] = swapped[[other, 0]]
    assert tuple(np.asarray(code(jnp.asarray(swapped)))) != tuple(base)
    assert hash_host(raw.view(dtype)) == f"{base[0]:08x}{base[1]:08x}"
    sharding = jax.sharding.NamedSharding(make_mesh(MeshConfig()), jax.sharding.PartitionSpec("data"))
    np.testing.assert_array_equal(np.asarray(code(jax.device_put(value(raw), sharding))), base)


def test_an_unmeasured_checkpoint_is_never_the_best(tmp_path):
    saved_at(tmp_path, None, 2.0, None)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.best() == 1
