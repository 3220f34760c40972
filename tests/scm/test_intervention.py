"""Interventions: what is written, and the arrays it becomes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.scm.intervention import Span, canonical, do, shift, soft
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
