"""metrics.jsonl, the parameter table, whole files."""

from __future__ import annotations

import io
import json

import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.parallel.rules import Row
from causal_gen.train.log import LogConfig, Logger, format_table, truncate_metrics, write_json
from causal_gen.types import WorkdirError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def logger(folder, stream, **kwargs):
    return Logger(folder, LogConfig(every=2, tensorboard=False), total=6, first=0, batch_size=4, stream=stream, **kwargs)


def test_a_row_holds_means_since_the_last_row_and_what_was_held_out(tmp_path):
    stream = io.StringIO()
    with logger(tmp_path, stream, flops=1e6, peak=1e9) as log:
        for step in range(1, 7):
            log.step(step, {"loss": float(step), "lr": 0.1 * step}, {"eval_loss": 9.0} if step == 3 else None)
    rows = lines(tmp_path / "metrics.jsonl")
    assert [(row["step"], row["loss"]) for row in rows] == [(2, 1.5), (3, 3.0), (4, 4.0), (6, 5.5)]
    assert [row.get("eval_loss") for row in rows] == [None, 9.0, None, None]
    assert rows[-1]["lr"] == pytest.approx(0.6)  # a rate is not averaged
    assert all(row["examples_per_s"] > 0 for row in rows)
    shown = stream.getvalue().splitlines()
    assert len(shown) == 4 and all("of peak" in line and "ETA" in line and "examples/s" in line for line in shown)
    assert "held-out 9" in shown[1]


def test_time_aside_is_not_in_the_rate(tmp_path):
    import time

    with logger(tmp_path, io.StringIO()) as log:
        log.step(1, {"loss": 1.0})
        with log.aside():
            time.sleep(0.2)
        log.step(2, {"loss": 1.0})
    assert lines(tmp_path / "metrics.jsonl")[0]["examples_per_s"] > 8 / 0.2


def test_on_a_terminal_there_is_a_bar(tmp_path):
    with logger(tmp_path, Terminal()) as log:
        log.say("hello")
        for step in range(1, 7):
            log.step(step, {"loss": 1.0})
    assert len(lines(tmp_path / "metrics.jsonl")) == 3


def test_rows_after_the_step_resumed_from_and_half_rows_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in (2, 4, 6, 8)) + '{"step": 1')
    truncate_metrics(path, 5)
    assert [row["step"] for row in lines(path)] == [2, 4]


def test_json_is_written_whole_or_not_at_all(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(ValueError):
        loop: list = []
        loop.append(loop)
        write_json(tmp_path / "a.json", loop)
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}
    with pytest.raises(WorkdirError, match="cannot write"):
        write_json(tmp_path / "no" / "a.json", {})
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_the_table_lists_every_leaf_and_their_sums():
    text = format_table([Row("a/kernel", (3, 4), "('fsdp',)", 24), Row("b", (), "()", 4)]).splitlines()
    assert text[1].split() == ["a/kernel", "3x4", "('fsdp',)", "24"]
    assert text[2].split() == ["b", "scalar", "()", "4"]
    assert text[3].split() == ["2", "leaves", "13", "28"]


def test_pictures_and_scalars_reach_tensorboard_and_samples(tmp_path):
    with Logger(tmp_path, LogConfig(every=1), total=1, first=0, batch_size=4, stream=io.StringIO()) as log:
        log.step(1, {"loss": 0.25})
        log.pictures(1, {"grid": np.asarray(jnp.zeros((4, 6, 3), jnp.uint8))})
    (events,) = tmp_path.glob("events.out.tfevents.*")
    assert b"loss" in events.read_bytes() and b"grid" in events.read_bytes()
    assert (tmp_path / "samples" / "grid_00000001.png").read_bytes().startswith(b"\x89PNG")
