"""Laws of the systems that see: video under two clocks, pictures whose objects are named apart, films read by learned queries."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.build import build, load_config
from causal_gen.models import decoding
from causal_gen.sampling.truncation import DecodingConfig
from causal_gen.types import ConfigError
from tests.test_systems import logits, system

KEY = jax.random.key(0)


def rows(experiment: Any, num: int = 2) -> dict[str, jax.Array]:
    return jax.tree.map(jnp.asarray, experiment.data.gather("test", np.arange(num)))


@functools.partial(jax.jit, static_argnums=0)
def states(model: Any, params: Any, x: jax.Array, fields: Any) -> jax.Array:
    return model._decoder.apply({"params": params["decoder"]}, x, fields)[0]


def slots(model: Any) -> jax.Array:
    return jax.random.normal(KEY, (1, model.length, model.transformer.width))


# -- TC-LLaVA --------------------------------------------------------------------------------------------------------------------


def test_a_frame_sees_itself_whole_and_nothing_sees_a_later_frame_or_a_later_word():
    experiment, params = system("tc_llava")
    model, batch = experiment.model, rows(experiment, 1)
    fields, x = model._fields(batch, 1, model.length), slots(experiment.model)
    slope = jax.jit(jax.jacrev(lambda x: states(model, params, x, fields)[0].sum(-1)))(x)
    felt = np.abs(np.asarray(slope))[:, 0].sum(-1) > 0
    slot, frame = np.arange(model.length), np.asarray(batch["frame"][0])
    video = frame < experiment.config["data"]["frames"]
    np.testing.assert_array_equal(felt, (slot[:, None] >= slot) | ((frame[:, None] == frame) & video))
    assert felt[1, 2] and not felt[-2, -1]


def test_without_frames_the_dual_clock_is_the_one_clock():
    experiment, params = system("tc_llava", model__visibility="causal()")
    plain, _ = system("tc_llava", model__visibility="causal()", model__transformer__position="rope")
    batch = rows(experiment)
    still = {**batch, "frame": jnp.zeros_like(batch["frame"])}
    want = logits(plain.model, params, batch)
    np.testing.assert_allclose(logits(experiment.model, params, still), want, atol=1e-6)
    assert np.abs(np.asarray(logits(experiment.model, params, batch) - want)).max() > 1e-2


def test_only_differences_of_places_and_of_frames_matter():
    experiment, params = system("tc_llava", model__transformer__frame_weight=3.0)
    model = experiment.model
    fields, x = model._fields(rows(experiment, 1), 1, model.length), slots(experiment.model)
    later = {**fields, "index": fields["index"] + 11, "frame": fields["frame"] + 5}
    np.testing.assert_allclose(states(model, params, x, later), states(model, params, x, fields), atol=1e-4)
    wider = {**fields, "frame": 2 * fields["frame"]}
    assert np.abs(np.asarray(states(model, params, x, wider) - states(model, params, x, fields))).max() > 1e-2


# -- NXTP ------------------------------------------------------------------------------------------------------------------------


def test_a_names_logits_are_the_same_bits_whatever_the_other_names_are():
    experiment, params = system("nxtp")
    model, batch, task = experiment.model, rows(experiment), experiment.data.config
    plain = np.asarray(logits(model, params, batch))
    group = np.asarray(batch["group"][0])
    for name in range(1, task.objects + 1):
        tokens = np.asarray(batch["tokens"]).copy()
        for other in set(range(1, task.objects + 1)) - {name}:
            tokens[:, task.cells + 3 * other - 2 : task.cells + 3 * other] = 1 + other
        changed = np.asarray(logits(model, params, {**batch, "tokens": tokens}))
        np.testing.assert_array_equal(changed[:, group == name], plain[:, group == name])
        assert (changed[:, group > 0] != plain[:, group > 0]).any()


def test_a_name_is_as_likely_wherever_it_is_told():
    """Positions restart at every name: all names made the first one have its logits."""
    experiment, params = system("nxtp")
    model, batch, task = experiment.model, rows(experiment), experiment.data.config
    tokens = np.asarray(batch["tokens"]).copy()
    tokens[:, task.cells :] = np.tile(tokens[:, task.cells : task.cells + 3], (1, task.objects))
    found = np.asarray(logits(model, params, {**batch, "tokens": tokens}))[:, task.cells :].reshape(2, task.objects, 3, -1)
    np.testing.assert_allclose(found[:, 1:, 1:], np.broadcast_to(found[:, :1, 1:], found[:, 1:, 1:].shape), atol=1e-5)


@pytest.mark.parametrize("kind", ["append", "reread"])
def test_names_told_in_one_shot_are_those_told_one_at_a_time(kind):
    """The first words by their own order, the rest of each name by a decoding of its own; ranked by the names' log-probability."""
    experiment, params = system("nxtp", model__cache__kind=kind)
    model, batch, task = experiment.model, rows(experiment), experiment.data.config
    prompt, context, ways = jnp.asarray(task.prompt(np.asarray(batch["tokens"]))), {name: batch[name] for name in model.context}, 4
    found = decoding.one_shot(model, params, prompt, ways=ways, steps=2, context=context)
    first, _ = jax.jit(lambda prompt: model.prefill(params, prompt, context))(prompt)
    best, words = jax.lax.top_k(jax.nn.log_softmax(first[:, -1]), ways)
    alone = {}
    for way in range(ways):
        longer = jnp.concatenate([prompt, words[:, way : way + 1]], 1)
        rest = decoding.generate(model, params, KEY, longer, steps=1, sampling=DecodingConfig(top_k=1), context=context)
        lost, _ = jax.jit(lambda text: model.prefill(params, text, context))(longer)
        for row in range(2):
            log_p = float(best[row, way] + jax.nn.log_softmax(lost[row, -1]).max())
            alone[row, int(words[row, way]), int(rest.tokens[row, 0])] = log_p
    for row in range(2):
        told = {(row, *name): log_p for name, log_p in zip(found.tokens[row].tolist(), found.log_prob[row].tolist(), strict=True)}
        assert told == pytest.approx({name: log_p for name, log_p in alone.items() if name[0] == row}, abs=1e-4)
    assert (np.diff(found.log_prob, axis=1) <= 0).all()


def test_a_branch_has_the_same_bits_whatever_the_others_say():
    experiment, params = system("nxtp", model__cache__kind="append")
    model, batch = experiment.model, rows(experiment)
    context = {name: batch[name] for name in model.context}
    prompt = jnp.asarray(experiment.data.config.prompt(np.asarray(batch["tokens"])))
    places = jnp.arange(3)[None]
    fields = {"depth": jnp.zeros_like(places), "enter": 1 + 2 * places, "leave": 3 + 2 * places}

    @jax.jit
    def after(words):
        _, cache = model.prefill(params, prompt, context)
        return model.advance(params, cache, words, fields)[0]

    words = jnp.array([[5, 6, 7], [8, 9, 5]])
    others = words.at[:, 0].set(3).at[:, 2].set(4)
    one, two = np.asarray(after(words)), np.asarray(after(others))
    np.testing.assert_array_equal(one[:, 1], two[:, 1])
    assert (one[:, 0] != two[:, 0]).any() and (one[:, 2] != two[:, 2]).any()


# -- films read by learned queries -------------------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=0)
def told(model: Any, params: Any, film: jax.Array) -> jax.Array:
    return model.conditionals(params, {"film": film})["labels"].logits


def test_without_the_mask_a_film_and_its_reverse_are_one_and_with_it_two():
    experiment, params = system("video_ccam")
    film = rows(experiment)["film"]
    blind = dataclasses.replace(experiment.model.config.resampler, visibility="full()")
    config = dataclasses.replace(experiment.model.config, resampler=blind)
    encoding = dataclasses.replace(experiment.model.encoding, config=config)
    without = dataclasses.replace(experiment.model, config=config, encoding=encoding)
    np.testing.assert_allclose(told(without, params, film), told(without, params, film[:, ::-1]), atol=1e-5)
    gap = np.abs(np.asarray(told(experiment.model, params, film) - told(experiment.model, params, film[:, ::-1])))
    assert gap.max() > 1e-2


def test_a_film_shown_four_times_as_slowly_reads_the_same():
    """Every frame four times: the shares of the film that queries see hold the same pictures in the same proportions."""
    experiment, params = system("video_ccam")
    film = rows(experiment)["film"]
    slow = build(load_config("configs/causal_transformer/video_ccam.py:tiny", {"data.frames": 4 * film.shape[1]})).model
    np.testing.assert_allclose(told(slow, params, jnp.repeat(film, 4, 1)), told(experiment.model, params, film), atol=1e-5)


def test_nothing_later_than_a_window_reaches_its_queries():
    experiment, params = system("favor")
    model, film = experiment.model, rows(experiment, 1)["film"]

    def read(film):
        x = model.encoding._embed(params, film)
        return model.encoding._resampler.apply({"params": params["resampler"]}, x)[0].sum((1, 2))

    felt = np.abs(np.asarray(jax.jit(jax.jacrev(read))(film)))[:, 0].sum(-1) > 0
    window = np.arange(film.shape[1]) // (model.config.resampler.frame * model.config.resampler.window)
    np.testing.assert_array_equal(felt, np.arange(felt.shape[0])[:, None] >= window)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data.frames": 9, "data.window": 3}, "18 inputs do not make up whole windows of 2 frames of 2"),
        ({"model.resampler.visibility": 'same("row")'}, "a resampler has no field 'row'"),
        ({"model.resampler.queries": 1}, "diversity=0.1 is about the queries of a window, and there are 1"),
        ({"model.visibility": 'same("group")'}, "its queries have no rows, columns or fields of the batch"),
    ],
)
def test_what_queries_cannot_read_is_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        build(load_config("configs/causal_transformer/favor.py:tiny", changes))
