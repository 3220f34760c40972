"""Fields of a linear structural model of latents."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from causal_gen.types import ConfigError, Entry, at_least, choice


@dataclasses.dataclass(frozen=True)
class LinearLatentConfig:
    """The model section of a config.

    latents: how many there are.  inputs: the entry [p] that mixes them.  contexts: the entry that numbers the contexts.
    told_by: "interventions", context 0 being without one and context i a perfect intervention on latent i; or "domains", whose weights all
    differ.  whiten: ranks are told on inputs of unit covariance.
    """

    name: str = "linear_latent"
    latents: int = at_least(4, 2, 12)
    inputs: str = "x"
    contexts: str = "context"
    told_by: str = choice("interventions", "domains")
    whiten: bool = True

    def make(self, entries: Mapping[str, Entry], stats: Mapping[str, Any], sampling: Any, precision: str, remat: str) -> Any:
        """The model over a data source's entries. Raises `ConfigError`, with all problems at once."""
        from causal_gen.models.linear_latent import LinearLatent

        del stats, sampling, precision, remat
        problems, shown = [], ", ".join(entries)
        inputs, contexts = entries.get(self.inputs), entries.get(self.contexts)
        if inputs is None or len(inputs.shape) != 1:
            problems.append(f"model.inputs: {self.inputs!r} is no vector of the data; its entries are {shown}")
        elif inputs.shape[0] < self.latents:
            problems.append(f"model.latents: {self.latents} latents are not told by {inputs.shape[0]} inputs; give fewer")
        if contexts is None or contexts.vocabulary is None:
            problems.append(f"model.contexts: {self.contexts!r} numbers nothing in the data; its entries are {shown}")
        elif self.told_by == "interventions" and contexts.vocabulary != self.latents + 1:
            problems.append(
                f"model.latents: {self.latents} latents need {self.latents + 1} contexts, one intervention each and one without; "
                f"the data has {contexts.vocabulary}"
            )
        if problems:
            raise ConfigError(problems)
        assert inputs is not None and contexts is not None
        return LinearLatent(self, inputs.shape[0], int(contexts.vocabulary or 0))
