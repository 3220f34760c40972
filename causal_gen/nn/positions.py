"""Where a token stands, told to attention: rotary angles (one index, two, or two in one), linear biases, a learned table, or nothing.

    angles_f(p) = p base^{-f / F},  f = 0..F-1;   rotate(x, a) = x turned by a_f in the plane of its features f and F + f      (1)
    <rotate(q, angles(m)), rotate(k, angles(n))> depends on m - n alone                                                     (2)
    rope2d: the first half of the planes turns with the row, the second with the column                                    (3)
    rope_dual: p = position + w frame, so that frame 0 is plain RoPE                                                       (4)
    alibi: score_h += -slope_h |m - n|,  slope_h = 2^{-8 h / H}, h = 1..H                                                  (5)

Sources: (1, 2) Su et al. 2021; (4) Gao et al. 2024 (TC-LLaVA); (5) Press et al. 2022, with |.| so that it also serves two directions.
A position is the field "position" where there is one (it may restart at a document), else "index". Letters: b batch, t position,
h heads, d head width, f planes.
"""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp

from causal_gen.structure.visibility import Fields
from causal_gen.types import Array, ConfigError, Float

KINDS = ("rope", "rope2d", "rope_dual", "alibi", "learned", "none")
ROTARY = ("rope", "rope2d", "rope_dual")


def place(fields: Fields) -> Array:
    """The position of every token, [t] or [b, t]."""
    return jnp.asarray(fields["position"] if "position" in fields else fields["index"])


def rotary(kind: str, fields: Fields, width: int, base: float = 10_000.0, frame_weight: float = 1.0) -> Array | None:
    """Angles [t, f] or [b, t, f] of eqs. (1, 3, 4) for heads of even `width` = 2 f, or None where `kind` does not rotate."""
    if kind not in ROTARY:
        return None
    if kind == "rope2d":
        rows, columns = (turns(_field(fields, name, kind), width // 2, base) for name in ("row", "column"))
        return jnp.concatenate([rows, columns], -1)
    position = place(fields)
    if kind == "rope_dual":
        frame = _field(fields, "frame", kind)
        shape = jnp.broadcast_shapes(position.shape, frame.shape)  # one of them may be the same in all rows
        position = jnp.broadcast_to(position, shape) + frame_weight * jnp.broadcast_to(frame, shape)
    return turns(position, width, base)


def rotate(x: Float[Array, "b t h d"], angles: Array | None) -> Float[Array, "b t h d"]:
    """Eq. (1) on every head; None leaves x as it is. `angles` [b, t, d / 2]."""
    if angles is None:
        return x
    angles = jnp.broadcast_to(angles, (1, *angles.shape[-2:]) if angles.ndim == 2 else angles.shape)[:, :, None, :]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    left, right = jnp.split(x.astype(jnp.float32), 2, -1)
    return jnp.concatenate([left * cos - right * sin, right * cos + left * sin], -1).astype(x.dtype)


@dataclasses.dataclass(frozen=True)
class Alibi:
    """Eq. (5) as a score bias of `heads` heads: called with the fields of queries and keys, it gives f32 [b or 1, h, tq, tk]."""

    heads: int

    def __call__(self, q: Fields, k: Fields) -> Array:
        m, n = (place(fields).astype(jnp.float32) for fields in (q, k))
        m, n = (p.reshape((1,) * (2 - p.ndim) + p.shape) for p in (m, n))
        distance = jnp.abs(m[:, None, :, None] - n[:, None, None, :])
        return -jnp.asarray(slopes(self.heads), jnp.float32).reshape(1, -1, 1, 1) * distance


def slopes(heads: int) -> list[float]:
    """The geometric slopes of eq. (5); where `heads` is no power of two, the missing ones are every second of twice as many."""
    power = 2 ** math.floor(math.log2(heads))
    first = [2 ** (-8 * h / power) for h in range(1, power + 1)]
    return first if power == heads else first + slopes(2 * power)[0::2][: heads - power]


def turns(position: Array, width: int, base: float) -> Array:
    """angles of eq. (1) for positions of any shape, with one axis of width / 2 planes more.

    `position` [...], the answer [..., width / 2], in radians.
    """
    planes = width // 2
    rates = jnp.exp(-math.log(base) / planes * jnp.arange(planes, dtype=jnp.float32))
    position = position.astype(jnp.float32)
    return position[..., None] * rates.reshape((1,) * position.ndim + (-1,))


def _field(fields: Fields, name: str, kind: str) -> Array:
    if name not in fields:
        known = ", ".join(sorted(fields))
        raise ConfigError(f'position "{kind}" reads the field {name!r}, which the sequence lacks; its fields are {known}')
    return jnp.asarray(fields[name])
