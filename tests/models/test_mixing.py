"""Which objective a step is trained by: shares, turns, phases, and a bandit that finds what is being learned."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.models import mixing
from causal_gen.models.mixing import MixerConfig


@pytest.mark.parametrize(
    ("shares", "num", "want"), [((1, 1), 8, (4, 4)), ((1, 0), 8, (8, 0)), ((0.5, 0.25, 0.25), 8, (4, 2, 2)), ((1, 1, 1), 8, (3, 3, 2))]
)
def test_rows_are_shared_out_without_remainder(shares, num, want):
    assert mixing.rows(shares, num) == want


def test_turns_and_phases_are_what_the_config_says():
    def who(config, shares, steps):
        return [int(np.argmax(mixing.chances(config, shares, jnp.int32(step), None))) for step in steps]

    assert who(MixerConfig("alternate", steps=(2, 1)), (1.0, 1.0), range(7)) == [0, 0, 1, 0, 0, 1, 0]
    phases = MixerConfig("phases", steps=(2, 3), stages=((1, 0), (0, 1), (3, 1)))
    assert who(phases, (1.0, 1.0), range(7)) == [0, 0, 1, 1, 1, 0, 0]
    np.testing.assert_allclose(mixing.chances(phases, (1.0, 1.0), jnp.int32(9), None), [0.75, 0.25])
    assert phases.last((1.0, 1.0)) == (0.75, 0.25)


def test_draws_have_their_shares():
    chance = mixing.chances(MixerConfig("draw"), (3.0, 1.0), jnp.int32(0), None)
    drawn = jax.vmap(lambda key: mixing.pick(key, chance))(jax.random.split(jax.random.key(0), 4_000))
    assert float((drawn == 0).mean()) == pytest.approx(0.75, abs=0.03)


def test_a_bandit_turns_to_the_objective_whose_loss_falls_and_keeps_trying_the_other():
    config, state = MixerConfig("bandit", explore=0.2), mixing.start(2)

    @jax.jit
    def step(state, key, count):
        index = mixing.pick(key, mixing.chances(config, (1.0, 1.0), jnp.int32(0), state))
        loss = jnp.where(index == 1, 3.0 * 0.98**count, 2.0)  # the first is at its floor
        state = mixing.learn(config, state, mixing.played(index, 2, jnp.full((4,), loss)))
        return state, index

    played = []
    for i in range(150):
        state, index = step(state, jax.random.key(i), sum(played))
        played.append(int(index))
    chance = mixing.chances(config, (1.0, 1.0), jnp.int32(0), state)
    assert float(chance[1]) > 0.7 and float(chance[0]) >= 0.1 - 1e-6
    assert 0 < played[:20].count(0)
