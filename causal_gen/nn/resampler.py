"""Learned queries that read a film in place of the stack: few vectors for many inputs, under any rectangular visibility.

    x = q + attention(norm(q), norm(inputs)),   y = x + mlp(norm(x)),   q [k, d] learned, the same in every window                 (1)
    a share of the film:   query i of k sees frame f of F where  f / F < (i + 1) / k      causal("fraction", strict=True)        (2)
    windows:               queries of window w see frames of the windows 0 .. w           causal("window")                       (3)

Attention hears of no places, so that a query under `full()` cannot tell a film from the same film backwards. In (2) a later query sees
more, and the difference of two is what came between; k and F are free of one another. In (3) nothing that comes later reaches a query.
Sources: Alayrac et al. 2022 and Li et al. 2023 (resampler, Q-Former); (2) Fei et al., Video-CCAM (2024); (3) Sun et al., FAVOR (2023).
Letters: b batch, t inputs, w windows, k queries of one, d width.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from causal_gen.nn.head_attention import CrossAttention
from causal_gen.nn.mlp import Mlp
from causal_gen.nn.norm import make_norm
from causal_gen.nn.resampler_config import ResamplerConfig
from causal_gen.nn.transformer_config import TransformerConfig
from causal_gen.types import Array, Float


class Resampler(nn.Module):
    """Eq. (1); heads, widths, norms and the backend are those of the stack that reads on."""

    config: ResamplerConfig
    transformer: TransformerConfig
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, inputs: Float[Array, "b t d"]) -> Float[Array, "b w k d"]:
        c, t = self.transformer, inputs.shape[1]
        windows = self.config.windows(t)
        queries = self.param("queries", nn.initializers.normal(1.0), (self.config.queries, c.width))
        x = jnp.tile(queries, (windows, 1))[None].astype(self.dtype)
        x = jnp.broadcast_to(x, (inputs.shape[0], *x.shape[1:]))
        out_init = nn.initializers.variance_scaling(0.5, "fan_in", "truncated_normal")
        memory = make_norm(c.norm, "memory_norm")(inputs.astype(self.dtype))
        read = CrossAttention(c, self.config.seen, out_init, self.dtype, name="cross")
        x = x + read(make_norm(c.norm, "cross_norm")(x), memory, *self.config.fields(t))
        h = make_norm(c.norm, "mlp_norm")(x)
        x = x + Mlp(c.mlp, c.hidden, out_init, c.bias, c.norm if c.normformer else "", self.dtype, name="mlp")(h)
        return x.reshape(x.shape[0], windows, self.config.queries, c.width)
