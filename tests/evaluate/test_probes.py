"""Probes on arrays whose answer is known, and on a small model against slow copies of themselves."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.data.sequences import MarkovConfig
from causal_gen.evaluate import probes
from causal_gen.models.causal_transformer_config import CausalTransformerConfig
from causal_gen.nn.transformer_config import TransformerConfig
from causal_gen.sampling.truncation import DecodingConfig

T = 12


def test_a_position_is_found_where_it_is_a_line_in_the_hidden_states_and_nowhere_else():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((200, T, 6))
    assert abs(probes.position_error(noise) - probes.guess_error(T)) < 0.01
    assert probes.guess_error(T) == pytest.approx(np.abs(np.arange(T) - 5.5).mean() / T)
    # along one direction, hidden in others that vary more
    line = 3 * noise + np.arange(T).reshape(1, T, 1) * rng.standard_normal((1, 1, 6))
    line[..., 0] = 0.5 * np.arange(T) - 7 + line[..., 1]
    assert probes.position_error(line) < 0.001
    # a law of position that is learned on some rows and not kept on the others
    flipped = np.concatenate([line[::2], line[::2, ::-1]], 1).reshape(-1, T, 6)
    assert probes.position_error(flipped) > 0.2


def test_the_share_of_parents_leaves_out_roots_and_the_last_token():
    parents = np.array([-1, 0, 0, -1, 2])
    tops = np.array([[0, 0, 1, 1, 3], [0, 0, 1, 2, 0]])  # slot k + 1 holds token k
    assert probes.parent_share(tops, parents) == 3 / 4


def test_edges_are_told_from_pairs_by_their_weight_alone():
    """Slot j + 1 holds token j. The slot's own token and the start do not count, nor does the scale of the weights; ties count half."""
    adjacency = np.zeros((4, 4), bool)
    adjacency[2, 0] = adjacency[3, 1] = True
    weights = np.full((4, 4), 9.0)  # wherever it is left, it is not looked at
    weights[2, 1], weights[3, 1:3] = 0.2, [0.1, 0.7]  # tokens 0 of 2; 0 and 1 of 3
    assert probes.edge_area(weights, adjacency) == 1.0
    assert probes.edge_area(weights / 100, adjacency) == 1.0
    weights[2, 1] = 0.1
    assert probes.edge_area(weights, adjacency) == 0.75
    weights[2, 1] = 0.0
    assert probes.edge_area(weights, adjacency) == 0.5


@pytest.fixture(scope="module")
def small():
    source = MarkovConfig(states=3, items=8, size=4, test_size=32).make()
    transformer = TransformerConfig(width=8, layers=2, heads=2, mlp_ratio=1.0, position="none", backend="dense")
    config = CausalTransformerConfig(transformer=transformer, capture=(0, 1))
    model = config.make(source.entries, {}, DecodingConfig(), "", "none")
    leaves, tree = jax.tree.flatten(jax.jit(model.init)(jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return source, model, jax.tree.unflatten(tree, [p + 0.3 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)])


def test_a_model_is_probed_in_the_layers_that_it_captures(small):
    """Without positions and without the mask nothing is known of places but that slot 0 holds no token."""
    source, model, params = small
    found = probes.measure(model, params, source, np.arange(32), 16)
    assert set(found) == {"position", "position_without_mask", "position_by_chance", "parents", "gradient"}
    assert found["position"]["1"] < found["position_without_mask"]["1"] and found["position_without_mask"]["1"] > 0.15
    assert 0 <= found["parents"]["0"] <= 1
    blind = dataclasses.replace(model, config=dataclasses.replace(model.config, capture=()))
    assert probes.measure(blind, params, source, np.arange(32), 16) == {}


def test_gradients_are_told_apart_by_layer(small):
    """Against the derivative along the gradient itself, one layer at a time, by central differences."""
    source, model, params = small
    batch = {name: jnp.asarray(value) for name, value in source.gather("test", np.arange(16)).items()}

    @jax.jit
    def loss(params):
        return model.loss(params, jax.random.key(0), batch, step=jnp.int32(0), train=False)[0].mean()

    norms = np.asarray(probes._gradients(model, params, batch))
    slope = jax.jit(jax.grad(loss))(params)["decoder"]["blocks"]
    for layer in range(2):
        step = jax.tree.map(lambda g, layer=layer: jnp.zeros_like(g).at[layer].set(g[layer] * 1e-2 / norms[layer]), slope)

        def moved(sign, step=step):
            blocks = jax.tree.map(lambda p, s: p + sign * s, params["decoder"]["blocks"], step)
            return float(loss({**params, "decoder": {**params["decoder"], "blocks": blocks}}))

        assert (moved(1) - moved(-1)) / 2e-2 == pytest.approx(norms[layer], rel=0.02)
