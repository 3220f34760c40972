"""Structural causal model over latent blocks, each of which carries one named factor.

    w_i = f_i(w_pa(i)) + u_i                           additive noise, in topological order                   (1)
    u_i = s_i * e_i,  e_i ~ N(0, I)                    a node with parents                                     (2)
    u_i = (G_i(e_i0), s_i1 e_i1, ...)                  a root: its fitted marginal drives the block mean       (3)
    z_i = w_i H                                        H: first row ones, rows orthogonal, norm sqrt(k)        (4)

By (4) entry 0 of w_i is the mean of the block z_i, the factor on unit scale; the other entries are its deviations. The networks f_i
are given as a function; nothing here has parameters. Source of (1): Akomand et al. 2024 (CausalDiffAE), sec. 4.1, with parents' z.
Letters: b batch, n nodes, k entries of a block.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from causal_gen.scm.intervention import Act, edge_name
from causal_gen.scm.marginal import Marginal, Scaling
from causal_gen.structure.graph import Dag
from causal_gen.types import Array, Float

Location = Callable[[int, Array], Array]  # (node index, blocks [b, n, k]) -> [b, k]


@dataclasses.dataclass(frozen=True)
class BlockScm:
    """`marginals` has an entry a node: the fitted marginal of a root, else None. `through` is "z", or "u" as released."""

    graph: Dag
    block: int
    scalings: tuple[Scaling, ...]
    marginals: tuple[Marginal | None, ...]
    through: str = "z"

    @functools.cached_property
    def basis(self) -> np.ndarray:
        """H [k, k] of eq. (4): the DCT-II basis, whose first row is constant."""
        rows, columns = np.mgrid[: self.block, : self.block]
        matrix = np.sqrt(2.0) * np.cos(np.pi * (columns + 0.5) * rows / self.block)
        matrix[0] = 1.0
        return matrix.astype(np.float32)

    def to_blocks(self, w: Float[Array, "b n k"]) -> Float[Array, "b n k"]:
        """z from w, eq. (4)."""
        return w @ jnp.asarray(self.basis)

    def _parents(self, w: list[Array], u: Float[Array, "b n k"]) -> Array:
        if self.through == "u":
            return u
        done = [value if value is not None else jnp.zeros_like(u[:, 0]) for value in w]
        return jnp.stack(done, 1)

    def _visit(
        self,
        location: Location,
        u: Float[Array, "b n k"],
        finish: Callable[[int, Array], Array],
        read: Callable[[str, list[Array]], list[Array]] = lambda _, w: w,
    ) -> Float[Array, "b n k"]:
        """Eq. (1) in topological order; `finish(i, natural w_i)` gives what children see, `read(child, w)` what one of them does."""
        w: list[Array] = [jnp.zeros_like(u[:, 0])] * len(self.graph.nodes)
        for name in self.graph.order:
            i = self.graph.index(name)
            w[i] = finish(i, location(i, self._parents(read(name, w), u)) + u[:, i])
        return jnp.stack(w, 1)

    def causal(self, location: Location, u: Float[Array, "b n k"]) -> Float[Array, "b n k"]:
        """w from u, eq. (1)."""
        return self._visit(location, u, lambda i, natural: natural)

    def intervene(
        self, location: Location, u: Float[Array, "b n k"], acts: dict[str, Act]
    ) -> tuple[Float[Array, "b n k"], dict[str, Float[Array, "b"]]]:
        """w under an intervention, and every factor in physical units. A node acted upon becomes a constant block, as in the paper.

        Of an edge acted upon the child reads such a block in the place of its parent's.
        """
        values: dict[str, Array] = {}

        def constant(i: int, value: Array, natural: Array, act: Act) -> Array:
            block = jnp.zeros_like(natural).at[:, 0].set(self.scalings[i].forward(value))
            return jnp.where(act.mask[:, None], block, natural)

        def read(child: str, w: list[Array]) -> list[Array]:
            found = list(w)
            for name in self.graph.parents(child):
                act, i = acts.get(edge_name(name, child)), self.graph.index(name)
                if act is not None:
                    found[i] = constant(i, act.apply(values[name]), w[i], act)
            return found

        def finish(i: int, natural: Array) -> Array:
            name = self.graph.nodes[i]
            values[name] = self.scalings[i].inverse(natural[:, 0])
            act = acts.get(name)
            if act is None:
                return natural
            values[name] = act.apply(values[name])
            return constant(i, values[name], natural, act)

        return self._visit(location, u, finish, read), values

    def exogenous(self, e: Float[Array, "b n k"], scale: Float[Array, "n k"]) -> Float[Array, "b n k"]:
        """u from standard noise e, eq. (2) and (3)."""
        u = e * scale[None]
        for i, marginal in enumerate(self.marginals):
            if marginal is not None:
                u = u.at[:, i, 0].set(marginal.forward(e[:, i, 0]))
        return u

    def standardise(self, u: Float[Array, "b n k"], scale: Float[Array, "n k"]) -> Float[Array, "b n k"]:
        """e from u: the inverse of `exogenous`."""
        e = u / scale[None]
        for i, marginal in enumerate(self.marginals):
            if marginal is not None:
                e = e.at[:, i, 0].set(marginal.inverse(u[:, i, 0]))
        return e
