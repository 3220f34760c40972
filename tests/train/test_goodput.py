"""Where the time went: phases add up to the time that passed, over resumes and kills."""

from __future__ import annotations

import json
import time

import pytest

from causal_gen.train.goodput import PHASES, Goodput


def test_phases_are_exclusive_and_sum_to_the_time_that_passed(tmp_path):
    start = time.perf_counter()
    clock = Goodput(tmp_path)
    time.sleep(0.02)
    clock.enter("step")
    with clock.during("evaluate"):
        time.sleep(0.03)
        with clock.during("save"):
            time.sleep(0.04)
    time.sleep(0.05)
    seconds, passed = clock.seconds(), time.perf_counter() - start
    assert sum(seconds.values()) == pytest.approx(passed, abs=0.01)
    for phase, least in {"initialise": 0.02, "evaluate": 0.03, "save": 0.04, "step": 0.05}.items():
        assert least <= seconds[phase] < passed - 0.14 + least + 0.01
    assert seconds["compile"] == seconds["lost"] == 0


def spent(**seconds):
    return dict.fromkeys(PHASES, 0.0) | seconds


def left(folder, step_, at, **seconds):
    (folder / "goodput.json").write_text(json.dumps({"step": step_, "at": at, "seconds": spent(**seconds)}))


def resumed(folder, *args):
    clock = Goodput(folder)
    clock.resume(*args)
    return {phase: round(value, 1) for phase, value in clock.seconds().items() if round(value, 1)}


def test_a_run_that_ended_by_itself_has_lost_nothing(tmp_path):
    left(tmp_path, 8, 1000.0, step=30, save=5, lost=2)
    assert resumed(tmp_path, 8, spent(step=30, save=3, lost=2), None) == {"step": 30, "save": 5, "lost": 2}


def test_what_a_killed_run_did_after_its_checkpoint_is_lost(tmp_path):
    """It wrote down 37 s at its checkpoint 8 and lived 12 s longer. Then the same, but checkpoint 8 was never finished: 4 counts."""
    left(tmp_path, 8, 1000.0, step=30, save=5, lost=2)
    killed = {"start": 900.0, "seen": 1012.0}
    assert resumed(tmp_path, 8, spent(step=30, save=5, lost=2), killed) == {"step": 30, "save": 5, "lost": 14}
    assert resumed(tmp_path, 4, spent(step=15, save=2, lost=2), killed) == {"step": 15, "save": 2, "lost": 32}


def test_a_run_that_was_killed_before_its_first_checkpoint_has_lost_everything(tmp_path):
    assert resumed(tmp_path, 0, {}, {"start": 990.0, "seen": 1012.0}) == {"lost": 22}


def test_time_in_which_no_process_ran_is_nobodys(tmp_path):
    left(tmp_path, 8, 1000.0, step=30)
    assert resumed(tmp_path, 8, spent(step=30), {"start": 900.0, "seen": 1001.0}) == {"step": 30, "lost": 1}
    assert resumed(tmp_path, 8, spent(step=30), {"start": 5000.0, "seen": 5003.0}) == {"step": 30, "lost": 3}  # killed before it wrote
