"""Damage of every kind is noticed: the step before is taken, aloud, or the run stops with the list; no wrong value is ever loaded."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from causal_gen.train import checkpoint
from causal_gen.train import checkpoint_manifest as manifest
from causal_gen.train.checkpoint import CheckpointConfig, Checkpoints, load_params
from causal_gen.types import CheckpointError
from tests.train.test_checkpoint import made, payloads, saved_at
from tests.train.toy import ToyModel

UNVERIFIED = CheckpointConfig(verify_files=False)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A folder with steps 0 and 1, the abstract state, and {step: the state as numpy}, which differ in every leaf."""
    folder = tmp_path_factory.mktemp("pair")
    old, abstract = made(ToyModel(width=1024))
    new = jax.tree.map(lambda x: x + 1, old)
    with Checkpoints(folder) as checkpoints:
        for step, state in enumerate((old, new)):
            checkpoints.save(step, state, {"config": {"step": step}}, 1.0)
        checkpoints.wait()
    return folder, abstract, {0: jax.device_get(old), 1: jax.device_get(new)}


def equal(found, expected):
    pairs = zip(jax.tree.leaves(jax.device_get(found)), jax.tree.leaves(expected), strict=True)
    return all(a.tobytes() == b.tobytes() for a, b in pairs)


def loaded(pair, config=None):
    """The step whose values, bit for bit and with its meta, a restore gives; an AssertionError for any other values."""
    folder, abstract, states = pair
    with Checkpoints(folder, config, read_only=True) as checkpoints:
        state, meta = checkpoints.restore(abstract)
    step = meta["config"]["step"]
    assert equal(state, states[step])
    return step


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flip(path, place, bit):
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def flip_and_load(pair, count, seed):
    """[(step loaded by manifest, step loaded by hashes alone)] over `count` random bits of the payload of step 1."""
    folder, _, _ = pair
    rng = np.random.default_rng(seed)
    chosen = [path for path in files(folder / "1") if path.parent.name == "d"]
    sizes = np.array([path.stat().st_size for path in chosen])
    steps = []
    for place in rng.choice(sizes.sum(), count, replace=False):
        index = int(np.searchsorted(np.cumsum(sizes), place, side="right"))
        path, offset, bit = chosen[index], int(place - np.cumsum(sizes)[index] + sizes[index]), int(rng.integers(8))
        flip(path, offset, bit)
        try:
            # by hashes alone a flip that changes no value may pass; `loaded` has compared the values
            steps.append((loaded(pair), loaded(pair, UNVERIFIED)))
        finally:
            flip(path, offset, bit)
    return steps


def test_a_dozen_flipped_bits_are_found_and_the_step_before_is_taken(pair, capfd):
    steps = flip_and_load(pair, 12, seed=0)
    assert [by_files for by_files, _ in steps] == [0] * 12
    assert 0 in [by_hashes for _, by_hashes in steps]  # the rest fell on bytes that hold no value
    said = capfd.readouterr().err.splitlines()
    assert sum("is not what was written" in line for line in said) == 12
    assert all(line.startswith("checkpoint 1 is skipped: ") for line in said)
    assert loaded(pair) == 1  # the copy in the fixture is whole again


@pytest.mark.slow
def test_200_flipped_bits_are_found(pair):
    steps = flip_and_load(pair, 200, seed=1)
    assert [by_files for by_files, _ in steps] == [0] * 200


@pytest.mark.parametrize("how", ["cut", "gone", "empty"])
def test_each_file_cut_deleted_or_emptied_is_found(pair, how, capfd):
    """All but the manifest: without one the hashes decide, and the values are those of step 1."""
    for path in files(pair[0] / "1"):
        content = path.read_bytes()
        path.unlink() if how == "gone" else path.write_bytes(content[: len(content) // 2] if how == "cut" else b"")
        step = loaded(pair)
        path.write_bytes(content)
        said = [line for line in capfd.readouterr().err.splitlines() if "checkpoint 1" in line]
        assert len(said) == 1
        lost = how == "gone" and path.name == manifest.NAME
        assert step == (1 if lost else 0), path
        assert ("checkpoint 1 has no manifest" in said[0]) == lost


@pytest.mark.slow
@pytest.mark.parametrize("how", ["cut", "gone", "empty"])
def test_each_file_damaged_without_a_manifest_gives_no_wrong_value(pair, how, tmp_path):
    """A kill before the manifest, and a bad disk on top: `loaded` compares all values of whichever step is taken."""
    folder = tmp_path / "copy"
    shutil.copytree(pair[0], folder)
    (folder / "1" / manifest.NAME).unlink()
    taken = []
    for path in files(folder / "1"):
        content = path.read_bytes()
        path.unlink() if how == "gone" else path.write_bytes(content[: len(content) // 2] if how == "cut" else b"")
        taken.append(loaded((folder, *pair[1:])))
        path.write_bytes(content)
    assert 0 in taken and 1 in taken  # marks of a finished write hold no value


def test_a_lost_manifest_does_not_block_and_is_written_again_when_the_arrays_are_right(pair, tmp_path, capfd):
    folder, abstract, states = tmp_path / "copy", *pair[1:]
    shutil.copytree(pair[0], folder)
    (folder / "1" / manifest.NAME).unlink()
    with Checkpoints(folder) as checkpoints:
        assert equal(checkpoints.restore(abstract)[0], states[1])
    assert "checkpoint 1 has no manifest.sha256" in capfd.readouterr().err
    assert loaded((folder, abstract, states)) == 1 and capfd.readouterr().err == ""
    path = payloads(folder / "1", "params")[0]
    (folder / "1" / manifest.NAME).unlink()
    flip(path, path.stat().st_size // 2, 3)
    assert loaded((folder, abstract, states)) == 0
    said = capfd.readouterr().err
    assert "checkpoint 1 is skipped: params/" in said and "differs from what was saved" in said


def test_the_manifest_is_one_that_sha256sum_reads(pair):
    tool = shutil.which("sha256sum")
    if tool is None:
        pytest.skip("no sha256sum on this machine")
    subprocess.run([tool, "--check", "--strict", "--quiet", manifest.NAME], cwd=pair[0] / "1", check=True)
    listed = {line.split("  ")[1] for line in (pair[0] / "1" / manifest.NAME).read_text().splitlines()}
    assert listed == {path.relative_to(pair[0] / "1").as_posix() for path in files(pair[0] / "1")} - {manifest.NAME}


def test_where_none_is_whole_the_line_lists_steps_and_reasons(pair, tmp_path, capfd):
    folder, abstract, _ = tmp_path / "checkpoints", *pair[1:]
    shutil.copytree(pair[0], folder)
    (folder / "0" / "hashes" / "metadata").unlink()
    path = payloads(folder / "1", "ema")[0]
    path.write_bytes(path.read_bytes()[:-100])
    with Checkpoints(folder) as checkpoints, pytest.raises(CheckpointError, match="no checkpoint in .* is whole") as caught:
        checkpoints.restore(abstract)
    assert "\n" not in str(caught.value) and "1: ema/" in str(caught.value) and "0: it cannot be read (" in str(caught.value)
    assert {one.name for one in folder.iterdir()} == {"0", "1"}  # nothing is set aside where there is nothing to go on with
    shapes = jax.eval_shape(ToyModel(width=1024).init, jax.random.key(0))
    with pytest.raises(CheckpointError, match="is whole"):
        load_params(tmp_path, shapes)


def test_a_step_asked_for_by_number_is_never_replaced_by_another(pair, tmp_path):
    folder, abstract, states = tmp_path / "copy", *pair[1:]
    shutil.copytree(pair[0], folder)
    path = payloads(folder / "1", "rest")[0]
    flip(path, path.stat().st_size // 2, 0)
    with Checkpoints(folder) as checkpoints:
        with pytest.raises(CheckpointError, match=r"checkpoint 1 in .* is damaged: rest/.* take another step \(0\)"):
            checkpoints.restore(abstract, 1)
        assert equal(checkpoints.restore(abstract, 0)[0], states[0])


def test_a_damaged_step_is_set_aside_so_that_training_can_save_it_again(pair, tmp_path, capfd):
    folder, abstract, states = tmp_path / "copy", *pair[1:]
    shutil.copytree(pair[0], folder)
    for again in ("damaged-1", "damaged-1-2"):
        path = payloads(folder / "1", "params")[0]
        flip(path, 0, 0)
        with Checkpoints(folder) as checkpoints:
            state, _ = checkpoints.restore(abstract)
            assert equal(state, states[0]) and checkpoints.steps() == [0]
            assert checkpoints.save(1, jax.tree.map(lambda x: x + 1, state), {"config": {"step": 1}}, 1.0)
            checkpoints.wait()
        said = capfd.readouterr().err
        assert f"kept as {folder / again}" in said
        assert files(folder / again)
        assert loaded((folder, abstract, states)) == 1


def test_an_unfinished_one_is_told_of_and_does_not_count(pair, tmp_path, capfd):
    """What a kill in the middle of a save leaves behind is a folder of another name."""
    folder = tmp_path / "copy"
    shutil.copytree(pair[0], folder)
    (folder / "1").rename(folder / f"1{checkpoint.UNFINISHED}")
    assert loaded((folder, *pair[1:])) == 0
    assert "checkpoint 1 does not count: it is unfinished" in capfd.readouterr().err
    assert (folder / f"1{checkpoint.UNFINISHED}").exists()  # reading changes nothing: a run may be writing it
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(1, checkpoints.restore(pair[1])[0], {})
    assert not (folder / f"1{checkpoint.UNFINISHED}").exists()


def test_a_newer_format_stops_and_an_older_step_is_not_taken_for_it(pair, tmp_path, capfd):
    folder, abstract, _ = tmp_path / "copy", *pair[1:]
    shutil.copytree(pair[0], folder)
    path = folder / "1" / "hashes" / "metadata"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({**stored, "format": checkpoint.FORMAT + 1}))
    assert loaded((folder, *pair[1:])) == 0  # the manifest says that this number is damage
    manifest.write(folder / "1")
    with Checkpoints(folder) as checkpoints, pytest.raises(CheckpointError, match="has format 3.* reads up to 2: update") as caught:
        checkpoints.restore(abstract)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_the_first_format_is_read(pair, tmp_path, capfd):
    """Of versions before the manifest: a flat {path: hash}."""
    folder = tmp_path / "copy"
    shutil.copytree(pair[0], folder)
    path = folder / "1" / "hashes" / "metadata"
    path.write_text(json.dumps(json.loads(path.read_text())["leaves"]))
    (folder / "1" / manifest.NAME).unlink()
    assert loaded((folder, *pair[1:])) == 1
    assert "or older code" in capfd.readouterr().err


def test_a_folder_removed_during_the_run_is_one_line(tmp_path):
    state, _ = made()
    with Checkpoints(tmp_path / "gone") as checkpoints:
        checkpoints.save(0, state, {}, 1.0)
        checkpoints.wait()
        shutil.rmtree(tmp_path / "gone")
        with pytest.raises(CheckpointError, match="cannot write checkpoint 1: .* was removed while the run went on") as caught:
            checkpoints.save(1, state, {}, 1.0)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "gone").exists(), "half a run in a new folder would hide what was lost"


def test_a_disk_that_fills_up_is_one_line_and_the_step_before_stays(pair, tmp_path, capfd):
    """The kernel refuses files over a limit, with another number but on the same path as a full disk."""
    folder, abstract, states = tmp_path / "copy", *pair[1:]
    shutil.copytree(pair[0], folder)
    state = jax.tree.map(lambda x: x + 2, made(ToyModel(width=1024))[0])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(2, state, {"config": {"step": 2}}, 1.0)  # compiles what every save needs
        checkpoints.wait()
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, before[1]))
            with pytest.raises(CheckpointError, match=r"cannot write checkpoint 3 to .*File too large.*free space") as caught:
                checkpoints.save(3, state, {}, 1.0)
                checkpoints.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value)
    assert loaded((folder, abstract, {**states, 2: jax.device_get(state)})) == 2


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="users of this system have no ids")
def test_a_folder_without_write_permission_is_told_of_before_training(pair, tmp_path):
    """In a process of its own, which gives up root's rights where it has them; reading needs none."""
    tmp_path.chmod(0o755)
    folder = tmp_path / "checkpoints"
    shutil.copytree(pair[0], folder)
    folder.chmod(0o555)
    parents = [str(parent) for parent in tmp_path.parents if parent.name.startswith(("pytest-", "popen-"))]
    code = f"""
import os, jax
from causal_gen.train.checkpoint import Checkpoints
from causal_gen.types import CheckpointError
jax.devices()
for parent in {parents!r}: os.chmod(parent, 0o755)
os.getuid() or os.seteuid(65534)
try:
    Checkpoints({str(folder)!r})
except CheckpointError as error:
    print(error)
with Checkpoints({str(folder)!r}, read_only=True) as saved:
    print(saved.latest(), saved.meta(1))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    refused, read = done.stdout.splitlines()
    assert refused.startswith(f"cannot write {folder} (") and "Permission denied" in refused and "give a --workdir" in refused
    assert read == "1 {'config': {'step': 1}}"


def test_without_an_average_the_parameters_are_what_is_sampled_and_the_fallback_holds(tmp_path, capfd):
    state, _ = made()
    plain = dataclasses.replace(state, ema=None)
    saved_at(tmp_path / "checkpoints", 1.0, 2.0, state=plain)
    path = payloads(tmp_path / "checkpoints" / "1", "params")[0]
    flip(path, path.stat().st_size // 2, 5)
    params, step = load_params(tmp_path, jax.eval_shape(ToyModel().init, jax.random.key(0)))
    assert step == 0 and equal(params, jax.device_get(plain.params))
    assert "checkpoint 1 is skipped: params/" in capfd.readouterr().err
