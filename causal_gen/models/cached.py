"""A transformer stack over the keys and values of a text so far, by the kinds of sampling/cache.py.

Letters: b batch, k new tokens, d width.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp

from causal_gen.nn.transformer import Decoder
from causal_gen.sampling import cache as caches
from causal_gen.sampling.cache import Cache
from causal_gen.types import Array, Float, Int, Params


def step(
    decoder: Decoder, params: Params, held: Cache, x: Float[Array, "b k d"], fields: dict[str, Int[Array, "b k"]]
) -> tuple[Float[Array, "b k d"], Cache]:
    """Hidden states of k more slots with `fields`, and the cache with their keys and values."""
    if held.kind == "append":  # nothing leaves: the new tokens go to their slots at once, in place, and are read there
        run: Any = functools.partial(decoder.apply, {"params": params["decoder"]}, x, fields, cache=held.store, blocks=params.get("layers"))
        labelled = caches.claim(held, fields)
        h, store = run(k_fields={**labelled.fields, "valid": labelled.valid}, at=held.count)
        return h, dataclasses.replace(labelled, store=store)
    h, new, _ = beside(decoder, params, held, x, fields)
    return h, caches.insert(held, new, fields)


def beside(
    decoder: Decoder, params: Params, held: Cache, x: Float[Array, "b k d"], fields: dict[str, Int[Array, "b k"]], maps: bool = False
) -> tuple[Float[Array, "b k d"], Any, dict[str, Array]]:
    """Hidden states of k slots that see the cache and one another, their keys and values, and what else the decoder tells."""
    run: Any = functools.partial(decoder.apply, {"params": params["decoder"]}, x, fields, cache=held.store, blocks=params.get("layers"))
    both = {name: jnp.concatenate([held.fields[name], value], 1) for name, value in fields.items()}
    both["valid"] = jnp.concatenate([held.valid, jnp.ones(x.shape[:2], bool)], 1)
    return run(k_fields=both, aux=True, maps=maps)
