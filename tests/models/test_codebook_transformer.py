"""Codebook transformers: what a code is told from, likelihoods against draws, spans, and interventions in the order of slots."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.data.codec import CodecConfig
from causal_gen.models.codebook_transformer_config import CodebookTransformerConfig
from causal_gen.models.objectives import Query
from causal_gen.nn.transformer_config import TransformerConfig
from causal_gen.sampling.truncation import DecodingConfig
from causal_gen.scm import counterfactual as asking
from causal_gen.scm.intervention import do
from causal_gen.types import ConfigError, UserError

STEPS, BOOKS, V = 5, 3, 3
T = STEPS * BOOKS
KEY = jax.random.key(0)
STACK = TransformerConfig(width=8, layers=2, heads=2, backend="dense")
PLAIN = DecodingConfig()


def model(steps: int = STEPS, books: int = BOOKS, values: int = V, sampling: DecodingConfig = PLAIN, **fields) -> Any:
    config = CodebookTransformerConfig(codebooks=books, transformer=STACK, **{"shortest": 1, "longest": 2, **fields})
    entries = CodecConfig(steps=steps, codebooks=books, values=values).entries
    return config.make(entries, {}, sampling, "params=float32,compute=float32,output=float32", "none")


@functools.partial(jax.jit, static_argnums=0)
def perturbed(of) -> dict:
    leaves, tree = jax.tree.flatten(of.init(KEY))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return jax.tree.unflatten(tree, [leaf + 0.3 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)])


TOKENS = jax.random.randint(jax.random.key(9), (4, T), 0, V)


@functools.partial(jax.jit, static_argnums=0)
def logits(of, params, tokens, mask=None):
    return of.conditionals(params, {"tokens": tokens}, Query(mask=mask))["tokens"].logits


@functools.cache
def read_by(of, span: tuple[int, int] = (STEPS, STEPS)) -> np.ndarray:
    """Whether changing code j changes the law of code i, bool [i, j]."""
    params = perturbed(of)
    mask = jnp.broadcast_to((jnp.arange(T) // BOOKS >= span[0]) & (jnp.arange(T) // BOOKS < span[1]), (T, T))
    base = TOKENS[:1].repeat(T, 0)
    changed = base.at[jnp.arange(T), jnp.arange(T)].set((base[0] + 1) % V)
    return np.asarray(jnp.abs(logits(of, params, changed, mask) - logits(of, params, base, mask)).max(-1) > 0).T


@pytest.mark.parametrize("offsets", [(), (0, 0, 0), (0, 1, 1), (2, 1, 0)])
def test_a_code_is_told_from_the_codes_of_earlier_slots_and_from_no_others(offsets):
    """Under the delay 0, 1, 2 these are of its step those of lower codebooks; without a delay none of its step."""
    late = np.array(offsets or (0, 1, 2))
    slot = (np.arange(STEPS)[:, None] + late[None]).reshape(-1)
    np.testing.assert_array_equal(read_by(model(offsets=offsets)), slot[None] < slot[:, None])


@pytest.mark.parametrize("right", [True, False])
def test_a_span_is_told_from_both_sides_or_from_the_left_alone(right):
    of, step = model(right=right), np.arange(T) // BOOKS
    seen, inside = read_by(of, (2, 4)), (step >= 2) & (step < 4)
    assert seen[inside][:, step < 2].all() and (seen[inside][:, step >= 4] == right).all()
    assert not seen[~inside][:, inside].any()


def test_the_probabilities_of_all_streams_sum_to_one_and_so_do_those_of_a_span():
    of: Any = model(2, 2, 3)
    params = perturbed(of)
    streams = jnp.asarray(list(itertools.product(range(3), repeat=4)), jnp.int32)
    ask = jax.jit(lambda tokens, mask: of.log_prob(params, KEY, {"tokens": tokens}, Query(mask=mask)))
    whole = jax.jit(lambda tokens: of.log_prob(params, KEY, {"tokens": tokens}))(streams)
    assert np.exp(whole).sum() == pytest.approx(1, abs=1e-4)
    for first in (True, False):
        mask = jnp.broadcast_to(jnp.array([first, first, not first, not first]), streams.shape)
        spans = np.exp(ask(streams, mask)).reshape(9, 9)
        np.testing.assert_allclose(spans.sum(0 if first else 1), 1, atol=1e-4)


def test_draws_have_the_law_of_the_likelihood_with_and_without_a_template():
    of: Any = model(2, 2, 2)
    params = perturbed(of)
    streams = jnp.asarray(list(itertools.product(range(2), repeat=4)), jnp.int32)
    number = 2 ** np.arange(3, -1, -1)
    found = np.asarray(asking.sample(of, params, KEY, 8_000)["tokens"]) @ number
    law = np.exp(of.log_prob(params, KEY, {"tokens": streams}))
    assert 0.5 * np.abs(np.bincount(found, minlength=16) / 8_000 - law).sum() < 0.03
    template = jnp.broadcast_to(jnp.array([[-1, -1, 1, 0]]), (8_000, 4))
    tokens = np.asarray(asking.sample(of, params, KEY, 8_000, {"template": template})["tokens"])
    np.testing.assert_array_equal(tokens[:, 2:], [[1, 0]] * 8_000)
    fits = (streams[:, 2] == 1) & (streams[:, 3] == 0)
    given = np.exp(of.log_prob(params, KEY, {"tokens": streams}, Query(mask=jnp.broadcast_to(template[:1] == -1, streams.shape)))) * fits
    assert 0.5 * np.abs(np.bincount(tokens @ number, minlength=16) / 8_000 - given).sum() < 0.03


@pytest.mark.parametrize("filled", [False, True])
def test_noise_gives_the_stream_back_and_an_intervention_moves_only_later_slots(filled):
    of = model(sampling=DecodingConfig(temperature=0.8))
    params, batch = perturbed(of), {"tokens": TOKENS}
    if filled:
        batch["template"] = TOKENS.at[:, 2 * BOOKS : 4 * BOOKS].set(-1)
    context = {name: batch[name] for name in batch if name == "template"}
    noise = asking.abduct(of, params, KEY, batch)
    np.testing.assert_array_equal(asking.predict(of, params, noise, context)["tokens"], TOKENS)
    place = 2 * BOOKS + 1
    act = do(tokens={place: (np.asarray(TOKENS[:, place]) + 1) % V})
    answer = np.asarray(asking.predict(of, params, noise, context, act)["tokens"])
    reached = np.asarray(of.descendants(noise, act)["tokens"])
    np.testing.assert_array_equal(answer[:, place], (TOKENS[:, place] + 1) % V)
    assert (answer == np.asarray(TOKENS))[~reached].all() and (answer != np.asarray(TOKENS)).sum() > len(TOKENS)
    assert jax.tree.structure(noise) == jax.tree.structure(of.noise(KEY, 4, context))


def test_the_loss_counts_what_the_model_may_see():
    """Spans in every row: with the right side all codes count, without it those of the span and of its left; by weights of codebooks."""
    of, left = model(plain=0.0, longest=1), model(plain=0.0, longest=1, right=False)
    params = perturbed(of)
    step = jax.jit(lambda of, key: of.loss(params, key, {"tokens": TOKENS[:1]}, step=jnp.int32(0), train=True), static_argnums=0)
    for seed in range(3):
        key = jax.random.key(seed)
        spans = [
            np.asarray(of.log_prob(params, KEY, {"tokens": TOKENS[:1]}, Query(mask=jnp.arange(T)[None] // BOOKS == at)))[0]
            for at in range(STEPS)
        ]
        loss, aux = step(of, key)
        at = int(np.argmin(np.abs(-np.array(spans) / BOOKS - float(aux.terms["span"][0]))))
        assert float(aux.terms["span"][0]) == pytest.approx(-spans[at] / BOOKS, abs=1e-4)
        assert float(loss[0]) == pytest.approx(float(aux.terms["nll"][0]), abs=1e-6)
        mask = jnp.arange(T)[None] // BOOKS == at
        terms = -np.asarray(jax.nn.log_softmax(logits(left, params, TOKENS[:1], mask)))[0, np.arange(T), np.asarray(TOKENS[0])]
        assert float(step(left, key)[0][0]) == pytest.approx(terms[: (at + 1) * BOOKS].mean(), abs=1e-4)
    weighted = dataclasses.replace(of, config=dataclasses.replace(of.config, codebook_weights=(1.0, 0.0, 0.0), plain=1.0))
    terms = -np.asarray(jax.nn.log_softmax(logits(of, params, TOKENS[:1])))[0, np.arange(T), np.asarray(TOKENS[0])]
    assert float(step(weighted, KEY)[0][0]) == pytest.approx(terms[::BOOKS].mean(), abs=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: model(offsets=(0, 1)), "offsets: 2 for 3 codebooks"),
        (lambda: model(codebook_weights=(0.0, 0.0, 0.0)), "codebook_weights: they sum to zero"),
        (lambda: model(right=False, spans=2), "right=false with 2 spans"),
        (lambda: model(longest=6), "1 spans of up to 6 in 5 steps; lower longest or spans"),
        (lambda: model(shortest=3), "shortest=3 is above longest=2"),
        (lambda: model(sampling=DecodingConfig(repetition=1.5)), "omega and repetition are about texts"),
        (
            lambda: dataclasses.replace(model().config, codebooks=4).make(CodecConfig(codebooks=3, steps=5).entries, {}, PLAIN, "f32", ""),
            "no whole steps",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_template_that_blanks_parts_of_a_step_is_refused():
    of = model()
    good = np.asarray(TOKENS).copy()
    good[:, BOOKS : 3 * BOOKS] = -1
    of.check_evidence({"tokens": TOKENS, "template": good})
    parts, two = good.copy(), good.copy()
    parts[1, BOOKS] = 0
    two[2, 4 * BOOKS :] = -1
    for wrong, row in ((parts, 1), (two, 2)):
        with pytest.raises(UserError, match=f"template: row {row} blanks parts of a step, or more than 1 runs"):
            of.check_evidence({"template": wrong})
