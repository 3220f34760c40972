"""Schedule, groups, average: against closed forms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from causal_gen.models.base import Group
from causal_gen.train import optim
from causal_gen.train.state import TrainConfig
from causal_gen.types import ConfigError

PARAMS = {"a": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones((2,))}, "b": {"kernel": jnp.ones((2, 2))}}
GRADS = jax.tree.map(lambda x: 0.3 * x, PARAMS)
PLAIN = TrainConfig(steps=100, learning_rate=0.1, schedule="constant", clip_norm=None)


def moved(train, groups, grads=GRADS, steps=1):
    """Change of the parameters after `steps` equal gradients."""
    tx = optim.optimizer(train, groups)
    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(steps):
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return jax.tree.map(lambda new, old: np.asarray(new - old), params, PARAMS)


def test_the_rate_rises_linearly_then_falls_as_a_half_cosine_to_zero():
    rate = optim.learning_rate(TrainConfig(steps=110, warmup_steps=10, learning_rate=2.0))
    values = np.array([float(rate(jnp.int32(t))) for t in range(111)])
    np.testing.assert_allclose(values[:10], 2.0 * np.arange(1, 11) / 10, rtol=1e-6)
    np.testing.assert_allclose(values[60], 1.0, rtol=1e-5)  # half way down
    np.testing.assert_allclose(values[110], 0.0, atol=1e-6)
    assert np.all(np.diff(values[10:]) <= 0)
    flat = optim.learning_rate(TrainConfig(steps=110, warmup_steps=10, learning_rate=2.0, schedule="constant"))
    assert float(flat(jnp.int32(109))) == 2.0


def test_a_clock_hurries_the_schedule_but_never_slows_it():
    rate = optim.learning_rate(TrainConfig(steps=110, warmup_steps=10, learning_rate=2.0))
    steps = jnp.arange(111)
    plain = jax.vmap(rate)(steps)
    np.testing.assert_array_equal(jax.vmap(lambda t: rate(t, 0.0))(steps), plain)
    np.testing.assert_allclose(rate(60, 0.3), plain[60])  # the steps are ahead
    np.testing.assert_allclose(rate(20, 60 / 110), plain[60], rtol=1e-5)  # the clock is
    np.testing.assert_allclose(rate(20, 1.0), 0.0, atol=1e-6)


def test_the_update_follows_the_pace():
    tx = optim.optimizer(TrainConfig(steps=100, learning_rate=0.1), {".*": Group()})
    late, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS, pace=jnp.float32(0.5))
    early, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS, pace=None)
    np.testing.assert_allclose(late["a"]["kernel"], early["a"]["kernel"] / 2, rtol=1e-5)


def test_the_first_adam_update_is_the_rate_times_the_sign():
    np.testing.assert_allclose(moved(PLAIN, {".*": Group()})["a"]["kernel"], -0.1, rtol=1e-5)


def muon_update(grads):
    """The first update by Muon at rate 1 of parameters that are 0."""
    train = TrainConfig(steps=100, optimizer="muon", learning_rate=1.0, schedule="constant", clip_norm=None)
    tx, zeros = optim.optimizer(train, {".*": Group()}), jax.tree.map(jnp.zeros_like, grads)
    return jax.tree.map(np.asarray, tx.update(grads, tx.init(zeros), zeros)[0])


def test_muon_moves_a_kernel_along_all_its_directions_alike_and_against_the_gradient():
    gradient = jax.random.normal(jax.random.key(0), (24, 16)) * jnp.logspace(-1, 1, 16).reshape(1, 16)
    update = muon_update({"kernel": gradient})["kernel"]
    sizes = np.linalg.svd(update, compute_uv=False) / (optim.RMS * 24**0.5)
    assert 0.6 < sizes.min() and sizes.max() < 1.3  # the gradient's own spread over two orders
    u, _, v = np.linalg.svd(np.asarray(gradient), full_matrices=False)
    exact = -optim.RMS * 24**0.5 * u @ v
    assert (update * exact).sum() > 0.95 * np.linalg.norm(update) * np.linalg.norm(exact)


def test_muon_takes_layers_of_a_stack_one_by_one_and_a_convolution_as_one_matrix():
    stack, conv = jax.random.normal(jax.random.key(1), (3, 8, 12)), jax.random.normal(jax.random.key(2), (3, 3, 4, 8))
    together = muon_update({"blocks": {"out": {"kernel": stack}}})["blocks"]["out"]["kernel"]
    for layer in range(3):
        np.testing.assert_allclose(together[layer], muon_update({"kernel": stack[layer]})["kernel"], atol=1e-5)
    flat = muon_update({"kernel": conv.reshape(36, 8)})["kernel"]
    np.testing.assert_allclose(muon_update({"kernel": conv})["kernel"].reshape(36, 8), flat, atol=1e-5)


def test_muon_leaves_what_is_no_kernel_to_adam_with_nesterovs_momentum():
    grads = {"bias": jnp.array([3.0, -2.0]), "embed": jnp.array([[0.5, -4.0]])}
    adam = optax.scale_by_adam(nesterov=True)
    wanted, _ = adam.update(grads, adam.init(grads))
    jax.tree.map(lambda got, want: np.testing.assert_allclose(got, -want, rtol=1e-5), muon_update(grads), wanted)


def test_weight_decay_shrinks_matrices_and_leaves_vectors():
    train = TrainConfig(steps=100, learning_rate=0.1, schedule="constant", weight_decay=0.5, clip_norm=None)
    change = moved(train, {".*": Group()}, grads=jax.tree.map(jnp.zeros_like, GRADS))
    np.testing.assert_allclose(change["a"]["kernel"], -0.05, rtol=1e-5)
    assert not change["a"]["bias"].any()


def test_groups_scale_turn_and_freeze_and_the_first_match_wins():
    groups = {"a/bias": Group(scale=0.5), "^a": Group(sign=-1), ".*": Group(frozen=True)}
    change = moved(PLAIN, groups)
    np.testing.assert_allclose(change["a"]["bias"], -0.05, rtol=1e-5)
    np.testing.assert_allclose(change["a"]["kernel"], +0.1, rtol=1e-5)
    assert not change["b"]["kernel"].any()


def test_every_k_moves_on_updates_0_and_k_and_rests_between():
    groups = {"^a": Group(every=3), ".*": Group()}
    paths = [moved(PLAIN, groups, steps=n)["a"]["kernel"][0, 0] for n in (1, 2, 3, 4)]
    assert paths[0] == paths[1] == paths[2] != paths[3]
    # its second update is that of an optimiser which has seen two gradients, not four
    np.testing.assert_allclose(paths[3], moved(PLAIN, {".*": Group()}, steps=2)["a"]["kernel"][0, 0], rtol=1e-6)


def test_frozen_gradients_do_not_count_in_the_norm_that_is_clipped():
    groups = {"^a": Group(frozen=True), ".*": Group()}
    left = optim.zero_frozen(groups, GRADS)
    assert float(optax.tree.norm(left)) == pytest.approx(0.6)
    assert float(optax.tree.norm(optim.zero_frozen({".*": Group()}, GRADS))) == pytest.approx(0.3 * np.sqrt(10))


def test_a_leaf_of_no_group_is_named():
    with pytest.raises(ConfigError, match="b/kernel"):
        optim.assign_groups({"^a": Group()}, PARAMS)


def test_the_average_warms_up_and_copies_the_state():
    ema, new = {"w": jnp.zeros(3), "state": {"n": jnp.zeros(2)}}, {"w": jnp.ones(3), "state": {"n": jnp.ones(2)}}
    for t, d in ((0, 0.1), (8, 0.5), (10**6, 0.99)):
        out = optim.average(0.99, jnp.int32(t), ema, new)
        np.testing.assert_allclose(out["w"], 1 - d, rtol=1e-5)
        np.testing.assert_array_equal(out["state"]["n"], 1.0)
