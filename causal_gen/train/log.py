"""What a person sees of a run: a progress bar or a line a log step, metrics.jsonl, TensorBoard events, pictures."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from causal_gen.parallel.interrupt import whole
from causal_gen.parallel.rules import Row
from causal_gen.types import WorkdirError


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """A line every `every` steps (means since the last one); the held-out loss every `eval_every` (0: only with checkpoints), over
    `eval_batches` batches; pictures every `pictures_every` (0: none)."""

    every: int = dataclasses.field(default=50, metadata={"min": 1})
    pictures_every: int = dataclasses.field(default=0, metadata={"min": 0})
    eval_every: int = dataclasses.field(default=500, metadata={"min": 0})
    eval_batches: int = dataclasses.field(default=4, metadata={"min": 1})
    tensorboard: bool = True


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all: to a temporary file beside `path`, then renamed. Raises WorkdirError where the disk refuses."""
    try:
        with whole(path) as part:
            part.write_text(json.dumps(value, indent=2, default=str) + "\n")
    except OSError as error:
        raise WorkdirError(
            f"cannot write {path} ({error.strerror or error}): free space or rights there, or give another --workdir"
        ) from error


def truncate_metrics(path: Path, step: int) -> None:
    """Drop the lines of metrics.jsonl after `step`, which a resumed run will write again, and a line cut short by a kill."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    with whole(path) as part:
        part.write_text("".join(line + "\n" for line in kept))


def format_table(rows: Sequence[Row]) -> str:
    """The parameter table as text: path, shape, partition and bytes on a device, with a last line of totals."""
    cells = [("parameter", "shape", "spec", "bytes/device")]
    cells += [(row.path, "x".join(map(str, row.shape)) or "scalar", row.spec, f"{row.bytes:,}") for row in rows]
    count = sum(int(np.prod(row.shape, dtype=np.int64)) for row in rows)
    cells.append((f"{len(rows)} leaves", f"{count:,}", "", f"{sum(row.bytes for row in rows):,}"))
    widths = [max(len(line[i]) for line in cells) for i in range(4)]
    return "\n".join(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:<{widths[2]}}  {d:>{widths[3]}}".rstrip() for a, b, c, d in cells)


class Logger:
    """Takes the metrics of every step in order; writes and shows a line at log steps and wherever `extra` says more.

    `flops` of a step and `peak` of all devices, per second, give the percentage shown (None: not shown). One that is `quiet` takes the
    same calls and leaves no trace: of several processes one writes.
    """

    def __init__(
        self,
        workdir: Path,
        config: LogConfig,
        *,
        total: int,
        first: int,
        batch_size: int,
        flops: float | None = None,
        peak: float | None = None,
        stream: Any = None,
        quiet: bool = False,
    ):
        self.config, self._total, self._batch = config, total, batch_size
        self._flops, self._peak, self._stream = flops, peak, stream or sys.stdout
        path = Path(os.devnull) if quiet else workdir / "metrics.jsonl"
        if not quiet:
            truncate_metrics(path, first)
        try:
            self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115  (closed in close)
        except OSError as error:
            raise WorkdirError(f"cannot write {workdir / 'metrics.jsonl'} ({error.strerror or error}): give another --workdir") from error
        self._stream = self._file if quiet else self._stream
        self._board = _board(workdir, first) if config.tensorboard and not quiet else None
        self._samples = workdir / "samples"
        self._sums: dict[str, float] = {}
        self._count, self._passed, self._since = 0, 0, time.perf_counter()
        self._bar = _bar(total, first) if self._stream.isatty() else None

    def step(self, step: int, metrics: Mapping[str, float], extra: Mapping[str, float] | None = None) -> None:
        """The numbers of one finished step, {} of one that was passed over; `extra` (held-out losses) stand beside means of the window."""
        for name, value in metrics.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        self._passed += not metrics
        if step % self.config.every and step != self._total and not extra:
            if self._bar is not None:
                self._bar.update(self._bar.task_ids[0], completed=step)
            return
        seconds = time.perf_counter() - self._since
        rate = self._count / max(seconds, 1e-9)
        means = {name: value / (self._count - self._passed) for name, value in self._sums.items()}
        means |= {"lr": metrics["lr"]} if "lr" in metrics else {}
        means |= {"passed_over": self._passed} if self._passed else {}
        row = {"step": step, **means, "examples_per_s": rate * self._batch, **(extra or {})}
        self._sums, self._count, self._passed, self._since = {}, 0, 0, time.perf_counter()
        self._write(row)
        self._show(step, row, rate)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Time spent in here, on other things than training, does not count in the rate."""
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start

    def __enter__(self) -> Logger:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _write(self, row: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
        except OSError as error:
            raise WorkdirError(
                f"cannot write metrics.jsonl ({error.strerror or error}): free space there and run again to go on"
            ) from error
        if self._board is not None:
            for name, value in row.items():
                if name != "step":
                    self._board.add_scalar(name, value, row["step"])

    def _show(self, step: int, row: dict[str, Any], rate: float) -> None:
        left = int((self._total - step) / max(rate, 1e-9))
        parts = [f"loss {row['loss']:.4g}" if "loss" in row else ""]
        parts += [f"held-out {row['eval_loss']:.4g}"] if "eval_loss" in row else []
        parts += [f"{row['examples_per_s']:.0f} examples/s"]
        parts += [f"{100 * self._flops * rate / self._peak:.0f}% of peak"] if self._flops and self._peak else []
        parts += [f"ETA {left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"]
        text = "  ".join(part for part in parts if part)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=step, description=text)
        else:
            print(f"step {step}/{self._total}  {text}", file=self._stream, flush=True)

    def say(self, text: str) -> None:
        """A line for the person, above the bar if there is one."""
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=self._stream, flush=True)

    def pictures(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """u8 [h, w, 3] each: to samples/ as PNG and to TensorBoard."""
        from PIL import Image  # only runs that draw pay for it

        self._samples.mkdir(exist_ok=True)
        for name, image in images.items():
            Image.fromarray(np.asarray(image)).save(self._samples / f"{name}_{step:08d}.png")
            if self._board is not None:
                self._board.add_image(name, np.asarray(image), step, dataformats="HWC")

    def close(self) -> None:
        """Finish the files and the progress bar."""
        if self._bar is not None:
            self._bar.stop()
        self._file.close()
        if self._board is not None:
            self._board.close()


def _board(workdir: Path, first: int) -> Any:
    from tensorboardX import SummaryWriter  # 0.2 s, only for runs that train

    return SummaryWriter(str(workdir), purge_step=first + 1 if first else None, flush_secs=10)


def _bar(total: int, first: int) -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    bar = Progress(BarColumn(bar_width=30), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
    bar.add_task("compiling", total=total, completed=first)
    bar.start()
    return bar
