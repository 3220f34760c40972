"""Films: the answer lies in the order, and in the order alone."""

import numpy as np
import pytest

from causal_gen.data.film import ArrowConfig, SoundtrackConfig

ARROW = ArrowConfig(size=400, test_size=20, frames=8, features=6, noise=0.0)
SOUND = SoundtrackConfig(size=200, test_size=20, frames=12, features=9, noise=0.0, sights=3, window=3)


@pytest.mark.parametrize("task", [ARROW, SOUND], ids=lambda task: task.name)
def test_batches_have_the_declared_entries_and_are_drawn_again_alike(task):
    source = task.make()
    batch = source.gather("test", np.array([3, 1, 3]))
    assert set(batch) == set(source.entries)
    for name, entry in source.entries.items():
        assert batch[name].shape == (3, *entry.shape) and str(batch[name].dtype) == entry.dtype
    np.testing.assert_array_equal(task.make().rows["test"]["film"], source.rows["test"]["film"])
    assert (
        source.stats()["labels"]["vocabulary"] == source.entries["labels"].vocabulary and source.truth("test", np.arange(1), None) is None
    )


def test_a_film_backwards_passes_the_stages_in_the_other_order():
    """Against the scene, every frame is one of four stages, and their order tells the label."""
    film, label = ARROW.draw("train").values()
    paths = {forwards: np.round((film - film[:, :1])[label == forwards], 4) for forwards in (0, 1)}
    assert 0.4 < label.mean() < 0.6
    first, last = np.round(film[:, 0] - film[:, -1], 3), label == 1
    assert len(np.unique(first[last], axis=0)) == len(np.unique(first[~last], axis=0)) == 1
    np.testing.assert_allclose(first[last][0], -first[~last][0], atol=1e-2)
    steps = {forwards: np.unique(paths[forwards].reshape(-1, 6), axis=0) for forwards in (0, 1)}
    assert len(steps[0]) == len(steps[1]) == 4


def test_the_frames_of_a_film_as_a_set_say_nothing_of_its_direction():
    film, label = ARROW.draw("train").values()
    mean = (film - film.mean(1, keepdims=True)).std(1)
    gap = mean[label == 1].mean(0) - mean[label == 0].mean(0)
    np.testing.assert_allclose(gap, 0, atol=4 * mean.std(0).max() / 10)


def test_the_answer_is_the_sight_last_seen_before_the_noise_is_heard():
    film, label = SOUND.draw("train").values()
    pictures, sounds = film[:, 0::2], film[:, 1::2]
    assert (pictures[..., -1] == 0).all() and (sounds[..., -1] == 1).all()
    seen, heard = (np.abs(part[..., :-1]).sum(-1) > 0 for part in (pictures, sounds))
    assert (seen.sum(1) == 3).all() and (heard.sum(1) == 1).all()
    windows = seen.reshape(-1, 4, 3).sum(-1)
    assert windows.max() == 1  # no two in one window
    found: dict[int, np.ndarray] = {}
    for row in range(len(film)):
        window = int(heard[row].argmax()) // 3
        frames = [int(f) for f in np.flatnonzero(seen[row]) if f // 3 <= window]
        sight = pictures[row, frames[-1], :-1]
        np.testing.assert_array_equal(found.setdefault(int(label[row]), sight), sight)
    assert len(found) == 8


@pytest.mark.parametrize("changes", [{"frames": 9}, {"sights": 5}, {"kinds": 2}])
def test_a_soundtrack_without_room_is_refused(changes):
    with pytest.raises(ValueError, match="give more frames, in whole windows"):
        SoundtrackConfig(**{"frames": 8, "window": 2, "sights": 3, **changes})
