"""Documents into rows of one length, nothing wasted and nothing lost, and the order in which they meet there.

The documents, each followed by END, are laid end to end and cut every `length` tokens, so that every token is in exactly one row. What a
row needs to know follows from its tokens alone:

    document_i = number of END before i in the row             position_i = i - (place after the last END before i, or 0)       (1)

so that positions start anew with every document, and stay below `length` in one that began in an earlier row. The last row is
filled with END, which `loss_mask` leaves out. The rows are those of structure/layout.py's `pack`, without its index maps: for a corpus they
would take forty times the memory of its bytes.

BM25 ordering: each document is followed by the one, of those left, that its words rank first,

    score(q, d) = sum_{w in q} ln(1 + (N - n_w + 1/2) / (n_w + 1/2)) f_wd (k + 1) / (f_wd + k (1 - b + b |d| / mean |d|))          (2)

with f_wd the count of w in d, n_w the number of documents with w, k = 1.5 and b = 0.75 (Robertson and Zaragoza 2009). N is a block of
documents drawn at random, since a chain over all of them costs their square. Source: Zhao et al., Analysing the impact of sequence
composition on language model pre-training, ACL 2024, section 2 (BM25Chunk).
"""

from __future__ import annotations

import collections
import re
from collections.abc import Sequence

import numpy as np

from causal_gen.data.tokenizer import END
from causal_gen.types import Float, Int, Integer

K, B = 1.5, 0.75
BLOCK = 2048
_WORD = re.compile(r"\w+")


def pack(documents: Sequence[Int[np.ndarray, "..."]], length: int, size: int) -> tuple[Integer[np.ndarray, "n t"], int]:
    """Rows [n, length] of tokens 0 .. size - 1 in the smallest dtype that holds them, and how many tokens of the last row are filling."""
    dtype = np.uint8 if size <= 1 << 8 else np.uint16 if size <= 1 << 16 else np.int32
    total = sum(len(tokens) + 1 for tokens in documents)
    rows = -(-total // length)
    stream = np.full(rows * length, END, dtype)
    place = 0
    for tokens in documents:
        stream[place : place + len(tokens)] = tokens
        place += len(tokens) + 1
    return stream.reshape(rows, length), rows * length - total


def fields(tokens: Integer[np.ndarray, "b t"]) -> dict[str, Int[np.ndarray, "b t"]]:
    """`document` and `position` of rows of tokens, eq. (1)."""
    begins = np.zeros(tokens.shape, bool)
    begins[:, 1:] = tokens[:, :-1] == END
    index = np.arange(tokens.shape[1], dtype=np.int32)
    first = np.maximum.accumulate(np.where(begins, index[None, :], np.int32(0)), axis=1)
    return {"document": np.cumsum(begins, axis=1, dtype=np.int32), "position": index[None, :] - first}


def random_order(seed: int, num: int) -> Int[np.ndarray, "{num}"]:
    """A permutation of 0 .. num - 1."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, 0x0DE5)))).permutation(num)


def bm25_order(seed: int, texts: list[str], block: int = BLOCK) -> Int[np.ndarray, "n"]:
    """A permutation in which each text is followed by its nearest by eq. (2) among those left of its block."""
    order = random_order(seed, len(texts))
    chains = [_chain([texts[int(i)] for i in order[start : start + block]]) for start in range(0, len(texts), block)]
    return np.concatenate([order[i * block + chain] for i, chain in enumerate(chains)]) if chains else order


def _chain(texts: Sequence[str]) -> Int[np.ndarray, "n"]:
    """The greedy chain from text 0; the first of equals, so that what shares no word keeps its order."""
    counts, weights = _weights(texts)
    left = np.zeros(len(texts))
    chain = [0]
    left[0] = -np.inf
    while len(chain) < len(texts):
        scores = (counts[chain[-1:]] @ weights).toarray()[0] + left
        chain.append(int(scores.argmax()))
        left[chain[-1]] = -np.inf
    return np.array(chain)


def _weights(texts: Sequence[str]):
    """Sparse counts [n, w] of every text's words, and what each word adds to the score of each text [w, n]."""
    from scipy import sparse

    vocabulary: dict[str, int] = {}
    rows, columns, values = [], [], []
    for row, text in enumerate(texts):
        for word, count in collections.Counter(_WORD.findall(text.lower())).items():
            rows.append(row)
            columns.append(vocabulary.setdefault(word, len(vocabulary)))
            values.append(float(count))
    counts = sparse.csr_array((values, (rows, columns)), shape=(len(texts), len(vocabulary)))
    lengths = np.asarray(counts.sum(1)).ravel()
    present = np.bincount(columns, minlength=len(vocabulary))
    rarity = np.log1p((len(texts) - present + 0.5) / (present + 0.5))
    entry = counts.tocoo()
    norm = K * (1 - B + B * lengths / max(lengths.mean(), 1e-9))
    weight: Float[np.ndarray, "..."] = rarity[entry.col] * entry.data * (K + 1) / (entry.data + norm[entry.row])
    return counts, sparse.csr_array((weight, (entry.col, entry.row)), shape=(len(vocabulary), len(texts)))
