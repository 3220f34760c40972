"""Laws of the algebra: it equals a slow twin that asks pair by pair, under jit, in any batch, for queries that are not the keys."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structure.expressions import LEAVES, cook, pair_by_pair, random_fields, recipes

from causal_gen.structure.graph import Dag
from causal_gen.structure.masks import causal, dag, full, same, same_document, window
from causal_gen.structure.variants import learned, per_head, per_layer, soft
from causal_gen.structure.visibility import Side, Visibility, cut, fields_for, predicate
from causal_gen.types import Array, ConfigError

FEW = settings(max_examples=20, deadline=None, database=None, derandomize=True)
MANY = settings(max_examples=200, deadline=None, database=None, derandomize=True)
BATCH, TQ, TK = 2, 5, 7


def differences(expression, seed):
    """Pairs (b, q, k) at which a visibility, or its bias, says other than its twin."""
    visibility, twin = expression
    q, k = fields_for(TQ, TK, **random_fields(seed, BATCH, TK))
    expected = pair_by_pair(twin, q, k, BATCH)
    seen = visibility(q, k)
    assert seen.ndim == 4 and seen.dtype == bool
    seen, bias = (np.broadcast_to(found, (BATCH, 1, TQ, TK))[:, 0] for found in (seen, visibility.bias(q, k)))
    return np.argwhere((seen != expected) | (bias != np.where(expected, 0.0, -np.inf))).tolist()


@FEW
@given(recipes(), st.integers(0, 10**6))
def test_expressions_equal_their_twins(recipe, seed):
    assert differences(cook(recipe), seed) == []


@pytest.mark.slow
@MANY
@given(recipes(12), st.integers(0, 10**6))
def test_two_hundred_expressions_equal_their_twins(recipe, seed):
    assert differences(cook(recipe), seed) == []


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: repr(leaf[0]))
def test_each_named_visibility_equals_its_twin(leaf):
    assert [differences(leaf, seed) for seed in range(3)] == [[], [], []]


@FEW
@given(recipes(), st.integers(0, 10**6))
def test_an_expression_reads_the_fields_that_it_says(recipe, seed):
    visibility, _ = cook(recipe)
    q, k = fields_for(TK, TK, **random_fields(seed, BATCH, TK))
    own = [{name: value for name, value in fields.items() if name in visibility.fields | {"index"}} for fields in (q, k)]
    np.testing.assert_array_equal(visibility(*own), visibility(q, k))
    for name in sorted(visibility.fields - {"index"}):
        less = [{key: value for key, value in fields.items() if key != name} for fields in own]
        with pytest.raises(ConfigError, match=f"no field '{name}'"):
            visibility(*less)


def test_visibilities_are_static_arguments_that_do_not_trace_twice():
    traces = []

    @functools.partial(jax.jit, static_argnums=0)
    def count(visibility, q, k):
        traces.append(visibility)
        return visibility(q, k).sum()

    q, k = fields_for(4, 4, document=[0, 0, 1, 1])
    for documents in ([0, 0, 1, 1], [0, 1, 1, 1]):
        q["document"] = k["document"] = np.array(documents)
        got = count(causal() & (same_document() | window(2)), q, k)
        assert got == sum(i >= j and (documents[i] == documents[j] or i - j < 2) for i in range(4) for j in range(4))
    assert len(traces) == 1
    count(causal() & (same_document() | window(3)), q, k)
    assert len(traces) == 2 and causal() == causal("index") != causal(strict=True)


def test_a_visibility_of_a_slice_is_the_slice_of_the_visibility():
    visibility = (causal() & same("group")) | window(2)
    q, k = fields_for(6, 8, group=np.arange(16).reshape(2, 8) % 3)
    whole = visibility(q, k)
    for i, j in ((0, 0), (2, 3), (3, 5)):
        tile = visibility({n: cut(f, i, 3) for n, f in q.items()}, {n: cut(f, jnp.asarray(j), 3) for n, f in k.items()})
        np.testing.assert_array_equal(tile, whole[:, :, i : i + 3, j : j + 3])


def test_layers_see_by_their_own_choice_also_when_the_layer_is_traced():
    visibility = per_layer(causal(), causal(), full()) & window(3)
    q, k = fields_for(4, 4)
    expected = [(causal() & window(3))(q, k), (causal() & window(3))(q, k), window(3)(q, k)]
    _, scanned = jax.lax.scan(lambda carry, layer: (carry, visibility(q, k, layer)), None, jnp.arange(6))
    for layer in range(6):
        np.testing.assert_array_equal(visibility(q, k, layer), expected[layer % 3])
        np.testing.assert_array_equal(scanned[layer], expected[layer % 3])
    assert visibility.layered and not window(3).layered
    with pytest.raises(ConfigError, match="pass layer="):
        visibility(q, k)


def test_many_layers_of_two_kinds_are_two_branches():
    q, k = fields_for(4, 4)
    patterns = [causal(), full()], [causal()] * 23 + [full()]
    sizes = [len(jax.make_jaxpr(functools.partial(per_layer(*pattern), q, k))(0).eqns) for pattern in patterns]
    assert sizes[0] == sizes[1]


def test_heads_see_by_their_own_choice():
    visibility = per_head(causal(), full(), causal()) & window(2)
    q, k = fields_for(4, 4, document=np.array([[0, 0, 1, 1], [0, 1, 2, 3]]))
    seen = (visibility & same_document())(q, k)
    assert seen.shape == (2, 3, 4, 4) and visibility.heads == 3
    for head, choice in enumerate((causal(), full(), causal())):
        np.testing.assert_array_equal(seen[:, head], (choice & window(2) & same_document())(q, k)[:, 0])
    with pytest.raises(ConfigError, match="2 and 3 heads"):
        visibility & per_head(full(), causal())
    with pytest.raises(ConfigError, match="one head"):
        per_head(visibility, full())


def test_soft_is_its_ends_at_zero_and_one_and_a_mixture_between():
    q, k = fields_for(4, 4, alpha=0.25)
    lower = np.tri(4, dtype=bool)[None, None]
    visibility = soft(causal(), full())
    np.testing.assert_allclose(visibility.bias(q, k), np.where(lower, 0.0, np.log(0.25)), rtol=1e-6, atol=1e-7)
    for alpha, end in ((0.0, causal()), (1.0, full())):
        fields = {"alpha": jnp.full(4, alpha)}
        np.testing.assert_array_equal(visibility.bias(q | fields, k), jnp.broadcast_to(end.bias(q, k), (1, 1, 4, 4)))
        np.testing.assert_array_equal(visibility(q | fields, k), jnp.broadcast_to(end(q, k), (1, 1, 4, 4)))
    with pytest.raises(ConfigError, match=r"alpha is 1.5"):
        soft(causal(), full(), 1.5)


def test_the_slope_in_alpha_is_finite_also_where_nothing_is_seen():
    q, k = fields_for(4, 4)

    def mass(alpha):
        bias = (soft(causal(), full()) & window(3)).bias(q | {"alpha": jnp.broadcast_to(alpha, (4,))}, k)
        return jnp.where(bias == -jnp.inf, 0.0, jnp.exp(bias)).sum()

    # three pairs in a window of 3 above the diagonal at distance 1, two at distance 2
    np.testing.assert_allclose(jax.grad(mass)(0.5), 5.0, rtol=1e-6)
    assert jnp.isfinite(jax.grad(mass)(0.0))


def test_weights_follow_the_logic_of_probabilities():
    a, b = soft(~full(), full(), 0.25), soft(~full(), full(), 0.5)
    q, k = fields_for(1, 1)
    for visibility, weight in ((a & b, 0.125), (a | b, 0.625), (~a, 0.75), (a & full(), 0.25), (a | full(), 1.0), (~(a & ~full()), 1.0)):
        assert visibility.weight(q, k).item() == weight
    assert not (a & full()).hard and (causal() | full()).hard


def test_a_learned_gate_is_hard_forward_and_a_sigmoid_backward():
    """Values are exactly 0 and 1; closed gates get a gradient through the weight; nodes outside the logits are never seen."""
    visibility = causal() & learned()
    node = np.array([0, 2, 1, 5])
    logits = jax.random.normal(jax.random.key(0), (2, 4, 3)) * 3
    q, k = fields_for(4, 4, node=node, gate=(logits, np.zeros((1, 4, 3))))
    expected = np.array([[[j <= i and node[j] < 3 and logits[b, i, node[j]] > 0 for j in range(4)] for i in range(4)] for b in range(2)])
    np.testing.assert_array_equal(visibility.weight(q, k)[:, 0], expected.astype(np.float32))
    np.testing.assert_array_equal(visibility(q, k)[:, 0], expected)

    slope = jax.grad(lambda gate: visibility.weight(q | {"gate": gate}, k).sum())(logits)
    p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    seen_later = np.array([[i >= int(np.flatnonzero(node == n)[0]) for n in range(3)] for i in range(4)])
    np.testing.assert_allclose(slope, p * (1 - p) * seen_later, atol=1e-6)
    through_log = jax.grad(lambda gate: jnp.where(expected[:, None], visibility.bias(q | {"gate": gate}, k), 0.0).sum())(logits)
    assert jnp.isfinite(through_log).all()
    assert visibility.gated and not visibility.hard and visibility.fields == {"index", "gate", "node"}


def test_queries_that_are_not_the_keys_are_aligned_at_the_end():
    q, k = fields_for(2, 5, document=[0, 0, 1, 1, 2], alpha=0.5, frame=([7, 8], [1, 2, 3, 4, 5]))
    assert q["index"].tolist() == [3, 4] and q["document"].tolist() == [1, 2] and q["frame"].tolist() == [7, 8]
    assert isinstance(q["index"], np.ndarray) and k["alpha"].shape == (5,)
    with pytest.raises(ConfigError, match="query field 'frame' has shape .3,.*each of 2"):
        fields_for(2, 5, frame=([1, 2, 3], [1, 2, 3, 4, 5]))
    with pytest.raises(ConfigError, match="key field 'frame'"):
        fields_for(2, 5, frame=[1, 2])


def test_a_field_of_another_length_or_form_is_named():
    q, k = fields_for(3, 3)
    with pytest.raises(ConfigError, match=r"field 'document' has shape \(2,\); with 3 tokens"):
        same_document()(q | {"document": np.zeros(2)}, k | {"document": np.zeros(3)})
    with pytest.raises(ConfigError, match=r"the queries have no field 'document'; .*there are: index"):
        same_document()(q, k)
    with pytest.raises(ConfigError, match=r"field 'gate' .* form \[b, t, n\]"):
        learned()(q | {"gate": np.zeros(3)}, k | {"node": np.zeros(3, int)})


def test_a_user_defined_rule_joins_the_algebra():
    @predicate
    def nearer_than_own_weight(q: Side, k: Side, scale: float = 1.0) -> Array:
        return jnp.abs(q["index"] - k["index"]) < scale * q["weight"]

    visibility = causal() & nearer_than_own_weight(2.0)
    assert isinstance(visibility, Visibility) and visibility.fields == {"index", "weight"}
    assert visibility.show(3, weight=[0.5, 1.0, 1.5]) == "#..\n##.\n###"
    assert repr(visibility).endswith("& nearer_than_own_weight(scale=2.0))")


def test_what_a_visibility_is_made_of_can_be_read():
    assert repr(~(causal() | dag(Dag(("a",))))).startswith("~(causal(field='index', strict=False) | _dag(graph=Dag(")
    assert per_head(causal(), full()).show(2) == "#.  ##\n##  ##"
