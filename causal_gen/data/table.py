"""A table of the user's own: CSV or Parquet, one row an example, columns of numbers and of categories.

`columns` says which columns are read and what they hold, {"age": "real", "sex": "category"}; without it all are, a column being real if
all of its cells are numbers. The categories of a column are those of the training rows, in alphabetical order; their places are what models
see, and their names what commands take and write. A cell that is empty, infinite or no number is refused with its row and column: what is
missing would have to be integrated out, and nothing here guesses it. Rows are counted from 1, the header aside.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from causal_gen.data.generated import Columns, Rows, stream
from causal_gen.data.labels import statistics
from causal_gen.data.storage import folders
from causal_gen.scm.intervention import Acts, Intervention
from causal_gen.types import DataError, Entry, Int, at_least

KINDS = ("real", "category")
EMPTY = ("", "na", "nan", "null", "none", "n/a", "?")
CATEGORIES = 100  # more than so many in a column are taken for a mistake
Cells = Mapping[str, Sequence[Any]]  # column: cells as read, text or numbers


def read(path: Path, what: str) -> Cells:
    """All columns of a .csv, .tsv or .parquet file. Raises `DataError`, which begins with `what`."""
    if not path.is_file():
        raise DataError(f"{what}: no file {path}; give the path of a .csv or .parquet file")
    if path.suffix.lower() == ".parquet":
        return _parquet(path, what)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            rows = list(csv.reader(file, delimiter=max(",;\t", key=first.count)))
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{what}: {path} is no CSV that can be read ({error}); write a header and a row an example, in UTF-8") from None
    rows = [row for row in rows if row]
    header = [name.strip() for name in rows[0]] if rows else []
    twice = [name for name in header if header.count(name) > 1]
    if twice or "" in header:
        wrong = f"two columns {twice[0]!r}" if twice else "a column without a name"
        raise DataError(f"{what}: the header of {path} has {wrong}; mend it")
    if len(rows) < 2:
        raise DataError(f"{what}: {path} holds no rows below its header; write one row an example")
    for place, row in enumerate(rows[1:], 1):
        if len(row) != len(header):
            raise DataError(f"{what}: {path}, row {place} has {len(row)} cells and the header {len(header)}; mend that row")
    return {name: [row[i].strip() for row in rows[1:]] for i, name in enumerate(header)}


def _parquet(path: Path, what: str) -> Cells:
    try:
        from pyarrow import parquet
    except ImportError:
        raise DataError(f"{what}: reading {path} takes pyarrow; pip install 'causal-gen[table]', or save the table as CSV") from None
    try:
        found = parquet.read_table(path)
    except (OSError, ValueError) as error:  # pyarrow's errors derive from these
        raise DataError(f"{what}: {path} is no Parquet file that can be read ({error}); write it again, or save it as CSV") from None
    return {name: found.column(name).to_pylist() for name in found.column_names}


def numbers(cells: Sequence[Any], what: str) -> np.ndarray:
    """float32 of a real column. Raises `DataError` with the row of the first cell that is missing, infinite or no number.

    One a row, [n].
    """
    out = np.empty(len(cells), np.float64)
    for row, cell in enumerate(cells, 1):
        if _missing(cell):
            raise DataError(f"{what}, row {row}: the cell is missing ({cell!r}); fill it, or leave the row out")
        try:
            out[row - 1] = float(cell)
        except (TypeError, ValueError):
            raise DataError(f"{what}, row {row}: {cell!r} is no number; mend it, or declare the column a 'category'") from None
        if not math.isfinite(out[row - 1]):
            raise DataError(f"{what}, row {row}: {cell!r} is not finite; mend it, or leave the row out")
    return out.astype(np.float32)


def places(cells: Sequence[Any], names: Sequence[str], what: str) -> np.ndarray:
    """int32 of a column of categories: places in `names`. Raises `DataError` with the row of the first cell that is none of them.

    One a row, [n].
    """
    index, out = {name: i for i, name in enumerate(names)}, np.empty(len(cells), np.int32)
    for row, cell in enumerate(cells, 1):
        if _missing(cell):
            raise DataError(f"{what}, row {row}: the cell is missing ({cell!r}); fill it, or leave the row out")
        if str(cell) not in index:
            raise DataError(f"{what}, row {row}: category {str(cell)!r} is not among those of the training rows, {', '.join(names)}")
        out[row - 1] = index[str(cell)]
    return out


def is_real(cells: Sequence[Any]) -> bool:
    """Whether all cells of a column are numbers. A missing one is taken for a number too: what it is lies with the others of its column."""
    return all(map(_is_number, cells))


def column(cells: Sequence[Any], entry: Entry, what: str) -> np.ndarray:
    """A column of evidence as its entry wants it. Raises `DataError` as `numbers` and `places` do. One a row, [n]."""
    if entry.names:
        return places(cells, entry.names, what)
    found = numbers(cells, what)
    if entry.vocabulary is None:
        return found
    wrong = np.flatnonzero((found != np.round(found)) | (found < 0) | (found >= entry.vocabulary))
    if len(wrong):
        raise DataError(f"{what}, row {wrong[0] + 1}: {cells[wrong[0]]} is none of the values 0..{entry.vocabulary - 1}")
    return found.astype(np.int32)


def _missing(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and cell.lower() in EMPTY) or (isinstance(cell, float) and math.isnan(cell))


@dataclasses.dataclass(frozen=True)
class TableConfig:
    """The `file` (a path, or a name below data.root or CAUSAL_GEN_DATA), of which a share is kept for testing, chosen by `seed`."""

    name: str = "table"
    root: str | None = None
    file: str = ""
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    test_share: float = at_least(0.2, 0.01, 0.9)
    seed: int = at_least(0, 0)

    def __post_init__(self):
        for name, kind in self.columns.items():
            if kind not in KINDS:
                raise ValueError(f"columns.{name}: must be one of {', '.join(map(repr, KINDS))}, got {kind!r}")

    @property
    def what(self) -> str:
        """How messages about the file begin."""
        return f"table {self.file}"

    def path(self) -> Path:
        """Where the file lies. Raises `DataError` where none was given."""
        if not self.file:
            raise DataError("table: data.file is not set; give your table by --config.data.file=FILE.csv")
        given = Path(self.file).expanduser()
        return next((folder / given for folder in folders(self.root)[:-1] if (folder / given).is_file()), given)

    @property
    def entries(self) -> Mapping[str, Entry]:
        """The columns that are read; the file is opened for its categories."""
        return self.make().entries

    def entries_of(self, stats: Mapping[str, Any]) -> Mapping[str, Entry]:
        """The columns as a run keeps them, so that it restores where its table is gone."""
        return {name: _entry(found.get("categories")) for name, found in stats.items()}

    def make(self) -> Table:
        return self._make({})

    def reopen(self, folder: Path, stats: Mapping[str, Any]) -> Table:
        """The table as a trained run reads it: with the categories that the run knows."""
        del folder
        return self._make({name: found["categories"] for name, found in stats.items() if "categories" in found})

    def _make(self, known: Mapping[str, Sequence[str]]) -> Table:
        cells = read(self.path(), self.what)
        kinds = dict(self.columns) or {name: "real" if is_real(column) else "category" for name, column in cells.items()}
        for name in kinds:
            if name not in cells:
                raise DataError(f"{self.what}: has no column {name!r}; its columns are {', '.join(cells)}")
        order = stream(self.seed, 0x7AB1E).permutation(len(cells[next(iter(kinds))]))
        test = round(self.test_share * len(order))
        if not 0 < test < len(order):
            raise DataError(f"{self.what}: {len(order)} rows leave none for training or none for testing; give more rows")
        split = {"train": np.sort(order[test:]), "test": np.sort(order[:test])}
        discrete = [name for name, kind in kinds.items() if kind == "category"]
        names = {name: tuple(known.get(name) or self._categories(name, cells[name], split["train"])) for name in discrete}
        values = {name: self._column(name, cells[name], names.get(name), split["train"]) for name in kinds}
        rows = {part: {name: value[chosen] for name, value in values.items()} for part, chosen in split.items()}
        return Table(self, rows, names)

    def _categories(self, name: str, cells: Sequence[Any], train: np.ndarray) -> list[str]:
        """Those of the training rows."""
        found = sorted({str(cells[row]) for row in train if not _missing(cells[row])})
        if len(found) > CATEGORIES:
            many = f"{len(found)} categories in {len(train)} rows, more than {CATEGORIES}"
            raise DataError(f"{self.what}: column {name!r} has {many}; name the columns to read in data.columns, this one as 'real' or not")
        return found

    def _column(self, name: str, cells: Sequence[Any], names: Sequence[str] | None, train: np.ndarray) -> np.ndarray:
        what = f"{self.what}: column {name!r}"
        found = numbers(cells, what) if names is None else places(cells, names, what)
        if np.all(found[train] == found[train[0]]):
            raise DataError(f"{what} is {cells[train[0]]!r} in all training rows, which says nothing; leave it out of data.columns")
        return found


def _is_number(cell: Any) -> bool:
    if _missing(cell):
        return True
    try:
        float(cell)
    except (TypeError, ValueError):
        return False
    return not isinstance(cell, bool)


def _entry(names: Sequence[str] | None) -> Entry:
    return Entry(()) if names is None else Entry((), "int32", vocabulary=len(names), names=tuple(names))


@dataclasses.dataclass(frozen=True, eq=False)
class Table(Rows):
    """The source; `names` are the categories of its discrete columns."""

    names: Mapping[str, tuple[str, ...]]

    @functools.cached_property
    def entries(self) -> Mapping[str, Entry]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return {name: _entry(self.names.get(name)) for name in self.rows["train"]}

    def stats(self) -> dict[str, Any]:
        """Statistics of the real columns over the training rows; of the others the categories and their shares."""
        found: dict[str, Any] = {}
        for name, value in self.rows["train"].items():
            if name in self.names:
                shares = np.bincount(value, minlength=len(self.names[name])) / len(value)
                found[name] = {"categories": list(self.names[name]), "shares": [float(share) for share in shares]}
            else:
                found[name] = statistics(value)
        return found

    def truth(self, split: str, indices: Int[np.ndarray, "b"], do: Intervention | Acts | None) -> None:
        """Nobody knows what would have been."""
        del split, indices, do


def spelled(rows: Columns, entries: Mapping[str, Entry]) -> dict[str, list[Any]]:
    """Columns [b] as a person reads them: categories by name, numbers as short as float32 allows."""
    found = {}
    for name, value in rows.items():
        names = entries[name].names if name in entries else ()
        found[name] = [names[int(one)] for one in value] if names else [_short(one) for one in np.asarray(value)]
    return found


def _short(number: Any) -> Any:
    return int(number) if np.issubdtype(np.asarray(number).dtype, np.integer) else float(f"{float(number):.7g}")
