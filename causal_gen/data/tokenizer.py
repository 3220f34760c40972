"""Text to tokens and back: bytes as they are, or byte-pair encoding fitted to a corpus.

    bytes   token = byte of the UTF-8 text, 256 of them. Text holds no byte 0 (data/corpus.py refuses it), so that 0 can end a document.
    bpe     0 ends a document; 1.. are the merges of Hugging Face `tokenizers` over bytes, its ids plus one, so that no text encodes to 0.

Both lose nothing: decode(encode(text)) == text. Fitting is deterministic: the same texts give the same JSON, whose hash is kept with a run.

Source: Sennrich, Haddow and Birch, Neural machine translation of rare words with subword units, ACL 2016; over bytes: Radford et al. 2019.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np

from causal_gen.types import DataError, Int

END = 0  # the token after every document
BYTES = 256
SMALLEST_BPE = BYTES + 1  # every byte is a token, and END


def check_tokens(tokens: Any, size: int, what: str = "tokens") -> Int[np.ndarray, "..."]:
    """`tokens` as integers, all of them in 0 .. size - 1. Raises `DataError` naming the first that is not, and its place."""
    found = np.asarray(tokens)
    if found.dtype.kind not in "iu":
        if found.size and not (found.dtype.kind == "f" and np.array_equal(found, np.round(found))):
            raise DataError(f"{what}: expected whole numbers 0..{size - 1}, got {found.dtype}; encode the text first")
        found = found.astype(np.int64)
    wrong = np.argwhere((found < 0) | (found >= size))
    if len(wrong):
        place = tuple(int(i) for i in wrong[0])
        text = str(list(place)) if place else ""
        raise DataError(f"{what}{text}: {int(found[place])} is outside of the vocabulary 0..{size - 1}; encode with this run's tokenizer")
    return found


@dataclasses.dataclass(frozen=True)
class ByteTokenizer:
    """A token a byte. Tokens are 0 .. size - 1."""

    size: int = BYTES

    @property
    def byte_lengths(self) -> Int[np.ndarray, "v"]:
        """Bytes of text that each token stands for; 0 for END."""
        return (np.arange(BYTES) != END).astype(np.int32)

    @property
    def files(self) -> dict[str, bytes]:
        """What has to be kept to read a run's tokens again: {file name: content}."""
        return {}

    def encode(self, texts: Sequence[str]) -> list[Int[np.ndarray, "..."]]:
        """The tokens of every text, without END."""
        return [np.frombuffer(text.encode(), np.uint8).astype(np.int32) for text in texts]

    def decode(self, tokens: Any) -> str:
        """The text of tokens [n]; END is left out, bytes that are no UTF-8 become U+FFFD. Raises `DataError` for a token out of range."""
        found = check_tokens(tokens, BYTES)
        return found[found != END].astype(np.uint8).tobytes().decode(errors="replace")


@dataclasses.dataclass(frozen=True)
class BpeTokenizer:
    """Byte-pair encoding, with the members of ByteTokenizer. `content` is the library's own JSON; its ids are ours less one."""

    content: str

    @functools.cached_property
    def _library(self) -> Any:
        return _tokenizers().Tokenizer.from_str(self.content)

    @functools.cached_property
    def size(self) -> int:
        return self._library.get_vocab_size() + 1

    @functools.cached_property
    def byte_lengths(self) -> Int[np.ndarray, "v"]:
        # the library spells each byte of a token as one printable character
        return np.array([0, *(len(self._library.id_to_token(i)) for i in range(self.size - 1))], np.int32)

    @property
    def files(self) -> dict[str, bytes]:
        return {"tokenizer.json": self.content.encode()}

    def encode(self, texts: Sequence[str]) -> list[Int[np.ndarray, "..."]]:
        """The tokens of every text."""
        return [np.asarray(found.ids, np.int32) + 1 for found in self._library.encode_batch_fast(list(texts))]

    def decode(self, tokens: Any) -> str:
        """The text of some tokens [t]; a character that is cut off becomes U+FFFD."""
        found = check_tokens(tokens, self.size)
        return self._library.decode((found[found != END] - 1).tolist())


Tokenizer: TypeAlias = ByteTokenizer | BpeTokenizer


def fit_bpe(texts: Iterable[str], size: int) -> BpeTokenizer:
    """Learn up to `size` tokens (fewer where the texts hold fewer pairs), END and the 256 bytes among them."""
    if size < SMALLEST_BPE:
        raise ValueError(f"BPE needs a vocabulary of at least {SMALLEST_BPE}, 256 bytes and the end of a document; got {size}")
    library = _tokenizers()
    found = library.Tokenizer(library.models.BPE())
    # no special token: text that spells one would encode to it
    found.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = library.decoders.ByteLevel()
    alphabet = sorted(library.pre_tokenizers.ByteLevel.alphabet())
    trainer = library.trainers.BpeTrainer(vocab_size=size - 1, min_frequency=2, initial_alphabet=alphabet, show_progress=False)
    found.train_from_iterator(texts, trainer)
    return BpeTokenizer(found.to_str())


def read_bpe(content: bytes, where: str) -> BpeTokenizer:
    """The tokenizer in a kept file. Raises `DataError` where it is none of ours."""
    try:
        kind = json.loads(content)["model"]["type"]
        found = BpeTokenizer(content.decode())
        if kind != "BPE" or found.size < SMALLEST_BPE:
            raise ValueError(f"a {kind} model of {found.size - 1} tokens")
    except Exception as error:  # the library raises plain Exception for JSON that it does not understand
        raise DataError(f"{where}: not a byte-level BPE tokenizer ({error}); take the file of the run's own workdir") from None
    return found


def fingerprint(tokenizer: Tokenizer) -> str:
    """sha256 of what `tokenizer` keeps; of nothing for bytes."""
    return hashlib.sha256(b"".join(tokenizer.files.values())).hexdigest()


def _tokenizers() -> Any:
    # importing takes .2 s; where a process forks after its threads ran, it would warn unless told that this is meant
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    import tokenizers

    return tokenizers
