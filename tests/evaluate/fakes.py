"""Models without networks that know the answer, or get it wrong in a known way: controls of the evaluation itself."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp

from causal_gen.data import pendulum as sim
from causal_gen.scm.intervention import canonical
from causal_gen.structure.graph import Dag

EDGES = tuple((parent, child) for parent in ("angle", "light") for child in ("shadow_length", "shadow_position"))


@dataclasses.dataclass(frozen=True)
class Simulator:
    """The true mechanism as a model: abduct reads the labels, predict renders. Latent blocks hold the value twice.

    `kind`: "oracle"; "identity" hands the factual image back; "constant" draws a grey image; "frozen" does not propagate.
    """

    size: int
    kind: str = "oracle"
    factors: tuple[str, ...] = sim.FACTORS
    context: tuple[str, ...] = ()
    needs: tuple[str, ...] = ("image", *sim.FACTORS)
    actable: tuple[str, ...] = sim.FACTORS

    @property
    def graph(self) -> Dag:
        return Dag(self.factors, EDGES).with_sink("image")

    def abduct(self, params: Any, key: Any, batch: Any) -> dict[str, Any]:
        del params, key
        length, position = sim.children(batch["angle"], batch["light"])
        exogenous = {
            "angle": batch["angle"],
            "light": batch["light"],
            "shadow_length": batch["shadow_length"] - length,
            "shadow_position": batch["shadow_position"] - position,
        }
        return {name: jnp.stack([value, value], -1) for name, value in exogenous.items()} | {"image": batch["image"]}

    def values(self, noise: Any, do: Any) -> dict[str, Any]:
        acts = canonical(do, self.factors, noise["angle"].shape[0])
        out = {}
        for name in self.factors:
            natural = noise[name][:, 0]
            if name in ("shadow_length", "shadow_position"):
                source = out if self.kind != "frozen" else {"angle": noise["angle"][:, 0], "light": noise["light"][:, 0]}
                natural = natural + sim.children(source["angle"], source["light"])[int(name == "shadow_position")]
            out[name] = acts[name].apply(natural)
        return out

    def predict(self, params: Any, noise: Any, context: Any = None, do: Any = None) -> dict[str, Any]:
        del params, context
        values = self.values(noise, do)
        image = sim.render(*(values[name] for name in sim.FACTORS), self.size)
        if self.kind == "identity":
            image = noise["image"]
        if self.kind == "constant":
            image = jnp.full_like(noise["image"], 0.5)
        return {**values, "image": image}

    def latents(self, params: Any, noise: Any, do: Any = None) -> dict[str, Any]:
        del params
        return {name: jnp.stack([value, value], -1) for name, value in self.values(noise, do).items()}
