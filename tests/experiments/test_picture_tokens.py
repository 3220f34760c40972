"""The commands over patches as tokens: a tiny run is drawn, asked and measured with the codebook that it kept."""

from __future__ import annotations

import importlib
import json

import numpy as np
import pytest

import causal_gen as cg
from experiments import cli

CONFIG = "configs/hybrid_transformer/maskgil.py:tiny"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run over four patches of 14 x 14, given the digit's class; not to be written to but by evaluate."""
    workdir = tmp_path_factory.mktemp("runs") / "patches"
    argv = [f"--config={CONFIG}", f"--workdir={workdir}", "--config.train.steps=2", "--config.log.eval_every=0"]
    assert cli.main(importlib.import_module("experiments.train").COMMAND, argv) == 0, "the tiny run did not train; stderr says why"
    return workdir


def test_samples_are_pictures_of_the_run_s_own_codes(call, run, tmp_path):
    answer = call("sample", f"--workdir={run}", "--num=2", f"--out={tmp_path}")
    assert answer.code == 0 and (tmp_path / "grid.png").is_file(), answer
    tokens = np.load(tmp_path / "samples.npz")["tokens"]
    codes = np.load(run / "data" / "codebook.npy")
    shown = cg.restore(run).data.images(tokens)
    assert tokens.shape == (2, 4) and shown.shape == (2, 28, 28, 1)
    np.testing.assert_allclose(shown[0, 14:, :14, 0].reshape(-1), codes[tokens[0, 2]] / 255, rtol=1e-6)


@pytest.mark.slow
def test_evaluate_measures_the_pictures(call, run):
    answer = call("evaluate", f"--workdir={run}")
    assert answer.code == 0, answer
    quality = json.loads(answer.out.strip().splitlines()[-1])["quality"]
    assert quality["draws"] == 8 and set(quality["frechet"]) == set(quality["class_accuracy"]) == {"value", "real", "tokens"}


def test_a_codebook_that_was_exchanged_is_refused(refused, run):
    file = run / "data" / "codebook.npy"
    content = file.read_bytes()
    try:
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert "codebook.npy is not the one that this run was trained with" in refused("sample", f"--workdir={run}", "--num=1")
    finally:
        file.write_bytes(content)
