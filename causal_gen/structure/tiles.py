"""Which tiles of a score matrix hold anything to see: the map by which blocked attention skips work.

The map is made on the host, also while a step is traced: from the fields whose values are known then (numpy arrays, "index" first of
all). What depends on traced fields counts as "may be seen", so that `causal() & window(256) & same_document()` with the documents of a
batch still leaves a band of tiles. Rows of tiles are evaluated one at a time: memory is O(block t), not O(t^2).
"""

from __future__ import annotations

import jax
import numpy as np
from jax.core import Tracer

from causal_gen.structure.visibility import Fields, Layer, Side, Visibility, cut, length, time_axis


def tiles(visibility: Visibility, q: Fields, k: Fields, block_q: int, block_k: int, layer: Layer = None) -> np.ndarray:
    """bool [ceil(tq / block_q), ceil(tk / block_k)]: false where no query of the tile sees a key of it, in any example or head.

    Exact where every field is known; with traced ones true where the tile may be seen. Over all layers if `layer` is None or traced.
    """
    layer, shape = layer if isinstance(layer, int) else None, (-(-length(q) // block_q), -(-length(k) // block_k))
    q, k = (_known(fields, names, block) for fields, names, block in zip((q, k), visibility.reads, (block_q, block_k), strict=True))
    seen = np.empty(shape, bool)
    with jax.ensure_compile_time_eval():
        keys = Side(k, is_query=False, tokens=shape[1] * block_k)
        for i in range(shape[0]):
            queries = Side({name: cut(field, i * block_q, block_q) for name, field in q.items()}, is_query=True, tokens=block_q)
            may = np.asarray(visibility.bounds(queries, keys, layer)[0]).any((0, 1, 2))
            seen[i] = np.broadcast_to(may, (keys.tokens,)).reshape(-1, block_k).any(1)
    return seen


def _known(fields: Fields, names: frozenset[str], block: int) -> dict[str, np.ndarray]:
    """The fields of `names` whose values are known, up to a whole tile.

    The last token is repeated for that: its copies see what it sees, so that the map stays exact.
    """
    found = {name: np.asarray(fields[name]) for name in names & fields.keys() if not isinstance(fields[name], Tracer)}
    return {name: np.pad(field, _widths(field, block), mode="edge") for name, field in found.items()}


def _widths(field: np.ndarray, block: int) -> list[tuple[int, int]]:
    axis = time_axis(field)
    return [(0, -field.shape[axis] % block if i == axis else 0) for i in range(field.ndim)]
