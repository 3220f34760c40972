"""The commands on a model of named numbers, which has no picture and no text to show."""

import importlib
import json

import numpy as np
import pytest

from experiments import cli


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A run over confounded rows."""
    workdir = tmp_path_factory.mktemp("runs") / "rows"
    argv = ["--config=configs/causal_transformer/dag_aware.py:tiny", f"--workdir={workdir}", "--config.train.steps=2"]
    assert cli.main(importlib.import_module("experiments.train").COMMAND, argv) == 0, "the tiny run did not train; stderr says why"
    return workdir


def test_evaluate_counterfactual_sample_and_report_know_variables(call, rows, tmp_path):
    answer = call("evaluate", f"--workdir={rows}")
    found = json.loads(answer.out.strip().splitlines()[-1])
    assert answer.code == 0 and found["leak"] == 0 and found["null"] < 1e-3 and "treatment -> outcome" in found["effects"]
    answer = call("counterfactual", f"--workdir={rows}", "--do=treatment=1", "--num=4", f"--out={tmp_path / 'cf'}")
    assert answer.code == 0 and "no grid.png" in answer.err, answer
    told = np.load(tmp_path / "cf" / "counterfactual.npz")
    assert (told["counterfactual_treatment"] == 1).all() and "reconstruction_mae" not in json.loads(answer.out.strip().splitlines()[-1])
    np.testing.assert_array_equal(told["counterfactual_x1"], told["reconstruction_x1"])
    answer = call("counterfactual", f"--workdir={rows}", "--do=x1 -> outcome=3", "--num=4", f"--out={tmp_path / 'edge'}")
    told = np.load(tmp_path / "edge" / "counterfactual.npz")
    np.testing.assert_array_equal(told["counterfactual_x1"], told["reconstruction_x1"])
    assert answer.code == 0 and (told["counterfactual_outcome"] != told["reconstruction_outcome"]).all()
    answer = call("sample", f"--workdir={rows}", "--do=x1=2", "--num=3", f"--out={tmp_path / 's'}")
    assert answer.code == 0 and "no grid.png" in answer.out
    assert (np.load(tmp_path / "s" / "samples.npz")["x1"] == 2).all()
    assert call("report", f"--workdir={rows}").code == 0


def test_the_graph_of_a_run_is_asked_what_it_identifies(call, refused, rows):
    answer = call("identify", f"--workdir={rows}", "--effect=p(outcome | do(treatment))")
    assert answer.code == 0 and json.loads(answer.out.strip().splitlines()[-1])["back_door"] == [["x1", "x2"]]
    hidden = refused("identify", f"--workdir={rows}", "--effect=p(outcome | do(treatment))", "--latent=x1")
    assert "hedge F = {treatment, outcome}, F' = {outcome}" in hidden or "hedge F = {x2, treatment, outcome}" in hidden, hidden


def test_an_intervention_on_an_unknown_variable_is_refused(refused, rows):
    assert "unknown factor 'treatmnt'; did you mean 'treatment'?" in refused("counterfactual", f"--workdir={rows}", "--do=treatmnt=1")
