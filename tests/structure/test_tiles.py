"""The tile map: exact where all is known, never hiding what may be seen, made in linear memory."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from structure.expressions import cook, random_fields, recipes

from causal_gen.structure.masks import causal, full, same_document, window
from causal_gen.structure.tiles import tiles
from causal_gen.structure.variants import learned, per_head, per_layer, soft
from causal_gen.structure.visibility import fields_for, predicate

FEW = settings(max_examples=12, deadline=None, database=None, derandomize=True)
BATCH, TQ, TK, BQ, BK = 2, 10, 13, 4, 3


def by_hand(seen):
    seen = np.broadcast_to(seen, (BATCH, 1, TQ, TK))
    starts = [(i, j) for i in range(0, TQ, BQ) for j in range(0, TK, BK)]
    return np.array([seen[:, :, i : i + BQ, j : j + BK].any() for i, j in starts]).reshape(-(-TQ // BQ), -(-TK // BK))


@FEW
@given(recipes(), st.integers(0, 10**6))
def test_the_map_is_exact_where_all_fields_are_known_and_else_hides_nothing(recipe, seed):
    visibility, _ = cook(recipe)
    q, k = fields_for(TQ, TK, **random_fields(seed, BATCH, TK))
    exact = by_hand(visibility(q, k))
    np.testing.assert_array_equal(tiles(visibility, q, k, BQ, BK), exact)
    part = ({"index": q["index"]}, {"index": k["index"]})
    assert (tiles(visibility, *part, BQ, BK) >= exact).all()


def test_documents_of_a_traced_batch_leave_what_the_index_hides():
    """Under jit and inside a scan the map is a host array: the band stays a band though the documents are not known."""
    maps = []

    @jax.jit
    def step(document):
        q, k = fields_for(16, 16, document=document)
        visibility = causal() & window(4) & same_document() & per_layer(full(), window(2))

        def layer(carry, i):
            maps.append(tiles(visibility, q, k, 4, 4, i))
            return carry + visibility(q, k, i).sum(), None

        return jax.lax.scan(layer, 0, jnp.arange(2))[0]

    step(jnp.zeros((2, 16), jnp.int32))
    band = np.tri(4, dtype=bool) & ~np.tri(4, k=-2, dtype=bool)
    assert maps and all(isinstance(found, np.ndarray) and (found == band).all() for found in maps)


def test_a_layer_or_a_constant_that_is_known_is_used():
    q, k = fields_for(8, 8)
    lower, whole = np.tri(2, dtype=bool), np.ones((2, 2), bool)
    choices = per_layer(causal(), full())
    for layer, expected in ((0, lower), (1, whole), (None, whole)):
        np.testing.assert_array_equal(tiles(choices, q, k, 4, 4, layer), expected)
    for visibility, expected in (
        (soft(causal(), full(), 0.0), lower),
        (soft(causal(), full(), 0.5), whole),
        (per_head(causal(), ~full()), lower),
        (causal() & learned(), lower),
        (~full(), ~whole),
        (~(causal() & same_document()), whole),
        (causal() & ~(full() | same_document()), ~whole),
    ):
        np.testing.assert_array_equal(tiles(visibility, q, k, 4, 4), expected)


def test_memory_of_the_map_grows_with_the_sequence_not_with_its_square():
    largest = []

    @predicate
    def near(q, k):
        seen = jnp.abs(q["index"] - k["index"]) < 8
        largest.append(seen.size)
        return seen

    q, k = fields_for(1024, 1024)
    near()(q, k)
    assert largest.pop() == 1024 * 1024
    assert tiles(near(), q, k, 64, 64).sum() == 3 * 16 - 2
    assert max(largest) == 64 * 1024
