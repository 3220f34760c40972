"""Effects against formulas: linear and interacting mediators, paths by edges, conditions; necessity and sufficiency against enumeration."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from causal_gen.data.scm import LINEAR, X, Y, Z
from causal_gen.models.structural import Structural
from causal_gen.scm import counterfactual as asking
from causal_gen.scm.analytic import Enumerated, LinearGaussian
from causal_gen.scm.bounds import Observed, bounds, in_both, widened
from causal_gen.scm.effects import Condition, Contrast, average, causation, fulfil, unit_effects
from causal_gen.scm.intervention import do, shift
from causal_gen.scm.marginal import Scaling
from causal_gen.scm.mechanism import Column, Line, Monotone
from causal_gen.scm.transform import Affine
from causal_gen.structure.graph import Dag
from causal_gen.types import DataError, UserError

KEY = jax.random.key(0)
UNIT = Scaling("standard", 0.0, 1.0)
D = 0.5  # of x m, in the mediator with interaction
MEDIATOR = {"x": (0.0, {}, 1.0), "m": (0.0, {"x": 1.5}, 1.0), "y": (0.0, {"m": 0.7, "x": -0.8}, 1.0)}


@dataclasses.dataclass(frozen=True)
class Product:
    """The conditioner of y in equations (4) of data/scm.py, its true slopes as parameters; features are x and m."""

    def init(self, key):
        return jnp.array([-0.8, 0.7, D])

    def apply(self, params, features):
        x, m = features[:, 0], features[:, 1]
        return (params[0] * x + params[1] * m + params[2] * x * m)[:, None]


def linear(equations):
    """The model of these equations with their own numbers as parameters."""
    columns = {name: Column(name, UNIT) for name in equations}
    graph = Dag.from_edges([(p, c) for c, (_, slopes, _) in equations.items() for p in slopes], tuple(equations))
    mechanisms, params = [], {}
    for name in graph.order:
        parents = tuple(columns[parent] for parent in graph.parents(name))
        one = Monotone(columns[name], parents, Affine(), 1 if parents else 0, Line(len(parents)) if parents else None)
        mechanisms.append(one)
        params[name] = one.from_line(equations[name][1], equations[name][0], equations[name][2])
    return Structural(graph, tuple(mechanisms), (None,) * len(columns)), params


def interacting():
    model, params = linear(MEDIATOR)
    y = dataclasses.replace(model.mechanisms[2], conditioner=Product())
    return dataclasses.replace(model, mechanisms=(*model.mechanisms[:2], y)), {**params, "y": {**params["y"], "net": Product().init(KEY)}}


def asked(built, contrast, low, high, num=4_000, noise=None, held=None):
    model, params = built
    contrast.check(model)
    return unit_effects(model, contrast, params, model.noise(KEY, num) if noise is None else noise, low, high, held)


@pytest.mark.parametrize(
    ("kind", "held", "value"), [("total", (), 0.25), ("direct", (), -0.8), ("indirect", (), 1.05), ("controlled", ("m",), -0.8)]
)
def test_effects_through_a_linear_mediator_follow_the_formulas_in_every_unit(kind, held, value):
    """TE = .7 * 1.5 - .8, NDE = CDE = -.8, NIE = .7 * 1.5; so too along the paths, which are the direct and the indirect effect."""
    found = asked(linear(MEDIATOR), Contrast("x", "y", kind, held=held), 0.0, 1.0, 64, held=dict.fromkeys(held, 2.0))
    np.testing.assert_allclose(found, value, atol=1e-5)
    if kind in ("direct", "indirect"):
        path = ("x", "y") if kind == "direct" else ("x", "m", "y")
        np.testing.assert_allclose(asked(linear(MEDIATOR), Contrast("x", "y", "path", (path,)), 0.0, 1.0, 64), value, atol=1e-5)


def test_with_interaction_the_cross_world_terms_are_not_total_less_direct():
    """y = .7 m - .8 x + D x m, from 1 to 2: NDE = -.8 + D E M(1) = -.8 + 1.5 D; NIE = (.7 + D) 1.5; TE = NDE + NIE + 1.5 D."""
    points, weights = np.polynomial.hermite_e.hermegauss(16)
    noise = {"x": jnp.zeros(16), "m": jnp.asarray(points, jnp.float32), "y": jnp.zeros(16)}
    truth = {"direct": -0.8 + 1.5 * D, "indirect": 1.5 * (0.7 + D), "total": 0.25 + 4.5 * D}
    for kind, value in truth.items():
        contrast = Contrast("x", "y", kind)
        exact = float((np.asarray(asked(interacting(), contrast, 1.0, 2.0, noise=noise), np.float64) * weights).sum() / weights.sum())
        assert abs(exact - value) < 1e-5, kind
        drawn = average(asked(interacting(), contrast, 1.0, 2.0, 4_000))
        assert abs(drawn.value - value) < 4 * drawn.error + 1e-5, kind
    back = average(asked(interacting(), Contrast("x", "y", "indirect"), 2.0, 1.0, noise=noise))
    total = asked(interacting(), Contrast("x", "y"), 1.0, 2.0, noise=noise)
    direct = asked(interacting(), Contrast("x", "y", "direct"), 1.0, 2.0, noise=noise)
    np.testing.assert_allclose(np.asarray(total - direct).mean(), -back.value, atol=1e-5)  # TE = NDE - NIE the other way, always


def test_paths_of_a_larger_graph_add_up_to_the_total_effect_where_all_is_linear():
    """a to d in equations (1): through b, through c, through b and c. Products of slopes; all together the total effect."""
    built, oracle = linear(LINEAR), LinearGaussian.of(LINEAR)
    slopes = {(p, c): s for c, (_, found, _) in LINEAR.items() for p, s in found.items()}
    paths = [("a", "b", "d"), ("a", "c", "d"), ("a", "b", "c", "d")]
    single = [asked(built, Contrast("a", "d", "path", (path,)), -1.0, 1.0, 8) for path in paths]
    for path, found in zip(paths, single, strict=True):
        np.testing.assert_allclose(found, 2 * np.prod([slopes[edge] for edge in zip(path, path[1:], strict=False)]), atol=1e-5)
    together = asked(built, Contrast("a", "d", "path", tuple(paths)), -1.0, 1.0, 8)
    np.testing.assert_allclose(together, 2 * oracle.effect("a", "d"), atol=1e-5)
    np.testing.assert_allclose(sum(single), together, atol=1e-5)


def test_an_effect_within_a_group_and_on_given_rows():
    """Y = .7 m - .8 x + D x m: the effect of m on y is .7 + D x, so that it differs between those with x > 1 and all, and row by row."""
    model, params = interacting()
    noise = model.noise(KEY, 20_000)
    natural = asking.predict(model, params, noise)
    found = asked((model, params), Contrast("m", "y"), 0.0, 1.0, noise=noise)
    kept = fulfil([Condition.parse("x > 1", model.graph.nodes)], natural, 20_000)
    group, everyone = average(found, kept), average(found)
    x = np.random.default_rng(1).standard_normal(2_000_000)
    assert abs(group.value - (0.7 + D * x[x > 1].mean())) < 4 * group.error + 2e-3 and abs(everyone.value - 0.7) < 4 * everyone.error
    assert group.units == int((np.asarray(natural["x"]) > 1).sum())
    rows = {name: value[:5] for name, value in natural.items()}
    again = asked((model, params), Contrast("m", "y"), 0.0, 1.0, noise=asking.abduct(model, params, KEY, rows))
    np.testing.assert_allclose(again, 0.7 + D * np.asarray(rows["x"]), atol=1e-4)


@pytest.mark.parametrize(
    ("contrast", "word"),
    [
        (Contrast("q", "y"), "no factor that can be set"),
        (Contrast("x", "x"), "no other node"),
        (Contrast("x", "y", "path"), "differ"),
        (Contrast("x", "y", "path", (("x", "q", "y"),)), "no edge x->q"),
        (Contrast("x", "y", "path", (("m", "y"),)), "does not lead"),
        (Contrast("x", "y", "controlled", held=("y",)), "cannot be held"),
    ],
)
def test_a_contrast_that_cannot_be_asked_is_named(contrast, word):
    with pytest.raises(UserError, match=word):
        contrast.check(linear(MEDIATOR)[0])


def test_conditions_are_read_or_refused():
    for text in ("x ~ 3", "q>1", "x>", "x>1e"):
        with pytest.raises(UserError, match="write NAME>NUMBER"):
            Condition.parse(text, ("x",))
    with pytest.raises(UserError, match="at least 30"):
        average(jnp.ones(100), jnp.arange(100) < 5)


# ---- linear models against matrices ----------------------------------------------------------------------------------------


def test_counterfactuals_of_a_linear_model_are_those_of_the_matrices():
    """Full evidence: one point, 1e-5. The interventional moments, 4 standard errors. Partial evidence: rejection near it."""
    (model, params), oracle = linear(LINEAR), LinearGaussian.of(LINEAR)
    rows = asking.sample(model, params, KEY, 16)
    for act, given in (
        (do(b=1.5), {"do": {"b": 1.5}}),
        (do(a=-1.0, c=2.0), {"do": {"a": -1.0, "c": 2.0}}),
        (shift(b=0.7), {"shift": {"b": 0.7}}),
    ):
        found = asking.counterfactual(model, params, KEY, rows, act)
        for i in range(16):
            mean, covariance = oracle.counterfactual({name: float(value[i]) for name, value in rows.items()}, **given)
            np.testing.assert_allclose([found[name][i] for name in oracle.nodes], mean, atol=2e-5)
            assert np.abs(covariance).max() < 1e-9
    drawn = np.stack(list(asking.sample(model, params, KEY, 40_000, do=do(b=1.5)).values()), -1).astype(np.float64)
    mean, covariance = oracle.act({"b": 1.5}).moments()
    assert (np.abs(drawn.mean(0) - mean) <= 4 * np.sqrt(np.diag(covariance) / len(drawn)) + 1e-6).all()
    np.testing.assert_allclose(np.cov(drawn.T), covariance, atol=0.1)


@pytest.mark.slow
def test_partial_evidence_conditions_the_noise():
    """Of rows whose d is near 3, the counterfactual b under do(a = 1) has the mean and spread that the matrices say."""
    (model, params), oracle = linear(LINEAR), LinearGaussian.of(LINEAR)
    noise = model.noise(KEY, 400_000)
    near = np.abs(np.asarray(asking.predict(model, params, noise)["d"]) - 3) < 0.05
    b = np.asarray(asking.predict(model, params, noise, do=do(a=1.0))["b"], np.float64)[near]
    mean, covariance = oracle.counterfactual({"d": 3.0}, do={"a": 1.0})
    assert near.sum() > 3_000 and abs(b.mean() - mean[1]) < 4 * b.std() / np.sqrt(len(b)) + 1e-3
    assert abs(b.std() / np.sqrt(covariance[1, 1]) - 1) < 0.05


# ---- necessity and sufficiency ---------------------------------------------------------------------------------------------

ROWS = np.random.default_rng(0).dirichlet(np.ones(4), 4)  # of response types (never, complier, defier, always), by the value of u
U = (0.4, 0.3, 0.2, 0.1)


def confounded():
    """x of 2 values leans on u, y responds to x by a type that leans on u: noise of u, x and y is finite."""

    def typed(noise, values):
        x = values["x"]
        return np.choose(noise_type(noise, values["u"]), [0 * x, x, 1 - x, 1 + 0 * x])

    def noise_type(noise, u):
        edges = ROWS.cumsum(1)[u]
        return ((noise[:, None] + 0.5) / 200 > edges[:, :3]).sum(1)

    lean = np.array([0.8, 0.3, 0.6, 0.1])
    tables = {
        "u": lambda e, v: e,
        "x": lambda e, v: (((e + 0.5) / 50) < lean[v["u"]]).astype(int),
        "y": lambda e, v: typed(e, v),
    }
    return Enumerated({"u": U, "x": np.full(50, 1 / 50), "y": np.full(200, 1 / 200)}, tables)


def test_necessity_and_sufficiency_by_enumeration_are_the_sums_over_response_types():
    """P(complier), and its shares among those who took and had, or neither; the types' shares rounded to 200ths as the noise is."""
    scm = confounded()
    found = scm.causation("x", "y")
    edges = np.floor(ROWS.cumsum(1)[:, :3] * 200 + 0.5) / 200
    types = np.diff(np.concatenate([np.zeros((4, 1)), edges, np.ones((4, 1))], 1), axis=1)
    took = np.floor(np.array([0.8, 0.3, 0.6, 0.1]) * 50 + 0.5) / 50
    weight = np.array(U)
    complier, always, never, defier = types[:, 1], types[:, 3], types[:, 0], types[:, 2]
    expected = {
        "pns": (weight * complier).sum(),
        "pn": (weight * took * complier).sum() / (weight * took * (complier + always)).sum(),
        "ps": (weight * (1 - took) * complier).sum() / (weight * (1 - took) * (complier + never)).sum(),
    }
    for name, value in expected.items():
        assert abs(found[name] - value) < 1e-6, name
    assert (defier > 0).all()


def data_of(scm):
    """Observations and an experiment, as shares."""
    seen = [scm.chance(lambda v, x=x, y=y: (v["x"] == x) & (v["y"] == y), None) for x, y in ((1, 1), (1, 0), (0, 1), (0, 0))]
    return Observed(*seen), tuple(scm.chance(lambda v: v["y"] == 1, {"x": x}) for x in (1, 0))


def test_bounds_hold_the_truth_and_are_those_of_a_linear_programme():
    """The programme: all joint laws of (x, y under x, y under x') that agree with the data. Sharp, so that wider bounds fail too."""
    scm = confounded()
    observed, experiment = data_of(scm)
    truth = scm.causation("x", "y")
    for given in ((observed, None), (None, experiment), (observed, experiment)):
        found = bounds(*given)
        for name, value in truth.items():
            assert found[name][0] - 1e-9 <= value <= found[name][1] + 1e-9, (name, given)
            if name == "pns" or given == (observed, experiment):
                np.testing.assert_allclose(found[name], programme(name, *given), atol=1e-7)
    assert bounds(observed, experiment)["pns"] < (1, 1)


def programme(name, observed, experiment):
    cells = [(x, with_, without) for x in (1, 0) for with_ in (1, 0) for without in (1, 0)]
    rows, right = [np.ones(8)], [1.0]
    if observed is not None:
        for (x, y), share in zip(((1, 1), (1, 0), (0, 1)), (observed.xy, observed.xn, observed.ny), strict=True):
            rows.append([float(cx == x and (w if cx else o) == y) for cx, w, o in cells])
            right.append(share)
    if experiment is not None:
        rows += [[float(w) for _, w, _ in cells], [float(o) for _, _, o in cells]]
        right += list(experiment)
    among = {"pns": (None, 1.0), "pn": (1, observed.xy if observed else 1), "ps": (0, observed.nn if observed else 1)}[name]
    cost = np.array([float(w == 1 and o == 0 and among[0] in (None, x)) for x, w, o in cells]) / among[1]
    return [sign * optimize.linprog(sign * cost, A_eq=np.array(rows), b_eq=right, bounds=(0, 1)).fun for sign in (1, -1)]


def test_bounds_refuse_what_contradicts_and_a_third_value():
    with pytest.raises(DataError, match="of one population"):
        bounds(Observed(0.5, 0.0, 0.0, 0.5), (0.2, 0.1))
    with pytest.raises(DataError, match="2 in some rows"):
        Observed.of(np.array([0, 1, 2]), np.array([0, 1, 1]), 0, 1, 1)
    with pytest.raises(DataError, match="neither"):
        bounds()
    observed, experiment = data_of(confounded())
    narrow, wide = bounds(observed, experiment), widened(observed, 200, experiment)
    assert wide["pns"][0] <= narrow["pns"][0] + 1e-9 and wide["pns"][1] >= narrow["pns"][1] - 1e-9


def discrete():
    """Equations (6) of data/scm.py with their own tables as parameters."""
    from causal_gen.models.discrete_mechanism import Discrete, Table

    z, x, y = (Column(name, categories=size) for name, size in (("z", 3), ("x", 2), ("y", 3)))
    mechanisms = (Discrete(z, ()), Discrete(x, (z,), Table((3,), 2)), Discrete(y, (z, x), Table((3, 2), 3)))
    params = {"z": {"free": jnp.log(Z)}, "x": {"net": {"rows": jnp.log(X)}}, "y": {"net": {"rows": jnp.log(Y.reshape(6, 3))}}}
    graph = Dag.from_edges((("z", "x"), ("z", "y"), ("x", "y")), ("z", "x", "y"))
    return Structural(graph, mechanisms, (3, 2, 3)), params


def test_causation_in_a_discrete_model_is_the_closed_form_of_gumbel_max():
    """PNS = sum over z of P(z) (P(y | x = 1, z) - P(in both)); so for PN, over z given x = 1; within the bounds of the model's own data."""
    model, params = discrete()
    both = np.asarray(in_both(jnp.log(Y[:, 1]), jnp.log(Y[:, 0]), 2), np.float64)
    expected = {"pns": (Z * (Y[:, 1, 2] - both)).sum()}
    taken = Z * X[:, 1]
    expected["pn"] = (taken * (Y[:, 1, 2] - both)).sum() / (taken * Y[:, 1, 2]).sum()
    found = causation(model, params, model.noise(KEY, 100_000), "x", "y", 0, 1, 2)
    for name, value in expected.items():
        assert abs(found[name].value - value) < 4 * found[name].error, name
    shares = [(Z * X[:, x] * (Y[:, x, 2] if hit else 1 - Y[:, x, 2])).sum() for x, hit in ((1, True), (1, False), (0, True), (0, False))]
    told = bounds(Observed(*shares), ((Z * Y[:, 1, 2]).sum(), (Z * Y[:, 0, 2]).sum()))
    assert all(told[name][0] <= value <= told[name][1] for name, value in expected.items())


def test_in_both_is_what_shared_noise_gives():
    """Against draws; and with equal logits it is the softmax, so that nothing changes without a cause."""
    first, second = jax.random.normal(KEY, (2, 1, 4))
    noise = jax.random.gumbel(jax.random.key(1), (200_000, 4))
    same = float(((first + noise).argmax(-1) == 2)[(second + noise).argmax(-1) == 2].sum() / 200_000)
    told = float(in_both(first, second, 2)[0])
    assert abs(same - told) < 4 * np.sqrt(told * (1 - told) / 200_000)
    np.testing.assert_allclose(in_both(first, first, 1), jax.nn.softmax(first)[:, 1], rtol=1e-5)
