"""How far a model's samples are from a law that is known, where the source is a table of all sequences (data/enumerable.py).

total_variation = 1/2 sum_x |n_x / n - p(x)|   of n samples                                                       (1)
floor           = the same of n draws from p itself
exact           = 1/2 sum_x |q(x) - p(x)|,  kl = sum_x p(x) log p(x) / q(x)   of a model whose log q is exact     (2)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from causal_gen.evaluate.drawing import draws_of
from causal_gen.evaluate.ranking import likelihoods
from causal_gen.types import Key, Params


def measure(model: Any, params: Params, key: Key, source: Any, draws: int, batch_size: int) -> dict[str, Any]:
    """(1) of `draws` samples (0: leave it out), and (2); empty where the source has no such law."""
    law: Any = getattr(source, "config", None)
    if not hasattr(law, "total_variation"):
        return {}
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
