"""A hybrid transformer that is also trained on pairs of a description and what it describes, in one pass and with one loss mask.

    loss = mean of -log p(x_i | x^_<i) over i in code, and over i in masked words of the description,                             (1)
    x^ = x, but a share of the description's words is the mask

Token i is told where token i - 1 stands, so that code and description share one readout with next tokens. What of a row is code is what
is scored (loss_mask). Under the visibility causal() this is what a decoder can be trained for; with `causal() | prefix()` the description
sees itself whole.
Source: Christopoulou et al., PanGu-Coder (2022), sec. 3: the loss of its second stage. Letters: b batch, t position.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from causal_gen.losses import categorical, masked
from causal_gen.models.hybrid_transformer import HybridTransformer
from causal_gen.models.hybrid_transformer_config import ObjectiveConfig
from causal_gen.models.objectives import Hidden
from causal_gen.process import masking
from causal_gen.types import Array, Batch, Bool, Float, Int, Key, Params


def describe(
    o: ObjectiveConfig, key: Key, at: Float[Array, "b"], tokens: Int[Array, "b t"], scored: Bool[Array, "b t"], mask: int
) -> Hidden:
    """Eq. (1) of a row: what it shows, and the weight of each token. With hides="all" it shows and counts all, as next tokens do.

    `at` are uniform numbers that say which share of the description, between low and high, is masked; the number of words is rounded.
    """
    if o.hides == "all":
        return Hidden(tokens, jnp.zeros_like(scored), masked.mean_over(jnp.ones_like(scored)))
    share = o.low + (o.high - o.low) * at
    count = jnp.round(share * (~scored).sum(-1)).astype(jnp.int32)
    hidden = masking.hide(key, count, ~scored, o.span)
    return Hidden(jnp.where(hidden, mask, tokens), hidden, masked.mean_over(hidden | scored))


@dataclasses.dataclass(frozen=True)
class DescribingTransformer(HybridTransformer):
    """The model of eq. (1); its params hold "masks" whatever its other objectives are."""

    def init(self, key: Key) -> Params:
        """Fresh parameters."""
        params = super().init(key)
        if "masks" not in params:
            params["masks"] = self.transformer.initial * jax.random.normal(jax.random.fold_in(key, 2), (1, self.transformer.width))
        return params

    def _hidden_loss(
        self, params: Params, o: ObjectiveConfig, key: Key, at: Float[Array, "b"], batch: Batch, hiding: ObjectiveConfig | None = None,
        other: Bool[Array, ""] | bool = False,
    ) -> tuple[Float[Array, "b"], Float[Array, "b"]]:  # fmt: skip
        if o.kind != "described":
            return super()._hidden_loss(params, o, key, at, batch, hiding, other)
        tokens, scored = batch[self.config.tokens], self._scored(batch)
        row = describe(o, key, at, tokens, scored, self.mask)
        logits = self._tell(params, o, row.inputs, batch, prefix=~scored & (o.hides == "scored"))
        return (row.weight * categorical.nll(logits, tokens)).sum(-1), jnp.zeros(tokens.shape[:1])
