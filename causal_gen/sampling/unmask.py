"""The unmasking loop: from a function that predicts all masked places to a text, a few places a call, in one compiled program.

    predict(tokens [b, t], share [b]) -> logits [b, t, v]      `tokens` hold `mask` where nothing is known, `share` of the row    (1)
    drawn = argmax(warp(logits) + g),  g Gumbel noise [b, t, v], one a place and token                                          (2)
    score, count = policy(logits, state, k);  the `count` open places of highest score take what was drawn, k = 0, 1, ..        (3)

A text is a deterministic function of its noise {"tokens": g, "order": [b, t]}, so it can be abducted: `replay` runs (3) with the tokens
given, notes the step `when` each place was filled, and draws g from its posterior under the law of that step (sampling/gumbel.py). Handed
back, `when` holds the order still, so that the factual text returns exactly and a change moves only what was filled later. The order's
noise is drawn from its prior, not from its posterior: the two agree where all orders give the text the same probability.

`template` says what is known: a token, or BLANK; what is known is seen from the first step on and never moves (infilling). The number of
steps is an argument, not a shape: another budget is no other program. Places emptied again (remask) are drawn with new noise, made from
the bits of the first. Letters: b batch, t position, v vocabulary, k step.

With a window of w, (1) is asked of the text up to the first mask, w masks, and ends in the place of later masks (`windowed`).

Source: (3) is the loop of MaskGIT, Chang et al. 2022; the window: Samuel, BERTs are generative in-context learners, NeurIPS 2024, sec. 3;
noise, replay and their counterfactuals are this project's own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.sampling import gumbel, policies
from causal_gen.sampling.truncation import warp
from causal_gen.sampling.unmask_config import UnmaskConfig
from causal_gen.types import Array, Bool, Float, Int, Key, UserError

Predict: TypeAlias = Callable[[Array, Array], Array]  # eq. (1)
BLANK = -1  # in a template: a place to fill
GIVEN = -1  # in `when`: known from the start, or to be decided by the policy


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Unmasked:
    """`tokens` i32 [b, t]; `when` i32 [b, t], the step in which each was filled (GIVEN: known before); `log_prob` [b] of what was drawn,
    given the order, under the warped laws (NaN where places were emptied again); `calls`, how often the network was asked."""

    tokens: Any
    when: Any
    log_prob: Any
    calls: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Carry:
    step: Any
    tokens: Any
    when: Any
    log_prob: Any  # [b, t], of the token drawn there
    visits: Any  # [b, t], how often a place was emptied again
    laws: Any  # [b, t, v] of the steps in which places were filled; None where nobody asks


def noise(key: Key, num: int, length: int, vocabulary: int) -> dict[str, Array]:
    """A draw of all noise of `num` texts: standard Gumbel, eqs. (2, 3)."""
    keys = jax.random.split(key)
    return {"tokens": gumbel.prior(keys[0], (num, length, vocabulary)), "order": gumbel.prior(keys[1], (num, length))}


def unmask(
    predict: Predict,
    noise: Mapping[str, Array],
    config: UnmaskConfig,
    *,
    mask: int,
    template: Int[Array, "b t"] | None = None,
    steps: int | Array | None = None,
    when: Int[Array, "b t"] | None = None,
    force: tuple[Array, Array] | None = None,
    alpha: policies.Alpha = policies.linear,
) -> Unmasked:
    """The text that `noise` gives; jit it whole. `steps` (default: the config's) may be traced: 1 at least, and no more than places.
    A row with fewer places to fill than that takes a step for each.

    Rows of `when` that name a step follow it instead of the policy. `force`, (where bool [b, t], tokens [b, t]), sets tokens at their own
    time: what was filled before does not know of them, as an intervention wants it.
    """
    template = jnp.full(noise["order"].shape, BLANK, jnp.int32) if template is None else template
    forced, values = force or (jnp.zeros(template.shape, bool), jnp.zeros(template.shape, jnp.int32))
    found = _loop(predict, noise, config, mask, template, steps, when, (forced, values), alpha, False)
    drawn = (template == BLANK) & ~forced
    log_prob = jnp.where(drawn, found.log_prob, 0).sum(-1)
    return Unmasked(found.tokens, found.when, jnp.where(config.remask > 0, jnp.nan, log_prob), found.step)


def replay(
    predict: Predict,
    key: Key,
    tokens: Int[Array, "b t"],
    config: UnmaskConfig,
    vocabulary: int,
    *,
    mask: int,
    template: Int[Array, "b t"] | None = None,
    alpha: policies.Alpha = policies.linear,
) -> dict[str, Array]:
    """Noise that gives `tokens`: {"tokens", "order", "when"}; NaN where they could not have been drawn (`ar.check_noise`).

    Raises `UserError` for a sampler that empties places again: what stood there in between is not in the evidence.
    """
    if config.remask:
        raise UserError(f"evidence: sampling.remask={config.remask} writes places more than once, which a text does not tell; set it to 0")
    num, length = tokens.shape
    prior = noise(key, num, length, vocabulary)
    template = jnp.full(tokens.shape, BLANK, jnp.int32) if template is None else template
    everywhere = jnp.ones(tokens.shape, bool)
    found = _loop(predict, prior, config, mask, template, None, None, (everywhere, tokens), alpha, True)
    drawn = gumbel.posterior(jax.random.fold_in(key, 1), found.laws, tokens)
    given = (template != BLANK)[..., None]  # known places tell nothing about their noise
    return {"tokens": jnp.where(given, prior["tokens"], drawn), "order": prior["order"], "when": found.when}


def _loop(
    predict: Predict, noise: Mapping[str, Array], config: UnmaskConfig, mask: int, template: Array, steps: Any, when: Any,
    force: tuple[Array, Array], alpha: policies.Alpha, laws: bool,
) -> _Carry:  # fmt: skip
    """Eq. (3) until nothing is open or the budget is spent."""
    (num, length), policy = template.shape, policies.policy_of(config, alpha)
    blocks, free = config.blocks(length), template == BLANK
    block = (jnp.arange(length) // (config.block or length))[None]
    budget = jnp.broadcast_to(jnp.asarray(config.budget(length) if steps is None else steps, jnp.int32), (num,))
    if blocks == 1 and config.counts in ("even", "cosine", "ascending"):
        budget = jnp.minimum(budget, jnp.maximum(free.sum(-1), 1))  # a row's own, so that it does not depend on the others
    planned = jnp.full(template.shape, GIVEN, jnp.int32) if when is None else when
    decided = (planned >= 0).any(-1, keepdims=True)

    def body(carry: _Carry) -> _Carry:
        now, start, stop = _block_of(carry.step, budget, blocks)
        open_ = carry.tokens == mask
        share = 1 - alpha(1 - carry.step / budget) if config.counts == "ancestral" else open_.mean(-1)
        seen = windowed(carry.tokens, mask, config.window, config.end or 0) if config.window else carry.tokens
        logits = predict(seen, jnp.broadcast_to(share, (num,)).astype(jnp.float32))
        warped = warp(logits.reshape(num * length, -1).astype(jnp.float32), config).reshape(logits.shape)
        g = _fresh(noise["tokens"], carry.visits) if config.remask else noise["tokens"]
        drawn = jnp.where(force[0], force[1], gumbel.draw(warped, g))
        places = free & (block == now[:, None])
        here = open_ & places
        state = policies.State(carry.tokens, here, drawn, noise["order"], places.sum(-1), stop - start)
        score, count = policy(logits, state, carry.step - start)
        filled = jnp.where(decided, open_ & (planned <= carry.step), policies.chosen(score, here, count))
        told = jnp.take_along_axis(warped, drawn[..., None], -1)[..., 0] - jax.nn.logsumexp(warped, -1)
        after = _Carry(
            carry.step + 1,
            jnp.where(filled, drawn, carry.tokens),
            jnp.where(filled, carry.step, carry.when),
            jnp.where(filled, told, carry.log_prob),
            carry.visits,
            jnp.where(filled[..., None], warped, carry.laws) if laws else None,
        )
        return _emptied(after, config.remask, places, mask, stop) if config.remask else after

    held = jnp.where(free, mask, template).astype(jnp.int32)
    zeros = jnp.zeros(template.shape)
    kept = jnp.zeros(noise["tokens"].shape) if laws else None
    first = _Carry(jnp.int32(0), held, jnp.full(template.shape, GIVEN, jnp.int32), zeros, zeros.astype(jnp.int32), kept)
    return jax.lax.while_loop(lambda carry: (carry.step < budget.max()) & (carry.tokens == mask).any(), body, first)


def windowed(tokens: Int[Array, "b t"], mask: int, window: int, end: int) -> Int[Array, "b t"]:
    """`tokens` of which every mask that is `window` places or more behind the first one is `end`."""
    open_ = tokens == mask
    first = jnp.argmax(open_, -1)[:, None]
    return jnp.where(open_ & (jnp.arange(tokens.shape[1])[None] >= first + window), end, tokens)


def _block_of(step: Array, budget: Int[Array, "b"], blocks: int) -> tuple[Array, Array, Array]:
    """The block that a step fills in each row, its first step, and the one after its last; beyond the budget the last block."""
    now = jnp.minimum(step * blocks // budget, blocks - 1)
    return now, -(-now * budget // blocks), -(-(now + 1) * budget // blocks)


def _emptied(carry: _Carry, share: float, places: Bool[Array, "b t"], mask: int, stop: Array) -> _Carry:
    """The least certain of the block's filled places are open again, unless the step was its last."""
    filled = places & (carry.tokens != mask)
    count = jnp.floor(share * filled.sum(-1)).astype(jnp.int32)
    again = policies.chosen(-carry.log_prob, filled, jnp.where(carry.step >= stop, 0, count))
    when, visits = jnp.where(again, GIVEN, carry.when), carry.visits + again
    return dataclasses.replace(carry, tokens=jnp.where(again, mask, carry.tokens), when=when, visits=visits)


def _fresh(g: Float[Array, "b t v"], visits: Int[Array, "b t"]) -> Float[Array, "b t v"]:
    """The noise itself at the first visit of a place, and at later ones what a generator makes of its bits."""
    bits = jax.lax.bitcast_convert_type(g, jnp.uint32).sum(-1, dtype=jnp.uint32)

    def one(bits: Array, visit: Array) -> Array:
        return gumbel.prior(jax.random.fold_in(jax.random.key(bits), visit), g.shape[-1:])

    return jnp.where((visits > 0)[..., None], jax.vmap(jax.vmap(one))(bits, visits), g)


# -- the border --------------------------------------------------------------------------------------------------------------


def check_template(template: Any, length: int, vocabulary: int) -> None:
    """Raises `UserError` for a template [b, t] of another length, without a blank, or with a token out of range. Call it outside of jit."""
    template = np.asarray(template)
    if template.ndim != 2 or template.shape[1] != length:
        raise UserError(f"template: expected rows of {length} places, got shape {template.shape}; give a token or a blank for each")
    full = np.flatnonzero(~(template == BLANK).any(1))
    if len(full):
        raise UserError(f"template: row {full[0]} has no blank, so that nothing is left to fill; blank a place at least")
    wrong = np.argwhere((template != BLANK) & ((template < 0) | (template >= vocabulary)))
    if len(wrong):
        row, place = wrong[0]
        raise UserError(f"template: token {template[row, place]} at place {place} of row {row} is out of range 0..{vocabulary - 1}")
