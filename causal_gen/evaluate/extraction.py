"""What a language model finds that is asked to list it: F1 of (type, name) pairs, and whether its answers can be read at all.

For test rows the last answer is decoded greedily, once under a constraint that allows nothing but an answer ("constrained"), once freely:

    f1     = 2 |told & true| / (|told| + |true|) over the pairs of all rows, as multisets; what cannot be read tells nothing       (1)
    parsed = share of answers that are lists of types, each with a word of the sentence, and end                                 (2)

Source: Dukic et al. 2025 (SIFT), who score spans; names are words here. Letters: b batch, v vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from causal_gen.models import decoding
from causal_gen.sampling.truncation import DecodingConfig, Listing
from causal_gen.types import Int, Key, Params


def measure(model: Any, params: Params, key: Key, source: Any, indices: Int[np.ndarray, "n"], batch_size: int) -> dict[str, Any]:
    """(1) and (2) over the test rows at `indices`; empty where the data asks for no lists."""
    task: Any = getattr(source, "config", None)
    if not hasattr(task, "parsed") or not hasattr(model, "engine"):
        return {}
    out: dict[str, Any] = {}
    for name in ("constrained", "free"):
        hits = told = true = parsed = 0
        for start in range(0, len(indices), batch_size):
            rows = source.gather("test", indices[start : start + batch_size])[model.config.tokens]
            prompt, sentence = task.prompt(rows), task.sentence(rows)
            words = np.zeros((len(rows), model.vocabulary), bool)
            np.put_along_axis(words, sentence, True, 1)
            rule = Listing(task.types(), words, task.end, task.answer) if name == "constrained" else None
            found = decoding.generate(model, params, key, prompt, steps=task.answer, sampling=DecodingConfig(top_k=1), constraint=rule)
            for answer, row, own in zip(np.asarray(found.tokens), rows, sentence, strict=True):
                got, want = task.parsed(answer, own), task.parsed(row[prompt.shape[1] :], own)
                true += want.total()
                if got is not None:
                    parsed, told, hits = parsed + 1, told + got.total(), hits + (got & want).total()
        out[name] = {"f1": 2 * hits / max(told + true, 1), "parsed": parsed / len(indices)}
    return out
