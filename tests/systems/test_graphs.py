"""Laws of the systems whose subject is a graph: DAG-aware attention over variables, graphs of positions in context, learned adjacency."""

from __future__ import annotations

import dataclasses
import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from causal_gen.build import build, load_config
from causal_gen.evaluate import probes
from causal_gen.scm.counterfactual import abduct, predict, sample
from causal_gen.scm.intervention import do, shift, soft, stochastic
from causal_gen.structure.graph import Dag
from causal_gen.types import ConfigError

HERE = "configs/causal_transformer"
KEY = jax.random.key(0)


@functools.cache
def system(name: str, **changes: Any) -> tuple[Any, Any, Any]:
    """The tiny mode of a config, changed: its experiment, parameters off their start, and rows."""
    experiment = build(load_config(f"{HERE}/{name}.py:tiny", {key.replace("__", "."): value for key, value in changes.items()}))
    leaves, tree = jax.tree.flatten(jax.jit(experiment.model.init)(KEY))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    params = jax.tree.unflatten(tree, [p + 0.4 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)])
    return experiment, params, jax.tree.map(jnp.asarray, experiment.data.gather("test", np.arange(8)))


def variables(**changes: Any) -> tuple[Any, Any, Any]:
    experiment, params, rows = system("dag_aware", **changes)
    return experiment.model, params, rows


@functools.partial(jax.jit, static_argnums=0)
def logits(model: Any, params: Any, batch: Any) -> jax.Array:
    return model.conditionals(params, batch)["tokens"].logits


# -- variables as tokens ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 2])
def test_an_answer_has_slopes_in_its_ancestors_and_exactly_none_elsewhere(layers):
    """One layer sees parents alone; the second hands on what parents have seen. Its own value is never seen. x6 is nobody's cause."""
    model, params, rows = variables(model__transformer__layers=layers)
    reals = {name: rows[name] for name in rows if rows[name].dtype == jnp.float32}

    @jax.jit
    def slopes(reals):
        def told(reals):
            found = model.conditionals(params, {**rows, **reals})
            return {name: (one.logits.sum(0) if one.moments is None else jnp.stack(one.moments).sum(1)) for name, one in found.items()}

        return jax.jacrev(told)(reals)

    for node, by_cause in slopes(reals).items():
        near = within(model.graph, node, layers)
        assert near <= model.graph.ancestors(node)
        for cause, slope in by_cause.items():
            assert np.any(slope) == (cause in near), f"{node} given {cause}"


def within(graph, node, steps) -> set[str]:
    """Ancestors of a node at a distance of at most so many edges."""
    near = set(graph.parents(node))
    return near.union(*(within(graph, parent, steps - 1) for parent in near)) if steps > 1 else near


def test_the_density_is_that_of_the_abducted_noise():
    """Change of variables: log p(x) = sum log N(e) - log scale over real nodes, and the log of a probability for the discrete one."""
    model, params, rows = variables()
    told, noise = jax.jit(model.conditionals)(params, rows), abduct(model, params, KEY, rows)
    want = np.log(np.asarray(jax.nn.softmax(told["treatment"].logits)))[np.arange(8), np.asarray(rows["treatment"])]
    for name, one in told.items():
        if one.moments is not None:
            want = want + stats.norm.logpdf(np.asarray(noise[name])) - np.log(np.asarray(one.moments[1]))
    np.testing.assert_allclose(jax.jit(model.log_prob)(params, KEY, rows), want, rtol=1e-4, atol=1e-4)


def test_a_null_intervention_gives_every_variable_back():
    model, params, rows = variables()
    back = predict(model, params, abduct(model, params, KEY, rows))
    np.testing.assert_array_equal(back["treatment"], rows["treatment"])
    for name in model.graph.nodes:
        np.testing.assert_allclose(back[name], rows[name], atol=1e-4)


@pytest.mark.parametrize("act", [do(x2=1.5), do(treatment=1.0), shift(outcome=2.0)], ids=["covariate", "treatment", "outcome"])
def test_only_descendants_move_and_what_is_acted_upon_takes_its_value(act):
    model, params, _ = variables()
    noise = jax.jit(model.noise, static_argnums=1)(KEY, 32)
    plain, answer, may = predict(model, params, noise), predict(model, params, noise, do=act), model.descendants(noise, act)
    (node,) = act.nodes
    for name in model.graph.nodes:
        reached = name == node or name in model.graph.descendants(node)
        assert bool(may[name].all()) == bool(may[name].any()) == reached
        assert np.any(plain[name] != answer[name]) <= reached, name
    if act.actions[node].kind == "do":
        assert (np.asarray(answer[node]) == act.actions[node].args[0]).all()
    assert np.any(plain["after"] != answer["after"])


def test_an_edge_acted_upon_is_read_by_its_child_alone():
    """The child answers as if the parent had that value, from its own noise; what follows from the child follows, all else is untouched."""
    model, params, _ = variables()
    noise = jax.jit(model.noise, static_argnums=1)(KEY, 32)
    act = do(x1=1.5, edge=("x1", "outcome"))
    plain, answer, may = predict(model, params, noise), predict(model, params, noise, do=act), model.descendants(noise, act)
    for name in model.graph.nodes:
        reached = name in ("outcome", "after")
        assert bool(may[name].all()) == bool(may[name].any()) == reached == bool(np.any(plain[name] != answer[name])), name
    mean, scale = jax.jit(model.conditionals)(params, {**plain, "x1": jnp.full(32, 1.5)})["outcome"].moments
    np.testing.assert_allclose(answer["outcome"], mean + scale * noise["outcome"], rtol=1e-5, atol=1e-5)


def test_where_one_layer_sees_parents_alone_all_edges_of_a_node_acted_upon_are_the_node_acted_upon():
    model, params, _ = variables(model__transformer__layers=1)
    noise = jax.jit(model.noise, static_argnums=1)(KEY, 32)
    edges = [do(x2=0.7, edge=("x2", child)) for child in model.graph.children("x2")]
    answer, want = predict(model, params, noise, do=functools.reduce(operator.and_, edges)), predict(model, params, noise, do=do(x2=0.7))
    assert len(edges) == 3 and np.any(answer["x2"] != want["x2"])
    for name in set(model.graph.nodes) - {"x2"}:
        np.testing.assert_allclose(answer[name], want[name], atol=1e-5, err_msg=name)


def test_stochastic_and_soft_interventions_reach_the_model():
    model, params, _ = variables(model__transformer__layers=1)
    noise = jax.jit(model.noise, static_argnums=1)(KEY, 32)
    plain = predict(model, params, noise)
    drawn = [predict(model, params, noise, do=stochastic("jitter", jax.random.key(seed), x2=0.5)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0]["after"], drawn[1]["after"])
    gaps = np.asarray(drawn[2]["x2"] - plain["x2"])
    assert 0.2 < gaps.std() < 0.8 and np.all(drawn[0]["x2"] != drawn[2]["x2"])
    np.testing.assert_array_equal(drawn[2]["x1"], plain["x1"])
    some = np.arange(32) % 2 == 0
    halved = predict(model, params, noise, do=soft(jnp.tanh, x2=()).where(some))
    np.testing.assert_allclose(halved["x2"], np.where(some, np.tanh(plain["x2"]), plain["x2"]), rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(halved["x3"] == plain["x3"]), ~some)


def test_the_mask_alone_makes_the_difference_between_graph_and_order():
    """Same parameters, complete graph: the baseline's answers see every earlier variable."""
    model, params, rows = variables()
    nodes = model.graph.nodes
    whole = dataclasses.replace(model, graph=Dag(nodes, tuple((a, b) for i, b in enumerate(nodes) for a in nodes[:i])))
    assert set(whole.parents) == set(nodes[:-1]) > set(model.parents)
    values = {**params["values"], **{name: params["values"]["x1"] for name in set(whole.parents) - set(model.parents)}}
    moved = {**rows, "x3": rows["x3"] + 1}
    answers = [jax.jit(whole.conditionals)({**params, "values": values}, some)["outcome"].moments[0] for some in (rows, moved)]
    assert np.all(answers[0] != answers[1])
    masked = [jax.jit(model.conditionals)(params, some)["outcome"].moments[0] for some in (rows, moved)]
    np.testing.assert_array_equal(*masked)


def test_every_parameter_learns():
    model, params, rows = variables()
    slopes = jax.jit(jax.grad(lambda params: model.loss(params, KEY, rows, step=jnp.zeros(()), train=True)[0].mean()))(params)
    for where, leaf in jax.tree_util.tree_leaves_with_path(slopes):
        assert np.all(np.isfinite(leaf)) and np.any(leaf != 0), jax.tree_util.keystr(where)


def test_draws_are_a_fair_coin_where_the_logits_say_so():
    """Noise to sample: with answers that ignore everything, reals are standard normal on unit scale and the coin is fair."""
    model, params, _ = variables()
    flat = {**params, "answers": jax.tree.map(jnp.zeros_like, params["answers"])}
    drawn = sample(model, flat, KEY, 4_000)
    assert abs(float(drawn["treatment"].mean()) - 0.5) < 0.03
    scaling = model.scalings[model.graph.index("outcome")]
    assert stats.kstest(np.asarray(scaling.forward(drawn["outcome"])) / 1.001, "norm").pvalue > 1e-3


# -- graphs of positions in context ----------------------------------------------------------------------------------------------


def test_attention_alone_is_what_its_two_equations_say():
    """Against numpy: no norm, no feed-forward layer, embeddings of tokens and places added."""
    experiment, params, rows = system("in_context_graph")
    given, t, d = np.asarray(rows["tokens"]), 8, 16
    own = jax.tree.map(np.asarray, params)
    x = np.concatenate([np.broadcast_to(own["start"], (8, 1, d)), own["embed"][given[:, :-1]]], 1) + own["decoder"]["positions"][:t]
    for layer in range(2):
        a = jax.tree.map(lambda leaf, layer=layer: leaf[layer], own["decoder"]["blocks"]["attention"])
        q, k, v = np.split(x @ a["qkv"]["kernel"] + a["qkv"]["bias"], 3, -1)
        s = np.where(np.tri(t, dtype=bool), q @ k.swapaxes(1, 2) / d**0.5, -np.inf)
        p = np.exp(s - s.max(-1, keepdims=True))
        x = x + (p / p.sum(-1, keepdims=True)) @ v @ a["out"]["kernel"] + a["out"]["bias"]
    np.testing.assert_allclose(logits(experiment.model, params, rows), x @ own["readout"], rtol=1e-4, atol=1e-4)
    assert set(own["decoder"]["blocks"]) == {"attention"} and set(own["decoder"]) == {"blocks", "positions"}


@pytest.mark.parametrize("graph", ["random", "chain"])
def test_two_layers_can_hold_the_graph_and_the_probe_reads_it_off(graph):
    """The paper's construction, written by hand: layer 1 sends every token to its parent by place alone, layer 2 averages what followed
    the last token's state. It finds all parents, and loses little more than the best predictor."""
    sizes = {"data__items": 16, "data__test_size": 400, "model__transformer__width": 32}
    experiment, start, _ = system("in_context_graph", data__graph=graph, **sizes)
    params = by_hand(start, experiment.data.config.parents, states=4, t=16, d=32)
    rows = np.arange(400)
    found = probes.measure(experiment.model, params, experiment.data, rows, 400)
    assert found["parents"]["0"] == 1.0
    given, parents = experiment.data.rows["test"]["tokens"], experiment.data.config.parents
    counts = np.zeros((400, 4))
    for child, above in enumerate(parents[:-1]):
        hit = (given[:, above] == given[:, -2]) & (above >= 0)
        counts[rows[hit], given[hit, child]] += 1
    known = counts.sum(1) > 0
    want = 2.0 * counts[known] / counts[known].sum(1, keepdims=True)
    batch = jax.tree.map(jnp.asarray, experiment.data.gather("test", rows))
    np.testing.assert_allclose(logits(experiment.model, params, batch)[known, -1], want, atol=1e-4)
    loss = -float(jax.jit(experiment.model.log_prob)(params, KEY, batch).mean())
    best = experiment.data.best("test", rows).mean()
    assert best < loss < best + 0.15 < np.log(4)


def by_hand(like: Any, parents: np.ndarray, states: int, t: int, d: int) -> Any:
    """Features of a slot: its token, its place, its parent's token, the frequencies. Slot k + 1 holds token k; roots look at the start."""
    token, place = np.arange(states), states + np.arange(t)
    parent, answer = states + t + np.arange(states), 2 * states + t + np.arange(states)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), like)
    attention, sharp = zeros["decoder"]["blocks"]["attention"], 40.0 * d**0.5
    q, k, v = (attention["qkv"]["kernel"][:, :, start : start + d] for start in (0, d, 2 * d))
    for child, above in enumerate(parents[:-1]):
        q[0, place[child + 1], place[above + 1]] = sharp  # above = -1: slot 0
    k[0, place, place] = 1
    v[0, token, parent] = 1
    q[1, token, parent] = sharp
    k[1, parent, parent] = 1
    v[1, token, answer] = 1
    attention["out"]["kernel"][:] = np.eye(d) * np.isin(np.arange(d), [*parent, *answer])
    zeros["embed"][token, token] = 1
    zeros["decoder"]["positions"][np.arange(t), place] = 1
    zeros["readout"][answer, token] = 2.0
    return jax.tree.map(jnp.asarray, zeros)


# -- learned adjacency -----------------------------------------------------------------------------------------------------------


def test_a_closed_gate_hides_exactly_and_still_has_a_slope():
    """Gates set by hand, by place alone: with one layer a slot's logits move with what its gates show, and with nothing else."""
    experiment, params, rows = system("learned_graph", model__transformer__layers=1, model__weights__seen=0.0)
    model, t = experiment.model, 8
    wanted = np.random.default_rng(0).random((t, t)) < 0.5
    np.fill_diagonal(wanted, True)
    params = gated(params, wanted)
    plain = np.asarray(logits(model, params, rows))
    for j in range(t - 1):
        other = np.asarray(
            logits(model, params, {**rows, "tokens": jnp.where(jnp.arange(t) == j, (rows["tokens"] + 1) % 4, rows["tokens"])})
        )
        moved = (other != plain).any((0, 2))
        np.testing.assert_array_equal(moved, wanted[:, j + 1] & (np.arange(t) >= j + 1))

    def loss(params):
        return model.loss(params, KEY, rows, step=jnp.zeros(()), train=True)[0].mean()

    slope = np.asarray(jax.jit(jax.grad(loss))(params)["decoder"]["gate"]["bias"])
    np.testing.assert_array_equal(slope != 0, np.arange(t) < t - 1)  # the last place is its own slot's alone, which needs no gate


def gated(params: Any, wanted: np.ndarray) -> Any:
    """Parameters whose gates are `wanted` [t, t] whatever the tokens, and whose places alone tell slots apart, by one-hot features."""
    t, d = wanted.shape[0], params["start"].shape[0]
    places = np.zeros((t, d), np.float32)
    places[:, :t] = 100 * np.eye(t)
    norm = {"scale": jnp.ones(d), "bias": jnp.zeros(d)}
    # after the norm of 100 e_i + something small, feature i is near sqrt(d) and the others near 0
    kernel = np.zeros((d, t), np.float32)
    kernel[:t] = np.where(wanted, 2, -2)
    gate = {"kernel": jnp.asarray(kernel), "bias": jnp.zeros(t)}
    # scores near 0, so that whatever is seen has weight
    blocks = {**params["decoder"]["blocks"], "attention": jax.tree.map(lambda leaf: 0.1 * leaf, params["decoder"]["blocks"]["attention"])}
    decoder = {**params["decoder"], "positions": jnp.asarray(places), "gate": gate, "gate_norm": norm, "blocks": blocks}
    return {**params, "decoder": decoder}


def test_what_is_paid_for_is_the_number_of_keys_that_are_seen():
    experiment, params, rows = system("learned_graph", model__transformer__layers=1)
    wanted = np.tri(8, dtype=bool) & (np.random.default_rng(1).random((8, 8)) < 0.4)
    _, aux = experiment.model.loss(gated(params, wanted), KEY, rows, step=jnp.zeros(()), train=True)
    np.testing.assert_allclose(aux.terms["seen"], (wanted | np.eye(8, dtype=bool)).sum() / 8)  # itself it sees in any case
    dense = dataclasses.replace(experiment.model, config=dataclasses.replace(experiment.model.config, visibility="causal()"))
    _, aux = dense.loss(params, KEY, rows, step=jnp.zeros(()), train=True)
    np.testing.assert_allclose(aux.terms["seen"], 4.5)


def test_open_gates_are_causal_attention():
    experiment, params, rows = system("learned_graph", model__transformer__layers=1)
    every = gated(params, np.ones((8, 8), bool))
    dense = dataclasses.replace(experiment.model, config=dataclasses.replace(experiment.model.config, visibility="causal()"))
    np.testing.assert_allclose(logits(experiment.model, every, rows), logits(dense, every, rows), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("learned_graph", {"model.transformer.gates": 0}, "reads gates, which nobody makes"),
        ("learned_graph", {"model.transformer.gates": 5}, "5 places for texts of 8"),
        ("in_context_graph", {"model.transformer.experts": 2}, "which mlp_ratio=0 leaves out"),
        ("in_context_graph", {"model.transformer.normformer": True}, "normformer is made of norms"),
        ("dag_aware", {"model.transformer.position": "rope"}, "variables have names, not places"),
        ("dag_aware", {"model.graph": (("x1", "wage"),)}, "node 'wage' is not in the data"),
        ("dag_aware", {"model.graph": (), "model.nodes": ()}, "it has no nodes"),
        ("dag_aware", {"model.graph": (("x1", "x2"), ("x2", "x1"))}, "cycle"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(name, wrong, said):
    with pytest.raises(ConfigError, match=said) as caught:
        build(load_config(f"{HERE}/{name}.py:tiny", wrong))
    assert "\n" not in str(caught.value)
