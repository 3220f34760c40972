"""Attention with positions on eight devices against the whole square on one."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.nn import ring_attention
from causal_gen.nn.attention import attend, attention_map
from causal_gen.nn.positions import Alibi
from causal_gen.parallel import mesh as meshes
from causal_gen.parallel.mesh import MeshConfig, make_mesh
from causal_gen.structure.masks import causal, full, same, segment_block, window
from causal_gen.structure.variants import learned, per_head, per_layer
from causal_gen.structure.visibility import fields_for
from causal_gen.types import ConfigError

B, T, H, G, D = 2, 512, 4, 2, 8
MESHES = {"ring of 8": MeshConfig(data=1, sequence=8), "2 x 2 x 2": MeshConfig(data=1, fsdp=2, tensor=2, sequence=2)}
SEGMENT = np.stack([np.repeat(np.arange(4), 128), np.repeat(np.arange(5), [3, 200, 9, 150, 150])])
VISIBILITIES = {
    "causal": causal(),
    "segment": causal() & same("segment"),
    "segments both ways": segment_block(),
    "window": causal() & window(100),
    "nothing for some": causal(strict=True) & same("segment"),
    "heads": per_head(causal(), full(), causal() & window(3), causal(strict=True)),
    "layers": per_layer(full(), causal()),
}


def arrays(t=T, seed=0):
    keys = jax.random.split(jax.random.key(seed), 4)
    shapes = (B, t, H, D), (B, t, G, D), (B, t, G, D + 2), (B, t, H, D + 2)
    return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]


@functools.partial(jax.jit, static_argnames=("visibility", "backend", "bias", "layer"))
def value_and_slopes(q, k, v, cotangent, user, visibility, backend, bias=None, layer=None):
    """Outputs, and their gradients with respect to queries, keys, values and the float fields."""
    floats = {name: value for name, value in user.items() if jnp.issubdtype(value.dtype, jnp.floating)}

    def out(q, k, v, floats):
        fields = fields_for(q.shape[1], k.shape[1], **user | floats)
        return attend(q, k, v, visibility, *fields, backend=backend, block=32, bias=bias, layer=layer)

    value, pull = jax.vjp(out, q, k, v, floats)
    return value, pull(cotangent)


def check(visibility, config, user, bias=None, layer=None, t=T):
    given = arrays(t)
    wanted, slopes = value_and_slopes(*given, user, visibility, "dense", bias, layer)
    with jax.set_mesh(make_mesh(config)):
        found, found_slopes = value_and_slopes(*given, user, visibility, "ring", bias, layer)
    assert len(found.sharding.device_set) == 8 and found.addressable_shards[0].data.shape[1] == t // config.sequence
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    for one, other in zip(jax.tree.leaves(found_slopes), jax.tree.leaves(slopes), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    return found, slopes


@pytest.mark.parametrize("name", VISIBILITIES)
@pytest.mark.parametrize("config", MESHES.values(), ids=MESHES)
def test_a_ring_gives_the_outputs_and_gradients_of_the_whole_square(name, config):
    found, _ = check(VISIBILITIES[name], config, {"segment": SEGMENT}, layer=1 if name == "layers" else None)
    if name == "nothing for some":
        assert (np.asarray(found)[0, ::128] == 0).all()


def test_fields_go_round_with_their_keys():
    """Documents of one batch of rows, the same for all rows, and linear biases by distance."""
    check(causal() & same("segment"), MESHES["ring of 8"], {"segment": SEGMENT[1]}, t=T)
    check(causal(), MESHES["2 x 2 x 2"], {"position": np.arange(T) % 200}, bias=Alibi(H))


@pytest.mark.parametrize("config", MESHES.values(), ids=MESHES)
def test_gates_have_their_gradient(config):
    gate = jax.random.normal(jax.random.key(7), (B, 64, 64))
    _, slopes = check(learned(node="index"), config, {"gate": gate}, t=64)
    assert np.abs(slopes[-1]["gate"]).max() > 1e-3


def test_a_ring_agrees_inside_of_scanned_layers_that_are_computed_again():
    """The layer's number is traced there, and the backward pass visits the ring once more."""
    seen, given = per_layer(causal(), causal() & window(5)), arrays(64)[:3]

    def total(q, k, v, backend):
        fields = fields_for(64, 64)

        def body(h, layer):
            heads = attend(h, k, v[..., :D], seen, *fields, backend=backend, block=8, layer=layer)
            return h + heads, None

        return (jax.lax.scan(jax.checkpoint(body), q, jnp.arange(2))[0] ** 2).mean()

    slopes = jax.jit(jax.value_and_grad(total, (0, 1, 2)), static_argnums=3)
    wanted = slopes(*given, "dense")
    with jax.set_mesh(make_mesh(MESHES["ring of 8"])):
        found = slopes(*given, "ring")
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_who_attends_to_whom_is_told_by_a_ring_too():
    q, k = arrays(64)[:2]
    wanted = attention_map(q, k, causal(), *fields_for(64, 64))
    with jax.set_mesh(make_mesh(MESHES["ring of 8"])):
        found = jax.jit(lambda q, k: attention_map(q, k, causal(), *fields_for(64, 64), backend="ring", block=8))(q, k)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_keys_move_and_are_never_gathered():
    """No device holds the keys of all: the compiled ring permutes and does not gather."""
    mesh = make_mesh(MESHES["ring of 8"])
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "sequence"))
    q, k, v, _ = arrays()

    def out(q, k, v):
        return attend(q, k, v, causal(), *fields_for(T, T), backend="ring", block=32)

    with jax.set_mesh(mesh):
        text = jax.jit(out, in_shardings=split).lower(q, k, v).compile().as_text()
    assert "collective-permute" in text and "all-gather" not in text


def test_without_a_mesh_or_with_a_token_alone_it_is_blocked_attention():
    def out(t, backend):
        q, k, v, _ = arrays(t)
        return jax.jit(lambda q, k, v: attend(q, k, v, causal(), *fields_for(t, t), backend=backend, block=32))(q, k, v)

    np.testing.assert_array_equal(out(30, "ring"), out(30, "blocked"))
    with jax.set_mesh(make_mesh(MESHES["ring of 8"])):
        np.testing.assert_allclose(out(1, "ring"), jnp.repeat(arrays(1)[2], H // G, 2), atol=1e-6)


def test_a_length_that_the_ring_does_not_divide_is_one_line_naming_both():
    q, k, v, _ = arrays(30)
    with jax.set_mesh(make_mesh(MESHES["ring of 8"])), pytest.raises(ConfigError, match=r"30 queries.*mesh\.sequence=8.*blocked") as caught:
        attend(q, k, v, causal(), *fields_for(30, 30), backend="ring")
    assert "\n" not in str(caught.value)


def test_the_layer_and_the_mesh_name_the_axes_alike():
    assert ring_attention.BATCH == (meshes.SLICE, *meshes.AXES[:2]) and (ring_attention.TENSOR, ring_attention.SEQUENCE) == meshes.AXES[2:]
