"""Labeller: p(labels | inputs) by a transformer stack under any visibility; a decoder that reads instead of writing.

    h = encoding(x),  logits_i = W h_i + c  at every input, or  logits = W pool(h) + c  once an example                      (1)
    loss = mean of nll_i + weight.z z_i over scored labels + weight.balance balance + resampler.diversity diversity          (2)
    log p(y | x) = sum_i log softmax(logits_i)[y_i] over scored labels                                                       (3)
    y_i = argmax(logits_i / temperature + g_i): labels as a function of Gumbel noise                                       (4)

The inputs are context: they are never generated, and labels do not depend on one another given them, so by (4) an intervention on one
label moves no other. Source of (1): Li et al., Label supervised LLaMA finetuning (2023). Letters: b batch, t inputs, u slots, v labels,
d width.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from causal_gen.losses import categorical, diversity
from causal_gen.models import base
from causal_gen.models.encoding import Encoding, pooled
from causal_gen.models.labeller_config import LabellerConfig, LabelSampling
from causal_gen.sampling import ar, gumbel
from causal_gen.scm.intervention import Acts, Intervention, Span, canonical
from causal_gen.structure.graph import Dag
from causal_gen.types import Array, Batch, Bool, Float, Int, InterventionError, Key, Noise, Params, UserError


@dataclasses.dataclass(frozen=True)
class Labeller:
    """The model of eqs. (1-4); see `models/base.py` for the interface that all families share.

    Noise is {labels: Gumbel [b, t, v] or [b, v]}; params are those of the encoding and "head" {"kernel" [d, v], "bias" [v]}. `each` says
    that every input has a label. A query {"alpha": number} asks under a mask in the middle of its schedule.
    """

    config: LabellerConfig
    encoding: Encoding
    vocabulary: int
    each: bool
    sampling: LabelSampling

    likelihood: Literal["exact"] = dataclasses.field(default="exact", init=False)
    batch_coupled: bool = dataclasses.field(default=False, init=False)

    @functools.cached_property
    def graph(self) -> Dag:
        """One node, the labels."""
        return Dag((self.config.labels,))

    @property
    def labels(self) -> str:
        """The entry that the model tells."""
        return self.config.labels

    @property
    def actable(self) -> tuple[str, ...]:
        """Interventions name the labels, by position where every input has one."""
        return (self.labels,)

    @property
    def needs(self) -> tuple[str, ...]:
        """Abduction reads the labels."""
        return (self.labels,)

    @property
    def spans(self) -> dict[str, Span]:
        """Whether the node is a sequence."""
        return {self.labels: Span(self.encoding.length, self.vocabulary)} if self.each else {}

    @property
    def context(self) -> tuple[str, ...]:
        """The inputs, and fields of the visibility."""
        return (self.config.inputs, *self.config.fields)

    # ---- networks ------------------------------------------------------------------------------------------------------------

    def init(self, key: Key) -> Params:
        """Fresh parameters."""
        keys, d = jax.random.split(key), self.encoding.transformer.width
        head = {"kernel": d**-0.5 * jax.random.normal(keys[1], (d, self.vocabulary)), "bias": jnp.zeros((self.vocabulary,))}
        return {**self.encoding.init(keys[0]), "head": head}

    def _forward(self, params: Params, batch: Batch, alpha: Any) -> tuple[Float[Array, "b *t v"], Any]:
        h, aux = self.encoding(params, batch, alpha)
        return self._readout(params, h), aux

    def _readout(self, params: Params, h: Float[Array, "b u d"]) -> Float[Array, "b *t v"]:
        """Logits from the hidden states of all slots, eq. (1)."""
        if self.each:
            read = h[:, {"first": slice(1, None), "last": slice(None, -1), "none": slice(None)}[self.config.slot]]
        else:
            read = pooled(h, self.config.slot, self.config.pool)
        kernel, bias = params["head"]["kernel"].astype(h.dtype), params["head"]["bias"]
        logits = jnp.einsum("...d,dv->...v", read, kernel, preferred_element_type=jnp.float32)
        return logits + bias.reshape((1,) * (logits.ndim - 1) + (-1,))

    def _told(self, params: Params, batch: Batch) -> Float[Array, "b *t v"]:
        """Logits as labels are drawn from them, eq. (4)."""
        return self._forward(params, batch, self.config.mask_schedule.end)[0] / self.sampling.temperature

    # ---- training ------------------------------------------------------------------------------------------------------------

    def _mean(self, term: Float[Array, "b *t"], batch: Batch) -> Float[Array, "b"]:
        """Of each example over its scored labels."""
        return categorical.masked_mean(term, self._mask(batch)) if self.each else term

    def _mask(self, batch: Batch) -> Float[Array, "b t"]:
        labels = batch[self.labels]
        return batch["loss_mask"].astype(jnp.float32) if "loss_mask" in batch else jnp.ones(labels.shape)

    def loss(self, params: Params, key: Key, batch: Batch, *, step: Array, train: bool) -> tuple[Float[Array, "b"], base.Aux]:
        """Eq. (2) an example; terms "nll" (nats a label), "z" and, where there are experts, "balance" are reported unweighted, and where
        several queries read a window "diversity"."""
        del key
        schedule = self.config.mask_schedule
        logits, aux = self._forward(params, batch, schedule(step) if train else schedule.end)
        weights = self.config.weights
        terms = {"nll": self._mean(categorical.nll(logits, batch[self.labels]), batch)}
        total = terms["nll"]
        if weights.z:
            terms["z"] = self._mean(categorical.z(logits), batch)
            total = total + weights.z * terms["z"]
        if self.encoding.transformer.experts > 1:
            terms["balance"] = aux["balance"].mean(0)
            total = total + weights.balance * terms["balance"]
        if self.config.resampler.queries > 1:
            terms["diversity"] = diversity.mean_cosine(aux["resampled"])
            total = total + self.config.resampler.diversity * terms["diversity"]
        return total, base.Aux(terms)

    def update_state(self, params: Params, stats: Any) -> Any:
        """There is no state."""
        return base.no_state(params, stats)

    def groups(self) -> dict[str, base.Group]:
        """Trained as a whole, or with adapters only these and the head."""
        return self.encoding.groups()

    def conditionals(self, params: Params, batch: Batch, query: Any = None) -> dict[str, base.Prediction]:
        """Logits [b, t, v] or [b, v] of the model itself, before temperature."""
        alpha = self.config.mask_schedule.end if query is None else query["alpha"]
        return {self.labels: base.Prediction(logits=self._forward(params, batch, alpha)[0])}

    def log_prob(self, params: Params, key: Key, batch: Batch, query: Any = None) -> Float[Array, "b"]:
        """Eq. (3) in nats."""
        del key
        nll = categorical.nll(self.conditionals(params, batch, query)[self.labels].logits, batch[self.labels])
        return -(nll * self._mask(batch)).sum(-1) if self.each else -nll

    # ---- the causal interface ------------------------------------------------------------------------------------------------

    def noise(self, key: Key, num: int, context: Batch | None = None) -> Noise:
        """Standard Gumbel draws."""
        del context
        places = (self.encoding.length,) if self.each else ()
        return {self.labels: gumbel.prior(key, (num, *places, self.vocabulary))}

    def predict(
        self, params: Params, noise: Noise, context: Batch | None = None, do: Intervention | Acts | None = None
    ) -> dict[str, Int[Array, "b *t"]]:
        """The labels that the noise gives to the inputs of the context under `do`.

        Raises `UserError` where the context lacks the inputs.
        """
        if context is None:
            raise UserError(f"context: entry {self.config.inputs!r} is missing; labels are told of inputs, give them")
        act = canonical(do, self.actable, noise[self.labels].shape[0], self.spans)[self.labels]
        natural = gumbel.draw(self._told(params, context), noise[self.labels])
        return {self.labels: act.apply(natural).astype(jnp.int32)}

    def abduct(self, params: Params, key: Key, batch: Batch) -> Noise:
        """A draw of the exact posterior of the noise given the labels."""
        return {self.labels: gumbel.posterior(key, self._told(params, batch), batch[self.labels])}

    def descendants(self, noise: Noise, do: Intervention | Acts | None) -> dict[str, Bool[Array, "b *t"]]:
        """What an intervention may move: the labels that it sets."""
        return {self.labels: canonical(do, self.actable, noise[self.labels].shape[0], self.spans)[self.labels].mask}

    def check_acts(self, acts: Acts) -> None:
        """Raises `InterventionError` for a label that there is not; where every input has one, `canonical` has looked. Outside of jit."""
        act = acts[self.labels]
        if self.each or any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(act)):
            return
        if act.kind != "do":
            raise InterventionError(f"intervention: {act.kind}({self.labels}=...): labels are names, not amounts; only do sets them")
        values = np.asarray(act.args[0])[np.asarray(act.mask)]
        wrong = values[(values != np.round(values)) | (values < 0) | (values >= self.vocabulary)]
        if len(wrong):
            raise InterventionError(f"intervention: do({self.labels}={wrong[0]:g}): the labels are 0..{self.vocabulary - 1}")

    def check_evidence(self, batch: Batch) -> None:
        """Raises `UserError` for labels out of range. Call it outside of jit."""
        labels = batch[self.labels]
        if isinstance(labels, Tracer):
            return
        labels = ar.whole(labels)
        wrong = np.argwhere((labels < 0) | (labels >= self.vocabulary))
        if len(wrong):
            row, *place = (int(i) for i in wrong[0])
            where = f"at place {place[0]} of row {row}" if place else f"of row {row}"
            label = int(labels[tuple(wrong[0])])
            raise UserError(f"evidence: label {label} {where} is out of range; the labels are 0..{self.vocabulary - 1}")
