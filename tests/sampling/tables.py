"""A language model given as a table, p(x_i | x_{i-2}, x_{i-1}), behind the caches of sampling/cache.py; it scores a tree in one call."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.sampling import cache as caches
from causal_gen.sampling.speculative import Engine

FAR = 1 << 30


def table(key, vocabulary: int, scale: float = 1.5):
    """Logits [v, v, v] of the next token given the last two."""
    return scale * jax.random.normal(key, (vocabulary, vocabulary, vocabulary))


def engine(logits, slots: int, kind: str = "append") -> Engine:
    """The model as decoding sees it; the token before the text is 0."""

    def advance(cache, tokens, fields=None):
        b, k = tokens.shape
        straight = {"depth": jnp.arange(k)[None], "enter": jnp.zeros((1, k), jnp.int32), "leave": jnp.full((1, k), FAR)}
        given = {name: jnp.broadcast_to((fields or straight)[name], (b, k)) for name in straight}
        start = cache.count if fields is None else cache.mark
        held = {"index": start + given["depth"], "enter": given["enter"], "leave": given["leave"]}
        cache = caches.insert(cache, {"token": tokens[None, :, :, None]}, held)
        q, s = {name: value[:, :, None] for name, value in held.items()}, {name: value[:, None, :] for name, value in cache.fields.items()}
        seen = cache.valid[:, None, :] & (s["enter"] <= q["enter"]) & (q["enter"] < s["leave"]) & (s["index"] == q["index"] - 1)
        before = (seen * cache.store["token"][0, :, None, :, 0]).sum(-1)
        return logits[before, tokens], cache

    def prefill(prompt):
        like = {"token": prompt[None, :, :, None]}
        cache = caches.empty(like, dict.fromkeys(("index", "enter", "leave"), prompt), slots, kind)
        out, cache = advance(cache, prompt)
        return out, caches.commit(cache)

    def commit(cache, indices):
        cache = caches.commit(cache, indices)
        leave = jnp.where(cache.stamp < cache.mark, FAR, cache.fields["leave"])
        enter = jnp.where(cache.stamp < cache.mark, 0, cache.fields["enter"])
        return dataclasses.replace(cache, fields={**cache.fields, "enter": enter, "leave": leave})

    return Engine(prefill, advance, commit)


def law_of_texts(logits, prompt: tuple[int, ...], steps: int) -> dict[tuple[int, ...], float]:
    """The exact probability of every continuation."""
    log_p = np.asarray(jax.nn.log_softmax(logits), np.float64)
    found = {}
    for text in itertools.product(range(log_p.shape[0]), repeat=steps):
        whole = (0, *prompt, *text)
        pairs = range(len(prompt) + 1, len(whole))
        found[text] = float(np.exp(sum(log_p[whole[i - 2], whole[i - 1], whole[i]] for i in pairs)))
    return found
