"""Sudoku: a grid whose rows, columns and boxes hold every digit once, and clues that leave exactly one such grid.

    token at (row r, column c) of a grid of side s = place r s + c, the digits 1 .. s (0 is none); boxes 2x2, 2x3 or 3x3          (1)

Clues are not scored (loss_mask 0): a model that hides scored tokens alone always sees them. A puzzle is a random grid from which clues
are taken away, in random order, as long as a solver finds no second solution, down to `givens` of them. From `bases` such puzzles of each
split all rows are made by what changes neither the number of solutions nor of clues: digits renamed, rows and columns exchanged within
their bands, bands exchanged, and the square ones reflected. Test rows come from puzzles of their own.

Fields: "row", "column" and "box" of every place, for visibilities and positions. Letters: s side, n clues.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from causal_gen.data.generated import stream
from causal_gen.data.sequences import Drawn, Sequences, Task
from causal_gen.types import DataError, Int, at_least

BOXES = {4: (2, 2), 6: (2, 3), 9: (3, 3)}  # side: rows and columns of a box


@functools.cache
def units(side: int) -> Int[np.ndarray, "t 3"]:
    """Row, column and box of every place."""
    high, wide = BOXES[side]
    row, column = np.divmod(np.arange(side * side), side)
    return np.stack([row, column, row // high * (side // wide) + column // wide], 1).astype(np.int32)


def solutions(grid: Sequence[int], side: int, most: int = 2, rng: np.random.Generator | None = None) -> list[list[int]]:
    """At most `most` ways to fill the zeros of a grid [s s]; none where clues clash. With `rng`, in random order."""
    places, held, cells = units(side).tolist(), [[0] * side for _ in range(3)], list(map(int, grid))
    for place, digit in enumerate(cells):
        if digit:
            bit = 1 << digit
            if any(held[kind][unit] & bit for kind, unit in enumerate(places[place])):
                return []
            for kind, unit in enumerate(places[place]):
                held[kind][unit] |= bit
    found: list[list[int]] = []
    blanks = [place for place, digit in enumerate(cells) if not digit]
    _search(cells, blanks, places, held, (2 << side) - 2, most, rng, found)
    return found


def _search(
    cells: list[int], blanks: list[int], places: list[list[int]], held: list[list[int]], every: int, most: int,
    rng: np.random.Generator | None, found: list[list[int]],
) -> None:  # fmt: skip
    """Fill the place with the fewest digits left, try all of them, and go on."""
    if not blanks:
        found.append(list(cells))
        return
    rows, columns, boxes = held
    best, least = 0, 99
    for i, place in enumerate(blanks):
        row, column, box = places[place]
        free = (every & ~(rows[row] | columns[column] | boxes[box])).bit_count()
        if free < least:
            best, least = i, free
            if free < 2:
                break
    place = blanks[best]
    row, column, box = places[place]
    free = every & ~(rows[row] | columns[column] | boxes[box])
    digits = [digit for digit in range(1, every.bit_length()) if free >> digit & 1]
    rest = blanks[:best] + blanks[best + 1 :]
    for digit in digits if rng is None else rng.permutation(digits).tolist():
        bit = 1 << digit
        cells[place], rows[row], columns[column], boxes[box] = digit, rows[row] | bit, columns[column] | bit, boxes[box] | bit
        _search(cells, rest, places, held, every, most, rng, found)
        cells[place], rows[row], columns[column], boxes[box] = 0, rows[row] & ~bit, columns[column] & ~bit, boxes[box] & ~bit
        if len(found) >= most:
            return


def puzzle(rng: np.random.Generator, side: int, givens: int) -> tuple[list[int], list[int]]:
    """A grid, and clues of it [s s] (0: none) that it alone agrees with: `givens`, or as few as this order of taking away allows."""
    blank = np.zeros(side * side, int)
    blank[:side] = rng.permutation(side) + 1
    grid = solutions(blank.tolist(), side, 1, rng)[0]
    clues, left = list(grid), side * side
    for place in rng.permutation(side * side).tolist():
        if left == givens:
            break
        clues[place] = 0
        if _needed(clues, place, grid[place], side):
            clues[place] = grid[place]
        else:
            left -= 1
    return grid, clues


def _needed(clues: list[int], place: int, digit: int, side: int) -> bool:
    """Whether without this clue, taken away already, another digit fits there too."""
    seen = _peers(side)[place]
    others = set(range(1, side + 1)) - {digit} - {clues[peer] for peer in seen}
    for other in others:
        clues[place] = other
        second = solutions(clues, side, 1)
        clues[place] = 0
        if second:
            return True
    return False


@functools.cache
def _peers(side: int) -> list[list[int]]:
    told = units(side)
    return [[q for q in range(side * side) if q != p and (told[q] == told[p]).any()] for p in range(side * side)]


def solved(grids: Int[np.ndarray, "b t"], side: int) -> np.ndarray:
    """Which grids hold every digit once in each row, column and box, bool [b]."""
    told, right = units(side), np.ones(len(grids), bool)
    for kind in range(3):
        groups = np.argsort(told[:, kind], kind="stable").reshape(side, side)
        right &= (np.sort(grids[:, groups], -1) == np.arange(1, side + 1)).all((1, 2))
    return right


def check_puzzle(clues: Int[np.ndarray, "t"], side: int, what: str = "puzzle") -> None:
    """Raises `DataError` for clues [s s] (0: none) that no grid agrees with, or more than one."""
    found = solutions(clues.tolist(), side)
    if len(found) != 1:
        how = "no grid agrees with its clues; mend one" if not found else "more than one grid agrees with its clues; add some"
        raise DataError(f"{what}: {how}")


@dataclasses.dataclass(frozen=True)
class SudokuConfig(Task):
    """Puzzles of `side` 4, 6 or 9 with `givens` clues (0: 6, 14 or 36 of them), made from `bases` puzzles of a split."""

    name: str = "sudoku"
    side: int = dataclasses.field(default=4, metadata={"choices": tuple(BOXES)})
    givens: int = at_least(0, 0)
    bases: int = at_least(1_000, 1)

    def __post_init__(self):
        least = {4: 4, 6: 8, 9: 17}[self.side]
        if not least <= self.clues < self.length:
            raise ValueError(f"givens={self.clues}: a puzzle of side {self.side} has {least} to {self.length - 1} clues; choose among them")

    @property
    def clues(self) -> int:
        """Number of clues."""
        return self.givens or {4: 6, 6: 14, 9: 36}[self.side]

    @property
    def length(self) -> int:
        return self.side**2

    @property
    def tokens(self) -> int:
        return self.side + 1

    def fields(self, tokens: Int[np.ndarray, "b t"]) -> dict[str, Int[np.ndarray, "b t"]]:
        """Row, column and box of every place."""
        return {name: np.broadcast_to(told, tokens.shape) for name, told in zip(("row", "column", "box"), units(self.side).T, strict=True)}

    def draw(self, split: str) -> Drawn:
        num, rng, made = self.count(split), stream(self.seed, 0x5D, split), []
        while len(made) < min(num, self.bases):
            grid, clues = puzzle(rng, self.side, self.clues)
            if np.count_nonzero(clues) == self.clues:  # some orders of taking away end sooner
                made.append((grid, clues))
        grids, clues = np.array(made, np.int32).transpose(1, 0, 2)
        which = np.arange(num) % len(grids)
        places, digits = self._alike(rng, num)
        tokens = np.take_along_axis(digits, np.take_along_axis(grids[which], places, 1), 1)
        known = np.take_along_axis(clues[which], places, 1) > 0
        return tokens.astype(np.int32), (~known).astype(np.float32)

    def _alike(self, rng: np.random.Generator, num: int) -> tuple[np.ndarray, np.ndarray]:
        """For `num` rows where each place comes from [num, s s], and the new name of every digit [num, s + 1]."""
        high, wide = BOXES[self.side]
        lines = []
        for band in (high, wide):
            bands = rng.random((num, self.side // band)).argsort(1)
            within = rng.random((num, self.side // band, band)).argsort(2)
            lines.append((bands[:, :, None] * band + within).reshape(num, self.side))
        places = lines[0][:, :, None] * self.side + lines[1][:, None, :]
        if high == wide:
            places = np.where(rng.random((num, 1, 1)) < 0.5, places, places.swapaxes(1, 2))
        digits = np.concatenate([np.zeros((num, 1), int), 1 + rng.random((num, self.side)).argsort(1)], 1)
        return places.reshape(num, -1), digits

    def make(self) -> Puzzles:
        return Puzzles(**vars(super().make()))


@dataclasses.dataclass(frozen=True, eq=False)
class Puzzles(Sequences):
    """The source."""

    def check_template(self, template: Int[np.ndarray, "b t"]) -> None:
        """Raises `DataError` for rows of clues (negative: none) without a solution, or with several."""
        for row, clues in enumerate(template):
            check_puzzle(np.maximum(clues, 0), self.config.side, f"template: row {row}")

    def solved(self, tokens: Int[np.ndarray, "b t"]) -> np.ndarray:
        """Which rows are whole and right, bool [b]."""
        return solved(tokens, self.config.side)
