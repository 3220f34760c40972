"""Text as rows of tokens: a corpus of documents, a tokenizer fitted to its training part, and documents packed without waste.

Rows of the training split are packed in the order `order`; those of the test split, the last 5% of the documents (data/corpus.py), in their
own, so that runs that differ in order are scored on the same rows. Fields per token are those of data/packing.py.

A corpus of JSON lines such as {"year": 1912, "party": "r", "text": "..."} is read with
`header=("year", "party")`, so that its documents begin with the line "year=1912 party=r" and both are in the text.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from causal_gen.data import corpus, kept, packing
from causal_gen.data.tokenizer import BYTES, END, SMALLEST_BPE, BpeTokenizer, ByteTokenizer, Tokenizer, fingerprint, fit_bpe, read_bpe
from causal_gen.scm.intervention import Acts, Intervention
from causal_gen.types import DataError, Entry, Float, Int


def token_entries(length: int, vocabulary: int, description: str) -> dict[str, Entry]:
    """The two entries that every source of tokens has: the tokens, and which of them are scored."""
    return {
        "tokens": Entry((length,), "int32", "", 0.0, vocabulary - 1.0, description, vocabulary),
        "loss_mask": Entry((length,), "float32", "", 0.0, 1.0, "1 where the token is scored, given those before it"),
    }


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """Rows of `length` tokens, at most `size` and `test_size` of them (None: all).

    corpus: "stdlib", the Python standard library, which every machine has; or a file or folder of text, of which `pattern` picks files,
    JSON lines among them: their text is `field`, and `header` names fields for a first line. `documents`: only the first so many.
    piece: cut documents into ones of at most so many characters (0: leave them whole); each piece keeps the header line.
    order: of the training documents: as they come, shuffled, or each followed by its nearest (BM25).
    vocabulary: tokens of BPE at most, 256 for bytes.
    """

    name: str = "text"
    root: str | None = None
    corpus: str = corpus.STDLIB
    pattern: str = "**/*.txt"
    field: str = "text"
    header: tuple[str, ...] = ()
    documents: int | None = dataclasses.field(default=None, metadata={"min": 1})
    piece: int = dataclasses.field(default=0, metadata={"min": 0})
    order: str = dataclasses.field(default="given", metadata={"choices": ("given", "random", "bm25")})
    tokenizer: str = dataclasses.field(default="bytes", metadata={"choices": ("bytes", "bpe")})
    vocabulary: int = dataclasses.field(default=BYTES, metadata={"min": BYTES})
    length: int = dataclasses.field(default=256, metadata={"min": 2})
    size: int | None = dataclasses.field(default=None, metadata={"min": 1})
    test_size: int | None = dataclasses.field(default=None, metadata={"min": 1})
    seed: int = dataclasses.field(default=0, metadata={"min": 0})

    def __post_init__(self):
        if self.tokenizer == "bytes" and self.vocabulary != BYTES:
            raise ValueError(
                f"tokenizer=bytes has a vocabulary of {BYTES}, got {self.vocabulary}; leave vocabulary out, or set tokenizer=bpe"
            )
        if self.tokenizer == "bpe" and self.vocabulary < SMALLEST_BPE:
            raise ValueError(f"tokenizer=bpe needs a vocabulary of at least {SMALLEST_BPE}, got {self.vocabulary}")
        if 0 < self.piece < 16:
            raise ValueError(f"piece={self.piece} is shorter than 16 characters; set 0 to leave documents whole")

    @property
    def entries(self) -> Mapping[str, Entry]:
        """Tokens, the mask of those that are scored, and the fields that say which document a token is of and where in it."""
        last = self.length - 1.0
        return {
            **token_entries(self.length, self.vocabulary, "text, each document followed by 0"),
            "document": Entry((self.length,), "int32", "", 0.0, last, "number of the token's document in the row"),
            "position": Entry((self.length,), "int32", "", 0.0, last, "place of the token in its document's part of the row"),
        }

    def make(self) -> Text:
        """The source, its tokens in memory (1 byte each for bytes). Raises `DataError` for a corpus that is missing, empty or not text."""
        source = Text(self)
        source.size("train")  # what is wrong with a corpus is said here, not at the first step
        return source

    def reopen(self, folder: Path, stats: Mapping[str, Any]) -> Text:
        """The source of a run, with the tokenizer that it kept in `folder`; the corpus is read when its rows are first asked for."""
        if self.tokenizer == "bytes":
            return Text(self)
        facts = stats["tokens"]
        content = kept.load(folder, "tokenizer.json", facts["sha256"])
        return Text(self, read_bpe(content, str(folder / "tokenizer.json")))


@dataclasses.dataclass(frozen=True, eq=False)
class Text:
    """The source. `fitted` is the tokenizer of an earlier start; without one it is fitted to the training documents."""

    config: TextConfig
    fitted: BpeTokenizer | None = None

    @property
    def name(self) -> str:
        return "text" + (" (Python standard library)" if self.config.corpus == corpus.STDLIB else f" ({self.config.corpus})")

    @property
    def entries(self) -> Mapping[str, Entry]:
        return self.config.entries

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """Raises `DataError` where a kept tokenizer has more tokens than the config's vocabulary."""
        if self.config.tokenizer == "bytes":
            return ByteTokenizer()
        found = self.fitted or fit_bpe(self.texts["train"], self.config.vocabulary)
        if found.size > self.config.vocabulary:
            raise DataError(f"text: the kept tokenizer has {found.size} tokens, data.vocabulary {self.config.vocabulary}; take that back")
        return found

    @functools.cached_property
    def texts(self) -> dict[str, list[str]]:
        """The documents of both splits, or their pieces, in the order in which they are packed."""
        return {split: [text for text, _ in found] for split, found in self._owned.items()}

    @functools.cached_property
    def _owned(self) -> dict[str, list[tuple[str, int]]]:
        """Each text with the number of the document in its split that it is, or is a piece of."""
        c, found = self.config, {}
        for split, texts in corpus.split(corpus.read(c.corpus, c.root, c.pattern, c.field, c.header, c.documents)).items():
            parts = (_pieces(text, c.piece, bool(c.header)) if c.piece else [text] for text in texts)
            found[split] = [(part, number) for number, pieces in enumerate(parts) for part in pieces]
        train = found["train"]
        if c.order == "random":
            found["train"] = [train[i] for i in packing.random_order(c.seed, len(train))]
        elif c.order == "bm25":
            found["train"] = [train[i] for i in packing.bm25_order(c.seed, [text for text, _ in train])]
        return found

    @functools.cached_property
    def _packed(self) -> dict[str, tuple[np.ndarray, int]]:
        """Rows of either split and the number of filling tokens at the end of the last; a split cut short has none."""
        found = {}
        for split, limit in (("train", self.config.size), ("test", self.config.test_size)):
            rows, filling = packing.pack(self.tokenizer.encode(self.texts[split]), self.config.length, self.config.vocabulary)
            found[split] = (rows, filling) if limit is None or limit >= len(rows) else (rows[:limit], 0)
        return found

    @property
    def files(self) -> dict[str, bytes]:
        """What a run keeps in its workdir's data/."""
        return self.tokenizer.files

    def size(self, split: str) -> int:
        return len(self._packed[split][0])

    def gather(self, split: str, indices: Int[np.ndarray, "b"]) -> dict[str, np.ndarray]:
        """Rows `indices` and their fields."""
        rows, filling = self._packed[split]
        tokens = rows[indices]
        mask = np.ones(tokens.shape, np.float32)
        if filling:
            mask[np.asarray(indices) == len(rows) - 1, -filling:] = 0.0
        return {"tokens": tokens.astype(np.int32), "loss_mask": mask, **packing.fields(tokens)}

    def byte_counts(self, split: str, indices: Int[np.ndarray, "b"]) -> Float[np.ndarray, "b"]:
        """Bytes of text that each row's scored tokens stand for."""
        batch = self.gather(split, indices)
        return (self.tokenizer.byte_lengths[batch["tokens"]] * batch["loss_mask"]).sum(1, dtype=np.float64)

    def clusters(self, split: str, indices: Int[np.ndarray, "b"]) -> Int[np.ndarray, "b"]:
        """The document of the split that each row begins in: rows of one document are alike."""
        ends = np.cumsum((self._packed[split][0] == END).sum(1))
        owners = np.array([number for _, number in self._owned[split]])
        return owners[np.concatenate([[0], ends[:-1]])[indices]]

    def stats(self) -> dict[str, Any]:
        """What was fitted: the tokenizer's size and sha256, and how many documents and tokens there are to train on."""
        facts = {"vocabulary": self.tokenizer.size, "sha256": fingerprint(self.tokenizer), "documents": len(self.texts["train"])}
        return {"tokens": {**facts, "count": self.size("train") * self.config.length}}

    def truth(self, split: str, indices: Int[np.ndarray, "b"], do: Intervention | Acts | None) -> None:
        """Nobody knows what a text would have been."""
        del split, indices, do


def _pieces(text: str, limit: int, header: bool) -> list[str]:
    first, _, body = text.partition("\n") if header else ("", "", text)
    return [f"{first}\n{piece}" if header else piece for piece in corpus.cut(body, limit)]
