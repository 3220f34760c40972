"""What the laws of tests/test_laws.py do not cover: labels, masking, the released code's switches, likelihood."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.models.block_terms import labelled_first
from causal_gen.models.diffusion_ae import DiffusionAE
from causal_gen.models.diffusion_ae_config import DiffusionAEConfig, EncoderConfig, UNetConfig, WeightsConfig
from causal_gen.sampling.base import SamplingConfig
from causal_gen.scm.intervention import do
from causal_gen.types import ConfigError, Entry

FACTORS = ("a", "b", "c")
ENTRIES = {"image": Entry((8, 8, 1))} | {name: Entry(()) for name in FACTORS}
STATS = {name: {"mean": 1.0, "std": 2.0, "quantiles": np.linspace(-2.0, 4.0, 65).tolist()} for name in FACTORS}
CONFIG = DiffusionAEConfig(
    graph=(("a", "b"), ("b", "c")),
    block=2,
    fourier=1,
    mechanism_widths=(8,),
    encoder=EncoderConfig(widths=(8,), hidden=8, groups=4),
    unet=UNetConfig(channels=8, multipliers=(1,), groups=4, head_dim=8, patch=4, middle_attention=False),
)
KEY = jax.random.key(0)


def make(sampling: SamplingConfig | None = None, **changes: object) -> DiffusionAE:
    return dataclasses.replace(CONFIG, **changes).make(ENTRIES, STATS, sampling or SamplingConfig(steps=4), "", "none")


@functools.cache
def params(model: DiffusionAE):
    """Off the initial point, where blocks are the identity and the output is zero."""
    leaves, tree = jax.tree.flatten(jax.jit(model.init)(KEY))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return jax.tree.unflatten(tree, [p + 0.2 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)])


def batch(**changes):
    rows = {name: jnp.linspace(-1.0, 3.0, 4) + i for i, name in enumerate(FACTORS)}
    return {"image": jax.random.uniform(KEY, (4, 8, 8, 1)), **rows, **changes}


@functools.partial(jax.jit, static_argnums=0)
def loss(model, params, batch, step=0):
    return model.loss(params, KEY, batch, step=jnp.asarray(step), train=True)


def test_a_row_without_labels_is_not_taught_its_labels():
    model = make()
    mask = jnp.array([True, False, True, True])
    total, aux = loss(model, params(model), batch(label_mask=mask))
    other, _ = loss(model, params(model), batch(label_mask=mask, b=batch()["b"].at[1].add(9.0)))
    np.testing.assert_array_equal(total, other)
    assert aux.terms["label_kl"][1] == 0 and aux.terms["mechanism"][1] == 0 and aux.terms["noise_kl"][1] > 0
    changed, _ = loss(model, params(model), batch(label_mask=mask, b=batch()["b"].at[0].add(9.0)))
    assert changed[0] != total[0]


def test_unlabelled_batches_train_without_label_terms():
    model = make()
    _, aux = loss(model, params(model), {"image": batch()["image"]})
    assert not aux.terms["label_kl"].any() and not aux.terms["mechanism"].any() and (aux.terms["diffusion"] > 0).all()


@pytest.mark.parametrize(("weight", "felt"), [(0.1, False), (0.0, True)])
def test_mechanisms_learn_from_their_own_term_or_else_from_the_rest(weight, felt):
    """Without labels there is nothing to fit them to: only where they have no term of their own does the decoder teach them."""
    model = make(weights=WeightsConfig(mechanism=weight))
    slopes = jax.jit(jax.grad(lambda p: model.loss(p, KEY, {"image": batch()["image"]}, step=jnp.int32(0), train=True)[0].sum()))
    slopes = slopes(params(model))["mechanisms"]
    found = [float(jnp.abs(leaf).max()) for name, tree in slopes.items() if name != "log_scale" for leaf in jax.tree.leaves(tree)]
    assert found and any(found) is felt


def test_a_location_is_fitted_by_least_squares_whatever_its_scale():
    """A likelihood would weigh entries by 1 / scale^2, so that those of pure noise drown the others."""
    model = make()
    start = params(model)["mechanisms"]
    labels = model._terms.labels(batch(), len(batch()["a"]))

    def total(mechanisms):
        only = {"mechanisms": mechanisms}
        return model._terms.mechanism_nll(labels, KEY, model._scale(only), model._location(only))[1].sum()

    nll = jax.jit(jax.value_and_grad(total))
    value, slopes = nll(start)
    narrow, sharp = nll({**start, "log_scale": start["log_scale"] - 2.0})
    assert narrow > value
    assert float(jnp.abs(slopes.pop("log_scale") - sharp.pop("log_scale")).max()) > 1
    jax.tree.map(np.testing.assert_array_equal, slopes, sharp)
    assert any(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(slopes))


def test_labels_never_reach_abduction():
    model = make()
    abduct = jax.jit(lambda b: model.abduct(params(model), KEY, b))
    jax.tree.map(np.testing.assert_array_equal, abduct(batch()), abduct(batch(a=batch()["a"] + 5.0)))


def test_a_perfect_posterior_leaves_only_its_width_in_the_label_divergence():
    """KL between N(y, sigma^2) and p(z|y) = N(y, sigma^2) is zero; one sigma aside costs a half."""
    model = make(kl_reduction="sum")
    labels, scale = model._terms.labels(batch(), len(batch()["a"])), model._scale(params(model))
    mean, log_variance = model._terms.label_prior(labels[0])
    zero = jnp.zeros_like(mean)
    kls = model._terms.kls(labels, zero, mean, zero, log_variance, scale)
    np.testing.assert_allclose(kls["label_kl"], 0, atol=1e-5)
    aside = zero.at[:, 0, 0].set(CONFIG.label_scale / np.sqrt(CONFIG.block))
    np.testing.assert_allclose(model._terms.kls(labels, aside, mean + aside, aside, log_variance, scale)["label_kl"], 0.5, rtol=1e-3)


def test_guidance_weight_one_ignores_the_null_and_others_do_not():
    x = jax.random.normal(KEY, (2, 8, 8, 1))
    z, t = jnp.ones((2, 3, 2)), jnp.full((2,), 500)
    out = {}
    for omega in (0.0, 1.0, 2.0):
        model = make(SamplingConfig(steps=4, omega=omega))
        out[omega] = jax.jit(lambda p, m=model: m._guided(p, z)(x, t)[1])(params(model))
    np.testing.assert_allclose(out[2.0], 2 * out[1.0] - out[0.0], atol=1e-5)
    assert float(jnp.abs(out[1.0] - out[0.0]).max()) > 1e-5


def test_released_switches_change_what_they_name():
    """Every switch towards the released code moves the loss on the same parameters; batch normalisation couples the batch."""
    model = make()
    plain, _ = loss(model, params(model), batch(), 10)
    for change in (
        {"through": "u"}, {"noise_scale": "unit"}, {"fixed_variance": 0.001}, {"kl_reduction": "sum"}, {"label_forcing": 1.0},
        {"drop": 1.0, "null": "zero"}, {"drop": 1.0, "kl_kept_only": True}, {"weights": WeightsConfig(gamma_warmup=1000)},
    ):  # fmt: skip
        other, _ = loss(make(**change), params(model), batch(), 10)
        assert not np.allclose(plain, other, rtol=1e-6), change
    coupled = make(encoder=dataclasses.replace(CONFIG.encoder, norm="batch"))
    assert coupled.batch_coupled and not model.batch_coupled
    total, aux = loss(coupled, params(coupled), batch())
    moved, _ = loss(coupled, params(coupled), batch(image=batch()["image"].at[3].multiply(0.1)))
    assert total[0] != moved[0]
    state = coupled.update_state(params(coupled), aux.stats)
    expected = 0.9 * params(coupled)["state"]["running"][0][0] + 0.1 * aux.stats[0][0]
    np.testing.assert_allclose(state["running"][0][0], expected, rtol=1e-6)


def test_the_intervened_factor_takes_its_value_exactly_in_physical_units():
    model = make(scaling=(("b", "standard"),))
    noise = model.noise(KEY, 4)
    values = jnp.array([0.1, -3.7, 2.0, 1e3])
    out = jax.jit(lambda v: model.predict(params(model), noise, None, do(b=v)))(values)
    np.testing.assert_array_equal(out["b"], values)


def test_bound_on_the_likelihood_knows_nothing_of_training_weights():
    """Weights, reductions and warm-up are a matter of training; the bound in nats is the model's."""
    model = make()
    weighted = make(kl_reduction="sum", weights=WeightsConfig(gamma=3.0, gamma_warmup=7, label=2.0), label_forcing=0.0)
    bounds = [jax.jit(lambda p, b, m=m: m.log_prob(p, KEY, b))(params(model), batch()) for m in (model, weighted)]
    assert jnp.isfinite(bounds[0]).all()
    np.testing.assert_allclose(bounds[0], bounds[1], rtol=1e-5)
    far = jax.jit(lambda p, b: model.log_prob(p, KEY, b))(params(model), batch(a=batch()["a"] + 50.0))
    assert (far < bounds[0]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"graph": (("a", "zz"),)}, "model.graph: factor 'zz' is not in the data"),
        ({"scaling": (("zz", "logit"),)}, "model.scaling: factor 'zz'"),
        ({"image": "picture"}, "model.image: entry 'picture'"),
        ({"pad": 1}, "model.pad: sides 10 x 10 do not divide by 4"),
        ({"drop": 0.0}, "sampling.omega: 2.0 needs a model trained without z"),
    ],
)
def test_configs_that_do_not_fit_the_data_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        make(SamplingConfig(steps=4, omega=2.0), **changes)


def test_another_graph_needs_no_code():
    for graph in ((), (("c", "a"),), (("a", "b"), ("a", "c"), ("b", "c"))):
        model = make(graph=graph, nodes=FACTORS)
        out = jax.eval_shape(lambda m=model: m.predict(m.init(KEY), m.noise(KEY, 2)))
        assert set(out) == {*FACTORS, "image"} and out["image"].shape == (2, 8, 8, 1)


def test_the_decoder_is_trained_on_labelled_rows_first_and_on_evenly_spaced_ones_where_all_or_none_are_labelled():
    """Ten rows in groups of four, the last one short: each group gives its first labelled row, or its first."""
    rows = jnp.arange(10.0)
    leaves = {"flat": rows, "deep": jnp.stack([rows, -rows], 1)[:, None], "none": None}
    for labelled, want in (([0, 0, 1, 1, 0, 0, 0, 0, 0, 1], [2, 4, 9]), ([1] * 10, [0, 4, 8]), ([0] * 10, [0, 4, 8])):
        found = labelled_first(jnp.asarray(labelled, jnp.float32), 4, leaves)
        np.testing.assert_array_equal(found["flat"], want)
        np.testing.assert_array_equal(found["deep"][:, 0, 1], -np.asarray(want))
        assert found["none"] is None
