"""A model and a source small enough that a test trains them in seconds: x -> y by two dense layers, with a running mean as "state"."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.models.base import Aux, Group
from causal_gen.structure.graph import Dag
from causal_gen.types import Entry


@dataclasses.dataclass(frozen=True)
class ToyModel:
    """`noisy` draws from the key; `poison` makes a term infinite from that step on; `groups_` stands for groups()."""

    width: int = 8
    noisy: bool = True
    poison: int | None = None
    batch_coupled: bool = False
    with_state: bool = True
    groups_: tuple[tuple[str, Group], ...] = ((".*", Group()),)

    graph = Dag(("x", "y"), (("x", "y"),))
    actable: tuple[str, ...] = ("x", "y")
    context: tuple[str, ...] = ()
    needs: tuple[str, ...] = ("x", "y")
    likelihood: None = None

    def _unused(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("training does not call this")

    conditionals = noise = predict = abduct = descendants = log_prob = _unused

    def init(self, key: jax.Array) -> dict[str, Any]:
        a, b = jax.random.split(key)
        params = {
            "first": {"kernel": jax.random.normal(a, (4, self.width)) * 0.5, "bias": jnp.zeros((self.width,))},
            "second": {"kernel": jax.random.normal(b, (self.width, 1)) * 0.5},
        }
        return {**params, "state": {"mean": jnp.zeros((4,))}} if self.with_state else params

    def loss(self, params: Any, key: jax.Array, batch: Any, *, step: Any, train: bool) -> tuple[jax.Array, Aux]:
        x = batch["x"]
        if self.noisy and train:
            x = x + 0.1 * jax.random.normal(key, x.shape)
        hidden = jnp.tanh(x @ params["first"]["kernel"] + params["first"]["bias"][None])
        error = (hidden @ params["second"]["kernel"])[:, 0] - batch["y"]
        square, absolute = error**2, 0.01 * jnp.abs(error)
        if self.poison is not None:
            absolute = jnp.where((step >= self.poison) & train, jnp.inf, absolute)
        stats = {"sum": jnp.sum(batch["x"], 0), "count": jnp.float32(x.shape[0])} if self.with_state and train else None
        return square + absolute, Aux({"square": square, "absolute": absolute}, stats)

    def update_state(self, params: Any, stats: Any) -> Any:
        return {"mean": 0.5 * params["state"]["mean"] + 0.5 * stats["sum"] / stats["count"]}

    def groups(self) -> dict[str, Group]:
        return dict(self.groups_)


@dataclasses.dataclass(frozen=True)
class ToySource:
    rows: int = 96

    name = "toy"

    @property
    def entries(self) -> dict[str, Entry]:
        return {"x": Entry((4,)), "y": Entry(())}

    def size(self, split: str) -> int:
        return self.rows if split == "train" else 40

    def gather(self, split: str, indices: np.ndarray) -> dict[str, np.ndarray]:
        generator = np.random.default_rng(0 if split == "train" else 1)
        x = generator.normal(size=(self.size(split), 4)).astype(np.float32)
        return {"x": x[indices], "y": np.sin(x.sum(1))[indices]}

    def stats(self) -> dict[str, Any]:
        return {}

    def truth(self, split: str, indices: np.ndarray, do: Any) -> None:
        return None


CONFIG: dict[str, Any] = {"data": {"name": "toy", "rows": 96, "stats": {}}, "model": {"name": "toy", "width": 8}}
