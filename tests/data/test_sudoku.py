"""Sudoku: every puzzle has one solution, by a second solver; what the source makes of a puzzle is a puzzle; bad ones are refused."""

import itertools

import numpy as np
import pytest

from causal_gen.build import build
from causal_gen.data.sudoku import SudokuConfig, check_puzzle, puzzle, solutions, solved, units
from causal_gen.types import ConfigError, DataError


def every_grid_of_four() -> np.ndarray:
    """All 288 grids of side 4, by trying all rows of permutations."""
    rows = list(itertools.permutations(range(1, 5)))
    found = [sum(grid, ()) for grid in itertools.product(rows, repeat=4) if all(len({*column}) == 4 for column in zip(*grid, strict=True))]
    grids = np.array(found)
    boxes = np.argsort(units(4)[:, 2], kind="stable").reshape(4, 4)
    return grids[(np.sort(grids[:, boxes], -1) == np.arange(1, 5)).all((1, 2))]


def test_the_solver_finds_every_grid_there_is():
    every = every_grid_of_four()
    assert len(every) == 288
    assert {tuple(grid) for grid in solutions([0] * 16, 4, most=1_000)} == {tuple(grid) for grid in every.tolist()}
    assert solved(every, 4).all() and not solved(np.where(np.arange(16) == 3, 1 + every % 4, every), 4).any()
    clues = every[17] * (np.arange(16) % 3 == 0)
    agreeing = every[((every == clues) | (clues == 0)).all(1)]
    assert sorted(solutions(clues.tolist(), 4, most=1_000)) == sorted(agreeing.tolist())


@pytest.mark.parametrize(("side", "givens"), [(4, 5), (6, 12), (9, 34)])
def test_a_row_is_a_puzzle_with_the_stated_clues_and_its_only_solution(side, givens):
    config = SudokuConfig(side=side, givens=givens, size=20, test_size=6, bases=4)
    source = config.make()
    for split in ("train", "test"):
        rows = source.gather(split, np.arange(source.size(split)))
        assert solved(rows["tokens"], side).all()
        assert ((rows["loss_mask"] == 0).sum(1) == givens).all()
        for tokens, mask in zip(rows["tokens"], rows["loss_mask"], strict=True):
            np.testing.assert_array_equal(solutions((tokens * (mask == 0)).tolist(), side), [tokens])
    assert len(np.unique(source.rows["train"]["tokens"], axis=0)) > 15  # the four puzzles, renamed and rearranged
    np.testing.assert_array_equal(source.gather("test", np.arange(2))["box"][1], units(side)[:, 2])


def test_the_splits_are_drawn_apart_and_by_the_seed():
    short, long = (SudokuConfig(size=3, test_size=test, bases=3).draw("train")[0] for test in (1, 50))
    np.testing.assert_array_equal(short, long)
    assert not np.array_equal(short, SudokuConfig(size=3, bases=3, seed=1).draw("train")[0])


def test_clues_that_clash_and_clues_that_do_not_suffice_are_refused():
    grid, clues = puzzle(np.random.default_rng(0), 4, 5)
    check_puzzle(np.array(clues), 4)
    given = np.flatnonzero(clues)
    some = np.array(clues)
    some[given[:3]] = 0
    with pytest.raises(DataError, match="more than one grid agrees"):
        check_puzzle(some, 4)
    wrong = np.array(grid)
    wrong[0], wrong[5] = 0, wrong[5] % 4 + 1
    with pytest.raises(DataError, match="no grid agrees"):
        check_puzzle(wrong, 4)
    template = np.where(np.array(clues) > 0, clues, -1)
    with pytest.raises(DataError, match="template: row 1: more than one"):
        SudokuConfig(size=1, test_size=1).make().check_template(np.stack([template, np.where(some > 0, some, -1)]))


def test_a_number_of_clues_that_no_puzzle_has_is_refused():
    config = {"data": {"name": "sudoku", "givens": 3}, "model": {"name": "causal_transformer"}}
    with pytest.raises(ConfigError, match="a puzzle of side 4 has 4 to 15 clues"):
        build(config)
