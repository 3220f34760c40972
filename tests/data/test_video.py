"""Generated video and pictures as tokens: questions have the answers that are seen, fields say where a slot is, nothing else tells."""

import math

import numpy as np
import pytest

from causal_gen.data.objects import ObjectsConfig
from causal_gen.data.sequences import MARK
from causal_gen.data.video import EMPTY, VideoConfig

VIDEO = VideoConfig(size=60, test_size=20, frames=5, cells=4, actors=7, acts=3, queries=3, after=2)
OBJECTS = ObjectsConfig(size=60, test_size=20, rows=3, columns=5, objects=4, kinds=6, colours=2, clutter=3)


@pytest.mark.parametrize("task", [VIDEO, OBJECTS], ids=lambda task: task.name)
def test_batches_have_the_declared_entries_and_are_drawn_again_alike(task):
    source = task.make()
    batch = source.gather("test", np.array([3, 1, 3]))
    assert set(batch) == set(source.entries)
    for name, entry in source.entries.items():
        assert batch[name].shape == (3, *entry.shape) and str(batch[name].dtype) == entry.dtype
    tokens = source.rows["train"]["tokens"]
    assert tokens.min() == MARK and tokens.max() < task.tokens == source.entries["tokens"].vocabulary
    np.testing.assert_array_equal(task.make().rows["train"]["tokens"], tokens)


def test_the_answer_is_what_is_done_so_many_frames_later():
    tokens, mask = VIDEO.draw("train")
    assert (tokens[:, VIDEO.seen] == MARK).all()
    for row, scored in zip(tokens, mask, strict=True):
        frames = row[:20].reshape(5, 4)
        shown = [frame[frame != EMPTY] for frame in frames]
        assert all(len(frame) == 2 for frame in shown)
        actors = [int(frame[frame < 9][0]) for frame in shown]
        acts = [int(frame[frame >= 9][0]) for frame in shown]
        assert len(set(actors)) == 5
        for actor, act in row[21:].reshape(3, 2):
            assert acts[actors.index(actor) + 2] == act
        np.testing.assert_array_equal(np.flatnonzero(scored), [22, 24, 26])


def test_the_slots_of_a_video_know_their_frame_and_words_come_after_the_last():
    fields = VIDEO.fields(np.zeros((1, VIDEO.length), np.int32))
    np.testing.assert_array_equal(fields["frame"][0], [0, *np.repeat(np.arange(5), 4), *[5] * 6])
    np.testing.assert_array_equal(fields["prefix"][0], [1] * 21 + [0] * 6)


def test_names_are_those_of_the_objects_in_the_picture():
    tokens, mask = OBJECTS.draw("train")
    names, prompt = OBJECTS.names(tokens), OBJECTS.prompt(tokens)
    assert names.shape == (60, 4, 2) and (prompt[:, -1] == MARK).all() and prompt.shape[1] == 16
    for row, told in zip(tokens, names, strict=True):
        grid, seen = row[:15].reshape(3, 5), set()
        for line in grid:
            seen |= {(int(kind) + 8, int(colour) + 8) for kind, colour in zip(line, line[1:], strict=False) if 4 <= kind < 10 <= colour}
        assert {tuple(name) for name in told.tolist()} == seen and len(seen) == 4
    np.testing.assert_array_equal(np.flatnonzero(mask[0] == 0), np.arange(16))


def test_the_slots_of_a_name_are_its_own_and_count_from_the_picture():
    fields = OBJECTS.fields(np.zeros((2, OBJECTS.length), np.int32))
    np.testing.assert_array_equal(fields["group"][1], [0] * 16 + [1] * 3 + [2] * 3 + [3] * 3 + [4] * 2)
    np.testing.assert_array_equal(fields["position"][0], [*range(16), *[16, 17, 18] * 3, 16, 17])


def test_the_best_loss_counts_the_names_that_are_left():
    """Uniform over what is left to tell: 4 names apart lose 4 log 4, one after another log 4!."""
    tokens = OBJECTS.draw("test")[0]
    assert OBJECTS.best(tokens) == pytest.approx(4 * math.log(4))
    assert ObjectsConfig(objects=4, apart=False).best(tokens) == pytest.approx(math.log(24))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: VideoConfig(frames=9, actors=8), "frames=9 need as many distinct actors, there are 8"),
        (lambda: VideoConfig(frames=4, queries=4), "queries=4 ask more than the 3 frames that have one 1 later"),
        (lambda: ObjectsConfig(objects=9), "objects=9 of 24 distinct kinds in 8 places"),
    ],
)
def test_what_cannot_be_drawn_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
