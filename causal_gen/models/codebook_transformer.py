"""Codebook transformer: streams of several codes a step, rearranged so that one causal stack infills them, all codebooks a call.

    y = rotate_delayed(x):  spans of steps at the end behind fillers, codebook q of a step so many slots later (structure/layout.py)   (1)
    slot p holds the sum over q of the embeddings of y_(p-1)q (slot 0 a learned start) and tells y_pq for all q,  h W_q             (2)
    log p(x) = sum_p sum_q log softmax(h_p W_q)[y_pq],   given the slots before p, exact                                           (3)
    y_pq = argmax(warp(logits_pq) + g),   g Gumbel noise [b, t, v], one a code                                                     (4)

Under the delay a code is told given those of lower codebooks of its step, though all codes of a slot are told at once. A span with its
right side in front is what an infilling asks for; log p of a stream is that of its arrangement without a span.
Source: Peng et al., VoiceCraft (2024), sec. 3; noise and counterfactuals as in models/causal_transformer.py.
Letters: b batch, t codes of a stream (k a step), u slots, q codebooks, m spans, v vocabulary, d width.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from causal_gen.losses import categorical
from causal_gen.models import base
from causal_gen.models.codebook_transformer_config import CodebookTransformerConfig
from causal_gen.models.objectives import Query, draw_spans, spans_of
from causal_gen.nn.precision import Policy
from causal_gen.nn.transformer import Decoder
from causal_gen.nn.transformer_config import TransformerConfig
from causal_gen.sampling import ar, gumbel
from causal_gen.sampling.truncation import DecodingConfig, warp
from causal_gen.sampling.unmask import BLANK
from causal_gen.scm.intervention import Acts, Intervention, canonical
from causal_gen.structure.layout import Layout, rotate_delayed
from causal_gen.structure.masks import causal
from causal_gen.structure.visibility import fields_for
from causal_gen.types import Array, Batch, Bool, Float, Int, Key, Noise, Params, UserError


@dataclasses.dataclass(frozen=True)
class CodebookTransformer(base.OneSequence):
    """The model of eqs. (1-4); see `models/base.py` for the interface that all families share. `length` is t.

    Params are {"embed" [q, v + m + 1, d], "start" [d], "decoder", "readout" [q, d, v]}: each codebook embeds its codes, the sentinels of
    m spans, and what a delay leaves empty. Noise is {"tokens": Gumbel [b, t, v], "when": i32 [b, t]}, the latter the slot of each code.
    A batch may hold a "template" i32 [b, t]: codes that are given, -1 in all codes of a step that is to be drawn.
    """

    config: CodebookTransformerConfig
    transformer: TransformerConfig
    length: int
    vocabulary: int
    sampling: DecodingConfig
    policy: Policy = Policy()

    likelihood: Literal["exact"] = dataclasses.field(default="exact", init=False)
    batch_coupled: bool = dataclasses.field(default=False, init=False)
    context: tuple[str, ...] = dataclasses.field(default=("template",), init=False)
    optional: tuple[str, ...] = dataclasses.field(default=("template",), init=False)

    @property
    def steps(self) -> int:
        """Steps of a stream."""
        return self.length // self.config.codebooks

    @functools.cached_property
    def _decoder(self) -> Decoder:
        return Decoder(self.transformer, causal(), dtype=self.policy.compute_dtype)

    def init(self, key: Key) -> Params:
        """Fresh parameters."""
        keys, books = jax.random.split(key, 4), self.config.codebooks
        d, small = self.transformer.width, self.transformer.initial
        like, fields = jnp.zeros((1, 1, d)), {"index": jnp.zeros((1,), jnp.int32)}
        return {
            "embed": small * jax.random.normal(keys[0], (books, self.vocabulary + self.config.spans + 1, d)),
            "start": small * jax.random.normal(keys[1], (d,)),
            "decoder": self._decoder.init(keys[2], like, fields)["params"],
            "readout": d**-0.5 * jax.random.normal(keys[3], (books, d, self.vocabulary)),
        }

    # ---- arranged streams ----------------------------------------------------------------------------------------------------

    def _arranged(self, spans: tuple[Array, Array]) -> Layout:
        """Eq. (1) for spans of steps, starts and stops [b, m], batched."""
        return jax.vmap(lambda starts, stops: rotate_delayed(self.steps, self.config.late, starts, stops))(*spans)

    def _none(self, num: int) -> tuple[Array, Array]:
        """No spans: all of them are empty, at the end."""
        none = jnp.full((num, self.config.spans), self.steps)
        return none, none

    def _of_steps(self, hidden: Bool[Array, "b t"]) -> tuple[Array, Array]:
        """The spans of the steps whose codes are `hidden`."""
        return spans_of(hidden[:, :: self.config.codebooks], self.config.spans)

    def _put(self, arranged: Layout, x: Array, fill: Any = 0) -> Array:
        """Codes [b, t, ...] in their slots [b, u, q, ...]."""
        rows = x.reshape(x.shape[0], self.steps, self.config.codebooks, *x.shape[2:])
        return jax.vmap(lambda one, row: one.apply(row, fill))(arranged, rows)

    def _back(self, arranged: Layout, y: Array) -> Array:
        """The inverse of `_put`."""
        found = jax.vmap(lambda one, row: one.inverse(row))(arranged, y)
        return found.reshape(found.shape[0], self.length, *found.shape[3:])

    def _held(self, arranged: Layout, tokens: Int[Array, "b t"], spans: tuple[Array, Array]) -> Int[Array, "b u q"]:
        """Codes and fillers; what is to the right of a span is empty where it is not to be seen."""
        y = self._put(arranged, tokens, self.vocabulary + jnp.arange(self.config.spans + 1))
        return y if self.config.right else jnp.where(self._after(arranged, spans), self.vocabulary + self.config.spans, y)

    def _after(self, arranged: Layout, spans: tuple[Array, Array]) -> Bool[Array, "b u q"]:
        """Slots of what follows the (one) span."""
        return (arranged.source >= 0) & (arranged.source // self.config.codebooks >= spans[1][:, -1:, None])

    def _logits(self, params: Params, arranged: Layout, y: Int[Array, "b u q"]) -> Float[Array, "b u q v"]:
        """Eq. (2); a slot is where what it tells stands in the stream, so that both sides of a span are as near to it as they are there."""
        x = params["embed"][jnp.arange(self.config.codebooks), y[:, :-1]].sum(2)
        start = jnp.broadcast_to(params["start"], (len(y), 1, x.shape[-1]))
        fields = fields_for(y.shape[1], y.shape[1], position=arranged.fields["position"])[0]
        h = self._decoder.apply({"params": params["decoder"]}, jnp.concatenate([start, x], 1), fields)[0]  # pyright: ignore
        return jnp.einsum("bud,qdv->buqv", h, params["readout"].astype(h.dtype), preferred_element_type=jnp.float32)

    def _told(self, params: Params, tokens: Array, spans: tuple[Array, Array]) -> tuple[Layout, Array, Array]:
        """The arrangement, nats of every slot's codes, and which of them count."""
        arranged = self._arranged(spans)
        y = self._held(arranged, tokens, spans)
        nats = categorical.nll(self._logits(params, arranged, y), jnp.minimum(y, self.vocabulary - 1))
        counts = arranged.loss * (1.0 if self.config.right else ~self._after(arranged, spans))
        return arranged, nats, counts

    # ---- training ------------------------------------------------------------------------------------------------------------

    def loss(self, params: Params, key: Key, batch: Batch, *, step: Array, train: bool) -> tuple[Float[Array, "b"], base.Aux]:
        """Eq. (3) a code, by the weights of codebooks, with spans where they fall; term "nll" without weights, and "span" of codes in
        spans (0 in rows without one)."""
        del step, train
        tokens, keys = batch[self.config.tokens], jax.random.split(key)
        drawn, none = draw_spans(self.config.moved, keys[0], len(tokens), self.steps), self._none(len(tokens))
        plain = jax.random.bernoulli(keys[1], self.config.plain, (len(tokens), 1))
        spans = (jnp.where(plain, none[0], drawn[0]), jnp.where(plain, none[1], drawn[1]))
        arranged, nats, counts = self._told(params, tokens, spans)
        weights = counts * jnp.asarray(self.config.codebook_weights or (1.0,) * self.config.codebooks)[None, None]
        moved = counts * self._put(arranged, self.inside(spans))
        flat = [term.reshape(len(tokens), -1) for term in (nats, weights, counts, moved)]
        loss, nll, span = (categorical.masked_mean(flat[0], mask) for mask in flat[1:])
        return loss, base.Aux({"nll": nll, "span": span})

    def inside(self, spans: tuple[Array, Array]) -> Bool[Array, "b t"]:
        """Which codes lie in spans of steps, starts and stops [b, m]."""
        step = jnp.arange(self.length)[None, :, None] // self.config.codebooks
        return ((step >= spans[0][:, None]) & (step < spans[1][:, None])).any(-1)

    def update_state(self, params: Params, stats: Any) -> Any:
        """There is no state."""
        return base.no_state(params, stats)

    def groups(self) -> dict[str, base.Group]:
        """Trained as a whole."""
        return base.one_group()

    # ---- what it is asked ----------------------------------------------------------------------------------------------------

    def conditionals(self, params: Params, batch: Batch, query: Query | None = None) -> dict[str, base.Prediction]:
        """Logits [b, t, v] of every code, before temperature and truncation; the mask of a query says which steps are told last."""
        tokens = batch[self.config.tokens]
        spans = self._none(len(tokens)) if query is None or query.mask is None else self._of_steps(query.mask)
        arranged = self._arranged(spans)
        logits = self._logits(params, arranged, self._held(arranged, tokens, spans))
        return {self.config.tokens: base.Prediction(logits=self._back(arranged, logits))}

    def log_prob(self, params: Params, key: Key, batch: Batch, query: Query | None = None) -> Float[Array, "b"]:
        """Eq. (3) in nats; with the mask of a query, true in all codes of the steps of up to m spans, that of the spans given the rest."""
        del key
        tokens = batch[self.config.tokens]
        logits = self.conditionals(params, batch, query)[self.config.tokens].logits
        counts = 1.0 if query is None or query.mask is None else query.mask
        return -(categorical.nll(logits, tokens) * counts).sum(-1)

    # ---- the causal interface ------------------------------------------------------------------------------------------------

    def _given(self, num: int, context: Batch | None) -> tuple[Array, tuple[Array, Array]]:
        """What is known of each code (BLANK: nothing), and the spans that are told after it."""
        template = (context or {}).get("template")
        if template is None:
            return jnp.full((num, self.length), BLANK), self._none(num)
        return template, self._of_steps(template == BLANK)

    def noise(self, key: Key, num: int, context: Batch | None = None) -> Noise:
        """Standard Gumbel draws, and the slots that codes have."""
        return self._noise(gumbel.prior(key, (num, self.length, self.vocabulary)), self._given(num, context)[1])

    def _noise(self, draws: Array, spans: tuple[Array, Array]) -> dict[str, Array]:
        slot = self._arranged(spans).place // self.config.codebooks
        return {self.config.tokens: draws, "when": slot.reshape(len(draws), self.length)}

    def _replay(self, params: Params, noise: Array, context: Batch | None, forced: Array, values: Array) -> tuple[Array, Array]:
        """Eq. (4) slot by slot, with `values` where `forced`, and the warped logits [b, t, v]."""
        known, spans = self._given(len(noise), context)
        arranged = self._arranged(spans)
        tokens = jnp.where(forced, values, jnp.maximum(known, 0))
        y = self._held(arranged, tokens, spans)
        drawn = self._put(arranged, (known == BLANK) & ~forced) & (arranged.source >= 0)
        g = self._put(arranged, noise)

        def step(carry: tuple[Array, Array], p: Array) -> tuple[tuple[Array, Array], None]:
            y, laws = carry
            now = self._logits(params, arranged, y)[:, p]
            law = warp(now.reshape(-1, self.vocabulary), self.sampling).reshape(now.shape)
            y = y.at[:, p].set(jnp.where(drawn[:, p], gumbel.draw(law, g[:, p]), y[:, p]))
            return (y, laws.at[:, p].set(law)), None

        (y, laws), _ = jax.lax.scan(step, (y, jnp.zeros(g.shape)), jnp.arange(y.shape[1]))
        return jnp.where(known == BLANK, self._back(arranged, y), tokens), self._back(arranged, laws)

    def predict(
        self, params: Params, noise: Noise, context: Batch | None = None, do: Intervention | Acts | None = None
    ) -> dict[str, Int[Array, "b t"]]:
        """The codes that the noise gives under `do`, those of a template aside."""
        name = self.config.tokens
        act = canonical(do, self.actable, noise[name].shape[0], self.spans)[name]
        return {name: self._replay(params, noise[name], context, act.mask, act.args[0])[0]}

    def abduct(self, params: Params, key: Key, batch: Batch) -> Noise:
        """A draw of the exact posterior of the noise given the codes; NaN where sampling could not have drawn them (`check_noise`)."""
        tokens = batch[self.config.tokens]
        known, spans = self._given(len(tokens), batch)
        everywhere, keys = jnp.ones(tokens.shape, bool), jax.random.split(key)
        _, laws = self._replay(params, jnp.zeros((*tokens.shape, self.vocabulary)), batch, everywhere, tokens)
        drawn = gumbel.posterior(keys[0], laws, tokens)
        return self._noise(jnp.where((known == BLANK)[..., None], drawn, gumbel.prior(keys[1], drawn.shape)), spans)

    def descendants(self, noise: Noise, do: Intervention | Acts | None) -> dict[str, Bool[Array, "b t"]]:
        """What an intervention may move: its codes and all in later slots."""
        name = self.config.tokens
        mask, when = canonical(do, self.actable, noise[name].shape[0], self.spans)[name].mask, noise["when"]
        first = jnp.where(mask, when, jnp.iinfo(jnp.int32).max).min(1, keepdims=True)
        return {name: mask | (when > first)}

    def check_evidence(self, batch: Batch) -> None:
        """Raises `UserError` for codes out of range, and for a template whose blanks are not whole steps in up to m runs. Call it outside
        of jit."""
        tokens, template = batch.get(self.config.tokens), batch.get("template")
        if tokens is not None and not isinstance(tokens, Tracer):
            ar.check_prompt(tokens, self.vocabulary, self.length)
        if template is None or isinstance(template, Tracer):
            return
        blank = (np.asarray(template) == BLANK).reshape(len(template), self.steps, self.config.codebooks)
        runs = np.diff(blank[..., 0], axis=1, prepend=False) & blank[..., 0]
        wrong = (blank != blank[..., :1]).any((1, 2)) | (runs.sum(1) > self.config.spans)
        if wrong.any():
            raise UserError(
                f"template: row {int(np.argmax(wrong))} blanks parts of a step, or more than {self.config.spans} runs of steps; blank all "
                f"{self.config.codebooks} codes of the steps of a run"
            )

    def check_noise(self, batch: Batch, noise: Noise) -> None:
        """Raises `UserError` for evidence that sampling could not have drawn. Call it outside of jit."""
        ar.check_noise(batch[self.config.tokens], noise[self.config.tokens])
