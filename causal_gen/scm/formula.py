"""Formulas over an observed distribution: what an identified effect is, as text, as LaTeX, and as a number.

    Prob      p(of | given), a conditional of the observed joint distribution                                               (1)
    Product   of formulas;  Sum over the values of variables;  Ratio of two formulas                                        (2)

A formula is static data. It is evaluated on a table: an array with one axis a variable that sums to 1. Where a condition has probability 0
its conditional is undefined (nan); 0 times undefined is 0, so that an undefined cell reaches the answer only where it matters.
A variable that a `Sum` runs over is bound: text writes it with a prime where the same name is also free outside.

Source: Shpitser & Pearl 2006 for the calculus of such formulas; the table is this project's own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from causal_gen.types import DataError

Names = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Prob:
    """Eq. (1). With no `of` it is 1."""

    of: Names
    given: Names = ()


@dataclasses.dataclass(frozen=True)
class Product:
    """Of `factors`; without any it is 1."""

    factors: tuple[Formula, ...]


@dataclasses.dataclass(frozen=True)
class Sum:
    """Of `body` over all values of the variables `over`."""

    over: Names
    body: Formula


@dataclasses.dataclass(frozen=True)
class Ratio:
    """`top` / `bottom`."""

    top: Formula
    bottom: Formula


Formula = Prob | Product | Sum | Ratio
ONE = Product(())


def free(formula: Formula) -> frozenset[str]:
    """Variables that the value of a formula depends on."""
    if isinstance(formula, Prob):
        return frozenset((*formula.of, *formula.given))
    if isinstance(formula, Product):
        return frozenset().union(*map(free, formula.factors))
    if isinstance(formula, Sum):
        return free(formula.body) - set(formula.over)
    return free(formula.top) | free(formula.bottom)


# ---- simplification ------------------------------------------------------------------------------------------------------------


def product(factors: Iterable[Formula]) -> Formula:
    """A product without nested products and ones, in which p(a | b, c) p(b | c) has become p(a, b | c)."""
    flat: list[Formula] = []
    for factor in factors:
        flat += factor.factors if isinstance(factor, Product) else [factor]
    flat = [factor for factor in flat if not (isinstance(factor, Prob) and not factor.of)]
    joined = True
    while joined:
        joined = False
        for one in flat:
            for other in flat:
                if isinstance(one, Prob) and isinstance(other, Prob) and set(one.given) == {*other.of, *other.given} and one is not other:
                    rest = [factor for factor in flat if factor is not one and factor is not other]
                    flat, joined = [*rest, Prob((*other.of, *one.of), other.given)], True
                    break
            if joined:
                break
    return flat[0] if len(flat) == 1 else Product(tuple(flat))


def total(over: Iterable[str], body: Formula) -> Formula:
    """The sum of `body` over variables; a variable that one `Prob` alone speaks of, as an outcome, is dropped from there."""
    over, factors = list(over), list(body.factors if isinstance(body, Product) else (body,))
    changed = True
    while changed:
        changed = False
        for name in over:
            holders = [i for i, factor in enumerate(factors) if name in free(factor)]
            if len(holders) == 1 and isinstance(prob := factors[holders[0]], Prob) and name in prob.of:
                factors[holders[0]] = Prob(tuple(other for other in prob.of if other != name), prob.given)
                factors = [factor for factor in factors if not (isinstance(factor, Prob) and not factor.of)]
                over.remove(name)
                changed = True
                break
    if not over:
        return product(factors)
    inside = [factor for factor in factors if free(factor) & set(over)]
    outside = [factor for factor in factors if not free(factor) & set(over)]
    return product([*outside, Sum(tuple(over), product(inside))])


def ratio(top: Formula, bottom: Formula) -> Formula:
    """The quotient; p(a, b | c) / p(b | c) becomes p(a | b, c), and equal factors cancel."""
    if bottom == ONE:
        return top
    if isinstance(top, Prob) and isinstance(bottom, Prob) and set(bottom.of) <= set(top.of) and set(bottom.given) == set(top.given):
        return Prob(tuple(name for name in top.of if name not in bottom.of), (*bottom.of, *top.given))
    above = list(top.factors if isinstance(top, Product) else (top,))
    below = list(bottom.factors if isinstance(bottom, Product) else (bottom,))
    for factor in tuple(below):
        if factor in above:
            above.remove(factor)
            below.remove(factor)
    return Ratio(product(above), product(below)) if below else product(above)


# ---- writing -------------------------------------------------------------------------------------------------------------------


def text(formula: Formula) -> str:
    """One line of plain text, as in "sum_{z} p(y | x, z) p(z)"."""
    return _write(formula, {}, set(free(formula)), latex=False)


def latex(formula: Formula) -> str:
    r"""LaTeX, as in "\sum_{z} p(y \mid x, z)\, p(z)"."""
    return _write(formula, {}, set(free(formula)), latex=True)


def _name(name: str, latex: bool) -> str:
    if not latex:
        return name
    bare = name.rstrip("'")
    shown = bare.replace("_", r"\_")
    return (shown if len(bare) == 1 else rf"\mathit{{{shown}}}") + name[len(bare) :]


def _write(formula: Formula, names: Mapping[str, str], taken: set[str], latex: bool) -> str:
    def listed(some: Sequence[str]) -> str:
        return ", ".join(_name(names.get(name, name), latex) for name in some)

    if isinstance(formula, Prob):
        bar = r" \mid " if latex else " | "
        return f"p({listed(formula.of)}{bar + listed(formula.given) if formula.given else ''})" if formula.of else "1"
    if isinstance(formula, Product):
        # sums last: what stands before one is then plainly not part of it
        parts = sorted(formula.factors, key=lambda factor: isinstance(factor, Sum))
        written = [_write(factor, names, taken, latex) for factor in parts]
        marked = [
            f"[{one}]" if isinstance(factor, Sum) and i < len(parts) - 1 else one
            for i, (factor, one) in enumerate(zip(parts, written, strict=True))
        ]
        return (r"\, " if latex else " ").join(marked) or "1"
    if isinstance(formula, Sum):
        fresh, within = dict(names), set(taken)
        for name in formula.over:
            shown = name
            while shown in within:
                shown += "'"
            fresh[name] = shown
            within.add(shown)
        over = ", ".join(_name(fresh[name], latex) for name in formula.over)
        return ("\\" if latex else "") + f"sum_{{{over}}} {_write(formula.body, fresh, within, latex)}"
    top, bottom = _write(formula.top, names, taken, latex), _write(formula.bottom, names, taken, latex)
    return rf"\frac{{{top}}}{{{bottom}}}" if latex else f"{{{top}}} / {{{bottom}}}"


# ---- numbers -------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """Probabilities, one axis for each of `names`. As a joint distribution it sums to 1."""

    names: Names
    array: np.ndarray

    @classmethod
    def joint(cls, names: Sequence[str], array: np.ndarray) -> Table:
        """A joint distribution. Raises `DataError` for a wrong number of axes, a negative entry, or a sum that is not 1.

        `array` has one axis a name, [v, ...].
        """
        array = np.asarray(array, np.float64)
        if array.ndim != len(names):
            raise DataError(f"table: {array.ndim} axes for {len(names)} variables; give one axis a variable")
        if not np.isfinite(array).all() or (array < 0).any() or abs(array.sum() - 1) > 1e-6:
            raise DataError(
                f"table: the entries sum to {array.sum():.6g}, the least is {array.min():.3g}; give probabilities that sum to 1"
            )
        return cls(tuple(names), array)

    def over(self, names: Sequence[str]) -> np.ndarray:
        """The array with its axes in the order of `names`, of length 1 where this table lacks one. [v, ...], one axis a name."""
        held = [name for name in names if name in self.names]
        turned = self.array.transpose([self.names.index(name) for name in held])
        return turned.reshape([self.array.shape[self.names.index(name)] if name in self.names else 1 for name in names])

    def marginal(self, names: Iterable[str]) -> Table:
        """Summed over all other variables."""
        kept = tuple(name for name in self.names if name in set(names))
        return Table(kept, np.asarray(self.array.sum(tuple(i for i, name in enumerate(self.names) if name not in kept))))


def times(one: Table, other: Table) -> Table:
    """The product of two tables; 0 times undefined is 0."""
    names = (*one.names, *(name for name in other.names if name not in one.names))
    a, b = one.over(names), other.over(names)
    return Table(names, np.where((a == 0) | (b == 0), 0.0, a * b))


def divided(one: Table, other: Table) -> Table:
    """The quotient of two tables, undefined where the second is 0."""
    names = (*one.names, *(name for name in other.names if name not in one.names))
    a, b = one.over(names), other.over(names)
    with np.errstate(divide="ignore", invalid="ignore"):
        return Table(names, np.where(b == 0, np.nan, a / np.where(b == 0, 1.0, b)))


def evaluate(formula: Formula, joint: Table) -> Table:
    """The value of `formula` under the observed distribution `joint`: a table over its free variables, nan where it is undefined.

    Raises `DataError` for a variable that the table lacks.
    """
    if isinstance(formula, Prob):
        lacking = [name for name in (*formula.of, *formula.given) if name not in joint.names]
        if lacking:
            raise DataError(f"table: there is no variable {lacking[0]!r}; the variables are {', '.join(joint.names)}")
        both = joint.marginal((*formula.of, *formula.given))
        return divided(both, joint.marginal(formula.given)) if formula.given else both
    if isinstance(formula, Product):
        result = Table((), np.ones(()))
        for factor in formula.factors:
            result = times(result, evaluate(factor, joint))
        return result
    if isinstance(formula, Sum):
        inner = evaluate(formula.body, joint)
        return inner.marginal(set(inner.names) - set(formula.over))
    return divided(evaluate(formula.top, joint), evaluate(formula.bottom, joint))
