"""The latent SCM: inversion, intervention and what must not move, with hand-written mechanisms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.scm.block import BlockScm
from causal_gen.scm.intervention import canonical, do, shift
from causal_gen.scm.marginal import Marginal, Scaling
from causal_gen.structure.graph import Dag

GRAPH = Dag.from_edges([("a", "b"), ("b", "c")], ("c", "b", "a", "free"))
SCALINGS = tuple(Scaling("standard", float(i), 2.0) for i in range(4))
KNOTS = tuple(np.linspace(-2, 2, 9).tolist())
MARGINALS = (None, None, Marginal(KNOTS, tuple((np.linspace(-2, 2, 9) * 0.5).tolist())), None)
SCALE = jnp.full((4, 3), 0.5)
SCM = BlockScm(GRAPH, 3, SCALINGS, MARGINALS)


def location(i, blocks):
    """b = 2 a, c = b^2 in the block means; roots have none."""
    node = GRAPH.nodes[i]
    out = jnp.zeros_like(blocks[:, 0])
    if node == "b":
        return out.at[:, 0].set(2 * blocks[:, GRAPH.index("a"), 0])
    return out.at[:, 0].set(blocks[:, GRAPH.index("b"), 0] ** 2) if node == "c" else out


def _noise(num=50):
    return jax.random.normal(jax.random.key(0), (num, 4, 3))


def test_basis_keeps_the_block_mean_and_is_orthogonal():
    basis = SCM.basis
    np.testing.assert_allclose(basis @ basis.T, 3 * np.eye(3), atol=1e-5)
    w = _noise()
    np.testing.assert_allclose(SCM.to_blocks(w).mean(-1), w[:, :, 0], atol=1e-5)


def test_noise_is_read_back():
    e = _noise()
    np.testing.assert_allclose(SCM.standardise(SCM.exogenous(e, SCALE), SCALE), e, atol=1e-4)


def test_effects_chain_through_the_graph_in_topological_order():
    """The nodes are listed child first; do(a) must still reach c through b."""
    u = SCM.exogenous(_noise(), SCALE)
    w, values = SCM.intervene(location, u, canonical(do(a=7.0), GRAPH.nodes, 50))
    a = (7.0 - SCALINGS[2].mean) / 2.0
    b = 2 * a + u[:, 1, 0]
    np.testing.assert_allclose(values["a"], 7.0)
    np.testing.assert_allclose(w[:, 1, 0], b, rtol=1e-5)
    np.testing.assert_allclose(w[:, 0, 0], b**2 + u[:, 0, 0], rtol=1e-5)


@pytest.mark.parametrize("intervention", [do(b=1.0), shift(b=0.5)])
def test_what_is_not_downstream_does_not_move_at_all(intervention):
    u = SCM.exogenous(_noise(), SCALE)
    plain, _ = SCM.intervene(location, u, canonical(None, GRAPH.nodes, 50))
    moved, _ = SCM.intervene(location, u, canonical(intervention, GRAPH.nodes, 50))
    for name in ("a", "free"):
        assert (plain[:, GRAPH.index(name)] == moved[:, GRAPH.index(name)]).all()
    assert (plain[:, GRAPH.index("c"), 0] != moved[:, GRAPH.index("c"), 0]).all()


def test_an_edge_is_read_by_its_child_alone():
    """b reads a = 7 where a stays; c reads what b then is."""
    u = SCM.exogenous(_noise(), SCALE)
    plain, _ = SCM.intervene(location, u, canonical(None, GRAPH.nodes, 50, edges=GRAPH.edges))
    w, values = SCM.intervene(location, u, canonical(do(a=7.0, edge=("a", "b")), GRAPH.nodes, 50, edges=GRAPH.edges))
    np.testing.assert_array_equal(w[:, 2:], plain[:, 2:])
    b = 2 * (7.0 - SCALINGS[2].mean) / 2.0 + u[:, 1, 0]
    np.testing.assert_allclose(w[:, 1, 0], b, rtol=1e-5)
    np.testing.assert_allclose(w[:, 0, 0], b**2 + u[:, 0, 0], rtol=1e-5)
    np.testing.assert_allclose(values["b"], SCALINGS[1].inverse(b), rtol=1e-5)


def test_parents_noise_instead_of_parents_value_does_not_chain():
    """The released code's switch: through u, the effect of a on c is lost. A control for the default."""
    released = BlockScm(GRAPH, 3, SCALINGS, (None,) * 4, through="u")
    u = _noise()
    chained, unchained = (scm.causal(location, u)[:, 0, 0] for scm in (BlockScm(GRAPH, 3, SCALINGS, (None,) * 4), released))
    np.testing.assert_allclose(unchained, u[:, 1, 0] ** 2 + u[:, 0, 0], rtol=1e-4)
    assert not np.allclose(chained, unchained)
