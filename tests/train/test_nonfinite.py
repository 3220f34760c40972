"""Steps whose numbers are not finite: who is named, what is passed over, and that a resumed run passes over the same."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.data import batches
from causal_gen.models.base import Aux
from causal_gen.parallel import rules
from causal_gen.parallel.compile import compile_step
from causal_gen.parallel.mesh import MeshConfig, make_mesh, put_batch
from causal_gen.train.checkpoint import CheckpointConfig, Checkpoints
from causal_gen.train.log import LogConfig
from causal_gen.train.loop import fit, prepare
from causal_gen.train.nonfinite import bad_leaf, first_bad
from causal_gen.train.state import NonFiniteError, TrainConfig
from causal_gen.train.step import BLAME, make_init, make_step
from tests.train.toy import CONFIG, ToyModel, ToySource

TRAIN = TrainConfig(steps=14, batch_size=16, warmup_steps=3, learning_rate=1e-2)
EVERY = CheckpointConfig(every=4)


@dataclasses.dataclass(frozen=True)
class BadSource(ToySource):
    """`bad` examples of the training split are not numbers; gathering the batch of `crash` fails, as a process may at any time."""

    bad: tuple[int, ...] = ()
    crash: int | None = None

    def gather(self, split: str, indices: np.ndarray) -> dict[str, np.ndarray]:
        if split == "train" and self.crash is not None and np.array_equal(indices, of(self.crash)):
            raise ZeroDivisionError
        rows = super().gather(split, indices)
        return {**rows, "y": np.where(np.isin(indices, self.bad) & (split == "train"), np.nan, rows["y"])}


def of(index):
    return batches.indices(0, index, 16, 96)


def bad_at(*indices):
    """A source whose batches `indices` of the first epoch (six batches) hold an example that is no number; it comes again in each epoch."""
    return BadSource(bad=tuple(int(of(index)[3]) for index in indices))


def bad_batches(source):
    return [index for index in range(TRAIN.steps) if np.isin(of(index), source.bad).any()]


def run(workdir, source, **changes):
    settings = {"mesh": MeshConfig(), "checkpoint": EVERY, "log": LogConfig(every=1, tensorboard=False), "config": CONFIG}
    return fit(ToyModel(), source, workdir, train=dataclasses.replace(TRAIN, **changes), **settings)


def last(workdir):
    with Checkpoints(workdir / "checkpoints") as saved:
        engine, state, meta = prepare(ToyModel(), ToySource(), TRAIN, MeshConfig(), saved)
        return jax.device_get(state), meta


def by_hand(source, policy):
    """The same run without the loop: a state that is set back or left alone by plain Python."""
    mesh, init = make_mesh(MeshConfig()), make_init(ToyModel(), TRAIN)
    placed = rules.shardings(jax.eval_shape(init), mesh)
    step = compile_step(make_step(ToyModel(), TRAIN), mesh, placed)
    state = kept = jax.device_get(jax.jit(init, out_shardings=placed)())
    passed = []
    for index in range(TRAIN.steps):
        made, metrics = step(jax.device_put(state, placed), put_batch(mesh, source.gather("train", of(index))))
        if np.isfinite(metrics["loss"]):
            state = jax.device_get(made)
        else:
            back = state if policy == "skip" else kept
            passed += range(int(back.step), index + 1)
            state = dataclasses.replace(back, step=np.int32(index + 1))
        kept = state if (index + 1) % EVERY.every == 0 else kept
    return state, sorted(set(passed))


def same(a, b):
    for (path, x), (_, y) in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree_util.tree_leaves_with_path(b), strict=True):
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes(), path


@pytest.mark.parametrize("policy", ["skip", "rollback"])
@pytest.mark.parametrize("bad", [(0,), (3,), (1, 2)])
def test_what_is_not_finite_is_passed_over_and_recorded(tmp_path, policy, bad):
    """Before the first checkpoint, in the step of one (batch 3 is the fourth), twice in a row; and wherever they come again."""
    source = bad_at(*bad)
    assert run(tmp_path, source, nonfinite=policy).step == TRAIN.steps
    state, meta = last(tmp_path)
    expected, passed = by_hand(source, policy)
    same(state, expected)
    assert [index for first, end in meta["passed"] for index in range(first, end)] == passed
    assert set(bad_batches(source)) <= set(passed) and (policy == "rollback" or passed == bad_batches(source))
    clean, _ = by_hand(ToySource(), policy)
    with pytest.raises(AssertionError):
        same(state, clean)


@pytest.mark.parametrize("policy", ["skip", "rollback"])
@pytest.mark.parametrize("crash", [1, 8])
def test_a_run_that_breaks_off_and_goes_on_passes_over_the_same_batches(tmp_path, policy, crash):
    """The crash comes when the batch after the bad one is gathered, or after the next checkpoint."""
    source = bad_at(0)
    run(tmp_path / "whole", source, nonfinite=policy)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path / "cut", dataclasses.replace(source, crash=crash), nonfinite=policy)
    assert run(tmp_path / "cut", source, nonfinite=policy).step == TRAIN.steps
    (state, meta), (expected, record) = last(tmp_path / "cut"), last(tmp_path / "whole")
    same(state, expected)
    assert meta["passed"] == record["passed"]


@pytest.mark.parametrize(
    ("policy", "said"), [("skip", "the last of 3 skipped steps in a row"), ("rollback", "after 2 returns to checkpoint 4")]
)
def test_there_is_a_limit_to_it(tmp_path, policy, said):
    with pytest.raises(NonFiniteError, match=rf"{said}, more than train.nonfinite_limit=2") as caught:
        run(tmp_path, bad_at(5, 0, 1), nonfinite=policy, nonfinite_limit=2)
    assert "\n" not in str(caught.value)
    assert run(tmp_path, bad_at(5, 0, 1), nonfinite=policy, nonfinite_limit=3).step == TRAIN.steps


def test_rows_of_metrics_hold_no_number_that_is_none(tmp_path, capfd):
    run(tmp_path, bad_at(2), nonfinite="skip")
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] - 1 for row in rows if "passed_over" in row] == bad_batches(bad_at(2))
    assert all(np.isfinite(value) for row in rows for value in row.values())
    assert rows[-1]["lr"] > 0 and "absolute is nan at step 3, batch of the examples" in capfd.readouterr().out


@dataclasses.dataclass(frozen=True)
class Steep(ToyModel):
    """A finite loss with a gradient that is none: the square root of a thing that is 0, from step 5 on."""

    def loss(self, params: Any, key: Any, batch: Any, *, step: Any, train: bool) -> Any:
        loss, aux = super().loss(params, key, batch, step=step, train=train)
        kernel = params["second"]["kernel"]
        return loss + jnp.sqrt(jnp.where(step >= 5, 0.0, 1.0) * (kernel**2).sum()), Aux(aux.terms, aux.stats)


def test_a_gradient_is_named_by_its_parameter_and_the_batch_by_its_examples(tmp_path):
    settings = {"train": TRAIN, "mesh": MeshConfig(), "checkpoint": EVERY, "log": LogConfig(tensorboard=False), "config": CONFIG}
    with pytest.raises(NonFiniteError, match="the gradient of second/kernel is not finite at step 6") as caught:
        fit(Steep(), ToySource(), tmp_path, **settings)
    assert ", ".join(map(str, of(5))) in str(caught.value) and "\n" not in str(caught.value)


def test_the_first_bad_term_is_named_before_the_loss_that_it_spoils():
    nan, inf = float("nan"), float("inf")
    assert first_bad({"loss": 1.0, "a": 2.0, "grad_norm": 0.0}, None) is None
    assert first_bad({"loss": nan, "grad_norm": nan, "a": 1.0, "b": nan}, "w") == "b is nan"
    assert first_bad({"loss": inf, "grad_norm": nan, "a": 1.0}, "w") == "loss is inf"
    assert first_bad({"loss": 1.0, "grad_norm": inf, "a": 1.0}, "w") == "the gradient of w is not finite"


@pytest.mark.parametrize("policy", ["stop", "rollback"])
def test_parameters_that_are_not_finite_are_never_saved(tmp_path, monkeypatch, policy):
    """Where loss and gradient are fine: an update that overflows, in the step of a checkpoint, the second of the run."""
    from causal_gen.train import optim

    made = optim.optimizer

    def overflowing(train, groups):
        inner = made(train, groups)

        def update(updates, state, params=None, **extra):
            updates, state = inner.update(updates, state, params, **extra)
            return jax.tree.map(lambda u: jnp.where(state[-1].count == 8, jnp.inf, u), updates), state

        return inner._replace(update=update)

    monkeypatch.setattr(optim, "optimizer", overflowing)
    if policy == "stop":
        with pytest.raises(NonFiniteError, match="ema/first/bias is not finite after step 8|params/first/bias is not finite after step 8"):
            run(tmp_path, ToySource())
        assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"4"}
        return
    assert run(tmp_path, ToySource(), nonfinite=policy, steps=10).step == 10
    state, meta = last(tmp_path)
    assert meta["passed"] == [[4, 8]] and bad_leaf(state) is None


def test_the_select_costs_no_trace_and_leaves_every_leaf_as_it_was():
    train = dataclasses.replace(TRAIN, nonfinite="skip")
    state = make_init(ToyModel(), train)()
    rows = {name: jnp.asarray(value) for name, value in bad_at(0).gather("train", of(0)).items()}
    step = jax.jit(make_step(ToyModel(), train))
    after, metrics = step(state, rows)
    chex.assert_trees_all_equal(dataclasses.replace(after, step=state.step), state)
    assert int(after.step) == 1 and int(metrics[BLAME]) == 0
    moved, _ = step(after, {name: jnp.asarray(value) for name, value in ToySource().gather("train", of(1)).items()})
    assert not np.array_equal(moved.params["first"]["bias"], state.params["first"]["bias"]) and step._cache_size() == 1


NANS = """
import jax
from causal_gen.parallel.mesh import MeshConfig
from causal_gen.train.checkpoint import CheckpointConfig
from causal_gen.train.log import LogConfig
from causal_gen.train.loop import fit
from causal_gen.train.state import NonFiniteError, TrainConfig
from tests.train.test_nonfinite import Steep, ToySource, CONFIG

with jax.debug_nans(True):
    try:
        fit(Steep(), ToySource(), WORKDIR, train=TrainConfig(steps=8, batch_size=16), mesh=MeshConfig(), checkpoint=CheckpointConfig(),
            log=LogConfig(tensorboard=False), config=CONFIG)
    except NonFiniteError as error:
        print("said:", error)
"""


def test_debug_nans_names_the_primitive(tmp_path):
    done = subprocess.run([sys.executable, "-c", NANS.replace("WORKDIR", repr(str(tmp_path)))], capture_output=True, text=True, check=True)
    said = [line for line in done.stdout.splitlines() if line.startswith("said: ")]
    assert len(said) == 1 and "nan" in said[0] and "mul" in said[0] and "step" in said[0], done.stdout + done.stderr
