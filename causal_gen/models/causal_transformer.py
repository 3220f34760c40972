"""Causal transformer over tokens: a structural causal model whose graph is its visibility and whose noise is Gumbel noise.

    slot i holds token i-1 (slot 0, and the first slot of a document that others cannot see into, a learned start) and predicts token i
    h = decoder(slots),  logits = W h,  W the embedding itself where it is tied                                        (1)
    loss = mean of nll_i + weight.z z_i over scored positions + weight.balance balance + weight.seen (keys a slot sees)  (2)
    log p(x) = sum_i log softmax(logits_i)[x_i] over scored positions, exact under a causal visibility                 (3)
    x_i = argmax(warp(logits_i(x_<i)) + g_i): tokens as a function of Gumbel noise [b, t, v]                           (4)

(4) makes interventions on positions and counterfactuals exact: abduction draws g from its posterior given the tokens
(sampling/gumbel.py), prediction runs (4) again through the same cached steps, so a null intervention returns the tokens as they were and
nothing before an intervention moves. What (4) means for later tokens rests on the Gumbel-max choice of noise.
Sources: (1) Radford et al. 2019; (4) Oberst and Sontag 2019; Chatzi et al. 2025 (counterfactual token generation).
Letters: b batch, t position, k new tokens, p prompt, v vocabulary, d width.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.core import Tracer

from causal_gen.losses import categorical
from causal_gen.models import base, cached, rereading
from causal_gen.models.causal_transformer_config import CausalTransformerConfig
from causal_gen.nn.precision import Policy
from causal_gen.nn.transformer import Decoder, layers_of
from causal_gen.nn.transformer_config import TransformerConfig
from causal_gen.sampling import ar, gumbel
from causal_gen.sampling import cache as caches
from causal_gen.sampling.cache import Cache
from causal_gen.sampling.speculative import Engine
from causal_gen.sampling.truncation import DecodingConfig
from causal_gen.scm.intervention import Acts, Intervention, canonical
from causal_gen.structure import expression, masks
from causal_gen.structure.variants import latents
from causal_gen.structure.visibility import Visibility, fields_for
from causal_gen.types import Array, Batch, Bool, Float, Int, Key, Noise, Params, UserError

START = -1  # as a token: the learned start of a text
FAR = 1 << 30  # "leave" of a token that is in no tree: every later one sees it


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TextCache:
    """Keys and values of the slots so far, and the entries that the text is conditioned on."""

    held: Cache
    context: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class CausalTransformer(base.OneSequence):
    """The model of eqs. (1-4); see `models/base.py` for the interface that all families share.

    Noise is {"tokens": Gumbel [b, t, v]}; params are {"embed" [v, d], "start" [d], "decoder", "readout"?, "classes"?}, where each class has
    one more row, for a class that is not given. `length` is t of the data; texts of other lengths are a matter of `generate`.
    """

    config: CausalTransformerConfig
    transformer: TransformerConfig
    length: int
    vocabulary: int
    class_sizes: tuple[int, ...]
    sampling: DecodingConfig
    policy: Policy = Policy()

    likelihood: Literal["exact"] = dataclasses.field(default="exact", init=False)
    batch_coupled: bool = dataclasses.field(default=False, init=False)

    @functools.cached_property
    def visibility(self) -> Visibility:
        """Who sees whom among the slots."""
        seen = expression.read(self.config.visibility)
        return latents(seen, self.unscored, self.transformer.layers) if self.config.latents else seen

    @property
    def unscored(self) -> int:
        """Slots before the latents."""
        return self.length - self.config.latents

    @functools.cached_property
    def fields(self) -> tuple[str, ...]:
        """Entries [b, t] that say what each slot is, beside its index."""
        places = ("position",) if self.visibility.fields & {"document", "group"} else ()
        return tuple(sorted({*self.visibility.fields, *places, *self.transformer.places} - {"index", "gate"}))

    @property
    def context(self) -> tuple[str, ...]:
        """Classes, and fields of the visibility."""
        return (*self.config.classes, *self.fields)

    @property
    def optional(self) -> tuple[str, ...]:
        """What the context may lack: a text is then one document, counted from 0."""
        return ("document", "position")

    @functools.cached_property
    def _decoder(self) -> Decoder:
        return Decoder(self.transformer, self.visibility, dtype=self.policy.compute_dtype)

    @functools.cached_property
    def _stepper(self) -> Decoder:
        """The same network over a cache, where new tokens may stand in a tree."""
        return Decoder(self.transformer, self.visibility & masks.tree(), dtype=self.policy.compute_dtype)

    # ---- networks ------------------------------------------------------------------------------------------------------------

    def init(self, key: Key) -> Params:
        """Fresh parameters."""
        keys = jax.random.split(key, 5)
        d, small = self.transformer.width, self.transformer.initial
        x, fields = jnp.zeros((1, 1, d)), {name: jnp.zeros((1,), jnp.int32) for name in ("index", *self.fields)}
        params = {
            "embed": small * jax.random.normal(keys[0], (self.vocabulary, d)),
            "start": small * jax.random.normal(keys[1], (d,)),
            "decoder": self._decoder.init(keys[2], x, fields)["params"],
        }
        if not self.transformer.tie:
            params["readout"] = d**-0.5 * jax.random.normal(keys[3], (d, self.vocabulary))
        if self.config.classes:
            sizes = zip(self.config.classes, self.class_sizes, strict=True)
            params["classes"] = {
                name: small * jax.random.normal(jax.random.fold_in(keys[4], i), (size + 1, d)) for i, (name, size) in enumerate(sizes)
            }
        return params

    def _embed(self, params: Params, tokens: Int[Array, "b t"], context: Batch) -> Float[Array, "b t d"]:
        """Slots that hold `tokens`; START is the learned start, shifted by the classes."""
        start = jnp.broadcast_to(params["start"][None], (tokens.shape[0], self.transformer.width))
        for name, size in zip(self.config.classes, self.class_sizes, strict=True):
            start = start + params["classes"][name][context.get(name, jnp.full(tokens.shape[:1], size))]
        return jnp.where((tokens == START)[..., None], start[:, None], params["embed"][jnp.maximum(tokens, 0)])

    def _logits(self, params: Params, h: Float[Array, "b t d"]) -> Float[Array, "b t v"]:
        readout = params["embed"].T if self.transformer.tie else params["readout"]
        return jnp.einsum("btd,dv->btv", h, readout.astype(h.dtype), preferred_element_type=jnp.float32)

    def _fields(self, batch: Batch, num: int, t: int) -> dict[str, Any]:
        """Fields of slots 0..t-1; what is missing but optional stands for one document that starts at 0."""
        given = {name: batch[name][:, :t] for name in self.fields if name in batch}
        if "document" in self.fields and "document" not in batch:
            given["document"] = jnp.zeros((num, t), jnp.int32)
        return fields_for(t, t, **given)[0]

    def _slots(self, tokens: Int[Array, "b p"], batch: Batch) -> Int[Array, "b t"]:
        """The tokens that slots 0..p hold: shifted by one, a start wherever a document begins that cannot see the one before."""
        held = jnp.pad(tokens, ((0, 0), (1, 0)), constant_values=START)
        if "document" in self.fields and "document" in batch:
            document = batch["document"]
            document = document[:, jnp.minimum(jnp.arange(held.shape[1]), document.shape[1] - 1)]
            begins = jnp.pad(document[:, 1:] != document[:, :-1], ((0, 0), (1, 0)))
            held = jnp.where(begins, START, held)
        return held

    def _forward(self, params: Params, batch: Batch, maps: bool = False) -> tuple[Float[Array, "b t v"], Any]:
        """Logits of every token given those before it, eq. (1), and what else the decoder tells."""
        for name in self.config.classes:
            if name not in batch:
                raise UserError(f"batch: entry {name!r} is missing, which model.classes names; its entries are {', '.join(batch)}")
        tokens = batch[self.config.tokens]
        num, t = tokens.shape
        x = self._embed(params, self._slots(tokens, batch)[:, :t], batch)
        fields = self._fields(batch, num, t)
        if self.config.prefixes:
            h, aux = rereading.last(self._decoder, params, x, fields, min(self.config.prefixes, t)), {}
        else:
            how = {"aux": True, "maps": maps, "last": max(t - self.unscored, 1) if self.config.latents else 0}
            h, _, aux = self._decoder.apply({"params": params["decoder"]}, x, fields, **how)  # pyright: ignore
        return jnp.pad(self._logits(params, h), ((0, 0), (t - h.shape[1], 0), (0, 0))), aux

    # ---- training ------------------------------------------------------------------------------------------------------------

    def _mask(self, batch: Batch) -> Float[Array, "b t"]:
        return batch["loss_mask"].astype(jnp.float32) if "loss_mask" in batch else jnp.ones(batch[self.config.tokens].shape)

    def loss(self, params: Params, key: Key, batch: Batch, *, step: Array, train: bool) -> tuple[Float[Array, "b"], base.Aux]:
        """Eq. (2) an example; terms "nll" (nats a token), "z", of experts "balance" and of gates "seen" are reported unweighted."""
        del step
        if train and self.config.drop and self.config.classes:
            kept = jax.random.bernoulli(key, 1 - self.config.drop, batch[self.config.tokens].shape[:1])
            classes = zip(self.config.classes, self.class_sizes, strict=True)
            batch = {**batch, **{name: jnp.where(kept, batch[name], size) for name, size in classes}}
        logits, aux = self._forward(params, batch)
        mask = self._mask(batch)
        terms = {"nll": categorical.masked_mean(categorical.nll(logits, batch[self.config.tokens]), mask)}
        if self.config.weights.z:
            terms["z"] = categorical.masked_mean(categorical.z(logits), mask)
        if self.transformer.experts > 1:
            terms["balance"] = aux["balance"].mean(0)
        if self.transformer.gates:
            terms["seen"] = aux["seen"]
        prices = (getattr(self.config.weights, name) * term for name, term in terms.items() if name != "nll")
        return terms["nll"] + sum(prices), base.Aux(terms)

    def update_state(self, params: Params, stats: Any) -> Any:
        """There is no state."""
        return base.no_state(params, stats)

    def groups(self) -> dict[str, base.Group]:
        """Trained as a whole."""
        return base.one_group()

    def conditionals(self, params: Params, batch: Batch, query: Any = None) -> dict[str, base.Prediction]:
        """Teacher-forced logits [b, t, v] of the model itself, before temperature, truncation and guidance.

        For the layers of `config.capture` also {layer: attention [b, h, t, t]} and {layer: hidden [b, t, d]}, both over slots.
        """
        del query
        capture = self.config.capture
        logits, aux = self._forward(params, batch, maps=bool(capture))
        told = {name: {layer: aux[name][layer] for layer in capture} for name in ("attention", "hidden")} if capture else {}
        return {self.config.tokens: base.Prediction(logits=logits, **told)}

    def log_prob(self, params: Params, key: Key, batch: Batch, query: Any = None) -> Float[Array, "b"]:
        """Eq. (3) in nats."""
        del key, query
        logits, _ = self._forward(params, batch)
        return -(categorical.nll(logits, batch[self.config.tokens]) * self._mask(batch)).sum(-1)

    # ---- decoding ------------------------------------------------------------------------------------------------------------

    def empty(self, params: Params, num: int, slots: int, context: Batch | None = None) -> TextCache:
        """A cache of `num` texts without a token, with room for `slots` of them unless the config bounds it."""
        names = ("enter", "index", "leave", *self.fields)
        fields = {name: jnp.zeros((num, 1), jnp.int32) for name in names}
        x = jnp.zeros((num, 1, self.transformer.width))
        _, like = jax.eval_shape(lambda: self._decoder.apply({"params": params["decoder"]}, x, fields))  # pyright: ignore
        kind, stride = ("merge", self.config.stride) if self.config.stride > 1 else (self.config.cache.kind, 1)
        if kind == "reread":
            kind, like = "append", rereading.entries(x)
        held = caches.empty(like, fields, self.config.cache.slots or -(-slots // stride), kind, stride)
        given = {name: value for name, value in (context or {}).items() if name in self.context}
        return TextCache(held, given)

    def prefill(
        self, params: Params, tokens: Int[Array, "b p"], context: Batch | None = None, slots: int | None = None
    ) -> tuple[Float[Array, "b q v"], TextCache]:
        """Logits of tokens 0..p given `tokens` (one more than there are), and the cache, with room for `slots` (default: `length` + 1)."""
        num, p = tokens.shape
        cache = self.empty(params, num, slots or self.length + 1, context)
        x = self._embed(params, self._slots(tokens, cache.context), cache.context)
        fields = self._new_fields(cache, num, jnp.broadcast_to(jnp.arange(p + 1), (num, p + 1)), None)
        if self.config.cache.kind == "reread":
            h, held = rereading.step(self._decoder, params, cache.held, x, fields)
        else:
            read = {name: fields[name] for name in ("index", *self.fields)}
            h, new = self._decoder.apply({"params": params["decoder"]}, x, read)  # pyright: ignore
            held = caches.insert(cache.held, new, fields)
        return self._logits(params, h), dataclasses.replace(cache, held=caches.commit(held))

    def advance(
        self, params: Params, cache: TextCache, tokens: Int[Array, "b k"], fields: Mapping[str, Array] | None = None
    ) -> tuple[Float[Array, "b k v"], TextCache]:
        """Logits after each of k more tokens. Without `fields` they follow one another, and all before them is committed.

        With `fields` of a tree (sampling/speculative.py, `Engine`) they stand below the text as it was last committed.
        """
        num, k = tokens.shape
        held = cache.held if fields is not None else caches.commit(cache.held)
        index = held.mark + (fields["depth"] if fields is not None else jnp.arange(k)[None])
        new_fields = self._new_fields(cache, num, jnp.broadcast_to(index, (num, k)), fields)
        if "document" in cache.context and "document" in self.fields:
            before = self._at(cache, "document", jnp.maximum(new_fields["index"] - 1, 0))
            tokens = jnp.where(before != new_fields["document"], START, tokens)
        h, held = self._step(params, held, self._embed(params, tokens, cache.context), new_fields)
        return self._logits(params, h), dataclasses.replace(cache, held=held)

    def _step(self, params: Params, held: Cache, x: Float[Array, "b k d"], fields: dict[str, Array]) -> tuple[Array, Cache]:
        """Hidden states of new slots, and the cache with them."""
        if self.config.cache.kind == "reread":
            return rereading.step(self._decoder, params, held, x, fields)
        return cached.step(self._stepper, params, held, x, fields)

    def commit(self, cache: TextCache, indices: Int[Array, "b m"] | None = None) -> TextCache:
        """Of the tokens advanced since the last commit keep those at `indices` (-1, at the end of a row: none); None keeps all."""
        held = caches.commit(cache.held, indices)
        settled = held.stamp < held.mark
        walk = {"enter": jnp.where(settled, 0, held.fields["enter"]), "leave": jnp.where(settled, FAR, held.fields["leave"])}
        return dataclasses.replace(cache, held=dataclasses.replace(held, fields={**held.fields, **walk}))

    def widen(self, cache: TextCache, slots: int) -> TextCache:
        """The cache with room for `slots` slots, where the config does not bound them."""
        return dataclasses.replace(cache, held=caches.widen(cache.held, slots))

    def fork(self, cache: TextCache, rows: Int[Array, "m"]) -> TextCache:
        """Copies of rows of the cache, as beams need."""
        return TextCache(caches.fork(cache.held, rows), {name: value[rows] for name, value in cache.context.items()})

    def engine(self, params: Params, context: Batch | None = None, slots: int | None = None, omega: float = 1.0) -> Engine:
        """The model as decoding sees it (sampling/ar.py), under classifier-free guidance of weight `omega`."""

        def prefill(prompt: Array) -> tuple[Array, Any]:
            given = self.prefill(params, prompt, context, slots)
            if omega == 1:
                return given
            free = self.prefill(params, prompt, self._unclassed(context), slots)
            return ar.mix(given[0], free[0], omega), (given[1], free[1])

        def commit(cache: Any, indices: Array) -> Any:
            return self.commit(cache, indices) if omega == 1 else tuple(self.commit(side, indices) for side in cache)

        def widen(cache: Any, slots: int) -> Any:
            return self.widen(cache, slots) if omega == 1 else tuple(self.widen(side, slots) for side in cache)

        free = self.config.cache.kind == "append" and not self.config.cache.slots and self.config.stride == 1

        # cut out before the loop that steps: inside it, every step would copy all weights
        apart = {**params, "layers": layers_of(self.transformer, params["decoder"]["blocks"])}
        step = functools.partial(self.advance, apart)
        return Engine(prefill, step if omega == 1 else ar.guide(step, step, omega), commit, widen if free else None)

    def _unclassed(self, context: Batch | None) -> dict[str, Any]:
        return {name: value for name, value in (context or {}).items() if name not in self.config.classes}

    def _at(self, cache: TextCache, name: str, index: Int[Array, "b k"]) -> Array:
        """A field of the context at given slots; beyond its end its last value goes on."""
        values = cache.context[name]
        return jnp.take_along_axis(values, jnp.minimum(index, values.shape[1] - 1), 1)

    def _new_fields(self, cache: TextCache, num: int, index: Int[Array, "b k"], tree: Mapping[str, Array] | None) -> dict[str, Array]:
        """Every field of new tokens."""
        index = index.astype(jnp.int32)
        walk = {"enter": jnp.zeros_like(index), "leave": jnp.full_like(index, FAR)}
        if tree is not None:
            walk = {name: jnp.broadcast_to(tree[name], index.shape) for name in walk}
        found = {"index": index, **walk}
        for name in self.fields:
            if name in cache.context:
                found[name] = self._at(cache, name, index)
            elif name in self.optional:
                found[name] = index if name == "position" else jnp.zeros_like(index)
            else:
                raise UserError(f"context: field {name!r} is missing, which {self.config.visibility!r} reads; give it as an entry [b, t]")
        return found

    # ---- the causal interface ------------------------------------------------------------------------------------------------

    def noise(self, key: Key, num: int, context: Batch | None = None) -> Noise:
        """Standard Gumbel draws."""
        del context
        return {self.config.tokens: gumbel.prior(key, (num, self.length, self.vocabulary))}

    def _replay(self, params: Params, noise: Array, context: Batch | None, forced: Array, values: Array) -> tuple[Array, Array]:
        """Eq. (4), with `values` where `forced`, and the warped logits."""
        num, t, _ = noise.shape
        engine = self.engine(params, context, t, self.sampling.omega)
        rooms = (t,) if engine.widen is None else caches.rooms(0, t)
        cache: Any = self.empty(params, num, rooms[0], context)
        if self.sampling.omega != 1:
            cache = (cache, self.empty(params, num, rooms[0], self._unclassed(context)))
        widen: Any = engine.widen
        stages = [(room, functools.partial(widen, slots=wider)) for room, wider in itertools.pairwise(rooms)]
        first = jnp.full((num,), START)
        return ar.replay(engine.advance, cache, first, noise, forced, values, self.sampling, stages=stages)

    def predict(
        self, params: Params, noise: Noise, context: Batch | None = None, do: Intervention | Acts | None = None
    ) -> dict[str, Int[Array, "b t"]]:
        """The tokens that the noise gives under `do`, from the first on."""
        name = self.config.tokens
        act = canonical(do, self.actable, noise[name].shape[0], self.spans)[name]
        return {name: self._replay(params, noise[name], context, act.mask, act.args[0])[0]}

    def abduct(self, params: Params, key: Key, batch: Batch) -> Noise:
        """A draw of the exact posterior of the noise given the tokens; NaN where sampling could not have drawn them (`check_noise`)."""
        tokens = batch[self.config.tokens]
        none = jnp.zeros((*tokens.shape, self.vocabulary))
        _, laws = self._replay(params, none, batch, jnp.ones(tokens.shape, bool), tokens)
        return {self.config.tokens: gumbel.posterior(key, laws, tokens)}

    def descendants(self, noise: Noise, do: Intervention | Acts | None) -> dict[str, Bool[Array, "b t"]]:
        """What an intervention may move: its positions and all that come later."""
        name = self.config.tokens
        mask = canonical(do, self.actable, noise[name].shape[0], self.spans)[name].mask
        return {name: jnp.cumsum(mask, 1) > 0}

    def check_evidence(self, batch: Batch) -> None:
        """Raises `UserError` for tokens out of range. Call it outside of jit."""
        if not isinstance(batch[self.config.tokens], Tracer):
            ar.check_prompt(batch[self.config.tokens], self.vocabulary, self.length)

    def check_noise(self, batch: Batch, noise: Noise) -> None:
        """Raises `UserError` for evidence that sampling could not have drawn. Call it outside of jit."""
        ar.check_noise(batch[self.config.tokens], noise[self.config.tokens])
