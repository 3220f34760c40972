"""The commands on a table of the user's own: CSV in, CSV out, categories by name, mistakes in one line."""

from __future__ import annotations

import csv
import importlib
import json

import pytest

from experiments import cli

CONFIG = "configs/structural/table.py:tiny"


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A run over the example table."""
    workdir = tmp_path_factory.mktemp("runs") / "mine"
    argv = [f"--config={CONFIG}", f"--workdir={workdir}", "--config.train.steps=2"]
    assert cli.main(importlib.import_module("experiments.train").COMMAND, argv) == 0, "the tiny run did not train; stderr says why"
    return workdir


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_answers_are_a_table_with_the_users_names(call, mine, tmp_path):
    given = tmp_path / "some.csv"
    given.write_text("age,sex,smoker,dose,pressure,relapse\n60,male,yes,20,120,no\n30.5,female,no,12.5,110,yes\n")
    answer = call("counterfactual", f"--workdir={mine}", "--do=smoker=no", "--do=dose=0:40:3", f"--evidence={given}", f"--out={tmp_path}")
    assert answer.code == 0 and "Gumbel-max" in answer.err, answer
    found = read(tmp_path / "counterfactual.csv")
    assert [row["row"] for row in found] == ["0"] * 3 + ["1"] * 3
    assert [float(row["do(dose)"]) for row in found] == [0, 20, 40] * 2 == [float(row["counterfactual_dose"]) for row in found]
    assert {row["counterfactual_smoker"] for row in found} == {"no"} and {row["factual_smoker"] for row in found} == {"yes", "no"}
    assert {row["counterfactual_sex"] for row in found[:3]} == {"male"} and found[0]["reconstruction_relapse"] == "no"
    assert [float(row["factual_age"]) for row in found] == [60] * 3 + [30.5] * 3


def test_a_value_outside_of_the_data_is_answered_with_its_distance(call, mine, tmp_path):
    answer = call("counterfactual", f"--workdir={mine}", "--do=dose=500", "--num=2", f"--out={tmp_path}")
    assert answer.code == 0 and "warning: do(dose=500) lies outside of the data's" in answer.err and "standard deviations" in answer.err
    outside = json.loads(answer.out.strip().splitlines()[-1])["outside"]["dose"]
    assert outside["values"] == [500.0] and outside["distance"] > 10


def test_samples_are_a_table_too_and_the_page_is_written(call, mine, tmp_path):
    answer = call("sample", f"--workdir={mine}", "--do=sex=female", "--num=3", f"--out={tmp_path}")
    assert answer.code == 0 and {row["sex"] for row in read(tmp_path / "samples.csv")} == {"female"}
    answer = call("evaluate", f"--workdir={mine}")
    found = json.loads(answer.out.strip().splitlines()[-1])
    assert answer.code == 0 and found["leak"] == 0 and found["null"] < 1e-3 and "do" not in found, answer
    assert call("report", f"--workdir={mine}").code == 0


@pytest.mark.parametrize(
    ("flags", "lines", "said"),
    [
        (["--do=sex=mail"], None, "'mail' is no value of sex; did you mean 'male'?"),
        (["--shift=sex=male"], None, "its values are names, not amounts"),
        (["--do=smoker=no"], "60,male,maybe,20,120,no", "column 'smoker', row 1: category 'maybe' is not among those of the training rows"),
        (["--do=smoker=no"], "60,male,yes,,120,no", "column 'dose', row 1: the cell is missing"),
    ],
)
def test_mistakes_are_one_line(refused, mine, tmp_path, flags, lines, said):
    if lines:
        (tmp_path / "e.csv").write_text(f"age,sex,smoker,dose,pressure,relapse\n{lines}\n")
        flags = [*flags, f"--evidence={tmp_path / 'e.csv'}"]
    assert said in refused("counterfactual", f"--workdir={mine}", *flags)


def test_fewer_rows_than_parameters_are_warned_about_with_the_numbers(call, tmp_path):
    wide = ["--config.train.steps=1", "--config.model.default.widths=200", "--config.log.eval_every=0"]
    answer = call("train", f"--config={CONFIG}", f"--workdir={tmp_path / 'w'}", *wide)
    assert answer.code == 0 and "warning: the mechanism of 'pressure' has 1,602 parameters, and there are 480 training rows" in answer.err


def test_a_vector_is_a_column_a_place_and_what_a_model_finds_is_told(call, tmp_path):
    """A model of hidden latents answers with them, and with the graph among them that it has found."""
    config = "configs/linear_latent/interventions.py:tiny"
    assert call("train", f"--config={config}", f"--workdir={tmp_path}").code == 0
    answer = call("counterfactual", f"--workdir={tmp_path}", "--do=z2=0:1:2", "--num=3", f"--out={tmp_path}")
    assert answer.code == 0 and "Graph of the factors, as found: z" in answer.err, answer
    found = read(tmp_path / "counterfactual.csv")
    assert [float(row["counterfactual_z2"]) for row in found] == [0, 1] * 3 and "factual_z2" not in found[0]
    assert all(abs(float(row[f"factual_x[{i}]"]) - float(row[f"reconstruction_x[{i}]"])) < 1e-3 for row in found for i in range(8))
    answer = call("sample", f"--workdir={tmp_path}", "--do=z1=2", "--num=4", f"--out={tmp_path}")
    assert answer.code == 0 and [float(row["z1"]) for row in read(tmp_path / "samples.csv")] == [2.0] * 4
    assert call("evaluate", f"--workdir={tmp_path}").code == 0 and call("report", f"--workdir={tmp_path}").code == 0
    answer = call("effects", f"--workdir={tmp_path}", "--cause=z1", "--outcome=z2", "--from=0", "--to=1")
    assert answer.code == 2 and "z1 is in no row of the data" in answer.err
