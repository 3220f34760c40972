"""`effects` and `refute` on the commands' level: tiny runs of structural models, what they print, and what they refuse."""

import csv
import importlib
import json

import numpy as np
import pytest

from causal_gen.data import scm
from experiments import cli

MEDIATOR = ("--cause=x", "--outcome=y", "--from=0", "--to=1")


def trained_as(workdir, config, *overrides):
    argv = [f"--config={config}", f"--workdir={workdir}", *overrides]
    assert cli.main(importlib.import_module("experiments.train").COMMAND, argv) == 0, "the tiny run did not train; stderr says why"
    return workdir


@pytest.fixture(scope="module")
def mediator(tmp_path_factory):
    """A linear mediator fitted to 2,000 rows; not to be written to."""
    sizes = ("--config.data.size=2000", "--config.data.test_size=400", "--config.train.steps=1")
    return trained_as(tmp_path_factory.mktemp("runs") / "mediator", "configs/structural/linear.py:mediator", *sizes)


@pytest.fixture(scope="module")
def discrete(tmp_path_factory):
    """Three discrete nodes fitted by counting 4,000 rows; not to be written to."""
    sizes = ("--config.data.size=4000", "--config.data.test_size=100", "--config.model.default.name=table", "--config.train.steps=1")
    return trained_as(tmp_path_factory.mktemp("runs") / "discrete", "configs/structural/discrete.py:tiny", *sizes)


def last_json(answer):
    assert answer.code == 0, answer
    return json.loads(answer.out.strip().splitlines()[-1])


def test_effects_come_apart_and_their_intervals_hold_the_truth(call, mediator):
    """TE .25 = NDE -.8 + NIE 1.05, within four times the half width of a 90% interval; the same along the paths."""
    found = last_json(call("effects", f"--workdir={mediator}", *MEDIATOR, "--kind=decomposition", "--num=50"))
    assert (found["from"], found["to"]) == (0.0, 1.0)
    assert found["refits"] == 200 and any("no common cause" in line for line in found["rests_on"])
    for kind, truth in (("total", 0.25), ("direct", -0.8), ("indirect", 1.05)):
        low, high = found[kind]["interval"]
        assert 0 < high - low < 0.3 and abs(found[kind]["value"] - truth) < 2 * (high - low), kind
    answer = call("effects", f"--workdir={mediator}", *MEDIATOR, "--kind=path", "--path=x>m>y", "--given=x>0", "--num=100", "--refits=0")
    path = last_json(answer)
    assert abs(path["value"] - found["indirect"]["value"]) < 1e-4 and 30 <= path["units"] < 70 and path["refits"] == 0
    assert "--refits" in answer.out and "given x>0" in answer.out


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (("--kind=path", "--path=x>y>m"), "does not lead from x to y"),
        (("--kind=controlled", "--hold=m=high"), "give a number"),
        (("--given=q>1",), "write NAME>NUMBER"),
        (("--confounded=x<->y",), "not identified by the graph: hedge"),
        (("--confounded=x-y",), "write --confounded"),
        (("--confounded=m<->y",), "knows no latent cause"),
        (("--confounded=x<->q",), "unknown node 'q'"),
        (("--to=0.0",), "same value"),
        (("--experiment=2,1", "--kind=causation"), "two probabilities"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_a_line(refused, mediator, flags, word):
    assert word in refused("effects", f"--workdir={mediator}", *MEDIATOR, "--num=50", "--refits=0", *flags)


def test_an_effect_that_does_not_pass_the_hidden_cause_is_answered_and_extrapolation_is_said(call, mediator):
    answer = call("effects", f"--workdir={mediator}", "--cause=m", "--outcome=y", "--from=0", "--to=40", "--num=50", "--refits=0")
    assert answer.code == 0 and "an extrapolation" in answer.err


def test_causation_shows_the_point_and_what_data_alone_say(call, discrete):
    """Bounds of observations with the model's do lie within those of observations alone, and hold the Gumbel-max value."""
    asked = ("--cause=x", "--outcome=y", "--from=0", "--to=1", "--kind=causation", "--event=2", "--num=4000")
    answer = call("effects", f"--workdir={discrete}", *asked)
    found = last_json(answer)
    assert "Gumbel-max" in " ".join(found["rests_on"]) and "Tian & Pearl" in " ".join(found["rests_on"])
    for name in ("pn", "ps", "pns"):
        point, told = found[name]["gumbel_max"], found[name]["bounds"]
        low, high = told["with the model's do"]
        assert told["observations"][0] <= low <= high <= told["observations"][1]
        slack = 4 * found[name]["standard_error"] + 0.02
        assert low - slack <= point <= high + slack, name
    both = np.minimum(np.ones(3), 1 / np.maximum(scm.Y[:, 1] / scm.Y[:, 1, 2:], scm.Y[:, 0] / scm.Y[:, 0, 2:]).sum(1))
    truth = (scm.Z * (scm.Y[:, 1, 2] - both)).sum()
    assert abs(found["pns"]["gumbel_max"] - truth) < 0.05
    with_experiment = last_json(call("effects", f"--workdir={discrete}", *asked, "--experiment=0.43,0.24"))
    assert set(with_experiment["pns"]["bounds"]) == {"observations", "experiment", "both"}


@pytest.mark.slow
def test_networks_are_trained_again_for_an_interval_and_only_once(call, tmp_path):
    workdir = trained_as(tmp_path / "triangle", "configs/structural/triangle.py:tiny")
    asked = (f"--workdir={workdir}", "--cause=x1", "--outcome=x3", "--from=0", "--to=0.5", "--num=50", "--refits=2")
    first = call("effects", *asked)
    found = last_json(first)
    assert found["refits"] == 2 and np.ptp(found["interval"]) > 0 and "refit 2 of 2" in first.err
    states = sorted((workdir / "refits").glob("*/config.json"))
    assert len(states) == 2 and json.loads(states[0].read_text())["train"]["seed"] != json.loads(states[1].read_text())["train"]["seed"]
    assert last_json(call("effects", *asked))["interval"] == found["interval"]


# ---- refute ----------------------------------------------------------------------------------------------------------------


def test_refute_cannot_tell_without_an_environment_and_can_with_one(call, mediator):
    alone = last_json(call("refute", f"--workdir={mediator}", "--num=400", "--refits=20"))
    assert alone["verdict"] == "these data cannot tell" and any("turned round" in line for line in alone["open"]) and not alone["failed"]
    answer = call("refute", f"--workdir={mediator}", "--num=400", "--refits=20", "--environment=simulator", "--do=x=2")
    found = last_json(answer)
    assert found["verdict"] == "not refuted" and "verdict: not refuted" in answer.out
    assert {check["kind"] for check in found["checks"]} == {"axioms", "observations", "refits", "environment"}


def test_refute_distrusts_a_reversed_edge_given_rows_from_a_file(call, refused, tmp_path, mediator):
    """x -> m turned round: the same rows fit as well, and rows under do(x = 2) say that m moves."""
    sizes = ("--config.data.size=2000", "--config.data.test_size=400", "--config.train.steps=1")
    graph = '--config.model.graph=[["m", "x"], ["m", "y"], ["x", "y"]]'
    workdir = trained_as(tmp_path / "reversed", "configs/structural/linear.py:mediator", *sizes, graph)
    rng, file = np.random.default_rng(1), tmp_path / "environment.csv"
    m = 1.5 * 2 + rng.standard_normal(300)
    rows = np.stack([np.full(300, 2.0), m, 0.7 * m - 1.6 + rng.standard_normal(300)], -1)
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([["x", "m", "y"], *rows.tolist()])
    flags = ("--num=400", "--refits=20", f"--environment={file}")
    assert last_json(call("refute", f"--workdir={workdir}", "--num=400", "--refits=20"))["verdict"] == "these data cannot tell"
    found = last_json(call("refute", f"--workdir={workdir}", *flags, "--do=x=2"))
    assert found["verdict"] == "do not trust this" and "environment: m: mean" in found["failed"]
    assert last_json(call("refute", f"--workdir={mediator}", *flags, "--do=x"))["verdict"] == "not refuted"
    assert "holds other values" in refused("refute", f"--workdir={mediator}", *flags, "--do=x=3")
    assert "go together" in refused("refute", f"--workdir={mediator}", "--do=x=3")
    assert "no node 'q'" in refused("refute", f"--workdir={mediator}", *flags, "--do=q=3")
