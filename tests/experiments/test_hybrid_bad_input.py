"""What users of masked-AR hybrids get wrong, as they type it: every case is one line that names cause, place and way out, exit code 2."""

from __future__ import annotations

import importlib

import pytest

from experiments import cli

HERE = "configs/hybrid_transformer"


def _trained(folder, config):
    workdir = folder.mktemp(config) / "run"
    argv = [f"--config={HERE}/{config}.py:tiny", f"--workdir={workdir}", "--config.train.steps=1", "--config.log.eval_every=0"]
    assert cli.main(importlib.import_module("experiments.train").COMMAND, argv) == 0
    return workdir


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of five tokens of four values, and one of puzzles of side 4."""
    return {name: _trained(tmp_path_factory, name) for name in ("md4", "sudoku")}


@pytest.mark.parametrize(
    ("config", "overrides", "said"),
    [
        ("gpt_bert", ['model.objectives=[{"kind":"next"},{"kind":"masked","low":-0.1}]'], "objectives[1].low: must lie in [0.0, 1.0]"),
        ("gpt_bert", ['model.objectives=[{"kind":"next"},{"kind":"masked","high":1.3}]'], "objectives[1].high: must lie in [0.0, 1.0]"),
        ("gpt_bert", ['model.objectives=[{"kind":"next","share":0},{"kind":"masked","share":0}]'], "shares sum to zero; give one of them"),
        ("gpt_bert", ['model.objectives=[{"kind":"next","share":-1},{"kind":"masked"}]'], "objectives[0].share: must be at least 0.0"),
        (
            "md4",
            ['model.objectives=[{"kind":"diffusion","schedule":{"kind":"table","values":[1,0.6,1,0]}}]'],
            "do not decrease from 1",
        ),
        ("md4", ['model.objectives=[{"kind":"diffusion","schedule":{"kind":"polynomial","power":-1}}]'], "give a power above 0"),
        ("md4", ["sampling.steps=9"], "sampling.steps: 9 are more than the 5 places to fill; lower it"),
        ("md4", ["sampling.policy=order", "sampling.order=(0,1,1,2,3)"], "not a permutation of 0..4: 0,1,1,2,3; name every place once"),
        ("md4", ["sampling.policy=order", "sampling.order=(0,1)"], "sampling.order: 2 places, but rows have 5"),
        ("md4", ["model.mask=2"], "model.mask: token 2 is also one of the data's, 0..3"),
        ("md4", ["model.mixer.kind=bandit"], "a bandit with one arm has nothing to choose; give a second objective"),
        ("md4", ["model.coupled=true", "model.draws=3"], "coupled draws come in pairs, and draws=3 is odd"),
        ("sudoku", ["data.givens=1"], "a puzzle of side 4 has 4 to 15 clues"),
    ],
)
def test_a_config_that_means_nothing(refused, tmp_path, config, overrides, said):
    workdir = tmp_path / "run"
    flags = [f"--config.{override}" for override in overrides]
    assert said in refused("train", f"--config={HERE}/{config}.py:tiny", f"--workdir={workdir}", *flags)
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("run", "flags", "said"),
    [
        ("md4", ["--template=1,2,3,0,1"], "template: row 0 has no blank, so that nothing is left to fill"),
        ("md4", ["--template=1,_,9,_,1"], "template: token 9 at place 2 of row 0 is out of range 0..3"),
        ("md4", ["--evidence=test:0:2", "--fill=1:3", "--fill=2:4"], "--fill=2:4: overlaps another span; name each place once"),
        ("md4", ["--evidence=test:0:2", "--fill=3:3"], "--fill=3:3: the row has places 0:5; give START < STOP within"),
        ("sudoku", ["--template=11.............."], "template: row 0: no grid agrees with its clues; mend one"),
        ("sudoku", ["--template=1..............."], "template: row 0: more than one grid agrees with its clues; add some"),
    ],
)
def test_a_template_that_cannot_be_filled(refused, runs, tmp_path, run, flags, said):
    assert said in refused("sample", f"--workdir={runs[run]}", "--num=1", f"--out={tmp_path / 'out'}", *flags)
    assert not (tmp_path / "out").exists()


def test_evidence_that_truncation_excludes(refused, runs, tmp_path):
    flags = ["--do=tokens[1]=1", "--num=8", "--config.sampling.top_k=1", f"--out={tmp_path / 'out'}"]
    assert "has probability 0 under sampling.top_k, top_p or min_p; set them to none" in refused(
        "counterfactual", f"--workdir={runs['md4']}", *flags
    )
