"""Laws of the systems that read what is given whole: masks over prompts, encoders over prefixes; on tiny modes, off their start."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core
from test_systems import logits, system

from causal_gen.nn.transformer import Decoder
from causal_gen.scm.counterfactual import abduct, predict
from causal_gen.structure.visibility import fields_for

PROMPTS = ("multihop_masks", "mas")
KEY = jax.random.key(0)


def rows(experiment, num: int = 2):
    return jax.tree.map(jnp.asarray, experiment.data.gather("test", np.arange(num)))


# -- a prompt read whole, an answer read as it comes -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROMPTS)
def test_answers_never_influence_what_is_before_them_and_a_block_sees_ahead(name):
    """Jacobian of every slot's state with respect to every slot's embedding: what the mask hides is exactly 0, what it shows is felt.

    Two blocks and an answer: MAS shows each block to itself, the prefix mask the first to all.
    """
    experiment, params = system(name)
    model = experiment.model
    segment = np.array([0, 0, 0, 1, 1, -1, -1])
    fields = fields_for(7, 7, segment=segment, prefix=(segment == 0).astype(np.int32))[0]
    x = jax.random.normal(KEY, (1, 7, model.transformer.width))
    run = jax.jit(jax.jacrev(lambda x: model._decoder.apply({"params": params["decoder"]}, x, fields)[0][0].sum(-1)))
    felt = np.abs(np.asarray(run(x)))[:, 0].sum(-1) > 0
    slot = np.arange(7)
    ahead = (segment == 0) if name == "multihop_masks" else (segment[:, None] == segment) & (segment >= 0)
    np.testing.assert_array_equal(felt, (slot[:, None] >= slot) | ahead)


@pytest.mark.parametrize("name", (*PROMPTS, "tc_llava", "nxtp"))
def test_a_null_intervention_returns_the_row_and_the_answers_laws_are_those_of_the_trained_run(name):
    experiment, params = system(name)
    model, batch = experiment.model, rows(experiment)
    noise = abduct(model, params, KEY, batch)
    np.testing.assert_array_equal(predict(model, params, noise, batch)["tokens"], batch["tokens"])
    forced = jnp.ones(batch["tokens"].shape, bool)
    _, laws = jax.jit(lambda batch: model._replay(params, noise["tokens"], batch, forced, batch["tokens"]))(batch)
    gap = np.abs(np.asarray(jax.nn.log_softmax(laws) - jax.nn.log_softmax(logits(model, params, batch)))).max(-1)
    assert gap[np.asarray(batch["loss_mask"]) > 0].max() < 1e-4


@pytest.mark.parametrize("name", PROMPTS)
def test_a_prompt_prefilled_whole_is_answered_over_keys_kept(name):
    """With an ordinary cache, as a chat is: documents and first question in one run, all that follows a token at a time over their keys."""
    experiment, params = system(name, model__cache__kind="append")
    model, batch = experiment.model, rows(experiment)
    p = int(np.flatnonzero(batch["loss_mask"][0])[0])

    @jax.jit
    def run(batch):
        out, cache = model.prefill(params, batch["tokens"][:, :p], batch)

        def step(cache, token):
            out, cache = model.advance(params, cache, token[:, None])
            return cache, out[:, 0]

        rest = jax.lax.scan(step, cache, batch["tokens"][:, p:-1].T)[1]
        return jnp.concatenate([out[:, -1:], jnp.swapaxes(rest, 0, 1)], 1)

    np.testing.assert_allclose(run(batch), logits(model, params, batch)[:, p:], atol=1e-5)


@pytest.mark.parametrize("visibility", ["causal() | prefix()", "segment_block()"])
def test_a_mask_over_the_prompt_costs_no_more_products(visibility):
    """Every matrix product of the forward pass, counted from its program: the same for all masks."""

    def products(model, params, batch) -> list:
        found = []

        def walk(program):
            for equation in program.eqns:
                if equation.primitive.name == "dot_general":
                    found.append(tuple(str(v.aval) for v in (*equation.invars, *equation.outvars)))
                for inner in core.jaxprs_in_params(equation.params):
                    walk(inner)

        walk(jax.make_jaxpr(lambda batch: logits.__wrapped__(model, params, batch))(batch).jaxpr)
        return found

    causal, params = system("mas", model__visibility="causal()")
    masked, _ = system("mas", model__visibility=visibility)
    batch = rows(causal)
    assert products(masked.model, params, batch) == products(causal.model, params, batch) != []


def test_without_positions_the_order_of_documents_is_no_matter_for_a_prefix_mask_and_is_for_a_causal_one():
    """Under the prefix mask documents are a set: the same answers when they change places."""
    gaps = {}
    for visibility in ("causal() | prefix()", "causal()"):
        experiment, params = system("multihop_masks", model__visibility=visibility, model__transformer__position="none")
        batch = rows(experiment)
        turn = np.array([3, 5, 0, 2, 4, 1, *range(6, experiment.model.length)])
        plain, turned = (
            logits(experiment.model, params, {**batch, "tokens": given}) for given in (batch["tokens"], batch["tokens"][:, turn])
        )
        gaps[visibility] = np.abs(np.asarray(plain - turned))[np.asarray(batch["loss_mask"]) > 0].max()
    assert gaps["causal() | prefix()"] < 1e-4 and gaps["causal()"] > 1e-2


# -- ENTP ------------------------------------------------------------------------------------------------------------------------


def test_every_answer_of_entp_is_that_of_the_encoder_over_its_prefix_and_not_the_decoders():
    """The encoder by itself: the stack under no mask over the slots before the answer, read at the last."""
    experiment, params = system("entp")
    model, batch = experiment.model, rows(experiment)
    found = logits(model, params, batch)
    encoder = Decoder(model.transformer, model.visibility)
    x = model._embed(params, model._slots(batch["tokens"], batch), batch)
    for place in np.flatnonzero(np.asarray(batch["loss_mask"][0])).tolist():
        fields = fields_for(place + 1, place + 1)[0]
        h, _ = jax.jit(lambda x, fields=fields: encoder.apply({"params": params["decoder"]}, x, fields))(x[:, : place + 1])  # pyright: ignore
        np.testing.assert_allclose(found[:, place], jnp.einsum("bd,vd->bv", h[:, -1], params["embed"]), atol=1e-5)
    decoder, _ = system("entp", model__visibility="causal()", model__prefixes=0, model__cache__kind="append")
    gap = jnp.abs(logits(decoder.model, params, batch) - found)[:, -1]
    assert gap.max() > 1e-2
