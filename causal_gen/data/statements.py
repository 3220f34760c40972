"""Statements to be ranked: of a few that say different things, which is true (or grammatical). Made by a source, or read from a file.

A file has one JSON object a line: {"group": "agreement", "good": "The cat sleeps.", "bad": ["The cat sleep."]}. BLiMP's own names are
understood too: sentence_good, sentence_bad and UID. Letters: n items, k statements of one, t places.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from causal_gen.types import DataError, Float, Int


@dataclasses.dataclass(frozen=True)
class Statements:
    """Items of `k` statements each, as tokens, with what of them is scored, and which of the k is the true one."""

    tokens: Int[np.ndarray, "n k t"]
    mask: Float[np.ndarray, "n k t"]
    truth: Int[np.ndarray, "n"]


def read(path: Path, tokenizer: Any, length: int, end: int = 0) -> dict[str, Statements]:
    """The statements of a file by group, as rows of at most `length` tokens, filled up with `end`. In each the first is the true one.

    Raises `DataError` for a file that cannot be read, a line that is no item, or a statement that is too long.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"statements: cannot read {path} ({error}); give a file of JSON lines, evaluate.statements") from None
    items: dict[tuple[str, int], list[list[str]]] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            group, texts = _item(line, f"{path}:{number}")
            items.setdefault((group, len(texts)), []).append(texts)
    if not items:
        raise DataError(f"statements: {path} is empty; give it a line an item")
    sizes: dict[str, set[int]] = {}
    for group, count in items:
        sizes.setdefault(group, set()).add(count)
    if mixed := next((group for group, counts in sizes.items() if len(counts) > 1), None):
        raise DataError(
            f"statements: {path}: the items of group {mixed!r} have {sorted(sizes[mixed])} statements; give all of them as many"
        )
    return {group: _rows(texts, tokenizer, length, end, str(path)) for (group, _), texts in items.items()}


def _item(line: str, where: str) -> tuple[str, list[str]]:
    try:
        found = json.loads(line)
        good = found.get("good", found.get("sentence_good"))
        bad = found.get("bad", found.get("sentence_bad"))
        group = str(found.get("group", found.get("UID", "all")))
    except (ValueError, AttributeError) as error:
        raise DataError(f"statements: {where}: not a JSON object ({error}); write it as {{'group': .., 'good': .., 'bad': [..]}}") from None
    bad = [bad] if isinstance(bad, str) else bad
    if not isinstance(good, str) or not isinstance(bad, list) or not bad or not all(isinstance(text, str) for text in bad):
        raise DataError(f"statements: {where}: needs a text 'good' and one or more texts 'bad'")
    if good in bad:
        raise DataError(f"statements: {where}: the good statement is also among the bad ones")
    return group, [good, *bad]


def _rows(items: list[list[str]], tokenizer: Any, length: int, end: int, where: str) -> Statements:
    count = len(items[0])
    rows = tokenizer.encode([text for texts in items for text in texts])
    longest = max(len(row) for row in rows)
    if longest > length:
        raise DataError(
            f"statements: {where}: a statement has {longest} tokens, the model's texts {length}; shorten it or raise data.length"
        )
    tokens, mask = np.full((len(rows), length), end, np.int32), np.zeros((len(rows), length), np.float32)
    for place, row in enumerate(rows):
        tokens[place, : len(row)] = row
        mask[place, : len(row)] = 1.0
    shape = (len(items), count, length)
    return Statements(tokens.reshape(shape), mask.reshape(shape), np.zeros(len(items), np.int32))
