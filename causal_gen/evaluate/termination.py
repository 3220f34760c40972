"""What is lost when a model's working is cut short: accuracy of its answers against the share of the working that it may write.

For test questions, decoded greedily: n is the length of the working that the model writes when it is left alone. The terminator is then put
in after floor(share n) tokens of working, at the latest, and behind it, where answers have formats, the instruction to use one of them:

    accuracy(share) = share of rows whose next token is the answer, in the format asked for                               (1)
    cut(share)      = 1 - tokens of working written / those of the whole working                                          (2)
    formatted       = share of answers, right or wrong, that are in that format, with the instruction and without it      (3)

`spared` is the largest cut at which accuracy is at most 3 points below that of the whole working. Source: Li et al. 2025 (ThinkLess).
Letters: b batch, n rows, t position.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from causal_gen.models import decoding
from causal_gen.sampling.truncation import DecodingConfig, Insert
from causal_gen.types import Int, Key, Params

SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
DROP = 0.03


def measure(model: Any, params: Params, key: Key, source: Any, indices: Int[np.ndarray, "n"], batch_size: int) -> dict[str, Any]:
    """(1) to (3) over the test rows at `indices`; empty where the data has no working."""
    task: Any = getattr(source, "config", None)
    if not hasattr(task, "closing") or not hasattr(model, "engine"):
        return {}
    rows = source.gather("test", indices)["tokens"]
    ending = len(task.closing) + 1
    most = rows.shape[1] - task.question - ending  # what leaves room for the terminator, the instruction and the answer

    def write(after: Int[np.ndarray, "n"], closing: tuple[int, ...]) -> Int[np.ndarray, "n t"]:
        prompt = np.tile(rows[:, : task.question], (len(after) // len(rows), 1))
        force, greedy = Insert(closing, after, model.vocabulary), DecodingConfig(top_k=1)
        found = decoding.generate(model, params, key, prompt, steps=most + ending, sampling=greedy, constraint=force)
        return np.concatenate([prompt, np.asarray(found.tokens)], 1)

    alone = write(np.full(len(rows), most), task.closing[:1])
    whole = task.working(alone)
    written = write(np.floor(np.outer(SHARES, whole) + 1e-6).astype(np.int64).reshape(-1), task.closing)
    answers = task.answers(written).reshape(len(SHARES), -1)
    right = (answers == task.asked(rows)).mean(1)
    kept = task.working(written).reshape(len(SHARES), -1).mean(1) / whole.mean()
    curve = {f"{share:g}": {"accuracy": a, "cut": 1 - k} for share, a, k in zip(SHARES, right.tolist(), kept.tolist(), strict=True)}
    spared = max(point["cut"] for point in curve.values() if point["accuracy"] >= right[-1] - DROP)
    formatted = {"instructed": float(task.formatted(answers[-1]).mean()), "alone": float(task.formatted(task.answers(alone)).mean())}
    return {"curve": curve, "spared": spared, "whole": float(whole.mean()), **({"formatted": formatted} if task.formats > 1 else {})}
