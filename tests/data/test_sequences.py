"""Tasks do what their equations say, and their best losses are attained and not beaten."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

from causal_gen.data.sequences import MARK, CopyConfig, MarkovConfig, RecallConfig, ReversalConfig

TASKS = [
    CopyConfig(size=50, test_size=20, symbols=5, items=4),
    RecallConfig(size=50, test_size=20, keys=6, values=3, pairs=5, queries=3),
    MarkovConfig(size=50, test_size=20, items=9),
    ReversalConfig(size=50, test_size=20, letters=3, alphabet=5),
]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_batches_have_the_declared_shapes_and_ranges(task):
    source = task.make()
    batch = source.gather("test", np.array([3, 1, 3]))
    assert set(batch) == set(source.entries)
    for name, entry in source.entries.items():
        assert batch[name].shape == (3, *entry.shape) and str(batch[name].dtype) == entry.dtype
    everything = source.rows["train"]["tokens"]
    assert everything.min() >= 0 and everything.max() < source.entries["tokens"].vocabulary == task.tokens
    np.testing.assert_array_equal(task.make().rows["train"]["tokens"], everything)
    assert source.stats()["tokens"]["best_loss"] >= 0 and source.truth("test", np.arange(1), None) is None


def test_a_copy_is_a_copy():
    tokens, mask = TASKS[0].make().rows["train"].values()
    np.testing.assert_array_equal(tokens[:, :4], tokens[:, 5:])
    assert (tokens[:, 4] == MARK).all() and (tokens[:, :4] > 0).all() and (mask == [0, 0, 0, 0, 0, 1, 1, 1, 1]).all()


def test_recall_asks_what_was_told():
    """Each scored token is the value that the key before it had among the pairs, and no key is told or asked twice."""
    tokens, mask = TASKS[1].make().rows["train"].values()
    for row, scored in zip(tokens, mask, strict=True):
        told = dict(zip(row[:10:2], row[1:10:2], strict=True))
        assert len(told) == 5 and row[10] == MARK and len(set(row[11::2])) == 3
        assert [told[key] for key in row[11::2]] == list(row[12::2])
        np.testing.assert_array_equal(np.flatnonzero(scored), [12, 14, 16])
        assert all(1 <= key <= 6 for key in told) and all(7 <= value <= 9 for value in told.values())


def test_every_fact_is_trained_forwards_and_asked_backwards_only_where_it_is_new():
    task = TASKS[3]
    source = task.make()
    train, test = (source.rows[split]["tokens"] for split in ("train", "test"))
    assert (len(train), len(test)) == (80, 20)
    facts = {tuple(map(tuple, fact)) for fact in task.facts.tolist()}
    names = [name for fact in facts for name in fact]
    assert len(facts) == 50 and len(set(names)) == 100
    said = {1: set(), 2: set()}
    for row in train.tolist():
        assert row[4] == MARK
        said[row[0]].add((tuple(row[1:4]), tuple(row[5:])))
    assert said[1] == facts and len(said[2]) == 30 and {(a, b) for b, a in said[2]} <= facts
    asked = {(tuple(row[1:4]), tuple(row[5:])) for row in test.tolist()}
    assert (test[:, 0] == 2).all() and not asked & said[2] and {(a, b) for b, a in asked} <= facts
    np.testing.assert_array_equal(np.flatnonzero(source.rows["test"]["loss_mask"][0]), [5, 6, 7])


def markov(**fields):
    return MarkovConfig(**{"size": 1, "test_size": 1, "states": 2, "items": 6, "alpha": 0.7, "scored": "all", "seed": 4, **fields})


@pytest.mark.parametrize("graph", ["random", "chain"])
def test_the_best_prediction_is_the_mean_over_all_transition_laws(graph):
    """The product of eq. (2) is the integral of (1) over the Beta law of each row of pi, and sums to 1 over all sequences."""
    task = markov(graph=graph, roots=0.3)
    parents = task.parents
    assert (parents < np.arange(6)).all() and (graph == "random" or (parents == np.arange(6) - 1).all())
    every = np.array(list(itertools.product((0, 1), repeat=6)))
    found = task.predictive(every).prod(1)
    assert found.sum() == pytest.approx(1.0)
    for row in (5, 22, 63):
        tokens, expected = every[row], 1.0
        for state in (0, 1):
            after = [tokens[i] for i in range(6) if parents[i] >= 0 and tokens[parents[i]] == state]
            ones, zeros = after.count(1), after.count(0)
            # the Beta density has integrable poles at 0 and 1
            expected *= quad(lambda p, o=ones, z=zeros: p**o * (1 - p) ** z * stats.beta.pdf(p, 0.7, 0.7), 0, 1, points=[0.5], limit=200)[0]
        expected *= 0.5 ** int((parents < 0).sum())
        assert found[row] == pytest.approx(expected, rel=1e-3)


def test_chains_follow_their_transition_law_and_graph():
    """Two steps from a root agree with the Dirichlet's chance (alpha + 1) / (S alpha + 1); nearly always where pi is nearly a function."""
    for alpha, agree in ((0.5, 0.6), (1e-3, 1.001 / 1.003)):
        task = markov(states=3, items=24, alpha=alpha, size=3000, roots=0.3, scored="last", seed=1)
        tokens, parents = task.draw("train")[0], task.parents
        assert parents[-2:].tolist() == [-1, 22] and parents[0] == -1 and len(set(parents.tolist())) > 4
        children = [i for i in range(24) if parents[i] >= 0]
        siblings = [(i, j) for i, j in itertools.combinations(children, 2) if parents[i] == parents[j] and parents[parents[i]] < 0]
        found = [(tokens[:, i] == tokens[:, j]).mean() for i, j in siblings]  # of a root, so that the state says nothing about its own row
        assert siblings and np.mean(found) == pytest.approx(agree, abs=0.02)
        np.testing.assert_allclose(np.bincount(tokens[:, 22], minlength=3) / 3000, 1 / 3, atol=0.03)


def test_the_best_loss_is_what_its_predictor_loses_and_others_lose_more():
    task = markov(states=4, items=24, alpha=0.5, test_size=2000, graph="chain")
    source = task.make()
    tokens = source.rows["test"]["tokens"]
    best = source.best("test", np.arange(2000))
    smoothed = [MarkovConfig(**{**task.__dict__, "alpha": alpha}).best(tokens).mean() for alpha in (0.05, 0.25, 1.0, 5.0)]
    assert all(other > best.mean() + 0.01 for other in smoothed) and best.mean() < 24 * math.log(4)
    assert source.stats()["tokens"]["best_loss"] == pytest.approx(best.mean() / 24)
    last = MarkovConfig(**{**task.__dict__, "scored": "last"})
    np.testing.assert_allclose(last.best(tokens), -np.log(last.predictive(tokens)[:, -1]))


def test_a_longer_draw_begins_with_the_shorter():
    for task in TASKS[:3]:
        more = type(task)(**{**task.__dict__, "size": 90})
        np.testing.assert_array_equal(more.make().rows["train"]["tokens"][:50], task.make().rows["train"]["tokens"])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: RecallConfig(pairs=20), "pairs=20 need as many distinct keys, there are 16"),
        (lambda: RecallConfig(queries=9), "queries=9 ask more than the 8 pairs"),
        (lambda: ReversalConfig(test_size=2000), "test_size=2000 asks more facts than the 1000"),
        (lambda: ReversalConfig(letters=2), r"16\^2 names are too few for 1000 facts"),
        (lambda: ReversalConfig(letters=40), "cannot be numbered"),
    ],
)
def test_what_cannot_be_drawn_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
