"""What a bounded cache costs: nats a scored token of test rows that are decoded a token at a time, by what is evicted.

    nats(policy, c) = - sum log p(x_i | what a cache of c slots holds of x_<i) / number of scored tokens                  (1)

for the policies window (the last c), attention (H2O) and learned (models/retaining.py), at a half and a quarter of the slots of a row, and
for the whole row ("dense"). `held` is the most that any cache held, in tokens. Letters: b batch, n rows, t position, v vocabulary.

Sources of the policies: H2O, Zhang et al. 2023; Locret, Huang et al. 2024. The measure is this project's own.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.losses import categorical
from causal_gen.models.causal_transformer import START
from causal_gen.models.causal_transformer_config import CacheConfig
from causal_gen.types import Array, Batch, Int, Key, Params

SHARES = (0.5, 0.25)


def measure(model: Any, params: Params, key: Key, source: Any, indices: Int[np.ndarray, "n"], batch_size: int) -> dict[str, Any]:
    """(1) over the first `batch_size` of the test rows at `indices`; empty where the model has no heads that learn what to keep."""
    if not isinstance(params, dict) or "retain" not in params:
        return {}
    batch = jax.tree.map(jnp.asarray, dict(source.gather("test", indices[:batch_size])))
    dense, most = _stepped(_keeping(model, CacheConfig()), params, batch)
    out: dict[str, Any] = {"dense": float(dense), "slots": int(most)}
    for share in SHARES:
        slots = max(2, round(share * model.length))
        recent = min(model.config.cache.recent, slots - 1)
        chosen = {name: CacheConfig("evict", slots, name, recent) for name in ("attention", "learned")}
        told: dict[str, Any] = {"slots": slots, "held": 0}
        for name, cache in {"window": CacheConfig("ring", slots), **chosen}.items():
            nats, held = _stepped(_keeping(model, cache), params, batch)
            told |= {name: float(nats), "held": max(told["held"], int(held))}
        out[f"{share:g}"] = told
    return out


def _keeping(model: Any, cache: CacheConfig) -> Any:
    return dataclasses.replace(model, config=dataclasses.replace(model.config, cache=cache))


@functools.partial(jax.jit, static_argnums=0)
def _stepped(model: Any, params: Params, batch: Batch) -> tuple[Array, Array]:
    """(1) for the model's own cache, and the most tokens that it held."""
    tokens = batch[model.config.tokens]
    num, t = tokens.shape
    engine = model.engine(params, batch, t)

    def one(cache: Any, token: Array) -> tuple[Any, tuple[Array, Array]]:
        logits, cache = engine.advance(cache, token[:, None])
        return cache, (logits[:, 0], cache.held.valid.sum(1).max())

    slots = jnp.concatenate([jnp.full((num, 1), START), tokens[:, :-1]], 1)
    _, (logits, held) = jax.lax.scan(one, model.empty(params, num, t, batch), slots.T)
    mask = batch.get("loss_mask", jnp.ones(tokens.shape))
    return (categorical.nll(jnp.swapaxes(logits, 0, 1), tokens) * mask).sum() / mask.sum(), held.max()
