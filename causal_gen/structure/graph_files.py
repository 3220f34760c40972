"""Graphs from files: DOT (Graphviz, dagitty) and BIF (Bayesian networks).

DOT: `digraph`, or dagitty's `dag`, with chains, groups {a b} -> c, subgraphs and comments. A node is latent by [latent], [unobserved],
[observed=no] or [latent=true]; an edge between two effects of a latent cause is a <-> b or [dir=both].

BIF (Cozman's interchange format 0.15, as bnlearn writes it): `variable` blocks give nodes and their states, `probability` blocks the edges
and, where they have rows, the tables. What is not understood is refused with its line; attributes of drawing are passed over.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np

from causal_gen.structure.graph import Dag
from causal_gen.structure.graph_mixed import Admg
from causal_gen.types import Float, GraphError

SUFFIXES = (".dot", ".gv", ".bif")
_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*|(?m:^\s*\#[^\n]*)", re.DOTALL)
_DOT = re.compile(r'<->|->|<-|--|[{}\[\];,=]|"(?:\\.|[^"\\])*"|-?[\w.]+')
_BIF = re.compile(r'[{}\[\]();,|]|"[^"]*"|[^\s{}\[\]();,|"]+')
_NO, _YES = ("no", "false", "0"), ("", "yes", "true", "1")


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """What a BIF file says: the graph, {node: states}, and {node: table [states of each parent ..., states]} where the file has rows."""

    dag: Dag
    states: dict[str, tuple[str, ...]]
    tables: dict[str, Float[np.ndarray, "..."]]


def read_graph(path: str | Path, latent: Collection[str] = ()) -> Admg:
    """The graph of a .dot, .gv or .bif file over its observed nodes; nodes named in `latent`, or marked so in the file, are projected out.

    Raises `GraphError` for a file that cannot be read, with the line, and for everything that a graph refuses.
    """
    path = Path(path)
    if path.suffix == ".bif":
        return Admg(read_bif(path).dag).project(latent)
    if path.suffix not in SUFFIXES:
        raise GraphError(f"graph: {path}: unknown kind of file {path.suffix!r}; give one of {', '.join(SUFFIXES)}")
    graph, hidden = parse_dot(_text(path), str(path))
    return graph.project({*hidden, *latent})


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise GraphError(f"graph: {path}: not UTF-8 text; write it in UTF-8") from error
    except OSError as error:
        raise GraphError(f"graph: {path}: {error.strerror}; name a readable file") from error


@dataclasses.dataclass
class _Tokens:
    """The tokens of a text with their lines, read one by one; `place` starts every message."""

    found: list[tuple[str, int]]
    place: str
    at: int = 0

    @classmethod
    def of(cls, text: str, pattern: re.Pattern[str], place: str) -> _Tokens:
        text = _COMMENT.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
        tokens, end = [], 0
        for match in pattern.finditer(text):
            _only_blanks(text, end, match.start(), place)
            tokens.append((match[0], text.count("\n", 0, match.start()) + 1))
            end = match.end()
        _only_blanks(text, end, len(text), place)
        return cls(tokens, place)

    def peek(self, ahead: int = 0) -> str:
        """A token to come, "" at the end."""
        return self.found[self.at + ahead][0] if self.at + ahead < len(self.found) else ""

    def next(self, expected: str = "") -> str:
        """The next token, which must be `expected` if that is given."""
        token = self.peek()
        if not token or (expected and token != expected):
            self.fail(f"expected {expected or 'more'!r}, found {token or 'the end of the file'!r}")
        self.at += 1
        return token

    def take(self, *tokens: str) -> bool:
        """Passes over the next token if it is one of `tokens`."""
        found = self.peek() in tokens and bool(self.peek())
        self.at += found
        return found

    def name(self, what: str) -> str:
        """A name, without its quotes."""
        token = self.peek()
        if not token or not re.match(r'["\w]|-?[\w.]|[^{}\[\]();,|=]', token) or token in ("->", "<-", "<->", "--"):
            self.fail(f"expected {what}, found {token or 'the end of the file'!r}")
        self.at += 1
        return token[1:-1] if token.startswith('"') else token

    def fail(self, cause: str) -> None:
        """Raises `GraphError` at the token to come."""
        line = self.found[min(self.at, len(self.found) - 1)][1] if self.found else 1
        raise GraphError(f"graph: {self.place}: line {line}: {cause}; mend that line")


def _only_blanks(text: str, start: int, end: int, place: str) -> None:
    left = text[start:end]
    if left.strip():
        line = text.count("\n", 0, start + len(left) - len(left.lstrip())) + 1
        raise GraphError(f"graph: {place}: line {line}: cannot read {left.strip()[:20]!r}; mend that line")


# ---- DOT -----------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class _Drawing:
    """What a DOT file has said so far."""

    nodes: dict[str, None] = dataclasses.field(default_factory=dict)
    edges: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    both: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    latent: set[str] = dataclasses.field(default_factory=set)


def parse_dot(text: str, place: str = "DOT text") -> tuple[Admg, frozenset[str]]:
    """The graph over all nodes of a DOT or dagitty text, and the nodes that it marks as latent. `place` names it in messages."""
    tokens, drawing = _Tokens.of(text, _DOT, place), _Drawing()
    tokens.take("strict")
    kind = tokens.name("digraph")
    if kind not in ("digraph", "dag"):
        tokens.at -= 1
        way = "its edges have no direction" if kind == "graph" else "the file starts otherwise"
        tokens.fail(f"expected 'digraph' or dagitty's 'dag', found {kind!r} ({way})")
    if tokens.peek() != "{":
        tokens.name("a name of the graph")
    tokens.next("{")
    _statements(tokens, drawing)
    if tokens.peek():
        tokens.fail(f"found {tokens.peek()!r} after the graph's closing brace")
    return Admg(Dag(tuple(drawing.nodes), tuple(drawing.edges)), tuple(drawing.both)), frozenset(drawing.latent)


def _statements(tokens: _Tokens, drawing: _Drawing) -> list[str]:
    """Up to the closing brace; the nodes that are named."""
    named: list[str] = []
    while not tokens.take("}"):
        if tokens.take(";", ","):
            continue
        if tokens.peek() in ("node", "edge", "graph") and tokens.peek(1) == "[":
            tokens.next()
            _attributes(tokens)
        elif tokens.peek(1) == "=":
            tokens.at += 2
            tokens.name("a value")
        else:
            named += _chain(tokens, drawing)
    return named


def _ends(tokens: _Tokens, drawing: _Drawing) -> list[str]:
    """One end of an edge: a node, or a group of nodes."""
    if tokens.take("subgraph") and tokens.peek() != "{":
        tokens.name("a name of the subgraph")
    if tokens.take("{"):
        return _statements(tokens, drawing)
    name = tokens.name("a node")
    drawing.nodes[name] = None
    return [name]


def _chain(tokens: _Tokens, drawing: _Drawing) -> list[str]:
    """A node, or edges a -> b -> c, with attributes."""
    ends, named, steps = _ends(tokens, drawing), [], []
    named += ends
    while tokens.peek() in ("->", "<-", "<->", "--"):
        if tokens.peek() == "--":
            tokens.fail("an edge without direction; write ->, or <-> for a latent common cause")
        arrow = tokens.next()
        other = _ends(tokens, drawing)
        steps += [(a, arrow, b) for a, b in itertools.product(ends, other)]
        named, ends = named + other, other
    told = _attributes(tokens)
    for a, arrow, b in steps:
        way = told.get("dir", "forward")
        if way == "none":
            tokens.fail(f"edge {a} -> {b} has dir=none; give it a direction, or dir=both for a latent common cause")
        if arrow == "<->" or way == "both":
            drawing.both.append((a, b))
        else:
            drawing.edges.append((b, a) if (arrow == "<-") != (way == "back") else (a, b))
    hidden = any(told.get(key, "no").lower() in _YES for key in ("latent", "unobserved")) or told.get("observed", "yes").lower() in _NO
    if hidden and not steps:
        drawing.latent.update(named)
    return named


def _attributes(tokens: _Tokens) -> dict[str, str]:
    """[key=value, key; ...], any number of such lists."""
    told: dict[str, str] = {}
    while tokens.take("["):
        while not tokens.take("]"):
            if tokens.take(",", ";"):
                continue
            key = tokens.name("an attribute or ]")
            told[key.lower()] = tokens.name("a value") if tokens.take("=") else ""
    return told


# ---- BIF -----------------------------------------------------------------------------------------------------------------------


def read_bif(path: str | Path) -> Network:
    """The network of a BIF file. Raises `GraphError` with the line of what it cannot read."""
    return parse_bif(_text(Path(path)), str(path))


def parse_bif(text: str, place: str = "BIF text") -> Network:
    """The network of a BIF text; `place` names it in messages. Raises `GraphError` where it holds no variables."""
    tokens = _Tokens.of(text, _BIF, place)
    states: dict[str, tuple[str, ...]] = {}
    parents: dict[str, tuple[str, ...]] = {}
    rows: dict[str, dict[tuple[str, ...] | None, list[float]]] = {}
    while tokens.peek():
        block = tokens.name("a block")
        if block == "network":
            while tokens.peek() != "{":
                tokens.next()
            _block(tokens, lambda: False)
        elif block == "variable":
            _variable(tokens, states)
        elif block == "probability":
            _probability(tokens, states, parents, rows)
        else:
            tokens.at -= 1
            tokens.fail(f"expected network, variable or probability, found {block!r}")
    if not states:
        raise GraphError(f"graph: {place}: there is no variable block; a BIF file has one a node")
    dag = Dag(tuple(states), tuple((parent, child) for child in states for parent in parents.get(child, ())))
    return Network(dag, states, {child: _table(place, dag, states, parents[child], child, found) for child, found in rows.items() if found})


def _block(tokens: _Tokens, statement: Callable[[], bool]) -> None:
    """{ ... }: statements that `statement` understands; it passes over properties."""
    tokens.next("{")
    while not tokens.take("}"):
        if tokens.peek() == "property":
            while not tokens.take(";"):
                tokens.next()
        elif not statement():
            tokens.fail(f"cannot read {tokens.peek() or 'the end of the file'!r} here")


def _variable(tokens: _Tokens, states: dict[str, tuple[str, ...]]) -> None:
    name = tokens.name("a variable")

    def statement() -> bool:
        if not tokens.take("type"):
            return False
        kind = tokens.name("a type")
        if kind != "discrete":
            tokens.fail(f"variable {name} is {kind}; only discrete variables have states")
        tokens.next("[")
        count = tokens.name("a number of states")
        tokens.next("]")
        tokens.next("{")
        found = []
        while not tokens.take("}"):
            found.append(tokens.name("a state"))
            tokens.take(",")
        tokens.take(";")
        if not count.isdigit() or int(count) != len(found):
            tokens.fail(f"variable {name} says {count} states and lists {len(found)}")
        states[name] = tuple(found)
        return True

    if name in states:
        tokens.fail(f"variable {name} has two blocks")
    _block(tokens, statement)
    if name not in states:
        tokens.fail(f"variable {name} has no states")


def _probability(tokens: _Tokens, states: dict[str, tuple[str, ...]], parents: dict[str, tuple[str, ...]], rows: dict) -> None:
    tokens.next("(")
    child = tokens.name("a variable")
    found = []
    if tokens.take("|"):
        while tokens.peek() != ")":
            found.append(tokens.name("a parent"))
            tokens.take(",")
    tokens.next(")")
    for name in (child, *found):
        if name not in states:
            tokens.fail(f"there is no variable {name!r} above; the variables are {', '.join(states)}")
    if child in parents:
        tokens.fail(f"variable {child} has two probability blocks")
    parents[child], rows[child] = tuple(found), {}

    def statement() -> bool:
        case: tuple[str, ...] | None
        if tokens.take("table"):
            if found:
                tokens.fail(f"a table for {child} given parents has no agreed order; write rows such as ({', '.join(found)}) .1, .9;")
            case = ()
        elif tokens.take("default"):
            case = None
        elif tokens.take("("):
            case = ()
            while not tokens.take(")"):
                case = (*case, tokens.name("a state"))
                tokens.take(",")
            wrong = len(case) != len(found) or any(state not in states[name] for state, name in zip(case, found, strict=False))
            if wrong:
                tokens.fail(f"row {', '.join(case)} of {child}: give one state of each of {', '.join(found)}")
        else:
            return False
        rows[child][case] = _numbers(tokens, child, len(states[child]))
        return True

    _block(tokens, statement)


def _numbers(tokens: _Tokens, child: str, count: int) -> list[float]:
    texts = []
    while tokens.peek() != ";":
        texts.append(tokens.name("a probability or ;"))
        tokens.take(",")
    try:
        values = [float(text) for text in texts]
    except ValueError:
        values = []
    if len(values) != count or min(values, default=-1.0) < 0 or abs(sum(values) - 1) > 1e-3:
        tokens.fail(f"a row of {child} is {' '.join(texts)!r}; give {count} probabilities that sum to 1")
    tokens.next(";")
    return values


def _table(place: str, dag: Dag, states: dict, above: tuple[str, ...], child: str, rows: dict) -> np.ndarray:
    """[states of each parent ..., states]: parents in the order of the graph, whatever that of the file."""
    table = np.full([*(len(states[name]) for name in above), len(states[child])], np.nan)
    if None in rows:
        table[...] = rows[None]
    for case, values in rows.items():
        if case is not None:
            table[tuple(states[name].index(state) for name, state in zip(above, case, strict=True))] = values
    if np.isnan(table).any():
        missing = np.argwhere(np.isnan(table[..., 0]))[0]
        case = ", ".join(states[name][i] for name, i in zip(above, missing, strict=True))
        raise GraphError(f"graph: {place}: {child} has no row for ({case}); give one, or a default")
    table = table / table.sum(-1, keepdims=True)  # files are rounded
    return table.transpose([*(above.index(name) for name in dag.parents(child)), len(above)])
