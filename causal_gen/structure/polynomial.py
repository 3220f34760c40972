"""Monomials of several variables, in the one order that data, fits and models agree on.

    terms(2, 2) = ((0,), (1,), (0, 0), (0, 1), (1, 1)):   phi(z) = (z0, z1, z0^2, z0 z1, z1^2)

Degrees rise, and those of degree 1 are the variables themselves; the constant is not among them. Letters: d variables, m monomials.
"""

from __future__ import annotations

import functools
import itertools
import operator
from typing import Any

from causal_gen.types import Float


@functools.cache
def terms(variables: int, degree: int) -> tuple[tuple[int, ...], ...]:
    """The variables that each monomial multiplies."""
    each = (itertools.combinations_with_replacement(range(variables), size) for size in range(1, degree + 1))
    return tuple(itertools.chain.from_iterable(each))


def monomials(z: Float[Any, "*s d"], degree: int) -> list[Float[Any, "*s"]]:
    """phi(z), a list of m arrays of z's own kind (NumPy or JAX)."""
    return [functools.reduce(operator.mul, (z[..., i] for i in term)) for term in terms(z.shape[-1], degree)]
