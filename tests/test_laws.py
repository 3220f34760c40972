"""The laws of design.md on tiny modes: all that a causal diffusion autoencoder is under, and for every family those about training.

What a model says of causes is asked of every config in tests/test_causal_laws.py. Two real steps and all laws run for one config a family
and for those that changed; `make test-slow` runs them for every config.
"""

from __future__ import annotations

import dataclasses
import functools
import signal
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from configs_at_hand import tiny, worked
from scipy import stats

import causal_gen as cg
from causal_gen.parallel.compile import compile_step
from causal_gen.parallel.mesh import MeshConfig, make_mesh, put_batch, replicated
from causal_gen.scm import counterfactual as asking
from causal_gen.scm.counterfactual import abduct, predict
from causal_gen.train import loop
from causal_gen.train.optim import assign_groups
from causal_gen.train.step import make_init, make_step

FAMILIES = ("diffusion_ae", "causal_transformer", "hybrid_transformer", "structural", "bidirectional")
every_config = pytest.mark.parametrize("path", worked("diffusion_ae"))
every_family = pytest.mark.parametrize("path", [path for family in FAMILIES for path in worked(family)])
KEY = jax.random.key(0)


@functools.cache
def perturbed(path: str) -> Any:
    """Parameters off their start, where some layers are zero and hide what others do."""
    params = jax.jit(tiny(path).model.init)(KEY)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return jax.tree.unflatten(
        tree, [leaf + 0.02 * jax.random.normal(key, leaf.shape, leaf.dtype) for leaf, key in zip(leaves, keys, strict=True)]
    )


@functools.cache
def scenes(path: str, num: int = 8) -> dict[str, np.ndarray]:
    return tiny(path).data.gather("test", np.arange(num))


def acts(path: str) -> dict[str, cg.do]:
    """For every factor an intervention well inside of its range."""
    config = tiny(path).config["data"]["stats"]
    return {name: cg.do(**{name: float(config[name]["mean"] + config[name]["std"])}) for name in tiny(path).model.factors}


# -- 1: no leak ----------------------------------------------------------------------------------------------------------------


@every_config
def test_a_factors_conditional_sees_its_parents_and_nothing_else(path):
    """Derivatives of every factor's predicted mean: zero with respect to all but its parents' labels, not zero there."""
    model, params, batch = tiny(path).model, perturbed(path), scenes(path)

    @jax.jit
    def slopes(batch):
        def mean(name, batch):
            return model.conditionals(params, batch)[name].moments[0].sum()

        return {name: jax.grad(functools.partial(mean, name))(batch) for name in model.factors}

    floats = {name: jnp.asarray(batch[name]) for name in (*model.factors, model.graph.nodes[-1])}
    for name, slope in slopes(floats).items():
        for entry, gradient in slope.items():
            seen = bool(np.any(np.asarray(gradient) != 0))
            assert seen == (entry in model.graph.parents(name)), f"{name} given {entry}"


@every_config
def test_the_pictures_conditional_does_not_see_the_picture(path):
    """Asked at a given noised picture, the prediction of x_0 depends on the factors alone."""
    model, params, batch = tiny(path).model, perturbed(path), scenes(path)
    image = model.graph.nodes[-1]
    floats = {name: jnp.asarray(batch[name]) for name in model.graph.nodes}

    @jax.jit
    def slope(batch):
        return jax.grad(lambda batch: (model.conditionals(params, batch)[image].moments[0] ** 2).sum())(batch)

    found = slope(floats)
    assert not np.any(found[image]) and all(np.any(found[name]) for name in model.factors)


# -- 3 and 4: interventions ----------------------------------------------------------------------------------------------------


@every_config
def test_null_interventions_give_the_picture_back_the_better_the_finer_the_steps(path):
    """DDIM's round trip errs like 1 / steps: more steps must help, and the rest must be small."""
    model, params, batch = tiny(path).model, perturbed(path), scenes(path)
    image, errors = model.graph.nodes[-1], []
    for steps in (25, 400):
        finer = dataclasses.replace(model, sampling=dataclasses.replace(model.sampling, steps=steps, encode="invert", omega=1.0))
        back = predict(finer, params, abduct(finer, params, KEY, batch))
        errors.append(float(jnp.abs(back[image] - batch[image]).mean()))
    assert errors[1] < 0.02 and errors[1] < errors[0] / 2, errors


@every_config
def test_what_an_intervention_does_not_reach_stays_exactly_where_it_was(path):
    """Across all single interventions: non-descendants differ by exactly 0, the node takes its value and its descendants move.

    The released code hands parents' u to their children, which an intervention on z does not reach: only the picture moves.
    """
    model, params = tiny(path).model, perturbed(path)
    propagates = tiny(path).config["model"]["through"] == "z"
    noise = jax.jit(model.noise, static_argnums=1)(KEY, 4)
    natural = predict(model, params, noise)
    chex.assert_trees_all_equal(natural, predict(model, params, noise, do=None))
    for name, act in acts(path).items():
        moved = model.descendants(noise, act)
        changed = predict(model, params, noise, do=act)
        np.testing.assert_allclose(changed[name], act.actions[name].args[0], rtol=1e-4, atol=1e-3)
        for entry in model.graph.nodes:
            reached = entry == name or entry in model.graph.descendants(name)
            assert np.all(np.asarray(moved[entry]) == reached), (name, entry)
            differs = np.asarray(changed[entry]) != np.asarray(natural[entry])
            moves = reached and (propagates or entry in (name, model.graph.nodes[-1]))
            assert np.any(differs) == moves, (name, entry)


@every_config
def test_another_value_is_not_another_trace(path):
    model, params = tiny(path).model, perturbed(path)
    noise = jax.jit(model.noise, static_argnums=1)(KEY, 4)
    for value in (None, *acts(path).values()):
        predict(model, params, noise, do=value)
    traced = asking._predict._cache_size()
    for scale in (0.5, 0.7):
        for name, act in acts(path).items():
            predict(model, params, noise, do=cg.do(**{name: act.actions[name].args[0] * scale}))
    assert asking._predict._cache_size() == traced


# -- 5: noise is noise ---------------------------------------------------------------------------------------------------------


@every_config
def test_abducted_noise_has_the_shape_of_noise_and_noise_is_standard_normal(path):
    model, params = tiny(path).model, perturbed(path)
    drawn = jax.jit(model.noise, static_argnums=1)(KEY, 8)
    found = abduct(model, params, KEY, scenes(path))
    chex.assert_trees_all_equal_shapes_and_dtypes(drawn, found)
    many = jax.jit(model.noise, static_argnums=1)(jax.random.key(3), 400)
    for name, value in many.items():
        pooled = np.asarray(value).reshape(-1)[:20_000]
        assert stats.kstest(pooled, "norm").pvalue > 1e-3, name


# -- 6: limit cases ------------------------------------------------------------------------------------------------------------


@every_config
def test_without_guidance_weight_the_picture_ignores_the_factors(path):
    """omega = 0 is the unconditional model: no intervention may move its picture. omega = 1 is the conditional one."""
    model, params = tiny(path).model, perturbed(path)
    noise = jax.jit(model.noise, static_argnums=1)(KEY, 4)
    image, act = model.graph.nodes[-1], next(iter(acts(path).values()))
    weight = {omega: dataclasses.replace(model, sampling=dataclasses.replace(model.sampling, omega=omega)) for omega in (0.0, 1.0)}
    free = [predict(weight[0.0], params, noise, do=do)[image] for do in (None, act)]
    bound = [predict(weight[1.0], params, noise, do=do)[image] for do in (None, act)]
    np.testing.assert_array_equal(free[0], free[1])
    assert np.any(np.asarray(bound[0]) != np.asarray(bound[1]))


# -- 7: one device = eight devices, resumed = uninterrupted ----------------------------------------------------------------------


def losses(path: str, devices: int, steps: int = 5) -> list[float]:
    experiment = tiny(path)
    mesh = make_mesh(MeshConfig(), jax.devices()[:devices])
    placed = jax.tree.map(lambda _: replicated(mesh), jax.eval_shape(make_init(experiment.model, experiment.train)))
    state = jax.jit(make_init(experiment.model, experiment.train), out_shardings=placed)()
    step = compile_step(make_step(experiment.model, experiment.train), mesh, placed, batch_coupled=experiment.model.batch_coupled)
    found = []
    for index in range(steps):
        rows = experiment.data.gather("train", (np.arange(8) + 8 * index) % experiment.data.size("train"))
        state, metrics = step(state, put_batch(mesh, rows))
        found.append(float(metrics["loss"]))
    assert step._cache_size() == 1, "the step is traced once"
    return found


@every_family
def test_eight_devices_compute_what_one_does(path):
    one, eight = losses(path, 1), losses(path, 8)
    assert np.all(np.isfinite(one))
    # a bound in nats of a whole picture is some hundreds, of which 2e-5 are less than a rounding
    assert np.all(np.abs(np.subtract(one, eight)) < 2e-5 * np.maximum(1, np.abs(one) / 16))


@every_family
def test_a_resumed_run_is_the_uninterrupted_one_byte_for_byte(path, tmp_path):
    """A signal after step 2 of 4, then the same command again; every parameter's bytes are compared."""
    experiment = tiny(path)
    parts = {name: getattr(experiment, name) for name in ("train", "mesh", "checkpoint")}
    log = dataclasses.replace(experiment.log, pictures_every=2)

    def fit(folder: str, pictures: Any):
        return loop.fit(experiment.model, experiment.data, tmp_path / folder, **parts, log=log, config=experiment.config, pictures=pictures)

    def nothing(params, step, stopped):
        return {}

    def interrupt(params, step, stopped):
        signal.raise_signal(signal.SIGTERM)
        return {}

    whole = fit("whole", nothing)
    first = fit("parts", interrupt)
    assert first.interrupted and first.step < whole.step == experiment.train.steps
    second = fit("parts", nothing)
    assert second.step == whole.step
    chex.assert_trees_all_equal(jax.device_get(whole.params), jax.device_get(second.params))
    restored = cg.restore(tmp_path / "parts")
    chex.assert_trees_all_equal(jax.device_get(restored.params), jax.device_get(whole.params))


# -- 8: finite, and everything learns ------------------------------------------------------------------------------------------


@every_family
def test_every_parameter_has_a_gradient_and_everything_is_finite(path):
    """In the middle of every schedule, frozen groups aside; several keys, since what is dropped or noised is drawn.

    The released code runs a network over a root's parents, which are none: its first kernel multiplies zeros.
    """
    experiment = tiny(path)
    model, params, config = experiment.model, perturbed(path), experiment.config["model"]
    roots = model.graph.roots if config.get("net_for_roots") else ()
    idle = {f"mechanisms/mechanism_{model.factors.index(name)}/hidden_0/kernel" for name in roots}
    frozen = [group.frozen for group in model.groups().values()]
    batch = {name: jnp.asarray(value) for name, value in experiment.data.gather("train", np.arange(8)).items()}
    middle = jnp.asarray(max(experiment.train.steps // 2, config.get("weights", {}).get("gamma_warmup", 0) // 2))

    @jax.jit
    def gradient(params):
        def mean(params, key):
            return model.loss(params, key, batch, step=middle, train=True)[0].mean()

        def body(total, key):
            return jax.tree.map(lambda a, b: a + jnp.abs(b), total, jax.grad(mean)(params, key)), None

        return jax.lax.scan(body, jax.tree.map(jnp.zeros_like, params), jax.random.split(KEY, 16))[0]

    found = gradient({name: value for name, value in params.items()})
    groups = jax.tree.leaves(assign_groups(model.groups(), found))
    for (where, leaf), group in zip(jax.tree_util.tree_leaves_with_path(found), groups, strict=True):
        name = jax.tree_util.keystr(where, simple=True, separator="/")
        assert np.all(np.isfinite(leaf)), name
        exempt = name.startswith("state/") or frozen[int(group)]
        assert exempt or np.any(np.asarray(leaf) != 0) == (name not in idle), f"{name} has no gradient"
    if model.likelihood is not None:
        bound = jax.jit(model.log_prob)(params, KEY, batch)
        assert bound.shape == (8,) and np.all(np.isfinite(bound))
