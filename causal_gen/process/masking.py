"""The absorbing process: tokens turn into the mask, each on its own, and stay so; its schedules, posterior and bound.

    h(t) = chance that a token is the mask at time t, rising from h(0) = 0 to h(1) = 1;  alpha = 1 - h                        (1)
    q(x_s | x_t, x_0), s < t:  a mask of x_t becomes x_0 with chance (h(t) - h(s)) / h(t), all else stays                     (2)
    -log p(x_0) <= int_0^1 h'(t) / h(t)  E sum_{i masked in x_t} -log mu_i(x_0i | x_t)  dt                                    (3)
    in T steps:    sum_k (h(t_k) - h(t_{k-1})) / h(t_k)  E sum_{i masked} -log mu_i(x_0i | x_t_k),   t_k = k / T              (4)

    linear      h = t                                      cosine      h = sin(pi t / 2)                                      (5)
    polynomial  h = t^power                                geometric   h ~ 1 - exp(-low^(1-t) high^t), scaled to 0 and 1      (6)
    table       alpha is a line between `values`           learned     h_v = t^w_v, a w > 0 a token                           (7)

In continuous time (3) is the same for every schedule, if all tokens have one. With (7), learned, they do not, and (3) becomes

    int_0^1 1 / t  E sum_{i masked}  sum_v w_v mu_i(v | x_t)  -  w_x (1 + log mu_i(x | x_t))  dt,     x = x_0i                (8)

Sub-tokens (partial masking): a token is `parts` digits in a base, each of them masked on its own; (3) then sums over masked digits, of
which the network's law of whole tokens, cut down to those that agree with the digits still shown, tells the marginals. One digit is (3).
Sources: (2-4) Sahoo et al. 2024; Shi et al. 2024 (MD4), eqs. 7-9, and (8) GenMD4, sec. 6; partial masking: Chao et al. 2025 (Prime).
Letters: b batch, t position (and time, where the text says so), l digits of a token, v vocabulary.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.types import Array, Bool, ConfigError, Float, Int, Key, at_least, choice

SOON = 1e-5  # the earliest time that is drawn: h' / h of (3) is infinite at 0


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Eqs. (5-7). `steps` T of (4); 0: continuous time. `power` is that of (6), and what every w of (7) starts from; `low` and `high` bound
    the geometric one, and `values` (from 1 down to 0) are alpha at equal distances of time.
    """

    kind: str = choice("linear", "cosine", "polynomial", "geometric", "table", "learned")
    steps: int = at_least(0, 0)
    power: float = 1.0
    low: float = 1e-3
    high: float = 10.0
    values: tuple[float, ...] = ()

    def __post_init__(self):
        if self.power <= 0:
            raise ConfigError(f"schedule: alpha = 1 - t^{self.power} does not decrease; give a power above 0")
        if not 0 < self.low < self.high:
            raise ConfigError(f"schedule: geometric from {self.low} to {self.high} does not decrease; give 0 < low < high")
        if bool(self.values) != (self.kind == "table"):
            raise ConfigError(f"schedule: kind={self.kind} with {len(self.values)} values; kind=table and its values come together")
        if self.values and (self.values[0] != 1 or self.values[-1] != 0 or (np.diff(self.values) >= 0).any()):
            raise ConfigError(f"schedule: the values {list(self.values)} do not decrease from 1 to 0; alpha has to")
        if self.kind == "learned" and self.steps:
            raise ConfigError(f"schedule: a learned one is in continuous time, not in {self.steps} steps; set steps to 0")

    def hidden(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        """h of times t in [0, 1]; of a learned schedule where every w is `power`."""
        if self.kind == "linear":
            return t
        if self.kind == "cosine":
            return jnp.sin(jnp.pi / 2 * t)
        if self.kind == "geometric":
            rate = self.low * (self.high / self.low) ** t - self.low
            return jnp.expm1(-rate) / math.expm1(self.low - self.high)
        if self.kind == "table":
            return 1 - jnp.interp(t, jnp.linspace(0, 1, len(self.values)), jnp.asarray(self.values))
        return t**self.power

    def alpha(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        """1 - h."""
        return 1 - self.hidden(t)

    def weight(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        """h' / h of (3), or T times the factor of (4), so that the mean over drawn times is the bound."""
        if self.steps:
            before = self.hidden(jnp.maximum(t - 1 / self.steps, 0))
            return self.steps * (1 - before / self.hidden(t))
        slope = jax.jvp(self.hidden, (t,), (jnp.ones_like(t),))[1]
        return slope / self.hidden(t)

    def reveal(self, s: Float[Array, "..."], t: Float[Array, "..."]) -> Float[Array, "..."]:
        """The chance of (2) that a mask at t is no mask at s < t."""
        return 1 - self.hidden(s) / self.hidden(t)

    def time(self, at: Float[Array, "..."]) -> Float[Array, "..."]:
        """The time, or the step's time, of a number that is uniform over [0, 1)."""
        return jnp.ceil(jnp.maximum(at, 1e-6) * self.steps) / self.steps if self.steps else jnp.maximum(at, SOON)


def spread(key: Key, num: int) -> Float[Array, "num"]:
    """Numbers of `num` examples, each uniform over [0, 1), and all together spread evenly (one random offset): less variance than draws
    apart."""
    return (jax.random.uniform(key, ()) + jnp.arange(num) / num) % 1.0


def powers(raw: Float[Array, "v"]) -> Float[Array, "v"]:
    """w of (7) from unconstrained numbers."""
    return jax.nn.softplus(raw)


def raw_powers(power: float, vocabulary: int) -> Float[Array, "v"]:
    """The numbers that `powers` makes `power` of."""
    return jnp.full((vocabulary,), power + math.log(-math.expm1(-power)))


def corrupt(
    key: Key, chance: Float[Array, "..."], allowed: Bool[Array, "..."], other: Bool[Array, ""] | bool = False
) -> Bool[Array, "..."]:
    """Which of the `allowed` places are masked, each with its own chance; by `other` those that chance 1 - `chance` leaves."""
    u = jax.random.uniform(key, allowed.shape)
    return (jnp.where(other, u >= 1 - chance, u < chance)) & allowed


def learned_chance(t: Float[Array, "b"], w: Float[Array, "v"], tokens: Int[Array, "b t"]) -> Float[Array, "b t"]:
    """h_v(t) of (7) for every token."""
    return t[:, None] ** w[tokens]


def hide(key: Key, count: Int[Array, "b"], allowed: Bool[Array, "b t"], span: int = 1) -> Bool[Array, "b t"]:
    """`count` places of each row, drawn among those `allowed`; with `span` in runs of about so many neighbours."""
    rows, places = allowed.shape
    keys = jax.random.split(key, 3)
    scores = jax.random.uniform(keys[0], allowed.shape)
    if span > 1:
        first = jax.random.randint(keys[1], (rows, 1), 0, span)
        run = (jnp.arange(places)[None] + first) // span
        scores = jnp.take_along_axis(jax.random.uniform(keys[2], allowed.shape), run, 1) + 1e-4 * scores
    rank = jnp.argsort(jnp.argsort(jnp.where(allowed, scores, 2.0), axis=-1), axis=-1)
    return (rank < count[:, None]) & allowed


@dataclasses.dataclass(frozen=True)
class SubTokens:
    """A token of `vocabulary` as `parts` digits in the least base that suffices."""

    vocabulary: int
    parts: int = 1

    def __post_init__(self):
        if self.parts < 1 or self.parts > max(1, math.ceil(math.log2(self.vocabulary))):
            most = max(1, math.ceil(math.log2(self.vocabulary)))
            raise ConfigError(f"parts={self.parts}: a token of {self.vocabulary} has 1 to {most} digits; choose among them")

    @property
    def base(self) -> int:
        """Values of a digit."""
        base = max(2, round(self.vocabulary ** (1 / self.parts)) - 1)
        while base**self.parts < self.vocabulary:
            base += 1
        return base

    @property
    def digits(self) -> Int[np.ndarray, "v l"]:
        """The digits of every token, the most significant first."""
        scale = self.base ** np.arange(self.parts)[::-1]
        return (np.arange(self.vocabulary)[:, None] // scale % self.base).astype(np.int32)

    def encode(self, tokens: Int[Array, "..."]) -> Int[Array, "... l"]:
        """The digits of `tokens`."""
        return jnp.asarray(self.digits)[tokens]

    def decode(self, digits: Int[Array, "... l"]) -> Int[Array, "..."]:
        """The tokens that digits [.., l] stand for."""
        scale = jnp.asarray(self.base ** np.arange(self.parts)[::-1]).reshape((1,) * (digits.ndim - 1) + (-1,))
        return (digits * scale).sum(-1)


def check_mask(mask: int, vocabulary: int) -> None:
    """Raises `ConfigError` for a mask that is one of the data's tokens 0 .. vocabulary - 1."""
    if 0 <= mask < vocabulary:
        raise ConfigError(f"mask: token {mask} is also one of the data's, 0..{vocabulary - 1}; leave it none for a token of its own")
