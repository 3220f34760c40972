"""One step: microbatches, keys, metrics, state, held-out loss."""

from __future__ import annotations

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.parallel.rules import leaf_path
from causal_gen.train.state import TrainConfig
from causal_gen.train.step import BLAME, make_heldout, make_init, make_step
from causal_gen.types import ConfigError
from tests.train.toy import ToyModel, ToySource

TRAIN = TrainConfig(steps=50, batch_size=16, learning_rate=1e-2)
BATCH = {name: jnp.asarray(value) for name, value in ToySource().gather("train", np.arange(16)).items()}


@pytest.mark.parametrize("pieces", [2, 4, 8])
def test_k_microbatches_of_b_equal_one_batch_of_kb(pieces):
    """With a loss that draws nothing. A sum for a mean, a lost microbatch or statistics of the last one only would all fail."""
    model = ToyModel(noisy=False)
    whole, one = jax.jit(make_step(model, TRAIN))(make_init(model, TRAIN)(), BATCH)
    cut, many = jax.jit(make_step(model, dataclasses.replace(TRAIN, accumulate=pieces)))(make_init(model, TRAIN)(), BATCH)
    chex.assert_trees_all_close(many, one, rtol=1e-5)
    chex.assert_trees_all_close(cut.opt, whole.opt, atol=1e-6)
    chex.assert_trees_all_close(cut.params["state"], whole.params["state"], rtol=1e-6)
    with pytest.raises(AssertionError):  # negative control: half of the rows is another batch
        half = {name: value[:8] for name, value in BATCH.items()}
        chex.assert_trees_all_close(jax.jit(make_step(model, TRAIN))(make_init(model, TRAIN)(), half)[1], one, rtol=1e-5)


def test_a_loss_that_mixes_examples_is_not_cut():
    with pytest.raises(ConfigError, match="train.accumulate=2"):
        make_step(ToyModel(batch_coupled=True), dataclasses.replace(TRAIN, accumulate=2))


def test_the_gradient_is_that_of_the_mean_loss():
    """Against finite differences of the mean of the per-example loss."""
    model = ToyModel(noisy=False, with_state=False)
    state = make_init(model, TRAIN)()

    def mean(bias):
        params = {**state.params, "first": {**state.params["first"], "bias": bias}}
        return float(model.loss(params, jax.random.key(0), BATCH, step=0, train=True)[0].mean())

    eps, bias = 1e-2, np.zeros(8, np.float32)
    slopes = np.array([(mean(bias + eps * e) - mean(bias - eps * e)) / (2 * eps) for e in np.eye(8, dtype=np.float32)])
    # Adam's first moment after one step is a tenth of the gradient; no clipping here
    stepped, _ = jax.jit(make_step(model, dataclasses.replace(TRAIN, clip_norm=None)))(state, BATCH)
    found = next(leaf for path, leaf in jax.tree_util.tree_leaves_with_path(stepped.opt) if leaf_path(path).endswith("mu/first/bias"))
    np.testing.assert_allclose(np.asarray(found) * 10, slopes, atol=2e-3)


def test_the_key_depends_on_the_step_and_the_seed_alone():
    step = jax.jit(make_step(ToyModel(), TRAIN))
    state = make_init(ToyModel(), TRAIN)()
    later = dataclasses.replace(state, step=state.step + 1)
    other = jax.jit(make_step(ToyModel(), dataclasses.replace(TRAIN, seed=1)))
    losses = [float(f(s, BATCH)[1]["loss"]) for f, s in ((step, state), (step, state), (step, later), (other, state))]
    assert losses[0] == losses[1]
    assert len(set(losses)) == 3


def test_metrics_are_means_of_the_terms_and_the_state_is_updated_without_gradient():
    state, metrics = jax.jit(make_step(ToyModel(), TRAIN))(make_init(ToyModel(), TRAIN)(), BATCH)
    assert set(metrics) == {"loss", "square", "absolute", "grad_norm", "lr", BLAME} and int(metrics[BLAME]) == -1
    assert float(metrics["loss"]) == pytest.approx(float(metrics["square"] + metrics["absolute"]), rel=1e-6)
    np.testing.assert_allclose(state.params["state"]["mean"], 0.5 * BATCH["x"].mean(0), rtol=1e-5)
    chex.assert_trees_all_equal(state.ema["state"], state.params["state"])
    assert int(state.step) == 1


def test_without_an_average_the_parameters_themselves_are_sampled_from():
    train = dataclasses.replace(TRAIN, ema_decay=None)
    state, _ = jax.jit(make_step(ToyModel(), train))(make_init(ToyModel(), train)(), BATCH)
    assert state.ema is None and state.best_params is state.params


def test_the_heldout_loss_draws_the_same_noise_at_every_step():
    score = jax.jit(make_heldout(ToyModel(), TRAIN))
    params = make_init(ToyModel(), TRAIN)().params
    first, again = score(params, BATCH, jnp.int32(0)), score(params, BATCH, jnp.int32(0))
    assert set(first) == {"loss", "square", "absolute"}
    chex.assert_trees_all_equal(first, again)
