"""Which objective a step, or a row of it, is trained by.

    ratio       of every batch a fixed share of the rows goes to each objective: one step, all of them                        (1)
    draw        the whole batch goes to objective i with chance share_i                                                       (2)
    alternate   each objective has the next so many steps in turn                                                             (3)
    phases      (2), by shares that change at given steps of training                                                         (4)
    bandit      (2) by p_i = (1 - explore) softmax(s)_i + explore / n;  after a step by objective i, of mean loss l,          (5)
                s_i += rate r / p_i,   r = clip((b_i - l) / (2 c), -1, 1),   b_i, c running means of l and of |b_i - l|

The reward r of (5) is how much faster than usual an objective's loss falls: the prediction gain of Graves et al., Automated curriculum
learning (2017), under the weights of Exp3 (Auer et al. 2002). Its state is an entry of params["state"]. Letters: n objectives.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.types import Array, ConfigError, Float, Int, Key, at_least, choice

SLOW = 0.9  # of the running means in (5)


@dataclasses.dataclass(frozen=True)
class MixerConfig:
    """Eqs. (1-5). Shares are those of the objectives, except where `stages` are given.

    steps: of "alternate", each objective's turn; of "phases", how long each phase but the last is.  stages: shares of the objectives in
    each of the phases.  explore, rate: of the bandit.
    """

    kind: str = choice("ratio", "draw", "alternate", "phases", "bandit")
    steps: tuple[int, ...] = dataclasses.field(default=(), metadata={"min": 1})
    stages: tuple[tuple[float, ...], ...] = ()
    explore: float = at_least(0.1, 0.0, 1.0)
    rate: float = at_least(0.05, 0.0)

    def check(self, shares: tuple[float, ...]) -> None:
        """Raises `ConfigError` where this does not fit objectives of these shares."""
        count = len(shares)
        if not sum(shares):
            raise ConfigError("objectives: their shares sum to zero; give one of them a share")
        if self.kind == "alternate" and len(self.steps) != count:
            raise ConfigError(f"mixer.steps: {len(self.steps)} turns for {count} objectives; give each the steps of its turn")
        if self.kind == "phases" and not len(self.stages) == len(self.steps) + 1 > 1:
            raise ConfigError(f"mixer: {len(self.stages)} stages and {len(self.steps)} lengths; give every stage but the last its steps")
        if self.kind not in ("alternate", "phases") and self.steps or self.kind != "phases" and self.stages:
            raise ConfigError(f"mixer: kind={self.kind} reads no steps or stages; leave them empty, or set kind to phases")
        for stage in self.stages:
            if len(stage) != count or min(stage) < 0:
                raise ConfigError(f"mixer.stages: {list(stage)} for {count} objectives; give each a share of at least 0")
            if not sum(stage):
                raise ConfigError(f"mixer.stages: the shares {list(stage)} sum to zero; give one of them a share")
        if self.kind == "bandit" and count < 2:
            raise ConfigError("mixer: a bandit with one arm has nothing to choose; give a second objective, or set kind to draw")

    def last(self, shares: tuple[float, ...]) -> tuple[float, ...]:
        """Shares, of sum 1, at the end of training."""
        told = self.stages[-1] if self.kind == "phases" else self.steps if self.kind == "alternate" else shares
        told = (1.0,) * len(shares) if self.kind == "bandit" else told
        return tuple(share / sum(told) for share in told)


def rows(shares: tuple[float, ...], num: int) -> tuple[int, ...]:
    """Eq. (1): how many of `num` rows each objective gets, by the largest remainders. Raises `ConfigError` where one gets none."""
    exact = np.asarray(shares, np.float64) / sum(shares) * num
    counts = np.floor(exact).astype(int)
    more = np.argsort(counts - exact, kind="stable")[: num - counts.sum()]
    counts[more] += 1
    if wrong := [share for share, count in zip(shares, counts, strict=True) if share and not count]:
        raise ConfigError(f"mixer: {num} rows leave none for a share of {wrong[0]}; raise train.batch_size, or set mixer.kind to draw")
    return tuple(int(count) for count in counts)


def chances(config: MixerConfig, shares: tuple[float, ...], step: Array, state: dict[str, Array] | None) -> Float[Array, "n"]:
    """The chance of each objective at a step, eqs. (2-5)."""
    if config.kind == "alternate":
        ends = np.cumsum(config.steps)
        turn = jnp.searchsorted(jnp.asarray(ends), jnp.asarray(step) % int(ends[-1]), side="right")
        return jax.nn.one_hot(turn, len(shares))
    if config.kind == "phases":
        table = jnp.asarray([[share / sum(stage) for share in stage] for stage in config.stages])
        return table[jnp.searchsorted(jnp.asarray(np.cumsum(config.steps)), jnp.asarray(step), side="right")]
    if config.kind == "bandit":
        assert state is not None
        return (1 - config.explore) * jax.nn.softmax(state["score"]) + config.explore / len(shares)
    return jnp.asarray(shares) / sum(shares)


def pick(key: Key, chance: Float[Array, "n"]) -> Int[Array, ""]:
    """One objective."""
    return jax.random.categorical(key, jnp.log(chance)).astype(jnp.int32)


# -- the bandit --------------------------------------------------------------------------------------------------------------


def start(count: int) -> dict[str, Array]:
    """The state of (5) before the first step; `tried` counts the steps of each objective."""
    return {name: jnp.zeros((count,)) for name in ("score", "usual", "tried")} | {"scale": jnp.zeros(())}


def played(index: Int[Array, ""], count: int, losses: Float[Array, "b"]) -> dict[str, Float[Array, "n"]]:
    """What a step tells (5), summed over microbatches and devices by the trainer."""
    arm = jax.nn.one_hot(index, count)
    return {"loss": arm * jax.lax.stop_gradient(losses).mean(), "count": arm}


def learn(config: MixerConfig, state: dict[str, Array], stats: dict[str, Array]) -> dict[str, Array]:
    """Eq. (5). The first step of an objective only tells what is usual."""
    count = stats["count"]
    loss = stats["loss"] / jnp.maximum(count, 1)
    known, now = state["tried"] > 0, count > 0
    gain = jnp.where(known & now, state["usual"] - loss, 0.0)
    size = jnp.abs(gain).sum() / jnp.maximum((known & now).sum(), 1)
    scale = jnp.where(state["scale"] > 0, SLOW * state["scale"] + (1 - SLOW) * size, size)
    scale = jnp.where((known & now).any(), scale, state["scale"])
    chance = (1 - config.explore) * jax.nn.softmax(state["score"]) + config.explore / len(loss)
    reward = jnp.clip(gain / jnp.maximum(2 * scale, 1e-8), -1, 1)
    score = state["score"] + config.rate * reward / chance
    usual = jnp.where(now, jnp.where(known, SLOW * state["usual"] + (1 - SLOW) * loss, loss), state["usual"])
    return {"score": score - score.mean(), "usual": usual, "tried": state["tried"] + count, "scale": scale}
