"""Linear causal disentanglement on exact precisions: what several contexts tell, and what they leave open."""

from __future__ import annotations

import numpy as np
import pytest

from causal_gen.scm import disentangle


def system(seed: int, d: int, domains: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights A [k, d, d], variances [k, d] and a square mixing: an intervention a latent after none, or so many domains."""
    rng = np.random.default_rng(seed)
    order, edges = rng.permutation(d), np.zeros((d, d), bool)
    edges[np.ix_(order, order)] = np.tril(rng.random((d, d)) < (1.0 if domains else 0.6), -1)
    k = domains or d + 1
    weights = edges * rng.uniform(0.25, 1.0, (k if domains else 1, d, d)) * rng.choice([-1, 1], (k if domains else 1, d, d))
    weights, variances = np.repeat(weights, k // len(weights), 0), np.repeat(rng.uniform(2, 4, (1, d)), k, 0)
    if domains:
        variances = rng.uniform(2, 4, (k, d))
    else:
        for i in range(d):
            weights[i + 1, i], variances[i + 1, i] = 0.0, rng.uniform(6, 8)
    return weights, variances, rng.standard_normal((d, d))


def precisions(weights: np.ndarray, variances: np.ndarray, mixing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows B H of each context and the precisions of x, by eq. (1)."""
    rows = (np.eye(len(mixing)) - weights) / np.sqrt(variances)[:, :, None] @ np.linalg.inv(mixing)
    return rows, np.swapaxes(rows, 1, 2) @ rows


@pytest.mark.parametrize("d", [2, 3, 4, 6])
@pytest.mark.parametrize("whiten", [True, False])
def test_interventions_tell_the_latents_but_for_their_sizes_and_signs(d, whiten):
    """Graph, weights and mixing exactly; that latents are named by their contexts is the choice among the names that S(G) leaves open."""
    for seed in range(5):
        weights, variances, mixing = system(seed, d)
        _, told = precisions(weights, variances, mixing)
        found = disentangle.from_interventions(told[0], told[1:], whiten)
        product = found.unmixing @ mixing
        np.testing.assert_allclose(product, np.diag(np.diag(product)), atol=1e-7)
        sizes = np.diag(product)  # what each latent was measured in: unit variance in context 0
        back = np.linalg.inv(np.eye(d) - weights[0])
        np.testing.assert_allclose(sizes**2 * np.diag(back * variances[0] @ back.T), 1.0, rtol=1e-6)
        np.testing.assert_allclose(found.weights / sizes[None, :, None] * sizes[None, None], weights, atol=1e-6)
        assert all(found.order.index(effect) > found.order.index(cause) for effect, cause in np.argwhere(weights[0]))
        assert found.residue.max() < 1e-8


def test_contexts_in_another_order_rename_the_latents():
    weights, variances, mixing = system(3, 4)
    _, told = precisions(weights, variances, mixing)
    moved = np.array([2, 0, 3, 1])
    one, other = disentangle.from_interventions(told[0], told[1:]), disentangle.from_interventions(told[0], told[1:][moved])
    np.testing.assert_allclose(other.unmixing, one.unmixing[moved], atol=1e-8)
    np.testing.assert_allclose(other.weights[0], one.weights[0][np.ix_(moved, moved)], atol=1e-7)


def test_a_context_that_says_nothing_leaves_a_latent_open():
    """Two interventions on one latent, none on another: the second is not found, which the residue cannot know but the mixing shows."""
    weights, variances, mixing = system(3, 4)
    weights[2], variances[2] = weights[1], variances[1]
    variances[2, 0] *= 2
    _, told = precisions(weights, variances, mixing)
    product = disentangle.from_interventions(told[0], told[1:]).unmixing @ mixing
    assert np.abs(product - np.diag(np.diag(product))).max() > 0.05


@pytest.mark.parametrize("whiten", [True, False])
def test_domains_tell_the_order_and_with_orthogonal_columns_the_latents(whiten):
    """Rows shuffled and of any sign, as independent component analysis gives them; without orthogonality multiples of causes stay in."""
    for seed in range(5):
        weights, variances, oblique = system(seed, 3, domains=4)
        causes_first = np.argsort((weights[0] != 0).sum(1))
        for orthogonal in (True, False):
            mixing = np.linalg.qr(oblique)[0] * np.array([0.5, 1.0, 2.0]) if orthogonal else oblique
            rows, told = precisions(weights, variances, mixing)
            rng = np.random.default_rng(seed)
            shuffled = np.stack([one[rng.permutation(3)] * rng.choice([-1, 1], (3, 1)) for one in rows])
            found = disentangle.from_domains(shuffled, told, whiten)
            product = (found.unmixing @ mixing)[:, causes_first]
            np.testing.assert_allclose(np.triu(product, 1), 0, atol=1e-7)
            assert (np.abs(np.tril(product, -1)).max() < 1e-7) == orthogonal
            assert found.residue.max() < 1e-7


def test_the_triangular_factor():
    rng = np.random.default_rng(0)
    square = rng.standard_normal((5, 5))
    factor = disentangle.triangular(square.T @ square)
    np.testing.assert_allclose(factor.T @ factor, square.T @ square, atol=1e-10)
    assert not np.triu(factor, 1).any() and (np.diag(factor) > 0).all()
