"""Pairs: without noise both texts mean the same, words say nothing without their language, and noise leaves what it should."""

import dataclasses

import numpy as np

from causal_gen.data.generated import stream
from causal_gen.data.pairs import PairsConfig

CONFIG = PairsConfig(size=64, test_size=400, concepts=24, words=8)


def meanings(config: PairsConfig, texts: np.ndarray) -> np.ndarray:
    """The concepts of each text, sorted, by the dictionary that the texts themselves imply: the inverse of each language's permutation."""
    dictionary = np.argsort(stream(config.seed, 0x9A0).random((config.languages, config.concepts)), 1)
    inverse = np.argsort(dictionary, 1)
    return np.sort(inverse[texts[:, -1:] - config.concepts, texts[:, :-1]], 1)


def test_texts_of_a_pair_mean_the_same_in_two_languages():
    plain = dataclasses.replace(CONFIG, noise=0.0)
    one, _, other = plain.draw("test").values()
    np.testing.assert_array_equal(meanings(plain, one), meanings(plain, other))
    assert (one[:, -1] != other[:, -1]).all() and (one[:, :-1] != other[:, :-1]).any()


def test_noise_replaces_its_share_of_concepts_and_no_text_says_one_twice():
    drawn = CONFIG.draw("test")
    one, other = (meanings(CONFIG, drawn[name]) for name in ("tokens", "partner"))
    assert all(len(set(row)) == CONFIG.words for row in [*one, *other])
    shared = np.mean([len(set(a) & set(b)) / CONFIG.words for a, b in zip(one, other, strict=True)])
    assert abs(shared - (0.75**2 + 0.25**2)) < 0.03  # both keep a concept, or both take the same one in its place
