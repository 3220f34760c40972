"""The laws of design.md about what a model says of causes, over every config in tiny mode, by the interface that all families share.

Law 1: what `conditionals` says of an entry does not change with what is hidden from it. Law 2: prefill and advance give what `conditionals`
gives. Law 3: a null intervention gives the evidence back. Law 4: an intervention moves nothing but what `descendants` names, and its target
takes its value. Law 5: abducted noise has the shapes of noise. Pictures, which come back to a bound alone, are held to theirs in
tests/test_laws.py and tests/models. `make test-slow` runs every config, `make test` one a family and those that changed.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from configs_at_hand import CONFIGS, tiny, worked

import causal_gen as cg
from causal_gen.models.causal_transformer import CausalTransformer
from causal_gen.scm.counterfactual import abduct, predict
from causal_gen.structure.visibility import fields_for

FAMILIES = sorted({path.split("/")[1] for path in CONFIGS})
KEY, NUM = jax.random.key(0), 4
every_config = pytest.mark.parametrize("path", [path for family in FAMILIES for path in worked(family)])


@functools.cache
def given(path: str) -> tuple[Any, Any, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A model, parameters off their start (or fitted, where they are), test rows, and what of these is context."""
    model, data = tiny(path).model, tiny(path).data
    if getattr(getattr(model, "sampling", None), "greedy", False):  # it could not have drawn most evidence, and says so
        model = dataclasses.replace(model, sampling=dataclasses.replace(model.sampling, top_k=None))
    rows = data.gather("test", np.arange(NUM))
    params = jax.jit(model.init)(KEY)
    if hasattr(model, "fit"):
        params = model.fit(params, data.gather("train", np.arange(data.size("train"))))
    else:
        leaves, tree = jax.tree.flatten(params)
        keys = jax.random.split(jax.random.key(1), len(leaves))
        moved = [leaf + 0.02 * jax.random.normal(key, leaf.shape, leaf.dtype) for leaf, key in zip(leaves, keys, strict=True)]
        params = jax.tree.unflatten(tree, moved)
    return model, params, rows, {name: rows[name] for name in model.context if name in rows}


def is_picture(entry: Any) -> bool:
    return np.ndim(entry) > 2


def moved_by_one(model: Any, name: str, values: np.ndarray) -> np.ndarray:
    """Other values of a node, as likely to be seen: those of the next row, or the next token."""
    if np.issubdtype(values.dtype, np.integer):
        span = getattr(model, "spans", None) or {}
        size = span[name].vocabulary if name in span else int(values.max()) + 1
        return (values + 1) % max(size, 2)
    return np.roll(values, 1, 0)


# -- 1: no leak --------------------------------------------------------------------------------------------------------------


@every_config
def test_conditionals_do_not_see_what_is_hidden(path):
    """Of a sequence: slots that attention, layer by layer, cannot reach. Of a graph: an entry itself, and all but its ancestors."""
    model, params, rows, _ = given(path)
    ask = jax.jit(lambda batch: {name: (one.logits, one.moments) for name, one in model.conditionals(params, batch).items()})
    before = ask(rows)
    sequences = getattr(model, "spans", None)
    if sequences:
        (name,) = sequences
        for place in (0, sequences[name].length // 2, sequences[name].length - 1):
            changed = np.array(rows[name])
            changed[:, place] = moved_by_one(model, name, rows[name])[:, place]
            after = ask({**rows, name: changed})
            same = np.asarray(before[name][0] == after[name][0]).all(-1)
            hidden = ~reaches(model, rows, place)
            if "template" in model.context and "loss_mask" in rows:  # what is given is hidden from nobody
                hidden &= (rows["loss_mask"][:, place] > 0)[:, None]
            assert same[hidden].all(), f"{name}[{place}] is seen where it is hidden"
        return
    for name in model.actable:
        if name not in rows:
            continue
        after = ask({**rows, name: moved_by_one(model, name, rows[name])})
        for other in before:
            if other == name or name not in model.graph.ancestors(other):
                chex.assert_trees_all_equal(before[other], after[other])


def reaches(model: Any, rows: dict[str, np.ndarray], place: int) -> np.ndarray:
    """Which slots [b, t] may tell of the token at `place`, as far as the declared visibility says."""
    (name,) = model.spans
    num, t = rows[name].shape[0], model.spans[name].length
    if type(model) is not CausalTransformer or model.config.prefixes or model.transformer.gates:
        return seen_by_order(model, rows, place)
    fields, _ = fields_for(t, t, **{field: jnp.asarray(rows[field][:, :t]) for field in model.fields if field in rows})
    found = np.broadcast_to(np.eye(t, dtype=bool), (num, t, t))
    for layer in range(model.transformer.layers):
        weights = np.asarray(model.visibility.weight(fields, fields, layer)) > 0
        while weights.ndim > 3:  # heads
            weights = weights.any(1)
        found = np.einsum("bqk,bkj->bqj", np.broadcast_to(weights, (num, t, t)), found) | found
    return found[:, :, place + 1] if place + 1 < t else np.zeros((num, t), bool)  # slot i holds token i - 1


def seen_by_order(model: Any, rows: dict[str, np.ndarray], place: int) -> np.ndarray:
    """By the intervention that `descendants` answers for: what it cannot move cannot have heard of the token."""
    (name,) = model.spans
    noise = model.noise(KEY, NUM, {key: rows[key] for key in model.context if key in rows})
    moved = np.array(model.descendants(noise, cg.do(**{name: {place: 0}}))[name])
    moved[:, place] = False  # a token does not see itself
    return moved


# -- 2: parallel = incremental -------------------------------------------------------------------------------------------------


@every_config
def test_tokens_one_by_one_are_told_what_the_whole_text_is_told(path):
    model, params, rows, context = given(path)
    if type(model) is not CausalTransformer or model.config.cache.slots or model.config.stride > 1 or model.config.latents:
        pytest.skip("no cache that keeps every token; what it keeps is checked in tests/systems")
    tokens, context = rows[model.config.tokens], {name: jnp.asarray(value) for name, value in context.items()}
    whole = jax.jit(lambda batch: model.conditionals(params, batch)[model.config.tokens].logits)(rows)
    logits, cache = jax.jit(lambda tokens: model.prefill(params, tokens, context))(tokens[:, :2])
    told, step = [logits], jax.jit(lambda cache, token: model.advance(params, cache, token))
    for place in range(2, tokens.shape[1] - 1):
        logits, cache = step(cache, tokens[:, place : place + 1])
        told.append(logits)
    found, want = jnp.concatenate(told, 1), whole
    if model.config.cache.kind == "reread":  # inside of what sees ahead a text so far is another text: none of it is scored
        scored = rows.get("loss_mask", np.ones(tokens.shape))[..., None] > 0
        found, want = jnp.where(scored, found, 0.0), jnp.where(scored, want, 0.0)
    last = model.config.prefixes or tokens.shape[1]  # a model that reads a prefix for each token is told of so many
    np.testing.assert_allclose(found[:, -last:], want[:, -last:], atol=1e-5 * max(1.0, float(jnp.abs(whole).max())))


# -- 3 to 5: the same noise, with an intervention and without -------------------------------------------------------------------


@every_config
def test_a_null_intervention_gives_the_evidence_back(path):
    """Tokens exactly, numbers to 1e-4 of their size; and its noise has the shapes of noise (law 5)."""
    model, params, rows, context = given(path)
    if model.abduct is None:
        pytest.skip("it has no noise")
    found = abduct(model, params, KEY, rows)
    chex.assert_trees_all_equal_shapes_and_dtypes(model.noise(KEY, NUM, context), found)
    back = predict(model, params, found, context)
    for name in model.needs:
        if is_picture(rows[name]):
            assert np.isfinite(np.asarray(back[name])).all()
        elif np.issubdtype(rows[name].dtype, np.integer):
            np.testing.assert_array_equal(back[name], rows[name])
        else:
            np.testing.assert_allclose(back[name], rows[name], atol=1e-4 * max(1.0, float(np.abs(rows[name]).max())))


@every_config
def test_an_intervention_moves_what_it_says_and_nothing_else(path):
    model, params, _, context = given(path)
    if not model.actable:
        pytest.skip("nothing in it can be set")
    noise = model.noise(KEY, NUM, context)
    natural = {name: np.asarray(value) for name, value in predict(model, params, noise, context).items()}
    sequences = getattr(model, "spans", None) or {}
    for name in model.actable[:3]:
        value = moved_by_one(model, name, natural[name])
        place = sequences[name].length // 2 if name in sequences else None
        act = cg.do(**{name: value if place is None else {place: value[:, place]}})
        changed, moved = predict(model, params, noise, context, act), model.descendants(noise, act)
        took = np.asarray(changed[name]) if place is None else np.asarray(changed[name])[:, place]
        np.testing.assert_allclose(took, value if place is None else value[:, place], rtol=1e-4, atol=1e-3)
        for entry, before in natural.items():
            after, may = np.asarray(changed[entry]), np.asarray(moved[entry])
            may = np.broadcast_to(may.reshape(may.shape + (1,) * (after.ndim - may.ndim)), after.shape)
            np.testing.assert_array_equal(after[~may], before[~may], err_msg=f"do({name}) moved {entry}")
