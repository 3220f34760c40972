"""Tables of the user's own: what is read, and every mistake in them as one line that names the place."""

from __future__ import annotations

import numpy as np
import pytest

from causal_gen.data import table
from causal_gen.data.kept import Deferred
from causal_gen.data.table import TableConfig
from causal_gen.types import DataError, Entry

HEADER = "age,sex,dose"


def rows(num: int = 20) -> list[str]:
    return [f"{20 + i},{'female' if i % 3 else 'male'},{0.5 * (i % 7)}" for i in range(num)]


def written(tmp_path, lines: list[str], header: str = HEADER, name: str = "t.csv"):
    path = tmp_path / name
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def test_columns_are_typed_split_and_described(tmp_path):
    made = TableConfig(file=str(written(tmp_path, rows()))).make()
    assert {name: entry.names for name, entry in made.entries.items()} == {"age": (), "sex": ("female", "male"), "dose": ()}
    assert made.size("train") == 16 and made.size("test") == 4
    both = np.concatenate([made.gather(split, np.arange(made.size(split)))["age"] for split in ("train", "test")])
    assert sorted(both) == list(range(20, 40)) and both.dtype == np.float32
    stats = made.stats()
    assert stats["sex"]["categories"] == ["female", "male"] and abs(sum(stats["sex"]["shares"]) - 1) < 1e-9 and "std" in stats["age"]
    assert made.gather("train", np.arange(3))["sex"].dtype == np.int32
    assert made.truth("test", np.arange(2), None) is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("31,male,", "column 'dose', row 21: the cell is missing"),
        ("31,NA,1", "column 'sex', row 21: the cell is missing ('NA')"),
        ("nan,male,1", "column 'age', row 21: the cell is missing ('nan')"),
        ("inf,male,1", "column 'age', row 21: 'inf' is not finite"),
        ("1e999,male,1", "column 'age', row 21: '1e999' is not finite"),
        ("old,male,1", "column 'age', row 21: 'old' is no number; mend it, or declare the column a 'category'"),
        ("31,male", "row 21 has 2 cells and the header 3"),
    ],
)
def test_a_bad_cell_is_refused_with_its_row_and_column(tmp_path, line, said):
    columns = {"age": "real", "sex": "category", "dose": "real"}
    with pytest.raises(DataError) as error:
        TableConfig(file=str(written(tmp_path, [*rows(), line])), columns=columns).make()
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("config", "lines", "header", "said"),
    [
        ({}, [], HEADER, "holds no rows below its header"),
        ({}, rows(), "age,age,dose", "two columns 'age'"),
        ({}, rows(), "age,,dose", "a column without a name"),
        ({"columns": {"weight": "real"}}, rows(), HEADER, "has no column 'weight'; its columns are age, sex, dose"),
        ({}, [f"{i},male,1" for i in range(20)], HEADER, "column 'sex' is 'male' in all training rows"),
        ({}, [f"{i},male{i},1" for i in range(300)], HEADER, "column 'sex' has 240 categories in 240 rows"),
        ({}, rows(2), HEADER, "2 rows leave none"),
    ],
)
def test_a_table_that_cannot_be_learned_from_is_one_line(tmp_path, config, lines, header, said):
    with pytest.raises(DataError) as error:
        TableConfig(file=str(written(tmp_path, lines, header)), **config).make()
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_category_that_the_training_rows_do_not_have_is_refused(tmp_path):
    """In the table itself where it falls among the test rows, and in evidence."""
    lines = rows()
    for row in range(20):
        path = written(tmp_path, [*lines[:row], "31,other,1", *lines[row + 1 :]])
        try:
            TableConfig(file=str(path)).make()
        except DataError as error:
            assert f"column 'sex', row {row + 1}: category 'other' is not among those of the training rows, female, male" in str(error)
            break
    else:
        raise AssertionError("the row fell among the training rows every time")
    with pytest.raises(DataError, match="evidence: column 'sex', row 2: category 'x' is not among"):
        table.column(["male", "x"], Entry((), "int32", vocabulary=2, names=("female", "male")), "evidence: column 'sex'")


@pytest.mark.parametrize(("file", "said"), [("", "data.file is not set"), ("nowhere.csv", "no file"), ("t.parquet", "no Parquet file")])
def test_a_file_that_is_not_there_or_is_none(tmp_path, monkeypatch, file, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.parquet").write_bytes(b"PAR0")
    with pytest.raises(DataError, match=said):
        TableConfig(file=file).make()


def test_parquet_holds_the_same_table_as_csv(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    given = [line.split(",") for line in rows()]
    columns = {"age": [float(row[0]) for row in given], "sex": [row[1] for row in given], "dose": [float(row[2]) for row in given]}
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    one, other = (TableConfig(file=str(path)).make() for path in (written(tmp_path, rows()), tmp_path / "t.parquet"))
    assert one.stats() == other.stats()


def test_a_run_knows_its_columns_where_its_table_is_gone(tmp_path):
    path = written(tmp_path, rows())
    config = TableConfig(file=str(path))
    stats = config.make().stats()
    path.unlink()
    kept = Deferred(config, tmp_path, stats)
    assert kept.entries["sex"].names == ("female", "male") and kept.entries["age"] == Entry(())
    with pytest.raises(DataError, match="no file"):
        kept.size("test")


def test_separators_and_a_byte_order_mark_are_understood(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("\ufeff" + "\n".join(line.replace(",", ";") for line in [HEADER, *rows()]), encoding="utf-8")
    assert list(TableConfig(file=str(path)).make().entries) == ["age", "sex", "dose"]
