"""A stack of pre-norm transformer blocks under a visibility, and a pair of stacks.

    x' = x + attention(norm(x))   [ + cross(norm(x), memory) ]                                                              (1)
    y  = x' + mlp(norm(x'))                                                                                                 (2)
    NormFormer: x' = x + norm(attention(norm(x)) with a scale a head),  mlp = W_out norm(gelu(W_in .))                      (3)

The parameters of all layers are stacked, [l, ...], whether layers are scanned or written out, so a checkpoint serves both. W_out of each
branch starts smaller by 1 / sqrt(2 l) (GPT-2), so that depth does not widen the sum. Embedding and readout belong to the model.
Sources: (1, 2) Xiong et al. 2020; (3) Shleifer et al. 2021. Letters: l layers, b batch, t positions, c cached slots, s memory, d width.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from causal_gen.nn.experts import Experts
from causal_gen.nn.head_attention import CrossAttention, HeadAttention, Kv
from causal_gen.nn.latent_attention import LatentAttention
from causal_gen.nn.linear import Dense
from causal_gen.nn.mlp import Mlp
from causal_gen.nn.norm import make_norm
from causal_gen.nn.positions import place
from causal_gen.nn.remat import remat
from causal_gen.nn.ring_attention import over_mesh
from causal_gen.nn.transformer_config import TransformerConfig
from causal_gen.structure.masks import full, valid
from causal_gen.structure.visibility import Fields, Visibility, cut
from causal_gen.types import Array, ConfigError, Float, Key, Params

Memory = tuple[Array, Fields]  # what cross-attention looks at, [b, s, d], and its fields


class Block(nn.Module):
    """Eqs. (1) to (3); returns the stream, the new keys and values (with `maps` also the "map" of attention [b, h, t, c + t]), and
    the balance of experts [b] (zeros where there is one)."""

    config: TransformerConfig
    visibility: Visibility
    cross: Visibility | None = None
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        q_fields: Fields,
        layer: Any = None,
        cached: Kv | None = None,
        k_fields: Fields | None = None,
        memory: Memory | None = None,
        maps: bool = False,
        at: Any = None,
    ) -> tuple[Float[Array, "b q d"], dict[str, Array], Float[Array, "b"]]:
        c = self.config
        # the variance of a draw is scale / fan_in
        out_init = nn.initializers.variance_scaling(1 / (2 * c.layers), "fan_in", "truncated_normal")

        def branch(h: Array, name: str) -> Array:
            return make_norm(c.norm, f"{name}_out_norm")(h) if c.normformer else h

        attention = LatentAttention if c.attention == "latent" else HeadAttention
        seen = attention(c, self.visibility, out_init, self.dtype, name="attention")
        h, new = seen(make_norm(c.norm, "attention_norm")(x), q_fields, layer, cached, k_fields, maps, at)
        x = x[:, -h.shape[1] :] + branch(h, "attention")
        if self.cross is not None:
            if memory is None:
                raise ConfigError("transformer: the stack attends across, but no memory was given; pass memory=(array, fields)")
            across = CrossAttention(c, self.cross, out_init, self.dtype, name="cross")
            x = x + branch(across(make_norm(c.norm, "cross_norm")(x), memory[0], q_fields, memory[1], layer), "cross")
        if not c.mlp_ratio:
            return x, new, jnp.zeros(x.shape[0])
        h = make_norm(c.norm, "mlp_norm")(x)
        inner = c.norm if c.normformer else ""
        if c.experts > 1:
            by_expert = nn.initializers.variance_scaling(1 / (2 * c.layers), "fan_in", "truncated_normal", batch_axis=(0,))
            h, balance = Experts(c.experts, c.active, c.mlp, c.hidden, by_expert, inner, self.dtype, name="experts")(
                h, jax.nn.sigmoid(q_fields["gate"]) if c.routing == "graph" else None
            )
            return x + h, new, balance
        return x + Mlp(c.mlp, c.hidden, out_init, c.bias, inner, self.dtype, name="mlp")(h), new, jnp.zeros(x.shape[0])


class Decoder(nn.Module):
    """`config.layers` blocks and a last norm over embedded tokens [b, t, d]; `cross` is who sees what of a memory, None for no memory.

    Despite its name it is an encoder under `full()`: what it is depends on the visibility alone.
    """

    config: TransformerConfig
    visibility: Visibility
    cross: Visibility | None = None
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        q_fields: Fields,
        *,
        cache: Any = None,
        k_fields: Fields | None = None,
        at: Any = None,
        memory: Memory | None = None,
        blocks: Any = None,
        last: int = 0,
        aux: bool = False,
        maps: bool = False,
    ) -> Any:
        """(hidden states [b, t, d], new keys and values), and with `aux` a third: {"balance" [l, b], "hidden" [l, b, t, d]}, in which
        `maps` adds "attention" [l, b, h, t, c + t], and gates "seen" [b], the number of keys that a query sees.

        Keys and values are {"k", "v"} of [l, b, g, t, e], or where layers are written out a tuple of l such of [b, g, t, e], which a
        loop changes in place. With a `cache` of them, `k_fields` describe its c slots and then the t tokens; a field "valid" of
        theirs hides empty slots. With `at` the tokens are written into the slots from `at` on, `k_fields` describe the c slots
        after that, and the second value is the whole cache. `blocks` are parameters that `layers_of` cut out before a loop.

        With `last` the first layer is asked by the last so many tokens alone, of all t, and these alone go on (Hawthorne et al. 2022).
        """
        c, visibility = self.config, self.visibility
        if visibility.heads not in (1, c.heads):
            raise ConfigError(f"transformer: the visibility tells {visibility.heads} heads apart, the config has {c.heads}")
        if (cache is None) != (k_fields is None):
            raise ConfigError("transformer: cache and k_fields (of its slots, then of the new tokens) come together; give both or neither")
        if k_fields is not None and "valid" in k_fields:
            visibility = visibility & valid()
        x = x.astype(self.dtype)
        if c.position == "learned":
            x = x + self._positions(x, q_fields)
        if c.gates:  # open at the start: a gate is closed by what seeing costs
            logits = Dense(c.gates, bias_init=nn.initializers.constant(1.0), name="gate")(make_norm(c.norm, "gate_norm")(x))
            q_fields = {**q_fields, "gate": logits.astype(jnp.float32)}
        if last and (c.scan or c.attention != "heads"):
            raise ConfigError('transformer: cutting off tokens needs layers written out, of attention="heads"; set scan to false')
        params = self.param("blocks", lambda key: self._init_blocks(key, memory))
        block = Block(c, visibility, self.cross, self.dtype, parent=None)

        asking = {name: cut(field, x.shape[1] - last, last) for name, field in q_fields.items()} if last else q_fields

        def body(h: Array, per_layer: tuple[Params, Any, Kv | None]) -> tuple[Array, tuple[Any, Any]]:
            own, layer, cached = per_layer
            h = over_mesh(h)
            seen = q_fields if last and h.shape[1] > last else k_fields
            applied: Any = block.apply({"params": own}, h, asking, layer, cached, seen, memory, maps, at)
            h, new, balance = applied
            attention = {"attention": new.pop("map")} if maps else {}
            return h, (new, {"balance": balance, "hidden": h, **attention} if aux else None)

        h, new, told = _run(c, body, x, params if blocks is None else blocks, cache)
        h = make_norm(c.norm, "out_norm")(h)
        if aux and c.gates:
            told["seen"] = visibility.weight(q_fields, q_fields, 0).sum(-1).mean((1, 2))
        return (h, new, told) if aux else (h, new)

    def _positions(self, x: Float[Array, "b t d"], fields: Fields) -> Float[Array, "b t d"]:
        c = self.config
        table = self.param("positions", nn.initializers.normal(c.initial), (c.length, c.width))
        if x.shape[1] > c.length:
            raise ConfigError(
                f"transformer: {x.shape[1]} tokens, but positions are learned up to length={c.length}; raise it or cut the text"
            )
        return table[jnp.broadcast_to(place(fields), x.shape[:2])].astype(self.dtype)

    def _init_blocks(self, key: Key, memory: Memory | None) -> Params:
        """Parameters of all blocks, stacked. One token that sees itself is enough to make them."""
        c = dataclasses.replace(self.config, backend="dense")
        block = Block(c, full(), None if self.cross is None else full(), self.dtype, parent=None)
        token = {"index": jnp.zeros((1,), jnp.int32), **dict.fromkeys(("row", "column", "frame"), jnp.zeros((1,), jnp.int32))}
        token["gate"] = jnp.zeros((1, 1, c.gates))
        seen = None if memory is None else (memory[0][:1, :1], {name: cut(field, 0, 1)[:1] for name, field in memory[1].items()})

        def one(key: Key) -> Params:
            return block.init(key, jnp.zeros((1, 1, c.width), self.dtype), token, memory=seen)["params"]

        return jax.vmap(one)(jax.random.split(key, c.layers))


def _run(config: TransformerConfig, body: Any, x: Array, params: Params, cache: Any) -> tuple[Array, Any, Any]:
    """Layer after layer: hidden states, keys and values as `Decoder` gives them, and what each layer tells, stacked."""
    if config.scan:
        x, (new, told) = jax.lax.scan(remat(config.remat, body), x, (params, jnp.arange(config.layers), cache))
        return x, new, told
    outs = []
    caches = [None] * config.layers if cache is None else cache
    for layer, (own, cached) in enumerate(zip(layers_of(config, params), caches, strict=True)):
        # the layer's number stays an int, so that what a layer does not see is known while tracing
        one = remat(config.remat, lambda x, own, cached, layer=layer: body(x, (own, layer, cached)))
        x, out = one(x, own, cached)
        outs.append(out)
    new, told = zip(*outs, strict=True)
    return x, new, jax.tree.map(lambda *leaves: jnp.stack(leaves), *told)


def layers_of(config: TransformerConfig, blocks: Any) -> Any:
    """Stacked parameters of blocks as the stack wants them: a tuple of layers where these are written out, else as they are.

    By split, whose transpose is one concatenation; indexing would add up as many padded gradients as there are layers.
    """
    if config.scan or isinstance(blocks, tuple):
        return blocks
    leaves, tree = jax.tree.flatten(blocks)
    pieces = [[piece.reshape(leaf.shape[1:]) for piece in jnp.split(leaf, config.layers)] for leaf in leaves]
    return tuple(jax.tree.unflatten(tree, [piece[layer] for piece in pieces]) for layer in range(config.layers))


class EncoderDecoder(nn.Module):
    """Two stacks: `encode` a source, then decode over its own tokens and, where `cross` lets it, the encoded source."""

    encoder: TransformerConfig
    decoder: TransformerConfig
    encoder_visibility: Visibility
    visibility: Visibility
    cross: Visibility
    dtype: jnp.dtype = jnp.dtype("float32")

    def setup(self):
        self.encoder_stack = Decoder(self.encoder, self.encoder_visibility, dtype=self.dtype)
        self.decoder_stack = Decoder(self.decoder, self.visibility, self.cross, self.dtype)

    def encode(self, source: Float[Array, "b s d"], fields: Fields) -> Float[Array, "b s d"]:
        """The memory."""
        return self.encoder_stack(source, fields)[0]

    def decode(self, x: Float[Array, "b t d"], q_fields: Fields, memory: Memory, **cached: Any) -> Any:
        """As `Decoder`, over a memory with its fields; `cached` are `cache` and `k_fields`."""
        return self.decoder_stack(x, q_fields, memory=memory, **cached)

    def __call__(self, source: Float[Array, "b s d"], source_fields: Fields, x: Float[Array, "b t d"], q_fields: Fields) -> Any:
        return self.decode(x, q_fields, (self.encode(source, source_fields), source_fields))
