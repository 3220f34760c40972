"""Suites of sequence models: a training step and greedy decoding of a small causal transformer, parallel unmasking by the same network
without its causal mask, and attention over a window.

The transformer is GPT-2's form at 6 layers of width 256 and 8 heads over 256 bytes: learned places,
GELU, the readout tied to the embedding. Letters: b batch, t position.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

GPT = {"layers": 6, "width": 256, "heads": 8, "position": "learned", "length": 256}
BYTES = 256
PROMPT, NEW = 16, 240
UNMASK_STEPS = 32
LONG, WINDOW, HEADS, WIDTH = 4096, 256, 4, 32

Suite = tuple[Callable[[], Any], dict[str, Any]]


def _model(dtype: str) -> Any:
    from causal_gen.models.causal_transformer import CausalTransformer
    from causal_gen.models.causal_transformer_config import CausalTransformerConfig
    from causal_gen.nn.precision import Policy
    from causal_gen.nn.transformer_config import TransformerConfig
    from causal_gen.sampling.truncation import DecodingConfig

    transformer = TransformerConfig(**GPT)
    config = CausalTransformerConfig(transformer=transformer)
    return CausalTransformer(config, transformer, BYTES, BYTES, (), DecodingConfig(top_k=1), Policy.parse(f"compute={dtype}"))


def _params(model: Any) -> tuple[Any, int]:
    import jax

    params = jax.jit(model.init)(jax.random.key(0))
    return params, sum(leaf.size for leaf in jax.tree.leaves(params))


def gpt_train(batch: int, dtype: str) -> Suite:
    """A step of AdamW on the next-byte loss of `batch` texts of 256, spread over all devices; the state is donated."""
    import jax
    import jax.numpy as jnp
    import optax

    from causal_gen.parallel import mesh as meshes
    from causal_gen.train.meter import count_flops

    model, mesh = _model(dtype), meshes.make_mesh(meshes.MeshConfig())
    meshes.check_batch_size(mesh, batch)
    spread, whole = meshes.batch_sharding(mesh), meshes.replicated(mesh)
    params, count = _params(model)
    optimiser = optax.adamw(3e-4, weight_decay=0.01)
    texts = [jax.device_put(jax.random.randint(jax.random.key(i), (batch, GPT["length"]), 0, BYTES), spread) for i in range(4)]

    def update(state: Any, tokens: Any) -> tuple[Any, Any]:
        params, moments = state
        step, key = jnp.int32(0), jax.random.key(0)
        value, gradient = jax.value_and_grad(lambda p: model.loss(p, key, {"tokens": tokens}, step=step, train=True)[0].mean())(params)
        changes, moments = optimiser.update(gradient, moments, params)
        return (optax.apply_updates(params, changes), moments), value

    state = jax.device_put((params, jax.jit(optimiser.init)(params)), whole)
    flops = count_flops(jax.make_jaxpr(update)(state, texts[0]).jaxpr)
    facts = {"unit": "token", "units": batch * GPT["length"], "flops": flops, "params": count, "devices": mesh.size}
    jitted = jax.jit(update, in_shardings=(whole, spread), out_shardings=whole, donate_argnums=0)
    holder = [state, 0]

    def step() -> float:
        holder[0], value = jitted(holder[0], texts[holder[1] % len(texts)])
        holder[1] += 1
        jax.block_until_ready(holder[0])
        return float(value)

    return step, facts


def decode(batch: int, dtype: str) -> Suite:
    """240 bytes after a prompt of 16, the most probable each time: the whole loop is one program."""
    import jax

    from causal_gen.models import decoding

    model = _model(dtype)
    params, count = _params(model)
    prompt = jax.random.randint(jax.random.key(1), (batch, PROMPT), 0, BYTES)
    per_token = 2 * (12 * GPT["layers"] * GPT["width"] ** 2 + GPT["width"] * BYTES)
    attended = sum(4 * (PROMPT + i) * GPT["width"] * GPT["layers"] for i in range(NEW))
    facts = {"unit": "token", "units": batch * NEW, "flops": batch * (per_token * (PROMPT + NEW) + attended), "params": count}
    return lambda: jax.block_until_ready(decoding.generate(model, params, jax.random.key(2), prompt, steps=NEW).tokens), facts


def unmask(batch: int, dtype: str) -> Suite:
    """`batch` texts of 256 from nothing but masks in 32 calls, the most confident first with noise (MaskGIT): the loop is one program,
    the texts are spread over all devices."""
    import jax
    import jax.numpy as jnp

    from causal_gen.models.hybrid_transformer import HybridTransformer
    from causal_gen.models.hybrid_transformer_config import HybridTransformerConfig, ObjectiveConfig
    from causal_gen.nn.precision import Policy
    from causal_gen.nn.transformer_config import TransformerConfig
    from causal_gen.parallel import mesh as meshes
    from causal_gen.sampling.unmask_config import UnmaskConfig
    from causal_gen.train.meter import count_flops

    transformer = TransformerConfig(**{**GPT, "length": GPT["length"] + 1, "backend": "dense"})
    config = HybridTransformerConfig(transformer=transformer, objectives=(ObjectiveConfig("masked", high=1.0),))
    how = UnmaskConfig(policy="confidence", counts="cosine", choice=1.0, steps=UNMASK_STEPS)
    model = HybridTransformer(config, transformer, GPT["length"], BYTES, (), how, Policy.parse(f"compute={dtype}"))
    params, count = _params(model)
    inputs, share = jnp.full((batch, GPT["length"]), model.mask), jnp.ones((batch,))
    flops = UNMASK_STEPS * count_flops(jax.make_jaxpr(lambda p: model.predictor(p, None)(inputs, share))(params).jaxpr)
    mesh, holder = meshes.make_mesh(meshes.MeshConfig()), [0]
    meshes.check_batch_size(mesh, batch)
    params, spread = jax.device_put(params, meshes.replicated(mesh)), meshes.batch_sharding(mesh)
    draw = jax.jit(lambda key: model.noise(key, batch), out_shardings=spread)
    jitted = jax.jit(model.predict, out_shardings=spread)

    def step() -> None:
        holder[0] += 1
        jax.block_until_ready(jitted(params, draw(jax.random.key(holder[0]))))

    return step, {"unit": "token", "units": batch * GPT["length"], "flops": flops, "params": count, "devices": mesh.size}


def attention(batch: int, dtype: str) -> Suite:
    """Forward and backward of blocked attention over 4,096 tokens that see the last 256."""
    import jax
    import jax.numpy as jnp

    from causal_gen.nn.attention import attend
    from causal_gen.structure.masks import causal, window
    from causal_gen.structure.visibility import fields_for
    from causal_gen.train.meter import count_flops

    q, k, v = (jax.random.normal(key, (batch, LONG, HEADS, WIDTH), jnp.dtype(dtype)) for key in jax.random.split(jax.random.key(0), 3))
    seen, fields = causal() & window(WINDOW), fields_for(LONG, LONG)

    def total(q: Any, k: Any, v: Any) -> Any:
        return attend(q, k, v, seen, *fields, backend="blocked").sum()

    slopes = jax.value_and_grad(total, (0, 1, 2))
    facts = {"unit": "token", "units": batch * LONG, "flops": count_flops(jax.make_jaxpr(slopes)(q, k, v).jaxpr), "params": 0}
    jitted = jax.jit(slopes)
    return lambda: jax.block_until_ready(jitted(q, k, v)), facts
