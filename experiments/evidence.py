"""What a counterfactual starts from: rows of a split, or a file or folder of the user's own.

test:0:16        rows 0 to 15 of the test split; the simulator, where there is one, knows their true counterfactuals
FILE.npz         arrays named as the entries are (image [b, h, w, c], in 0..1 or uint8), or as counterfactual.npz names them
FILE.png|jpg     one picture; a FOLDER holds several
FILE.csv         a header of entry names, `image` being paths relative to the file; or FILE.parquet, where pyarrow is installed
FILE.txt         UTF-8 text for a model of text, cut into rows of its length; the last is filled up, which changes nothing before
"""

from __future__ import annotations

import dataclasses
import re
import sys
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from causal_gen.data import corpus, table
from causal_gen.data.tokenizer import END, check_tokens
from causal_gen.types import DataError

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")


@dataclasses.dataclass(frozen=True)
class Evidence:
    """`batch` [b, ...] by entry name; `split` and `indices` [b] where the rows are the data source's own.

    `lengths` [b] says how many tokens of each row are the user's own, where the last row was filled up.
    """

    batch: dict[str, np.ndarray]
    source: str
    split: str | None = None
    indices: np.ndarray | None = None
    lengths: np.ndarray | None = None

    @property
    def num(self) -> int:
        return len(next(iter(self.batch.values())))


def load(text: str | None, run: Any, num: int) -> Evidence:
    """The evidence that `text` names, at most `num` rows of a folder or file. Raises `DataError` naming what is wrong with it."""
    text = text or f"test:0:{min(num, run.data.size('test'))}"
    rows = re.fullmatch(r"(\w+):(\d+):(\d+)", text)
    if rows:
        return _rows(text, run.data, rows[1], int(rows[2]), int(rows[3]))
    path, entries = Path(text), run.data.entries
    if (path.is_dir() or path.suffix.lower() in PICTURES) and path.exists() and "image" not in entries:
        raise DataError(f"evidence {path}: this model has no image among its entries {', '.join(entries)}; give {_readable(run)}")
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURES)
        if not files:
            raise DataError(f"evidence {path}: the folder holds no picture ({', '.join(PICTURES)})")
        batch = {"image": _pictures(files[:num], entries["image"].shape)}
    elif not path.is_file():
        raise DataError(f"evidence {text}: no such file or folder; write {_readable(run)}")
    elif path.suffix.lower() in PICTURES:
        batch = {"image": _pictures([path], entries["image"].shape)}
    elif path.suffix == ".npz":
        batch = _arrays(path, entries, num)
    elif path.suffix.lower() in (".csv", ".tsv", ".parquet"):
        batch = _table(path, entries, num)
    elif path.suffix == ".txt" and "tokens" in entries and hasattr(run.data, "tokenizer"):
        batch, lengths = _text(path, run, num)
        return Evidence(batch, text, lengths=lengths)
    else:
        raise DataError(f"evidence {path}: cannot read {path.suffix or 'a file without ending'}; give {_readable(run)}")
    return Evidence(batch, text)


def _readable(run: Any) -> str:
    """What can be evidence for a run, for a line about what cannot."""
    if "image" in run.data.entries:
        return "SPLIT:START:STOP, a FILE.npz|png|jpg|csv or a FOLDER of pictures"
    if all(not entry.shape for entry in run.data.entries.values()):
        return "SPLIT:START:STOP, a FILE.csv or a FILE.npz"
    return "SPLIT:START:STOP" + (", a FILE.npz or a FILE.txt" if hasattr(run.data, "tokenizer") else " or a FILE.npz")


def _text(path: Path, run: Any, num: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The file's text as rows of tokens [b, t], at most `num`, and how many of each are its own."""
    (text,) = corpus.read(str(path.absolute()), None, "", "", ())
    tokens, length = run.data.tokenizer.encode([text])[0], run.data.entries["tokens"].shape[0]
    count = -(-len(tokens) // length)
    kept = tokens[: num * length]
    rows = np.full((min(count, num), length), END, np.int32)
    rows.reshape(-1)[: len(kept)] = kept
    lengths = np.minimum(length, len(kept) - length * np.arange(len(rows)))
    left = f", the first {num} are taken (--num)" if count > num else ""
    if count > 1 or lengths[-1] < length:
        _note(f"{len(tokens):,} tokens make {count} row{'s' * (count > 1)} of up to {length}{left}")
    return {"tokens": rows, "loss_mask": (np.arange(length) < lengths[:, None]).astype(np.float32)}, lengths


def _rows(text: str, data: Any, split: str, start: int, stop: int) -> Evidence:
    if split not in ("train", "test"):
        raise DataError(f"evidence {text}: unknown split {split!r}; the splits are train and test")
    if not start < stop <= data.size(split):
        raise DataError(f"evidence {text}: the split holds rows 0:{data.size(split)}; give START < STOP within")
    indices = np.arange(start, stop)
    return Evidence(dict(data.gather(split, indices)), text, split, indices)


def _pictures(files: Iterable[Path], shape: tuple[int, ...]) -> np.ndarray:
    """Pictures as f32 [b, h, w, c] in [0, 1] at the model's size; transparency is laid on white. What was changed is said."""
    from PIL import Image, UnidentifiedImageError

    (height, width, channels), arrays, changed = shape, [], []
    for file in files:
        try:
            with Image.open(file) as opened:
                found = opened.convert("RGBA")
        except (UnidentifiedImageError, OSError) as error:
            raise DataError(f"evidence {file}: not a picture that can be read ({type(error).__name__}); replace or remove it") from error
        flat = Image.alpha_composite(Image.new("RGBA", found.size, "white"), found).convert("L" if channels == 1 else "RGB")
        if flat.size != (width, height):
            changed.append(f"{file.name} from {flat.size[0]}x{flat.size[1]}")
            flat = flat.resize((width, height), Image.Resampling.BOX if flat.size[0] >= width else Image.Resampling.BICUBIC)
        arrays.append(np.asarray(flat, np.float32).reshape(height, width, channels) / 255)
    if changed:
        shown = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
        _note(f"resized to {width}x{height}: {shown}")
    if channels == 1:
        _note("read as greyscale; the model was trained on bright strokes on black, invert your pictures if they are dark on white")
    return np.stack(arrays)


def _arrays(path: Path, entries: Mapping[str, Any], num: int) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: np.asarray(file[name]) for name in file.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise DataError(f"evidence {path}: not an .npz of plain arrays ({error}); write it with numpy.savez") from error
    batch = {}
    for name, entry in entries.items():
        value = found.get(name, found.get(f"factual_{name}"))
        if value is None:
            continue
        if value.shape[1:] != tuple(entry.shape) or not len(value):
            raise DataError(f"evidence {path}: {name!r} has shape {value.shape}; the model takes [b, {', '.join(map(str, entry.shape))}]")
        if entry.vocabulary is not None:
            value = check_tokens(value, entry.vocabulary, f"evidence {path}: {name}")
        batch[name] = _unit(path, name, value[:num]) if name == "image" else value[:num].astype(entry.dtype)
    if not batch:
        raise DataError(f"evidence {path}: holds {', '.join(found) or 'nothing'}; name the arrays {', '.join(entries)}")
    if len({len(value) for value in batch.values()}) > 1:
        raise DataError(f"evidence {path}: its arrays differ in length; give every entry the same number of rows")
    return batch


def _unit(path: Path, name: str, value: np.ndarray) -> np.ndarray:
    image = value.astype(np.float32) / (255 if value.dtype == np.uint8 else 1)
    if not np.isfinite(image).all() or image.min() < -1e-3 or image.max() > 1 + 1e-3:
        raise DataError(f"evidence {path}: {name!r} runs from {image.min():g} to {image.max():g}; give floats in 0..1, or uint8")
    return np.clip(image, 0, 1)


def _table(path: Path, entries: Mapping[str, Any], num: int) -> dict[str, np.ndarray]:
    what = f"evidence {path}"
    cells = {name: list(column[:num]) for name, column in table.read(path, what).items()}
    known = [name for name, entry in entries.items() if name == "image" or not entry.shape]
    names = [name for name in cells if name in known]
    if not names:
        raise DataError(f"{what}: no column of {', '.join(known) or 'numbers'}; write a header with these names")
    batch = {}
    for name in names:
        if name == "image":
            batch[name] = _pictures([path.parent / str(cell) for cell in cells[name]], entries[name].shape)
        else:
            batch[name] = table.column(cells[name], entries[name], f"{what}: column {name!r}")
    return batch


def _note(text: str) -> None:
    print(f"evidence: {text}", file=sys.stderr)
