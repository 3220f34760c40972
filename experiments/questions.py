"""`--do` and `--shift` as written on a command line: fixed values, ranges, and the joint interventions that they make.

--do=angle=20 --shift=light=-5        one joint intervention
--do=angle=-30:30:7                   seven of them, from -30 to 30
--do=angle=-30:30:7 --do=light=60:120:3    their product, 7 x 3
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from causal_gen import schema
from causal_gen.scm.intervention import Intervention, do, shift
from causal_gen.types import InterventionError

MEANING = "counterfactuals of the fitted model: they rest on its graph and on how well it fits, not on the world alone"


@dataclasses.dataclass(frozen=True)
class Term:
    """One flag: a node, "do" or "shift", and its values, of which a range has several."""

    node: str
    kind: str
    values: tuple[float, ...]
    is_range: bool = False


@dataclasses.dataclass(frozen=True)
class Question:
    """A joint intervention, or a grid of them with one axis a range. `shape` is () without ranges."""

    terms: tuple[Term, ...]

    @property
    def axes(self) -> tuple[Term, ...]:
        return tuple(term for term in self.terms if term.is_range)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(term.values) for term in self.axes)

    def cells(self) -> Iterator[tuple[str, Intervention | None]]:
        """Every joint intervention in row-major order of the axes, with a label that names what varies."""
        for choice in itertools.product(*(term.values for term in self.terms)):
            acts = [do(**{t.node: v}) if t.kind == "do" else shift(**{t.node: v}) for t, v in zip(self.terms, choice, strict=True)]
            joint = None
            for act in acts:
                joint = act if joint is None else joint & act
            pairs = list(zip(self.terms, choice, strict=True))
            shown = [(term, value) for term, value in pairs if term.is_range] or pairs
            yield ", ".join(_label(term, value) for term, value in shown) or "null", joint

    def spell(self) -> dict[str, str]:
        """For metrics.json: {"do(angle)": "20"}."""
        return {f"{t.kind}({t.node})": ":".join(f"{v:g}" for v in t.values) for t in self.terms}

    def warnings(self, entries: Mapping[str, Any]) -> list[str]:
        """A line for every `do` value outside of what the data covers: it is answered, but by extrapolation."""
        lines = []
        for term in self.terms:
            entry = entries.get(term.node)
            if term.kind != "do" or entry is None:
                continue
            low, high = (-math.inf if entry.low is None else entry.low), (math.inf if entry.high is None else entry.high)
            outside = [value for value in term.values if not low <= value <= high]
            if outside:
                values = ", ".join(f"{value:g}" for value in outside)
                unit = f" {entry.unit}" if entry.unit else ""
                lines.append(f"warning: do({term.node}={values}) lies outside of the data's {low:g}..{high:g}{unit}: an extrapolation")
        return lines


def parse(dos: Sequence[str], shifts: Sequence[str], factors: Sequence[str]) -> Question:
    """Raises `InterventionError` for what is no FACTOR=VALUE, an unknown factor, or a factor named twice."""
    terms: list[Term] = []
    for kind, texts in (("do", dos), ("shift", shifts)):
        for text in texts:
            term = _term(kind, text, factors)
            if any(other.node == term.node for other in terms):
                raise InterventionError(f"--{kind}={text}: {term.node!r} is acted upon twice; give each factor one value or one range")
            terms.append(term)
    return Question(tuple(terms))


def _term(kind: str, text: str, factors: Sequence[str]) -> Term:
    node, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not value:
        raise InterventionError(f"--{kind}={text}: write --{kind}=FACTOR=VALUE, for instance --{kind}={factors[0]}=20")
    if node not in factors:
        raise InterventionError(f"--{kind}={text}: unknown factor {node!r}; {schema.suggest(node, factors)}")
    parts = value.split(":")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if len(parts) == 1 and numbers and math.isfinite(numbers[0]):
        return Term(node, kind, (numbers[0],))
    if len(numbers) == 3 and all(map(math.isfinite, numbers)) and numbers[2].is_integer() and 1 <= numbers[2] <= 1000:
        low, high, count = numbers[0], numbers[1], int(numbers[2])
        return Term(node, kind, tuple(low + (high - low) * i / max(count - 1, 1) for i in range(count)), is_range=True)
    raise InterventionError(f"--{kind}={text}: {value!r} is neither a number nor LOW:HIGH:COUNT with a count of 1 to 1000")


def _label(term: Term, value: float) -> str:
    return f"{term.node}={value:g}" if term.kind == "do" else f"{term.node}{value:+g}"
