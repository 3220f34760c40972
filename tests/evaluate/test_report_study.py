"""The page of a study: importance against a known answer, the Pareto front, and a page that stands at any time of a search."""

from __future__ import annotations

import json
import re
import time

import numpy as np
import pytest
from evaluate.test_report import Page

from causal_gen.evaluate import report, report_study, study_charts
from causal_gen.evaluate.importance import Scale, importance, scales
from causal_gen.types import WorkdirError
from experiments import cli
from experiments import report as command

SPACE = {
    "train.learning_rate": {"kind": "log_uniform", "low": 1e-4, "high": 0.1, "points": None},
    "model.layers": {"kind": "integer", "low": 1, "high": 4, "step": 1},
    "model.kind": {"kind": "categorical", "choices": ["a<b", "c"]},
}
HEAD = {
    "config": "configs/x.py", "overrides": ["--config.data.size=9"],
    "fixed": {"sampler": "random", "pruner": "none", "seed": 4, "metric": "eval_loss", "goal": "min", "storage": ""},
    "metric": "eval_loss", "goal": "min", "seed": 4, "steps": 30, "sampler": {"name": "random"},
    "pruner": {"name": "none"}, "space": SPACE, "tree": {"data": {"size": 9}}, "trials_wanted": 40, "created": "today",
}  # fmt: skip


def trial(number, params, state="complete", value=None, **more):
    told = {"number": number, "params": params, "state": state, "value": value, "best": value, "step": 30, "line": ""}
    return told | {"seconds": 1.0 + number % 3, "parameters": 100 * params.get("model.layers", 1)} | more


def drawn(count, seed=0):
    """Trials whose value is set by the learning rate alone: best at 1e-2."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        rate, layers, kind = 10.0 ** rng.uniform(-4, -1), int(rng.integers(1, 5)), ["a<b", "c"][int(rng.integers(2))]
        params = {"train.learning_rate": rate, "model.layers": layers, "model.kind": kind}
        made.append(trial(number, params, value=(np.log10(rate) + 2) ** 2 + 0.01))
    return made


def write(folder, trials, **head):
    (folder / "study.json").write_text(json.dumps({**HEAD, **head, "trials": trials}))
    return Page(report.write(folder).read_text())


def test_what_alone_decides_matters_most_and_what_decides_nothing_little():
    """A law of the figure on data whose answer is known; and turned round (goal max) the best lie elsewhere, by the same setting."""
    for goal in ("min", "max"):
        trials = drawn(200)
        known = scales(SPACE, [one["params"] for one in trials])
        found = importance(known, [one["params"] for one in trials], [one["value"] for one in trials], goal)
        assert next(iter(found)) == "train.learning_rate" and found["train.learning_rate"] > 0.9 and sum(found.values()) == pytest.approx(1)


def test_too_few_or_equal_trials_say_nothing():
    few, known = drawn(5), scales(SPACE, [])
    assert importance(known, [one["params"] for one in few], [one["value"] for one in few], "min") == {}
    many = drawn(20)
    assert importance(known, [one["params"] for one in many], [1.0] * 20, "min") == {}


def test_a_logarithmic_scale_gives_every_order_of_magnitude_as_much_room():
    scale = Scale(1e-4, 0.1, log=True)
    assert [scale.place(x) for x in (1e-4, 1e-3, 1e-2, 1e-1)] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    listed = scales([{"a": 1}, {"a": 3}, {"b": None}], [{"a": 1}, {"a": 3}, {"b": None}])
    assert listed["a"].place(2) == 0.5 and listed["b"].place(None) == 0.0


@pytest.mark.parametrize("goal", ["min", "max"])
def test_the_front_is_what_nothing_beats_in_both(goal):
    rng = np.random.default_rng(1)
    points = [(float(cost), float(value)) for cost, value in rng.integers(0, 6, (40, 2))]
    sign = 1 if goal == "min" else -1

    def beaten(p):
        return any(q != p and q[0] <= p[0] and sign * q[1] <= sign * p[1] for q in points)

    assert sorted({points[i] for i in study_charts.front(points, goal)}) == sorted({p for p in points if not beaten(p)})


def test_the_page_of_a_study_is_whole_and_loads_nothing(tmp_path):
    trials = [
        *drawn(30),
        trial(30, {"train.learning_rate": 0.05, "model.layers": 1, "model.kind": "c"}, "failed", line="is <b>too</b> high"),
    ]
    (tmp_path / "trials" / "0003").mkdir(parents=True)
    (tmp_path / "trials" / "0003" / "report.html").write_text("")
    parsed = write(tmp_path, trials)
    assert parsed.loads == ["trials/0003/report.html"]
    said, text = " ".join(" ".join(parsed.texts).split()), (tmp_path / "report.html").read_text()
    best = min(drawn(30), key=lambda one: one["value"])
    for words in (f"Trial {best['number']} has eval_loss", "one of a<b, c", "31 of 40", "is <b>too</b> high", "the smallest eval_loss"):
        assert words in said, words
    assert "<b>too" not in text and len(re.findall(r'class="trial shade', text)) == 31 and text.count("shade-best") == 2  # and its style
    again = f"--study={tmp_path}-again --trials=40 --workers=1 --sampler=random --seed=4 --metric=eval_loss --goal=min --config.data.size=9"
    assert f"python -m launch.sweep --config=configs/x.py {again}" in said
    assert f"--config.train.learning_rate={best['params']['train.learning_rate']:.4g}" in said  # best.py is not there


def test_a_study_that_has_just_begun_gets_a_page(tmp_path):
    said = " ".join(write(tmp_path, []).texts)
    assert "No trial has finished yet" in said and "too few to say" in said
    running = [trial(0, {"train.learning_rate": 0.01, "model.layers": 2, "model.kind": "c"}, "running"), trial(1, {}, "failed")]
    assert "No trial has finished yet" in " ".join(write(tmp_path, running).texts)


def test_a_list_of_settings_and_values_that_are_no_numbers(tmp_path):
    space = [{"a.b": 1}, {"a.b": 2}, {"a.b": "x"}]
    rows = [trial(i, one, value=float(i) if i else float("nan")) for i, one in enumerate(space)]
    said = " ".join(" ".join(write(tmp_path, rows, space=space).texts).split())
    assert "a list of 3" in said and "Trial 1 has eval_loss 1" in said


def test_a_thousand_trials_are_a_page_in_seconds(tmp_path):
    start = time.perf_counter()
    parsed = write(tmp_path, drawn(1000))
    assert "700 more are in" in " ".join(" ".join(parsed.texts).split())
    assert (tmp_path / "report.html").stat().st_size < 5e6 and time.perf_counter() - start < 30


@pytest.mark.parametrize("content", ["{", "[]", '{"trials": []}'])
def test_a_damaged_study_is_one_line(tmp_path, content):
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(WorkdirError, match="study.json") as error:
        report_study.render(tmp_path)
    assert "\n" not in str(error.value)


def test_the_command_takes_a_study_as_it_takes_a_run(tmp_path, capsys):
    """And names a folder that is neither."""
    (tmp_path / "study.json").write_text(json.dumps({**HEAD, "trials": drawn(9)}))
    assert cli.main(command.COMMAND, [f"--workdir={tmp_path}"]) == 0
    assert capsys.readouterr().out.strip() == f"report: {tmp_path / 'report.html'}" and (tmp_path / "report.html").is_file()
    (tmp_path / "study.json").write_text("{")
    assert cli.main(command.COMMAND, [f"--workdir={tmp_path}"]) == 2
    assert "study.json cannot be read" in capsys.readouterr().err
