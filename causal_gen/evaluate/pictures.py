"""Pictures a person can judge at a glance: labelled columns of small images, enlarged without smoothing.

Images are [b, h, w, c] in [0, 1] with one or three channels, or uint8. A column named "difference" holds absolute differences
and is drawn from white (none) to dark red, on the scale that its label states.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from causal_gen.evaluate.base import to_bytes
from causal_gen.evaluate.batched import Batched
from causal_gen.parallel.interrupt import whole
from causal_gen.scm.intervention import do
from causal_gen.types import Float, Params, UInt8, WorkdirError

MAX_ROWS, GAP, SIDE = 16, 6, 112  # scenes drawn, pixels between tiles, side to which tiles are enlarged
FULL = 0.5  # the difference that is drawn darkest
RED = np.array([0.55, 0.0, 0.05])


def difference(a: Any, b: Any) -> Float[np.ndarray, "..."]:
    """|a - b|, averaged over channels, which stay as one: [..., h, w, 1]."""
    return np.abs(_floats(a) - _floats(b)).mean(-1, keepdims=True)


def heat(gap: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Differences [..., h, w, 1] as RGB: white at 0, dark red at FULL and above, evenly between."""
    share = np.clip(gap / FULL, 0.0, 1.0)
    return 1.0 - share * (1.0 - RED)


def _floats(image: Any) -> np.ndarray:
    image = np.asarray(image)
    return image.astype(np.float32) / 255.0 if image.dtype == np.uint8 else image.astype(np.float32)


def _rgb(name: str, image: Any) -> np.ndarray:
    image = _floats(image)
    image = heat(image if image.shape[-1] == 1 else np.abs(image).mean(-1, keepdims=True)) if name == "difference" else image
    return to_bytes(np.repeat(image, 3, -1) if image.shape[-1] == 1 else image)


def grid(columns: Mapping[str, Any], path: str | Path, title: str = "", labels: Sequence[str] | None = None) -> Path:
    """Write a PNG of `columns` {name: [b, h, w, c]}, one scene a row. Returns `path`.

    Where an entry has a range axis, [b, k, h, w, c], every scene becomes a block: its plain columns on the left, and
    a row of k pictures for each ranged entry, with `labels` (k of them, for example the values) over the columns. Where
    "counterfactual" and "truth" are there and no "difference", it is added. Raises `WorkdirError` where `path` cannot be written.
    """
    from PIL import Image

    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with whole(Path(path)) as part:
            Image.fromarray(compose(columns, title, labels)).save(part, format="PNG")
    except OSError as error:
        raise WorkdirError(f"pictures: cannot write {path} ({error.strerror or error}); free space or choose another folder") from error
    return Path(path)


def compose(columns: Mapping[str, Any], title: str = "", labels: Sequence[str] | None = None) -> UInt8[np.ndarray, "H W 3"]:
    """The picture that `grid` writes."""
    entries = {name: np.asarray(value)[:MAX_ROWS] for name, value in columns.items()}
    if {"counterfactual", "truth"} <= set(entries) and "difference" not in entries:
        entries["difference"] = difference(entries["counterfactual"], entries["truth"])
    ranged = {name: value for name, value in entries.items() if value.ndim == 5}
    plain = {name: _rgb(name, value) for name, value in entries.items() if value.ndim == 4}
    if not ranged:
        rows: list[list[np.ndarray | None]] = [[value[row] for value in plain.values()] for row in range(len(next(iter(plain.values()))))]
        return _sheet(rows, [_caption(name) for name in plain], [""] * len(rows), title)
    blocks = {name: _rgb(name, value) for name, value in ranged.items()}
    count = next(iter(blocks.values())).shape[1]
    tiles: list[list[np.ndarray | None]] = []
    sides: list[str] = []
    for scene in range(len(next(iter(blocks.values())))):
        for place, (name, value) in enumerate(blocks.items()):
            tiles.append([*(picture[scene] if place == 0 else None for picture in plain.values()), *value[scene]])
            sides.append(_caption(name))
    heads = [*(_caption(name) for name in plain), *(labels or [str(i) for i in range(count)])]
    return _sheet(tiles, heads, sides, title)


def _caption(name: str) -> str:
    return f"difference 0..{FULL:g}" if name == "difference" else name


def _sheet(tiles: list[list[np.ndarray | None]], heads: list[str], sides: list[str], title: str) -> np.ndarray:
    """Rows of equal tiles (None: an empty place) on white, with a text over every column, one before every row, and a title."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = next(tile for tile in tiles[0] if tile is not None).shape[:2]
    zoom = max(1, SIDE // max(height, width))
    step_x, step_y = width * zoom + GAP, height * zoom + GAP
    font, large = ImageFont.load_default(size=12), ImageFont.load_default(size=16)
    left = 14 + int(max(font.getlength(text) for text in sides)) if any(sides) else GAP
    lines = [_wrap(text, font, width * zoom) for text in heads]
    top = (30 if title else GAP) + 16 * max(len(part) for part in lines)
    total = max(left + step_x * len(heads), int(large.getlength(title)) + 2 * GAP)
    sheet = Image.new("RGB", (total, top + step_y * len(tiles)), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, 5), title, "black", font=large)
    for column, part in enumerate(lines):
        for line, text in enumerate(part):
            pen.text((left + column * step_x, top - 16 * (len(part) - line)), text, "black", font=font)
    for row, (pictures, side) in enumerate(zip(tiles, sides, strict=True)):
        pen.text((GAP, top + row * step_y + height * zoom // 2 - 7), side, "black", font=font)
        for column, picture in enumerate(pictures):
            if picture is None:
                continue
            x, y = left + column * step_x, top + row * step_y
            pen.rectangle((x - 1, y - 1, x + width * zoom, y + height * zoom), outline=(170, 170, 170))
            sheet.paste(Image.fromarray(picture).resize((width * zoom, height * zoom), Image.Resampling.NEAREST), (x, y))
    return np.asarray(sheet)


def _wrap(text: str, font: Any, width: int) -> list[str]:
    """The words of `text` in lines no longer than `width` pixels where words allow it."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def training_pictures(model: Any, source: Any, scenes: int = 6, steps: int = 20) -> Callable[..., dict[str, np.ndarray]]:
    """A function (params, step, stopped) -> {"counterfactuals": uint8 [H, W, 3]} for TensorBoard; {} once stopped() is true.

    The first test scenes, their reconstruction, and for every factor the counterfactual at one end of its range beside
    the truth where it is known. DDIM steps are cut to `steps`, which is enough to see by.
    """
    if getattr(model, "sampling", None) is not None:
        model = dataclasses.replace(model, sampling=dataclasses.replace(model.sampling, steps=min(steps, model.sampling.steps)))
    indices = np.arange(min(scenes, source.size("test")))
    batch, found = source.gather("test", indices), source.stats()
    acts = {}
    for factor in model.factors:
        low, middle, high = np.quantile(found[factor]["quantiles"], [0.1, 0.5, 0.9])
        acts[factor] = np.where(batch[factor] > middle, low, high).astype(np.float32)  # the far end: a change to be seen

    def draw(params: Params, step: int, stopped: Callable[[], bool]) -> dict[str, np.ndarray]:
        ask = Batched(model, params, len(indices))
        noise = ask.abduct(jax.random.key(0), batch)
        columns = {"factual": batch["image"], "reconstruction": ask.predict(noise)["image"]}
        for factor, values in acts.items():
            if stopped():
                return {}
            columns[f"do {factor}"] = ask.predict(noise, do(**{factor: values}))["image"]
            truth = source.truth("test", indices, do(**{factor: values}))
            if truth is not None:
                columns[f"truth {factor}"] = truth["image"]
        return {"counterfactuals": compose(columns, f"step {step}")}

    return draw
