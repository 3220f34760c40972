"""How far a model's samples are from a law that is known: a table of all sequences (data/enumerable.py), or rules that a row keeps or not.

total_variation = 1/2 sum_x |n_x / n - p(x)|   of n samples                                                       (1)
floor           = the same of n draws from p itself
exact           = 1/2 sum_x |q(x) - p(x)|,  kl = sum_x p(x) log p(x) / q(x)   of a model whose log q is exact     (2)
solved          = share of n samples that the source accepts; distinct, how many of those are different rows (data/grammar.py)    (3)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from causal_gen.evaluate.drawing import draws_of
from causal_gen.evaluate.ranking import likelihoods
from causal_gen.types import Key, Params


def measure(model: Any, params: Params, key: Key, source: Any, draws: int, batch_size: int) -> dict[str, Any]:
    """(1) of `draws` samples (0: leave it out), and (2), or (3) of them; empty where the source has neither law nor rules."""
    law: Any = getattr(source, "config", None)
    if not hasattr(law, "total_variation"):
        return _accepted(model, params, key, source, draws, batch_size) if draws and hasattr(source, "solved") else {}
    out: dict[str, Any] = {"entropy": law.entropy}
    if draws:
        samples = draws_of(model, params, key, source, draws, max(batch_size, 1_000))
        out |= {"draws": draws, "total_variation": law.total_variation(samples), "floor": law.floor(draws)}
    if model.likelihood == "exact":
        log_q, p = likelihoods(model, params, key, law.outcomes, max(batch_size, 1_000)), law.probabilities
        q, seen = np.exp(log_q), p > 0
        out["exact"] = {
            "total_variation": float(0.5 * np.abs(q - p).sum()),
            "kl": float((p[seen] * (np.log(p[seen]) - log_q[seen])).sum()),
            "mass": float(q.sum()),
        }
    return out


def _accepted(model: Any, params: Params, key: Key, source: Any, draws: int, batch_size: int) -> dict[str, Any]:
    """(3)."""
    samples = draws_of(model, params, key, source, draws, batch_size)
    right = np.asarray(source.solved(samples), bool)
    return {"draws": draws, "solved": float(right.mean()), "distinct": len(np.unique(samples[right], axis=0))}
