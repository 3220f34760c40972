"""Laws of layouts: what goes in comes out, slots hold what a slow re-arrangement of lists puts there, and masks fit the maps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causal_gen.structure.layout import (
    Layout,
    delay,
    double,
    interleave,
    pack,
    permute_segments,
    pseudo_mask,
    rotate_delayed,
    rotate_spans,
)  # fmt: skip
from causal_gen.structure.masks import causal, same_document, skip_causal
from causal_gen.structure.visibility import fields_for
from causal_gen.types import ConfigError

FEW = settings(max_examples=40, deadline=None, database=None, derandomize=True)
LENGTHS = st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any)


def comes_back(layout):
    """inverse(apply(x)) == x with features behind the tokens, for floats and integers; real slots and tokens are one to one."""
    source, place = np.asarray(layout.source), np.asarray(layout.place)
    x = np.arange(place.size * 2, dtype=np.float32).reshape(*place.shape, 2)
    for array in (x, x[..., 0].astype(np.int32)):
        y = layout.apply(array, fill=-7)
        assert y.shape == (*source.shape, *array.shape[place.ndim :]) and y.dtype == array.dtype
        np.testing.assert_array_equal(layout.inverse(y), array)
    np.testing.assert_array_equal(source.reshape(-1)[place.reshape(-1)], np.arange(place.size))
    assert source.min() >= -max(layout.fillers, 0) and (np.asarray(layout.loss).reshape(source.shape) <= 1).all()
    assert all(np.shape(field) == source.shape for field in layout.fields.values())


@FEW
@given(LENGTHS, st.integers(1, 8), st.booleans())
def test_packing_wastes_nothing_or_cuts_nothing(lengths, size, whole):
    layout = pack(lengths, size, whole=whole)
    comes_back(layout)
    document, position, real = layout.fields["document"], layout.fields["position"], layout.source >= 0
    total = sum(lengths)
    if not whole:
        assert layout.source.shape[0] == -(-total // size) and real.reshape(-1)[:total].all()
    for number, length in enumerate(lengths):
        rows, _ = np.nonzero(document == number)
        assert sorted(position[document == number].tolist()) == list(range(length))
        if whole and length <= size:
            assert len(set(rows.tolist())) <= 1
    for row in range(document.shape[0]):
        for s in range(size):
            follows = s > 0 and real[row, s] and document[row, s - 1] == document[row, s]
            assert layout.loss[row, s] == float(follows)
            if follows:
                assert position[row, s] == position[row, s - 1] + 1


def test_best_fit_fills_the_row_with_the_least_room():
    layout = pack([3, 5, 2, 4], 7, whole=True)
    assert layout.fields["document"].tolist() == [[1, 1, 1, 1, 1, 2, 2], [3, 3, 3, 3, 0, 0, 0]]


def test_packed_documents_are_causal_and_blind_to_each_other():
    layout = pack([3, 2], 6)
    fields = {name: field[0] for name, field in layout.fields.items()}
    assert (causal() & same_document()).show(5, **{"document": fields["document"][:5]}) == "#....\n##...\n###..\n...#.\n...##"
    assert layout.loss.tolist() == [[0, 1, 1, 0, 1, 0]]


@st.composite
def spans(draw):
    t = draw(st.integers(1, 12))
    bounds = sorted(draw(st.lists(st.integers(0, t), min_size=0, max_size=6)))
    bounds = bounds[: len(bounds) // 2 * 2]
    return t, bounds[::2], bounds[1::2]


@FEW
@given(spans())
def test_rotation_equals_a_cut_and_paste_of_lists(case):
    t, starts, stops = case
    layout = rotate_spans(t, np.array(starts, np.int32), np.array(stops, np.int32))
    comes_back(layout)
    kept, moved, at = [], [], 0
    for j, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        kept += [*range(at, start), f"<{j}>"]
        moved += [f"<{j}>", *range(start, stop)]
        at = stop
    expected = [*kept, *range(at, t), *moved]
    fill = 100 + np.arange(len(starts))
    got = layout.apply(jnp.arange(t), fill=fill if starts else 0)
    assert got.tolist() == [100 + int(entry[1:-1]) if isinstance(entry, str) else entry for entry in expected]
    assert layout.loss.tolist() == [float(not isinstance(entry, str)) for entry in expected]
    segments = [0] * (t - sum(stops) + sum(starts) + len(starts))
    segments += [j + 1 for j, (start, stop) in enumerate(zip(starts, stops, strict=True)) for _ in range(stop - start + 1)]
    assert layout.fields["segment"].tolist() == segments
    assert [p for p, entry in zip(layout.fields["position"].tolist(), expected, strict=True) if not isinstance(entry, str)] == [
        entry for entry in expected if not isinstance(entry, str)
    ]


def test_rotation_of_a_batch_of_traced_spans_is_that_of_each():
    starts, stops = jnp.array([[1, 4], [0, 0]]), jnp.array([[3, 6], [0, 7]])
    x = jnp.arange(14).reshape(2, 7)

    @jax.jit
    def both(x, starts, stops):
        layout = jax.vmap(lambda a, b: rotate_spans(7, a, b))(starts, stops)
        y = jax.vmap(Layout.apply, (0, 0, None))(layout, x, jnp.array([-1, -2]))
        return y, jax.vmap(Layout.inverse)(layout, y)

    y, back = both(x, starts, stops)
    np.testing.assert_array_equal(back, x)
    for row in range(2):
        np.testing.assert_array_equal(y[row], rotate_spans(7, starts[row], stops[row]).apply(x[row], np.array([-1, -2])))


@pytest.mark.parametrize(("starts", "stops"), [([3], [2]), ([0, 2], [3, 4]), ([-1], [2]), ([2], [9])])
def test_spans_that_overlap_or_leave_the_sequence_are_refused(starts, stops):
    with pytest.raises(ConfigError, match="rotate_spans: spans .* of 8 tokens"):
        rotate_spans(8, np.array(starts), np.array(stops))


@FEW
@given(st.integers(1, 6), st.lists(st.integers(0, 4), min_size=1, max_size=4))
def test_a_delayed_codebook_is_the_same_stream_later(t, offsets):
    layout = delay(t, offsets)
    comes_back(layout)
    x = np.arange(t * len(offsets)).reshape(t, len(offsets))
    y = layout.apply(x, fill=-1)
    for c, late in enumerate(offsets):
        assert y[:, c].tolist() == [-1] * late + x[:, c].tolist() + [-1] * (max(offsets) - late)
    np.testing.assert_array_equal(layout.loss, (y >= 0).astype(np.float32))


def test_under_a_delay_codebook_k_comes_after_the_lower_ones_of_its_time():
    place = delay(5, (0, 1, 2)).place // 3  # the step of each code
    assert (place[:, 1:] > place[:, :-1]).all() and (place[1:, 0] > place[:-1, 0]).all()


def rotated_and_delayed(t, offsets, spans):
    """VoiceCraft with lists: pieces between fillers, each delayed by itself."""
    inside = [i for a, b in spans for i in range(a, b)]
    pieces, last = [], 0
    for number, (a, b) in enumerate([*spans, (t, t)]):
        pieces += [[i for i in range(last, a) if i not in inside]] + ([number] if number < len(spans) else [])
        last = b
    for number, (a, b) in enumerate(spans):
        pieces += [number, list(range(a, b))]
    rows = []
    for piece in pieces:
        if isinstance(piece, int):
            rows.append([-1 - piece] * len(offsets))
            continue
        late = [[-1 - len(spans)] * len(offsets) for _ in range(len(piece) + max(offsets))]
        for place, time in enumerate(piece):
            for book, offset in enumerate(offsets):
                late[place + offset][book] = time * len(offsets) + book
        rows += late
    return np.array(rows)


@FEW
@given(st.integers(1, 12), st.lists(st.integers(0, 3), min_size=1, max_size=4), st.lists(st.integers(0, 12), min_size=0, max_size=6))
def test_spans_of_delayed_codebooks_move_as_lists_do_and_come_back(t, offsets, bounds):
    bounds = sorted(min(bound, t) for bound in bounds[: len(bounds) // 2 * 2])
    starts, stops = np.array(bounds[::2], np.int32), np.array(bounds[1::2], np.int32)
    layout = rotate_delayed(t, offsets, starts, stops)
    np.testing.assert_array_equal(layout.source, rotated_and_delayed(t, offsets, list(zip(starts, stops, strict=True))))
    comes_back(dataclasses.replace(layout, fields={}))
    first = np.argmin(offsets)
    if offsets[first] == 0:
        np.testing.assert_array_equal(layout.fields["position"][layout.place[:, first] // len(offsets)], np.arange(t))
    traced = jax.jit(lambda a, b: rotate_delayed(t, offsets, a, b))(starts, stops)
    np.testing.assert_array_equal(traced.source, layout.source)
    np.testing.assert_array_equal(traced.place, layout.place)
    if max(offsets) == 0:
        np.testing.assert_array_equal(layout.source[:, 0] >= 0, rotate_spans(t, starts, stops).source >= 0)
    if not len(starts):
        np.testing.assert_array_equal(layout.source, delay(t, offsets).source)


def test_rotation_then_delay_comes_back():
    """VoiceCraft: spans of frames move to the end, then the codebooks are delayed."""
    x = jax.random.randint(jax.random.key(0), (9, 4), 0, 50)
    rotate = rotate_spans(9, np.array([2, 6]), np.array([4, 7]))
    late = delay(13, (0, 1, 2, 3))
    y = late.apply(rotate.apply(x, fill=np.array([[-1] * 4, [-2] * 4])), fill=-3)
    assert y.shape == (16, 4)
    np.testing.assert_array_equal(rotate.inverse(late.inverse(y)), x)


@FEW
@given(st.lists(st.integers(0, 3), min_size=1, max_size=8).map(sorted))
def test_doubling_shows_the_noisy_copy_the_clean_past(block):
    layout = double(np.array(block))
    comes_back(layout)
    t = len(block)
    assert layout.apply(np.arange(t)).tolist() == [*range(t)] * 2 and layout.loss.tolist() == [0] * t + [1] * t
    q, k = fields_for(2 * t, 2 * t, **layout.fields)
    seen = np.asarray(skip_causal()(q, k))[0, 0]
    for i in range(t):
        assert [block[j] < block[i] for j in range(t)] == seen[t + i, :t].tolist()
        assert [block[j] == block[i] for j in range(t)] == seen[t + i, t:].tolist()


def test_pseudo_masks_see_the_rest_and_what_was_predicted_before():
    """UniLMv2: tokens 1 and 3 are predicted together, then 4; their masks see neither themselves nor what comes later."""
    layout = pseudo_mask(5, np.array([1, 3, 4]), np.array([1, 1, 2]))
    comes_back(layout)
    x = np.array([10, 11, 12, 13, 14])
    assert layout.apply(x, fill=-1).tolist() == [10, 11, 12, 13, 14, -1, -1, -1]
    assert x[layout.fields["position"]][layout.loss > 0].tolist() == [11, 13, 14]
    picture = "#.#.....\n####....\n#.#.....\n####....\n#####...\n#.#..##.\n#.#..##.\n####...#"
    assert skip_causal().show(8, **{name: layout.fields[name] for name in ("block", "noisy")}) == picture


def test_pseudo_masks_of_a_tail_are_sequence_to_sequence():
    layout = pseudo_mask(5, np.arange(3, 5))
    assert skip_causal().show(7, **layout.fields) == "###....\n###....\n###....\n####...\n#####..\n###..#.\n####..#"
    traced = jax.jit(lambda targets: pseudo_mask(5, targets))(jnp.arange(3, 5))
    jax.tree.map(np.testing.assert_array_equal, (traced.source, traced.place, traced.fields), (layout.source, layout.place, layout.fields))


@FEW
@given(st.lists(st.integers(0, 3), min_size=1, max_size=10), st.permutations(range(4)))
def test_segments_change_places_and_keep_their_inner_order(segment, order):
    layout = permute_segments(np.array(segment), np.array(order))
    comes_back(layout)
    expected = [i for wanted in order for i, own in enumerate(segment) if own == wanted]
    assert layout.apply(np.arange(len(segment))).tolist() == expected == layout.fields["position"].tolist()
    traced = jax.jit(permute_segments)(jnp.array(segment), jnp.array(order))
    np.testing.assert_array_equal(traced.source, layout.source)


@FEW
@given(st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(any), st.tuples(st.integers(1, 3), st.integers(1, 3)))
def test_two_streams_take_turns(lengths, turns):
    layout = interleave(lengths, turns)
    comes_back(layout)
    left = [[("a", i) for i in range(lengths[0])], [("b", i) for i in range(lengths[1])]]
    expected, turn = [], 0
    while left[0] or left[1]:
        expected += left[turn][: turns[turn]]
        left[turn] = left[turn][turns[turn] :]
        turn = 1 - turn
    assert [("ab"[s], p) for s, p in zip(layout.fields["stream"], layout.fields["position"], strict=True)] == expected


def test_host_arrays_stay_on_the_host():
    for layout in (
        pack([3, 4], 4),
        delay(4, (0, 1)),
        double(np.arange(4)),
        interleave((2, 2)),
        permute_segments(np.zeros(4, int), np.arange(1)),
    ):
        leaves = jax.tree.leaves((layout, layout.apply(np.zeros(layout.place.shape)), layout.inverse(np.zeros(layout.source.shape))))
        assert all(isinstance(leaf, np.ndarray) for leaf in leaves)


def test_mistakes_are_named():
    layout = pack([3, 4], 4)
    for wrong, message in (
        (lambda: layout.apply(np.zeros(6)), r"arranges \[7\] tokens, the array has shape \[6\]"),
        (lambda: layout.inverse(np.zeros(8)), r"has \[2, 4\] slots, the array has shape \[8\]"),
        (lambda: layout.apply(np.zeros(7), fill=np.zeros(2)), r"fill has shape \[2\].*\[1\]"),
        (lambda: pack([], 4), "both need to be positive"),
        (lambda: pack([3], 0), "both need to be positive"),
        (lambda: delay(4, []), "offsets"),
        (lambda: rotate_delayed(4, (0, -1), np.array([1]), np.array([2])), "give each codebook one of 0 or more"),
        (lambda: interleave((2, 2), (0, 1)), "at least 1 token"),
    ):
        with pytest.raises(ConfigError, match=message):
            wrong()
