"""The stack by its laws: nothing hidden is felt, a cached step is the full pass, scanned layers are written-out layers."""

from __future__ import annotations

import dataclasses
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.nn.transformer import Decoder, EncoderDecoder
from causal_gen.nn.transformer_config import LatentConfig, TransformerConfig
from causal_gen.sampling import cache as caches
from causal_gen.structure.masks import causal, full, same, window
from causal_gen.structure.variants import per_layer
from causal_gen.structure.visibility import fields_for
from causal_gen.types import ConfigError

T, SMALL = 11, TransformerConfig(width=16, layers=2, heads=4, mlp_ratio=2.0, block=4, length=16)
GROUPED = dataclasses.replace(SMALL, kv_heads=2, qk_norm=True, mlp="swiglu", norm="rms", bias=False)
FORMER = dataclasses.replace(SMALL, normformer=True, position="learned", head_dim=6)
LATENT = dataclasses.replace(SMALL, attention="latent", latent=LatentConfig(rank=6, rotary=4, query_rank=5))
MERGED = dataclasses.replace(LATENT, latent=LatentConfig(rank=6, rotary=4, stride=3))
EXPERTS = dataclasses.replace(SMALL, experts=3, active=2, position="alibi", normformer=True)
CONFIGS = {"grouped": GROUPED, "normformer": FORMER, "latent": LATENT, "merged": MERGED, "experts": EXPERTS}
VISIBILITY = causal() & same("document")
DOCUMENT = np.array([0] * 5 + [1] * 6)


def moved(params, scale: float = 0.3):
    """Off the point where branches are small and norms are alike."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(9), len(leaves))
    return jax.tree.unflatten(tree, [p + scale * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)])


@functools.cache
def stack(name: str, visibility=VISIBILITY):
    decoder = Decoder(CONFIGS[name], visibility)
    x = jax.random.normal(jax.random.key(0), (2, T, 16))
    fields, _ = fields_for(T, T, document=DOCUMENT)
    return decoder, moved(jax.jit(decoder.init)(jax.random.key(1), x, fields)), x, fields


@functools.cache
def full_pass(name: str):
    decoder, params, x, fields = stack(name)
    return jax.jit(lambda p, x: decoder.apply(p, x, fields))(params, x)


@pytest.mark.parametrize("name", CONFIGS)
def test_no_leak(name):
    """Merged latents mix documents inside a chunk, so there only the order is a law."""
    decoder, params, x, fields = stack(name)
    seen = np.tril(np.ones((T, T), bool)) & ((DOCUMENT[:, None] == DOCUMENT) | (name == "merged"))
    felt = jax.jit(jax.jacrev(lambda x: decoder.apply(params, x, fields)[0][0].sum(-1)))(x)
    felt = np.abs(np.asarray(felt)).sum(-1)
    assert (felt[:, 1] == 0).all() and (felt[:, 0][~seen] == 0).all()
    if name != "merged":
        assert (felt[:, 0][seen] > 0).all()


@pytest.mark.parametrize(
    ("name", "scan", "remat"), [("grouped", True, "full"), ("grouped", False, "dots"), ("merged", True, "dots"), ("experts", True, "full")]
)
def test_scanned_written_out_and_recomputed_layers_are_the_same(name, scan, remat):
    decoder, params, x, fields = stack(name)
    other = Decoder(dataclasses.replace(CONFIGS[name], scan=scan, remat=remat), VISIBILITY)

    def loss(decoder, params, x):
        h, new = decoder.apply(params, x, fields)
        return (h * jnp.arange(16.0).reshape(1, 1, -1)).sum() + sum((leaf**2).sum() for leaf in jax.tree.leaves(new))

    slopes = [jax.jit(jax.grad(functools.partial(loss, d), (0, 1)))(params, x) for d in (decoder, other)]
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-3), *slopes)
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(slopes[0]))


def test_a_visibility_that_differs_by_layer_is_the_same_scanned():
    visibility = per_layer(causal() & window(2), causal())
    decoder, params, x, fields = stack("grouped", visibility)
    outs = [Decoder(dataclasses.replace(GROUPED, scan=scan), visibility).apply(params, x, fields)[0] for scan in (True, False)]
    np.testing.assert_allclose(outs[0], outs[1], atol=1e-5)
    wide = decoder.apply(params, x, fields)[0] - Decoder(GROUPED, causal()).apply(params, x, fields)[0]
    assert float(jnp.abs(wide).max()) > 1e-3


WAYS = [(name, inside) for name in CONFIGS for inside in (False, True) if not (inside and name == "merged")]


@pytest.mark.parametrize(("name", "inside"), WAYS)
def test_a_cached_step_is_the_full_pass(name, inside):
    """Four tokens at once, then one or two at a time, kept after they are read or before; a merging cache adds up its chunks."""
    decoder, params, x, fields = stack(name)
    expected, new = full_pass(name)
    rows = {k: jnp.broadcast_to(jnp.asarray(v), (2, T)) for k, v in fields.items()}
    stride = CONFIGS[name].latent.stride if name == "merged" else 1
    held = caches.empty(new, rows, -(-T // stride), "merge" if stride > 1 else "append", stride)

    @functools.partial(jax.jit, static_argnames="size")
    def step(held, x, rows, start, size):
        part = {k: jax.lax.dynamic_slice_in_dim(v, start, size, 1) for k, v in rows.items()}
        x = jax.lax.dynamic_slice_in_dim(x, start, size, 1)
        if inside:
            named = caches.claim(held, part)
            h, store = decoder.apply(params, x, part, cache=held.store, k_fields={**named.fields, "valid": named.valid}, at=held.count)
            return h, dataclasses.replace(named, store=store)
        keys = {k: jnp.concatenate([held.fields[k], v], 1) for k, v in part.items()}
        keys["valid"] = jnp.concatenate([held.valid, jnp.ones((2, size), bool)], 1)
        h, new = decoder.apply(params, x, part, cache=held.store, k_fields=keys)
        return h, caches.insert(held, new, part)

    outs = []
    for start, size in [(0, 4), (4, 1), (5, 1), (6, 1), (7, 2), (9, 2)]:
        h, held = step(held, x, rows, start, size)
        outs.append(h)
    np.testing.assert_allclose(jnp.concatenate(outs, 1), expected, atol=1e-5)


def test_what_prefill_returns_fills_a_cache():
    decoder, params, x, fields = stack("merged")
    expected, new = full_pass("merged")
    rows = {k: jnp.broadcast_to(jnp.asarray(v), (2, T)) for k, v in fields.items()}
    part = {k: v[:, :7] for k, v in rows.items()}
    _, new = jax.jit(decoder.apply)(params, x[:, :7], part)
    held = caches.insert(caches.empty(new, rows, 4, "merge", 3), new, part)
    last = {k: v[:, 7:9] for k, v in rows.items()}
    keys = {k: jnp.concatenate([held.fields[k], v], 1) for k, v in last.items()}
    keys["valid"] = jnp.concatenate([held.valid, jnp.ones((2, 2), bool)], 1)
    h, _ = jax.jit(decoder.apply)(params, x[:, 7:9], last, cache=held.store, k_fields=keys)
    np.testing.assert_allclose(h, expected[:, 7:9], atol=1e-5)


def test_aux_gives_the_balance_and_the_stream_of_every_layer():
    decoder, params, x, fields = stack("experts")
    h, _, aux = jax.jit(functools.partial(decoder.apply, aux=True))(params, x, fields)
    assert aux["hidden"].shape == (2, 2, T, 16) and aux["balance"].shape == (2, 2) and (aux["balance"] > 0).all()
    np.testing.assert_allclose(h, full_pass("experts")[0], atol=1e-5)


def test_normformer_costs_two_norms_and_a_scale_a_head():
    def count(config):
        decoder, fields = Decoder(config, causal()), {"index": np.arange(3)}
        shapes = jax.eval_shape(lambda: decoder.init(jax.random.key(0), jnp.zeros((1, 3, 16)), fields))
        return sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))

    extra = count(dataclasses.replace(SMALL, normformer=True)) - count(SMALL)
    assert extra == 2 * (2 * 16 + 2 * 32 + 4)


def test_decoding_sees_of_a_source_what_cross_says():
    pair = EncoderDecoder(SMALL, SMALL, full(), causal(), same("document"))
    source, x = jax.random.normal(jax.random.key(0), (1, 6, 16)), jax.random.normal(jax.random.key(1), (1, 4, 16))
    source_fields, x_fields = (
        {"index": np.arange(6), "document": np.array([0, 0, 1, 1, 1, 2])},
        {"index": np.arange(4), "document": np.ones(4)},
    )
    # blind rows in the encoder, so that the cross-attention alone says what is felt
    pair = dataclasses.replace(pair, encoder_visibility=same("index"))
    params = moved(jax.jit(lambda key: pair.init(key, source, source_fields, x, x_fields))(jax.random.key(1)))

    def read(source):
        memory = pair.apply(params, source, source_fields, method="encode")
        return pair.apply(params, x, x_fields, (memory, source_fields), method="decode")[0][0].sum(-1)

    felt = np.abs(jax.jit(jax.jacrev(read))(source)).sum((-1, 1))
    np.testing.assert_array_equal(felt > 0, np.broadcast_to(source_fields["document"] == 1, (4, 6)))


def test_scanned_programs_do_not_grow_with_depth():
    def equations(layers):
        decoder = Decoder(dataclasses.replace(SMALL, layers=layers, scan=True), causal())
        x, fields = jnp.zeros((1, T, 16)), {"index": np.arange(T)}
        params = jax.eval_shape(lambda: decoder.init(jax.random.key(0), x, fields))
        return str(jax.make_jaxpr(jax.grad(lambda p: decoder.apply(p, x, fields)[0].sum()))(params)).count("\n")

    assert equations(9) == equations(3)


@pytest.mark.slow
def test_compiling_scanned_layers_takes_as_long_for_48_as_for_12():
    """In CPU time, which other programs disturb less."""

    def seconds(layers):
        decoder = Decoder(dataclasses.replace(SMALL, layers=layers, scan=True), causal())
        x, fields = jnp.zeros((1, T, 16)), {"index": np.arange(T)}
        params = jax.eval_shape(lambda: decoder.init(jax.random.key(0), x, fields))
        salt = time.time_ns() % 10**9  # no cache of compiled programs has seen this one
        lowered = jax.jit(jax.grad(lambda p: decoder.apply(p, x, fields)[0].sum() * salt)).lower(params)
        start = time.process_time()
        lowered.compile()
        return time.process_time() - start

    seconds(2)
    assert min(seconds(48), seconds(48)) <= 1.3 * max(seconds(12), seconds(12))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 3}, "width 16 does not divide into 3"),
        ({"kv_heads": 3}, "4 heads do not divide into kv_heads=3"),
        ({"experts": 2, "active": 3}, "active=3 experts of 2"),
        ({"head_dim": 5}, "must divide by 2; it is 5"),
        ({"position": "rope2d", "head_dim": 6}, "must divide by 4; it is 6"),
        ({"attention": "latent", "qk_norm": True}, "qk_norm off"),
    ],
)
def test_contradictions_of_a_config_are_named(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(SMALL, **change)


def test_more_tokens_than_learned_positions_are_refused():
    with pytest.raises(ConfigError, match="11 tokens.*length=8"):
        Decoder(dataclasses.replace(FORMER, length=8), causal()).init(jax.random.key(0), jnp.zeros((1, T, 16)), {"index": np.arange(T)})
