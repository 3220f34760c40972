"""A sequence read by a transformer stack under any visibility: what the families that tell something about their inputs share.

    h = decoder([slot;] W_e x [; slot]),   W_e a row a token, or a linear map of vectors                                     (1)
    W_e x read by learned queries first, where there are any, which then stand in its place (nn/resampler.py)               (2)

The stack is that of the causal transformer and keeps its names of parameters ("embed", "decoder"), so that a language model can be where
training starts (train.init_from). Slot i holds input i itself. Letters: b batch, t inputs, u slots (t, or t + 1), f features, d width.

(1) is the bidirectional encoder of BERT, Devlin et al. 2019, under any visibility; slots beside the inputs are this project's own.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.models import base
from causal_gen.models.encoding_config import EncodingConfig
from causal_gen.nn import adapters
from causal_gen.nn.precision import Policy
from causal_gen.nn.resampler import Resampler
from causal_gen.nn.transformer import Decoder
from causal_gen.nn.transformer_config import TransformerConfig
from causal_gen.structure.visibility import fields_for
from causal_gen.types import Array, Batch, Float, Key, Params, UserError


@dataclasses.dataclass(frozen=True)
class Encoding:
    """Eq. (1) of `length` inputs that are tokens below `size`, or vectors of `size` features.

    Params are {"embed" [v, d] or {"kernel" [f, d], "bias" [d]}, "slot" [d]?, "decoder", "adapters"?, "resampler"?}.
    """

    config: EncodingConfig
    transformer: TransformerConfig
    length: int
    size: int
    tokens: bool
    policy: Policy = Policy()

    @functools.cached_property
    def _decoder(self) -> Decoder:
        return Decoder(self.transformer, self.config.seen, dtype=self.policy.compute_dtype)

    @functools.cached_property
    def _resampler(self) -> Resampler:
        return Resampler(self.config.resampler, self.transformer, dtype=self.policy.compute_dtype)

    def init(self, key: Key) -> Params:
        """Fresh parameters."""
        keys, d = jax.random.split(key, 4), self.transformer.width
        fields = {name: jnp.zeros((1,), jnp.int32) for name in ("index", "alpha", "row", "column", *self.config.fields)}
        stack: Any = self._decoder.init(keys[0], jnp.zeros((1, 1, d)), fields)["params"]
        if self.tokens:
            embed: Any = 0.02 * jax.random.normal(keys[1], (self.size, d))
        else:
            embed = {"kernel": self.size**-0.5 * jax.random.normal(keys[1], (self.size, d)), "bias": jnp.zeros((d,))}
        params = {"embed": embed, "decoder": stack}
        if self.config.slot != "none":
            params["slot"] = 0.02 * jax.random.normal(keys[2], (d,))
        if self.config.adapters.rank:
            params["adapters"] = adapters.init(keys[3], stack, self.config.adapters)
        if self.config.resampler.queries:
            x = jnp.zeros((1, self.length, d))
            params["resampler"] = self._resampler.init(jax.random.fold_in(key, 1), x)["params"]
        return params

    def groups(self) -> dict[str, base.Group]:
        """With adapters, what there was before them is frozen."""
        if not self.config.adapters.rank:
            return base.one_group()
        return {"^(embed|decoder)": base.Group(frozen=True), **base.one_group()}

    def __call__(self, params: Params, batch: Batch, alpha: Any, inputs: str | None = None) -> tuple[Float[Array, "b u d"], Any]:
        """Hidden states of all slots after the last norm, and what else the stack tells, and what learned queries read, "resampled"
        [b, w, k, d]; `inputs` names another entry of the same kind."""
        x, told = self._embed(params, batch[inputs or self.config.inputs]), {}
        if self.config.resampler.queries:
            read: Any = self._resampler.apply({"params": params["resampler"]}, x)
            x, told = read.reshape(read.shape[0], -1, read.shape[-1]), {"resampled": read}
        num, t, d = x.shape
        fields = {name: self._extended(self._given(batch, name)) for name in self.config.fields}
        if self.config.columns:
            places = np.arange(t, dtype=np.int32)
            rows = {"row": places // self.config.columns, "column": places % self.config.columns}
            fields |= {name: self._extended(field[None])[0] for name, field in rows.items()}
        if self.config.slot != "none":
            slot = jnp.broadcast_to(params["slot"].reshape(1, 1, d), (num, 1, d))
            x = jnp.concatenate([slot, x] if self.config.slot == "first" else [x, slot], 1)
        if "alpha" in self.config.seen.fields:
            fields["alpha"] = jnp.asarray(alpha, jnp.float32)
        stack = params["decoder"]
        if self.config.adapters.rank:
            stack = adapters.merge(stack, params["adapters"], self.config.adapters)
        h, _, aux = self._decoder.apply({"params": stack}, x, fields_for(x.shape[1], x.shape[1], **fields)[0], aux=True)  # pyright: ignore
        return h, {**aux, **told}

    def _embed(self, params: Params, x: Any) -> Float[Array, "b t d"]:
        return params["embed"][x] if self.tokens else x @ params["embed"]["kernel"] + params["embed"]["bias"][None, None]

    def _given(self, batch: Batch, name: str) -> Array:
        if name not in batch:
            raise UserError(f"batch: field {name!r} is missing, which {self.config.visibility!r} reads; give it as an entry [b, t]")
        return batch[name]

    def _extended(self, field: Any) -> Any:
        """A field [b, t] with the slot's entry: that of the input beside it."""
        if self.config.slot == "none":
            return field
        parts = [field[:, :1], field] if self.config.slot == "first" else [field, field[:, -1:]]
        return (np if isinstance(field, np.ndarray) else jnp).concatenate(parts, 1)


def pooled(h: Float[Array, "b u d"], slot: str, pool: str) -> Float[Array, "b d"]:
    """One state an example: at the learned slot, at the last input, or the mean over all slots."""
    if pool == "mean":
        return h.mean(1)
    if pool == "slot":
        return h[:, 0 if slot == "first" else -1]
    return h[:, -2 if slot == "last" else -1]
