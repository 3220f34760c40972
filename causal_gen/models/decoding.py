"""Decoding from a sequence model as users call it: checked, given a cache of the right size, compiled once a shape.

    draws = generate(model, params, key, prompt, steps=200, sampling=DecodingConfig(temperature=0.8))
    beams = search(model, params, prompt, beams=4, steps=20)
    names = one_shot(model, params, prompt, ways=8, steps=3)
    text  = speculate(target, params, draft, draft_params, key, prompt, steps=200, tree=Tree((2, 2, 1)))

`sampling` is the model's own where it is not given. The loops are those of sampling/: ar.py, beam.py, parallel.py,
speculative.py. Letters: b batch, p prompt.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp

from causal_gen.models.causal_transformer import CausalTransformer
from causal_gen.nn import acceptance
from causal_gen.sampling import ar, beam, parallel, speculative
from causal_gen.sampling import cache as caches
from causal_gen.sampling.truncation import Constraint, DecodingConfig
from causal_gen.types import Batch, Key, Params, UserError


def generate(
    model: CausalTransformer,
    params: Params,
    key: Key,
    prompt: Any,
    *,
    steps: int,
    sampling: DecodingConfig | None = None,
    context: Batch | None = None,
    stop: ar.Stop | None = None,
    constraint: Constraint | None = None,
) -> ar.Draws:
    """`steps` tokens after `prompt` [b, p], p >= 0. Raises `UserError` for a prompt that does not fit, a constraint that forbids all."""
    _check(model, prompt, steps)
    how = sampling or model.sampling
    return ar.check_draws(_generate(model, how, steps, stop or ar.Stop(), constraint, params, key, jnp.asarray(prompt, jnp.int32), context))


def search(
    model: CausalTransformer,
    params: Params,
    prompt: Any,
    *,
    beams: int,
    steps: int,
    end: int | None = None,
    length_penalty: float = 0.0,
    context: Batch | None = None,
    constraint: Constraint | None = None,
) -> beam.Beams:
    """The best continuations that `beams` beams find, best first."""
    _check(model, prompt, steps)
    return _search(model, beams, steps, end, length_penalty, constraint, params, jnp.asarray(prompt, jnp.int32), context)


def one_shot(
    model: CausalTransformer, params: Params, prompt: Any, *, ways: int, steps: int, context: Batch | None = None
) -> parallel.Branches:
    """The greedy continuations, `steps` tokens long, of the `ways` likeliest first tokens, each as if there were no other."""
    _check(model, prompt, 1 + ways * (steps - 1))
    return _one_shot(model, ways, steps, params, jnp.asarray(prompt, jnp.int32), context)


def speculate(
    target: CausalTransformer,
    params: Params,
    draft: CausalTransformer,
    draft_params: Params,
    key: Key,
    prompt: Any,
    *,
    steps: int,
    tree: speculative.Tree,
    sampling: DecodingConfig | None = None,
    stop: ar.Stop | None = None,
    decision: Params | None = None,
) -> speculative.Speculation:
    """What `generate` draws from the target, in fewer calls of it; `decision` are parameters of nn/acceptance.py, which then says how deep
    a tree is drawn, in the place of the draft's probabilities.

    Raises `UserError` for models that do not share tokens."""
    if target.vocabulary != draft.vocabulary:
        raise UserError(f"speculation: the target has {target.vocabulary} tokens, the draft {draft.vocabulary}; give them one tokenizer")
    given = [name for model in (target, draft) for name in model.context if name not in model.optional]
    if given:
        raise UserError(f"speculation: {given[0]!r} conditions the text, which only generate supports; use that")
    for model in (target, draft):
        _check(model, prompt, steps + sum(tree.sizes))
    how = sampling or target.sampling
    prompt = jnp.asarray(prompt, jnp.int32)
    return _speculate(target, draft, how, steps, tree, stop or ar.Stop(), params, draft_params, decision, key, prompt)


def _check(model: CausalTransformer, prompt: Any, steps: int) -> None:
    bounded = model.config.cache.kind in ("append", "reread") and model.config.cache.slots
    places = model.transformer.length if model.transformer.position == "learned" else None
    rooms = [room - steps for room in (model.config.cache.slots if bounded else None, places) if room]
    ar.check_prompt(prompt, model.vocabulary, max(0, min(rooms)) if rooms else prompt.shape[1])


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _generate(model: Any, how: Any, steps: int, stop: Any, constraint: Any, params: Any, key: Any, prompt: Any, context: Any) -> ar.Draws:
    given, last = prompt.shape[1], prompt.shape[1] + steps
    rooms = caches.rooms(given, last)
    engine = model.engine(params, context, rooms[0], how.omega)
    if engine.widen is None:
        rooms, engine = (last,), model.engine(params, context, last, how.omega)
    stages = [(room - given, functools.partial(engine.widen, slots=wider)) for room, wider in itertools.pairwise(rooms)]
    return ar.generate(engine.prefill, engine.advance, key, prompt, how, steps=steps, stop=stop, constraint=constraint, stages=stages)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4, 5))
def _search(
    model: Any, beams: int, steps: int, end: Any, length_penalty: float, constraint: Any, params: Any, prompt: Any, context: Any
) -> beam.Beams:
    engine = model.engine(params, context, prompt.shape[1] + steps)
    how = {"beams": beams, "steps": steps, "end": end, "length_penalty": length_penalty, "constraint": constraint}
    return beam.beam(engine.prefill, engine.advance, model.fork, prompt, **how)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _one_shot(model: Any, ways: int, steps: int, params: Any, prompt: Any, context: Any) -> parallel.Branches:
    engine = model.engine(params, context, prompt.shape[1] + 1 + ways * (steps - 1))
    return parallel.one_shot(engine.prefill, engine.advance, prompt, ways=ways, steps=steps)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4, 5))
def _speculate(
    target: Any,
    draft: Any,
    how: Any,
    steps: int,
    tree: Any,
    stop: Any,
    params: Any,
    draft_params: Any,
    decision: Any,
    key: Any,
    prompt: Any,
) -> speculative.Speculation:
    slots = prompt.shape[1] + steps + sum(tree.sizes)
    guess = draft.engine(draft_params, slots=slots)
    if decision is not None:
        guess = dataclasses.replace(guess, trust=functools.partial(acceptance.log_chance, decision))
    return speculative.speculate(target.engine(params, slots=slots), guess, key, prompt, how, steps=steps, tree=tree, stop=stop)
