"""The evaluation of a codebook transformer: what filling in a span costs from both sides or one, and the axioms of its counterfactuals.

    heldout   nats a code of whole streams, told from left to right under the delay; of a model of the left side, without spans          (1)
    infill    nats a code of one span a stream, given what the model sees beside it: both sides, or the left one ("sides")               (2)
    null, takes, earlier, later   as in hybrid.py, later being in the order of slots                                                     (3)

The spans of (2) are drawn by the seed as in training, and are the same for every model of one data source and the same lengths.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from causal_gen.evaluate import hybrid, likelihood, sequences
from causal_gen.evaluate.base import EvaluateConfig, recorded
from causal_gen.models.objectives import Query, draw_spans
from causal_gen.parallel.mesh import fetch, spread
from causal_gen.types import Int, Key, Params


@recorded
def evaluate(run: Any, settings: EvaluateConfig, seed: int, progress: Callable[[str], Any]) -> dict[str, Any]:
    """Measure `run`: likelihoods of all test rows, interventions on one batch of `settings.scenes` of them."""
    key, size = jax.random.key(seed), run.data.size("test")
    indices = np.sort(np.random.default_rng(seed).permutation(size)[: settings.scenes])
    out: dict[str, Any] = {"step": int(run.step), "scenes": len(indices), "seed": seed}
    out["heldout"] = likelihood.heldout(run.model, run.params, key, run.data, batch_size=settings.batch_size)
    out["infill"] = infill(run.model, run.params, key, run.data, np.arange(size), settings.batch_size)
    progress(f"evaluate: {sequences.summary(out['heldout'])}; of a span {out['infill']['value']:.4f} given {out['infill']['sides']}")
    out |= sequences.accuracy(run.model, run.params, run.data, indices, settings.batch_size)
    out |= hybrid.interventions(run, key, indices[: settings.batch_size], seed)
    progress(f"evaluate: null {out['null']:.6f}, do takes {out['takes']:.6f}, moved earlier {out['earlier']}, later {out['later']}")
    return out


@functools.partial(jax.jit, static_argnums=0)
def _masked(model: Any, params: Params, batch: Mapping[str, Any], mask: Any) -> Any:
    return model.log_prob(params, jax.random.key(0), batch, Query(mask=mask))


def infill(model: Any, params: Params, key: Key, source: Any, indices: Int[np.ndarray, "n"], batch_size: int) -> dict[str, Any]:
    """(2) with its standard error over rows."""
    config, nats, codes = model.config, [], []
    for start in range(0, len(indices), batch_size):
        batch = source.gather("test", indices[start : start + batch_size])
        mask = model.inside(draw_spans(config.moved, jax.random.fold_in(key, start), len(batch["tokens"]), model.steps))
        nats.append(-np.asarray(fetch(_masked(model, params, spread(dict(batch)), mask)), np.float64))
        codes.append(np.asarray(mask.sum(1)))
    value, error = likelihood.rate(np.concatenate(nats), np.concatenate(codes))
    return {"value": value, "se": error, "bits": value / math.log(2), "sides": "both sides" if config.right else "the left side"}
