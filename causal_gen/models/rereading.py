"""Reading a text anew for every token that is predicted: what a stack says of a slot where nothing after it exists.

    h_i = decoder(slot_0 .. slot_i)_i,   under any visibility among slots 0 .. i, causal or not                             (1)

Under a causal visibility one pass gives (1) for all i. Under another one slot 0 reads differently in every text that goes on, so that no
key can be kept from one token to the next: (1) is a run of the stack for each i, here a row of a batch, in which the slots after i are
hidden. A cache holds the slots themselves. Where all but the visibility of what comes last is causal (a prompt read whole, then an
answer) one pass is (1) for the answer, and only decoding, which writes the prompt as well, has to read anew.

Source: (1) Ewer et al., ENTP: Encoder-only Next Token Prediction (2024). Letters: b batch, k tokens to predict, c slots, d width.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from causal_gen.nn.transformer import Decoder
from causal_gen.sampling import cache as caches
from causal_gen.sampling.cache import Cache
from causal_gen.structure.masks import causal, tree, valid
from causal_gen.structure.visibility import Fields, cut
from causal_gen.types import Array, Bool, Float, Int, Params


def entries(x: Float[Array, "b t d"]) -> tuple[dict[str, Array]]:
    """Slots as a cache keeps them."""
    return ({"slot": x},)


def last(decoder: Decoder, params: Params, x: Float[Array, "b t d"], fields: Fields, num: int) -> Float[Array, "b k d"]:
    """(1) of the last `num` of t slots."""
    first = x.shape[1] - num
    read = {name: cut(field, first, num) for name, field in fields.items()}
    seen = jnp.broadcast_to(causal()(read, fields)[:, 0], (x.shape[0], num, x.shape[1]))
    at = jnp.broadcast_to(jnp.arange(first, x.shape[1])[None], (x.shape[0], num))
    return _read(decoder, params, x, fields, seen, at)


def step(
    decoder: Decoder, params: Params, held: Cache, x: Float[Array, "b k d"], fields: dict[str, Int[Array, "b k"]]
) -> tuple[Float[Array, "b k d"], Cache]:
    """(1) of k more slots over those that the cache holds, in which they may stand in a tree; and the cache with them."""
    at = jnp.broadcast_to(held.count + jnp.arange(x.shape[1])[None], x.shape[:2])
    held = caches.append(held, entries(x), fields)
    seen = (causal() & tree() & valid())(fields, {**held.fields, "valid": held.valid})[:, 0]
    return _read(decoder, params, held.store[0]["slot"], held.fields, seen, at), held


def _read(
    decoder: Decoder, params: Params, x: Float[Array, "b c d"], fields: Fields, seen: Bool[Array, "b k c"], at: Int[Array, "b k"]
) -> Float[Array, "b k d"]:
    """Row (b, k) holds the slots that `seen` names and is read at slot `at`."""
    num, k, slots = seen.shape

    def rows(field: Any) -> Any:
        return field if np.ndim(field) == 1 else jnp.repeat(field, k, 0)

    own = {**{name: rows(field) for name, field in fields.items()}, "valid": seen.reshape(num * k, slots)}
    reader = decoder.clone(visibility=decoder.visibility & valid())
    h, _ = reader.apply({"params": params["decoder"]}, rows(x), own, blocks=params.get("layers"))  # pyright: ignore
    return jnp.take_along_axis(h, at.reshape(-1, 1, 1), 1).reshape(num, k, -1)
