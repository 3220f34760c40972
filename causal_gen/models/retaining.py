"""A causal transformer whose cache has a budget, and heads that learn what to keep in it.

    target_j = log(floor + max_{l, h, i > j scored} A_lhij)      the most that a later query looks at slot j              (1)
    loss     = loss of the transformer + mean_j (score_j - target_j)^2                                                    (2)
    evicted at every step: the slot of lowest score, the last `recent` tokens aside                                       (3)

The heads (nn/retention.py) read the transformer and never move it: no gradient of the second term of (2) passes to it, so that it is
trained as it would be alone, and the heads as if it were frozen. With score "attention" (3) goes by the attention that a slot has
received so far, summed over queries (H2O). A prompt is read a token at a time, so that the budget is never exceeded.
Sources: (1, 3) Huang et al. 2024 (Locret), sec. 4; Zhang et al. 2023 (H2O), alg. 1. Letters: l layers, b batch, h heads, i queries,
j keys, c slots, k new tokens, d width.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from causal_gen.models import base, cached
from causal_gen.models.causal_transformer import CausalTransformer, TextCache
from causal_gen.nn.retention import RetainingHead
from causal_gen.sampling import cache as caches
from causal_gen.sampling.cache import Cache
from causal_gen.types import Array, Batch, Float, Int, Key, Params

FLOOR = 1e-3  # of attention, below which slots are alike


@dataclasses.dataclass(frozen=True)
class RetainingTransformer(CausalTransformer):
    """The model of eqs. (1-3); params have one more entry, "retain"."""

    @functools.cached_property
    def _head(self) -> RetainingHead:
        return RetainingHead(self.transformer.width)

    def init(self, key: Key) -> Params:
        """Fresh parameters."""
        params = super().init(key)
        like = self.empty(params, 1, 1).held.store
        return {**params, "retain": self._head.init(jax.random.fold_in(key, 1), like)["params"]}

    def loss(self, params: Params, key: Key, batch: Batch, *, step: Array, train: bool) -> tuple[Float[Array, "b"], base.Aux]:
        """Eq. (2); the term "retain" is that of the heads."""
        total, aux = super().loss(params, key, batch, step=step, train=train)
        still = jax.lax.stop_gradient({name: value for name, value in params.items() if name != "retain"})
        tokens = batch[self.config.tokens]
        x, fields = self._embed(still, self._slots(tokens, batch)[:, :-1], batch), self._fields(batch, *tokens.shape)
        _, new, told = self._decoder.apply({"params": still["decoder"]}, x, fields, aux=True, maps=True)  # pyright: ignore
        score = self._head.apply({"params": params["retain"]}, new)
        retain = jnp.mean((score - future(told["attention"], self._mask(batch))) ** 2, -1)  # pyright: ignore
        return total + retain, base.Aux({**aux.terms, "retain": retain})

    def empty(self, params: Params, num: int, slots: int, context: Batch | None = None) -> TextCache:
        """As for any transformer, with a field "score" where it is by scores that tokens are evicted."""
        cache = super().empty(params, num, slots, context)
        if cache.held.kind != "evict" or self.config.cache.score == "age":
            return cache
        fields = {**cache.held.fields, "score": jnp.zeros(cache.held.valid.shape)}
        return dataclasses.replace(cache, held=dataclasses.replace(cache.held, fields=fields))

    def prefill(
        self, params: Params, tokens: Int[Array, "b p"], context: Batch | None = None, slots: int | None = None
    ) -> tuple[Float[Array, "b q v"], TextCache]:
        """As for any transformer; a cache with a budget reads the prompt a token at a time."""
        cache = self.empty(params, tokens.shape[0], slots or self.length + 1, context)
        if "score" not in cache.held.fields:
            return super().prefill(params, tokens, context, slots)

        def one(cache: TextCache, token: Array) -> tuple[TextCache, Array]:
            out, cache = self.advance(params, cache, token[:, None])
            return cache, out[:, 0]

        cache, out = jax.lax.scan(one, cache, self._slots(tokens, cache.context).T)
        return jnp.swapaxes(out, 0, 1), self.commit(cache)

    def _step(self, params: Params, held: Cache, x: Float[Array, "b k d"], fields: dict[str, Array]) -> tuple[Array, Cache]:
        if "score" not in held.fields:
            return super()._step(params, held, x, fields)
        summed = self.config.cache.score == "attention"
        h, new, told = cached.beside(self._stepper, params, held, x, fields, maps=summed)
        if summed:  # what every slot gets from the new tokens, and these from one another
            mass = told["attention"].mean((0, 2)).sum(1)
            held = dataclasses.replace(held, fields={**held.fields, "score": held.fields["score"] + mass[:, : held.slots]})
            score = mass[:, held.slots :]
        else:
            score: Any = self._head.apply({"params": params["retain"]}, new)
        return h, self._evict(held, new, {**fields, "score": score})

    def _evict(self, held: Cache, new: Any, fields: dict[str, Array]) -> Cache:
        """Eq. (3)."""
        own = held.fields["score"]
        guarded = jnp.where(held.stamp >= held.mark - self.config.cache.recent, jnp.finfo(jnp.float32).max, own)
        after = caches.insert(dataclasses.replace(held, fields={**held.fields, "score": guarded}), new, fields)
        score = jnp.where(after.valid & (after.stamp >= held.count), after.fields["score"], own)
        return dataclasses.replace(after, fields={**after.fields, "score": score})


def future(attention: Float[Array, "l b h i j"], scored: Float[Array, "b i"]) -> Float[Array, "b j"]:
    """Eq. (1)."""
    most = attention.max((0, 2))
    place = jnp.arange(most.shape[-1])
    later = (place[:, None] > place[None])[None] & (scored[:, :, None] > 0)
    return jnp.log(FLOOR + jnp.where(later, most, 0).max(1))
