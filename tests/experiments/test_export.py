"""The export command on the toy run."""

from __future__ import annotations

import json
import shutil

import jax
import numpy as np

import causal_gen as cg
from causal_gen.train import export


def test_export_writes_the_parameters_that_restore_gives_and_a_card(call, trained, tmp_path):
    file = tmp_path / "model.safetensors"
    answer = call("export", f"--workdir={trained}", f"--out={file}")
    assert answer.code == 0 and str(file) in answer.out and str(tmp_path / "model.md") in answer.out
    found, run = export.read(file), cg.restore(trained)
    for (path, leaf), (name, stored) in zip(sorted(_named(run.params)), sorted(found.leaves.items()), strict=True):
        assert path == name
        np.testing.assert_array_equal(leaf, stored)
    assert found.config == json.loads((trained / "config.json").read_text()) and found.step == run.step
    card = (tmp_path / "model.md").read_text()
    assert "# diffusion_ae on pendulum" in card and "angle -> shadow_length" in card


def test_the_card_holds_what_was_measured_of_that_step(call, trained, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    (workdir / "evaluate").mkdir(exist_ok=True)
    for step, there in ((2, True), (1, False)):
        (workdir / "evaluate" / "metrics.json").write_text(json.dumps({"step": step, "composition": {"mae": {"1": 0.125}}}))
        assert call("export", f"--workdir={workdir}").code == 0
        card = (workdir / "model.md").read_text()
        assert ("| composition.mae.1 | 0.125 |" in card) == there
        assert ("`experiments.evaluate` was not run" in card) != there


def test_what_cannot_be_exported_is_one_line(refused, trained, tmp_path):
    assert "has to end in .safetensors" in refused("export", f"--workdir={trained}", f"--out={tmp_path / 'model.bin'}")
    assert "--step=last is neither a step nor best" in refused("export", f"--workdir={trained}", "--step=last")
    assert "no checkpoint of step 7" in refused("export", f"--workdir={trained}", "--step=7")
    (tmp_path / "file").write_text("")
    assert "give another --out" in refused("export", f"--workdir={trained}", f"--out={tmp_path / 'file' / 'm.safetensors'}")


def _named(tree):
    return [("/".join(str(key.key) for key in path), np.asarray(leaf)) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
