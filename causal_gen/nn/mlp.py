"""The feed-forward layer of a transformer block.

    gelu:    y = W_out gelu(W_in x)                                      (1)
    swiglu:  y = W_out (silu(W_gate x) * W_up x)                         (2)

Sources: (1) Hendrycks & Gimpel 2016, in the tanh form of GPT-2; (2) Shazeer 2020.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from causal_gen.nn.linear import Dense
from causal_gen.nn.norm import make_norm
from causal_gen.types import Array, Float


def activate(kind: str, h: Float[Array, "*s e"]) -> Float[Array, "*s f"]:
    """The nonlinearity: e = f for "gelu", e = 2 f (gate, then up) for "swiglu"."""
    if kind == "gelu":
        return nn.gelu(h, approximate=True)
    gate, up = jnp.split(h, 2, -1)
    return nn.silu(gate) * up


def widened(kind: str, hidden: int) -> int:
    """Columns of the first matrix."""
    return 2 * hidden if kind == "swiglu" else hidden


class Mlp(nn.Module):
    """Eq. (1) or (2); `inner_norm` ("" for none) normalises the hidden layer as NormFormer does, `out_init` starts W_out."""

    kind: str
    hidden: int
    out_init: nn.initializers.Initializer
    bias: bool = True
    inner_norm: str = ""
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x: Float[Array, "*s d"]) -> Float[Array, "*s d"]:
        h = Dense(widened(self.kind, self.hidden), self.bias, self.dtype, name="in")(x)
        h = activate(self.kind, h)
        if self.inner_norm:
            h = make_norm(self.inner_norm, "inner_norm")(h)
        return Dense(x.shape[-1], self.bias, self.dtype, kernel_init=self.out_init, name="out")(h)
