"""Questions over documents and triplets: answers followed and counted by hand."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from causal_gen.data.references import ReferencesConfig
from causal_gen.data.triplets import TripletsConfig, count

TASK = ReferencesConfig(size=60, test_size=30, values=5, each=2, hops=2, questions=3)  # documents 0 .. 5, values 6 .. 10


def follow(row: list[int], place: int) -> list[int]:
    """The places from a document to the one that gives a value, and the value."""
    path = [place]
    while (said := row[path[-1]]) < 6:
        path.append(said)
    return [*path, said]


@pytest.mark.parametrize("order", ["random", "forwards", "backwards"])
def test_every_question_is_answered_by_following_references(order):
    source, depths = dataclasses.replace(TASK, order=order, test_order=order).make(), {}
    for split in ("train", "test"):
        tokens, mask = source.rows[split].values()
        np.testing.assert_array_equal(np.flatnonzero(mask[0]), [7, 9, 11])
        paths = [follow(row, row[q]) for row in tokens.tolist() for q in (6, 8, 10)]
        assert [path[-1] for path in paths] == tokens[:, 7::2].reshape(-1).tolist()
        depths[split] = {len(path) - 2 for path in paths}
        steps = np.concatenate([np.diff(follow(row, place)[:-1]) for row in tokens.tolist() for place in range(6)])
        ahead = {True, False} if order == "random" else {order == "backwards"}
        assert set((steps > 0).tolist()) == ahead and sorted(map(len, (follow(tokens[0].tolist(), i) for i in range(6)))) == [
            2,
            2,
            3,
            3,
            4,
            4,
        ]
    assert depths == {"train": {0, 1, 2}, "test": {2}}


def test_the_order_of_documents_changes_names_and_nothing_else():
    rows = [dataclasses.replace(TASK, test_order=order).make().rows["test"]["tokens"] for order in ("forwards", "backwards")]
    np.testing.assert_array_equal(rows[0][:, 7::2], rows[1][:, 7::2])
    values = [np.sort(np.where(row[:, :6] < 6, 0, row[:, :6]), 1) for row in rows]
    np.testing.assert_array_equal(*values)


def test_fields_say_what_the_slots_hold():
    """Slot 0 is the start, slot i holds token i - 1: 6 documents, then questions and answers; the last answer is in no slot."""
    batch = TASK.make().gather("test", np.arange(2))
    assert batch["prefix"][1].tolist() == [1] * 7 + [0] * 5
    assert batch["segment"][1].tolist() == [0] * 7 + [1, -1, 2, -1, 3]


def by_hand(row, last: int, m: int) -> int:
    return sum((a + b + last) % m == 0 for a, b in itertools.combinations(row, 2))


def test_triplets_are_counted_as_by_hand():
    rng = np.random.default_rng(0)
    for k, m in ((2, 2), (5, 3), (9, 7), (12, 4)):
        rows = rng.integers(0, m + 2, (20, k))
        np.testing.assert_array_equal(count(rows, rows[:, -1:], m), [by_hand(row, row[-1], m) for row in rows])


def test_answers_follow_from_all_before_them_and_are_what_is_scored():
    source = TripletsConfig(size=30, test_size=5, symbols=6, items=7, answers=3).make()
    tokens, mask = source.rows["train"].values()
    assert tokens.shape == (30, 10) and (mask == [0] * 7 + [1] * 3).all() and (tokens[:, :7] < 6).all()
    for k in (7, 8, 9):
        np.testing.assert_array_equal(tokens[:, k], [by_hand(row[:k], row[k - 1], 6) for row in tokens.tolist()])
