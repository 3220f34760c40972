"""A linear structural model of latents behind a linear or polynomial mixture of them, fitted from several contexts.

    x = m + a + G phi(z),   phi(z) = z and a = 0, or all monomials of z up to a degree                       (1)
    z = A_k z + c_k + s_k e,   e independent, of unit variance                    in context k                   (2)
    z = H (x - m),   on the span of x, which has as many dimensions as phi; linear in x, whatever the degree                (3)

G, A_k and s_k are those of scm/disentangle.py, where it is said what of them the contexts tell; m is the mean of context 0. Latents are
called z1, z2, .., in units of their standard deviation in context 0. Which of them causes which is found, not given: the graph of the model
says of every latent that it may cause every other, and an intervention moves what A says. Sources: Squires et al. 2023; Jin et al. 2025;
Ahuja et al. 2023. Letters: b batch, d latents, k contexts, p inputs, m monomials.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.models import base
from causal_gen.models.linear_latent_config import LinearLatentConfig
from causal_gen.scm import disentangle
from causal_gen.scm.intervention import Acts, Edge, Intervention, acts_on
from causal_gen.structure import polynomial
from causal_gen.structure.graph import Dag
from causal_gen.types import Array, Batch, Bool, DataError, Float, Key, Noise, Params

EDGE = 0.08  # effects smaller than this, in standard deviations of context 0, are none
MOVED = 0.1  # share of the next variance above which a latent was not constant
ROWS = 5_000  # of which a polynomial code is fitted to about so many


@dataclasses.dataclass(frozen=True)
class LinearLatent:
    """The model of eqs. (1-3); see `models/base.py` for the interface that all families share.

    Noise is {"z1": [b], ..}; params are {"mean" m [p], "intercept" a [p], "mixing" G [p, m], "unmixing" H [d, p], "weights" [k, d, d],
    "scales" [k, d], "offsets" [k, d], "place" [d], the order in which latents were found, "residue" [d]}.
    """

    config: LinearLatentConfig
    width: int
    num_contexts: int

    batch_coupled: bool = dataclasses.field(default=False, init=False)
    likelihood: None = dataclasses.field(default=None, init=False)
    log_prob: None = dataclasses.field(default=None, init=False)
    edges: tuple[Edge, ...] = dataclasses.field(default=(), init=False)

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """Those of the latents."""
        return tuple(f"z{i + 1}" for i in range(self.config.latents))

    @functools.cached_property
    def graph(self) -> Dag:
        """Latents that are roots as far as the config knows, and the mixture of all of them."""
        return Dag.from_edges(tuple((name, self.config.inputs) for name in self.names))

    @property
    def actable(self) -> tuple[str, ...]:
        """Every latent."""
        return self.names

    @property
    def needs(self) -> tuple[str, ...]:
        """The mixture."""
        return (self.config.inputs,)

    @property
    def context(self) -> tuple[str, ...]:
        """The number of the context, whose mechanisms are meant."""
        return (self.config.contexts,)

    def found_edges(self, params: Params) -> tuple[Edge, ...]:
        """(cause, effect) pairs of an effect above EDGE in context 0."""
        strong = np.argwhere(np.abs(np.asarray(params["weights"][0])) > EDGE)
        return tuple((self.names[cause], self.names[effect]) for effect, cause in strong)

    def init(self, key: Key) -> Params:
        """What there is before the fit: latents that are the first inputs, without effects."""
        del key
        d, k, p = self.config.latents, self.num_contexts, self.width
        monomials = len(polynomial.terms(d, self.config.degree))
        return {
            "mean": jnp.zeros(p), "intercept": jnp.zeros(p), "mixing": jnp.eye(p, monomials), "unmixing": jnp.eye(d, p),
            "weights": jnp.zeros((k, d, d)), "scales": jnp.ones((k, d)), "offsets": jnp.zeros((k, d)),
            "place": jnp.arange(d, dtype=jnp.float32), "residue": jnp.zeros(d),
        }  # fmt: skip

    def fit(self, params: Params, rows: Batch) -> Params:
        """Every parameter, from all training rows. Raises `DataError` where a context has too few of them, or x too few dimensions."""
        del params
        inputs = np.asarray(rows[self.config.inputs], np.float64)
        parts = [inputs[np.asarray(rows[self.config.contexts]) == k] for k in range(self.num_contexts)]
        for k, part in enumerate(parts):
            if len(part) <= self.width:
                raise DataError(f"{self.config.contexts}: context {k} has {len(part)} rows of {self.width} inputs; give more rows")
        means = np.stack([part.mean(0) for part in parts])
        covariances = np.stack([np.cov(part.T) for part in parts])
        code = self._span(inputs - means[0], covariances)
        found = self._told([(part - means[0]) @ code.T for part in parts], code @ covariances @ code.T)
        unmixing = found.unmixing @ code
        centres = (means - means[0]) @ unmixing.T
        fitted = {
            "mean": means[0], "unmixing": unmixing, "weights": found.weights,
            "scales": found.scales, "offsets": centres - np.einsum("kij,kj->ki", found.weights, centres),
            "place": np.argsort(found.order), "residue": found.residue[np.argsort(found.order)],
        }  # fmt: skip
        if self.config.degree == 1:
            mixture = {"intercept": np.zeros(self.width), "mixing": code.T @ np.linalg.inv(found.unmixing)}
        else:
            phi = np.stack(polynomial.monomials((inputs - means[0]) @ unmixing.T, self.config.degree), -1)
            solved = np.linalg.lstsq(np.pad(phi, ((0, 0), (1, 0)), constant_values=1.0), inputs - means[0], rcond=None)[0].T
            mixture = {"intercept": solved[:, 0], "mixing": solved[:, 1:]}
        return {name: jnp.asarray(value, jnp.float32) for name, value in {**fitted, **mixture}.items()}

    def _span(self, centred: np.ndarray, covariances: np.ndarray) -> np.ndarray:
        """A code [d, p] that is an affine image of the latents. Raises `DataError` where x has too few dimensions for it."""
        sizes, directions = np.linalg.eigh(covariances.mean(0))
        need = len(polynomial.terms(self.config.latents, self.config.degree))
        if sizes[-need] <= 1e-9 * sizes[-1]:
            rank = int((sizes > 1e-9 * sizes[-1]).sum())
            what = f"{need} latents" if self.config.degree == 1 else f"{need} monomials of the latents"
            raise DataError(f"{self.config.inputs}: it spans {rank} dimensions, fewer than the {what}; set model.latents")
        if self.config.degree == 1:
            return directions[:, -need:].T
        rows = centred[:: max(1, len(centred) // ROWS)]
        return disentangle.affine_code(rows - rows.mean(0), self.config.latents, self.config.degree)[0]

    def _told(self, parts: list[np.ndarray], covariances: np.ndarray) -> disentangle.Disentangled:
        if self.config.told_by == "constants":
            found = disentangle.from_constants(parts)
            worst = int(np.argmax(found.residue))
            if found.residue[worst] > MOVED:
                raise DataError(
                    f"{self.config.contexts}: nothing is constant in context {found.order[worst] + 1}, whose stillest latent has "
                    f'{found.residue[worst]:.2g} of the next one\'s variance; set model.told_by to "interventions" where these leave noise'
                )
            return found
        precisions = np.linalg.inv(covariances)
        if self.config.told_by == "nothing":
            return disentangle.from_nothing(precisions)
        if self.config.told_by == "interventions":
            return disentangle.from_interventions(precisions[0], precisions[1:], self.config.whiten)
        from sklearn.decomposition import FastICA
        from sklearn.exceptions import ConvergenceWarning

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # of sources that are normal; the residue shows what came of it
            rows = [FastICA(whiten="unit-variance", max_iter=500, random_state=0).fit(part).components_ for part in parts]
        return disentangle.from_domains(np.stack(rows), precisions, self.config.whiten)

    def groups(self) -> dict[str, base.Group]:
        """All of it is fitted and stays as it is."""
        return {".*": base.Group(frozen=True)}

    def update_state(self, params: Params, stats: Any) -> Any:
        """There is no state."""
        return base.no_state(params, stats)

    def loss(self, params: Params, key: Key, batch: Batch, *, step: Any, train: bool) -> tuple[Float[Array, "b"], base.Aux]:
        """-log of a normal density of the latents in their context, in nats; term "rest" is the mean square of what (1) leaves of x."""
        del key, step, train
        z, k = self._unmixed(params, batch), jnp.asarray(batch[self.config.contexts])
        e, scales = self._noise(params, z, k), params["scales"][k]
        nats = (0.5 * e**2 + jnp.log(scales) + 0.5 * np.log(2 * np.pi)).sum(-1)
        rest = ((jnp.asarray(batch[self.config.inputs]) - self._mixed(params, z)) ** 2).mean(-1)
        return nats, base.Aux({"rest": rest})

    # ---- the causal interface ------------------------------------------------------------------------------------------------

    def _unmixed(self, params: Params, batch: Batch) -> Float[Array, "b d"]:
        """Eq. (3)."""
        return (jnp.asarray(batch[self.config.inputs], jnp.float32) - params["mean"][None]) @ params["unmixing"].T

    def _mixed(self, params: Params, z: Float[Array, "b d"]) -> Float[Array, "b p"]:
        """Eq. (1)."""
        phi = jnp.stack(polynomial.monomials(z, self.config.degree), -1)
        return (params["mean"] + params["intercept"])[None] + phi @ params["mixing"].T

    def _noise(self, params: Params, z: Float[Array, "b d"], k: Array) -> Float[Array, "b d"]:
        """e of eq. (2)."""
        return (z - jnp.einsum("bij,bj->bi", params["weights"][k], z) - params["offsets"][k]) / params["scales"][k]

    def noise(self, key: Key, num: int, context: Batch | None = None) -> Noise:
        """Standard normal draws, a latent each."""
        del context
        keys = jax.random.split(key, len(self.names))
        return {name: jax.random.normal(own, (num,)) for name, own in zip(self.names, keys, strict=True)}

    def predict(
        self, params: Params, noise: Noise, context: Batch | None = None, do: Intervention | Acts | None = None
    ) -> dict[str, Float[Array, "b *p"]]:
        """Latents [b] and mixture [b, p] that the noise gives under `do`, by the mechanisms of the rows' contexts (without any: 0)."""
        e = jnp.stack([noise[name] for name in self.names], -1)
        k = jnp.zeros((len(e),), jnp.int32) if context is None else jnp.asarray(context[self.config.contexts])
        acts, z = acts_on(self, do, e.shape[0]), jnp.zeros_like(e)
        for _ in self.names:  # an effect is right a round after its causes; the longest chain has as many nodes as there are
            natural = jnp.einsum("bij,bj->bi", params["weights"][k], z) + params["offsets"][k] + params["scales"][k] * e
            z = jnp.stack([acts[name].apply(natural[:, i]) if name in acts else natural[:, i] for i, name in enumerate(self.names)], -1)
        return {**{name: z[:, i] for i, name in enumerate(self.names)}, self.config.inputs: self._mixed(params, z)}

    def abduct(self, params: Params, key: Key, batch: Batch) -> Noise:
        """The noise behind a mixture, exact as far as it lies where (1) can put it."""
        del key
        e = self._noise(params, self._unmixed(params, batch), jnp.asarray(batch[self.config.contexts]))
        return {name: e[:, i] for i, name in enumerate(self.names)}

    def descendants(self, noise: Noise, do: Intervention | Acts | None) -> dict[str, Bool[Array, "b"]]:
        """What an intervention may move: which latents cause which is not the graph's to say, so everything."""
        acts = acts_on(self, do, len(noise[self.names[0]]))
        any_of = jnp.stack([act.mask for act in acts.values()]).any(0)
        return {name: any_of for name in self.graph.nodes}

    def conditionals(self, params: Params, batch: Batch, query: Any = None) -> dict[str, base.Prediction]:
        """Of every latent given the others, of the mixture: moments (mean [b], scale [b]) by its mechanism; and the mixture of them."""
        del query
        z, k = self._unmixed(params, batch), jnp.asarray(batch[self.config.contexts])
        means, scales = z - self._noise(params, z, k) * params["scales"][k], params["scales"][k]
        found = {name: base.Prediction(moments=(means[:, i], scales[:, i])) for i, name in enumerate(self.names)}
        return {**found, self.config.inputs: base.Prediction(moments=(self._mixed(params, z), None))}
