"""The evaluation of an embedder: how often the nearest of all test partners is the right one, and how hard its negatives are.

    recall@k = share of test rows i whose own partner is among the k nearest by cosine                                        (1)
    negatives: mean cosine of a row with other rows' partners, and with the `model.hard` hardest of them                      (2)

Ties count against the model. Letters: n rows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.evaluate.base import EvaluateConfig, recorded
from causal_gen.losses import contrastive
from causal_gen.parallel.mesh import fetch, spread
from causal_gen.types import Array, Float, Params


@recorded
def evaluate(run: Any, settings: EvaluateConfig, seed: int, progress: Callable[[str], Any]) -> dict[str, Any]:
    """Measure `run` on all test rows; `seed` is taken as by every evaluation, nothing is drawn."""
    del seed
    source, size = run.data, run.data.size("test")
    batches = [
        spread(dict(source.gather("test", np.arange(start, min(start + settings.batch_size, size)))))
        for start in range(0, size, settings.batch_size)
    ]
    found = [fetch(_embedded(run.model, run.params, batch)) for batch in batches]
    one, other = (np.concatenate([pair[side] for pair in found]) for side in range(2))
    cosines = np.asarray(contrastive.cosines(jnp.asarray(one), jnp.asarray(other)))
    out: dict[str, Any] = {"step": int(run.step), "rows": size, **recall(cosines)}
    hard = contrastive.mined(jnp.asarray(cosines), run.model.config.hard)
    out["negatives"] = {"hard": float(hard.mean()), "any": float(contrastive.mined(jnp.asarray(cosines), 0).mean())}
    progress(f"evaluate: recall@1 {out['recall@1']:.4f}, recall@5 {out['recall@5']:.4f} among {size}")
    return out


@functools.partial(jax.jit, static_argnums=0)
def _embedded(model: Any, params: Params, batch: Mapping[str, Array]) -> tuple[Array, Array]:
    config = model.config
    one, other = (model.embed(params, batch, name, config.mask_schedule.end) for name in (config.inputs, config.partner))
    return one, other


def recall(cosines: Float[np.ndarray, "n n"]) -> dict[str, float]:
    """(1) for k of 1 and 5."""
    better = (cosines >= np.diagonal(cosines)[:, None]).sum(1) - 1
    return {f"recall@{k}": float((better < k).mean()) for k in (1, 5)}
