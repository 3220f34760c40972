"""What labels say of latent blocks: the parts of a causal diffusion autoencoder's loss that have no picture in them.

    p(z_i|y_i) = N(y_i 1, sigma_y^2 I)   with y on unit scale, in the basis of scm/block.py eq. (4)                     (1)
    KL(q(z|x) | p(z|y)),   KL(q(u|x) | p(u)),   -log p(z_i | z_pa(i)) at a draw of (1)                                   (2)

Letters: b batch, n factors, k entries of a block.

Source: CausalDiffAE, Komanduri et al. 2024; here in the whitened basis of scm/block.py.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from causal_gen.losses import gaussian
from causal_gen.scm.block import BlockScm
from causal_gen.types import Array, Batch, Float, Key, PyTree

Labels = tuple[Array, Array]  # on unit scale [b, n], and 1 where a row is labelled [b]


def labelled_first(labelled: Float[Array, "b"], every: int, leaves: PyTree) -> PyTree:
    """One example of each `every` in a row, of all arrays [b, ...] in `leaves`: the first that is labelled, else the first.

    [ceil(b / every), ...]; where all rows are labelled, or none, these are the rows 0, every, 2 every, ..
    """
    num = labelled.shape[0]
    groups, spare = -(-num // every), -num % every
    which = jnp.pad(labelled, (0, spare)).reshape(groups, every).argmax(1)

    def chosen(leaf: Array) -> Array:
        rows = jnp.pad(leaf, ((0, spare), *((0, 0),) * (leaf.ndim - 1))).reshape(groups, every, *leaf.shape[1:])
        return jnp.take_along_axis(rows, which.reshape(groups, *(1,) * leaf.ndim), 1)[:, 0]

    return leaves if every == 1 else jax.tree.map(chosen, leaves)


@dataclasses.dataclass(frozen=True)
class BlockTerms:
    """Eqs. (1, 2) for the blocks of `scm`; `label_scale` is sigma_y, `reduction` over a block "sum" or "mean"."""

    scm: BlockScm
    label_scale: float
    reduction: str

    def labels(self, batch: Batch, num: int) -> Labels:
        """Labels of `num` rows. Those that the batch lacks count as unlabelled."""
        factors = self.scm.graph.nodes
        if any(name not in batch for name in factors):
            return jnp.zeros((num, len(factors))), jnp.zeros((num,))
        unit = [s.forward(batch[name]) for name, s in zip(factors, self.scm.scalings, strict=True)]
        mask = batch["label_mask"].astype(jnp.float32) if "label_mask" in batch else jnp.ones((num,))
        return jnp.stack(unit, 1), mask

    def label_prior(self, unit: Float[Array, "b n"]) -> tuple[Float[Array, "b n k"], Float[Array, "b n k"]]:
        """Mean and log-variance of eq. (1)."""
        mean = jnp.zeros((*unit.shape, self.scm.block)).at[:, :, 0].set(unit)
        return mean, jnp.full_like(mean, 2 * math.log(self.label_scale) - math.log(self.scm.block))

    def kls(
        self, labels: Labels, u: Array, w: Array, mean: Array, log_variance: Array, scale: Float[Array, "n k"]
    ) -> dict[str, Float[Array, "b"]]:
        """Both divergences of eq. (2). Given the parents' draw, z_i is Gaussian about its location plus the mean of u_i.

        `u`, `w`, `mean` and `log_variance` are [b, n, k].
        """
        unit, labelled = labels
        prior_mean, prior_log_variance = self.label_prior(unit)
        label = gaussian.kl(mean + (w - u), log_variance, prior_mean, prior_log_variance)
        for i, marginal in enumerate(self.scm.marginals):
            if marginal is not None:  # a root's block mean is on unit scale; its marginal acts in predict
                scale = scale.at[i, 0].set(1.0)
        noise = gaussian.kl(mean, log_variance, jnp.zeros_like(mean), jnp.broadcast_to(2 * jnp.log(scale)[None], mean.shape))
        return {
            "label_kl": labelled * gaussian.per_example(label, self.reduction),
            "noise_kl": gaussian.per_example(noise, self.reduction),
        }

    def mechanism_nll(
        self, labels: Labels, key: Key, scale: Float[Array, "n k"], location: Callable[[int, Array], Array]
    ) -> tuple[Float[Array, "b n k"], Float[Array, "b"]]:
        """A draw w of eq. (1), and the last of eqs. (2) under it, summed over nodes with parents: the SCM fitted to labelled rows."""
        unit, labelled = labels
        mean, log_variance = self.label_prior(unit)
        w = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape)
        total = jnp.zeros((unit.shape[0],))
        for i, name in enumerate(self.scm.graph.nodes):
            if self.scm.graph.parents(name):
                log_scale = jnp.broadcast_to(2 * jnp.log(scale[i])[None], w[:, i].shape)
                total = total + gaussian.fit(w[:, i], location(i, w), log_scale).mean(-1)
        return w, labelled * total
