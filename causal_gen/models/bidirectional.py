"""Bidirectional generator and encoder of pictures whose prior is a structural causal model over named factors (DEAR).

    z = F(e),  x = G(z, r)               e the factors' noise, F the structural model, r spare noise: pairs of p                  (1)
    (z, r) = E(x) = mean(x) + s(x) n     x of the data, n standard normal: pairs of q                                            (2)
    critic:     softplus(-D(q)) + softplus(D(p)) + penalty / 2 |dD / dq|^2           at its best  D = log q - log p              (3)
    generator:  -[clip(exp D(p))] D(p), the bracket a number: the gradient of KL(q | p) for G and for F                         (4)
    encoder:    D(q) + lambda |mean_i(x) - y_i|^2 on labelled rows, y on unit scale                                            (5)

One loss is the sum of (3-5), each player seeing the others' parameters as numbers. By (4) the mechanisms learn from what is generated
alone, without labels; roots follow the quantiles of the labelled rows. A counterfactual takes e from mean(x) and r from it too, acts, and
draws by (1). Where published: (1-5) Shen et al. 2022 (JMLR 23), secs. 4 and 5, with its clip of 2 and lambda of 5. Not as published: F
has a network a node over the values of its parents, which is wider than the elementwise functions of a linear system there; the critic is
held by the penalty on its slope (Mescheder et al. 2018) in the place of spectral norms; (5) is a squared error where the pendulum's script
has a cross entropy. Letters: b batch, n factors, k spare entries, h w c picture.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from causal_gen.models import base
from causal_gen.models.bidirectional_config import BidirectionalConfig
from causal_gen.nn.bidirectional import Critic, Generator
from causal_gen.nn.encoder import GaussianEncoder
from causal_gen.nn.mechanisms import Conditioners, masks_of
from causal_gen.scm.block import BlockScm
from causal_gen.scm.intervention import Acts, Edge, Intervention, acts_on, moved
from causal_gen.structure.graph import Dag
from causal_gen.types import Array, Batch, Float, Key, Noise, Params


@dataclasses.dataclass(frozen=True)
class Bidirectional:
    """The model of eqs. (1-5); see `models/base.py` for the interface that all families share.

    Noise is {factor: [b, 1], image: r [b, k]}, standard normal; params are {"encoder", "generator", "mechanisms", "critic"}.
    """

    config: BidirectionalConfig
    scm: BlockScm
    shape: tuple[int, int, int]

    context: tuple[str, ...] = dataclasses.field(default=(), init=False)
    batch_coupled: bool = dataclasses.field(default=False, init=False)
    likelihood: None = dataclasses.field(default=None, init=False)
    log_prob: None = dataclasses.field(default=None, init=False)

    @functools.cached_property
    def graph(self) -> Dag:
        """The factors' graph with the image as the last node, over all of them."""
        return self.scm.graph.with_sink(self.config.image)

    @property
    def factors(self) -> tuple[str, ...]:
        """Names of the factors, in config order."""
        return self.scm.graph.nodes

    @property
    def actable(self) -> tuple[str, ...]:
        """Interventions name factors; a picture is not set by hand."""
        return self.factors

    @property
    def edges(self) -> tuple[Edge, ...]:
        """Edges between factors."""
        return self.scm.graph.edges

    @property
    def needs(self) -> tuple[str, ...]:
        """Abduction reads the image alone; labels never reach the encoder."""
        return (self.config.image,)

    # ---- networks ------------------------------------------------------------------------------------------------------------

    @functools.cached_property
    def _encoder(self) -> GaussianEncoder:
        c = self.config.encoder
        return GaussianEncoder(len(self.factors) + self.config.spare, c.widths, c.hidden, c.norm, c.groups)

    @functools.cached_property
    def _generator(self) -> Generator:
        return Generator(math.prod(self.shape), self.config.generator_widths)

    @functools.cached_property
    def _critic(self) -> Critic:
        return Critic(self.config.critic_widths)

    @functools.cached_property
    def _conditioners(self) -> Conditioners:
        parents = {name: self.scm.graph.parents(name) for name in self.factors}
        return Conditioners(masks_of(self.factors, parents), 1, self.config.mechanism_widths)

    def init(self, key: Key) -> Params:
        """Fresh parameters."""
        keys = jax.random.split(key, 4)
        x, n = jnp.zeros((1, math.prod(self.shape))), len(self.factors)
        code = jnp.zeros((1, n + self.config.spare))
        return {
            "encoder": self._encoder.init(keys[0], x.reshape(1, *self.shape), None, True)["params"],
            "generator": self._generator.init(keys[1], code)["params"],
            "mechanisms": self._conditioners.init(keys[2], jnp.zeros((1, n, 1)))["params"],
            "critic": self._critic.init(keys[3], x, code)["params"],
        }

    def _encode(self, params: Params, x: Float[Array, "b h w c"]) -> tuple[Float[Array, "b z"], Float[Array, "b z"]]:
        """Mean and standard deviation of eq. (2), factors first."""
        found: Any = self._encoder.apply({"params": params["encoder"]}, 2 * x - 1, None, False)
        return found[0], jnp.exp(0.5 * found[1])

    def _draw(self, params: Params, z: Float[Array, "b z"]) -> Float[Array, "b p"]:
        found: Any = self._generator.apply({"params": params["generator"]}, z)
        return found

    def _judge(self, params: Params, x: Float[Array, "b p"], z: Float[Array, "b z"]) -> Float[Array, "b"]:
        found: Any = self._critic.apply({"params": params["critic"]}, x, z)
        return found

    def _location(self, params: Params) -> Any:
        return lambda i, blocks: self._conditioners.apply({"params": params["mechanisms"]}, i, blocks, method="location")

    def _scale(self, params: Params) -> Float[Array, "n 1"]:
        return jnp.exp(params["mechanisms"]["log_scale"])

    def _factors(self, params: Params, noise: Noise, do: Intervention | Acts | None) -> tuple[Float[Array, "b n"], dict[str, Array]]:
        """The factors that the noise gives under `do`, on unit scale and in their units."""
        e = jnp.stack([noise[name] for name in self.factors], 1)
        u = self.scm.exogenous(e, self._scale(params))
        w, values = self.scm.intervene(self._location(params), u, acts_on(self, do, e.shape[0]))
        return w[:, :, 0], values

    def _pair(self, params: Params, noise: Noise) -> tuple[Float[Array, "b p"], Float[Array, "b z"]]:
        """Eq. (1)."""
        z = jnp.concatenate([self._factors(params, noise, None)[0], noise[self.config.image]], -1)
        return self._draw(params, z), z

    # ---- training ------------------------------------------------------------------------------------------------------------

    def loss(self, params: Params, key: Key, batch: Batch, *, step: Array, train: bool) -> tuple[Float[Array, "b"], base.Aux]:
        """The sum of eqs. (3-5) an example; terms "critic", "slope", "generator", "encoder" and "supervised" are unweighted."""
        del step, train
        config, keys = self.config, jax.random.split(key)
        image = jnp.asarray(batch[config.image], jnp.float32)
        x, num = image.reshape(image.shape[0], -1), image.shape[0]
        mean, spread = self._encode(params, image)
        code = mean + spread * jax.random.normal(keys[0], mean.shape)
        made, drawn = self._pair(params, self.noise(keys[1], num))

        fixed = jax.lax.stop_gradient({"critic": params["critic"]})
        q, p = jax.lax.stop_gradient(((x, code), (made, drawn)))
        slopes = jax.grad(lambda pair: self._judge(params, *pair).sum())(q)
        terms = {
            "critic": jax.nn.softplus(-self._judge(params, *q)) + jax.nn.softplus(self._judge(params, *p)),
            "slope": sum((slope**2).sum(-1) for slope in slopes),
            "encoder": self._judge(fixed, x, code),
            "supervised": self._supervised(mean, batch),
        }
        score = self._judge(fixed, made, drawn)
        ratio = jnp.clip(jnp.exp(jax.lax.stop_gradient(score)), 1 / config.clip, config.clip)
        terms["generator"] = -ratio * score
        total = terms["critic"] + 0.5 * config.penalty * terms["slope"] + terms["generator"] + terms["encoder"]
        return total + config.supervised * terms["supervised"], base.Aux(terms)

    def _supervised(self, mean: Float[Array, "b z"], batch: Batch) -> Float[Array, "b"]:
        """The last of eq. (5), 0 for a row without labels."""
        if any(name not in batch for name in self.factors):
            return jnp.zeros((mean.shape[0],))
        unit = jnp.stack([s.forward(batch[name]) for name, s in zip(self.factors, self.scm.scalings, strict=True)], 1)
        labelled = batch["label_mask"].astype(jnp.float32) if "label_mask" in batch else 1.0
        return labelled * ((mean[:, : len(self.factors)] - unit) ** 2).mean(-1)

    def update_state(self, params: Params, stats: Any) -> Any:
        """There is no state."""
        return base.no_state(params, stats)

    def groups(self) -> dict[str, base.Group]:
        """The critic at its own pace."""
        return {"^critic": base.Group(scale=self.config.pace), ".*": base.Group()}

    # ---- the causal interface ------------------------------------------------------------------------------------------------

    def noise(self, key: Key, num: int, context: Batch | None = None) -> Noise:
        """Standard normal draws: [num, 1] a factor and the spare entries [num, k]."""
        del context
        keys = jax.random.split(key, len(self.factors) + 1)
        noise = {name: jax.random.normal(own, (num, 1)) for name, own in zip(self.factors, keys[:-1], strict=True)}
        return {**noise, self.config.image: jax.random.normal(keys[-1], (num, self.config.spare))}

    def latents(self, params: Params, noise: Noise, do: Intervention | Acts | None = None) -> dict[str, Float[Array, "b k"]]:
        """The factors on unit scale under `do`, [b, 1] each."""
        z, _ = self._factors(params, noise, do)
        return {name: z[:, i : i + 1] for i, name in enumerate(self.factors)}

    def predict(
        self, params: Params, noise: Noise, context: Batch | None = None, do: Intervention | Acts | None = None
    ) -> dict[str, Array]:
        """Factors [b] in physical units and the image [b, h, w, c] in [0, 1] that the noise gives under `do`, eq. (1)."""
        del context
        z, values = self._factors(params, noise, do)
        x = self._draw(params, jnp.concatenate([z, noise[self.config.image]], -1))
        return {**values, self.config.image: x.reshape(x.shape[0], *self.shape)}

    def abduct(self, params: Params, key: Key, batch: Batch) -> Noise:
        """The noise behind the mean of eq. (2): not exact, as far as G(E(x)) is not x."""
        del key
        mean, _ = self._encode(params, jnp.asarray(batch[self.config.image], jnp.float32))
        w = mean[:, : len(self.factors), None]
        located = jnp.stack([self._location(params)(i, w) for i in range(len(self.factors))], 1)
        e = self.scm.standardise(w - located, self._scale(params))
        return {**{name: e[:, i] for i, name in enumerate(self.factors)}, self.config.image: mean[:, len(self.factors) :]}

    def descendants(self, noise: Noise, do: Intervention | Acts | None) -> dict[str, Array]:
        """bool [b] an entry: what the intervention may move. The picture depends on every factor."""
        return moved(self.graph, acts_on(self, do, noise[self.config.image].shape[0]))

    def conditionals(self, params: Params, batch: Batch, query: Any = None) -> dict[str, base.Prediction]:
        """A factor's mean and scale [b] on unit scale given its parents' labels, and the picture [b, h, w, c] of the labels, r = 0."""
        del query
        unit = jnp.stack([s.forward(jnp.asarray(batch[name])) for name, s in zip(self.factors, self.scm.scalings, strict=True)], 1)
        location, scale, out = self._location(params), self._scale(params), {}
        for i, name in enumerate(self.factors):
            spread = jnp.ones((unit.shape[0],)) * (1.0 if self.scm.marginals[i] is not None else scale[i, 0])
            out[name] = base.Prediction(moments=(location(i, unit[:, :, None])[:, 0], spread))
        x = self._draw(params, jnp.pad(unit, ((0, 0), (0, self.config.spare))))
        return {**out, self.config.image: base.Prediction(moments=(x.reshape(x.shape[0], *self.shape), None))}
