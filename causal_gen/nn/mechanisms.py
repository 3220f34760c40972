"""One neural conditioner a factor over the masked blocks of its parents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax.numpy as jnp

from causal_gen.types import Array, Float


class ParentMlp(nn.Module):
    """Location of `node`'s block given all blocks [b, n, k], of which only the parents' pass the mask [n].

    Blocks are concatenated, not summed, so that two parents stay distinguishable. Without parents the location is 0.
    """

    block: int
    widths: tuple[int, ...] = (64, 64)

    @nn.compact
    def __call__(self, blocks: Float[Array, "b n k"], mask: Float[Array, "n"]) -> Float[Array, "b k"]:
        h = (blocks * mask.reshape(1, -1, 1)).reshape(blocks.shape[0], -1)
        for i, width in enumerate(self.widths):
            h = nn.silu(nn.Dense(width, name=f"hidden_{i}")(h))
        return nn.Dense(self.block, name="out")(h)


class Conditioners(nn.Module):
    """All conditioners of a graph: `location(i, blocks)` for node i, and a log-scale [n, k] of its noise.

    `masks` (n by n): `masks[i][j]` is 1 where j is a parent of i. `net_for_roots` gives roots a network too (it sees zeros), as released.
    """

    masks: tuple[tuple[float, ...], ...]
    block: int
    widths: tuple[int, ...] = (64, 64)
    learned_scale: bool = True
    initial_scale: float = 0.5
    net_for_roots: bool = False

    def setup(self):
        nodes = [i for i, mask in enumerate(self.masks) if any(mask) or self.net_for_roots]
        self.nets = {str(i): ParentMlp(self.block, self.widths, name=f"mechanism_{i}") for i in nodes}
        if self.learned_scale:
            shape = (len(self.masks), self.block)
            self.log_scale = self.param("log_scale", nn.initializers.constant(jnp.log(self.initial_scale)), shape)

    def location(self, i: int, blocks: Float[Array, "b n k"]) -> Float[Array, "b k"]:
        """Location of node i given the blocks of all nodes; 0 for a root."""
        if str(i) not in self.nets:
            return jnp.zeros((blocks.shape[0], self.block))
        return self.nets[str(i)](blocks, jnp.asarray(self.masks[i], jnp.float32))

    def __call__(self, blocks: Float[Array, "b n k"]) -> list[Array]:
        """Locations of all nodes; used to make the parameters."""
        return [self.location(i, blocks) for i in range(len(self.masks))]


def masks_of(nodes: Sequence[str], parents: Mapping[str, Sequence[str]]) -> tuple[tuple[float, ...], ...]:
    """The static masks of `Conditioners` from a parent table."""
    return tuple(tuple(float(other in parents[node]) for other in nodes) for node in nodes)
