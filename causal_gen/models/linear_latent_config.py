"""Fields of a linear structural model of latents."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from causal_gen.structure import polynomial
from causal_gen.types import ConfigError, Entry, at_least, choice


@dataclasses.dataclass(frozen=True)
class LinearLatentConfig:
    """The model section of a config.

    latents: how many there are.  inputs: the entry [p] that mixes them.  contexts: the entry that numbers the contexts.
    told_by: "interventions", context 0 being without one and context i a perfect intervention on latent i; "constants", where it sets
    latent i to a constant; "domains", whose weights all differ; or "nothing", a baseline: latents are then any that span x.
    degree: of the polynomial of the latents that the mixture is; above 1 told by constants or nothing.
    whiten: ranks are told on inputs of unit covariance.
    """

    name: str = "linear_latent"
    latents: int = at_least(4, 2, 12)
    inputs: str = "x"
    contexts: str = "context"
    told_by: str = choice("interventions", "constants", "domains", "nothing")
    degree: int = at_least(1, 1, 4)
    whiten: bool = True

    def __post_init__(self):
        if self.degree > 1 and self.told_by not in ("constants", "nothing"):
            raise ConfigError(f'degree={self.degree}: a polynomial mixture is not told by {self.told_by}; set told_by to "constants"')
        if self.told_by == "constants" and self.latents > 7:
            raise ConfigError(f"latents={self.latents}: constants try every order of the latents, of which 7 are the most; give fewer")

    def make(self, entries: Mapping[str, Entry], stats: Mapping[str, Any], sampling: Any, precision: str, remat: str) -> Any:
        """The model over a data source's entries. Raises `ConfigError`, with all problems at once."""
        from causal_gen.models.linear_latent import LinearLatent

        del stats, sampling, precision, remat
        problems, shown = [], ", ".join(entries)
        inputs, contexts = entries.get(self.inputs), entries.get(self.contexts)
        if inputs is None or len(inputs.shape) != 1:
            problems.append(f"model.inputs: {self.inputs!r} is no vector of the data; its entries are {shown}")
        elif inputs.shape[0] < (need := len(polynomial.terms(self.latents, self.degree))):
            what = f"{self.latents} latents" if self.degree == 1 else f"the {need} monomials of {self.latents} latents"
            problems.append(f"model.latents: {what} are not told by {inputs.shape[0]} inputs; give fewer, or a lower degree")
        if contexts is None or contexts.vocabulary is None:
            problems.append(f"model.contexts: {self.contexts!r} numbers nothing in the data; its entries are {shown}")
        elif self.told_by in ("interventions", "constants") and contexts.vocabulary != self.latents + 1:
            problems.append(
                f"model.latents: {self.latents} latents need {self.latents + 1} contexts, one intervention each and one without; "
                f"the data has {contexts.vocabulary}"
            )
        if problems:
            raise ConfigError(problems)
        assert inputs is not None and contexts is not None
        return LinearLatent(self, inputs.shape[0], int(contexts.vocabulary or 0))
