"""Rows of tokens as a person reads them: passages, and answers beside their evidence, position by position.

A position is a cell: a character of text where tokens are bytes, a piece of text where they are BPE tokens, else a number. Cells that
share a position stand below one another, so that what moved is seen where it moved. What does not print has a sign of its own.
Letters: b batch, t position.
"""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from causal_gen.data.tokenizer import END, ByteTokenizer, check_tokens
from causal_gen.types import Bool, Int

WIDTH = 72  # characters of text in a line
GOES_ON = "\u00b7"  # a byte that belongs to the character before
# signs that the usual fonts of terminals and browsers have; few have Unicode's control pictures
ENDS, BREAKS = "\u2205", "\u21b5"
SIGNS = {chr(END): ENDS, "\n": BREAKS, "\t": "\u2192"}
LEGEND = f"""=  set by the intervention     ^  first other position that differs     ~  differs
{ENDS}  end of a document           {BREAKS}  end of a line
{GOES_ON}  goes on from the character before"""


def printable(text: str) -> str:
    """`text` with a sign in the place of whatever does not print: one of SIGNS, or U+FFFD."""
    return "".join(map(_printable, text))


def _printable(letter: str) -> str:
    hidden = unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    return SIGNS.get(letter, "\ufffd") if hidden else letter


@dataclasses.dataclass(frozen=True)
class Spelling:
    """How tokens are written: as `tokenizer` decodes them, or as numbers where a source has none."""

    tokenizer: Any = None

    @property
    def gap(self) -> str:
        """What stands between the cells of a line: nothing where each is one character wide."""
        return " " if self.tokenizer is None else "" if isinstance(self.tokenizer, ByteTokenizer) else "|"

    def cells(self, tokens: Int[np.ndarray, "t"]) -> list[str]:
        """A short text for every position. Raises `DataError` for a token that the tokenizer does not have."""
        if self.tokenizer is None:
            return [str(int(token)) for token in tokens]
        if isinstance(self.tokenizer, ByteTokenizer):
            # bytes that are no UTF-8 become one surrogate each
            text = check_tokens(tokens, self.tokenizer.size).astype(np.uint8).tobytes().decode(errors="surrogateescape")
            parts = ([letter, *(len(letter.encode(errors="surrogateescape")) - 1) * GOES_ON] for letter in text)
            return [cell if cell == GOES_ON else _printable(cell) for part in parts for cell in part]
        return [self._piece(int(token)) for token in tokens]

    def _piece(self, token: int) -> str:
        text = "\0" if token == END else self.tokenizer.decode([token])
        return f"<{token}>" if "\ufffd" in text else printable(text)  # a part of a character has no spelling of its own

    def passage(self, tokens: Int[np.ndarray, "t"]) -> str:
        """A row as running text, lines and tabs kept, the end of a document as its sign; or as numbers."""
        if self.tokenizer is None:
            return " ".join(self.cells(tokens))
        ends = np.flatnonzero(np.asarray(tokens) == END)
        text = "\0".join(self.tokenizer.decode(part[part != END]) for part in np.split(np.asarray(tokens), ends))
        return "".join(letter if letter in "\n\t" else _printable(letter) for letter in text)


def first_difference(
    factual: Int[np.ndarray, "b t"], answer: Int[np.ndarray, "b t"], forced: Bool[np.ndarray, "t"]
) -> Int[np.ndarray, "b"]:
    """The first position of each row that differs without having been set; -1 where none does."""
    moved = (factual != answer) & ~forced[None]
    return np.where(moved.any(1), moved.argmax(1), -1)


def moved(spelling: Spelling, factual: Int[np.ndarray, "t"], answer: Int[np.ndarray, "t"], forced: Bool[np.ndarray, "t"]) -> str:
    """A line about what an answer changed beyond what was set."""
    first = int(first_difference(factual[None], answer[None], forced)[0])
    if first < 0:
        return "nothing else differs from the factual sequence"
    before, after = spelling.cells(factual)[first], spelling.cells(answer)[first]
    later = ~forced[first:]
    count = int((factual != answer)[first:][later].sum())
    return f"first differs at position {first}, {before!r} -> {after!r}; from there on {count} of {later.sum()} tokens differ"


def side_by_side(
    spelling: Spelling,
    rows: Mapping[str, Int[np.ndarray, "t"]],
    answers: Mapping[str, Int[np.ndarray, "t"]],
    forced: Bool[np.ndarray, "t"],
    first: int = 0,
) -> str:
    """Lines of `rows` (factual first) and of `answers` below one another, each answer with a line of marks (`LEGEND`).

    Lines begin with the position of their first token, where that of the whole is `first`. A stretch in which all agree and nothing was
    set is written once.
    """
    versions = {**rows, **answers}
    cells = {name: spelling.cells(tokens) for name, tokens in versions.items()}
    widths = [max(map(len, column)) for column in zip(*cells.values(), strict=True)]
    factual = next(iter(rows.values()))
    marks = {name: _marks(factual, tokens, forced) for name, tokens in answers.items()}
    left = max(map(len, (*versions, "all")))
    out = []
    for start, stop in _stretches(widths, len(spelling.gap)):
        lines = {name: spelling.gap.join(_padded(found[start:stop], widths[start:stop])) for name, found in cells.items()}
        agree = all(np.array_equal(tokens[start:stop], factual[start:stop]) for tokens in versions.values())
        place = f"{first + start:>6}  "
        if agree and not forced[start:stop].any():
            out.append(f"{place}{'all':{left}}  {lines[next(iter(rows))]}".rstrip())
            continue
        for name, line in lines.items():
            out.append(f"{place}{name:{left}}  {line}".rstrip())
            place = " " * len(place)
            if name in marks and marks[name][start:stop].strip():
                drawn = [mark * width for mark, width in zip(marks[name][start:stop], widths[start:stop], strict=True)]
                out.append(f"{place}{'':{left}}  {(' ' * len(spelling.gap)).join(drawn)}".rstrip())
        out.append("")
    return "\n".join(out).rstrip()


def _padded(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True)]


def _marks(factual: np.ndarray, answer: np.ndarray, forced: np.ndarray) -> str:
    first = first_difference(factual[None], answer[None], forced)[0]
    moved = factual != answer
    return "".join("=" if forced[i] else "^" if i == first else "~" if moved[i] else " " for i in range(len(answer)))


def _stretches(widths: Sequence[int], gap: int) -> list[tuple[int, int]]:
    """Cuts positions into lines of at most WIDTH characters, one position at least."""
    found, start, used = [], 0, 0
    for place, width in enumerate(widths):
        if place > start and used + width > WIDTH:
            found.append((start, place))
            start, used = place, 0
        used += width + gap
    return [*found, (start, len(widths))] if widths else found
