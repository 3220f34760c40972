"""Diagram surgery against enumeration, and combs against surgery on models with hidden wires."""

import numpy as np
import pytest

from causal_gen.scm import formula as fm
from causal_gen.scm.diagram import Diagram, combs, do_by_combs
from causal_gen.scm.formula import Prob, Table
from causal_gen.scm.identify import Effect, identify
from causal_gen.structure.graph_files import read_bif
from causal_gen.structure.graph_mixed import Admg
from causal_gen.types import DataError, GraphError
from tests.scm.discrete_at_hand import DiscreteModel
from tests.structure.graphs_at_hand import random_admg

SMOKING = "configs/structural/smoking.bif"


@pytest.mark.parametrize("seed", range(3))
def test_surgery_is_enumeration(seed):
    rng = np.random.default_rng(seed)
    for _ in range(5):
        model = DiscreteModel(random_admg(rng, 5, 0.5, 0.2), rng, 3)
        diagram = Diagram(model.dag, model.tables)
        np.testing.assert_allclose(diagram.state(model.graph.nodes).over(model.graph.nodes), model.distribution(), atol=1e-12)
        x, y, z = (str(name) for name in rng.permutation(model.graph.nodes)[:3])
        np.testing.assert_allclose(diagram.do([y], [x]), model.effect([y], [x]), atol=1e-12)
        np.testing.assert_allclose(diagram.do([y], [x], [z]), model.effect([y], [x], [z]), atol=1e-12)


def test_combs_give_the_intervention_from_observations_wherever_they_come_apart():
    rng, told = np.random.default_rng(4), {"apart": 0, "joined": 0}
    for _ in range(12):
        model = DiscreteModel(random_admg(rng, 5, 0.5, 0.25), rng)
        graph, joint = model.graph, Table.joint(model.graph.nodes, model.distribution())
        product = np.ones(())
        for comb in combs(graph, joint).values():
            product = product * comb.over(graph.nodes)
        np.testing.assert_allclose(product, joint.array, atol=1e-12)
        for x in graph.nodes:
            if any(child in graph.district(x) for child in graph.dag.children(x)):
                told["joined"] += 1
                with pytest.raises(GraphError, match=f"hidden wires join {x} and its child"):
                    do_by_combs(graph, joint, x)
            else:
                told["apart"] += 1
                rest = [name for name in graph.nodes if name != x]
                found = do_by_combs(graph, joint, x).over((*rest, x))
                np.testing.assert_allclose(found, model.effect(rest, [x]), atol=1e-10)
    assert min(told.values()) > 5


def test_smoking_tar_and_cancer_as_in_the_paper():
    """Random models with a hidden common cause: the comb formula is the truth to 1e-6, conditioning errs by more than .05 on average."""
    graph, rng, wrong, naive = Admg.parse("smoking -> tar -> cancer, smoking <-> cancer"), np.random.default_rng(0), [], []
    for _ in range(200):
        hidden = graph.with_latents()[0]
        sizes = {name: 2 for name in hidden.nodes}
        boxes = {name: rng.dirichlet(np.ones(2), [sizes[parent] for parent in hidden.parents(name)]) for name in hidden.nodes}
        diagram = Diagram(hidden, boxes)
        joint = diagram.state(graph.nodes)
        truth = diagram.do(["cancer"], ["smoking"])
        found = do_by_combs(graph, joint, "smoking").marginal({"smoking", "cancer"}).over(("cancer", "smoking"))
        wrong.append(np.abs(found - truth).max())
        naive.append(np.abs(fm.evaluate(Prob(("cancer",), ("smoking",)), joint).over(("cancer", "smoking")) - truth).max())
    assert max(wrong) < 1e-6 and np.mean(naive) > 0.05, (max(wrong), np.mean(naive))


def test_the_shipped_network_has_smoking_harmless_or_not_as_its_tables_say():
    """By hand: p(cancer | do(smoking)) = sum over tar of p(tar | smoking) times the mean of p(cancer | disposition, tar)."""
    network = read_bif(SMOKING)
    diagram = Diagram(network.dag, network.tables)
    told = diagram.do(["cancer"], ["smoking"])[1]
    np.testing.assert_allclose(told, [0.9 * 0.35 + 0.1 * 0.475, 0.2 * 0.35 + 0.8 * 0.475])
    graph = Admg(network.dag).project(["disposition"])
    effect = identify(graph, Effect.parse("p(cancer | do(smoking))"))
    np.testing.assert_allclose(effect.evaluate(diagram.state(graph.nodes))[1], told, atol=1e-12)


def test_boxes_that_do_not_fit_are_refused():
    dag = Admg.parse("x -> y").dag
    good = {"x": np.array([0.5, 0.5]), "y": np.array([[0.2, 0.8], [1.0, 0.0]])}
    Diagram(dag, good)
    with pytest.raises(DataError, match="node 'y' has no box"):
        Diagram(dag, {"x": good["x"]})
    with pytest.raises(DataError, match=r"box of 'y' has shape \(2,\); its parents have \[2\] states"):
        Diagram(dag, {**good, "y": good["x"]})
    with pytest.raises(DataError, match="box of 'x' is not stochastic"):
        Diagram(dag, {**good, "x": np.array([0.5, 0.6])})
