"""Tagging: labels follow the rule, the best causal accuracy is what counting finds, and longer draws begin with shorter ones."""

import numpy as np

from causal_gen.data.labelled import TaggingConfig

CONFIG = TaggingConfig(size=4_000, test_size=50)


def test_a_names_label_is_the_cue_that_comes_after_it_in_its_stretch():
    drawn = CONFIG.draw("test")
    tokens, labels = (drawn[name].reshape(-1, CONFIG.items, CONFIG.span) for name in ("tokens", "labels"))
    is_name = (tokens >= CONFIG.cues) & (tokens < CONFIG.cues + CONFIG.entities)
    is_cue = tokens < CONFIG.cues
    assert (is_name.sum(-1) == 1).all() and (is_cue.sum(-1) == 1).all() and (is_name.argmax(-1) < is_cue.argmax(-1)).all()
    np.testing.assert_array_equal(labels.max(-1), 1 + (tokens * is_cue).sum(-1))
    np.testing.assert_array_equal(labels != 0, is_name)


def test_the_best_causal_accuracy_is_that_of_the_commonest_cue_of_each_name():
    """Against counts over 20,000 names; a lookup of the true cue is always right, so the gap is the right context's."""
    tokens, _, labels = CONFIG.draw("train").values()
    names, cues = tokens[labels > 0] - CONFIG.cues, labels[labels > 0] - 1
    counts = np.zeros((CONFIG.entities, CONFIG.cues))
    np.add.at(counts, (names, cues), 1)
    best = counts.max(1).sum() / counts.sum()
    assert abs(best - CONFIG.best_causal) < 0.02 and CONFIG.best_causal < 0.8


def test_splits_differ_and_a_longer_draw_begins_with_the_shorter_one():
    source = CONFIG.make()
    train, test = (source.gather(split, np.arange(50)) for split in ("train", "test"))
    assert (train["tokens"] != test["tokens"]).any()
    np.testing.assert_array_equal(TaggingConfig(size=10).draw("train")["tokens"], train["tokens"][:10])
    assert test["tokens"].shape[1:] == source.entries["tokens"].shape
