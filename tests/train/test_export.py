"""An exported file holds what is sampled from, and what is read back is what was written, or one line says why not."""

from __future__ import annotations

import dataclasses
import json

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from causal_gen.train import export
from causal_gen.types import CheckpointError
from tests.train.test_checkpoint import TRAIN, made, saved_at
from tests.train.test_warmstart import run

META = {"config": {"model": {"name": "toy"}, "data": {"name": "rows"}}, "graph": {"nodes": ["x", "y"], "edges": [["x", "y"]]}}
ODD = {
    "a/half": np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16),
    "a/turned": np.arange(6.0, dtype=np.float32).reshape(2, 3).T,  # the library would write it as it lies in memory
    "none": np.zeros((0, 4), np.float32),
    "scalar": np.full((), 3.5, np.float32),
    "state/count": np.array(7, np.int32),
    "mask": np.array([True, False]),
}


def written(tmp_path, leaves=ODD):
    exported = export.Exported(leaves, META["config"], META["graph"], 12, True)
    export.write(exported, tmp_path / "m.safetensors", export.card(exported, tmp_path / "m.safetensors"))
    return tmp_path / "m.safetensors", exported


def test_what_is_read_is_what_was_written_and_other_readers_agree(tmp_path):
    file, exported = written(tmp_path)
    back = export.read(file)
    assert (back.config, back.graph, back.step, back.averaged) == (exported.config, exported.graph, 12, True)
    for leaves in (back.leaves, load_file(file)):
        assert leaves.keys() == ODD.keys()
        for path, leaf in ODD.items():
            assert leaves[path].dtype == leaf.dtype and leaves[path].shape == leaf.shape
            assert leaves[path].tobytes() == leaf.tobytes()
    assert {path.name for path in tmp_path.iterdir()} == {"m.safetensors", "m.md"}


def test_no_flipped_bit_and_no_cut_loads_another_value(tmp_path):
    """Every byte of a small file, header and arrays. The length before the header and blanks between words are the format's own."""
    file, exported = written(tmp_path)
    content = file.read_bytes()
    said = set()
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << (place % 8)
        file.write_bytes(changed)
        try:
            back = export.read(file)
        except CheckpointError as error:
            assert "\n" not in str(error)
            said.add(str(error).rpartition(": ")[0].partition(" (")[0][-60:])
            continue
        assert (back.config, back.step) == (exported.config, 12)
        assert all(back.leaves[path].tobytes() == leaf.tobytes() and back.leaves[path].dtype == leaf.dtype for path, leaf in ODD.items())
    assert len(said) > 2
    for length in (0, 4, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="no safetensors file that can be read"):
            export.read(file)


def test_a_file_of_another_kind_is_told_in_a_line(tmp_path):
    save_file({"x": np.zeros(3, np.float32)}, tmp_path / "theirs.safetensors")
    with pytest.raises(CheckpointError, match="was not written by experiments.export"):
        export.read(tmp_path / "theirs.safetensors")
    with pytest.raises(CheckpointError, match="no safetensors file that can be read"):
        export.read(tmp_path / "nowhere.safetensors")
    (tmp_path / "file").write_text("")
    with pytest.raises(export.ExportError, match="cannot write .*give another --out"):
        written(tmp_path / "file")


@pytest.mark.parametrize("kept", [True, False])
def test_the_average_is_exported_where_one_was_kept(tmp_path, kept):
    state, _ = made(train=TRAIN if kept else dataclasses.replace(TRAIN, ema_decay=None))
    saved_at(tmp_path / "checkpoints", 1.0, 2.0, state=state, meta=META)
    exported = export.read_run(tmp_path)
    assert (exported.averaged, exported.step, exported.config) == (kept, 1, META["config"])
    assert export.read_run(tmp_path, "best").step == 0
    expected = jax.tree.leaves(jax.device_get(state.ema if kept else state.params))
    for found, leaf in zip(exported.leaves.values(), expected, strict=True):
        np.testing.assert_array_equal(found, leaf)
    text = export.card(exported, "m.safetensors", {"do": {"x": {"mae": 0.25}}, "name": "left out"})
    assert ("averaged over training" in text) == kept
    assert "Direct causes: x -> y." in text and "| do.x.mae | 0.25 |" in text and "counterfactuals of the fitted model" in text
    assert json.loads(text.partition("```json")[2].partition("```")[0]) == META["config"]


def test_a_run_starts_from_a_file_as_from_the_workdir_it_came_from(tmp_path):
    run(tmp_path / "source")
    file = tmp_path / "source.safetensors"
    exported = export.read_run(tmp_path / "source")
    export.write(exported, file, export.card(exported, file))
    by_workdir = run(tmp_path / "a", {"^first": str(tmp_path / "source")}, steps=1, rate=0.0).params
    by_file = run(tmp_path / "b", {"^first": str(file)}, steps=1, rate=0.0).params
    fresh = run(tmp_path / "c", steps=1, rate=0.0).params
    for one, other in zip(jax.tree.leaves(by_workdir), jax.tree.leaves(by_file), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (np.asarray(by_file["first"]["kernel"]) != np.asarray(fresh["first"]["kernel"])).any()
    origin = json.loads((tmp_path / "b" / "metadata.json").read_text())["init_from"]
    assert origin == {"^first": {"workdir": str(file), "step": 2, "leaves": 2}}
    with pytest.raises(CheckpointError, match="train.init_from '\\^first': .*no.safetensors is no safetensors file"):
        run(tmp_path / "d", {"^first": str(tmp_path / "no.safetensors")})
