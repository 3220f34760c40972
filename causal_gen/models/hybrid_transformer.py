"""Hybrid transformer: one stack, trained for any mixture of next tokens, masked tokens, spans and orders, and drawn by one of them.

    slots and readout are those of a causal transformer (models/causal_transformer.py), with rows of embeddings for the mask    (1)
    loss = sum over the step's objectives of weight_i loss_i, each under its own visibility and layout (models/objectives.py)  (2)
    log p(x) = sum_k log p(x_o(k) | x_o(<k)), given an order o;   >= its mean over orders, or (3) of process/masking.py        (3)
    x = unmask(predict, g): tokens as a function of Gumbel noise and of an order that is drawn with it (sampling/unmask.py)    (4)

Which objectives a step has says models/mixing.py. A hybrid that is drawn by next tokens is a causal transformer in all that it is asked,
with an exact likelihood; one that is drawn by masked ones has a bound, and its interventions reach what is filled in later.
Sources: Charpentier and Samuel, GPT or BERT: why not both? (2024); Hoogeboom et al., ARDM (2022); Shi et al., MD4 (2024).
Letters: b batch, t position, u slots, v vocabulary, d width, n objectives, l digits of a token.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from causal_gen.losses import categorical, masked
from causal_gen.models import base, mixing, objectives
from causal_gen.models.causal_transformer import START, CausalTransformer
from causal_gen.models.hybrid_transformer_config import FILLED, HybridTransformerConfig, ObjectiveConfig
from causal_gen.models.objectives import Arranged, Query
from causal_gen.nn.transformer import Decoder
from causal_gen.process import masking
from causal_gen.sampling import ar, unmask
from causal_gen.sampling.unmask_config import UnmaskConfig
from causal_gen.scm.intervention import Acts, Intervention, canonical
from causal_gen.structure.visibility import fields_for
from causal_gen.types import Array, Batch, Bool, ConfigError, Float, Int, Key, Noise, Params, UserError


@dataclasses.dataclass(frozen=True)
class HybridTransformer(CausalTransformer):
    """The model of eqs. (1-4). Params are those of a causal transformer and "masks" [1 + m, d]: the mask and sentinels of m spans; with
    digits "parts" [l, base + 1, d], with a learned schedule "schedule" [v], and of a bandit "state".

    Noise of what is drawn by masked tokens is {"tokens": Gumbel [b, t, v], "order": Gumbel [b, t], "when": i32 [b, t]}, where the last is
    the step in which each place was filled, -1 in fresh noise, which decides by the policy. A batch may hold a "template" i32 [b, t]: the
    tokens that are given, -1 where one is to be drawn.
    """

    config: HybridTransformerConfig
    sampling: UnmaskConfig

    @property
    def likelihood(self) -> Any:
        """Exact left to right, else a bound."""
        return "exact" if self.way.kind == "next" else "bound"

    @property
    def way(self) -> ObjectiveConfig:
        """The objective that draws."""
        return self.config.way

    @property
    def mask(self) -> int:
        """The token that stands for what is hidden."""
        return self.vocabulary if self.config.mask is None else self.config.mask

    @functools.cached_property
    def fields(self) -> tuple[str, ...]:
        """Entries [b, t] that some objective or decoding reads, beside what objectives make themselves."""
        found = set(super().fields)
        for objective in self.config.objectives:
            if objective.kind != "next":
                found |= set(self._read_by(objective))
        return tuple(sorted(found))

    def _read_by(self, o: ObjectiveConfig) -> tuple[str, ...]:
        places = {"position"} if o.seen.fields & {"document", "group"} else set()
        return tuple(sorted({*o.seen.fields, *places, *self.transformer.places} - {"index", *o.made}))

    @property
    def context(self) -> tuple[str, ...]:
        """Classes, fields, and what is given of a row."""
        return (*super().context, *(("template",) if self.way.kind != "next" else ()))

    @property
    def optional(self) -> tuple[str, ...]:
        """What the context may lack."""
        return (*super().optional, "template")

    # ---- networks ------------------------------------------------------------------------------------------------------------

    def init(self, key: Key) -> Params:
        """Fresh parameters; those that it shares with a causal transformer are the same as its."""
        params, keys = super().init(key), jax.random.split(jax.random.fold_in(key, 1))
        d, kinds = self.transformer.width, self.config.objectives
        spans = max((o.spans for o in kinds if o.kind == "span"), default=0)
        if spans or any(o.kind in (*FILLED, "described") for o in kinds):
            params["masks"] = self.transformer.initial * jax.random.normal(keys[0], (1 + spans, d))
        if most := max((o.parts for o in kinds), default=1) - 1:
            base = masking.SubTokens(self.vocabulary, most + 1).base
            params["parts"] = self.transformer.initial * jax.random.normal(keys[1], (most + 1, base + 1, d))
        for o in kinds:
            if o.kind == "diffusion" and o.schedule.kind == "learned":
                params["schedule"] = masking.raw_powers(o.schedule.power, self.vocabulary)
        if self.config.mixer.kind == "bandit":
            params["state"] = mixing.start(len(kinds))
        return params

    def _embed(self, params: Params, tokens: Int[Array, "b t"], context: Batch) -> Float[Array, "b t d"]:
        """Slots that hold `tokens`, START or, from the vocabulary on, masks."""
        x = super()._embed(params, jnp.minimum(tokens, self.vocabulary - 1), context)
        if "masks" not in params:
            return x
        table = params["masks"]
        return jnp.where((tokens >= self.vocabulary)[..., None], table[jnp.clip(tokens - self.vocabulary, 0, len(table) - 1)], x)

    def _logits(self, params: Params, h: Float[Array, "b t d"]) -> Float[Array, "b t v"]:
        logits = super()._logits(params, h)
        return logits if self.config.mask is None else logits.at[..., self.config.mask].set(-jnp.inf)

    def _run(self, params: Params, o: ObjectiveConfig, x: Float[Array, "b u d"], fields: dict[str, Any]) -> Float[Array, "b u d"]:
        fields = fields_for(x.shape[1], x.shape[1], **fields)[0]
        decoder = Decoder(self.transformer, o.seen, dtype=self.policy.compute_dtype)
        return decoder.apply({"params": params["decoder"]}, x, fields)[0]  # pyright: ignore

    def _row_fields(self, o: ObjectiveConfig, batch: Batch, inputs: Int[Array, "b t"], prefix: Any) -> dict[str, Any]:
        """Fields of the start and of the slots of a row."""
        given = {name: batch[name] for name in self._read_by(o) if name in batch}
        for name in self._read_by(o):
            if name not in batch and name not in self.optional:
                raise UserError(f"batch: field {name!r} is missing, which {o.visibility!r} reads; give it as an entry [b, t]")
            if name not in batch and name != "position":
                given[name] = jnp.zeros(inputs.shape, jnp.int32)
        told = jnp.zeros(inputs.shape, bool)
        if o.order == "identity":  # what is known from the start is one block
            told = batch["template"] < 0 if "template" in batch else self._scored({**batch, self.config.tokens: inputs})
        return objectives.row_fields(o, given, inputs == self.mask, told, prefix)

    def _tell(
        self, params: Params, o: ObjectiveConfig, inputs: Int[Array, "b t"], batch: Batch, shown: Any = None, prefix: Any = None
    ) -> Float[Array, "b t v"]:
        """Logits of every token of a row that is seen as `inputs`, of which `shown` are the digits that are not masked."""
        if o.shifted or o.kind == "prefix":
            held = self._slots(inputs, batch)
        else:
            held = jnp.pad(inputs, ((0, 0), (1, 0)), constant_values=START)
        x = self._embed(params, held, batch)
        if shown is not None:
            some = shown.any(-1) & ~shown.all(-1)
            x = x.at[:, 1:].set(jnp.where(some[..., None], self._digits(params, o, batch[self.config.tokens], shown), x[:, 1:]))
        h = self._run(params, o, x, self._row_fields(o, batch, inputs, prefix))
        return self._logits(params, h[:, :-1] if o.shifted or o.kind == "prefix" else h[:, 1:])

    def _digits(self, params: Params, o: ObjectiveConfig, tokens: Int[Array, "b t"], shown: Bool[Array, "b t l"]) -> Float[Array, "b t d"]:
        """The embedding of tokens of which some digits are shown: a sum over digits, as one matrix on their concatenation would give."""
        coding = masking.SubTokens(self.vocabulary, o.parts)
        digits = jnp.where(shown, coding.encode(tokens), coding.base)
        return params["parts"][jnp.arange(o.parts), digits].sum(2)

    # ---- training ------------------------------------------------------------------------------------------------------------

    def loss(self, params: Params, key: Key, batch: Batch, *, step: Array, train: bool) -> tuple[Float[Array, "b"], base.Aux]:
        """Eq. (2) an example, "nll" without weights. Outside of training all objectives are asked of all rows, each with a term of its name
        ("nll_masked"), and are weighed as they are at the end of training."""
        kinds, mixer, shares = self.config.objectives, self.config.mixer, self.config.shares
        pieces = [functools.partial(self._objective, params, o, step=step, train=train) for o in kinds]
        if not train:
            told = [piece(jax.random.fold_in(key, i), batch) for i, piece in enumerate(pieces)]
            last = mixer.last(shares)
            terms = {"nll": sum((share * nll for share, (_, nll) in zip(last, told, strict=True)), jnp.zeros(()))}
            terms |= {f"nll_{o.called}": nll for o, (_, nll) in zip(kinds, told, strict=True) if len(kinds) > 1}
            return sum((share * loss for share, (loss, _) in zip(last, told, strict=True)), jnp.zeros(())), base.Aux(terms)
        if mixer.kind == "ratio":
            counts = mixing.rows(shares, batch[self.config.tokens].shape[0])
            ends, found = [sum(counts[: i + 1]) for i in range(len(counts))], []
            for i, (piece, count, end) in enumerate(zip(pieces, counts, ends, strict=True)):
                if count:
                    own = {name: value[end - count : end] for name, value in batch.items()}
                    found.append(piece(jax.random.fold_in(key, i) if i else key, own))
            losses, nlls = (jnp.concatenate(parts) for parts in zip(*found, strict=True))
            return losses, base.Aux({"nll": nlls})
        chosen, drawn = jax.random.split(key)
        chance = mixing.chances(mixer, shares, step, params.get("state"))
        index = mixing.pick(chosen, chance)
        losses, nlls = jax.lax.switch(index, pieces, drawn, dict(batch))
        stats = mixing.played(index, len(kinds), nlls) if mixer.kind == "bandit" else None
        return losses, base.Aux({"nll": nlls, "objective": jnp.broadcast_to(index.astype(jnp.float32), nlls.shape)}, stats)

    def update_state(self, params: Params, stats: Any) -> Any:
        """The bandit's."""
        return None if stats is None else mixing.learn(self.config.mixer, params["state"], stats)

    def _objective(
        self, params: Params, o: ObjectiveConfig, key: Key, batch: Batch, *, step: Any, train: bool
    ) -> tuple[Float[Array, "b"], Float[Array, "b"]]:
        """The weighted loss of one objective an example, and its nats a token."""
        if o.kind == "next":
            loss, aux = super().loss(params, key, batch, step=step, train=train)
            return o.weight * loss, aux.terms["nll"]
        tokens, draws = batch[self.config.tokens], jax.random.split(key)
        if train and self.config.drop and self.config.classes:
            kept = jax.random.bernoulli(jax.random.fold_in(key, 2), 1 - self.config.drop, tokens.shape[:1])
            classes = zip(self.config.classes, self.class_sizes, strict=True)
            batch = {**batch, **{name: jnp.where(kept, batch[name], size) for name, size in classes}}
        if o.kind == "span":
            found = self._arranged_loss(params, o, batch, objectives.draw_spans(o, draws[0], *tokens.shape))
            return o.weight * found, found
        at = masking.spread(draws[0], tokens.shape[0])
        learned = o.kind == "diffusion" and o.schedule.kind == "learned"
        found = self._hidden_loss(params, o, draws[1], at, batch)[0]
        if not learned:
            return o.weight * found, found
        first, logq = self._hidden_loss(params, o, draws[1], at, batch)
        second, logp = self._hidden_loss(params, o, draws[0], at, batch)
        # what the schedule does to the draw of masks: each draw is the other's baseline
        drift = 0.5 * jax.lax.stop_gradient(first - second) * (logq - logp) * self._scored(batch).sum(-1)
        value = (first + second) / 2
        return o.weight * (value + drift - jax.lax.stop_gradient(drift)), value

    def _scored(self, batch: Batch) -> Bool[Array, "b t"]:
        return self._mask(batch) > 0

    def _arranged_loss(self, params: Params, o: ObjectiveConfig, batch: Batch, spans: tuple[Array, Array]) -> Float[Array, "b"]:
        arranged = objectives.rotate(o, spans, batch[self.config.tokens], self._mask(batch), self.vocabulary + 1)
        return (masked.mean_over(arranged.weight) * self._arranged_nll(params, o, arranged, batch)).sum(-1)

    def _arranged_nll(self, params: Params, o: ObjectiveConfig, arranged: Arranged, batch: Batch) -> Float[Array, "b u"]:
        h = self._run(params, o, self._embed(params, arranged.held, batch), arranged.fields)
        return categorical.nll(self._logits(params, h), jnp.maximum(arranged.targets, 0))

    def _hidden_loss(
        self, params: Params, o: ObjectiveConfig, key: Key, at: Float[Array, "b"], batch: Batch, hiding: ObjectiveConfig | None = None,
        other: Bool[Array, ""] | bool = False,
    ) -> tuple[Float[Array, "b"], Float[Array, "b"]]:  # fmt: skip
        """Nats a token of tokens hidden as `key` and `at` say, and the log-probability of having hidden these; `hiding` says how they are
        hidden where that is not the objective's own way, `other` asks for those that are not (objectives.hide)."""
        tokens, scored = batch[self.config.tokens], self._scored(batch)
        w = masking.powers(params["schedule"]) if o.schedule.kind == "learned" and o.kind == "diffusion" else None
        row = objectives.hide(hiding or o, key, at, tokens, scored, self.mask, self.vocabulary, w, other)
        if o.kind == "permuted" and hiding is None:
            rank = objectives.ranks(o, jax.random.fold_in(key, 2), row.hidden)
            arranged = objectives.pseudo(tokens, row.hidden, rank, row.weight, self.mask)
            return (arranged.weight * self._arranged_nll(params, o, arranged, batch)).sum(-1), jnp.zeros(tokens.shape[:1])
        shown = row.shown
        logits = self._tell(params, o, row.inputs, batch, shown, row.prefix)
        if w is not None:
            chance = jnp.clip(masking.learned_chance(row.time, w, tokens), 1e-6, 1 - 1e-6)
            log_chance = jnp.where(row.hidden, jnp.log(chance), jnp.log1p(-chance)) * scored
            return (row.weight * masked.rates(logits, tokens, w)).sum(-1), log_chance.sum(-1)
        if shown is None:
            terms = categorical.nll(logits, tokens)
        else:
            terms = masked.parts(logits, tokens, shown, jnp.asarray(masking.SubTokens(self.vocabulary, o.parts).digits))
        return (row.weight * terms).sum(-1), jnp.zeros(tokens.shape[:1])

    # ---- what it is asked ----------------------------------------------------------------------------------------------------

    def predictor(self, params: Params, context: Batch | None, o: ObjectiveConfig | None = None) -> unmask.Predict:
        """The network as unmasking sees it: logits of all tokens of a row that holds the mask where nothing is known."""
        o, context = o or self.way, context or {}

        def predict(inputs: Array, share: Array) -> Array:
            del share
            given = self._tell(params, o, inputs, context)
            if self.sampling.omega == 1:
                return given
            return ar.mix(given, self._tell(params, o, inputs, self._unclassed(context)), self.sampling.omega)

        return predict

    def conditionals(self, params: Params, batch: Batch, query: Query | None = None) -> dict[str, base.Prediction]:
        """Logits [b, t, v] of the model itself, before temperature, truncation and guidance, as the `query` says.

        Without one: of every token given those before it, left to right, or in the order of sampling. Raises `ConfigError` for neither.
        """
        query = query or Query()
        o, tokens = self.config.objective(query.objective), batch[self.config.tokens]
        if o.kind == "next":
            return super().conditionals(params, batch)
        if o.kind not in FILLED:
            raise ConfigError(f"query: {o.called!r} says nothing of a whole row; ask {', '.join(FILLED)} or next")
        if query.noised is not None or query.mask is not None:
            inputs: Any = query.noised if query.mask is None else jnp.where(query.mask, self.mask, tokens)
            return {self.config.tokens: base.Prediction(logits=self._tell(params, o, inputs, batch))}
        if query.how not in ("", "pseudo"):
            raise ConfigError(f"query: how={query.how!r} is not known; it is 'pseudo' or empty")
        order = query.order if query.order is not None else self.sampling.order or range(tokens.shape[1])
        if not isinstance(order, Tracer):
            objectives.check_order(np.asarray(order), tokens.shape[1])
        rank = jnp.broadcast_to(jnp.argsort(jnp.asarray(order), axis=-1), tokens.shape)
        scored = self._scored(batch)

        def step(told: Array, k: Array) -> tuple[Array, None]:
            hidden = (rank == k if query.how == "pseudo" else rank >= k) & scored
            logits = self._tell(params, o, jnp.where(hidden, self.mask, tokens), batch)
            return jnp.where((rank == k)[..., None], logits, told), None

        logits = jax.lax.scan(step, jnp.zeros((*tokens.shape, self.vocabulary)), jnp.arange(tokens.shape[1]))[0]
        return {self.config.tokens: base.Prediction(logits=logits)}

    def log_prob(self, params: Params, key: Key, batch: Batch, query: Query | None = None) -> Float[Array, "b"]:
        """Eq. (3) in nats: next tokens exactly; else exact in the order of the query, the sum over what it masks, the pseudo-likelihood, or
        the bound, from `draws` calls. With a mask only the hidden tokens count, next tokens given the left side alone, spans given both.
        Raises `ConfigError` where an objective of spans is asked without a mask."""
        query = query or Query()
        o, tokens, counts = self.config.objective(query.objective), batch[self.config.tokens], self._mask(batch)
        if query.mask is not None:
            counts = counts * query.mask
        if o.kind == "span":
            if query.mask is None:
                raise ConfigError(f"query: {o.called!r} is about spans; give mask, true where they are")
            arranged = objectives.rotate(o, objectives.spans_of(query.mask, o.spans), tokens, counts, self.vocabulary + 1)
            return -(self._arranged_nll(params, o, arranged, batch) * arranged.weight).sum(-1)
        if query.noised is not None:
            counts = counts * (query.noised == self.mask)
        if o.kind == "next" or query.how or any(asked is not None for asked in (query.noised, query.mask, query.order)):
            logits = self.conditionals(params, batch, query)[self.config.tokens].logits
            return -(categorical.nll(logits, tokens) * counts).sum(-1)
        return -self._bound(params, o, key, batch) * counts.sum(-1)

    def pseudo_log_prob(self, params: Params, batch: Batch) -> Float[Array, "b"]:
        """The log-probability of every token given all others, summed, by the objective that draws or the first that fills in masks.
        Raises `ConfigError` where none does."""
        for o in (self.way, *self.config.objectives):
            if o.kind in FILLED:
                return self.log_prob(params, jax.random.key(0), batch, Query(objective=o.called, how="pseudo"))
        raise ConfigError("pseudo-likelihood: no objective fills in masks, so that none sees both sides; ask for the likelihood")

    def _bound(self, params: Params, o: ObjectiveConfig, key: Key, batch: Batch) -> Float[Array, "b"]:
        """Nats a token at most: the loss of diffusion, for other masks that of ARDM; draws lie in a stratum each, coupled ones in pairs."""
        o, hiding = objectives.bounding(o)
        num, draws, coupled = batch[self.config.tokens].shape[0], self.config.draws, self.config.coupled

        def one(total: Array, draw: Array) -> tuple[Array, None]:
            keys = jax.random.split(jax.random.fold_in(key, draw // 2 if coupled else draw))
            at = ((draw // 2 if coupled else draw) + jax.random.uniform(keys[0], (num,))) / draws
            other = coupled & (draw % 2 == 1)
            at = jnp.where(other, 1 - at, at)
            return total + self._hidden_loss(params, o, keys[1], at, batch, hiding, other)[0], None

        return jax.lax.scan(one, jnp.zeros((num,)), jnp.arange(draws))[0] / draws

    # ---- the causal interface ------------------------------------------------------------------------------------------------

    def noise(self, key: Key, num: int, context: Batch | None = None) -> Noise:
        """Standard Gumbel draws, for tokens and, where the order is open, for it."""
        if self.way.kind == "next":
            return super().noise(key, num, context)
        fresh = unmask.noise(key, num, self.length, self.vocabulary)
        return {**self._named(fresh), "when": jnp.full((num, self.length), unmask.GIVEN, jnp.int32)}

    def _named(self, noise: dict[str, Array]) -> dict[str, Array]:
        return {self.config.tokens if name == "tokens" else name: value for name, value in noise.items()}

    def predict(
        self, params: Params, noise: Noise, context: Batch | None = None, do: Intervention | Acts | None = None
    ) -> dict[str, Int[Array, "b t"]]:
        """The tokens that the noise gives under `do`; what is set is seen by what is filled in later."""
        if self.way.kind == "next":
            return super().predict(params, noise, context, do)
        name, template = self.config.tokens, (context or {}).get("template")
        act = canonical(do, self.actable, noise[name].shape[0], self.spans)[name]
        told = unmask.unmask(
            self.predictor(params, context),
            {"tokens": noise[name], "order": noise["order"]},
            self.sampling,
            mask=self.mask,
            template=template,
            when=noise["when"],
            force=(act.mask, act.args[0]),
            alpha=self.way.schedule.alpha,
        )
        return {name: told.tokens}

    def abduct(self, params: Params, key: Key, batch: Batch) -> Noise:
        """A draw of the noise's posterior given the tokens, exact in the order that is drawn with it; NaN where they cannot be drawn."""
        if self.way.kind == "next":
            return super().abduct(params, key, batch)
        found = unmask.replay(
            self.predictor(params, batch),
            key,
            batch[self.config.tokens],
            self.sampling,
            self.vocabulary,
            mask=self.mask,
            template=batch.get("template"),
            alpha=self.way.schedule.alpha,
        )
        return self._named(found)

    def descendants(self, noise: Noise, do: Intervention | Acts | None) -> dict[str, Bool[Array, "b t"]]:
        """What an intervention may move: its positions and all that are filled in later, by any order where the noise leaves it open."""
        if self.way.kind == "next":
            return super().descendants(noise, do)
        name = self.config.tokens
        mask, when = canonical(do, self.actable, noise[name].shape[0], self.spans)[name].mask, noise["when"]
        first = jnp.where(mask, when, jnp.iinfo(jnp.int32).max).min(1, keepdims=True)
        open_ = (when == unmask.GIVEN).all(1, keepdims=True) & mask.any(1, keepdims=True)
        return {name: mask | (when > first) | open_}
