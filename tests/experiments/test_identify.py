"""The command that says whether a graph identifies an effect."""

import json

import numpy as np
import pytest

SMOKING = "--graph=configs/structural/smoking.bif"
CANCER = "--effect=p(cancer | do(smoking))"


def test_a_network_gives_formula_sets_and_the_truth_by_surgery(call):
    answer = call("identify", SMOKING, "--latent=disposition", CANCER)
    told = json.loads(answer.out.strip().splitlines()[-1])
    assert answer.code == 0 and told["front_door"] == [["tar"]] and told["back_door"] == []
    assert "p(cancer | do(smoking)) = sum_{tar} p(tar | smoking) sum_{smoking'}" in answer.out
    assert all(abs(line["value"] - line["surgery"]) < 1e-12 < 0.1 < abs(line["seen"] - line["surgery"]) for line in told["network"])
    observed = json.loads(call("identify", SMOKING, CANCER).out.strip().splitlines()[-1])
    assert observed["back_door"] == [["disposition"]] and [r["value"] for r in observed["network"]] == pytest.approx(
        [r["value"] for r in told["network"]]
    )


def test_rows_of_a_file_give_an_estimate_with_intervals(call, tmp_path):
    """z confounds: the group means differ by .12 where the effect is .3 within each z."""
    rng = np.random.default_rng(0)
    z = rng.integers(0, 2, 4000)
    x = (rng.uniform(size=4000) < np.where(z, 0.8, 0.2)).astype(int)
    y = rng.uniform(size=4000) < 0.3 + 0.3 * x + 0.3 * (z == 0)
    age = rng.uniform(20, 80, 4000)
    lines = [f"{'old' if a else 'young'},{b},{'yes' if c else 'no'},{d:.3f}" for a, b, c, d in zip(z, x, y, age, strict=True)]
    (tmp_path / "rows.csv").write_text("\n".join(["z,x,y,age", *lines]))
    data = f"--data={tmp_path / 'rows.csv'}"
    answer = call("identify", "--graph=z -> x, z -> y, x -> y", "--effect=p(y | do(x))", data, "--bootstrap=50")
    told = {(row["y"], row["x"]): row for row in json.loads(answer.out.strip().splitlines()[-1])["estimate"]}
    for x, truth in (("0", 0.45), ("1", 0.75)):
        row = told["yes", x]
        assert row["low"] < row["value"] < row["high"] and abs(row["value"] - truth) < 0.04
    assert abs(told["yes", "1"]["seen"] - told["yes", "0"]["seen"] - 0.12) < 0.05
    graph = "--graph=age -> y, z -> x, z -> y, x -> y"
    answer = call("identify", graph, "--effect=p(y | do(x))", "--given=age", data, "--bins=3", "--bootstrap=0")
    rows = json.loads(answer.out.strip().splitlines()[-1])["estimate"]
    assert answer.code == 0 and len(rows) == 12 and len({row["age"] for row in rows}) == 3 and rows[0]["low"] is None


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((SMOKING, "--latent=disposition,tar", CANCER), "is not identified by the graph: hedge F = {smoking, cancer}, F' = {cancer}"),
        (("--graph=x -> y -> x", "--effect=p(y | do(x))"), "cycle"),
        (("--graph=x -> y", "--effect=p(y | do(z))"), "unknown node 'z' in the effect p(y | do(z))"),
        (("--graph=x -> y", "--effect=p(y | do(x))", "--given=w"), "unknown node 'w'"),
        (("--graph=x -> y", "--effect=p(y | do(x))", "--latent=u"), "unknown node 'u' in the latent nodes"),
        (("--graph=x -> y", "--effect=y do x"), "cannot read 'y do x'; write p(y | do(x))"),
        (("--graph=nowhere.dot", "--effect=p(y | do(x))"), "nowhere.dot: No such file or directory"),
        (("--graph=README.md", "--effect=p(y | do(x))"), "unknown kind of file '.md'; give one of .dot, .gv, .bif"),
        (("--effect=p(y | do(x))",), "give either --graph or --workdir"),
        (("--graph=x -> y",), "--effect is missing"),
        (
            ("--graph=x -> y", "--effect=p(y | do(x))", "--data=none.csv"),
            "--data=none.csv: no file none.csv; give the path of a .csv or .parquet file",
        ),
    ],
)
def test_bad_questions_are_refused_in_one_line(refused, flags, said):
    assert said in refused("identify", *flags)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x,z\n1,2\n", "there is no column 'y'; the columns are x, z"),
        ("x,y\n", "holds no rows below its header"),
        ("x,y\n1,2\n1,\n", "column 'y', row 2: the cell is missing ('')"),
        ("x,y\n1,2\nnan,3\n", "column 'x', row 2: the cell is missing ('nan')"),
        ("x,y\n1,2\ninf,3\n", "column 'x', row 2: 'inf' is not finite"),
        ("x,y\na,2\n,3\n", "column 'x', row 2: the cell is missing ('')"),
        ("x,y\n1,2\n1\n", "row 2 has 1 cells and the header 2"),
    ],
)
def test_bad_rows_are_refused_with_their_place(refused, tmp_path, text, said):
    (tmp_path / "rows.csv").write_text(text)
    assert said in refused("identify", "--graph=x -> y", "--effect=p(y | do(x))", f"--data={tmp_path / 'rows.csv'}")


def test_a_malformed_file_is_refused_with_its_line(refused, tmp_path):
    (tmp_path / "g.dot").write_text("digraph {\n x -> y\n y -- z\n}")
    assert "line 3: an edge without direction" in refused("identify", f"--graph={tmp_path / 'g.dot'}", "--effect=p(y | do(x))")


def test_cells_that_the_rows_leave_undefined_are_said(call, tmp_path):
    (tmp_path / "rows.csv").write_text("z,x,y\n" + "0,0,0\n0,1,1\n1,0,1\n" * 5)
    flags = ("--graph=z -> x, z -> y, x -> y", "--effect=p(y | do(x))", f"--data={tmp_path / 'rows.csv'}", "--bootstrap=10")
    answer = call("identify", *flags)
    rows = json.loads(answer.out.strip().splitlines()[-1])["estimate"]
    assert answer.code == 0 and "2 of 4 values are undefined" in answer.err
    assert [row["value"] is None for row in rows if row["x"] == "1"] == [True, True]
