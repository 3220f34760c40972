"""Hybrid transformers: limit cases, what each objective may see, likelihoods against sums over orders, and interventions."""

from __future__ import annotations

import dataclasses
import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.data.text import token_entries
from causal_gen.models import objectives
from causal_gen.models.causal_transformer import CausalTransformer
from causal_gen.models.causal_transformer_config import CausalTransformerConfig
from causal_gen.models.hybrid_transformer_config import HybridTransformerConfig, ObjectiveConfig
from causal_gen.models.mixing import MixerConfig
from causal_gen.models.objectives import Query
from causal_gen.nn.transformer_config import TransformerConfig
from causal_gen.process.masking import Schedule
from causal_gen.sampling.truncation import DecodingConfig
from causal_gen.sampling.unmask_config import UnmaskConfig
from causal_gen.scm import counterfactual as asking
from causal_gen.scm.intervention import do
from causal_gen.types import ConfigError, UserError

T, V = 6, 5
KEY = jax.random.key(0)
STACK = TransformerConfig(width=8, layers=2, heads=2, backend="dense")
FULL = "params=float32,compute=float32,output=float32"
TOKENS = jax.random.randint(jax.random.key(9), (8, T), 0, V)
NEXT = ObjectiveConfig("next")
MASKED = ObjectiveConfig("masked", low=0.3, high=0.6, shifted=True)
SPAN = ObjectiveConfig("span", shortest=2, longest=3)


PLAIN = UnmaskConfig()


def model(*kinds: ObjectiveConfig, length: int = T, sampling: UnmaskConfig = PLAIN, **fields):
    config = HybridTransformerConfig(objectives=kinds, transformer=STACK, **fields)
    return config.make(token_entries(length, V, ""), {}, sampling, FULL, "none")


@functools.partial(jax.jit, static_argnums=0)
def perturbed(of) -> dict:
    """Off their start, where rows of embeddings are small and hide what others do."""
    leaves, tree = jax.tree.flatten(of.init(KEY))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return jax.tree.unflatten(tree, [leaf + 0.3 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)])


@functools.partial(jax.jit, static_argnums=0)
def log_prob(of, params, batch, query=None):
    return of.log_prob(params, KEY, batch, query)


@functools.partial(jax.jit, static_argnums=0)
def logits(of, params, batch):
    return of.conditionals(params, batch)["tokens"].logits


@functools.partial(jax.jit, static_argnums=(0, 1))
def read(of, o, params, arranged):
    """What slots say."""
    return of._logits(params, of._run(params, o, of._embed(params, arranged.held, {}), arranged.fields))


def causal() -> CausalTransformer:
    return CausalTransformerConfig(transformer=STACK).make(token_entries(T, V, ""), {}, DecodingConfig(), FULL, "none")


def loss(of, params, key=KEY, step: int = 0, train: bool = True, batch=None):
    return jax.jit(lambda p, k, b: of.loss(p, k, b, step=jnp.int32(step), train=train))(params, key, batch or {"tokens": TOKENS})


# -- limit cases ---------------------------------------------------------------------------------------------------------------


def test_a_mixture_of_one_objective_is_that_objective():
    """No masked rows: the causal transformer's loss of the same weights. Masked rows alone: the loss of a model without the other."""
    params = perturbed(model(NEXT, MASKED))
    none = dataclasses.replace(MASKED, share=0.0)
    np.testing.assert_allclose(loss(model(NEXT, none), params)[0], loss(causal(), params)[0], atol=1e-6)
    alone = model(dataclasses.replace(NEXT, share=0.0), MASKED)
    np.testing.assert_allclose(loss(alone, params)[0], loss(model(MASKED), params, jax.random.fold_in(KEY, 1))[0], atol=1e-6)


def test_half_of_the_rows_by_each_objective_are_the_halves_of_both():
    both = model(NEXT, MASKED)
    params = perturbed(both)
    found = loss(both, params)[0]
    np.testing.assert_allclose(found[:4], loss(causal(), params)[0][:4], atol=1e-6)
    second = loss(model(MASKED), params, jax.random.fold_in(KEY, 1), batch={"tokens": TOKENS[4:]})[0]
    np.testing.assert_allclose(found[4:], second, atol=1e-6)


@pytest.mark.parametrize("visibility", ["causal()", "causal() & valid()"])
def test_any_order_left_to_right_with_masks_hidden_is_the_causal_likelihood(visibility):
    """ARDM under order(identity): the causal transformer's log-likelihood of the same weights, and its logits one by one."""
    of = model(ObjectiveConfig("any_order", visibility=visibility, shifted=True))
    params = perturbed(of)
    batch = {"tokens": TOKENS}
    np.testing.assert_allclose(log_prob(of, params, batch, Query(order=jnp.arange(T))), log_prob(causal(), params, batch), rtol=1e-6)
    np.testing.assert_allclose(logits(of, params, batch), logits(causal(), params, batch), atol=1e-5)


def test_drawn_left_to_right_a_hybrid_is_a_causal_transformer():
    of, plain = model(NEXT, MASKED), causal()
    params = perturbed(of)
    assert of.likelihood == "exact" and model(MASKED).likelihood == "bound"
    noise = of.noise(KEY, 4)
    chex.assert_trees_all_equal(noise, plain.noise(KEY, 4))
    chex.assert_trees_all_equal(asking.predict(of, params, noise), asking.predict(plain, params, noise))


# -- who sees what ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["random", "identity"])
def test_a_permuted_token_is_told_by_the_known_ones_and_those_before_it_alone(order):
    o = ObjectiveConfig("permuted", order=order)
    of = model(o)
    params = perturbed(of)
    hidden = jnp.broadcast_to(jnp.asarray([False, True, True, False, True, True]), (1, T))
    rank = objectives.ranks(o, KEY, hidden)

    @jax.jit
    def told(tokens):
        return read(of, o, params, objectives.pseudo(tokens, hidden, rank, jnp.ones((1, T)), of.mask))[0, T + 1 :]

    plain = told(TOKENS[:1])
    for cause in range(T):
        moved = jnp.abs(told(TOKENS[:1].at[0, cause].set((TOKENS[0, cause] + 1) % V)) - plain).max(-1) > 0
        for effect in np.flatnonzero(hidden[0]):
            assert bool(moved[effect]) == (not hidden[0, cause] or bool(rank[0, cause] < rank[0, effect])), (cause, effect)


def test_a_prefix_is_seen_whole_and_the_rest_in_order():
    o = ObjectiveConfig("prefix", low=0.5, high=0.5)
    of = model(NEXT, o)
    params = perturbed(of)
    known = jnp.broadcast_to(jnp.arange(T) < 3, (1, T))
    told = jax.jit(lambda tokens: of._tell(params, o, tokens, {}, None, known)[0])
    plain = told(TOKENS[:1])
    for cause in range(T):
        moved = np.asarray(jnp.abs(told(TOKENS[:1].at[0, cause].set((TOKENS[0, cause] + 1) % V)) - plain).max(-1) > 0)
        np.testing.assert_array_equal(moved[3:], np.arange(3, T) > cause)
    row = jax.jit(lambda: objectives.hide(o, KEY, jnp.full((1,), 0.5), TOKENS[:1], jnp.ones((1, T), bool), of.mask, V))()
    np.testing.assert_allclose(row.weight[0], [0, 0, 0, 1 / 3, 1 / 3, 1 / 3])


@pytest.mark.parametrize("placed", [False, True])
def test_a_span_given_both_sides_is_what_comes_after_its_sentinel(placed):
    """log p of the middle by hand: the rest with a sentinel, the sentinel again, then the middle, read causally."""
    o = dataclasses.replace(SPAN, placed=placed)
    of = model(NEXT, o)
    params = perturbed(of)
    mask = jnp.broadcast_to((jnp.arange(T) >= 2) & (jnp.arange(T) < 4), (1, T))
    x, mark = [int(token) for token in TOKENS[0]], V + 1
    y = [x[0], x[1], mark, x[4], x[5], mark, x[2], x[3]]
    held = jnp.asarray([[-1, *y[:-1]]])
    fields = {"position": jnp.asarray([[0, 1, 2, 2, 5, 6, 2, 3]])} if placed else {}  # sentinels stand where the middle begins
    law = jax.nn.log_softmax(read(of, o, params, objectives.Arranged(held, None, None, fields)))[0]
    found = log_prob(of, params, {"tokens": TOKENS[:1]}, Query(objective="span", mask=mask))
    np.testing.assert_allclose(found[0], law[6, x[2]] + law[7, x[3]], rtol=1e-5)
    left = log_prob(of, params, {"tokens": TOKENS[:1]}, Query(mask=mask))
    law = jax.nn.log_softmax(logits(causal(), params, {"tokens": TOKENS[:1]}))[0]
    np.testing.assert_allclose(left[0], law[2, x[2]] + law[3, x[3]], rtol=1e-5)


def test_tokens_that_are_not_scored_are_never_hidden_nor_counted():
    batch = {"tokens": TOKENS, "loss_mask": jnp.broadcast_to((jnp.arange(T) >= 4).astype(jnp.float32), (8, T))}
    for o in (MASKED, ObjectiveConfig("diffusion"), ObjectiveConfig("any_order")):
        row = jax.jit(lambda o=o: objectives.hide(o, KEY, jnp.linspace(0, 0.99, 8), TOKENS, batch["loss_mask"] > 0, V, V))()
        assert not row.hidden[:, :4].any() and row.hidden[:, 4:].any()
        np.testing.assert_array_equal(row.inputs[:, :4], TOKENS[:, :4])
        assert not np.any(np.asarray(row.weight)[~np.asarray(row.hidden)])


def test_pseudo_masks_in_one_run_say_what_masks_say_one_after_the_other():
    """s2s-ft: logits of a target by pseudo-masks, against a mask for each token in its turn."""
    o = ObjectiveConfig("permuted", order="identity", low=1.0, high=1.0)
    of = model(o)
    params = perturbed(of)
    scored = jnp.broadcast_to(jnp.arange(T) >= 3, (8, T))
    batch = {"tokens": TOKENS, "loss_mask": scored.astype(jnp.float32)}
    counts = scored.astype(jnp.float32)
    arranged = jax.jit(lambda: objectives.pseudo(TOKENS, scored, objectives.ranks(o, KEY, scored), counts, of.mask))()
    at_once, in_turn = read(of, o, params, arranged)[:, T + 1 :], logits(of, params, batch)
    np.testing.assert_allclose(at_once[:, 3:], in_turn[:, 3:], atol=1e-5)
    np.testing.assert_allclose(log_prob(of, params, batch), log_prob(of, params, batch, Query(order=jnp.arange(T))), rtol=1e-5)


# -- likelihoods -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "o",
    [
        ObjectiveConfig("any_order"),
        ObjectiveConfig("masked", low=0.2, high=0.2),
        ObjectiveConfig("diffusion"),
        ObjectiveConfig("diffusion", schedule=Schedule("cosine")),
        ObjectiveConfig("permuted"),
    ],
    ids=lambda o: f"{o.kind}-{o.schedule.kind}",
)
def test_bounds_are_the_mean_over_all_orders(o):
    """Of a model whose orders disagree; every objective that fills in masks is asked for the same number."""
    of = model(o, length=3, draws=6)
    params, tokens = perturbed(of), TOKENS[:1, :3]
    orders = jnp.asarray(list(itertools.permutations(range(3))))
    every = log_prob(of, params, {"tokens": jnp.repeat(tokens, 6, 0)}, Query(order=orders))
    rows = {"tokens": jnp.repeat(tokens, 4_000, 0)}
    drawn = np.asarray(log_prob(of, params, rows))
    assert float(every.std()) > 0.02
    assert drawn.mean() == pytest.approx(float(every.mean()), abs=float(4 * drawn.std() / 4_000**0.5))


@functools.partial(jax.jit, static_argnums=0)
def estimates(of, params, keys):
    """Bounds of one row by keys of their own."""
    return jax.vmap(lambda key: of.log_prob(params, key, {"tokens": TOKENS[:1]})[0])(keys)


def test_coupled_draws_hide_every_token_once_and_estimate_the_same_bound_closer():
    """DiffuCoder's complementary masks (Gong et al. 2025, sec. 5), beside as many calls whose masks know nothing of each other."""
    o = ObjectiveConfig("diffusion", hides="scored")
    at, scored = jnp.linspace(0.02, 0.98, 8), jnp.broadcast_to(jnp.arange(T) >= 2, (8, T))
    one, other = (objectives.hide(o, KEY, a, TOKENS, scored, V, V, None, b).hidden for a, b in ((at, False), (1 - at, True)))
    np.testing.assert_array_equal(one ^ other, scored)
    np.testing.assert_array_equal(one & other, jnp.zeros_like(scored))

    apart, coupled = model(o, draws=2), model(o, draws=2, coupled=True)
    params, keys = perturbed(apart), jax.random.split(KEY, 20_000)
    a, b = np.asarray(estimates(apart, params, keys)), np.asarray(estimates(coupled, params, keys))
    assert b.mean() == pytest.approx(a.mean(), abs=4 * float(a.std() + b.std()) / 20_000**0.5)
    assert b.var() < 0.9 * a.var()


def test_the_pseudo_likelihood_hides_one_token_at_a_time():
    of = model(MASKED)
    params, want = perturbed(of), 0.0
    for i in range(T):
        hidden = jnp.broadcast_to(jnp.arange(T) == i, (8, T))
        want = want + log_prob(of, params, {"tokens": TOKENS}, Query(mask=hidden))
    np.testing.assert_allclose(jax.jit(of.pseudo_log_prob)(params, {"tokens": TOKENS}), want, rtol=1e-5)


def test_digits_and_learned_rates_start_from_the_same_loss():
    """Prime where no token is shown in part is MD4, and GenMD4 with every rate 1 is MD4: losses of the same masks."""
    plain = ObjectiveConfig("diffusion")
    of = model(dataclasses.replace(plain, parts=2), dataclasses.replace(plain, name="learned", schedule=Schedule("learned")), plain_named())
    params = perturbed(of)
    params["schedule"] = jnp.full((V,), float(np.log(np.expm1(1.0))))
    at = jnp.linspace(0.05, 0.95, 8)
    batch = {"tokens": TOKENS}
    _, learned, md4 = of.config.objectives
    told = [jax.jit(lambda o=o: of._hidden_loss(params, o, KEY, at, batch)[0])() for o in (learned, md4)]
    np.testing.assert_allclose(*told, rtol=1e-5)
    shown, inputs, parts = jnp.zeros((8, T, 2), bool), jnp.full((8, T), of.mask), of.config.objectives[0]
    seen = [jax.jit(lambda o=o, shown=shown: of._tell(params, o, inputs, batch, shown))() for o, shown in ((parts, shown), (md4, None))]
    np.testing.assert_allclose(*seen, atol=1e-6)


def plain_named() -> ObjectiveConfig:
    return ObjectiveConfig("diffusion", name="md4")


# -- training --------------------------------------------------------------------------------------------------------------------


def test_every_parameter_learns_in_a_mixture_that_no_paper_has_mixed():
    """Next tokens, spans, digits of diffusion, a learned schedule and a permutation in one batch; and everything is finite."""
    learned = ObjectiveConfig("diffusion", name="learned", schedule=Schedule("learned"))
    of = model(NEXT, SPAN, ObjectiveConfig("diffusion", parts=2), learned, ObjectiveConfig("permuted"))
    params = perturbed(of)
    batch = {"tokens": jnp.tile(TOKENS, (5, 1))}

    def mean(params, key):
        return of.loss(params, key, batch, step=jnp.int32(0), train=True)[0].mean()

    found = jax.jit(jax.grad(mean))(params, KEY)
    for where, leaf in jax.tree_util.tree_leaves_with_path(found):
        assert np.isfinite(leaf).all() and np.any(leaf), jax.tree_util.keystr(where)
    terms = loss(of, params, train=False)[1].terms
    assert set(terms) == {"nll", *(f"nll_{o.called}" for o in of.config.objectives)}


def test_a_bandit_reports_what_it_played_and_keeps_its_state():
    of = model(NEXT, MASKED, mixer=MixerConfig("bandit"))
    params = jax.jit(of.init)(KEY)
    _, aux = loss(of, params)
    assert float(aux.stats["count"].sum()) == 1
    state = of.update_state(params, aux.stats)
    assert float(state["tried"].sum()) == 1 and jax.tree.structure(state) == jax.tree.structure(params["state"])


# -- interventions ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", [UnmaskConfig(), UnmaskConfig(policy="confidence", steps=3), UnmaskConfig(policy="order")], ids=str)
def test_null_interventions_return_the_tokens_and_others_move_only_what_is_filled_later(sampling):
    of = model(MASKED, sampling=sampling)
    params, batch = perturbed(of), {"tokens": TOKENS}
    noise = asking.abduct(of, params, KEY, batch)
    chex.assert_trees_all_equal_shapes_and_dtypes(noise, of.noise(KEY, 8))
    np.testing.assert_array_equal(asking.predict(of, params, noise)["tokens"], TOKENS)
    act = do(tokens={2: 1})
    answer = np.asarray(asking.predict(of, params, noise, None, act)["tokens"])
    may = np.asarray(of.descendants(noise, act)["tokens"])
    assert (answer[:, 2] == 1).all() and not (answer != TOKENS)[~may].any()
    assert may[:, 2].all() and not may.all() and (answer != TOKENS)[:, [0, 1, 3, 4, 5]].any()


def test_what_a_template_gives_stays_and_evidence_beyond_truncation_is_named():
    of = model(MASKED, sampling=UnmaskConfig(top_k=1))
    params = perturbed(of)
    template = jnp.where(jnp.arange(T)[None] < 3, TOKENS, -1)
    drawn = asking.sample(of, params, KEY, 8, {"template": template})["tokens"]
    np.testing.assert_array_equal(drawn[:, :3], TOKENS[:, :3])
    with pytest.raises(UserError, match=r"evidence: token \d at place \d of row \d has probability 0 under sampling.top_k"):
        asking.abduct(of, params, KEY, {"tokens": TOKENS})
    with pytest.raises(UserError, match=f"token {of.mask} at place 0 of row 0 is out of range"):
        asking.abduct(of, params, KEY, {"tokens": TOKENS.at[0, 0].set(of.mask)})


def test_a_token_that_the_data_reserves_may_be_the_mask_and_is_never_predicted():
    entries = token_entries(T, V, "")
    entries["tokens"] = dataclasses.replace(entries["tokens"], high=V - 2.0)
    of = HybridTransformerConfig(objectives=(MASKED,), transformer=STACK, mask=V - 1).make(entries, {}, UnmaskConfig(), FULL, "none")
    params = perturbed(of)
    assert of.mask == V - 1
    assert not (asking.sample(of, params, KEY, 32)["tokens"] == of.mask).any()


# -- bad input -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: model(dataclasses.replace(NEXT, share=0.0)), "shares sum to zero; give one of them a share"),
        (lambda: model(NEXT, mixer=MixerConfig("bandit")), "a bandit with one arm has nothing to choose"),
        (lambda: model(NEXT, MASKED, mixer=MixerConfig("alternate", steps=(3,))), "1 turns for 2 objectives"),
        (lambda: model(NEXT, MASKED, mixer=MixerConfig("phases", steps=(3,), stages=((1.0, 0.0),))), "1 stages and 1 lengths"),
        (
            lambda: model(NEXT, MASKED, mixer=MixerConfig("phases", steps=(3,), stages=((1.0, 0.0), (0.0, 0.0)))),
            "sum to zero; give one of them a share",
        ),
        (lambda: model(ObjectiveConfig("diffusion"), draws=3, coupled=True), "come in pairs, and draws=3 is odd"),
        (lambda: model(ObjectiveConfig("diffusion", schedule=Schedule("cosine")), coupled=True), "under a linear schedule in continuous"),
        (lambda: model(MASKED, coupled=True), "'masked' is not that; set coupled to false"),
        (lambda: ObjectiveConfig("masked", placed=True), "placed is about spans that are moved; kind=masked moves none"),
        (lambda: ObjectiveConfig("masked", low=0.5, high=0.2), "low=0.5 is above high=0.2"),
        (lambda: ObjectiveConfig("span", visibility="causal() | prefix()"), "set rest to false"),
        (lambda: model(MASKED, mask=3), r"mask: token 3 is also one of the data's, 0\.\.4"),
        (lambda: model(MASKED, dataclasses.replace(MASKED, low=0.1)), "two have one name"),
        (lambda: model(SPAN), "'span' says nothing of a whole row"),
        (lambda: model(NEXT, dataclasses.replace(SPAN, longest=9)), "1 spans of up to 9 in 6 tokens"),
        (lambda: model(MASKED, sampling=UnmaskConfig(steps=9)), "9 are more than the 6 places to fill"),
        (lambda: model(MASKED, sampling=UnmaskConfig(policy="order", order=(1, 0))), "2 places, but rows have 6"),
        (lambda: UnmaskConfig(policy="order", order=(1, 1, 0)), "not a permutation of 0..2"),
        (lambda: model(NEXT).config.objective("maskd"), "there is no objective 'maskd'"),
        (lambda: model(MASKED).conditionals({}, {"tokens": TOKENS}, Query(order=np.zeros(T, int))), "not a permutation of 0..5"),
        (lambda: loss(model(NEXT, dataclasses.replace(MASKED, share=0.01)), {}), "8 rows leave none for a share of 0.01"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(make, said):
    with pytest.raises(ConfigError, match=said) as caught:
        make()
    assert "\n" not in str(caught.value)
