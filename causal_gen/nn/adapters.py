"""Low-rank updates of a network's matrices (LoRA): the network stays as it is, a little is learned beside it.

    W' = W + scale / r  A B,   A [in, r] small and random,  B [r, out] zero at the start                                    (1)

Eq. (1) is taken on the parameters, before the network runs: `merge` gives plain weights of the network's own form, so that no layer knows
of adapters, and what was learned can be kept as an ordinary network. Matrices that are stacked, [l, in, out], have an update a layer.
Source: Hu et al., LoRA (2021). Letters: l layers, r rank.
"""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from causal_gen.types import Array, ConfigError, Key, Params, at_least


@dataclasses.dataclass(frozen=True)
class AdapterConfig:
    """Eq. (1) for the matrices whose path the regex `targets` is found in; rank 0: no adapters, the whole network is trained."""

    rank: int = at_least(0, 0)
    scale: float = at_least(8.0, 0.0)
    targets: str = "attention/(qkv|out)/kernel"

    def __post_init__(self):
        try:
            re.compile(self.targets)
        except re.error as error:
            raise ConfigError(f"targets {self.targets!r} is no regular expression ({error}); write, for instance, attention/qkv") from error


def init(key: Key, weights: Params, config: AdapterConfig) -> Params:
    """Updates of zero: {"down": A, "up": B} in the place of every matrix that is adapted. Raises `ConfigError` where none is."""
    flat: Any = traverse_util.flatten_dict(weights)
    matrices = ["/".join(path) for path in flat if path[-1] == "kernel"]
    chosen = [tuple(name.split("/")) for name in matrices if re.search(config.targets, name)]
    if not chosen:
        raise ConfigError(f"adapters.targets {config.targets!r} is found in no matrix; there are {', '.join(matrices)}")
    made = {}
    for number, path in enumerate(chosen):
        *stack, fan_in, fan_out = flat[path].shape
        down = jax.random.normal(jax.random.fold_in(key, number), (*stack, fan_in, config.rank)) / math.sqrt(fan_in)
        made[*path, "down"], made[*path, "up"] = down, jnp.zeros((*stack, config.rank, fan_out))
    return traverse_util.unflatten_dict(made)


def merge(weights: Params, adapters: Params, config: AdapterConfig) -> Params:
    """Eq. (1) everywhere: weights of the network's own tree and shapes."""
    flat: Any = traverse_util.flatten_dict(weights)
    updates: Any = traverse_util.flatten_dict(adapters)

    def update(path: tuple[str, ...]) -> Array:
        return config.scale / config.rank * (updates[*path, "down"] @ updates[*path, "up"])

    merged = {path: leaf + update(path) if (*path, "down") in updates else leaf for path, leaf in flat.items()}
    return traverse_util.unflatten_dict(merged)
