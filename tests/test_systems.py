"""What the papers behind configs/causal_transformer claim exactly, on the tiny modes; what has to be learned is measured in SYSTEMS.md."""

from __future__ import annotations

import functools
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.build import Experiment, build, load_config
from causal_gen.data import corpus, packing
from causal_gen.evaluate import probes

HERE = "configs/causal_transformer"
B, T = 2, 12


@functools.cache
def system(name: str, **changes: Any) -> tuple[Experiment, Any]:
    """The tiny mode of a config, changed, and parameters off their start."""
    experiment = build(load_config(f"{HERE}/{name}.py:tiny", {key.replace("__", "."): value for key, value in changes.items()}))
    leaves, tree = jax.tree.flatten(jax.jit(experiment.model.init)(jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return experiment, jax.tree.unflatten(tree, [p + 0.3 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)])


def tokens(model: Any, t: int = T) -> jax.Array:
    return jax.random.randint(jax.random.key(2), (B, t), 1, model.vocabulary)


@functools.partial(jax.jit, static_argnums=0)
def logits(model: Any, params: Any, batch: Any) -> jax.Array:
    return model.conditionals(params, batch)["tokens"].logits


# -- NoPos -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("visibility", "blind"), [("full()", True), ("causal()", False)])
def test_without_positions_and_without_a_mask_order_is_unknown(visibility, blind):
    """Slots 1.. are permuted (slot 0 is the start): the answers are permuted with them, unless the mask counts predecessors."""
    experiment, params = system("nopos", model__visibility=visibility)
    given = tokens(experiment.model)
    turn = np.array([5, 2, 9, 0, 10, 7, 1, 3, 8, 4, 6])
    plain = logits(experiment.model, params, {"tokens": given})
    turned = logits(experiment.model, params, {"tokens": jnp.concatenate([given[:, turn], given[:, -1:]], 1)})
    gap = np.abs(np.asarray(turned[:, 1:] - plain[:, 1 + turn]))
    assert gap.max() < 1e-4 if blind else gap.max() > 1e-2


# -- NormFormer ------------------------------------------------------------------------------------------------------------------


def test_normformer_adds_less_than_half_a_percent_of_parameters():
    def count(mode: str) -> int:
        config = load_config(f"{HERE}/normformer.py{mode}", {"data.documents": 4, "data.size": 8, "data.test_size": 8})
        shapes = jax.eval_shape(build(config).model.init, jax.random.key(0))
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))

    assert 0 < count("") / count(":preln") - 1 < 0.005


@pytest.mark.slow
def test_normformers_first_gradients_are_nearer_to_the_last_ones_size():
    """Norm of the first layer's gradient over the last one's, at the initial weights of the full configs, seed by seed."""
    small = {"data.documents": 4, "data.size": 64, "data.test_size": 16, "model.transformer.scan": True}

    def ratios(mode: str) -> np.ndarray:
        experiment = build(load_config(f"{HERE}/normformer.py{mode}", small))
        batch = jax.tree.map(jnp.asarray, experiment.data.gather("test", np.arange(16)))
        init = jax.jit(experiment.model.init)
        norms = [probes._gradients(experiment.model, init(jax.random.key(seed)), batch) for seed in range(3)]
        return np.array([float(norm[0] / norm[-1]) for norm in norms])

    ours, theirs = ratios(""), ratios(":preln")
    assert (1 < ours).all() and (ours < theirs).all()


# -- intra-document masking ------------------------------------------------------------------------------------------------------


def test_a_packed_documents_logits_are_those_of_the_document_alone():
    experiment, params = system("intra_document")
    given, place = tokens(experiment.model), np.array([*range(5), *range(T - 5)])
    document = np.broadcast_to(np.array([0] * 5 + [1] * (T - 5)), (B, T))
    packed = logits(experiment.model, params, {"tokens": given, "document": document, "position": np.broadcast_to(place, (B, T))})
    for part in (slice(0, 5), slice(5, T)):
        alone = logits(experiment.model, params, {"tokens": given[:, part]})
        np.testing.assert_allclose(packed[:, part], alone, atol=1e-5)


def test_no_gradient_flows_from_one_document_into_another():
    """Readout and embedding apart: the rows of the embedding that only the first document reads get exactly nothing from the second."""
    experiment, params = system("intra_document", model__transformer__tie=False)
    given = jnp.arange(1, T + 1)[None]
    document, mask = np.array([[0] * 5 + [1] * (T - 5)]), np.array([[0.0] * 5 + [1.0] * (T - 5)])

    @jax.jit
    def slope(embed):
        return jax.grad(lambda e: experiment.model.log_prob({**params, "embed": e}, jax.random.key(0), batch)[0])(embed)

    fields = {"document": document, "position": np.zeros_like(document), "loss_mask": mask}
    batch = {"tokens": given, **jax.tree.map(jnp.asarray, fields)}
    felt = np.abs(np.asarray(slope(params["embed"]))).sum(-1)
    assert (felt[1:6] == 0).all() and (felt[6:T] > 0).all()


def test_bm25_neighbours_share_more_pairs_of_words_than_random_ones():
    """Real text: 600 pieces of the standard library."""
    texts = [piece for text in corpus.read(corpus.STDLIB, None, "", "", (), 40) for piece in corpus.cut(text, 200)]
    texts = [texts[i] for i in packing.random_order(0, len(texts))[:600]]

    def pairs(text):
        words = re.findall(r"\w+", text.lower())
        return set(zip(words, words[1:], strict=False))

    def overlap(order):
        found = [pairs(texts[i]) for i in order]
        return np.mean([len(a & b) / max(len(a | b), 1) for a, b in zip(found, found[1:], strict=False)])

    assert overlap(packing.bm25_order(0, texts)) > 3 * overlap(packing.random_order(1, len(texts)))


# -- temporal latents ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_merged_latents_are_the_same_in_parallel_and_step_by_step_over_a_shorter_cache(stride):
    """At stride 1 nothing is merged, and it is plain latent attention: it has no weights to merge by."""
    experiment, params = system("mtla", model__transformer__latent__stride=stride)
    model, t = experiment.model, 11
    given = tokens(model, t)
    want = logits(model, params, {"tokens": given})
    cache = model.empty(params, B, t)
    assert jax.tree.leaves(cache.held.store)[0].shape[-2] == -(-t // stride)
    assert ("merge_wave" in params["decoder"]["blocks"]["attention"]) == (stride > 1)

    def step(cache, token):
        out, cache = model.advance(params, cache, token[:, None])
        return cache, out[:, 0]

    held = jnp.concatenate([jnp.full((B, 1), -1), given[:, :-1]], 1)  # what the slots hold; -1 is the start
    _, out = jax.jit(lambda cache: jax.lax.scan(step, cache, held.T))(cache)
    np.testing.assert_allclose(jnp.swapaxes(out, 0, 1), want, atol=1e-5)


# -- Perceiver AR ----------------------------------------------------------------------------------------------------------------


def test_latents_cut_out_are_latents_by_masking():
    """Against the whole stack on all slots, whose later layers hide all but the latents; and the same over a cache."""
    experiment, params = system("perceiver_ar")
    model, first = experiment.model, 13
    seen = f"per_layer(causal(), causal() & ~prefix({first}))"
    masked, _ = system("perceiver_ar", model__latents=0, model__visibility=seen)
    given = tokens(model, 17)
    cut, whole = (logits(one.model, params, {"tokens": given}) for one in (experiment, masked))
    np.testing.assert_allclose(cut[:, first:], whole[:, first:], atol=1e-5)
    assert not cut[:, :first].any() and whole[:, :first].any()
    out, cache = jax.jit(lambda given: model.prefill(params, given[:, :14]))(given)
    more, _ = jax.jit(lambda cache: model.advance(params, cache, given[:, 14:16]))(cache)
    np.testing.assert_allclose(jnp.concatenate([out[:, first:], more], 1), cut[:, first:], atol=1e-5)


def test_a_latent_feels_the_whole_input_before_it_and_nothing_after():
    experiment, params = system("perceiver_ar")
    given = np.asarray(tokens(experiment.model, 17))
    plain = np.asarray(logits(experiment.model, params, {"tokens": given}))
    other = np.stack([logits(experiment.model, params, {"tokens": np.where(np.arange(17) == j, given % 16 + 1, given)}) for j in range(17)])
    moved = (other != plain[None]).any((1, 3))  # [j, i]
    j, i = np.arange(17)[:, None], np.arange(17)
    assert not moved[j >= i].any() and moved[(j < i) & (i >= 13)].all()


@pytest.mark.slow
def test_the_memory_of_a_training_step_grows_no_faster_than_the_input():
    """Bytes of temporaries of loss and gradient for 4 texts of 512 to 4,096 tokens with 64 latents of width 64."""
    sizes = (512, 1024, 2048, 4096)

    def temporaries(length: int) -> int:
        small = {"data.items": length - 65, "data.copied": 64, "model.latents": 64, "data.size": 4, "data.test_size": 4}
        experiment = build(load_config(f"{HERE}/perceiver_ar.py", small))
        model, batch = experiment.model, jax.tree.map(jnp.asarray, experiment.data.gather("train", np.arange(4)))
        params = jax.eval_shape(model.init, jax.random.key(0))

        def loss(params, batch):
            return model.loss(params, jax.random.key(0), batch, step=jnp.int32(0), train=True)[0].mean()

        return jax.jit(jax.grad(loss)).lower(params, batch).compile().memory_analysis().temp_size_in_bytes

    found = [temporaries(size) for size in sizes]
    slope = np.polyfit(np.log(sizes), np.log(found), 1)[0]
    assert slope <= 1.05, found
