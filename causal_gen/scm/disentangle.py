"""Linear causal disentanglement: latents that are a linear structural model, from linear mixtures of them seen in several contexts.

    x = G z,   z = A z + W^(1/2) e,   B = W^(-1/2) (I - A),   H = G^-1:   the precision of x is  H' B' B H                   (1)
    do, one latent i a context:   P_k - P_0 = c^2 h_i h_i' - b_i b_i',   b_i = row i of B H, in the span of h_i and its parents' h   (2)
    domains, all weights differ:  row i of B_k H is in the span of h_i and its parents' h, in every domain k                    (3)

(2) has rank one where i has no parents, else two; off the span of what is found before it, rank one for every latent whose parents are all
found. So latents are found one by one, causes first, each with a direction q_i of its own: H = R Q with R lower triangular in that order, a
partial-order RQ. In this frame B_k R is the triangular factor of the precision, and its row i in the context of i is h_i but for its size,
since nothing else goes into i there: R, H, B and A follow. What stays open is S(G): the names of the latents, here those of their contexts,
and their sizes and signs, here unit variance in context 0 and a positive largest loading.

By (3) the rows of domains are matched: one of each, so that they are parallel off the span of what is found. Then H = Q, orthonormal: a
latent is found but for multiples of its causes, which (3) cannot tell from another mechanism, and is itself where G's columns are
orthogonal. Sources: Squires et al. 2023 (1, 2); Jin & Syrgkanis 2024 and Jin et al. 2025 (3), whose rows are those of independent component
analysis.

Where the mixture is a polynomial of the latents, x = G phi(z), and its columns are independent, a code u = L x is an affine image of z if
and only if phi(u) is all of x, which is how L is found:

    min over L of  mean |x - C phi(L x)|^2,   C by least squares                                                                   (4)
    constants: do sets latent i to a constant in context i:   row i of the unmixing is  argmin over w of  w' S_i w / w' S_0 w      (5)

with S_k the covariance of u in context k. (5) asks nothing of the latents' mechanisms. Sources: Ahuja et al. 2023 (4, 5), theorems 4.4 and
5.3, whose autoencoder has networks for L and a penalty for (5). Letters: d latents, k contexts, n rows, p inputs, m monomials.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
from scipy import linalg, optimize

from causal_gen.structure import polynomial
from causal_gen.types import Float

Array = np.ndarray
STILL = 1e-3  # the scale of a latent that is set, in its standard deviations


@dataclasses.dataclass(frozen=True, eq=False)
class Disentangled:
    """`unmixing` H [d, d], `weights` A of each context [k, d, d], `scales` W^(1/2) [k, d], and the `order` in which latents were found.

    `residue` [d] is for each latent, in that order, the second singular value over the first of what had to be of rank one; by (5) the
    variance of what had to be constant over the next.
    """

    unmixing: Array
    weights: Array
    scales: Array
    order: tuple[int, ...]
    residue: Array


def triangular(precision: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """The lower triangular L of positive diagonal with L' L = `precision`."""
    return np.linalg.cholesky(precision[::-1, ::-1]).T[::-1, ::-1]


def _off(found: list[Array], d: int) -> Float[Array, "d d"]:
    """The projection off the span of `found`, which are orthonormal."""
    return np.eye(d) - sum((np.outer(q, q) for q in found), np.zeros((d, d)))


def _rank_one(matrix: Array) -> tuple[Array, float]:
    """The leading right singular vector, and the second singular value over the first."""
    _, sizes, rows = np.linalg.svd(matrix)
    return rows[0], float(sizes[1] / max(sizes[0], 1e-300)) if len(sizes) > 1 else 0.0


def from_interventions(observed: Float[Array, "d d"], intervened: Float[Array, "d d d"], whiten: bool = True) -> Disentangled:
    """By (2), from the precision without an intervention and those under do of latent 0, 1, .. d - 1.

    Without `whiten` ranks are told on x as it is, where errors of the precisions are largest along what varies least.
    """
    d = len(observed)
    white = np.linalg.cholesky(observed).T if whiten else np.eye(d)
    back = np.linalg.inv(white)
    base, *told = (back.T @ one @ back for one in (observed, *intervened))
    found: list[Array] = []
    order: list[int] = []
    residue: list[float] = []
    while len(order) < d:
        off = _off(found, d)
        seen = {i: _rank_one(off @ (told[i] - base) @ off) for i in range(d) if i not in order}
        i = min(seen, key=lambda i: seen[i][1] if len(seen) > 1 else 0.0)
        q = off @ seen[i][0]
        found.append(q / np.linalg.norm(q))
        order.append(i)
        residue.append(seen[i][1] if len(seen) > 1 else 0.0)
    frame = np.stack(found)
    rows = [triangular(frame @ told[i] @ frame.T)[place] @ frame @ white for place, i in enumerate(order)]
    unmixing = np.empty((d, d))
    unmixing[order] = rows
    return _scaled(unmixing, np.stack([observed, *intervened]), tuple(order), np.asarray(residue))


def from_domains(rows: Float[Array, "k d d"], precisions: Float[Array, "k d d"], whiten: bool = True) -> Disentangled:
    """By (3), from B_k H of each domain, whose rows may stand in any order and have any sign, and the precisions.

    Without `whiten` ranks are told on x as it is.
    """
    d = rows.shape[1]
    back = np.linalg.cholesky(np.linalg.inv(precisions).mean(0)) if whiten else np.eye(d)
    units = rows @ back
    units = units / np.linalg.norm(units, axis=2, keepdims=True)
    left = [list(range(d)) for _ in rows]
    found: list[Array] = []
    residue: list[float] = []
    while len(found) < d:
        off = _off(found, d)
        choices = itertools.product(*left)
        seen = {picked: _rank_one(np.stack([one[i] for one, i in zip(units, picked, strict=True)]) @ off) for picked in choices}
        picked = min(seen, key=lambda picked: seen[picked][1])
        q = off @ seen[picked][0]
        found.append(q / np.linalg.norm(q))
        residue.append(seen[picked][1])
        left = [[i for i in rest if i != own] for rest, own in zip(left, picked, strict=True)]
    spans = np.linalg.qr((np.stack(found) @ np.linalg.inv(back)).T)[0].T
    return _scaled(spans, precisions, tuple(range(d)), np.asarray(residue))


def from_nothing(precisions: Float[Array, "k d d"]) -> Disentangled:
    """Latents that are the code's own directions, in the order in which they stand: what is known where nothing tells them apart."""
    d = precisions.shape[1]
    return _scaled(np.linalg.cholesky(precisions[0]).T, precisions, tuple(range(d)), np.zeros(d))


def affine_code(x: Float[Array, "n p"], latents: int, degree: int, *, tries: int = 12, seed: int = 0) -> tuple[Float[Array, "d p"], float]:
    """L of (4), from centred rows, the best of `tries` starts; and the share of x's variance that is left."""
    num, monomials = len(x), len(polynomial.terms(latents, degree))
    _, sizes, span = np.linalg.svd(x, full_matrices=False)
    white = span[:monomials] / sizes[:monomials, None] * np.sqrt(num)
    y, rng = x @ white.T, np.random.default_rng(seed)

    def features(u: Array) -> Array:
        return np.stack([np.ones(num), *polynomial.monomials(u, degree)], -1)

    def left(flat: Array) -> tuple[float, Array]:
        """The mean square of what (4) leaves of y, and its gradient, in which C may be held fixed."""
        u = y @ flat.reshape(latents, -1).T
        phi = features(u)
        c = np.linalg.lstsq(phi, y, rcond=None)[0]
        rest = y - phi @ c
        pull = -2 / num * rest @ c[1:].T  # of every monomial
        slopes = np.zeros_like(u)
        for term, column in zip(polynomial.terms(latents, degree), pull.T, strict=True):
            for place, i in enumerate(term):
                slopes[:, i] += column * np.prod(u[:, [j for other, j in enumerate(term) if other != place]], 1)
        return float((rest**2).sum() / num), (slopes.T @ y).reshape(-1)

    found = []
    for _ in range(tries):
        start = np.linalg.qr(rng.standard_normal((monomials, latents)))[0].T
        found.append(optimize.minimize(left, start.reshape(-1), jac=True, method="L-BFGS-B", options={"maxiter": 500, "ftol": 1e-14}))
        if found[-1].fun < 1e-6:
            break
    best = min(found, key=lambda one: one.fun)
    return best.x.reshape(latents, -1) @ white, float(best.fun / monomials)


def from_constants(parts: list[Float[Array, "n d"]]) -> Disentangled:
    """By (5), from an affine code of the latents' rows in every context, context 0 being without an intervention.

    The latents are taken to be a linear structural model where their order and weights are told: the order is the one under which the
    mechanisms of context 0 fit the other contexts best. What is set has weights of 0 and a scale of `STILL` there.
    """
    d = parts[0].shape[1]
    observed, *held = (np.cov(part.T) for part in parts)
    pairs = [linalg.eigh(one, observed) for one in held]
    unmixing = np.stack([vectors[:, 0] for _, vectors in pairs])
    z = [(part - parts[0].mean(0)) @ unmixing.T for part in parts]

    def fitted(order: tuple[int, ...]) -> tuple[float, Array, Array]:
        """How badly an order fits: how far noise in the other contexts is from mean 0 and variance 1; its weights and scales."""
        weights, scales, far = np.zeros((d, d)), np.ones(d), 0.0
        for place, i in enumerate(order):
            causes = list(order[:place])
            weights[i, causes] = np.linalg.lstsq(z[0][:, causes], z[0][:, i], rcond=None)[0]
            scales[i] = np.std(z[0][:, i] - z[0] @ weights[i])
            for k in range(1, d + 1):
                if k != i + 1:
                    e = (z[k][:, i] - z[k] @ weights[i]) / scales[i]
                    far += e.mean() ** 2 + (e.var() - 1) ** 2
        return far, weights, scales

    order = min(itertools.permutations(range(d)), key=lambda order: fitted(order)[0])
    _, weights, scales = fitted(order)
    in_all, spread = np.repeat(weights[None], d + 1, 0), np.repeat(scales[None], d + 1, 0)
    for i in range(d):
        in_all[i + 1, i], spread[i + 1, i] = 0.0, STILL
    residue = np.array([pairs[i][0][0] / pairs[i][0][1] for i in order])
    return Disentangled(unmixing, in_all, spread, order, residue)


def _scaled(unmixing: Array, precisions: Array, order: tuple[int, ...], residue: Array) -> Disentangled:
    """Latents of unit variance in context 0 with a positive largest loading, and the mechanisms of every context in the order found."""
    mixing = np.linalg.inv(unmixing)
    sizes = np.sqrt(np.diag(unmixing @ np.linalg.inv(precisions[0]) @ unmixing.T))
    signs = np.sign(np.take_along_axis(mixing, np.abs(mixing).argmax(0)[None], 0)[0])
    unmixing = unmixing * (signs / sizes)[:, None]
    mixing = np.linalg.inv(unmixing)
    places = np.argsort(order)
    weights, scales = [], []
    for precision in precisions:
        ordered = triangular((mixing.T @ precision @ mixing)[np.ix_(order, order)])
        b = ordered[np.ix_(places, places)]
        scales.append(1 / np.diag(b))
        weights.append(np.eye(len(b)) - b / np.diag(b)[:, None])
    return Disentangled(unmixing, np.stack(weights), np.stack(scales), order, residue)
