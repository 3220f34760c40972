"""How far several draws of the noise behind the same tokens agree on what would have been written.

Evidence does not say what the noise of a discrete draw was, only which values it could have had: each draw of that posterior answers an
intervention in its own way. Over d draws of answers to one intervention, at positions that come after the first that was set and were not
set themselves,

    changed    share of tokens that differ from the factual ones, a number a draw                                    (1)
    agreement  share of positions at which two draws say the same, over all pairs of draws                            (2)
    settled    share of positions at which all draws say the same                                                    (3)

What is settled is said by evidence and model; of the rest a single answer is one of several that are equally well supported. Letters: d
draws, b batch, t position.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from causal_gen.types import Bool, Int


def agreement(
    factual: Int[np.ndarray, "b t"], answers: Int[np.ndarray, "d b t"], places: Collection[int], own: Bool[np.ndarray, "b t"] | None = None
) -> dict[str, Any]:
    """(1-3) for answers to an intervention that sets `places`; None where nothing comes after them. `own` says which tokens count."""
    free = np.ones(factual.shape, bool) if own is None else own.copy()
    free[:, : min(places)] = False
    free[:, list(places)] = False
    if not free.any():
        return {"changed": None, "agreement": None, "settled": None}
    num = len(answers)
    pairs = [float((answers[i] == answers[j])[free].mean()) for i in range(num) for j in range(i)]
    return {
        "changed": [float((answer != factual)[free].mean()) for answer in answers],
        "agreement": float(np.mean(pairs)) if pairs else None,
        "settled": float((answers == answers[:1]).all(0)[free].mean()),
    }
