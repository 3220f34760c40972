"""`--do`, `--shift`, `--soft` and `--prompt` as written on a command line: values, ranges, and the joint interventions they make.

--do=angle=20 --shift=light=-5        one joint intervention
--do='angle->light=20'                what `light` reads of `angle`, where the model can read one parent apart: a path-specific effect
--soft=scale:angle=2 --soft=clip:light=60,90 --soft=normal:angle=0,5    a function of the natural value, or a draw by --seed
--do=angle=-30:30:7                   seven of them, from -30 to 30
--do=angle=-30:30:7 --do=light=60:120:3    their product, 7 x 3
--do='tokens[5]=17'                   token 17 at position 5 of a sequence; a range, tokens[5]=48:57:10, asks for each of ten tokens
--do='text[10:14]="1912"'             bytes 10 to 13 of a text of bytes, by as many bytes
--prompt="In 1912"                    the first tokens of a sequence: nothing is before them, so that to set them is to condition on them
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from causal_gen import schema
from causal_gen.data.tokenizer import ByteTokenizer, check_tokens
from causal_gen.scm.intervention import KINDS, STOCHASTIC, Intervention, Span, do, edge_name, soft, stochastic
from causal_gen.types import InterventionError, UserError

MEANING = "counterfactuals of the fitted model: they rest on its graph and on how well it fits, not on the world alone"
GUMBEL = "counterfactuals of the fitted model: they rest on how well it fits and on the Gumbel-max choice of noise; others are possible"
TEXT = "text"  # what bytes of a sequence are called on the command line
PROMPT = "prompt"


@dataclasses.dataclass(frozen=True)
class Term:
    """One flag: a node (or an edge "parent->child"), a kind of intervention, and its values, of which a range has several.

    `seed` is that of the draws of a stochastic kind.
    In a sequence a value is the tokens that stand from `start` on. `written` and `spelled` are what the user calls node and values.
    """

    node: str
    kind: str
    values: tuple[Any, ...]
    written: str
    spelled: tuple[str, ...]
    is_range: bool = False
    start: int | None = None
    seed: int = 0

    @property
    def places(self) -> range:
        """The positions that are set."""
        return range(self.start or 0, (self.start or 0) + len(self.values[0])) if self.start is not None else range(0)


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
        for choice in itertools.product(*(range(len(term.values)) for term in self.terms)):
            pairs = list(zip(self.terms, choice, strict=True))
            shown = [(term, i) for term, i in pairs if term.is_range] or pairs
            yield ", ".join(_label(term, i) for term, i in shown) or "null", _joint((term, term.values[i]) for term, i in pairs)

    def spell(self) -> dict[str, str]:
        """For metrics.json: {"do(angle)": "20"}."""
        return {t.written if t.written == PROMPT else f"{t.kind}({t.written})": ":".join(t.spelled) for t in self.terms}

    def forced(self, length: int) -> np.ndarray:
        """Which positions of a sequence are set, bool [t]."""
        mask = np.zeros(length, bool)
        for term in self.terms:
            mask[term.places] = True
        return mask

    def outside(self, entries: Mapping[str, Any], stats: Mapping[str, Any] | None = None) -> dict[str, dict[str, Any]]:
        """What is set to values that the data do not cover: {node: values, the data's low and high, distance in standard deviations}.

        The data cover the support that their entry declares, and where that is unbounded what the training rows span (`stats`).
        """
        found = {}
        for term in self.terms:
            node = term.node.partition("->")[0]
            entry, known = entries.get(node), (stats or {}).get(node, {})
            if term.kind != "do" or entry is None or term.start is not None:
                continue
            low = known.get("low", -math.inf) if entry.low is None else entry.low
            high = known.get("high", math.inf) if entry.high is None else entry.high
            values = [value for value in term.values if not low <= value <= high]
            if values:
                gap = max(max(low - value, value - high) for value in values)
                std = known.get("std")
                found[term.node] = {"values": values, "low": low, "high": high, "distance": gap / std if std else None}
        return found

    def warnings(self, entries: Mapping[str, Any], stats: Mapping[str, Any] | None = None) -> list[str]:
        """A line for every `do` value outside of what the data covers: it is answered, but by extrapolation."""
        lines = []
        for node, found in self.outside(entries, stats).items():
            values, unit = ", ".join(f"{value:g}" for value in found["values"]), entries[node.partition("->")[0]].unit
            where = f"the data's {found['low']:g}..{found['high']:g}{f' {unit}' if unit else ''}"
            far = f" by {found['distance']:.2g} standard deviations" if found["distance"] else ""
            lines.append(f"warning: do({node}={values}) lies outside of {where}: an extrapolation{far}")
        return lines


def asked(values: Any, run: Any) -> Question:
    """The question that the flags put to the model of a run, whose data may know how text is spelled.

    Raises `UserError` for a model that generates nothing, which nothing can be asked.
    """
    if run.model.predict is None:
        raise UserError(f"model {run.config['model']['name']!r} generates nothing that could be drawn or set; evaluate it instead")
    spans = getattr(run.model, "spans", {})
    factors = [name for name in run.model.actable if name not in spans]
    entries = getattr(run.data, "entries", {})
    names = {name: entries[name].names for name in factors if name in entries}
    tokenizer = getattr(run.data, "tokenizer", None) if spans else None
    question = parse(values.do, values.shift, factors, spans, tokenizer, _edges(run.model), names)
    for text in values.soft:
        if spans:
            raise InterventionError(f"--soft={text}: tokens are names, not amounts; set them by --do")
        question = joined(question, _soft(text, factors, _edges(run.model), values.seed), f"--soft={text}")
    return question


def _edges(model: Any) -> tuple[str, ...]:
    return tuple(edge_name(*edge) for edge in getattr(model, "edges", ()))


def parse(
    dos: Sequence[str],
    shifts: Sequence[str],
    factors: Sequence[str],
    spans: Mapping[str, Span] | None = None,
    tokenizer: Any = None,
    edges: Sequence[str] = (),
    names: Mapping[str, Sequence[str]] | None = None,
) -> Question:
    """Raises `InterventionError` for what is no FACTOR=VALUE, an unknown factor or edge, or a factor, edge or position named twice.

    `spans` are the nodes that are sequences, `tokenizer` that of their text where it is text, `edges` those that can be acted upon,
    `names` {factor: what its values are called}.
    """
    question = Question(())
    for kind, texts in (("do", dos), ("shift", shifts)):
        for text in texts:
            term = _in_sequence(kind, text, spans, tokenizer) if spans else _term(kind, text, factors, edges, names or {})
            question = joined(question, term, f"--{kind}={text}")
    return question


def prompted(question: Question, text: str, node: str, span: Span, tokenizer: Any) -> Question:
    """`question` with the first tokens of a sequence set to `text`, or to the numbers in it where there is no tokenizer."""
    tokens = tuple(_encode("--prompt", text, tokenizer) if tokenizer is not None else _numbers(text))
    check_tokens(np.asarray(tokens, int), span.vocabulary, "--prompt: token ")
    if len(tokens) >= span.length:
        raise InterventionError(f"--prompt: {len(tokens)} tokens, but a row has {span.length} and one at least is to be drawn; shorten it")
    if not tokens:
        return question
    spelled = json.dumps(text, ensure_ascii=False) if tokenizer is not None else " ".join(map(str, tokens))
    return joined(question, Term(node, "do", (tokens,), PROMPT, (spelled,), start=0), "--prompt")


def joined(question: Question, term: Term, flag: str) -> Question:
    """`question` and one more term. Raises `InterventionError` where both act upon one factor or position."""
    for other in question.terms:
        if other.node != term.node:
            continue
        if term.start is None:
            raise InterventionError(f"{flag}: {term.node!r} is acted upon twice; give each factor one value or one range")
        twice = sorted(set(other.places) & set(term.places))
        if twice:
            raise InterventionError(f"{flag}: position {twice[0]} is set twice, also by {other.written}; set each position once")
    return Question((*question.terms, term))


def _joint(pairs: Iterator[tuple[Term, Any]]) -> Intervention | None:
    acts, placed = [], {}
    for term, value in pairs:
        if term.start is not None:
            placed.setdefault(term.node, {}).update(zip(term.places, value, strict=True))
        else:
            acts.append(_act(term, value))
    acts += [do(**{node: tokens}) for node, tokens in placed.items()]
    return functools.reduce(operator.and_, acts) if acts else None


def _act(term: Term, value: Any) -> Intervention:
    parent, _, child = term.node.partition("->")
    edge = (parent, child) if child else None
    if term.kind in STOCHASTIC:
        return stochastic(term.kind, jax.random.key(term.seed), edge=edge, **{parent: value})
    return soft(term.kind, edge=edge, **{parent: value})


def _node(flag: str, node: str, factors: Sequence[str], edges: Sequence[str]) -> str:
    """The name of a factor or an edge, without blanks."""
    name = "->".join(part.strip() for part in node.split("->"))
    if "->" in name and name not in edges:
        way = schema.suggest(name, edges) if edges else "this model's mechanisms read no parent apart; act upon the factor"
        raise InterventionError(f"{flag}: no edge {name!r} that could be acted upon; {way}")
    if "->" not in name and name not in factors:
        raise InterventionError(f"{flag}: unknown factor {name!r}; {schema.suggest(name, factors)}")
    return name


def _soft(text: str, factors: Sequence[str], edges: Sequence[str], seed: int) -> Term:
    """KIND:FACTOR=ARGUMENT,ARGUMENT."""
    kinds = {**{name: entry[0] for name, entry in KINDS.items()}, **{name: entry[0] for name, entry in STOCHASTIC.items()}}
    kind, colon, rest = text.partition(":")
    node, equals, value = rest.partition("=")
    flag, kind = f"--soft={text}", kind.strip()
    if not colon or not equals:
        raise InterventionError(f"{flag}: write --soft=KIND:FACTOR=VALUE,VALUE, for instance --soft=scale:{factors[0]}=2")
    if kind not in kinds:
        raise InterventionError(f"{flag}: unknown kind {kind!r}; {schema.suggest(kind, list(kinds))}")
    try:
        numbers = [float(part) for part in value.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != kinds[kind] or not all(map(math.isfinite, numbers)):
        raise InterventionError(f"{flag}: {kind} takes {kinds[kind]} number(s) after the =, separated by commas; got {value.strip()!r}")
    name = _node(flag, node, factors, edges)
    given = numbers[0] if len(numbers) == 1 else tuple(numbers)
    return Term(name, kind, (given,), name, (",".join(f"{number:g}" for number in numbers),), seed=seed)


def _term(kind: str, text: str, factors: Sequence[str], edges: Sequence[str], names: Mapping[str, Sequence[str]]) -> Term:
    node, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not value:
        raise InterventionError(f"--{kind}={text}: write --{kind}=FACTOR=VALUE, for instance --{kind}={factors[0]}=20")
    node = _node(f"--{kind}={text}", node, factors, edges)
    known = names.get(node.partition("->")[0], ())
    if known:
        if value not in known:
            raise InterventionError(f"--{kind}={text}: {value!r} is no value of {node}; {schema.suggest(value, known)}")
        return Term(node, kind, (float(known.index(value)),), node, (value,))
    numbers = _values(f"--{kind}={text}", value)
    return Term(node, kind, numbers, node, tuple(f"{v:g}" for v in numbers), is_range=":" in value)


def _values(flag: str, value: str) -> tuple[float, ...]:
    """The number in `value`, or those of its LOW:HIGH:COUNT."""
    parts = value.split(":")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if len(parts) == 1 and numbers and math.isfinite(numbers[0]):
        return (numbers[0],)
    if len(numbers) == 3 and all(map(math.isfinite, numbers)) and numbers[2].is_integer() and 1 <= numbers[2] <= 1000:
        low, high, count = numbers[0], numbers[1], int(numbers[2])
        return tuple(low + (high - low) * i / max(count - 1, 1) for i in range(count))
    raise InterventionError(f"{flag}: {value!r} is neither a number nor LOW:HIGH:COUNT with a count of 1 to 1000")


def _in_sequence(kind: str, text: str, spans: Mapping[str, Span], tokenizer: Any) -> Term:
    """A term that sets positions: NODE[I]=TOKEN, or text[I:J]=TEXT."""
    flag, names = f"--{kind}={text}", list(spans)
    way = f"write --do='{names[0]}[5]=17'" + (""" or --do='text[10:14]="1912"'""" if isinstance(tokenizer, ByteTokenizer) else "")
    if kind != "do":
        raise InterventionError(f"{flag}: tokens are names, not amounts, and cannot be shifted; {way}")
    found = re.fullmatch(r"\s*(\w+)\s*\[\s*(-?\d+)\s*(?::\s*(-?\d+)\s*)?\]\s*=(.*)", text, re.DOTALL)
    if not found:
        raise InterventionError(f"{flag}: this model is over a sequence, whose positions are set; {way}")
    node, first, last, value = found[1], int(found[2]), found[3], found[4]
    if node in spans and last is None:
        return _token(flag, node, first, value.strip(), spans[node])
    if node == TEXT and last is not None:
        if not isinstance(tokenizer, ByteTokenizer):
            kind = "BPE tokens, not of bytes" if tokenizer is not None else "numbers, not of text"
            raise InterventionError(f"{flag}: this model's sequences are of {kind}, so that a span of text has no positions; {way}")
        return _passage(flag, names[0], first, int(last), value, spans[names[0]], tokenizer)
    raise InterventionError(f"{flag}: unknown span {text.partition('=')[0].strip()!r}; {way}")


def _token(flag: str, node: str, place: int, value: str, span: Span) -> Term:
    _check_place(flag, place, span)
    numbers = _values(flag, value)
    wrong = [number for number in numbers if not (number.is_integer() and 0 <= number < span.vocabulary)]
    if wrong:
        raise InterventionError(f"{flag}: {wrong[0]:g} is no token; they are the whole numbers 0..{span.vocabulary - 1}")
    tokens = tuple((int(number),) for number in numbers)
    return Term(node, "do", tokens, f"{node}[{place}]", tuple(str(token) for (token,) in tokens), is_range=":" in value, start=place)


def _passage(flag: str, node: str, first: int, last: int, value: str, span: Span, tokenizer: Any) -> Term:
    _check_place(flag, first, span)
    _check_place(flag, last - 1, span)
    text = value
    if len(value.strip()) > 1 and value.strip()[0] == value.strip()[-1] == '"':
        try:
            text = json.loads(value, strict=False)
        except ValueError as error:
            raise InterventionError(
                f"{flag}: cannot read the quoted text ({error}); escape quotes and backslashes in it by a backslash"
            ) from error
    tokens = tuple(_encode(flag, text, tokenizer))
    if len(tokens) != last - first or not tokens:
        raise InterventionError(f"{flag}: the span has {last - first} bytes and the text {len(tokens)}; give text of equal length")
    return Term(node, "do", (tokens,), f"{TEXT}[{first}:{last}]", (json.dumps(text, ensure_ascii=False),), start=first)


def _check_place(flag: str, place: int, span: Span) -> None:
    if not 0 <= place < span.length:
        raise InterventionError(f"{flag}: there is no position {place} in a row; they are 0..{span.length - 1}")


def _encode(flag: str, text: str, tokenizer: Any) -> list[int]:
    try:
        text.encode()
    except UnicodeEncodeError as error:  # bytes of a command line that are no UTF-8 arrive as lone surrogates
        raise InterventionError(f"{flag.encode(errors='replace').decode()}: not UTF-8 text ({error.reason}); write it in UTF-8") from error
    return tokenizer.encode([text])[0].tolist()


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in re.split(r"[\s,]+", text.strip()) if part]
    except ValueError as error:
        raise InterventionError(f"--prompt={text}: this run's data has no tokenizer; give numbers, as in --prompt=3,1,4") from error


def _label(term: Term, i: int) -> str:
    if term.kind == "shift":
        return f"{term.node}{term.values[i]:+g}"
    if term.kind != "do":
        return f"{term.kind}({term.written}: {term.spelled[i]})"
    return f"{term.written}={term.spelled[i]}"
