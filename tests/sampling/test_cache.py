"""Caches against attention over the whole sequence with what they no longer hold hidden, and taking tokens back."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.sampling import cache as caches
from causal_gen.types import ConfigError

T, B, D, SLOTS = 12, 2, 4, 5
Q, K, V = jax.random.normal(jax.random.key(0), (3, B, T, D))
SCORE = jax.random.normal(jax.random.key(1), (B, T))
INDEX = jnp.broadcast_to(jnp.arange(T), (B, T))


def attend(q, k, v, seen):
    scores = jnp.where(seen, jnp.einsum("btd,bsd->bts", q, k), -jnp.inf)
    return jnp.einsum("bts,bsd->btd", jax.nn.softmax(scores, -1), v)


def piece(start: int, size: int):
    """Entries and fields of some tokens."""
    at = slice(start, start + size)
    return {"k": K[None, :, at], "v": V[None, :, at]}, {"index": INDEX[:, at], "score": SCORE[:, at]}


def made(kind: str, slots: int, scored: bool = True, stride: int = 1):
    new, fields = piece(0, 1)
    return caches.empty(new, fields if scored else {"index": fields["index"]}, slots, kind, stride)


@jax.jit
def step(cache, q, new, fields):
    """Attention over the slots and then the new token; only then is it kept."""
    k, v = (jnp.concatenate([cache.store[name][0], new[name][0]], 1) for name in ("k", "v"))
    seen = jnp.concatenate([cache.valid, jnp.ones((B, 1), bool)], 1)[:, None]
    return attend(q, k, v, seen), caches.insert(caches.commit(cache), new, fields)


def kept_by(kind: str) -> np.ndarray:
    """bool [b, t, t]: what each query still has, from the definition of each kind."""
    seen = np.zeros((B, T, T), bool)
    for b in range(B):
        held: list[int] = []
        for i in range(T):
            seen[b, i, [*held, i]] = True
            if kind == "ring" or kind == "evict, unscored":
                held = [*held, i][-SLOTS:]
            elif kind == "evict":
                if len(held) == SLOTS:
                    held.remove(min(held, key=lambda j: float(SCORE[b, j])))
                held.append(i)
            else:
                held.append(i)
    return seen


@pytest.mark.parametrize("kind", ["append", "ring", "evict", "evict, unscored"])
def test_a_cached_step_is_attention_with_what_is_not_kept_hidden(kind):
    cache = made(kind.partition(",")[0], T if kind == "append" else SLOTS, scored="unscored" not in kind)
    want, outs = attend(Q, K, V, kept_by(kind)), []
    for i in range(T):
        out, cache = step(cache, Q[:, i : i + 1], *piece(i, 1))
        outs.append(out)
        assert int(cache.valid.sum(1).max()) <= cache.slots
    np.testing.assert_allclose(jnp.concatenate(outs, 1), want, atol=1e-6)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_merged_slots_are_the_sums_of_their_chunks(stride):
    cache = made("merge", -(-T // stride), stride=stride)
    parts = [piece(0, 5), piece(5, 1), piece(6, 6)]
    for new, fields in parts:
        cache = jax.jit(caches.merge)(cache, new, fields)
    chunks = [K[:, i : i + stride].sum(1) for i in range(0, T, stride)]
    np.testing.assert_allclose(cache.store["k"][0], jnp.stack(chunks, 1), atol=1e-6)
    np.testing.assert_array_equal(cache.fields["index"][0], np.minimum(np.arange(stride - 1, T + stride - 1, stride), T - 1))
    assert cache.valid.all()


@pytest.mark.parametrize("kind", ["append", "ring", "evict"])
@pytest.mark.parametrize("sizes", [(1,) * 9, (4, 1, 4), (3, 3, 3)], ids=str)
def test_tokens_may_come_one_by_one_or_together(kind, sizes):
    """The same tokens are held, each with its own entries, whatever pieces they came in."""
    if kind == "evict" and len(sizes) < 9:
        kind, scored = "evict", False  # by score, tokens of one piece compete with one another at once
    else:
        scored = True
    cache, start = made(kind, 9 if kind == "append" else SLOTS, scored), 0
    for size in sizes:
        cache = jax.jit(caches.insert)(caches.commit(cache), *piece(start, size))
        start += size
    for b in range(B):
        held = np.asarray(cache.stamp[b])[np.asarray(cache.valid[b])]
        if kind != "evict" or not scored:
            assert sorted(held) == list(range(9))[-cache.slots :]
        for slot in np.flatnonzero(np.asarray(cache.valid[b])):
            token = int(cache.stamp[b, slot])
            np.testing.assert_array_equal(cache.store["v"][0, b, slot], V[b, token])
            assert int(cache.fields["index"][b, slot]) == token
    np.testing.assert_array_equal(caches.holds(cache, T).sum(1), cache.valid.sum(1))


def test_a_long_prompt_leaves_its_end_in_a_ring_and_its_best_where_there_are_scores():
    ring, best = (caches.insert(made(kind, SLOTS), *piece(0, T)) for kind in ("ring", "evict"))
    assert np.asarray(caches.holds(ring, T)).tolist() == [[i >= T - SLOTS for i in range(T)]] * B
    order = np.argsort(np.argsort(-np.asarray(SCORE), 1), 1)
    np.testing.assert_array_equal(caches.holds(best, T), order < SLOTS)


@pytest.mark.parametrize("kind", ["append", "ring", "evict"])
def test_commit_keeps_a_path_and_forgets_the_rest(kind):
    """Five tokens, of which row 0 keeps three and row 1 one: what is held, and what later tokens find free."""
    cache = made(kind, 10, scored=False)
    cache = caches.commit(caches.insert(cache, *piece(0, 3)))
    cache = caches.insert(cache, *piece(3, 5))
    cache = jax.jit(caches.commit)(cache, jnp.array([[0, 2, 4], [1, -1, -1]]))
    assert int(cache.count) == int(cache.mark) == 6
    want = [[0, 1, 2, 3, 5, 7], [0, 1, 2, 4]]
    for b in range(B):
        slots = np.flatnonzero(np.asarray(cache.valid[b]))
        slots = slots[np.argsort(np.asarray(cache.stamp[b])[slots])]
        np.testing.assert_array_equal(cache.fields["index"][b, slots], want[b])
        np.testing.assert_array_equal(cache.store["k"][0, b, slots], K[b, jnp.array(want[b])])
        assert sorted(np.asarray(cache.stamp[b])[slots].tolist()) == list(range(len(want[b])))
    more = caches.insert(cache, *piece(8, 4))
    assert int(more.valid[0].sum()) == 10 and int(more.count) == 10


def test_uncommitted_tokens_are_not_evicted():
    cache = caches.insert(made("evict", SLOTS), *piece(0, SLOTS))
    cache = functools.reduce(lambda cache, i: caches.insert(cache, *piece(i, 1)), range(5, 9), caches.commit(cache))
    assert np.asarray(caches.holds(cache, T))[:, 5:9].all()


def test_a_widened_cache_goes_on_as_if_it_had_had_the_room_from_the_start():
    small, large = made("append", 3), made("append", T)
    for t in range(T):
        small = caches.widen(small, t + 3) if t >= small.slots else small
        told = [step(cache, Q[:, t : t + 1], *piece(t, 1)) for cache in (small, large)]
        np.testing.assert_allclose(told[0][0], told[1][0], atol=1e-6)
        small, large = (cache for _, cache in told)
    assert small.slots == T and small.valid.all()


def test_a_fork_copies_rows():
    cache = caches.insert(made("append", T), *piece(0, 4))
    forked = caches.fork(cache, jnp.array([1, 1, 0]))
    np.testing.assert_array_equal(forked.store["k"][0, :, :4], K[jnp.array([1, 1, 0]), :4])
    np.testing.assert_array_equal(forked.fields["score"][:, :4], SCORE[jnp.array([1, 1, 0]), :4])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: caches.widen(made("ring", 3), 4), "ring with 3 slots cannot be widened to 4"),
        (lambda: caches.widen(made("append", 3), 2), "append with 3 slots cannot be widened to 2"),
        (lambda: made("heap", 3), "unknown kind 'heap'; known are append, ring"),
        (lambda: made("ring", 0), "0 slots"),
        (lambda: caches.insert(made("append", 3), *piece(0, 4)), "4 tokens do not fit into 3 slots"),
        (lambda: caches.insert(made("merge", 2, stride=2), *piece(0, 5)), "overrun 2 slots"),
        (lambda: caches.commit(made("merge", 2), jnp.zeros((B, 1), jnp.int32)), "cannot take tokens back"),
    ],
)
def test_mistakes_are_named_in_one_line(make, message):
    with pytest.raises(ConfigError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
