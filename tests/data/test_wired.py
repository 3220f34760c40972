"""Sequences wired by a graph: what they are drawn from, whom they depend on, and what an intervention does."""

from __future__ import annotations

import dataclasses

import numpy as np

from causal_gen.data.wired import WiredConfig

CONFIG = WiredConfig(states=3, items=8, size=30_000, test_size=2_000, alpha=0.5)


def test_parents_are_early_enough_and_no_more_than_allowed():
    found = CONFIG.adjacency
    assert not np.triu(found, -1).any() and (found.sum(1) <= CONFIG.degree).all() and (found[2:].sum(1) >= 1).all()
    assert (found != dataclasses.replace(CONFIG, seed=1).adjacency).any()


def test_shares_of_states_given_the_parents_are_the_tables_entries_and_nothing_else_matters():
    """Counted over 30,000 rows; a wrong table row, an unused parent or another dependence fails."""
    tokens, mask = CONFIG.draw("train")
    assert mask.all()
    for i, (above, table) in enumerate(CONFIG.tables()):
        index = tokens[:, above] @ (3 ** np.arange(len(above)))
        other = tokens[:, next(j for j in range(CONFIG.items) if j != i and j not in above and j < i)] if i > len(above) else None
        for row in np.unique(index):
            for hit in [index == row] + ([] if other is None else [(index == row) & (other == s) for s in range(3)]):
                if hit.sum() > 200:
                    share = np.bincount(tokens[hit, i], minlength=3) / hit.sum()
                    assert np.abs(share - table[row]).max() < 5 * 0.5 / np.sqrt(hit.sum())


def test_the_best_loss_is_the_entropy_of_what_is_drawn():
    """The mean of -log p is what a relabelling of the states cannot reach."""
    tokens, _ = CONFIG.draw("test")
    plain = CONFIG.best(tokens)
    assert plain.shape == (2_000,) and (plain > 0).all()
    assert CONFIG.best((tokens + 1) % 3).mean() > plain.mean() + 1
    exact = np.exp(-CONFIG.best(np.stack(np.meshgrid(*[np.arange(3)] * 8, indexing="ij"), -1).reshape(-1, 8)))
    np.testing.assert_allclose(exact.sum(), 1, atol=1e-9)


def test_an_intervention_sets_one_unscored_token_at_random_and_leaves_the_test_alone():
    touched = dataclasses.replace(CONFIG, interventions=0.5)
    tokens, mask = touched.draw("train")
    hit = mask.sum(1) == CONFIG.items - 1
    assert set(np.unique(mask.sum(1))) == {7.0, 8.0} and abs(hit.mean() - 0.5) < 0.02
    set_values = tokens[hit][mask[hit] == 0]
    assert np.abs(np.bincount(set_values, minlength=3) / len(set_values) - 1 / 3).max() < 0.02
    np.testing.assert_array_equal(touched.draw("test")[0], CONFIG.draw("test")[0])
    # what is not downstream is as it was without the intervention
    before, place = CONFIG.draw("train")[0], np.where(hit, mask.argmin(1), CONFIG.items)
    early = np.arange(CONFIG.items)[None] < place[:, None]
    np.testing.assert_array_equal(tokens[early], before[early])
    assert (tokens != before).any()
