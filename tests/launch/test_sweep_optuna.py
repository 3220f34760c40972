"""Laws of the search by Optuna: it is repeatable, survives a kill, prunes what is worth little, and keeps passwords to itself."""

from __future__ import annotations

import time
import warnings

import pytest

from launch import optuna_search
from launch.command import LaunchError
from launch.optuna_search import OptunaSearch
from launch.space import drawer

optuna = pytest.importorskip("optuna", reason="pip install '.[sweep]'")
SPACE = {
    "train.learning_rate": {"kind": "log_uniform", "low": 1e-4, "high": 0.05, "points": None},
    "model.layers": {"kind": "integer", "low": 1, "high": 7, "step": 2},
    "model.classes": {"kind": "categorical", "choices": [[1, 2], None, "x", True, 1]},
}


@pytest.fixture(autouse=True)
def own_warnings():
    """Optuna warns of what is experimental; that is for its users to read, not for ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def opened(folder, sampler="tpe", pruner="none", draws=None, seed=0):
    return OptunaSearch(folder / "journal.log", "study", SPACE, sampler, pruner, seed=seed, steps=20, goal="min", drawer=draws)


def worth(params):
    return abs(params["model.layers"] - 5) + (0 if params["model.classes"] == [1, 2] else 1)


@pytest.mark.parametrize("sampler", ["tpe", "qmc"])
def test_a_search_that_is_opened_anew_for_every_trial_asks_the_same(tmp_path, sampler):
    """A launcher that was killed begins neither its generator nor its sequence again."""
    for name in ("one", "many"):
        (tmp_path / name).mkdir()
    single, lists = opened(tmp_path / "one", sampler), {"one": [], "many": []}
    for _ in range(14):
        for name, search in (("one", single), ("many", opened(tmp_path / "many", sampler))):
            asked = search.ask()
            search.tell(asked.number, "complete", worth(asked.params))
            lists[name].append(asked.params)
    assert lists["one"] == lists["many"] and len({params["train.learning_rate"] for params in lists["one"]}) == 14
    assert {type(params["model.classes"]) for params in lists["one"]} <= {list, type(None), str, bool, int}
    assert [trial.value for trial in opened(tmp_path / "many", sampler).asked()] == [worth(params) for params in lists["one"]]


def test_a_kill_in_the_middle_of_a_line_and_of_an_ask_is_seen(tmp_path):
    search = opened(tmp_path)
    first = search.ask()
    file = tmp_path / "journal.log"
    search._study.ask()  # a trial without its setting, as a kill between two lines leaves it
    with open(file, "ab") as journal:
        journal.write(b'{"op_code": 5, "wor')
    (tmp_path / "journal.log.lock").symlink_to(file)  # of the launcher that was killed
    start = time.monotonic()
    again = opened(tmp_path)
    found = again.asked()
    assert [(trial.number, trial.state) for trial in found] == [(0, "open"), (1, "open")]
    assert found[0].params == first.params and found[1].params == {}
    again.tell(1, "failed", None)
    again.tell(1, "failed", None)  # a second time is passed over
    again.tell(0, "complete", 2.0)
    assert [trial.state for trial in opened(tmp_path).asked()] == ["complete", "failed"] and time.monotonic() - start < 10


def test_settings_of_our_own_samplers_are_kept_and_pruned_by_optuna(tmp_path):
    draws = drawer("random", SPACE, 3)
    search = opened(tmp_path, "random", "median", draws)
    for number in range(6):
        asked = search.ask()
        assert asked.number == number and asked.params == draws(number)
        for step in (5, 10, 15):
            search.report(number, step, float(number))
        assert search.pruned(number) == (number == 5)
        search.tell(number, "pruned" if number == 5 else "complete", float(number))
    found = opened(tmp_path, "random", "median", draws).asked()
    assert [trial.params for trial in found] == [draws(number) for number in range(6)]
    assert (found[5].state, found[5].value) == ("pruned", 5.0)


def test_a_thousand_trials_are_opened_listed_and_ranked_within_two_seconds(tmp_path):
    search = opened(tmp_path)
    study, made = search._study, optuna.trial.create_trial
    study.add_trials(
        [
            made(
                params={"train.learning_rate": 1e-3, "model.layers": 3, "model.classes": 0},
                distributions=search._distributions,
                value=abs(k - 321.0),
            )
            for k in range(1000)
        ]
    )
    start = time.perf_counter()
    found = opened(tmp_path).asked()
    assert len(found) == 1000 and min(found, key=lambda trial: trial.value).number == 321
    assert time.perf_counter() - start < 2


def test_pruning_saves_steps_on_a_space_with_bad_regions_and_keeps_the_winner(bench):
    """Issue: at least 30% of the steps, and the same winner. Most learning rates are orders of magnitude off."""
    bench.write(space='{"train.learning_rate": log_uniform(1e-12, 1e-2)}', steps=40)
    found = {}
    for pruner in ("none", "median"):
        study = bench.folder / pruner
        done = bench.run("--trials=14", f"--pruner={pruner}", "--seed=4", study=study, PAUSE="0.05")
        assert done.returncode == 0, done.stderr
        found[pruner] = bench.told(study)
    plain, pruned = found["none"], found["median"]
    assert [trial["params"] for trial in plain["trials"]] == [trial["params"] for trial in pruned["trials"]]
    assert plain["best"] == pruned["best"] is not None
    steps = [
        sum(len((bench.folder / name / "trials" / f"{k:04d}" / "steps.txt").read_text().splitlines()) for k in range(14)) for name in found
    ]
    print(f"steps without and with pruning: {steps}")
    assert steps[0] == 14 * 40 and steps[1] <= 0.7 * steps[0]
    assert sum(trial["state"] == "pruned" for trial in pruned["trials"]) >= 5


def test_a_storage_that_cannot_be_reached_or_is_lost_is_one_line_without_its_password(tmp_path, monkeypatch):
    monkeypatch.setenv(optuna_search.PASSWORD, "sesame")
    with pytest.raises(LaunchError, match="cannot be opened") as caught:
        OptunaSearch("sqlite:////no/such/folder/study.db", "s", SPACE, "tpe", "none", seed=0, steps=9, goal="min", drawer=None)
    assert "\n" not in str(caught.value) and "sesame" not in str(caught.value)
    monkeypatch.delenv(optuna_search.PASSWORD)
    address = f"sqlite:///{tmp_path / 'study.db'}"
    search = OptunaSearch(address, "s", SPACE, "tpe", "none", seed=0, steps=9, goal="min", drawer=None)
    asked = search.ask()
    (tmp_path / "study.db").write_bytes(b"no database" * 1000)
    with pytest.raises(LaunchError, match="cannot be written") as caught:
        search.tell(asked.number, "complete", 1.0)
    assert "\n" not in str(caught.value)
    journal = opened(tmp_path)
    (tmp_path / "journal.log").unlink()
    with pytest.raises(LaunchError, match="journal.log cannot be written .*it is gone"):
        journal.ask()
