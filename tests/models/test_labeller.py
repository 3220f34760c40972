"""The labeller: what sees what, slots and pools, its likelihood, counterfactuals on labels, adapters, and what is refused."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.models.encoding_config import MaskSchedule
from causal_gen.models.labeller import Labeller
from causal_gen.models.labeller_config import LabellerConfig, LabelSampling
from causal_gen.nn import adapters
from causal_gen.nn.adapters import AdapterConfig
from causal_gen.nn.transformer_config import TransformerConfig
from causal_gen.scm.counterfactual import abduct, counterfactual, predict, sample
from causal_gen.scm.intervention import do, shift
from causal_gen.types import ConfigError, Entry, InterventionError, UserError

B, T, V, L, F = 3, 6, 7, 4, 5
KEY = jax.random.key(0)
SMALL = TransformerConfig(width=8, layers=2, heads=2, backend="dense", mlp_ratio=2.0, length=8, scan=True)
ENTRIES = {
    "tokens": Entry((T,), "int32", vocabulary=V),
    "labels": Entry((T,), "int32", vocabulary=L),
    "kind": Entry((), "int32", vocabulary=L),
    "patches": Entry((T, F)),
    "segment": Entry((T,), "int32"),
}
BATCH = {
    "tokens": jax.random.randint(jax.random.key(1), (B, T), 0, V),
    "labels": jax.random.randint(jax.random.key(2), (B, T), 0, L),
    "kind": jnp.array([0, 3, 1]),
    "patches": jax.random.normal(jax.random.key(3), (B, T, F)),
    "segment": jnp.array([[0, 0, 1, 1, 2, 2]] * B),
}


def make(temperature: float = 1.0, transformer: dict[str, Any] | None = None, **changes: Any) -> Labeller:
    config = LabellerConfig(transformer=dataclasses.replace(SMALL, **(transformer or {})), **changes)
    return config.make(ENTRIES, {}, LabelSampling(temperature), "", "none")


@functools.cache
def params(model: Labeller) -> Any:
    """Off the start, so that logits differ by some nats."""
    with jax.ensure_compile_time_eval():  # some tests first ask for them inside of jit
        leaves, tree = jax.tree.flatten(jax.jit(model.init)(KEY))
        keys = jax.random.split(jax.random.key(1), len(leaves))
        return jax.tree.unflatten(tree, [p + 0.4 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)])


@functools.partial(jax.jit, static_argnums=0)
def logits(model: Labeller, params: Any, batch: Any, alpha: Any = None) -> jax.Array:
    return model.conditionals(params, batch, None if alpha is None else {"alpha": alpha})[model.labels].logits


PATCHES: dict[str, Any] = {"inputs": "patches", "labels": "kind"}
TAGGER, FULL = make(visibility="causal()"), make()
SOFT = make(visibility="soft(causal(), full())", mask_schedule=MaskSchedule(0.25, 0.75, begin=2, finish=6))
POOLED = make(**PATCHES, slot="last", pool="slot", visibility="causal()")


# -- 1: no leak ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("visibility", "slot"), [("causal()", "last"), ("same_segment()", "first"), ('same("row")', "none")])
def test_a_labels_logits_feel_the_inputs_that_its_place_sees_and_nothing_else(visibility, slot):
    """One row as it is and one for each input changed, through two layers; the slot itself stands between nobody."""
    model = make(inputs="patches", visibility=visibility, slot=slot, columns=2 if "row" in visibility else 0)
    rows = BATCH["patches"][:1] + jnp.concatenate([jnp.zeros((1, T)), jnp.eye(T)])[..., None]
    told = logits(model, params(model), {"patches": rows, "segment": jnp.broadcast_to(BATCH["segment"][:1], (T + 1, T))})
    moved = np.asarray(told[1:] != told[:1]).any(-1).T  # [label, input]
    q, k = np.arange(T)[:, None], np.arange(T)[None]
    np.testing.assert_array_equal(moved, k <= q if visibility == "causal()" else q // 2 == k // 2)


@pytest.mark.parametrize(("slot", "pool", "seen"), [("first", "slot", 0), ("last", "slot", T)])
def test_under_a_causal_mask_a_slot_before_the_inputs_sees_none_of_them(slot, pool, seen):
    model = make(**PATCHES, slot=slot, pool=pool, visibility="causal()")
    slope = jax.jit(jax.grad(lambda x: logits(model, params(model), {**BATCH, "patches": x}).sum()))(BATCH["patches"])
    assert (np.asarray(slope) != 0).any((0, 2)).sum() == seen


# -- 6: limit cases ------------------------------------------------------------------------------------------------------------


def test_a_soft_mask_at_its_ends_is_the_hard_one_exactly():
    for alpha, hard in ((0.0, TAGGER), (1.0, FULL)):
        np.testing.assert_array_equal(logits(SOFT, params(SOFT), BATCH, alpha), logits(hard, params(SOFT), BATCH))
    assert (logits(SOFT, params(SOFT), BATCH, 0.5) != logits(FULL, params(SOFT), BATCH)).any()


def test_training_moves_the_mask_along_its_schedule_and_evaluation_uses_its_end():
    schedule, model = SOFT.config.mask_schedule, SOFT
    assert [float(schedule(step)) for step in (0, 2, 4, 6, 9)] == [0.25, 0.25, 0.5, 0.75, 0.75]
    assert float(MaskSchedule(finish=0)(0)) == 1.0

    @functools.partial(jax.jit, static_argnums=1)
    def loss(step, train):
        return model.loss(params(model), KEY, BATCH, step=step, train=train)[0]

    def asked(alpha):
        told = jax.nn.log_softmax(logits(model, params(model), BATCH, alpha))
        return -np.take_along_axis(np.asarray(told), np.asarray(BATCH["labels"])[..., None], -1)[..., 0].mean(1)

    np.testing.assert_allclose(loss(jnp.int32(4), True), asked(0.5), rtol=1e-5)
    np.testing.assert_allclose(loss(jnp.int32(0), False), asked(0.75), rtol=1e-5)
    np.testing.assert_array_equal(logits(model, params(model), BATCH), logits(model, params(model), BATCH, 0.75))


def test_adapters_merged_are_plain_weights_and_all_else_is_frozen():
    model = make(adapters=AdapterConfig(rank=2))
    own = params(model)
    plain = FULL
    weights = {**own, "decoder": adapters.merge(own["decoder"], own["adapters"], model.config.adapters)}
    np.testing.assert_allclose(logits(model, own, BATCH), logits(plain, weights, BATCH), atol=1e-5)
    assert (logits(plain, own, BATCH) != logits(model, own, BATCH)).any()
    (frozen, group), (rest, free) = model.groups().items()
    assert frozen == "^(embed|decoder)" and group.frozen and rest == ".*" and not free.frozen


# -- likelihood and counterfactuals --------------------------------------------------------------------------------------------


def test_the_loss_and_the_likelihood_count_scored_labels():
    mask = (jnp.arange(T)[None] >= jnp.array([[0], [3], [5]])).astype(jnp.float32)
    batch = {**BATCH, "loss_mask": mask}
    told = jax.nn.log_softmax(logits(TAGGER, params(TAGGER), batch))
    nll = -np.take_along_axis(np.asarray(told), np.asarray(BATCH["labels"])[..., None], -1)[..., 0]
    total, aux = jax.jit(lambda b: TAGGER.loss(params(TAGGER), KEY, b, step=jnp.int32(0), train=True))(batch)
    np.testing.assert_allclose(total, (nll * mask).sum(1) / mask.sum(1), rtol=1e-5)
    np.testing.assert_array_equal(total, aux.terms["nll"])
    np.testing.assert_allclose(jax.jit(lambda b: TAGGER.log_prob(params(TAGGER), KEY, b))(batch), -(nll * mask).sum(1), rtol=1e-5)


def test_a_null_intervention_returns_the_labels_and_an_intervention_moves_no_other():
    model = make(temperature=0.7)
    noise = abduct(model, params(model), KEY, BATCH)
    np.testing.assert_array_equal(predict(model, params(model), noise, BATCH)["labels"], BATCH["labels"])
    act = do(labels={2: np.array([0, 1, 3])})
    moved = np.asarray(predict(model, params(model), noise, BATCH, act)["labels"])
    np.testing.assert_array_equal(moved[:, 2], [0, 1, 3])
    may = np.asarray(model.descendants(noise, act)["labels"])
    np.testing.assert_array_equal(may, np.broadcast_to(np.arange(T) == 2, (B, T)))
    np.testing.assert_array_equal(moved[~may], np.asarray(BATCH["labels"])[~may])


def test_one_label_an_example_is_a_node_of_its_own():
    model = POOLED
    drawn = sample(model, params(model), KEY, B, BATCH)
    assert drawn["kind"].shape == (B,) and drawn["kind"].dtype == jnp.int32
    noise = abduct(model, params(model), KEY, BATCH)
    assert noise["kind"].shape == model.noise(KEY, B)["kind"].shape
    np.testing.assert_array_equal(predict(model, params(model), noise, BATCH)["kind"], BATCH["kind"])
    np.testing.assert_array_equal(counterfactual(model, params(model), KEY, BATCH, do(kind=2))["kind"], 2)


def test_drawn_labels_have_the_models_law():
    num, model = 4_000, POOLED
    batch = {"patches": jnp.broadcast_to(BATCH["patches"][:1], (num, T, F))}
    drawn = np.asarray(sample(model, params(model), KEY, num, batch)["kind"])
    p = np.asarray(jax.nn.softmax(logits(model, params(model), BATCH)[0]))
    assert np.abs(np.bincount(drawn, minlength=L) / num - p).max() < 4 * 0.5 / num**0.5


# -- 8, and mistakes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [SOFT, POOLED], ids=["tokens", "vectors"])
def test_every_parameter_has_a_finite_gradient(model):
    slope = jax.jit(jax.grad(lambda p: model.loss(p, KEY, BATCH, step=jnp.int32(4), train=True)[0].mean()))(params(model))
    for path, leaf in jax.tree_util.tree_leaves_with_path(slope):
        assert np.isfinite(leaf).all() and np.any(leaf), jax.tree_util.keystr(path)


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda: make(inputs="words"), "model.inputs: entry 'words' is not in the data"),
        (lambda: make(inputs="kind"), "model.inputs: entry 'kind' has shape"),
        (lambda: make(labels="patches"), "model.labels: entry 'patches' has shape"),
        (lambda: make(visibility="same_document()"), "model.visibility: field 'document' is not in the data"),
        (lambda: make(pool="slot"), "set slot to"),
        (lambda: make(mask_schedule=MaskSchedule(finish=3)), "does not read; write soft"),
        (lambda: MaskSchedule(begin=3, finish=2), "finish=2 comes before begin=3"),
        (lambda: make(columns=2), "which nothing reads"),
        (lambda: make(**PATCHES, columns=4, transformer={"position": "rope2d"}), "do not stand in rows of 4"),
        (lambda: make(slot="last", transformer={"position": "learned", "length": T}), "6 positions for 7 slots"),
        (lambda: make(temperature=0.0), "sampling.temperature: must be positive"),
    ],
)
def test_mistakes_are_named(make_it, message):
    with pytest.raises(ConfigError, match=message):
        make_it()


def test_evidence_and_context_that_cannot_be_are_named():
    with pytest.raises(UserError, match="label 4 at place 2 of row 1 is out of range"):
        abduct(TAGGER, params(TAGGER), KEY, {**BATCH, "labels": BATCH["labels"].at[1, 2].set(L)})
    kind = POOLED
    for act, message in ((do(kind=L), "the labels are 0..3"), (do(kind=0.5), "do.kind=0.5.: the labels"), (shift(kind=1), "only do sets")):
        with pytest.raises(InterventionError, match=message):
            predict(kind, params(kind), kind.noise(KEY, B), BATCH, act)
    with pytest.raises(UserError, match="entry 'tokens' is missing"):
        sample(TAGGER, params(TAGGER), KEY, 2)
