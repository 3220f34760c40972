"""Embedder: vectors of inputs, near those of their partners; what a retrieval ranks by.

    e(x) = pool(encoding(x)),   loss as in losses/contrastive.py eq. (1) with q = e(x), k = e(partner)                       (1)

It generates nothing: there is no likelihood, no noise and no intervention. Its negatives are the rest of the batch, so that its loss is
coupled. Source: Li et al., Conan-embedding-v2 (2025). Letters: b batch, d width.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from jax import numpy as jnp

from causal_gen.losses import contrastive
from causal_gen.models import base
from causal_gen.models.embedder_config import EmbedderConfig
from causal_gen.models.encoding import Encoding, pooled
from causal_gen.structure.graph import Dag
from causal_gen.types import Array, Batch, Float, Key, Params


@dataclasses.dataclass(frozen=True)
class Embedder:
    """The model of eq. (1); see `models/base.py` for the interface that all families share. Params are those of the encoding."""

    config: EmbedderConfig
    encoding: Encoding

    graph: Dag = dataclasses.field(default=Dag(()), init=False)
    actable: tuple[str, ...] = dataclasses.field(default=(), init=False)
    context: tuple[str, ...] = dataclasses.field(default=(), init=False)
    needs: tuple[str, ...] = dataclasses.field(default=(), init=False)
    likelihood: None = dataclasses.field(default=None, init=False)
    batch_coupled: bool = dataclasses.field(default=True, init=False)
    noise: None = dataclasses.field(default=None, init=False)
    predict: None = dataclasses.field(default=None, init=False)
    abduct: None = dataclasses.field(default=None, init=False)
    descendants: None = dataclasses.field(default=None, init=False)
    log_prob: None = dataclasses.field(default=None, init=False)

    def init(self, key: Key) -> Params:
        """Fresh parameters."""
        return self.encoding.init(key)

    def embed(self, params: Params, batch: Batch, inputs: str, alpha: Any) -> Float[Array, "b d"]:
        """e of the entry `inputs`, not normalised."""
        h, _ = self.encoding(params, batch, alpha, inputs)
        return pooled(h, self.config.slot, self.config.pool).astype(jnp.float32)

    def _scores(self, params: Params, batch: Batch, alpha: Any) -> Float[Array, "b b"]:
        one, other = (self.embed(params, batch, name, alpha) for name in (self.config.inputs, self.config.partner))
        return contrastive.cosines(one, other) / self.config.temperature

    def loss(self, params: Params, key: Key, batch: Batch, *, step: Array, train: bool) -> tuple[Float[Array, "b"], base.Aux]:
        """Eq. (1) an example; terms "contrast", and the mean cosines of the "hard" negatives and of "any" negative."""
        del key
        schedule = self.config.mask_schedule
        scores = self._scores(params, batch, schedule(step) if train else schedule.end)
        contrast = contrastive.info_nce(scores, self.config.hard)
        found = jax.lax.stop_gradient(scores * self.config.temperature)
        terms = {"contrast": contrast, "hard": contrastive.mined(found, self.config.hard).mean(1)}
        return contrast, base.Aux({**terms, "any": contrastive.mined(found, 0).mean(1)})

    def update_state(self, params: Params, stats: Any) -> Any:
        """There is no state."""
        return base.no_state(params, stats)

    def groups(self) -> dict[str, base.Group]:
        """Trained as a whole, or with adapters only these."""
        return self.encoding.groups()

    def conditionals(self, params: Params, batch: Batch, query: Any = None) -> dict[str, base.Prediction]:
        """Logits [b, b] of which partner of the batch belongs to each row's inputs."""
        alpha = self.config.mask_schedule.end if query is None else query["alpha"]
        return {self.config.partner: base.Prediction(logits=self._scores(params, batch, alpha))}
