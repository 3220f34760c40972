"""The laws of a run: resumed is uninterrupted, refusals name their cause, nothing non-finite is saved, signals save."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal

import chex
import jax
import numpy as np
import pytest

from causal_gen.parallel.mesh import MeshConfig
from causal_gen.train import checkpoint, guard
from causal_gen.train import step as steps
from causal_gen.train.checkpoint import CheckpointConfig, Checkpoints, load_params
from causal_gen.train.log import LogConfig
from causal_gen.train.loop import fit, prepare
from causal_gen.train.nonfinite import Numbers
from causal_gen.train.state import NonFiniteError, TrainConfig
from causal_gen.types import CheckpointError, ConfigError, WorkdirError
from tests.train.toy import CONFIG, ToyModel, ToySource

TRAIN = TrainConfig(steps=12, batch_size=16, warmup_steps=3, learning_rate=1e-2)
EVERY = CheckpointConfig(every=4)
LOG = LogConfig(every=3, eval_every=5, eval_batches=2, tensorboard=False)


def run(workdir, model=None, source=None, train=TRAIN, **kwargs):
    settings = {"mesh": MeshConfig(), "checkpoint": EVERY, "log": LOG, "config": CONFIG, **kwargs}
    return fit(model or ToyModel(), source or ToySource(), workdir, train=train, **settings)


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def state_at(workdir, step=None, train=TRAIN):
    """The whole state on disk, as numpy."""
    with Checkpoints(workdir / "checkpoints") as saved:
        engine, _, _ = prepare(ToyModel(), ToySource(), train, MeshConfig(), saved)
        return jax.device_get(saved.restore(engine.abstract, step)[0])


@dataclasses.dataclass(frozen=True)
class SignallingSource(ToySource):
    """Sends this process a signal while the batch after `at` updates is gathered."""

    at: int = 6
    number: int = signal.SIGTERM

    def gather(self, split, indices):
        calls = CALLS.setdefault(id(self), [])
        calls.append(split)
        if split == "train" and calls.count("train") == self.at + 2:  # the first call is the compiler's, the second batch 0
            os.kill(os.getpid(), self.number)
        return super().gather(split, indices)


CALLS: dict[int, list[str]] = {}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run, its workdir and result."""
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, run(workdir)


def test_a_workdir_holds_what_was_promised(whole, tmp_path):
    workdir, result = whole
    assert json.loads((workdir / "config.json").read_text()) == CONFIG
    facts = json.loads((workdir / "metadata.json").read_text())
    assert facts["parameters"] == 4 * 8 + 8 + 8 + 4 and facts["mesh"] == {"data": 8, "fsdp": 1, "tensor": 1, "sequence": 1}
    assert facts["compile_seconds"] > 0 and facts["versions"]["jax"] and facts["device_kind"] == "cpu"
    written = rows(workdir)
    assert [row["step"] for row in written] == [3, 4, 5, 6, 8, 9, 10, 12]  # log, checkpoint and held-out steps, each once
    assert {row["step"] for row in written if "eval_loss" in row} == {4, 5, 8, 10, 12}
    assert written[-1]["loss"] < written[0]["loss"]
    assert result.step == 12 and not result.interrupted and result.config == CONFIG
    params, step = load_params(workdir, jax.eval_shape(ToyModel().init, jax.random.key(0)))
    assert step == 12
    chex.assert_trees_all_equal(jax.device_get(params), jax.device_get(result.params))
    with Checkpoints(workdir / "checkpoints") as saved:
        meta = saved.meta(12)
    assert meta["config"] == CONFIG and meta["graph"] == {"nodes": ["x", "y"], "edges": [["x", "y"]]}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_resumed_run_equals_the_uninterrupted_byte_for_byte(whole, tmp_path, capfd, number):
    cut = run(tmp_path, source=SignallingSource(at=6, number=number))
    assert cut.interrupted and cut.step == 6  # between two checkpoints, in the middle of the schedule
    assert "run the same command again" in capfd.readouterr().out
    assert state_at(tmp_path, 6).step == 6
    resumed = run(tmp_path)
    assert resumed.step == 12 and not resumed.interrupted
    found, expected = state_at(tmp_path), state_at(whole[0])
    for (path, a), (_, b) in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree_util.tree_leaves_with_path(expected), strict=True):
        assert a.tobytes() == b.tobytes(), path
    numbers = [row["step"] for row in rows(tmp_path)]
    assert numbers == sorted(set(numbers))
    # held-out losses are a function of the state, so these agree as well; the negative control is another seed
    assert rows(tmp_path)[-1]["eval_loss"] == rows(whole[0])[-1]["eval_loss"]
    other = run(tmp_path / "other", train=dataclasses.replace(TRAIN, seed=1))
    assert not np.array_equal(other.params["first"]["kernel"], resumed.params["first"]["kernel"])


def test_rows_after_the_last_checkpoint_are_not_listed_twice(whole, tmp_path):
    run(tmp_path)
    path = tmp_path / "metrics.jsonl"
    with path.open("a") as file:  # as after a kill three steps past the checkpoint
        file.write('{"step": 13, "loss": 0.0}\n{"step": 15, "loss": 0.0}\n{"step": 1')
    run(tmp_path, train=dataclasses.replace(TRAIN, steps=16))
    numbers = [row["step"] for row in rows(tmp_path)]
    assert numbers == sorted(set(numbers)) and numbers[-1] == 16
    assert all(row["loss"] > 0 for row in rows(tmp_path))


def test_a_finished_run_is_returned_as_it_is(whole):
    workdir, result = whole
    before = (workdir / "metrics.jsonl").read_text()
    again = run(workdir)
    assert again.step == 12
    chex.assert_trees_all_equal(jax.device_get(again.params), jax.device_get(result.params))
    assert (workdir / "metrics.jsonl").read_text() == before


def test_every_step_from_which_a_run_was_taken_up_is_in_its_metadata(tmp_path):
    """What the page marks in the curves; a run that goes on from an earlier checkpoint forgets the later ones."""

    def resumes(steps):
        run(tmp_path, train=dataclasses.replace(TRAIN, steps=steps))
        return json.loads((tmp_path / "metadata.json").read_text())["resumes"]

    assert [resumes(4), resumes(8), resumes(12)] == [[], [4], [4, 8]]
    shutil.rmtree(tmp_path / "checkpoints" / "12")
    assert resumes(12) == [4, 8]
    shutil.rmtree(tmp_path / "checkpoints")
    assert resumes(12) == []


def test_a_time_limit_stops_saves_and_counts_over_resumes(tmp_path, capfd):
    train = dataclasses.replace(TRAIN, steps=10**6, time_limit=0.5)
    first = run(tmp_path, train=train, checkpoint=CheckpointConfig(every=10**6))
    assert 0 < first.step < 10**6 and not first.interrupted
    assert "time_limit" in capfd.readouterr().out
    again = run(tmp_path, train=train)
    assert again.step == first.step  # the time is spent


def test_annealing_by_time_ends_at_rate_zero_where_the_limit_cuts_the_run(tmp_path):
    """The same limit, the same million steps: only the clock's schedule has come down by then. Resuming keeps its leaf of the state."""
    train = dataclasses.replace(TRAIN, steps=10**6, time_limit=1.5, annealing="time")
    hurried = run(tmp_path / "time", train=train, checkpoint=CheckpointConfig(every=10**6))
    plain = run(tmp_path / "steps", train=dataclasses.replace(train, annealing="steps"), checkpoint=CheckpointConfig(every=10**6))
    assert 0 < hurried.step < 10**6 and 0 < plain.step < 10**6
    assert rows(tmp_path / "time")[-1]["lr"] < 0.05 * TRAIN.learning_rate < rows(tmp_path / "steps")[-1]["lr"]
    assert run(tmp_path / "time", train=train).step == hurried.step


def test_the_step_is_traced_once_over_a_whole_run(tmp_path, monkeypatch):
    made, traces = steps.make_step, []

    def counting(model, train):
        step = made(model, train)

        def counted(state, batch, axis=None):
            traces.append(1)
            return step(state, batch, axis)

        return counted

    monkeypatch.setattr(steps, "make_step", counting)
    run(tmp_path)
    assert len(traces) == 1


@pytest.mark.parametrize("poison", [0, 5, 7])
def test_a_loss_that_is_not_finite_stops_and_is_never_saved(tmp_path, poison):
    """Also in the step before a checkpoint (7 is the eighth update), and before the first."""
    with pytest.raises(NonFiniteError, match=rf"absolute is inf at step {poison + 1}, ") as caught:
        run(tmp_path, ToyModel(poison=poison))
    assert "\n" not in str(caught.value)
    saved = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert saved == [step for step in (4,) if step <= poison]
    if saved:
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state_at(tmp_path)))


def test_a_workdir_of_another_model_is_refused_and_left_alone(whole):
    workdir, _ = whole
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    with pytest.raises(WorkdirError, match=r"model\.width"):
        run(workdir, ToyModel(width=9), config={**CONFIG, "model": {"name": "toy", "width": 9}})
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before


def flip(folder):
    """One bit of the parameters in a checkpoint."""
    files = [path for path in (folder / "params").rglob("*") if path.parent.name == "d" and path.is_file()]
    path = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_checkpoint_is_skipped_for_the_one_before_and_the_run_ends_as_it_would_have(tmp_path, capfd):
    wide, train = ToyModel(width=1024), dataclasses.replace(TRAIN, schedule="constant")  # which does not know the number of steps
    longer = dataclasses.replace(train, steps=16)
    run(tmp_path / "a", wide, train=train)
    run(tmp_path / "b", wide, train=train)
    flip(tmp_path / "a" / "checkpoints" / "12")
    found, expected = run(tmp_path / "a", wide, train=longer), run(tmp_path / "b", wide, train=longer)
    assert found.step == expected.step == 16
    chex.assert_trees_all_equal(jax.device_get(found.params), jax.device_get(expected.params))
    assert "checkpoint 12 is skipped: params/" in capfd.readouterr().err
    assert {path.name for path in (tmp_path / "a" / "checkpoints").iterdir()} >= {"damaged-12", "12", "16"}
    assert [row["step"] for row in rows(tmp_path / "a")] == [row["step"] for row in rows(tmp_path / "b")]


def test_where_no_checkpoint_is_whole_the_run_stops_and_never_starts_at_step_0(tmp_path):
    run(tmp_path, ToyModel(width=1024))
    before = (tmp_path / "metrics.jsonl").read_text()
    steps = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    for step in steps:
        flip(tmp_path / "checkpoints" / step)
    with pytest.raises(CheckpointError, match="no checkpoint in .* is whole .12: params/.*; 8: params/") as caught:
        run(tmp_path, ToyModel(width=1024), train=dataclasses.replace(TRAIN, steps=16))
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == steps
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_a_run_hurried_by_the_clock_goes_on_in_the_middle(tmp_path):
    """Its share of the schedule is the clock's, and no part of a checkpoint."""
    train = dataclasses.replace(TRAIN, time_limit=600.0, annealing="time")
    assert run(tmp_path, train=train, source=SignallingSource(at=6)).step == 6
    assert run(tmp_path, train=train).step == 12


def test_a_batch_or_mesh_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="batch_size=12"):
        run(tmp_path, train=dataclasses.replace(TRAIN, batch_size=12))
    with pytest.raises(ConfigError, match=re.escape("mesh.data=3")):
        run(tmp_path, mesh=MeshConfig(data=3))


def test_pmap_mode_trains_through_the_same_loop(tmp_path, whole):
    result = run(tmp_path, ToyModel(noisy=False), mesh=MeshConfig(mode="pmap"))
    plain = run(tmp_path / "jit", ToyModel(noisy=False))
    chex.assert_trees_all_close(jax.device_get(result.params), jax.device_get(plain.params), atol=1e-3)
    np.testing.assert_allclose(rows(tmp_path)[-1]["loss"], rows(tmp_path / "jit")[-1]["loss"], atol=2e-5)


def test_pictures_are_drawn_from_the_average_when_due(tmp_path):
    drawn = []

    def pictures(params, step, stopped):
        assert not stopped()
        drawn.append((step, float(np.asarray(params["first"]["bias"])[0])))
        return {"grid": np.zeros((4, 4, 3), np.uint8)}

    result = run(tmp_path, log=dataclasses.replace(LOG, pictures_every=8), pictures=pictures)
    assert [step for step, _ in drawn] == [8, 12]
    assert drawn[-1][1] == float(np.asarray(result.params["first"]["bias"])[0])
    assert len(list((tmp_path / "samples").glob("*.png"))) == 2


def test_a_disk_that_refuses_is_one_line_and_earlier_checkpoints_stay(tmp_path, monkeypatch):
    save = checkpoint.ocp.CheckpointManager.save

    def full(self, step, *args, **kwargs):
        if step > 4:
            raise OSError(28, "No space left on device")
        return save(self, step, *args, **kwargs)

    monkeypatch.setattr(checkpoint.ocp.CheckpointManager, "save", full)
    with pytest.raises(CheckpointError, match="checkpoint 8.*No space left") as caught:
        run(tmp_path)
    assert "\n" not in str(caught.value)
    assert state_at(tmp_path).step == 4


def test_the_next_batch_is_under_way_before_the_numbers_of_a_step_are_asked_for(tmp_path, monkeypatch):
    """While step k + 1 runs, batch k + 2 is gathered and placed, and only then are the numbers of step k read; where something is due they
    are read at once."""
    gathered, at = [], {}

    class Noting(ToySource):
        def gather(self, split, indices):
            gathered.append(split)
            return super().gather(split, indices)

    read = Numbers.read

    def noting(self, step, metrics):
        at[step] = gathered.count("train") - 1  # one was the compiler's
        return read(self, step, metrics)

    monkeypatch.setattr(Numbers, "read", noting)
    run(tmp_path, source=Noting(), log=dataclasses.replace(LOG, eval_every=0))
    assert at == {step: step + 1 + (step % EVERY.every != 0) for step in range(1, 13)}


def test_a_window_of_steps_is_profiled_and_one_that_is_not_to_come_is_refused(tmp_path, capfd):
    run(tmp_path, profile=(3, 4))
    assert f"profile in {tmp_path / 'profile'}" in capfd.readouterr().out
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    for window in ((3, 4), (13, 17)):
        with pytest.raises(ConfigError, match=f"profile {window[0]}:{window[1]}: this start makes the steps 13 to 16") as caught:
            run(tmp_path, profile=window, train=dataclasses.replace(TRAIN, steps=16))
        assert "\n" not in str(caught.value)


def test_a_clock_hurries_a_resumed_run_too(tmp_path, monkeypatch):
    """Its leaf of the state is not saved."""
    train = dataclasses.replace(TRAIN, annealing="time", time_limit=1000.0)
    run(tmp_path, train=dataclasses.replace(train, steps=8))
    monkeypatch.setattr(guard.Clock, "pace", property(lambda self: 0.99))
    run(tmp_path, train=train)
    rates = {row["step"]: row["lr"] for row in rows(tmp_path)}
    assert rates[8] > 10 * rates[9] > 0
