"""A structural causal model whose last node is a picture of the others.

Its factors are the other nodes; the rest is the structural model's own (models/structural.py). Letters: b batch.
"""

from __future__ import annotations

import dataclasses

from causal_gen.models.structural import Structural
from causal_gen.scm.intervention import Acts, Intervention
from causal_gen.types import Array, Float, Noise, Params


@dataclasses.dataclass(frozen=True)
class Pictured(Structural):
    """`Structural` over named factors and the node `picture`, which nobody sets by hand and which causes nothing."""

    picture: str = "image"

    @property
    def factors(self) -> tuple[str, ...]:
        """The nodes that are no picture, in config order."""
        return tuple(name for name in self.graph.nodes if name != self.picture)

    @property
    def actable(self) -> tuple[str, ...]:
        """Interventions name factors."""
        return self.factors

    def latents(self, params: Params, noise: Noise, do: Intervention | Acts | None = None) -> dict[str, Float[Array, "b 1"]]:
        """What stands for each factor under `do`: its value, which is observed."""
        values = self.predict(params, noise, None, do)
        return {name: values[name][:, None] for name in self.factors}
