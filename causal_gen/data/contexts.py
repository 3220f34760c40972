"""Mixtures of latents that follow a linear structural model, seen in several contexts. The latents themselves are hidden.

    z = A_k z + c_k + W_k^(1/2) e,   x = G phi(z)          in context k                                             (1)
    do         context 0 is undisturbed, context i is a perfect intervention on latent i: no causes, and a variance of its own    (2)
    hard       context 0 is undisturbed, context i sets latent i to a constant                                       (2')
    domains    every context has weights and variances of its own along the same edges                                  (3)

The edges are those of a random order, each there with probability `density`; weights are of either sign and of size .25 to 1, variances of
e 2 to 4, in (2) 6 to 8 where intervened, and G has normal entries or columns that are orthogonal, of lengths .5 to 2. c is 0, but in (2')
a constant of size 1 to 3 where intervened. phi(z) is z, or all its monomials up to a degree, those of degree q in units of 3^(q-1). e is
normal, which (2) does not mind, or of Laplace's law, by which (3) can be told. Sources: (2) and its ranges Squires et al. 2023, sec. 5;
(2') and phi Ahuja et al. 2023; (3) Jin et al. 2025. Letters: b batch, d latents, k contexts, p observed, m monomials.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from causal_gen.data.generated import Columns, Generated, Rows, stream
from causal_gen.structure import polynomial
from causal_gen.types import ConfigError, Entry, Float, Int, at_least, choice


@dataclasses.dataclass(frozen=True, eq=False)
class Truth:
    """Of eq. (1): `weights` A [k, d, d], `variances` W [k, d], `offsets` c [k, d] and `mixing` G [p, m]."""

    weights: np.ndarray
    variances: np.ndarray
    offsets: np.ndarray
    mixing: np.ndarray

    @property
    def edges(self) -> np.ndarray:
        """[d, d], true where the column is a cause of the row in context 0."""
        return self.weights[0] != 0

    def covariance(self, k: int) -> Float[np.ndarray, "d d"]:
        """That of z in context k."""
        spread = np.linalg.inv(np.eye(len(self.weights[k])) - self.weights[k])
        return spread * self.variances[k] @ spread.T


@dataclasses.dataclass(frozen=True)
class ContextsConfig(Generated):
    """Rows of eq. (1), as many in each context: those of a context follow one another. `domains` counts contexts of (3)."""

    name: str = "contexts"
    size: int = at_least(100_000, 2)
    test_size: int = at_least(10_000, 2)
    latents: int = at_least(4, 2, 12)
    width: int = at_least(8, 2)
    degree: int = at_least(1, 1, 4)
    change: str = choice("do", "hard", "domains")
    domains: int = at_least(4, 2, 12)
    density: float = at_least(0.75, 0.0, 1.0)
    orthogonal: bool = False
    noise: str = choice("normal", "laplace")

    def __post_init__(self):
        need = len(polynomial.terms(self.latents, self.degree))
        if self.width < need:
            what = f"{self.latents} latents" if self.degree == 1 else f"the {need} monomials of {self.latents} latents"
            raise ConfigError(f"data.width: {self.width} mixtures do not tell {what}; give as many at least")

    @property
    def contexts(self) -> int:
        """Their number."""
        return self.domains if self.change == "domains" else self.latents + 1

    @property
    def entries(self) -> Mapping[str, Entry]:
        """The mixture x and the number of the context."""
        return {"x": Entry((self.width,)), "context": Entry((), "int32", vocabulary=self.contexts)}

    def truth(self) -> Truth:
        """The equations of this seed."""
        rng, d = stream(self.seed, 0xC17), self.latents
        order = rng.permutation(d)
        below = np.tril(rng.random((d, d)) < self.density, -1)
        edges = np.zeros((d, d), bool)
        edges[np.ix_(order, order)] = below

        def weights() -> np.ndarray:
            return edges * rng.uniform(0.25, 1.0, (d, d)) * rng.choice([-1.0, 1.0], (d, d))

        offsets = np.zeros((self.contexts, d))
        if self.change == "domains":
            found = np.stack([weights() for _ in range(self.domains)])
            variances = rng.uniform(2.0, 4.0, (self.domains, d))
        else:
            found = np.repeat(weights()[None], d + 1, 0)
            variances = np.repeat(rng.uniform(2.0, 4.0, (1, d)), d + 1, 0)
            for i in range(d):
                found[i + 1, i] = 0.0
                variances[i + 1, i] = rng.uniform(6.0, 8.0) if self.change == "do" else 0.0
        columns = polynomial.terms(d, self.degree)
        mixing = rng.standard_normal((self.width, len(columns)))
        if self.orthogonal:
            mixing = np.linalg.qr(mixing)[0] * rng.uniform(0.5, 2.0, len(columns))
        mixing = mixing / 3.0 ** np.array([len(column) - 1 for column in columns])
        if self.change == "hard":
            offsets[1:] = np.diag(rng.uniform(1.0, 3.0, d) * rng.choice([-1.0, 1.0], d))
        return Truth(found, variances, offsets, mixing)

    def draw(self, split: str) -> Columns:
        """All rows of a split; "latents" [b, d] are hidden by the source."""
        rng, num, truth = stream(self.seed, 0xC18, split), self.count(split), self.truth()
        context = (np.arange(num) * self.contexts // num).astype(np.int32)
        e = rng.standard_normal((num, self.latents)) if self.noise == "normal" else rng.laplace(size=(num, self.latents)) / np.sqrt(2)
        z = np.empty_like(e)
        for k in range(self.contexts):
            rows = context == k
            spread = np.linalg.inv(np.eye(self.latents) - truth.weights[k])
            z[rows] = (e[rows] * np.sqrt(truth.variances[k]) + truth.offsets[k]) @ spread.T
        x = np.stack(polynomial.monomials(z, self.degree), -1) @ truth.mixing.T
        return {"x": x.astype(np.float32), "context": context, "latents": z.astype(np.float32)}

    def make(self) -> Contexts:
        return Contexts(self, {split: self.draw(split) for split in ("train", "test")})


@dataclasses.dataclass(frozen=True, eq=False)
class Contexts(Rows):
    """The source; it knows the equations, and the latents behind every row, which no batch holds."""

    @property
    def equations(self) -> Truth:
        """Those of eq. (1)."""
        return self.config.truth()

    def gather(self, split: str, indices: Int[np.ndarray, "b"]) -> dict[str, np.ndarray]:
        """The rows at `indices`, without their latents."""
        return {name: self.rows[split][name][indices] for name in self.config.entries}

    def latents(self, split: str, indices: Int[np.ndarray, "b"]) -> Float[np.ndarray, "b d"]:
        """The latents behind the rows at `indices`."""
        return self.rows[split]["latents"][indices]
