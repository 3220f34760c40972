"""Causal diffusion autoencoder: an encoder to exogenous noise, a latent SCM over named factors, a diffusion decoder.

    u ~ q(u|x) = N(mu(x), diag var(x)),    z = F(u): z_i = f_i(z_pa(i)) + u_i                                  (1)
    L = |target - net(x_t, t, z)|^2 + gamma [ KL(q(z|x) | p(z|y)) + KL(q(u|x) | p(u)) ] + mu NLL(y_i | y_pa(i))   (2)
    p(z_i|y_i) = N(y_i 1, sigma_y^2 I) with y on unit scale; the block mean of z_i is the factor                (3)
    counterfactual: u = mean of q(u|x), x_T by DDIM inversion under z; act on z in topological order; decode x_T (4)

(1-3) Akomand et al. 2024 (CausalDiffAE), sec. 4; the last term of (2) fits the mechanisms to labelled rows directly, and they then
learn from nothing else (mu = 0: from the rest of (2), as in the paper); p(u) has a learned scale a factor, so that a child that its
parents determine has noise near zero. Where the released code differs from
the paper there is a switch in `DiffusionAEConfig`, which defaults to the paper, or to what the paper's aim needs.
Letters: b batch, n factors, k entries of a block, h w c image.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.losses import gaussian
from causal_gen.models import base
from causal_gen.models.block_terms import BlockTerms, labelled_first
from causal_gen.models.diffusion_ae_config import DiffusionAEConfig
from causal_gen.models.picture_mechanism import Picture
from causal_gen.models.sketch import Frame, Sketch
from causal_gen.nn.encoder import GaussianEncoder
from causal_gen.nn.mechanisms import Conditioners, masks_of
from causal_gen.nn.precision import Policy
from causal_gen.nn.unet import Canvas, UNet, footprint
from causal_gen.sampling import ddim, guidance
from causal_gen.sampling.base import Denoiser, SamplingConfig
from causal_gen.scm.block import BlockScm
from causal_gen.scm.intervention import Acts, Edge, Intervention, acts_on, moved
from causal_gen.scm.mechanism import Column
from causal_gen.structure.graph import Dag
from causal_gen.types import Array, Batch, Float, Key, Noise, Params


@dataclasses.dataclass(frozen=True)
class Query:
    """Where to ask for the image's conditional: `time` i32 [b] in 1..T and `noised` [b, h, w, c], the picture at that time."""

    time: Array
    noised: Array


def _apply(module: nn.Module, params: Params, *inputs: Any, method: str | None = None) -> Any:
    """A layer as a function of its parameters."""
    return module.apply({"params": params}, *inputs, method=method)


@dataclasses.dataclass(frozen=True)
class DiffusionAE:
    """The model of eq. (1-4); see `models/base.py` for the interface that all families share.

    Noise is {factor: [b, k] standard normal, "image": x_T [b, h, w, c]}; params are {"encoder", "mechanisms", "unet", "null"?, "state"?}.
    """

    config: DiffusionAEConfig
    scm: BlockScm
    shape: tuple[int, int, int]
    sampling: SamplingConfig
    policy: Policy = Policy()
    remat: str = "none"

    context: tuple[str, ...] = dataclasses.field(default=(), init=False)
    likelihood: Literal["bound"] = dataclasses.field(default="bound", init=False)

    @functools.cached_property
    def graph(self) -> Dag:
        """The factors' graph with the image as the last node, over all of them."""
        return self.scm.graph.with_sink(self.config.image)

    @property
    def factors(self) -> tuple[str, ...]:
        """Names of the latent factors, in config order."""
        return self.scm.graph.nodes

    @property
    def actable(self) -> tuple[str, ...]:
        """Interventions name factors; a picture is not set by hand."""
        return self.factors

    @property
    def edges(self) -> tuple[Edge, ...]:
        """Edges between factors, which a child reads; as released it reads its parents' u, which no intervention reaches."""
        return () if self.scm.through == "u" else self.scm.graph.edges

    @property
    def needs(self) -> tuple[str, ...]:
        """Abduction reads the image alone; labels never reach the encoder."""
        return (self.config.image,)

    @property
    def batch_coupled(self) -> bool:
        """Batch normalisation mixes the examples of a batch."""
        return self.config.encoder.norm == "batch"

    # ---- networks -------------------------------------------------------------------------------------------------

    @functools.cached_property
    def _encoder(self) -> GaussianEncoder:
        c = self.config.encoder
        return GaussianEncoder(len(self.factors) * self.config.block, c.widths, c.hidden, c.norm, c.groups, dtype=self.policy.compute_dtype)

    @functools.cached_property
    def _conditioners(self) -> Conditioners:
        parents = {name: self.scm.graph.parents(name) for name in self.factors}
        learned = self.config.noise_scale == "learned"
        return Conditioners(
            masks_of(self.factors, parents),
            self.config.block,
            self.config.mechanism_widths,
            learned,
            net_for_roots=self.config.net_for_roots,
        )

    @functools.cached_property
    def _unet(self) -> UNet:
        fields = {f.name: getattr(self.config.unet, f.name) for f in dataclasses.fields(self.config.unet)}
        return UNet(out=self.shape[-1], remat=self.remat, dtype=self.policy.compute_dtype, **fields)

    @functools.cached_property
    def _terms(self) -> BlockTerms:
        return BlockTerms(self.scm, self.config.label_scale, self.config.kl_reduction)

    @functools.cached_property
    def _frame(self) -> Frame:
        return Frame(self.shape, self.config.pad)

    @functools.cached_property
    def _sketch(self) -> Sketch:
        parents = tuple(Column(name, scaling) for name, scaling in zip(self.factors, self.scm.scalings, strict=True))
        return Sketch(Picture(self.config.image, parents, self.shape, self.config.sketch), self._frame)

    @property
    def _canvas(self) -> Canvas:
        """The decoder's own layer, to be asked for its maps (the compiler computes them once)."""
        h, w, _ = self._frame.padded
        c = self.config.unet
        return Canvas((h // c.patch, w // c.patch, c.canvas))

    @property
    def _price(self) -> Float[Array, "n"]:
        """Of drawing: 1 for factors without effects among the factors, 1.5 for others, so that the nearest cause draws.

        Where a child is a function of its parents, the data cannot tell whether the picture shows the child or them.
        """
        return jnp.asarray([1.5 if self.scm.graph.children(name) else 1.0 for name in self.factors])

    def init(self, key: Key) -> Params:
        """Fresh parameters; jit it, it traces every network once."""
        keys = jax.random.split(key, 4)
        h, w, c = self._frame.padded
        image, t = jnp.zeros((1, h, w, c)), jnp.ones((1,), jnp.int32)
        blocks = jnp.zeros((1, len(self.factors), self.config.block))
        params = {
            "mechanisms": self._conditioners.init(keys[1], blocks).get("params", {}),
            "unet": self._unet.init(keys[2], image, t, self._features(blocks), image if self.config.sketched else None)["params"],
        }
        running = None
        if self.config.encoder.norm == "batch":
            running = tuple((jnp.zeros(width), jnp.ones(width)) for width in self.config.encoder.widths)
            params["state"] = {"running": running}
        params["encoder"] = self._encoder.init(keys[0], image, running, True)["params"]
        if self.config.sketched:
            params["sketch"] = self._sketch.picture.init(jax.random.fold_in(key, 4))
        if self.config.drop and self.config.null == "learned":
            params["null"] = 0.02 * jax.random.normal(keys[3], self._features(blocks).shape[1:])
        return params

    def _location(self, params: Params) -> Any:
        return lambda i, blocks: _apply(self._conditioners, params["mechanisms"], i, blocks, method="location")

    def _scale(self, params: Params) -> Float[Array, "n k"]:
        """s of block.py eq. (2). "unit" is N(0, I) on z, whose deviations have 1/k of its variance in the basis of eq. (4)."""
        if self.config.noise_scale == "learned":
            return jnp.exp(params["mechanisms"]["log_scale"])
        return jnp.full((len(self.factors), self.config.block), 1 / math.sqrt(self.config.block))

    def _features(self, z: Float[Array, "b n k"]) -> Float[Array, "b n f"]:
        """What the decoder sees of z, a factor at a time: the block, and sines and cosines of its mean, which place things precisely."""
        rates = jnp.asarray(np.pi / 4 * 2.0 ** np.arange(self.config.fourier), jnp.float32).reshape(1, 1, -1)
        angles = z.mean(-1)[:, :, None] * rates
        return jnp.concatenate([z, jnp.sin(angles), jnp.cos(angles)], -1)

    def _null(self, params: Params, like: Float[Array, "b n f"]) -> Float[Array, "b n f"]:
        if self.config.null == "learned" and "null" in params:
            return jnp.broadcast_to(params["null"][None], like.shape)
        return jnp.broadcast_to(self._features(jnp.zeros((1, len(self.factors), self.config.block))), like.shape)

    def _values(self, w: Float[Array, "b n k"]) -> dict[str, Array]:
        """The factors in physical units."""
        return {name: s.inverse(w[:, i, 0]) for i, (name, s) in enumerate(zip(self.factors, self.scm.scalings, strict=True))}

    def _denoiser(self, params: Params, condition: Float[Array, "b n f"], drawn: Any = None) -> Denoiser:
        def denoise(x: Array, t: Array) -> tuple[Array, Array]:
            out = _apply(self._unet, params["unet"], x, t, condition, drawn)
            return self.config.process.x0_eps(out, x, t)

        return denoise

    def _guided(self, params: Params, z: Float[Array, "b n k"], drawn: Any = None) -> Denoiser:
        features = self._features(z)
        null = self._denoiser(params, self._null(params, features), jax.tree.map(jnp.zeros_like, drawn))
        return guidance.guide(self._denoiser(params, features, drawn), null, self.sampling.omega)

    def _posterior(self, params: Params, x: Array, train: bool) -> tuple[Float[Array, "b n k"], Float[Array, "b n k"], Any]:
        """Mean and log-variance of q(u|x) in the basis of block.py eq. (4), and batch moments."""
        running = params["state"]["running"] if self.config.encoder.norm == "batch" else None
        mean, log_variance, moments = _apply(self._encoder, params["encoder"], x, running, train)
        shape = (x.shape[0], len(self.factors), self.config.block)
        return mean.reshape(shape), log_variance.reshape(shape), moments

    # ---- training ---------------------------------------------------------------------------------------------------

    def loss(self, params: Params, key: Key, batch: Batch, *, step: Array, train: bool) -> tuple[Float[Array, "b"], base.Aux]:
        """Eq. (2) a example; terms "diffusion", "label_kl", "noise_kl" and "mechanism" are reported unweighted."""
        config = self.config
        keys = jax.random.split(key, 5)
        x = self._frame.to_net(jnp.asarray(batch[config.image]))
        num = x.shape[0]
        mean, log_variance, moments = self._posterior(params, x, train)
        spread = jnp.exp(0.5 * log_variance)
        if config.fixed_variance is not None:
            spread = jnp.sqrt(config.fixed_variance) * spread
        u = mean + spread * jax.random.normal(keys[0], mean.shape)
        # the decoder's gradient, which is large where it is sharp, would drown that of the term which fits the mechanisms
        w = self.scm.causal(self._location(jax.lax.stop_gradient(params) if config.weights.mechanism else params), u)
        labels, scale = self._terms.labels(batch, num), self._scale(params)
        kls = self._terms.kls(labels, u, w, mean, log_variance, scale)

        taught, mechanism = self._terms.mechanism_nll(labels, keys[4], scale, self._location(params))
        if config.label_forcing:
            forced = jax.random.bernoulli(jax.random.fold_in(keys[4], 1), config.label_forcing, (num,)) & (labels[1] > 0)
            w = jnp.where(forced[:, None, None], taught, w)
        features = self._features(self.scm.to_blocks(w))
        kept = jax.random.bernoulli(keys[3], 1 - config.drop, (num,)) if config.drop else jnp.ones((num,), bool)
        features = jnp.where(kept[:, None, None], features, self._null(params, features))
        drawn, rough, sketched = None, 0.0, {}
        if config.sketched:
            drawn, rough, sketched = self._sketching(params, jax.random.fold_in(key, 5), batch, w, labels[1])
            drawn = jnp.where(kept[:, None, None, None], drawn, 0)  # the null branch is shown no sketch either
        # one in `decoded` examples goes through the decoder, which costs the most: one whose factors are known, where there is one
        diffusion = self._diffusion(params, keys[1:3], *labelled_first(labels[1], config.decoded, (x, features, drawn)))
        terms = {"diffusion": jnp.repeat(diffusion, config.decoded)[:num], **kls}
        terms["mechanism"] = mechanism
        if config.weights.footprint:
            terms["footprint"] = footprint(_apply(self._canvas, params["unet"]["canvas"], features), self._price)
        if config.kl_kept_only:
            terms = {name: value * kept if name.endswith("_kl") else value for name, value in terms.items()}
        gamma = config.weights.gamma * jnp.minimum(1.0, (step + 1) / max(config.weights.gamma_warmup, 1))
        total = terms["diffusion"] + gamma * (config.weights.label * terms["label_kl"] + config.weights.noise * terms["noise_kl"])
        total = total + config.weights.mechanism * terms["mechanism"]
        if config.weights.footprint:
            total = total + config.weights.footprint * terms["footprint"]
        return total + config.weights.sketch * rough, base.Aux({**terms, **sketched}, moments if train else None)

    def _diffusion(self, params: Params, keys: Any, x: Array, features: Array, drawn: Any) -> Float[Array, "b"]:
        """The decoder's squared error on pictures `x`, on the scale of its network, at a time each."""
        process = self.config.process
        t = jax.random.randint(keys[0], (x.shape[0],), 1, process.timesteps + 1)
        xt, eps = process.corrupt(keys[1], x, t)
        out = _apply(self._unet, params["unet"], xt, t, features, drawn)
        return gaussian.squared_error(out, process.target(x, eps, t))

    def _sketching(self, params: Params, key: Key, batch: Batch, w: Array, labelled: Array) -> tuple[Array, Array, dict[str, Array]]:
        """The sketch of every example, which the decoder is taught to finish and not to improve, and the sketch's own loss and terms."""
        values, keys = self._values(w), jax.random.split(key, 2)
        _, fresh = self._latents(jax.lax.stop_gradient(params), self.noise(keys[0], w.shape[0]), None)
        e, loss, terms = self._sketch.train(params["sketch"], keys[1], batch, values, labelled, fresh)
        return jax.lax.stop_gradient(self._sketch.draw(params["sketch"], e, values)), loss, terms

    def update_state(self, params: Params, stats: Any) -> Any:
        """Running moments of batch normalisation, momentum .9."""
        if stats is None or "state" not in params:
            return None
        running = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, params["state"]["running"], stats)
        return {"running": running}

    def groups(self) -> dict[str, base.Group]:
        """Trained as a whole."""
        return base.one_group()

    # ---- the causal interface ---------------------------------------------------------------------------------------

    def noise(self, key: Key, num: int, context: Batch | None = None) -> Noise:
        """Standard normal draws: [num, k] a factor and x_T [num, h, w, c]."""
        del context
        keys = jax.random.split(key, len(self.factors) + 1)
        noise = {name: jax.random.normal(k, (num, self.config.block)) for name, k in zip(self.factors, keys[:-1], strict=True)}
        if self.config.sketched:
            noise |= self._sketch.picture.noise(jax.random.fold_in(key, 1), num)
        return {**noise, self.config.image: jax.random.normal(keys[-1], (num, *self._frame.padded))}

    def _stack(self, noise: Noise) -> Float[Array, "b n k"]:
        return jnp.stack([noise[name] for name in self.factors], 1)

    def _latents(self, params: Params, noise: Noise, do: Intervention | Acts | None) -> tuple[Array, dict[str, Array]]:
        e = self._stack(noise)
        u = self.scm.exogenous(e, self._scale(params))
        w, values = self.scm.intervene(self._location(params), u, acts_on(self, do, e.shape[0]))
        return self.scm.to_blocks(w), values

    def latents(self, params: Params, noise: Noise, do: Intervention | Acts | None = None) -> dict[str, Float[Array, "b k"]]:
        """The blocks of z under `do`."""
        z, _ = self._latents(params, noise, do)
        return {name: z[:, i] for i, name in enumerate(self.factors)}

    def predict(
        self, params: Params, noise: Noise, context: Batch | None = None, do: Intervention | Acts | None = None
    ) -> dict[str, Array]:
        """Factors [b] in physical units and the image [b, h, w, c] in [0, 1] that the noise gives under `do`."""
        del context
        z, values = self._latents(params, noise, do)
        x_t, s = noise[self.config.image], self.sampling
        drawn = self._sketch.draw(params["sketch"], noise, values) if self.config.sketched else None
        denoise = self._guided(params, z, drawn)
        if s.sampler == "ddpm":
            # the later draws hang on x_T, so that predict stays a function of the noise
            key = jax.random.key(jnp.abs(jax.lax.bitcast_convert_type(x_t[0, 0, 0, 0], jnp.int32)))
            x = ddim.ancestral(denoise, self.config.process, key, x_t, s.steps, s.spacing)
        else:
            x = ddim.decode(denoise, self.config.process, x_t, s.steps, s.clip, s.spacing)
        return {**values, self.config.image: self._frame.from_net(x)}

    def abduct(self, params: Params, key: Key, batch: Batch) -> Noise:
        """The mean of q(u|x) as standard noise, and x_T by DDIM inversion under z (or re-noised, as released)."""
        x = self._frame.to_net(batch[self.config.image])
        u, _, _ = self._posterior(params, x, False)
        w = self.scm.causal(self._location(params), u)
        e = self.scm.standardise(u, self._scale(params))
        rough, drawn = {}, None
        if self.config.sketched:
            values = self._values(w)
            rough = self._sketch.picture.abduct(params["sketch"], key, batch, values)
            drawn = self._sketch.draw(params["sketch"], rough, values)
        if self.sampling.encode == "renoise":
            x_t = ddim.renoise(self.config.process, key, x)
        else:
            denoise = self._guided(params, self.scm.to_blocks(w), drawn)
            s = self.sampling
            x_t = ddim.invert(denoise, self.config.process, x, s.steps, s.refine, s.spacing)
        return {**{name: e[:, i] for i, name in enumerate(self.factors)}, **rough, self.config.image: x_t}

    def descendants(self, noise: Noise, do: Intervention | Acts | None) -> dict[str, Array]:
        """bool [b] an entry: what the intervention may move. The picture depends on every factor."""
        num = noise[self.config.image].shape[0]
        return moved(self.graph, acts_on(self, do, num))

    def conditionals(self, params: Params, batch: Batch, query: Query | None = None) -> dict[str, base.Prediction]:
        """Teacher-forced moments: a factor's mean and scale [b] on unit scale given its parents' labels, and the mean of x_0 in [-1, 1].

        The image is asked at `query`; by default at t = T about the mean of the prior, where sampling starts.
        """
        unit, _ = self._terms.labels(batch, batch[self.config.image].shape[0])
        w, _ = self._terms.label_prior(unit)
        scale, location = self._scale(params), self._location(params)
        out = {}
        for i, name in enumerate(self.factors):
            spread = jnp.ones((w.shape[0],)) * (1.0 if self.scm.marginals[i] is not None else scale[i, 0])
            out[name] = base.Prediction(moments=(location(i, w)[:, 0], spread))
        num = w.shape[0]
        if query is None:
            query = Query(jnp.full((num,), self.config.process.timesteps), jnp.zeros((num, *self._frame.padded)))
        drawn = self._sketch.plain(params["sketch"], self._values(w)) if self.config.sketched else None
        x0, _ = self._guided(params, self.scm.to_blocks(w), drawn)(query.noised, query.time)
        return {**out, self.config.image: base.Prediction(moments=(x0, None))}

    def log_prob(self, params: Params, key: Key, batch: Batch, query: Any = None) -> Float[Array, "b"]:
        """A draw of the unweighted, summed bound on log p(x | y) in nats, x on [-1, 1]: gaussian.py eq. (4) at one time, minus both KLs."""
        del query
        config, process = self.config, self.config.process
        keys = jax.random.split(key, 4)
        x = self._frame.to_net(jnp.asarray(batch[config.image]))
        mean, log_variance, _ = self._posterior(params, x, False)
        u = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(keys[0], mean.shape)
        w = self.scm.causal(self._location(params), u)
        summed = dataclasses.replace(self._terms, reduction="sum")
        kls = summed.kls(summed.labels(batch, x.shape[0]), u, w, mean, log_variance, self._scale(params))
        drawn, rough = None, 0.0
        if config.sketched:
            e, rough = self._sketch.picture.sounded(params["sketch"], jax.random.fold_in(key, 5), batch, self._values(w))
            drawn = self._sketch.draw(params["sketch"], e, self._values(w))
        denoise = self._denoiser(params, self._features(self.scm.to_blocks(w)), drawn)

        t = jax.random.randint(keys[1], (x.shape[0],), 2, process.timesteps + 1)
        x0, _ = denoise(process.corrupt(keys[2], x, t)[0], t)
        steps = (process.timesteps - 1) * process.bound_weight(t) * gaussian.per_example((x - x0) ** 2, "sum")
        one = jnp.ones_like(t)
        first, _ = denoise(process.corrupt(keys[3], x, one)[0], one)
        nll = process.prior_kl(x) + steps + process.decoder_nll(x, first)
        return -(nll + kls["label_kl"] + kls["noise_kl"] + rough)
