"""Answers about rows of a table as CSV: a line for every row and every value of a range, categories by name, a vector place by place."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from causal_gen.data.table import spelled

KINDS = ("factual", "reconstruction", "counterfactual", "truth")


def beside(answers: Mapping[str, Any], question: Any, num: int, order: Iterable[str]) -> dict[str, np.ndarray]:
    """Columns of a counterfactual: row, the values of its ranges, and each entry as it was, as reconstructed, as it would have been, and
    as it truly would have been where that is known, entries in `order` and then what the model tells beyond them. All have `num` times
    the number of cells of the question."""
    columns, cells = _keys(question, num), len(list(question.cells()))
    for name in _names(answers["counterfactual"][0], order):
        for kind in KINDS:
            found = answers[kind]
            if found is None or name not in (found[0] if isinstance(found, list) else found):
                continue
            per_cell = [cell[name] for cell in found] if isinstance(found, list) else [found[name]] * cells
            columns |= _columns(f"{kind}_{name}", per_cell)
    return columns


def drawn(rows: list[dict[str, Any]], question: Any, num: int, order: Iterable[str]) -> dict[str, np.ndarray]:
    """Columns of samples: row, the values of the ranges of their intervention, each entry, in `order`, then what else the model tells."""
    columns = _keys(question, num)
    for name in _names(rows[0], order):
        columns |= _columns(name, [row[name] for row in rows])
    return columns


def _names(found: Mapping[str, Any], order: Iterable[str]) -> list[str]:
    known = [name for name in order if name in found]
    return known + [name for name in found if name not in known]


def _columns(name: str, cells: list[Any]) -> dict[str, np.ndarray]:
    """A column of values [b] or one a place of vectors [b, p], the cells of a row following one another."""
    stacked = np.stack([np.asarray(value) for value in cells], 1)
    if stacked.ndim == 2:
        return {name: stacked.reshape(-1)}
    return {f"{name}[{i}]": stacked[..., i].reshape(-1) for i in range(stacked.shape[-1])}


def _keys(question: Any, num: int) -> dict[str, np.ndarray]:
    keys = {"row": np.repeat(np.arange(num), max(1, int(np.prod(question.shape))))}
    grid = list(itertools.product(*(term.values for term in question.axes)))
    for i, term in enumerate(question.axes):
        keys[f"{term.kind}({term.written})"] = np.tile(np.asarray([cell[i] for cell in grid]), num)
    return keys


def write(path: Path, columns: Mapping[str, np.ndarray], entries: Mapping[str, Any]) -> None:
    """Write `columns`; those that are called after an entry, or a kind and an entry, are spelled as it is."""
    named = {name: entries[own] for name in columns if (own := _entry_of(name, entries)) is not None}
    text = spelled(columns, named)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(text)
        writer.writerows(zip(*text.values(), strict=True))


def _entry_of(column: str, entries: Mapping[str, Any]) -> str | None:
    if column in entries:
        return column
    kind, _, name = column.partition("_")
    return name if kind in KINDS and name in entries else None
