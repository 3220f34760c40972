"""How many of the true names of what a prompt shows are among those that a model tells.

For test rows whose prompt has n true names, in no order:

    one_shot   = |told & true| / n, told the n likeliest names that parallel branches find (sampling/parallel.py)             (1)
    sequential = the same of the first n names of the greedy text, which reads what it has told                              (2)

(2) means little of a model whose names do not see one another: it tells the likeliest name again. Letters: b batch, n names, w words.

The measures are this project's own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from causal_gen.models import decoding
from causal_gen.sampling.truncation import DecodingConfig
from causal_gen.types import Int, Key, Params


def measure(model: Any, params: Params, key: Key, source: Any, indices: Int[np.ndarray, "n"], batch_size: int) -> dict[str, Any]:
    """(1) and (2) over the test rows at `indices`; empty where the source knows no names."""
    task: Any = getattr(source, "config", None)
    if not hasattr(task, "names"):
        return {}
    hits = np.zeros(2)
    for start in range(0, len(indices), batch_size):
        batch = source.gather("test", indices[start : start + batch_size])
        tokens = batch[model.config.tokens]
        prompt, true = task.prompt(tokens), task.names(tokens)
        context = {name: batch[name] for name in model.context if name in batch}
        apart = decoding.one_shot(model, params, prompt, ways=true.shape[1], steps=true.shape[2], context=context)
        rest = tokens.shape[1] - prompt.shape[1]
        told = decoding.generate(model, params, key, prompt, steps=rest, sampling=DecodingConfig(top_k=1), context=context)
        after = task.names(np.concatenate([prompt, np.asarray(told.tokens)], 1))
        hits += [found(np.asarray(names), true) for names in (apart.tokens, after)]
    return {name: float(hit / len(indices)) for name, hit in zip(("one_shot", "sequential"), hits, strict=True)}


def found(told: Int[np.ndarray, "b m w"], true: Int[np.ndarray, "b n w"]) -> float:
    """Share of the true names that are told, summed over rows."""
    return float((true[:, :, None] == told[:, None]).all(-1).any(2).mean(1).sum())
