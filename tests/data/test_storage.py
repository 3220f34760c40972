"""Built sets: round trip, reuse, and every way in which a build or a file can go wrong."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from causal_gen.data import storage
from causal_gen.data.storage import Column, Recipe
from causal_gen.types import DataError

RECIPE = Recipe(
    name="squares",
    variant="n5-3",
    version="1.0.0",
    description="squares of small numbers",
    citation="",
    columns={"image": Column((2, 2), "uint8", "four pixels"), "value": Column((), "float32", "a number")},
    sizes={"train": 5, "test": 3},
)
calls: list[str] = []


def produce(split, fetch):
    del fetch
    calls.append(split)
    rows = np.arange(RECIPE.sizes[split])
    return {"image": np.broadcast_to(rows[:, None, None], (len(rows), 2, 2)).astype(np.uint8), "value": rows.astype(np.float32) ** 2}


def place(root):
    return root / "squares" / "n5-3" / "1.0.0"


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CAUSAL_GEN_DATA", raising=False)
    calls.clear()


def test_rows_come_back_in_order_and_are_built_once(tmp_path, capsys):
    built = storage.load(RECIPE, produce, str(tmp_path))
    again = storage.load(RECIPE, produce, str(tmp_path))
    assert calls == ["train", "test"]
    for columns in (built, again):
        np.testing.assert_array_equal(columns["train"]["value"], [0, 1, 4, 9, 16])
        np.testing.assert_array_equal(columns["test"]["image"][:, 0, 0], [0, 1, 2])
        assert columns["train"]["image"].dtype == np.uint8
    assert capsys.readouterr().out == ""  # stdout belongs to the commands' results


def test_other_programs_can_read_the_records(tmp_path):
    """The folder is a TFDS dataset of the array_record format, with its documentation."""
    import tensorflow_datasets as tfds

    storage.load(RECIPE, produce, str(tmp_path))
    builder = tfds.builder_from_directory(str(place(tmp_path)))
    assert builder.info.splits["train"].num_examples == 5
    assert "squares" in builder.info.description
    source = builder.as_data_source("train[2:]")
    assert [float(source[row]["value"]) for row in range(3)] == [4, 9, 16]


def test_places_are_tried_in_order(tmp_path, monkeypatch):
    monkeypatch.setenv("CAUSAL_GEN_DATA", str(tmp_path / "env"))
    assert storage.folders("here") == [storage.Path("here"), tmp_path / "env", tmp_path / "cache" / "causal_gen" / "datasets"]
    storage.load(RECIPE, produce, None)
    assert place(tmp_path / "env").is_dir() and not (tmp_path / "cache").exists()
    storage.load(RECIPE, produce, str(tmp_path / "root"))  # found in the second place, so not built in the first
    assert len(calls) == 2


def test_a_folder_that_cannot_be_written_is_passed_over(tmp_path, monkeypatch):
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")
    monkeypatch.setenv("CAUSAL_GEN_DATA", str(blocker))
    storage.load(RECIPE, produce, None)
    assert place(tmp_path / "cache" / "causal_gen" / "datasets").is_dir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocker))
    with pytest.raises(DataError, match=r"^squares: cannot write .* set data.root"):
        storage.load(RECIPE, produce, None)


def test_a_folder_marked_read_only_is_left_alone_even_by_the_administrator(tmp_path, monkeypatch):
    """Tests often run as root, for whom writing there would succeed."""
    data = tmp_path / "data"
    data.mkdir(mode=0o555)
    monkeypatch.setenv("CAUSAL_GEN_DATA", str(data))
    storage.load(RECIPE, produce, None)
    assert list(data.iterdir()) == []
    assert place(tmp_path / "cache" / "causal_gen" / "datasets").is_dir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(data / "below"))
    with pytest.raises(DataError, match="marked read-only"):
        storage.load(RECIPE, produce, None)
    assert list(data.iterdir()) == []


def test_an_interrupted_build_is_built_again(tmp_path, capsys):
    def interrupted(split, fetch):
        if split == "test":
            raise KeyboardInterrupt
        return produce(split, fetch)

    with pytest.raises(KeyboardInterrupt):
        storage.load(RECIPE, interrupted, str(tmp_path))
    np.testing.assert_array_equal(storage.load(RECIPE, produce, str(tmp_path))["test"]["value"], [0, 1, 4])
    # killed after TFDS had finished, before the checksums; and killed inside TFDS, which leaves its unfinished folder
    (place(tmp_path) / "checksums.json").unlink()
    (place(tmp_path).parent / "incomplete.ABC123_1.0.0").mkdir()
    capsys.readouterr()
    np.testing.assert_array_equal(storage.load(RECIPE, produce, str(tmp_path))["train"]["value"], [0, 1, 4, 9, 16])
    message = capsys.readouterr().err.strip()
    assert "interrupted" in message and "\n" not in message
    assert sorted(path.name for path in place(tmp_path).parent.iterdir()) == ["1.0.0", "1.0.0.lock"]


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "hashes"])
def test_a_damaged_file_is_named(tmp_path, damage):
    storage.load(RECIPE, produce, str(tmp_path))
    file = place(tmp_path) / ("checksums.json" if damage == "hashes" else "columns/train.value.npy")
    data = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    else:
        data[-1] ^= 1
        file.write_bytes(data[:-8] if damage in ("cut", "hashes") else data)
    with pytest.raises(DataError, match=r"^squares: .*delete .* to build it again$") as raised:
        storage.load(RECIPE, produce, str(tmp_path))
    assert "\n" not in str(raised.value)


def test_errors_while_producing_stay_one_line(tmp_path):
    def failing(split, fetch):
        raise DataError(f"squares: no {split} rows; count again")

    with pytest.raises(DataError) as raised:
        storage.load(RECIPE, failing, str(tmp_path))
    assert str(raised.value) == "squares: no train rows; count again"


def test_a_full_disk_is_one_line_and_leaves_nothing_half_done(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.np, "save", full)
    with pytest.raises(DataError, match=r"^squares: cannot write .*No space left on device"):
        storage.load(RECIPE, produce, str(tmp_path))
    monkeypatch.undo()
    np.testing.assert_array_equal(storage.load(RECIPE, produce, str(tmp_path))["test"]["value"], [0, 1, 4])


def test_a_disk_that_fills_while_records_are_written_is_one_line(tmp_path):
    """In a process whose files may not grow beyond 100 kB, which is what a full disk looks like to the record writer."""
    program = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
import numpy as np
from causal_gen.data import storage
from causal_gen.types import DataError
recipe = storage.Recipe("noise", "n400", "1.0.0", "", "", {{"x": storage.Column((1000,), "uint8", "")}}, {{"train": 400}})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    storage.load(recipe, lambda split, fetch: {{"x": np.random.default_rng(0).integers(0, 256, (400, 1000), np.uint8)}}, {str(tmp_path)!r})
except DataError as error:
    print(error)
"""
    environment = {**os.environ, "PYTHONPATH": "."}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.startswith("noise: cannot write ") and "free space or set data.root" in done.stdout and done.stdout.count("\n") == 1


def test_importing_the_room_imports_no_builder_library():
    program = (
        "import sys, causal_gen.data.pendulum, causal_gen.data.morphomnist; print([m for m in sys.modules if m.startswith('tensorflow')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": "."}
    )
    assert done.stdout.strip() == "[]"


def test_progress_is_one_line_where_there_is_no_terminal(capsys, monkeypatch):
    ticks = iter(range(1000))
    monkeypatch.setattr(storage.time, "monotonic", lambda: float(next(ticks)))
    assert list(storage.progress("abc", 3, "letters")) == ["a", "b", "c"]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("letters: 3 in ")
