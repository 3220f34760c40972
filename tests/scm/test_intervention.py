"""Interventions: what is written, and the arrays it becomes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.scm.intervention import Span, canonical, do, moved, read_by, shift, soft, stochastic
from causal_gen.structure.graph import Dag
from causal_gen.types import InterventionError

NATURAL = jnp.array([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("intervention", "expected"),
    [
        (do(a=5.0), [5.0, 5.0, 5.0]),
        (do(a=np.array([7.0, 8.0, 9.0])), [7.0, 8.0, 9.0]),
        (shift(a=-1.0), [0.0, 1.0, 2.0]),
        (soft("scale", a=2.0), [2.0, 4.0, 6.0]),
        (soft("clip", a=(1.5, 2.5)), [1.5, 2.0, 2.5]),
        (soft("affine", a=(2.0, 1.0)), [3.0, 5.0, 7.0]),
        (soft(jnp.square, a=()), [1.0, 4.0, 9.0]),
        (soft(lambda natural, power: natural**power, a=3.0), [1.0, 8.0, 27.0]),
        (do(a=5.0).where(np.array([True, False, True])), [5.0, 2.0, 5.0]),
        (do(a=5.0).where(np.array([True, False, True])).where(np.array([True, True, False])), [5.0, 2.0, 3.0]),
        ((do(a=5.0) & shift(b=1.0)).where(np.array([False, False, True])), [1.0, 2.0, 5.0]),
        (None, [1.0, 2.0, 3.0]),
        (do(b=5.0), [1.0, 2.0, 3.0]),
    ],
)
def test_an_intervention_replaces_the_natural_value(intervention, expected):
    acts = canonical(intervention, ("a", "b"), 3)
    np.testing.assert_allclose(acts["a"].apply(NATURAL), expected)


def test_a_mask_acts_on_its_examples_alone():
    act = canonical(do(a=5.0), ("a",), 3)["a"]
    act = type(act)(jnp.array([True, False, True]), act.args, act.kind)
    np.testing.assert_allclose(act.apply(NATURAL), [5.0, 2.0, 5.0])


def test_another_value_or_none_is_not_another_trace():
    traces = []

    @jax.jit
    def f(acts):
        traces.append(1)
        return acts["a"].apply(NATURAL)

    for intervention in (None, do(a=1.0), do(a=2.0), do(b=3.0)):
        f(canonical(intervention, ("a", "b"), 3))
    assert len(traces) == 1


KEY = jax.random.key(3)
MANY = jnp.full((20_000,), 2.0)


@pytest.mark.parametrize(
    ("kind", "args", "mean", "sd"),
    [
        ("normal", (1.0, 0.5), 1.0, 0.5),
        ("uniform", (-1.0, 3.0), 1.0, 4 / 12**0.5),
        ("bernoulli", 0.3, 0.3, 0.21**0.5),
        ("jitter", 0.5, 2.0, 0.5),
    ],
)
def test_a_stochastic_intervention_has_its_law(kind, args, mean, sd):
    drawn = canonical(stochastic(kind, KEY, a=args), ("a",), 20_000)["a"].apply(MANY)
    assert abs(float(drawn.mean()) - mean) < 4 * sd / 20_000**0.5 and abs(float(drawn.std()) / sd - 1) < 0.03


def test_draws_hang_on_key_node_and_example_alone():
    def draw(intervention, num, name="a"):
        return np.asarray(canonical(intervention, ("a", "b"), num)[name].apply(jnp.zeros(num)))

    many, few = draw(stochastic("normal", KEY, a=(0, 1)), 50), draw(stochastic("normal", KEY, a=(0, 1)), 7)
    np.testing.assert_array_equal(many[:7], few)
    both = stochastic("normal", KEY, b=(0, 1), a=(0, 1))
    np.testing.assert_array_equal(draw(both, 50), many)
    assert abs(np.corrcoef(draw(both, 5000), draw(both, 5000, "b"))[0, 1]) < 0.05
    assert (draw(stochastic("normal", jax.random.key(4), a=(0, 1)), 50) != many).all()
    per_example = draw(stochastic("normal", KEY, a=(np.arange(50.0), 0.0)), 50)
    np.testing.assert_array_equal(per_example, np.arange(50.0))


GRAPH = Dag.from_edges([("x", "m"), ("x", "y"), ("m", "y"), ("y", "z")])


def _linear(noise, acts):
    """m = 2 x, y = 3 m + 5 x, z = y, each plus its noise: what a model does with acts."""
    weights = {("x", "m"): 2.0, ("m", "y"): 3.0, ("x", "y"): 5.0, ("y", "z"): 1.0}
    values = {}
    for name in GRAPH.order:
        read = read_by(name, values, acts)
        natural = noise[name] + sum(weights[parent, name] * read[parent] for parent in GRAPH.parents(name))
        values[name] = acts[name].apply(natural)
    return values


def test_an_edge_is_read_by_its_child_alone():
    """Path-specific effects of a linear model are products of coefficients: direct 5, through m 6, total 11."""
    noise = {name: jnp.arange(4.0) * (i + 1) for i, name in enumerate(GRAPH.nodes)}

    def answer(intervention):
        return _linear(noise, canonical(intervention, GRAPH.nodes, 4, edges=GRAPH.edges))

    plain = answer(None)
    for intervention, effect in [
        (shift(x=1.0), {"x": 1, "m": 2, "y": 11, "z": 11}),
        (shift(x=1.0, edge=("x", "y")), {"x": 0, "m": 0, "y": 5, "z": 5}),
        (shift(x=1.0, edge=("x", "m")), {"x": 0, "m": 2, "y": 6, "z": 6}),
        (shift(x=1.0, edge=("x", "m")) & shift(x=1.0, edge=("x", "y")), {"x": 0, "m": 2, "y": 11, "z": 11}),
        (shift(x=1.0) & shift(x=-1.0, edge=("x", "m")), {"x": 1, "m": 0, "y": 5, "z": 5}),
        (shift(x=1.0, edge=("x", "y")) & do(y=3.0), {"x": 0, "m": 0}),
    ]:
        told = answer(intervention)
        for name, by in effect.items():
            np.testing.assert_allclose(told[name] - plain[name], by, atol=1e-5, err_msg=f"{intervention.nodes} {name}")
    nested = answer(do(x=7.0, edge=("x", "y")))  # Y(7, M(x))
    np.testing.assert_allclose(nested["y"], noise["y"] + 3 * plain["m"] + 35.0)


def test_an_edge_moves_its_child_and_what_follows_and_is_no_new_trace():
    acts = canonical(do(m=1.0, edge=("m", "y")).where(np.array([True, False])), GRAPH.nodes, 2, edges=GRAPH.edges)
    told = {name: mask.tolist() for name, mask in moved(GRAPH, acts).items()}
    assert told == {"x": [False, False], "m": [False, False], "y": [True, False], "z": [True, False]}
    null = canonical(None, GRAPH.nodes, 2, edges=GRAPH.edges)
    assert jax.tree.structure(acts) == jax.tree.structure(null)


def test_a_node_may_be_called_edge():
    assert do(edge=2.0).nodes == ("edge",)


SPANS = {"text": Span(4, 10)}
TEXT = jnp.array([[1, 2, 3, 4], [5, 6, 7, 8]])


def test_tokens_are_set_by_position_for_all_examples_or_each():
    acts = canonical(do(text={1: 9, 3: np.array([0, 1])}), ("text",), 2, SPANS)
    np.testing.assert_array_equal(acts["text"].apply(TEXT), [[1, 9, 3, 0], [5, 9, 7, 1]])
    none = canonical(None, ("text",), 2, SPANS)
    np.testing.assert_array_equal(none["text"].apply(TEXT), TEXT)
    assert jax.tree.structure(acts) == jax.tree.structure(none), "another position, or none, is not another trace"
    assert [(x.shape, x.dtype) for x in jax.tree.leaves(acts)] == [(x.shape, x.dtype) for x in jax.tree.leaves(none)]


def test_interventions_combine_once_a_node():
    both = do(a=1.0) & shift(b=2.0)
    assert both.nodes == ("a", "b")
    with pytest.raises(InterventionError, match="'a' is acted upon twice"):
        both & do(a=3.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: canonical(do(angel=1.0), ("angle", "light"), 3), "unknown factor 'angel'; did you mean 'angle'"),
        (lambda: canonical(do(a=np.zeros(4)), ("a",), 3), r"shape \(4,\).*each of 3"),
        (lambda: soft("clop", a=1.0), "unknown kind 'clop'; did you mean 'clip'"),
        (lambda: soft("clip", a=1.0), "takes 2 argument"),
        (lambda: soft("normal", a=(0, 1)), "'normal' draws; write stochastic"),
        (lambda: stochastic("norm", KEY, a=(0, 1)), "unknown stochastic kind 'norm'; did you mean 'normal'"),
        (lambda: stochastic("normal", KEY, a=1.0), "takes 2 argument"),
        (lambda: do(y=1.0, edge=("x", "y")), r"edge=x -> y takes one value, of 'x', got y; write x=..."),
        (lambda: canonical(do(x=1.0, edge=("x", "y")), ("x", "y"), 3), "this model's mechanisms read no parent apart; act upon the node"),
        (lambda: canonical(do(y=1.0, edge=("y", "x")), ("x", "y"), 3, edges=(("x", "y"),)), "no edge 'y->x'"),
        (lambda: canonical(do(x=1.0).where(np.ones(4, bool)), ("x",), 3), r"do\(x=...\).where has shape \(4,\)"),
        (lambda: canonical(do(text={4: 1}), ("text",), 2, SPANS), r"do\(text=\{4: ...\}\): there is no such position; they are 0..3"),
        (lambda: canonical(do(text={0: 10}), ("text",), 2, SPANS), "token 10 is out of range; the tokens are 0..9"),
        (lambda: canonical(do(text={0: 1.5}), ("text",), 2, SPANS), "token 1.5 is out of range"),
        (lambda: canonical(do(text={0: np.arange(3)}), ("text",), 2, SPANS), r"shape \(3,\).*each of 2"),
        (lambda: canonical(do(text=3), ("text",), 2, SPANS), r"name their positions, as in do\(text=\{5: 17\}\)"),
        (lambda: canonical(shift(text={0: 1}), ("text",), 2, SPANS), "only do sets them"),
        (lambda: canonical(do(a={0: 1.0}), ("a",), 2), "names positions, but it is no sequence"),
    ],
)
def test_mistakes_are_named_in_one_line(make, message):
    with pytest.raises(InterventionError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
