"""Samples for the parts of an evaluation that measure samples: drawn as the model samples, a batch at a time."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from causal_gen.parallel.mesh import fetch
from causal_gen.scm import counterfactual as asking
from causal_gen.types import Int, Key, Params


def draws_of(model: Any, params: Params, key: Key, source: Any, num: int, batch_size: int) -> Int[np.ndarray, "{num} t"]:
    """`num` sequences; what the model is conditioned on is that of the first `num` test rows, in turn (`rows_of`)."""
    node, size, found = next(iter(model.spans)), min(batch_size, num), []
    for start in range(0, num, size):
        rows = source.gather("test", rows_of(source, start + size)[start:])
        context = {name: rows[name] for name in model.context if name in rows} or None
        found.append(np.asarray(fetch(asking.sample(model, params, jax.random.fold_in(key, start), size, context)[node])))
    return np.concatenate(found)[:num]


def rows_of(source: Any, num: int) -> Int[np.ndarray, "{num}"]:
    """The first `num` test rows, from the beginning again where there are fewer."""
    return np.arange(num) % source.size("test")
