"""Systems that decode: a speculative pair, a working that is cut short, a cache that learns what to keep. Laws, on the tiny modes."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.evaluate import extraction, termination
from causal_gen.models import decoding
from causal_gen.models.causal_transformer_config import CacheConfig
from causal_gen.models.retaining import FLOOR, future
from causal_gen.sampling import cache as caches
from causal_gen.sampling.truncation import DecodingConfig
from causal_gen.scm.counterfactual import abduct, predict
from causal_gen.scm.intervention import do
from causal_gen.types import ConfigError
from tests.test_systems import system

KEY = jax.random.key(3)
DENSE = {"model__transformer__backend": "dense"}  # compiles sooner
DENSE_PAIR = {f"model__{side}__transformer__backend": "dense" for side in ("target", "draft")}


# -- speculative pair ------------------------------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=0)
def speak(model: Any, params: Any, noise: Any) -> Any:
    return model.speak(params, noise)


@pytest.mark.parametrize("least", [0.0, 0.1])
def test_a_pair_writes_what_its_target_writes_in_fewer_calls(least):
    """Token for token, from the same noise; the draft is another network altogether."""
    experiment, params = system("speculative", model__least=least, **DENSE_PAIR)
    model = experiment.model
    noise = model.noise(KEY, 4)
    want = np.asarray(predict(model.target, params["target"], noise)["tokens"])
    found = speak(model, params, noise)
    np.testing.assert_array_equal(found.tokens, want)
    assert (np.asarray(found.rounds) < want.shape[1]).all()
    act = do(tokens={3: 65, 9: np.array([1, 2, 3, 4])})
    want = predict(model.target, params["target"], noise, do=act)["tokens"]
    np.testing.assert_array_equal(predict(model, params, noise, do=act)["tokens"], want)


def test_a_draft_that_is_the_target_is_always_right():
    experiment, params = system("speculative", **DENSE_PAIR)
    model = dataclasses.replace(experiment.model, draft=experiment.model.target)
    found = speak(model, {"target": params["target"], "draft": params["target"]}, model.noise(KEY, 4))
    np.testing.assert_array_equal(found.drawn, found.rounds * (model.tree.depth + 1))


def test_a_pairs_null_intervention_returns_the_text_and_only_what_follows_an_intervention_moves():
    experiment, params = system("speculative", **DENSE_PAIR)
    model = experiment.model
    batch = jax.tree.map(jnp.asarray, experiment.data.gather("test", np.arange(4)))
    noise = abduct(model, params, KEY, batch)
    np.testing.assert_array_equal(predict(model, params, noise)["tokens"], batch["tokens"])
    act = do(tokens={6: 1})
    moved = np.asarray(predict(model, params, noise, do=act)["tokens"]) != np.asarray(batch["tokens"])
    assert moved.any() and not moved[~np.asarray(model.descendants(noise, act)["tokens"])].any()


def test_target_and_draft_learn_as_if_they_were_alone():
    experiment, params = system("speculative", **DENSE_PAIR)
    model = experiment.model
    batch = jax.tree.map(jnp.asarray, experiment.data.gather("train", np.arange(4)))

    @functools.partial(jax.jit, static_argnums=0)
    def slope(model, params):
        return jax.grad(lambda p: model.loss(p, KEY, batch, step=jnp.int32(0), train=True)[0].sum())(params)

    both = slope(model, params)
    for name, side in (("target", model.target), ("draft", model.draft)):
        alone = slope(side, params[name])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), both[name], alone)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__branches": ()}, "has no candidates"),
        ({"sampling__repetition": 1.5}, "a node's law would hang on its path"),
        ({"model__draft__cache__kind": "ring", "model__draft__cache__slots": 4}, "draft: a tree of candidates is taken back"),
        ({"model__target__visibility": "causal() & same_document()"}, "reads 'document'"),
    ],
)
def test_pairs_that_cannot_speculate_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        system("speculative", **changes)


# -- ThinkLess -------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Adder:
    """Writes the working of its task without a mistake, and after the terminator the sum as far as it is written, in the format that it is
    told; left alone it takes the first."""

    task: Any
    vocabulary: int
    sampling: DecodingConfig = DecodingConfig()

    def next(self, text: jax.Array, count: jax.Array, digits: int, end: int) -> jax.Array:
        task, place = self.task, count - self.task.question
        terms = jnp.sum((text[:, : task.terms] >= digits), 1)
        last = text[jnp.arange(len(text)), jnp.maximum(count - 1, 0)]
        before = jnp.where(place == 0, digits, last) - digits
        term = text[:, jnp.minimum(place, task.terms - 1)] - digits
        sums = digits + (before + term) % task.base
        back = text[jnp.arange(len(text)), jnp.maximum(count - 2, 0)]
        working = jnp.where(place < terms, sums, jnp.where(place < terms + task.restated, last, end))
        first = digits + task.base  # the instruction for the first format
        told = (last >= first) & (last < first + task.formats) & (back == end)
        sum_ = text[jnp.arange(len(text)), jnp.maximum(count - 3, 0)]
        answer = jnp.where(last == first, sum_, sum_ + (last - first) * task.base + task.formats)
        return jnp.where(told, answer, jnp.where(last == end, first, working))


def test_the_curve_of_a_perfect_adder_is_known(monkeypatch):
    """All right at the whole working and as long as the sums are complete; cut tokens are those that were cut."""
    experiment, _ = system("thinkless", data__terms=4, data__restated=4, data__test_size=64)
    source, task = experiment.data, experiment.data.config
    model = Adder(task, task.tokens)

    def generate(model, params, key, prompt, *, steps, sampling, constraint):
        text = jnp.pad(jnp.asarray(prompt), ((0, 0), (0, steps)))
        state = constraint.start(len(prompt))
        for count in range(prompt.shape[1], prompt.shape[1] + steps):
            wanted = jax.nn.one_hot(model.next(text, jnp.int32(count), 3, task.closing[0]), task.tokens)
            token = jnp.argmax(jnp.where(constraint.allowed(state), wanted, -1), -1)
            state, text = constraint.follow(state, token), text.at[:, count].set(token)
        return type("Draws", (), {"tokens": text[:, prompt.shape[1] :]})

    monkeypatch.setattr(decoding, "generate", generate)
    monkeypatch.setattr(Adder, "engine", None, raising=False)
    found = termination.measure(model, None, KEY, source, np.arange(64), 64)
    rows = source.gather("test", np.arange(64))["tokens"]
    needed = (rows[:, : task.terms] >= 3).sum(1) + task.restated
    for share, point in found["curve"].items():
        kept = np.floor(float(share) * needed + 1e-6)
        assert point["cut"] == pytest.approx(1 - kept.sum() / needed.sum())
        if (kept >= needed - task.restated).all():
            assert point["accuracy"] == 1
    assert found["curve"]["0"]["accuracy"] < 0.5 and found["spared"] > 0.2
    assert found["formatted"] == {"instructed": 1.0, "alone": 0.0}  # it was asked for the last format


# -- SIFT ------------------------------------------------------------------------------------------------------------------------


def test_lists_are_scored_as_they_are_told(monkeypatch):
    """Under the constraint even an untrained network is read; who knows the answers is right, who forgets an end tells nothing."""
    experiment, params = system("sift")
    model, source, rows = experiment.model, experiment.data, np.arange(16)
    found = extraction.measure(model, params, KEY, source, rows, 8)
    assert found["constrained"]["parsed"] == 1 and found["constrained"]["f1"] < 1
    answers = source.gather("test", rows)["tokens"][:, -source.config.answer :]
    drawn = type("Draws", (), {"tokens": answers})
    monkeypatch.setattr(decoding, "generate", lambda *_, **__: drawn)
    assert extraction.measure(model, params, KEY, source, rows, 16)["free"] == {"f1": 1.0, "parsed": 1.0}
    drawn.tokens = np.where(rows[:, None] < 8, answers, 2)
    half = extraction.measure(model, params, KEY, source, rows, 16)["free"]
    true, told = (sum((part != 1).sum() // 2 for part in answers[:end]) for end in (16, 8))
    assert half == {"f1": 2 * told / (true + told), "parsed": 0.5}


# -- Locret ----------------------------------------------------------------------------------------------------------------------


def keeping(model: Any, **cache: Any) -> Any:
    return dataclasses.replace(model, config=dataclasses.replace(model.config, cache=CacheConfig("evict", **cache)))


@functools.partial(jax.jit, static_argnums=0)
def walk(model: Any, params: Any, tokens: jax.Array) -> Any:
    """Logits of every token, and after every step what the cache holds and the scores of its slots."""

    def one(cache, token):
        out, cache = model.advance(params, cache, token[:, None])
        held = cache.held
        return cache, (out[:, 0], caches.holds(held, tokens.shape[1]), held.fields["score"], jnp.where(held.valid, held.stamp, -1))

    slots = jnp.pad(tokens, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
    _, (out, held, score, stamp) = jax.lax.scan(one, model.empty(params, len(tokens), tokens.shape[1]), slots.T)
    return jnp.swapaxes(out, 0, 1), held, score, stamp


@pytest.mark.parametrize("score", ["attention", "learned"])
def test_a_budget_of_the_whole_text_is_no_budget_and_a_smaller_one_is_never_exceeded(score):
    experiment, params = system("locret", **DENSE)
    batch = jax.tree.map(jnp.asarray, experiment.data.gather("test", np.arange(2)))
    length = experiment.model.length
    want = jax.jit(lambda p: experiment.model.conditionals(p, batch)["tokens"].logits)(params)
    out, *_ = walk(keeping(experiment.model, slots=length, score=score), params, batch["tokens"])
    np.testing.assert_allclose(out, want, atol=1e-5)
    out, held, *_ = walk(keeping(experiment.model, slots=5, score=score, recent=2), params, batch["tokens"])
    count = np.asarray(held).sum(-1)
    np.testing.assert_array_equal(count, np.broadcast_to(np.minimum(np.arange(1, length + 1), 5)[:, None], count.shape))
    assert np.abs(np.asarray(out) - want).max() > 1e-3


def test_the_token_of_lowest_learned_score_goes_unless_it_is_among_the_last():
    experiment, params = system("locret", **DENSE)
    tokens = experiment.data.gather("test", np.arange(2))["tokens"]
    _, held, score, stamp = map(np.asarray, walk(keeping(experiment.model, slots=5, score="learned", recent=2), params, tokens))
    told = np.zeros(tokens.shape)
    for i in range(tokens.shape[1]):
        now = stamp[i] == i  # the newest token tells its score, which is its own for ever
        told[:, i] = score[i][now]
        if i >= 5:
            for row in range(len(tokens)):
                before = np.flatnonzero(held[i - 1, row])
                old = before[before < i - 2]
                gone = old[np.argmin(told[row, old])]
                assert set(before) - set(np.flatnonzero(held[i, row])) == {gone}


def test_what_a_head_learns_is_the_most_that_a_scored_query_will_look():
    """By loops; and the heads move nothing of the transformer."""
    attention = np.random.default_rng(0).random((2, 3, 2, 5, 5)).astype(np.float32)
    scored = np.array([[0, 1, 0, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], np.float32)
    want = np.zeros((3, 5))
    for b in range(3):
        for j in range(5):
            later = [attention[l, b, h, i, j] for l in range(2) for h in range(2) for i in range(j + 1, 5) if scored[b, i]]
            want[b, j] = np.log(FLOOR + max(later, default=0))
    np.testing.assert_allclose(future(jnp.asarray(attention), jnp.asarray(scored)), want, rtol=1e-5)

    experiment, params = system("locret", **DENSE)
    plain, _ = system(
        "locret", model__cache__kind="append", model__cache__slots=0, model__cache__score="age", model__cache__recent=0, **DENSE
    )
    batch = jax.tree.map(jnp.asarray, experiment.data.gather("train", np.arange(4)))

    @functools.partial(jax.jit, static_argnums=0)
    def slope(model, params):
        return jax.grad(lambda p: model.loss(p, KEY, batch, step=jnp.int32(0), train=True)[0].sum())(params)

    ours = slope(experiment.model, params)
    theirs = slope(plain.model, {name: value for name, value in params.items() if name != "retain"})
    assert all(np.any(leaf) for leaf in jax.tree.leaves(ours.pop("retain")))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), ours, theirs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__cache__kind": "ring"}, "cache.score=learned says what is evicted"),
        ({"model__cache__recent": 5}, "leaves nothing to evict among 5 slots"),
        ({"model__cache__score": "age"}, "which score age does anyway"),
    ],
)
def test_caches_that_cannot_evict_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        system("locret", **changes)
