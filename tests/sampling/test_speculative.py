"""Speculation draws from the target's law, whatever the draft, the tree and the number of candidates."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from causal_gen.nn import acceptance
from causal_gen.sampling.ar import Stop, generate
from causal_gen.sampling.speculative import Tree, speculate
from causal_gen.sampling.truncation import DecodingConfig
from causal_gen.structure.masks import tree_fields
from causal_gen.types import ConfigError
from tests.sampling.tables import engine, law_of_texts, table

VOCABULARY, STEPS, PROMPT = 3, 4, (1, 2)
TARGET = table(jax.random.key(0), VOCABULARY)
NEAR = TARGET + 0.7 * table(jax.random.key(1), VOCABULARY)
FAR = table(jax.random.key(2), VOCABULARY)


@functools.partial(jax.jit, static_argnums=(0, 3, 4, 5))
def run(num, draft, key, tree, config, steps=STEPS):
    prompt = jnp.broadcast_to(jnp.array([PROMPT]), (num, len(PROMPT)))
    slots = len(PROMPT) + steps + 2 * sum(tree.sizes)
    return speculate(engine(TARGET, slots), engine(draft, slots), key, prompt, config, steps=steps, tree=tree)


def chi_square(tokens, law) -> float:
    texts, counts = np.unique(np.asarray(tokens), axis=0, return_counts=True)
    found = {tuple(int(t) for t in text): count for text, count in zip(texts, counts, strict=True)}
    assert set(found) <= {text for text, p in law.items() if p > 0}
    expected = np.array(list(law.values())) * len(tokens)
    observed = np.array([found.get(text, 0) for text in law])
    rare = expected < 5
    pooled = [np.append(x[~rare], x[rare].sum()) for x in (observed, expected)]
    pooled = [x[pooled[1] > 0] for x in pooled]
    return float(stats.chisquare(pooled[0], pooled[1] * pooled[0].sum() / pooled[1].sum()).pvalue)


@pytest.mark.parametrize("tree", [Tree((1,)), Tree((3,)), Tree((2, 2, 1)), Tree((2, 2, 1), 0.3)], ids=str)
@pytest.mark.parametrize("draft", ["near", "far"])
def test_texts_have_the_law_of_the_target(tree, draft):
    out = run(4_000, {"near": NEAR, "far": FAR}[draft], jax.random.key(3), tree, DecodingConfig())
    assert chi_square(out.tokens, law_of_texts(TARGET, PROMPT, STEPS)) > 1e-3


def test_the_test_sees_a_wrong_law():
    """The draft's own texts are not the target's: the control of the test above."""
    prompt = jnp.broadcast_to(jnp.array([PROMPT]), (4_000, 2))
    near = engine(NEAR, 8)
    out = jax.jit(lambda key: generate(near.prefill, near.advance, key, prompt, DecodingConfig(), steps=STEPS))(jax.random.key(3))
    assert chi_square(out.tokens, law_of_texts(TARGET, PROMPT, STEPS)) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("tree", [Tree((1, 1, 1)), Tree((3, 2)), Tree((2, 2, 1)), Tree((2, 2, 1), 0.3)], ids=str)
def test_a_hundred_thousand_texts_over_five_seeds(tree):
    law = law_of_texts(TARGET, PROMPT, STEPS)
    draws = (run(100_000, NEAR, jax.random.key(100 + seed), tree, DecodingConfig()) for seed in range(5))
    found = [chi_square(out.tokens, law) for out in draws]
    print(f"{tree}: p = {np.round(found, 3).tolist()}")
    assert min(found) > 0.01, found


def test_truncated_laws_are_kept_too():
    out = run(4_000, NEAR, jax.random.key(4), Tree((2, 2)), DecodingConfig(temperature=0.8, top_k=2))
    warped = TARGET / 0.8
    kept = warped >= jnp.sort(warped, -1)[..., 1:2]
    assert chi_square(out.tokens, law_of_texts(jnp.where(kept, warped, -jnp.inf), PROMPT, STEPS)) > 1e-3


def test_greedy_speculation_is_greedy_decoding_and_a_perfect_draft_is_always_accepted():
    config, steps, tree = DecodingConfig(top_k=1), 12, Tree((1, 1))
    target, prompt = engine(TARGET, 40), jnp.array([PROMPT])
    want = jax.jit(lambda: generate(target.prefill, target.advance, jax.random.key(0), prompt, config, steps=steps))()
    for draft in (TARGET, FAR):
        out = run(1, draft, jax.random.key(5), tree, config, steps)
        np.testing.assert_array_equal(out.tokens, want.tokens)
    perfect = run(50, TARGET, jax.random.key(6), tree, DecodingConfig(), steps)
    np.testing.assert_array_equal(perfect.drawn, perfect.rounds * (tree.depth + 1))


def test_more_candidates_are_accepted_more_often():
    rates = []
    for branch in (1, 2, 3):
        out = run(5_000, FAR, jax.random.key(7), Tree((branch,)), DecodingConfig())
        rates.append(float(out.drawn.sum() / out.rounds.sum()))
    assert 1 < rates[0] < rates[1] < rates[2] == 2.0, rates  # all three tokens as candidates: one of them is always right


def test_a_tree_is_cut_where_the_draft_is_not_sure():
    """Fewer levels a call; nothing is cut at 0, all but the first level at 1."""
    found = {least: run(2_000, NEAR, jax.random.key(9), Tree((2, 2, 2), least), DecodingConfig(), 12) for least in (0.0, 0.4, 1.0)}
    levels = [float(out.levels.sum() / out.rounds.sum()) for out in found.values()]
    assert levels[0] == 3 > levels[1] > levels[2] == 1
    accepted = [float((out.drawn - out.rounds).sum() / out.levels.sum()) for out in found.values()]
    assert accepted[0] < accepted[1] < accepted[2]


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def judged(num, draft, key, tree, steps, head):
    prompt = jnp.broadcast_to(jnp.array([PROMPT]), (num, len(PROMPT)))
    slots = len(PROMPT) + steps + 2 * sum(tree.sizes)
    guess = dataclasses.replace(engine(draft, slots), trust=functools.partial(acceptance.log_chance, head))
    return speculate(engine(TARGET, slots), guess, key, prompt, DecodingConfig(), steps=steps, tree=tree)


def learned_head(target, draft, steps=600):
    """A head trained on every context of two tables."""
    params = acceptance.init(jax.random.key(0), 16)
    optimiser = optax.adam(1e-2)

    def step(carry, _):
        params, state = carry
        gradient = jax.grad(lambda p: acceptance.loss(p, target, draft).mean())(params)
        changes, state = optimiser.update(gradient, state)
        return (optax.apply_updates(params, changes), state), None

    return jax.jit(lambda p: jax.lax.scan(step, (p, optimiser.init(p)), None, length=steps)[0][0])(params)


def test_the_learned_chance_is_that_of_being_accepted_and_leaves_the_law_alone():
    """Where each context can be told by the draft's own law, as here, a is alpha; a head that knows cuts less that would have been kept."""
    target, draft = TARGET.reshape(-1, VOCABULARY), NEAR.reshape(-1, VOCABULARY)
    head = learned_head(TARGET, NEAR)
    alpha = np.minimum(jax.nn.softmax(target), jax.nn.softmax(draft)).sum(-1)
    np.testing.assert_allclose(np.exp(acceptance.log_chance(head, draft)), alpha, atol=0.1)
    assert all((np.asarray(g) == 0).all() for g in jax.grad(lambda p: acceptance.loss(head, *p).sum())((target, draft)))
    law = law_of_texts(TARGET, PROMPT, STEPS)
    found = judged(20_000, NEAR, jax.random.key(7), Tree((2, 2, 1), 0.5), STEPS, head)
    assert chi_square(found.tokens, law) > 0.01
    assert 1 < float(found.levels.sum() / found.rounds.sum()) < 3


def test_a_text_ends_where_it_stops_and_is_padded():
    prompt = jnp.broadcast_to(jnp.array([PROMPT]), (200, 2))
    both = engine(TARGET, 40), engine(NEAR, 40)
    stop = Stop(end=(0,), pad=2)
    draw = jax.jit(lambda key: speculate(*both, key, prompt, DecodingConfig(), steps=10, tree=Tree((2, 2)), stop=stop))
    out = draw(jax.random.key(8))
    for text, length in zip(np.asarray(out.tokens), np.asarray(out.length), strict=True):
        ends = np.flatnonzero(text[:length] == 0)
        assert (len(ends) == 0 and length == 10) or list(ends) == [length - 1]
        assert (text[length:] == 2).all()


def test_a_tree_numbers_its_nodes_level_by_level():
    tree = Tree((2, 3))
    assert tree.sizes == (1, 2, 6)
    np.testing.assert_array_equal(tree.parents, [-1, 0, 0, 1, 1, 1, 2, 2, 2])
    fields = tree.fields()
    np.testing.assert_array_equal(fields["depth"], [0, 1, 1, 2, 2, 2, 2, 2, 2])
    np.testing.assert_array_equal(fields["enter"], tree_fields([-1, 0, 0, 1, 1, 1, 2, 2, 2])["enter"])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Tree(()),
        lambda: Tree((2, 0)),
        lambda: Tree((2,), 1.5),
        lambda: run(1, NEAR, jax.random.key(0), Tree((1,)), DecodingConfig(repetition=2.0)),
    ],
)
def test_mistakes_are_named_in_one_line(make):
    with pytest.raises(ConfigError) as error:
        make()
    assert "\n" not in str(error.value) and str(error.value).startswith("speculation:")
