"""Signals, non-finite numbers, and workdirs of other runs."""

from __future__ import annotations

import json
import os
import signal

import pytest

from causal_gen.train.guard import Signals, check_workdir, differing_keys
from causal_gen.types import WorkdirError

CONFIG = {"data": {"name": "p", "root": None, "stats": {"a": [1.0]}}, "model": {"width": 8, "graph": (("a", "b"),)}, "train": {"steps": 5}}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_the_old_handler_comes_back(number):
    before = signal.getsignal(number)
    with Signals() as signals:
        assert not signals.requested
        os.kill(os.getpid(), number)
        assert signals.requested
    assert signal.getsignal(number) is before


def test_the_second_interrupt_aborts():
    with pytest.raises(KeyboardInterrupt), Signals():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_model_and_data_are_compared_and_fitted_numbers_places_and_training_are_not():
    same = {**CONFIG, "data": {"name": "p", "root": "elsewhere", "stats": {"a": [2.0], "b": []}}, "train": {"steps": 9}}
    assert differing_keys(json.loads(json.dumps(CONFIG)), same) == []
    other = {**CONFIG, "data": {**CONFIG["data"], "name": "q"}, "model": {"width": 9, "graph": (("b", "a"),), "depth": 1}}
    assert differing_keys(CONFIG, other) == ["data.name", "model.depth", "model.graph", "model.width"]


def test_a_workdir_of_another_model_is_refused_and_the_keys_are_named(tmp_path):
    check_workdir(tmp_path / "new" / "deep", CONFIG)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    check_workdir(tmp_path, CONFIG)
    with pytest.raises(WorkdirError, match=r"model\.width") as caught:
        check_workdir(tmp_path, {**CONFIG, "model": {**CONFIG["model"], "width": 9}})
    assert "\n" not in str(caught.value) and "model.graph" not in str(caught.value)


def test_workdirs_that_cannot_be_one_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match="cannot make"):
        check_workdir(tmp_path / "file" / "w", CONFIG)
    (tmp_path / "lost" / "checkpoints" / "10").mkdir(parents=True)
    with pytest.raises(WorkdirError, match="no config.json"):
        check_workdir(tmp_path / "lost", CONFIG)
    (tmp_path / "config.json").write_text('{"data": ')
    with pytest.raises(WorkdirError, match="cannot be read"):
        check_workdir(tmp_path, CONFIG)
