"""Documents from files: plain text, JSON lines, folders of either, gzipped or not; or the Python standard library.

A document is a string. A folder's files come in the order of their paths, a JSON-lines file's documents in the order of its lines, so that
the same corpus gives the same documents everywhere. The last 5% of the documents are held out.
"""

from __future__ import annotations

import json
import os
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from causal_gen.data import storage
from causal_gen.types import DataError

STDLIB = "stdlib"  # the name of the corpus that every machine has
HELD_OUT = 0.05
_SKIPPED = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}


def find(corpus: str, root: str | None) -> Path:
    """The file or folder `corpus` in `root`; without one, in $CAUSAL_GEN_DATA or here. Raises `DataError` where it is in none."""
    if root is not None:
        places = [Path(root).expanduser()]
    else:
        kept = os.environ.get("CAUSAL_GEN_DATA")
        places = [*([Path(kept).expanduser()] if kept else []), Path()]
    for place in places:
        if (place / Path(corpus).expanduser()).exists():
            return place / Path(corpus).expanduser()
    looked = ", ".join(str(place.absolute()) for place in places)
    raise DataError(f"text: no corpus {corpus!r} in {looked}; set data.root or CAUSAL_GEN_DATA to its folder, or data.corpus to its path")


def read(corpus: str, root: str | None, pattern: str, field: str, header: Sequence[str], limit: int | None = None) -> list[str]:
    """At most `limit` documents of `corpus`, none of them empty.

    Of a folder the files that match `pattern` are read. A JSON line's text is in `field`; `header` names fields that become a first line
    "name=value name=value". Raises `DataError` for a corpus that is missing or empty, or a file that is not text.
    """
    if corpus == STDLIB:
        found, where = _take((text for path in _standard_library() for text in _texts(path, field, ())), limit), STDLIB
    else:
        path = find(corpus, root)
        found, where = _take((text for file in _files(path, pattern) for text in _texts(file, field, header)), limit), str(path)
    if not found:
        raise DataError(f"text: {where} holds no text; give a corpus with at least one document that is not empty")
    return found


def split(documents: Sequence[str]) -> dict[str, list[str]]:
    """Train and test: the last 5% of the documents, at least one, are held out. One document alone is cut at a line's end near 95%.

    Raises `DataError` for a corpus too short to be cut.
    """
    if len(documents) == 1:
        text = documents[0]
        place = round((1 - HELD_OUT) * len(text))
        place = text.rfind("\n", 0, place) + 1 or place
        if not 0 < place < len(text):
            raise DataError(f"text: a corpus of {len(text)} characters cannot be split; give more text")
        return {"train": [text[:place]], "test": [text[place:]]}
    held = max(1, round(HELD_OUT * len(documents)))
    return {"train": list(documents[:-held]), "test": list(documents[-held:])}


def cut(text: str, limit: int) -> list[str]:
    """`text` in pieces of at most `limit` characters that end, where they can, at a line's end, a sentence's, or a word's."""
    pieces, start = [], 0
    while len(text) - start > limit:
        ends = (text.rfind(mark, start, start + limit) + len(mark) for mark in ("\n", ". ", " "))
        # a mark that is found only near the start would leave crumbs
        end = next((end for end in ends if start + limit // 2 < end <= start + limit), start + limit)
        pieces.append(text[start:end])
        start = end
    return [*pieces, text[start:]] if start < len(text) else pieces


def _take(texts: Iterator[str], limit: int | None) -> list[str]:
    found = []
    for text in texts:
        if limit is not None and len(found) == limit:
            break
        if text.strip():
            found.append(text)
    return found


def _standard_library() -> Iterator[Path]:
    for folder, below, names in os.walk(sysconfig.get_paths()["stdlib"]):
        below[:] = sorted(set(below) - _SKIPPED)
        yield from (Path(folder) / name for name in sorted(names) if name.endswith(".py"))


def _files(path: Path, pattern: str) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.glob(pattern) if file.is_file())
    if not found:
        raise DataError(f"text: no file of {path} matches {pattern!r}; set data.pattern, for instance to '**/*.jsonl'")
    return found


def _texts(path: Path, field: str, header: Sequence[str]) -> Iterator[str]:
    text = _decode(path)
    if not path.name.removesuffix(".gz").endswith((".jsonl", ".ndjson")):
        yield text
        return
    for number, line in enumerate(text.split("\n"), 1):  # splitlines would also cut at U+2028, which JSON allows inside a string
        if line.strip():
            yield _record(line, f"{path}, line {number}", field, header)


def _record(line: str, where: str, field: str, header: Sequence[str]) -> str:
    try:
        record: Any = json.loads(line)
    except ValueError as error:
        raise DataError(f"text: {where}: not JSON ({error}); write one object a line") from None
    missing = [name for name in (field, *header) if not isinstance(record, dict) or name not in record]
    if missing:
        known = ", ".join(record) if isinstance(record, dict) else type(record).__name__
        raise DataError(f"text: {where}: no field {missing[0]!r}; set data.field and data.header among {known}")
    body = record[field]
    if not isinstance(body, str):
        raise DataError(f"text: {where}: field {field!r} is not a string but {type(body).__name__}; set data.field to the one that is")
    if "\0" in body:
        raise DataError(f"text: {where}: not text, it holds a byte 0; remove the line")
    if not body.strip() or not header:
        return body
    line_one = " ".join(f"{name}={' '.join(str(record[name]).split())}" for name in header)
    return f"{line_one}\n{body}"


def _decode(path: Path) -> str:
    data = storage.unpacked(path, "text")
    if b"\0" in data:
        raise DataError(f"text: {path} is not text (a byte 0 at {data.index(0)}); leave it out, or set data.pattern to what is text")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"text: {path} is not UTF-8 text (byte {data[error.start]:#04x} at {error.start}); convert it or leave it out"
        ) from None
