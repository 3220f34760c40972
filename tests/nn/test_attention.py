"""Every backend of attention against a loop in numpy, their gradients against each other's, and what must not be felt."""

from __future__ import annotations

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.nn.attention import attend, attention_map
from causal_gen.nn.positions import Alibi
from causal_gen.structure.masks import causal, dilated, full, prefix, same, window
from causal_gen.structure.variants import learned, per_head, per_layer, soft
from causal_gen.structure.visibility import Visibility, fields_for
from causal_gen.types import ConfigError

T = 37  # no multiple of a tile
DOCUMENT = np.repeat(np.arange(5), [3, 11, 1, 14, 8])
VISIBILITIES = {
    "full": full(),
    "causal": causal(),
    "documents": causal() & same("document"),
    "window": causal() & window(6),
    "dilated": causal() & dilated(3),
    "prefix or window": prefix(5) | (causal() & window(4)),
    "strict": causal(strict=True),
    "not causal": ~causal(),
    "heads": per_head(causal(), full(), causal() & window(3), causal(strict=True)),
    "layers": per_layer(full(), causal()) & same("document"),
    "soft": soft(causal(), full(), "alpha"),
    "learned": causal() & learned(),
}


def inputs(t: int = T, heads: int = 4, groups: int = 2, d: int = 8, e: int = 8) -> list[jax.Array]:
    keys = jax.random.split(jax.random.key(0), 4)
    return [jax.random.normal(k, (2, t, n, w)) for k, n, w in zip(keys, (heads, groups, groups, heads), (d, d, e, e), strict=True)]


def user_fields(t: int = T) -> dict:
    gate = jax.random.normal(jax.random.key(5), (2, t, 7))
    return {
        "document": jnp.asarray(np.stack([DOCUMENT, DOCUMENT[::-1]])),
        "alpha": jnp.full((t,), 0.3),
        "gate": (gate, jnp.zeros((2, t, 1))),
        "node": np.arange(t) % 7,
    }


@functools.partial(jax.jit, static_argnames=("visibility", "backend", "block", "bias"))
def value_and_slopes(visibility, backend, block, arrays, user, layer, bias=None):
    """Output, and gradients to queries, keys, values and the float fields, of a loss that weighs every output differently."""
    q, k, v, cotangent = arrays

    def loss(q, k, v, user):
        fields = fields_for(q.shape[1], k.shape[1], **user)
        out = attend(q, k, v, visibility, *fields, backend=backend, block=block, layer=layer, bias=bias)
        return (out * cotangent).sum(), out

    floats = {name: user[name] for name in ("alpha", "gate") if name in user}
    slopes, out = jax.grad(lambda q, k, v, f: loss(q, k, v, {**user, **f}), (0, 1, 2, 3), has_aux=True)(q, k, v, floats)
    return out, slopes


def by_loop(visibility: Visibility, q, k, v, user, layer, bias=None) -> np.ndarray:
    """Softmax of one query at a time over the keys that it sees, in float64."""
    fields = fields_for(q.shape[1], k.shape[1], **user)
    shape = (q.shape[0], q.shape[2], q.shape[1], k.shape[1])
    w = np.asarray(np.broadcast_to(visibility.weight(*fields, layer), shape), np.float64)
    extra = np.zeros(shape) if bias is None else np.asarray(np.broadcast_to(bias(*fields), shape), np.float64)
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    out = np.zeros((*q.shape[:3], v.shape[-1]))
    share = q.shape[2] // k.shape[2]
    for b, h, i in np.ndindex(shape[:3]):
        seen = w[b, h, i] > 0
        if seen.any():
            s = k[b, seen, h // share] @ q[b, i, h] / np.sqrt(q.shape[-1]) + extra[b, h, i, seen]
            p = w[b, h, i, seen] * np.exp(s - s.max())
            out[b, i, h] = p / p.sum() @ v[b, seen, h // share]
    return out


@pytest.mark.parametrize(("name", "block"), [*((name, 8) for name in VISIBILITIES), ("documents", 37), ("documents", 64), ("heads", 1)])
def test_blocked_is_dense_and_dense_is_a_loop(name, block):
    visibility, user, layer, arrays = VISIBILITIES[name], user_fields(), jnp.int32(1), inputs()
    out, slopes = value_and_slopes(visibility, "blocked", block, arrays, user, layer)
    dense_out, dense_slopes = value_and_slopes(visibility, "dense", 1, arrays, user, layer)
    np.testing.assert_allclose(dense_out, by_loop(visibility, *arrays[:3], user, 1), atol=1e-5)
    np.testing.assert_allclose(out, dense_out, atol=1e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-4), slopes, dense_slopes)
    if name in ("soft", "learned"):
        felt = slopes[3]["alpha"] if name == "soft" else slopes[3]["gate"][0]
        assert float(jnp.abs(felt).max()) > 0.01


@pytest.mark.parametrize("name", ["heads", "soft"])
def test_the_library_backend_agrees(name):
    visibility, user, arrays = VISIBILITIES[name], user_fields(), inputs(e=5)
    ours, slopes = value_and_slopes(visibility, "dense", 1, arrays, user, 0)
    theirs, their_slopes = value_and_slopes(visibility, "jax", 1, arrays, user, 0)
    np.testing.assert_allclose(theirs, ours, atol=1e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-4), their_slopes[:3], slopes[:3])


@pytest.mark.parametrize(
    ("name", "backend"), [("documents", "dense"), ("documents", "jax"), ("documents", "blocked"), ("heads", "blocked")]
)
def test_what_is_hidden_is_not_felt_at_all(name, backend):
    """The Jacobian from keys and values is 0 exactly where a query does not see; values are felt wherever it does."""
    visibility, user, (q, k, v, _) = VISIBILITIES[name], user_fields(), inputs(groups=4)
    fields = fields_for(T, T, **user)

    def row(i, k, v):
        return attend(q, k, v, visibility, *fields, backend=backend, block=8, layer=0)[0, i].sum(-1)

    seen = np.broadcast_to(visibility(*fields, 0), (2, 4, T, T))[0]
    jacobian = jax.jit(jax.jacrev(row, (1, 2)))
    for i in (0, 9, 30, T - 1):
        to_k, to_v = (np.abs(np.einsum("hbkhd->bhkd", felt)).sum(-1) for felt in jacobian(i, k, v))
        assert (to_k[1] == 0).all() and (to_v[1] == 0).all()
        assert (to_k[0][~seen[:, i]] == 0).all()
        np.testing.assert_array_equal(to_v[0] > 0, seen[:, i])


@pytest.mark.parametrize("backend", ["dense", "blocked", "jax"])
def test_a_query_that_sees_nothing_gives_zero_and_lets_no_gradient_pass(backend):
    q, k, v, _ = inputs()
    visibility, fields = causal() & same("document"), fields_for(T, T, document=(jnp.arange(T) // 19, jnp.zeros(T, int)))

    def blind(q, k, v):
        return attend(q, k, v, visibility, *fields, backend=backend, block=8)[:, 19:]

    out, back = jax.vjp(jax.jit(blind), q, k, v)
    assert (out == 0).all()
    assert all((slope == 0).all() for slope in back(jnp.ones_like(out)))


@pytest.mark.parametrize("backend", ["blocked", "jax"])
def test_queries_that_are_the_last_of_the_keys(backend):
    q, k, v, cotangent = inputs()
    arrays = [q[:, -13:], k, v, cotangent[:, -13:]]
    user, visibility = {"document": DOCUMENT}, VISIBILITIES["documents"]
    out, slopes = value_and_slopes(visibility, backend, 8, arrays, user, 0)
    whole = by_loop(visibility, q, k, v, user, 0)
    np.testing.assert_allclose(out, whole[:, -13:], atol=1e-5)
    expected = value_and_slopes(visibility, "dense", 1, arrays, user, 0)[1]
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-4), slopes, expected)


@pytest.mark.parametrize("backend", ["dense", "blocked", "jax"])
def test_linear_biases_are_added_to_the_scores(backend):
    arrays, user = inputs(), {"position": np.arange(T) % 11}
    out, _ = value_and_slopes(causal(), backend, 8, arrays, user, 0, Alibi(4))
    np.testing.assert_allclose(out, by_loop(causal(), *arrays[:3], user, 0, Alibi(4)), atol=1e-5)


@pytest.mark.parametrize("backend", ["dense", "blocked"])
def test_grouped_keys_are_repeated_keys(backend):
    q, k, v, cotangent = inputs()
    apart = [q, jnp.repeat(k, 2, 2), jnp.repeat(v, 2, 2), cotangent]
    out, slopes = value_and_slopes(causal(), backend, 8, [q, k, v, cotangent], {}, 0)
    out_apart, slopes_apart = value_and_slopes(causal(), backend, 8, apart, {}, 0)
    np.testing.assert_allclose(out, out_apart, atol=1e-6)
    np.testing.assert_allclose(slopes[1], slopes_apart[1].reshape(2, T, 2, 2, 8).sum(3), atol=1e-5)


def test_high_scores_do_not_overflow():
    q, k, v, cotangent = inputs()
    arrays = [300 * q, 300 * k, v, cotangent]
    for backend in ("dense", "blocked"):
        out, slopes = value_and_slopes(VISIBILITIES["learned"], backend, 8, arrays, user_fields(), 0)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves((out, slopes)))


def test_gates_need_a_backend_that_gives_them_a_gradient():
    with pytest.raises(ConfigError, match="learned gates"):
        value_and_slopes(VISIBILITIES["learned"], "jax", 8, inputs(), user_fields(), 0)


def test_an_unknown_backend_is_named():
    with pytest.raises(ConfigError, match="'flash'.*dense, blocked, ring, jax"):
        value_and_slopes(causal(), "flash", 8, inputs(), {}, 0)


def slopes_of(t: int, backend: str, seen: int, heads: int, width: int, block: int):
    """Forward and backward of attention over the last `seen` of t tokens, compiled, and its arguments' shape."""
    q, fields = jax.ShapeDtypeStruct((1, t, heads, width), jnp.float32), fields_for(t, t)

    def loss(q, k, v):
        return attend(q, k, v, causal() & window(seen), *fields, backend=backend, block=block).sum()

    return jax.jit(jax.grad(loss, (0, 1, 2))).lower(q, q, q).compile(), q.shape


def temporaries(t: int, backend: str, *how: int) -> int:
    return slopes_of(t, backend, *how)[0].memory_analysis().temp_size_in_bytes


def test_memory_of_blocked_attention_grows_with_the_sequence_and_not_with_its_square():
    how = 16, 1, 8, 16
    assert temporaries(1024, "blocked", *how) / temporaries(256, "blocked", *how) < 4.4
    assert temporaries(1024, "blocked", *how) < temporaries(1024, "dense", *how) / 8


@pytest.mark.slow
def test_a_window_of_256_costs_memory_by_the_token_and_a_quarter_of_the_time():
    how, lengths = (256, 4, 32, 128), (1024, 2048, 4096, 8192)
    taken = [temporaries(t, "blocked", *how) for t in lengths]
    slope = np.polyfit(np.log(lengths), np.log(taken), 1)[0]
    share = taken[-1] / temporaries(lengths[-1], "dense", *how)
    steps = {backend: slopes_of(4096, backend, *how) for backend in ("blocked", "dense")}
    arrays = jax.random.normal(jax.random.key(0), (3, *steps["dense"][1]))
    times = {backend: [] for backend in steps}
    for _ in range(7):  # in turn, so that what else the machine does falls on both
        for backend, (step, _) in steps.items():
            begun = time.perf_counter()
            jax.block_until_ready(step(*arrays))
            times[backend].append(time.perf_counter() - begun)
    ratio = np.median(times["blocked"]) / np.median(times["dense"])
    print(f"log-log slope {slope:.3f}; {share:.4f} of dense at 8,192; {ratio:.3f} of its time at 4,096")
    assert slope <= 1.15 and share <= 1 / 8 and ratio <= 0.25


@pytest.mark.parametrize("backend", ["dense", "blocked", "jax"])
def test_a_map_of_attention_is_what_the_outputs_were_made_with(backend):
    q, k, v, _ = inputs()
    visibility, fields = causal(strict=True) & same("document"), fields_for(T, T, document=jnp.asarray(DOCUMENT))
    how = {"backend": backend, "block": 16, "scale": 0.7, "bias": Alibi(4)}
    seen = jax.jit(lambda q, k: attention_map(q, k, visibility, *fields, **how))(q, k)
    out = jax.jit(lambda q, k, v: attend(q, k, v, visibility, *fields, **how))(q, k, v)
    np.testing.assert_allclose(jnp.einsum("bhqk,bkhe->bqhe", seen, jnp.repeat(v, 2, 2)), out, atol=1e-5)
    hidden = ~np.asarray(visibility(*fields))[0, 0]
    assert (np.asarray(seen)[:, :, hidden] == 0).all()
    np.testing.assert_allclose(seen.sum(-1), np.broadcast_to(~hidden.all(-1), seen.shape[:3]), atol=1e-5)
