"""Structural causal model whose mechanisms are one transformer: variables are tokens, the graph is the attention's visibility.

    value token of j     v_j = name_j + u_j value_j          u_j on unit scale; a row of a table where j is discrete            (1)
    question token of i  q_i = name_i + question             carries no value                                            (2)
    a value sees itself and its parents' values; a question itself and the values of its variable's parents              (3)
    p(x_i | ancestors of i) = N(mean_i, scale_i) or softmax(logits_i), linear in what the decoder makes of q_i            (4)
    log p(x) = sum_i log p(x_i | .),   x_i = mean_i + scale_i e_i  or  argmax(logits_i + Gumbel noise)                    (5)

By (3) a single layer sees parents alone; with several layers a parent's token has seen its own parents, so that the answer about i depends
on ancestors, which given the parents should tell nothing more, and on nothing else, i itself included: the product (5) is a density
over the graph's order, and noise is abducted exactly. Only variables that have children get a value token: nobody sees the others.
Source: Liu et al. 2024 (DAG-aware transformer), whose tokens hold values alone and whose outputs are treatment and outcome.
Letters: b batch, m value tokens, n nodes, t = m + n tokens, d width, v values of a discrete variable.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.losses import categorical, gaussian
from causal_gen.models import base
from causal_gen.models.variable_transformer_config import VariableTransformerConfig
from causal_gen.nn.precision import Policy
from causal_gen.nn.transformer import Decoder
from causal_gen.nn.transformer_config import TransformerConfig
from causal_gen.sampling import gumbel
from causal_gen.scm.intervention import Acts, Edge, Intervention, acts_on, moved, read_by
from causal_gen.scm.marginal import Scaling
from causal_gen.structure import masks
from causal_gen.structure.graph import Dag
from causal_gen.structure.visibility import Fields, Visibility
from causal_gen.types import Array, Batch, Bool, Float, Key, Noise, Params

LEAST = 1e-3  # of a scale, on unit scale


@dataclasses.dataclass(frozen=True)
class VariableTransformer:
    """The model of eqs. (1-5); see `models/base.py` for the interface that all families share.

    Noise is {name: standard normal [b], or standard Gumbel [b, v]}. `values` says how many values each node takes (None: a real number),
    `scalings` how a real one is brought to unit scale.
    """

    config: VariableTransformerConfig
    transformer: TransformerConfig
    graph: Dag
    values: tuple[int | None, ...]
    scalings: tuple[Scaling | None, ...]
    policy: Policy = Policy()

    context: tuple[str, ...] = dataclasses.field(default=(), init=False)
    likelihood: Literal["exact"] = dataclasses.field(default="exact", init=False)
    batch_coupled: bool = dataclasses.field(default=False, init=False)

    @property
    def actable(self) -> tuple[str, ...]:
        """Every variable."""
        return self.graph.nodes

    @property
    def edges(self) -> tuple[Edge, ...]:
        """Every edge: a child's question is asked with what the child reads of its parent, and so are the tokens that it attends to."""
        return self.graph.edges

    @property
    def needs(self) -> tuple[str, ...]:
        """Every variable: a value that is missing would have to be integrated out."""
        return self.graph.nodes

    @functools.cached_property
    def parents(self) -> tuple[str, ...]:
        """Variables that have children, in node order: those with a value token."""
        return tuple(name for name in self.graph.nodes if self.graph.children(name))

    @functools.cached_property
    def visibility(self) -> Visibility:
        """Eq. (3). Values are "valid" keys, questions are not."""
        values = masks.dag(self.graph) & masks.valid() & (masks.same("valid") | ~masks.same("node"))
        return values | masks.same("index")

    @functools.cached_property
    def fields(self) -> Fields:
        """Of all tokens: values, then questions."""
        m, n = len(self.parents), len(self.graph.nodes)
        node = np.array([*(self.graph.index(name) for name in self.parents), *range(n)], np.int32)
        return {"index": np.arange(m + n, dtype=np.int32), "node": node, "valid": np.repeat(np.array([1, 0], np.int32), [m, n])}

    @functools.cached_property
    def _decoder(self) -> Decoder:
        return Decoder(self.transformer, self.visibility, dtype=self.policy.compute_dtype)

    # ---- networks ------------------------------------------------------------------------------------------------------------

    def init(self, key: Key) -> Params:
        """Fresh parameters: names and values as large as one another, answers that do not yet depend on anything."""
        keys = jax.random.split(key, 4)
        d, n = self.transformer.width, len(self.graph.nodes)
        rows = {name: self.values[self.graph.index(name)] or 1 for name in self.parents}
        sizes = {name: self.values[i] or 2 for i, name in enumerate(self.graph.nodes)}

        def draw(key: Key, *shape: int) -> Array:
            return d**-0.5 * jax.random.normal(key, shape)

        return {
            "names": draw(keys[0], n, d),
            "question": draw(keys[1], d),
            "values": {name: draw(jax.random.fold_in(keys[2], i), count, d) for i, (name, count) in enumerate(rows.items())},
            "decoder": self._decoder.init(keys[3], jnp.zeros((1, len(self.fields["node"]), d)), self.fields)["params"],
            "answers": {name: {"kernel": jnp.zeros((d, size)), "bias": jnp.zeros((size,))} for name, size in sizes.items()},
        }

    def _embed(self, params: Params, batch: Batch) -> Float[Array, "b t d"]:
        """Eqs. (1, 2)."""
        names, tokens = params["names"], []
        for name in self.parents:
            i, table = self.graph.index(name), params["values"][name]
            scaling, value = self.scalings[i], jnp.asarray(batch[name])
            told = table[value.astype(jnp.int32)] if scaling is None else scaling.forward(value)[:, None] * table
            tokens.append(names[i][None] + told)
        b = jnp.shape(batch[self.graph.nodes[0]])[0]
        questions = jnp.broadcast_to((names + params["question"][None])[None], (b, *names.shape))
        return jnp.concatenate([jnp.stack(tokens, 1), questions], 1) if tokens else questions

    def _answers(self, params: Params, batch: Batch) -> dict[str, Any]:
        """Eq. (4): (mean, scale) on unit scale, each [b], or logits [b, v]."""
        h: Any = self._decoder.apply({"params": params["decoder"]}, self._embed(params, batch), self.fields)[0]
        h, found = h[:, len(self.parents) :].astype(jnp.float32), {}
        for i, name in enumerate(self.graph.nodes):
            answer = params["answers"][name]
            told = h[:, i] @ answer["kernel"] + answer["bias"][None]
            # softplus(raw + .5413) is 1 at raw = 0
            found[name] = told if self.values[i] else (told[:, 0], LEAST + jax.nn.softplus(told[:, 1] + 0.5413))
        return found

    def _losses(self, params: Params, batch: Batch) -> dict[str, Float[Array, "b"]]:
        """-log p(x_i | .) of every node in nats, a real one's on unit scale."""
        losses, answers = {}, self._answers(params, batch)
        for name, scaling in zip(self.graph.nodes, self.scalings, strict=True):
            if scaling is None:
                losses[name] = categorical.nll(answers[name], jnp.asarray(batch[name]).astype(jnp.int32))
            else:
                mean, scale = answers[name]
                losses[name] = gaussian.nll(scaling.forward(jnp.asarray(batch[name])), mean, 2 * jnp.log(scale))
        return losses

    # ---- training ------------------------------------------------------------------------------------------------------------

    def loss(self, params: Params, key: Key, batch: Batch, *, step: Any, train: bool) -> tuple[Float[Array, "b"], base.Aux]:
        """-log p(x) on unit scale; the term "nll" is the same."""
        del key, step, train
        total = sum(self._losses(params, batch).values(), jnp.zeros(()))
        return total, base.Aux({"nll": total})

    def update_state(self, params: Params, stats: Any) -> Any:
        """There is no state."""
        return base.no_state(params, stats)

    def groups(self) -> dict[str, base.Group]:
        """Trained as a whole."""
        return base.one_group()

    def log_prob(self, params: Params, key: Key, batch: Batch, query: Any = None) -> Float[Array, "b"]:
        """Eq. (5) in nats, a density in the variables' own units."""
        del key, query
        units = sum(float(np.log(scaling.std)) for scaling in self.scalings if scaling is not None)
        return -sum(self._losses(params, batch).values(), jnp.zeros(())) - units

    def conditionals(self, params: Params, batch: Batch, query: Any = None) -> dict[str, base.Prediction]:
        """Eq. (4) in the variables' own units: moments (mean [b], scale [b]), or logits [b, v]. A node's own entry is not looked at."""
        del query
        found, answers = {}, self._answers(params, batch)
        for name, scaling in zip(self.graph.nodes, self.scalings, strict=True):
            if scaling is None:
                found[name] = base.Prediction(logits=answers[name])
            else:
                mean, scale = answers[name]
                found[name] = base.Prediction(moments=(scaling.inverse(mean), scale * scaling.std))
        return found

    # ---- the causal interface ------------------------------------------------------------------------------------------------

    def noise(self, key: Key, num: int, context: Batch | None = None) -> Noise:
        """Standard normal and standard Gumbel draws."""
        del context
        keys = jax.random.split(key, len(self.graph.nodes))
        return {
            name: jax.random.normal(own, (num,)) if values is None else gumbel.prior(own, (num, values))
            for name, values, own in zip(self.graph.nodes, self.values, keys, strict=True)
        }

    def predict(
        self, params: Params, noise: Noise, context: Batch | None = None, do: Intervention | Acts | None = None
    ) -> dict[str, Float[Array, "b"] | Any]:
        """The variables that the noise gives under `do`, eq. (5), in the graph's order."""
        del context
        num = noise[self.graph.nodes[0]].shape[0]
        acts = acts_on(self, do, num)
        found: dict[str, Any] = {
            name: jnp.zeros((num,), jnp.float32 if values is None else jnp.int32)
            for name, values in zip(self.graph.nodes, self.values, strict=True)
        }
        for name in self.graph.order:  # what is not yet known is not yet seen
            told = self.conditionals(params, read_by(name, found, acts))[name]
            natural = gumbel.draw(told.logits, noise[name]) if told.moments is None else told.moments[0] + told.moments[1] * noise[name]
            found[name] = acts[name].apply(natural).astype(found[name].dtype)
        return found

    def abduct(self, params: Params, key: Key, batch: Batch) -> Noise:
        """Eq. (5) solved for the noise; for a discrete variable a draw of the noise's posterior."""
        found, keys = {}, jax.random.split(key, len(self.graph.nodes))
        for (name, told), own in zip(self.conditionals(params, batch).items(), keys, strict=True):
            if told.moments is None:
                found[name] = gumbel.posterior(own, told.logits, jnp.asarray(batch[name]).astype(jnp.int32))
            else:
                found[name] = (jnp.asarray(batch[name]) - told.moments[0]) / told.moments[1]
        return found

    def descendants(self, noise: Noise, do: Intervention | Acts | None) -> dict[str, Bool[Array, "b"]]:
        """What an intervention may move: the nodes and children acted upon and their descendants."""
        return moved(self.graph, acts_on(self, do, noise[self.graph.nodes[0]].shape[0]))
