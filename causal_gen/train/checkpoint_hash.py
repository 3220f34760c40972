"""One number a leaf: a hash of its bits that is the same on every mesh, and the same computed by XLA and by numpy.

With w_i the words of a leaf (u32; smaller entries are widened, larger ones give two) and m the finaliser of MurmurHash3, a bijection:

    h = (sum_i m(w_i ^ m(i)),  sum_i m(w_i + m(i ^ 0x9e3779b9)))  mod 2^32                      (1)

Integer sums do not round, so no sharding changes (1), and a change of one entry always changes its first number. A check for accidents,
not attackers.

Source: the finaliser of MurmurHash3, Appleby 2011; the sum (1) is this project's own.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.parallel.rules import leaf_path
from causal_gen.types import Array, PyTree

GOLDEN = 0x9E3779B9  # 2^32 / golden ratio: any number far from 0 would do
CHUNK = 1 << 22  # entries that numpy takes at a time, for its temporaries' sake


def _mix(h: Any) -> Any:
    """The finaliser of MurmurHash3 (public domain, A. Appleby), of u32 arrays of either library."""
    h = (h ^ (h >> 16)) * np.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * np.uint32(0xC2B2AE35)
    return h ^ (h >> 16)


def hash_leaf(x: Array) -> Array:
    """u32 [2], eq. (1), inside jit."""
    if x.dtype == jnp.bool_:
        x = x.astype(jnp.uint8)
    bits = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * min(x.dtype.itemsize, 4)}"))  # 64-bit entries gain an axis of two words
    words = bits.astype(jnp.uint32).reshape(-1)
    index = jax.lax.iota(jnp.uint32, words.size)
    first = jnp.sum(_mix(words ^ _mix(index)), dtype=jnp.uint32)
    second = jnp.sum(_mix(words + _mix(index ^ np.uint32(GOLDEN))), dtype=jnp.uint32)
    return jnp.stack([first, second])


def hash_host(x: np.ndarray) -> str:
    """16 hex digits, eq. (1), without a device: for what is read back while the devices train. `x` of any shape [...] and dtype."""
    flat = np.ascontiguousarray(x).reshape(-1)
    words = flat.view(f"u{min(flat.dtype.itemsize, 4)}")
    sums = np.zeros(2, np.uint32)
    for start in range(0, words.size, CHUNK):
        some = words[start : start + CHUNK].astype(np.uint32)
        index = np.arange(start, start + some.size, dtype=np.uint64).astype(np.uint32)
        first, second = _mix(some ^ _mix(index)), _mix(some + _mix(index ^ np.uint32(GOLDEN)))
        sums += np.array([np.sum(first, dtype=np.uint32), np.sum(second, dtype=np.uint32)])
    return f"{int(sums[0]):08x}{int(sums[1]):08x}"


_hash_leaves = jax.jit(lambda leaves: [hash_leaf(x) for x in leaves])


def hashes(tree: PyTree) -> dict[str, str]:
    """{path of a leaf: 16 hex digits}, computed where the leaves are."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    values = jax.device_get(_hash_leaves([leaf for _, leaf in leaves]))
    return {leaf_path(path): f"{int(a):08x}{int(b):08x}" for (path, _), (a, b) in zip(leaves, values, strict=True)}
