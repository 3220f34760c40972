"""A target and a draft as one model: what the target is, found in fewer calls of it.

    params = {"target", "draft", "decision"?};  loss = loss_target + loss_draft + loss_decision, players that share no parameter  (1)
    predict(noise) = the target's predict(noise), its tokens checked a tree at a time (sampling/speculative.py, eq. 5)    (2)

Graph, likelihood, conditionals and abduction are the target's: the draft is an instrument of (2) and tells nothing about the text, so
that a draft of any quality gives the same answers, sooner or later. Sampling without given noise is `speculate` of models/decoding.py.
Source: Leviathan et al. 2023; Lu et al. 2024 (improved MCSD). Letters: b batch, t position.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax

from causal_gen.models import base
from causal_gen.models.causal_transformer import CausalTransformer
from causal_gen.models.speculative_pair_config import SpeculativePairConfig
from causal_gen.nn import acceptance
from causal_gen.sampling import speculative
from causal_gen.sampling.truncation import DecodingConfig
from causal_gen.scm.intervention import Acts, Intervention, Span, canonical
from causal_gen.structure.graph import Dag
from causal_gen.types import Array, Batch, Float, Key, Noise, Params


@dataclasses.dataclass(frozen=True)
class SpeculativePair:
    """The model of eqs. (1, 2); see `models/base.py` for the interface that all families share."""

    config: SpeculativePairConfig
    target: CausalTransformer
    draft: CausalTransformer

    likelihood: Literal["exact"] = dataclasses.field(default="exact", init=False)
    batch_coupled: bool = dataclasses.field(default=False, init=False)
    optional: tuple[str, ...] = dataclasses.field(default=(), init=False)
    context: tuple[str, ...] = dataclasses.field(default=(), init=False)

    @property
    def graph(self) -> Dag:
        """The target's: one array-valued node."""
        return self.target.graph

    @property
    def actable(self) -> tuple[str, ...]:
        """Interventions name the tokens, by position."""
        return self.target.actable

    @property
    def needs(self) -> tuple[str, ...]:
        """Abduction reads the tokens."""
        return self.target.needs

    @property
    def spans(self) -> dict[str, Span]:
        """The node is a sequence."""
        return self.target.spans

    @property
    def sampling(self) -> DecodingConfig:
        """How tokens are drawn."""
        return self.target.sampling

    @functools.cached_property
    def tree(self) -> speculative.Tree:
        """Candidates of one round."""
        return speculative.Tree(self.config.branches, self.config.least)

    def init(self, key: Key) -> Params:
        """Fresh parameters of both."""
        keys = jax.random.split(key)
        params = {"target": self.target.init(keys[0]), "draft": self.draft.init(keys[1])}
        if self.config.decision:
            params["decision"] = acceptance.init(jax.random.fold_in(key, 2), self.config.decision)
        return params

    def loss(self, params: Params, key: Key, batch: Batch, *, step: Array, train: bool) -> tuple[Float[Array, "b"], base.Aux]:
        """Eq. (1); the draft's terms are reported as "draft_nll" and so on, the head's as "decision"; `heldout` losses are sums too."""
        total, own = self.target.loss(params["target"], key, batch, step=step, train=train)
        other, told = self.draft.loss(params["draft"], key, batch, step=step, train=train)
        terms = {**own.terms, **{f"draft_{name}": term for name, term in told.terms.items()}}
        if not self.config.decision:
            return total + other, base.Aux(terms)
        # the forward passes of both losses once more; compiled together they are one
        logits = [
            side.conditionals(params[name], batch)[side.config.tokens].logits
            for name, side in (("target", self.target), ("draft", self.draft))
        ]
        terms["decision"] = acceptance.loss(params["decision"], *logits).mean(-1)
        return total + other + terms["decision"], base.Aux(terms)

    def update_state(self, params: Params, stats: Any) -> Any:
        """There is no state."""
        return base.no_state(params, stats)

    def groups(self) -> dict[str, base.Group]:
        """A player each."""
        return {f"^{name}/": base.Group() for name in ("target", "draft", *(["decision"] if self.config.decision else []))}

    def conditionals(self, params: Params, batch: Batch, query: Any = None) -> dict[str, base.Prediction]:
        """The target's."""
        return self.target.conditionals(params["target"], batch, query)

    def log_prob(self, params: Params, key: Key, batch: Batch, query: Any = None) -> Float[Array, "b"]:
        """The target's."""
        return self.target.log_prob(params["target"], key, batch, query)

    def noise(self, key: Key, num: int, context: Batch | None = None) -> Noise:
        """Standard Gumbel draws."""
        return self.target.noise(key, num, context)

    def speak(self, params: Params, noise: Noise, do: Intervention | Acts | None = None) -> speculative.Speculation:
        """Eq. (2), and in how many calls of the target."""
        name = self.target.config.tokens
        given = noise[name]
        num, t, _ = given.shape
        act = canonical(do, self.actable, num, self.spans)[name]
        slots = t + sum(self.tree.sizes)
        target, draft = self.target.engine(params["target"], slots=slots), self.draft.engine(params["draft"], slots=slots)
        if "decision" in params:
            draft = dataclasses.replace(draft, trust=functools.partial(acceptance.log_chance, params["decision"]))
        return speculative.replay(target, draft, given, act.mask, act.args[0], self.sampling, self.tree)

    def predict(
        self, params: Params, noise: Noise, context: Batch | None = None, do: Intervention | Acts | None = None
    ) -> dict[str, Array]:
        """The tokens that the noise gives under `do`."""
        del context
        return {self.target.config.tokens: self.speak(params, noise, do).tokens}

    def abduct(self, params: Params, key: Key, batch: Batch) -> Noise:
        """The target's posterior of the noise."""
        return self.target.abduct(params["target"], key, batch)

    @property
    def descendants(self) -> Callable[..., dict[str, Array]]:
        """What an intervention may move: its positions and all that come later."""
        return self.target.descendants

    @property
    def check_evidence(self) -> Callable[[Batch], None]:
        """As the target does."""
        return self.target.check_evidence

    @property
    def check_noise(self) -> Callable[[Batch, Noise], None]:
        """As the target does."""
        return self.target.check_noise
