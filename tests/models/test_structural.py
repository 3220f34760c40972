"""Structural causal models: true mechanisms against closed forms, the laws of interventions, and what a config can get wrong."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import causal_gen as cg
from causal_gen.build import build
from causal_gen.data.scm import LINEAR
from causal_gen.evaluate.structural import contributions
from causal_gen.scm.counterfactual import abduct, counterfactual, predict, sample
from causal_gen.types import ConfigError, InterventionError, UserError

KEY = jax.random.key(0)
EDGES = {
    "linear": (("a", "b"), ("a", "c"), ("b", "c"), ("b", "d"), ("c", "d")),
    "triangle": (("x1", "x2"), ("x1", "x3"), ("x2", "x3")),
    "discrete": (("z", "x"), ("z", "y"), ("x", "y")),
}


@functools.cache
def experiment(system: str, mechanism: str):
    """`mechanism` is a default, or "maf" for one flow of all nodes."""
    joint = mechanism == "maf"
    default = {"name": "spline" if joint else mechanism, "widths": (8, 8) if joint else (8,), "bins": 4}
    data = {"name": "scm", "system": system, "size": 400, "test_size": 200}
    return build({"data": data, "model": {"name": "structural", "graph": EDGES[system], "default": default, "joint": joint}})


@functools.cache
def perturbed(system: str, mechanism: str, sd: float = 0.3):
    leaves, tree = jax.tree.flatten(jax.jit(experiment(system, mechanism).model.init)(KEY))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return jax.tree.unflatten(tree, [leaf + sd * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)])


def true_lines():
    """The model of the linear system with its own equations as parameters."""
    model = experiment("linear", "linear").model
    return model, {name: model.mechanism(name).from_line(slopes, at, scale) for name, (at, slopes, scale) in LINEAR.items()}


def test_true_lines_give_the_closed_form_of_every_counterfactual():
    """do, shift, and two nodes at once: x* = (I - B)^-1 (c + e*) with the rows of nodes acted upon replaced, in float64."""
    model, params = true_lines()
    source = experiment("linear", "linear").data
    rows = source.gather("test", np.arange(200))
    names = list(LINEAR)
    weights = np.array([[LINEAR[child][1].get(parent, 0.0) for parent in names] for child in names])
    values = np.stack([rows[name].astype(np.float64) for name in names], 1)
    residual = values - values @ weights.T
    for act, fixed, moved in (
        (cg.do(b=1.5), {"b": 1.5}, {}),
        (cg.shift(a=-2.0), {}, {"a": -2.0}),
        (cg.do(b=-1.0) & cg.do(c=2.0), {"b": -1.0, "c": 2.0}, {}),
    ):
        slopes, right = weights.copy(), residual.copy()
        for name, value in fixed.items():
            slopes[names.index(name)], right[:, names.index(name)] = 0.0, value
        for name, by in moved.items():
            right[:, names.index(name)] += by
        want = np.linalg.solve(np.eye(4) - slopes, right.T).T
        found = counterfactual(model, params, KEY, rows, act)
        for i, name in enumerate(names):
            np.testing.assert_allclose(found[name], want[:, i], atol=1e-5)
        truth = source.truth("test", np.arange(200), act)
        np.testing.assert_allclose(np.stack([truth[name] for name in names], 1), want, atol=1e-5)


def test_draws_under_an_intervention_have_the_mean_and_covariance_of_the_formula():
    """20,000 rows under do(b = 2): within four standard errors of (I - B')^-1 c' and of the covariance."""
    model, params = true_lines()
    names, num = list(LINEAR), 20_000
    found = sample(model, params, KEY, num, do=cg.do(b=2.0))
    drawn = np.stack([np.asarray(found[name], np.float64) for name in names], 1)
    weights = np.array([[LINEAR[child][1].get(parent, 0.0) if child != "b" else 0.0 for parent in names] for child in names])
    constant = np.array([2.0 if name == "b" else LINEAR[name][0] for name in names])
    scale = np.array([0.0 if name == "b" else LINEAR[name][2] for name in names])
    mix = np.linalg.inv(np.eye(4) - weights)
    covariance = mix @ np.diag(scale**2) @ mix.T
    spread = np.sqrt(np.diag(covariance))
    assert (np.abs(drawn.mean(0) - mix @ constant) <= 4 * spread / num**0.5 + 1e-5).all()
    errors = np.sqrt((covariance**2 + np.outer(spread**2, spread**2)) / num)
    assert (np.abs(np.cov(drawn.T) - covariance) <= 4 * errors + 1e-5).all()


@pytest.mark.parametrize(
    ("system", "mechanism"), [("triangle", "spline"), ("triangle", "maf"), ("triangle", "vae"), ("discrete", "discrete")]
)
def test_laws_of_interventions(system, mechanism):
    """Null interventions give the row back; what is not below stays where it was, exactly; the node takes its value; noise has its tree."""
    model, params = experiment(system, mechanism).model, perturbed(system, mechanism)
    rows = experiment(system, mechanism).data.gather("test", np.arange(64))
    noise = abduct(model, params, KEY, rows)
    assert jax.tree.map(jnp.shape, noise) == jax.tree.map(jnp.shape, model.noise(KEY, 64))
    back = predict(model, params, noise)
    for name in model.graph.nodes:
        np.testing.assert_allclose(back[name], rows[name], atol=0 if system == "discrete" else 1e-4)
    for name in model.graph.nodes:
        changed = predict(model, params, noise, do=cg.do(**{name: 1.0}))
        assert np.all(np.asarray(changed[name]) == 1)
        for other in model.graph.nodes:
            below = other == name or other in model.graph.descendants(name)
            assert bool(np.all(model.descendants(noise, cg.do(**{name: 1.0}))[other] == below))
            moved = bool(np.any(np.asarray(changed[other]) != np.asarray(back[other])))
            assert moved == below or (below and system == "discrete"), (name, other)


@pytest.mark.parametrize("mechanism", ["spline", "additive", "maf"])
def test_the_joint_density_is_that_of_the_noise_times_the_jacobian(mechanism):
    """log_prob against log N(e) + log |det de / dx|, the latter by differentiating the whole abduction."""
    model, params = experiment("triangle", mechanism).model, perturbed("triangle", mechanism)
    rows = experiment("triangle", mechanism).data.gather("test", np.arange(32))
    values = jnp.stack([jnp.asarray(rows[name]) for name in model.graph.nodes], -1)

    def noise(x):
        found = model.abduct(params, KEY, {name: x[i][None] for i, name in enumerate(model.graph.nodes)})
        found = found.get("x1+x2+x3", found)
        return jnp.concatenate([found[name] for name in model.graph.nodes])

    jacobian = jax.jit(jax.vmap(jax.jacobian(noise)))(values)
    want = stats.norm.logpdf(np.asarray(jax.jit(jax.vmap(noise))(values))).sum(1) + np.linalg.slogdet(np.asarray(jacobian, np.float64))[1]
    np.testing.assert_allclose(jax.jit(model.log_prob)(params, KEY, rows), want, atol=1e-3)


def test_a_path_specific_intervention_is_the_nested_counterfactual():
    """do(x1 = 1) on the edge to x3 alone: x2 stays, x3 is f3(1, x2, e3), in the model and in the equations of the source."""
    model, params = experiment("triangle", "spline").model, perturbed("triangle", "spline")
    data = experiment("triangle", "spline").data
    rows, act = data.gather("test", np.arange(32)), cg.do(x1=1.0, edge=("x1", "x3"))
    noise = abduct(model, params, KEY, rows)
    found, back = predict(model, params, noise, do=act), predict(model, params, noise)
    np.testing.assert_array_equal(found["x1"], back["x1"])
    np.testing.assert_array_equal(found["x2"], back["x2"])
    nested = model.mechanism("x3").predict(params["x3"], noise["x3"], {"x1": jnp.ones(32), "x2": back["x2"]})
    np.testing.assert_allclose(found["x3"], nested["x3"], atol=1e-5)
    truth = data.truth("test", np.arange(32), act)
    e3 = rows["x3"] - 20 / (1 + np.exp(rows["x1"] - rows["x2"].astype(float) ** 2))
    np.testing.assert_allclose(truth["x3"], 20 / (1 + np.exp(1 - rows["x2"].astype(float) ** 2)) + e3, atol=1e-4)
    np.testing.assert_array_equal(truth["x2"], rows["x2"])


def test_one_flow_of_all_nodes_sees_parents_alone():
    """Exactly no derivative of a node's mean by what is no parent of it, in a chain of which each could see all before it."""
    config = {"data": {"name": "scm", "system": "linear", "size": 40, "test_size": 20}}
    model = {"name": "structural", "graph": (("a", "b"), ("b", "c"), ("a", "d"), ("c", "d")), "joint": True}
    made = build({**config, "model": {**model, "default": {"name": "spline", "widths": (4, 4), "bins": 3}}})
    leaves, tree = jax.tree.flatten(made.model.init(KEY))
    keys = jax.random.split(KEY, len(leaves))
    params = jax.tree.unflatten(tree, [leaf + 0.5 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)])
    rows = jax.tree.map(jnp.asarray, made.data.gather("test", np.arange(20)))

    def mean(node, rows):
        return made.model.conditionals(params, rows)[node].moments[0].sum()

    slopes = jax.jit(lambda rows: {node: jax.grad(functools.partial(mean, node))(rows) for node in rows})(rows)
    for node, slope in slopes.items():
        for other, value in slope.items():
            assert bool(jnp.any(value != 0)) == (other in made.model.graph.parents(node)), (node, other)


def test_a_diffusions_round_trip_errs_less_the_finer_its_steps():
    """And it hands on what it was set to, all that is not below staying where it was."""
    model, params = experiment("triangle", "diffusion").model, perturbed("triangle", "diffusion", 0.1)
    rows, errors = experiment("triangle", "diffusion").data.gather("test", np.arange(32)), []
    for steps in (10, 100):
        finer = dataclasses.replace(model, mechanisms=tuple(dataclasses.replace(one, steps=steps) for one in model.mechanisms))
        noise = abduct(finer, params, KEY, rows)
        back = predict(finer, params, noise)
        errors.append(max(float(jnp.abs(back[name] - rows[name]).mean() / rows[name].std()) for name in rows))
    assert errors[1] < 0.06 and errors[1] < errors[0] / 4, errors
    moved = predict(finer, params, noise, do=cg.do(x2=1.0))
    np.testing.assert_array_equal(moved["x1"], back["x1"])
    assert bool((moved["x2"] == 1).all()) and bool(jnp.any(moved["x3"] != back["x3"])) and model.likelihood is None


def test_contributions_of_a_linear_model_are_the_squares_of_its_total_slopes():
    """(I - B)^-1 diag(sd): row d, squared, as shares of the variance."""
    model, params = true_lines()
    names = list(LINEAR)
    weights = np.array([[LINEAR[child][1].get(parent, 0.0) for parent in names] for child in names])
    mix = (np.linalg.inv(np.eye(4) - weights) * np.array([LINEAR[name][2] for name in names])[None])[names.index("d")] ** 2
    found = contributions(model, params, KEY, "d")
    assert abs(sum(found.values()) - 1) < 1e-6
    np.testing.assert_allclose([found[name] for name in names], mix / mix.sum(), atol=0.02)


def test_evidence_that_is_impossible_or_not_finite_is_named_with_its_row():
    model, source = experiment("discrete", "table").model, experiment("discrete", "table").data
    rows = dict(source.gather("test", np.arange(8)))
    params = model.fit(model.init(KEY), source.gather("train", np.arange(400)))
    for value, said in ((7, "row 3, column 'y': 7 is none of its values 0..2"), (-1, "row 3, column 'y': -1 is none")):
        with pytest.raises(UserError, match=said):
            abduct(model, params, KEY, {**rows, "y": np.where(np.arange(8) == 2, value, rows["y"])})
    never = {**params, "z": {"free": params["z"]["free"].at[int(rows["z"][0])].set(-jnp.inf)}}
    with pytest.raises(UserError, match=rf"row 1: z={rows['z'][0]} has probability zero given its parents"):
        abduct(model, never, KEY, rows)
    real, given = experiment("triangle", "spline"), experiment("triangle", "spline").data.gather("test", np.arange(8))
    with pytest.raises(UserError, match="row 5, column 'x2': nan is not finite"):
        abduct(real.model, perturbed("triangle", "spline"), KEY, {**given, "x2": np.where(np.arange(8) == 4, np.nan, given["x2"])})


@dataclasses.dataclass(frozen=True)
class Mute:
    """A mechanism that draws and cannot look back."""

    inner: object
    abduct: None = None

    def __getattr__(self, name):
        return getattr(self.inner, name)


def test_a_mechanism_that_cannot_abduct_is_named_where_a_counterfactual_is_asked():
    model, params = experiment("triangle", "spline").model, perturbed("triangle", "spline")
    mute = dataclasses.replace(model, mechanisms=(*model.mechanisms[:2], Mute(model.mechanisms[2])))
    with pytest.raises(UserError, match="the mechanism of 'x3' cannot abduct"):
        abduct(mute, params, KEY, experiment("triangle", "spline").data.gather("test", np.arange(8)))
    assert sample(mute, params, KEY, 8)["x3"].shape == (8,)


def test_a_table_is_fitted_to_the_shares_of_the_rows():
    model, source = experiment("discrete", "table").model, experiment("discrete", "table").data
    rows = source.gather("train", np.arange(400))
    params = model.fit(model.init(KEY), rows)
    told = model.conditionals(params, rows)["y"].logits
    for z in range(3):
        for x in range(2):
            here = (rows["z"] == z) & (rows["x"] == x)
            share = (np.bincount(rows["y"][here], minlength=3) + 0.5) / (here.sum() + 1.5)
            np.testing.assert_allclose(jax.nn.softmax(told[np.flatnonzero(here)[0]]), share, atol=1e-5)


def test_true_tables_agree_with_the_equations_of_the_source_in_every_likelihood():
    from causal_gen.data.scm import X, Y, Z

    model, source = experiment("discrete", "table").model, experiment("discrete", "table").data
    rows = source.gather("test", np.arange(200))
    params = {
        "z": {"free": jnp.log(jnp.asarray(Z))},
        "x": {"net": {"rows": jnp.log(jnp.asarray(X))}},
        "y": {"net": {"rows": jnp.log(jnp.asarray(Y.reshape(6, 3)))}},
    }
    np.testing.assert_allclose(-model.log_prob(params, KEY, rows), source.best("test", np.arange(200)), atol=1e-5)


def test_values_that_a_discrete_node_does_not_have_are_refused():
    model, params = experiment("discrete", "table").model, perturbed("discrete", "table")
    noise = model.noise(KEY, 4)
    with pytest.raises(InterventionError, match=r"do\(x=2\): its values are the whole numbers 0..1"):
        predict(model, params, noise, do=cg.do(x=2))
    with pytest.raises(InterventionError, match=r"shift\(x=...\): its values are names"):
        predict(model, params, noise, do=cg.shift(x=1))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"graph": (("a", "b"), ("b", "a"))}, r"model.graph: cycle"),
        ({"graph": (("a", "bb"),)}, r"model.graph: node 'bb' is not in the data; its entries are a, b, c, d"),
        ({}, r"model.graph: it has no nodes"),
        ({"graph": (("a", "b"),), "mechanisms": {"q": {"name": "linear"}}}, r"model.mechanisms.q: no node of the graph"),
        ({"graph": (("a", "b"),), "mechanisms": {"b": {"name": "table"}}}, r"model.mechanisms.b.name: 'table', but 'b' is a real number"),
        ({"graph": (("a", "b"),), "mechanisms": {"b": {"name": "lineer"}}}, r"model.mechanisms.b.name: must be one of .* mean 'linear'"),
        ({"graph": (("a", "b"),), "mechanisms": {"b": {"scaling": "log"}}}, r"model.mechanisms.b.scaling: scaling 'log' needs a factor"),
    ],
)
def test_what_a_config_can_get_wrong_is_one_line(model, message):
    with pytest.raises(ConfigError, match=message) as caught:
        build({"data": {"name": "scm", "size": 20, "test_size": 5}, "model": {"name": "structural", **model}})
    assert "\n" not in str(caught.value)
