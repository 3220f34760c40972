"""What the reference says of every public function: shapes of arrays, units, the errors that the user meets, and sources of equations.

Read from the syntax trees of the modules that docs/pages.py puts into the reference. The rules:

1. it has a docstring; a method may do without where a class that it stands in for (a Protocol, a base) says what it is;
2. an array in its signature has its shape, as a jaxtyping annotation or in brackets in the docstring: `[b, t]`; a mapping of names to
   arrays is a batch, whose shapes its data source says, a `step` is a scalar, and a rule of a visibility gives what its Sides say;
3. if it raises an error of the user's (UserError and its family), docstring or class says so: "Raises", "refuses" or the error's name;
4. a module whose docstring numbers equations names where they are from, or that they are the project's own;
5. a number that measures time, memory, work or information, by its name (`timeout`, `flops`), has its unit there or in the docstring.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ERRORS = {"UserError", "ConfigError", "GraphError", "InterventionError", "DataError", "CheckpointError", "WorkdirError"}
ARRAYS = {"Array", "jax.Array", "np.ndarray", "ndarray", "jnp.ndarray"}
SHAPED = {"Float", "Int", "Integer", "Bool", "UInt8", "Shaped", "Num", "Real", "Inexact", "Complex", "UInt32"}
BRACKETS = re.compile(r"\[[^\]\n]{0,60}\]|\bscalars?\b|\bsquare\b")
EQUATION = re.compile(r"\((\d{1,2})\)\s*$", re.M)
QUANTITY = re.compile(
    r"(?:^|_)(?:timeout|seconds|time|duration|interval|delay|wait|grace|elapsed|age|deadline|period|memory|bytes|bandwidth|flops|speed|"
    r"intensity|throughput|angle|light|distance|nats|bits|likelihood|log_prob|entropy|thickness|brightness)$"
)
UNIT = re.compile(
    r"seconds?\b|\bminutes?\b|bytes?\b|\bGiB\b|flops?(?:/s)?\b|degrees?\b|\bradians?\b|\bpixels?\b|nats?\b|bits?\b|"
    r"standard deviations?|\bgrey levels?",
    re.IGNORECASE,
)
NUMBERS = {"int", "float", "int | None", "float | None"}
SOURCE = re.compile(r"\bSources?\b|\bet al\b|\b(?:19|20)\d\d\b|\bown\b|\bfollows from\b|\bby definition\b", re.I)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def pages():
    spec = importlib.util.spec_from_file_location("docs_pages", ROOT / "docs" / "pages.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MODULES = [module for room in pages().rooms().values() for module in room]


def file_of(module: str) -> Path:
    path = ROOT / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def functions(tree: ast.Module) -> Iterator[tuple[str, Function, ast.ClassDef | None]]:
    """Public functions, and public methods of public classes: (name, node, its class)."""
    for node in tree.body:
        if isinstance(node, Function) and not node.name.startswith("_"):
            yield node.name, node, None
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for inner in node.body:
                if isinstance(inner, Function) and not inner.name.startswith("_"):
                    yield f"{node.name}.{inner.name}", inner, node


def described() -> set[str]:
    """Methods that a Protocol or a base class of the package describes: an implementation need not say it again."""
    classes = [
        node for file in (ROOT / "causal_gen").rglob("*.py") for node in ast.parse(file.read_text()).body if isinstance(node, ast.ClassDef)
    ]
    bases = {ast.unparse(base).rpartition(".")[2] for node in classes for base in node.bases}
    found = set()
    for node in classes:
        if node.name in bases or "Protocol" in " ".join(map(ast.unparse, node.bases)):
            found |= {inner.name for inner in node.body if isinstance(inner, Function) and ast.get_docstring(inner)}
    return found


def own_nodes(function: Function) -> Iterator[ast.AST]:
    """The nodes of a body without those of functions inside it."""
    queue: list[ast.AST] = list(function.body)
    while queue:
        node = queue.pop()
        yield node
        if not isinstance(node, Function | ast.Lambda):
            queue += ast.iter_child_nodes(node)


def raised(function: Function) -> set[str]:
    """Errors of the user's that its own lines raise."""
    calls = [node.exc for node in own_nodes(function) if isinstance(node, ast.Raise) and node.exc is not None]
    names = {ast.unparse(call.func if isinstance(call, ast.Call) else call).rpartition(".")[2] for call in calls}
    return names & ERRORS


def bare_arrays(function: Function, own: set[str]) -> list[str]:
    """Annotations that name an array without its shape; `own` are classes of the module, which may be called Array too."""
    given = [one for one in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs) if one.arg != "step"]
    if any(one.annotation is not None and ast.unparse(one.annotation) == "Side" for one in given):
        return []
    notes = [one.annotation for one in given if one.annotation is not None] + ([function.returns] if function.returns is not None else [])
    found = []
    for note in notes:
        inside = {id(child) for node in ast.walk(note) if _closed(node) for child in ast.walk(node)}
        for node in ast.walk(note):
            if isinstance(node, ast.Name | ast.Attribute) and id(node) not in inside and ast.unparse(node) in ARRAYS - own:
                found.append(ast.unparse(note))
    return found


def _closed(node: ast.AST) -> bool:
    """Whether an annotation says the shape of what is in it, or is of the kinds that need not."""
    return isinstance(node, ast.Subscript) and ast.unparse(node.value) in SHAPED | {"dict", "Mapping", "Callable"}


def bare_quantities(function: Function, around: str) -> list[str]:
    """Names of measured numbers, taken or returned, whose unit is nowhere said."""
    given = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
    noted = [(one.arg, one.annotation) for one in given] + [(function.name, function.returns)]
    names = [name for name, note in noted if note is not None and ast.unparse(note) in NUMBERS and QUANTITY.search(name)]
    return [] if UNIT.search(around) else [name for name in names if not UNIT.search(name.replace("_", " "))]


def problems(source: str, known: set[str]) -> list[str]:
    """What the rules find in a module."""
    tree, found = ast.parse(source), []
    about = ast.get_docstring(tree) or ""
    if EQUATION.search(about) and not SOURCE.search(about):
        found.append("its equations have no source")
    own = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    for name, node, owner in functions(tree):
        text = ast.get_docstring(node) or ""
        around = text + (ast.get_docstring(owner) or "" if owner is not None else "")
        field = any("property" in ast.unparse(one) for one in node.decorator_list) or node.name == "setup"  # flax's, like __init__
        if not text and not field and not (owner is not None and node.name in known):
            found.append(f"{name} has no docstring")
            continue
        if bare_arrays(node, own) and not BRACKETS.search(around) and not (owner is not None and node.name in known):
            found.append(f"{name}: {', '.join(dict.fromkeys(bare_arrays(node, own)))} without a shape")
        if unmeasured := bare_quantities(node, around):
            found.append(f"{name}: {', '.join(unmeasured)} without a unit")
        missing = raised(node)
        if missing and not re.search(r"\b[Rr]aises?\b|\brefuse[sd]?\b|\brefusal\b|" + "|".join(missing), around):
            found.append(f"{name} raises {', '.join(sorted(missing))} and does not say so")
    return found


@pytest.fixture(scope="module")
def known() -> set[str]:
    return described()


@pytest.mark.parametrize("module", MODULES)
def test_the_reference_says_shapes_units_errors_and_sources(module, known):
    found = problems(file_of(module).read_text(), known)
    assert not found, f"{module}: " + "; ".join(found)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def f(x: int) -> int:\n    return x", "no docstring"),
        ('def f(x: Array) -> int:\n    """It."""', "without a shape"),
        ('def f(x: Float[Array, "b"]) -> tuple[Array, int]:\n    """It."""', "without a shape"),
        ('def f(x: int) -> int:\n    """It."""\n    if x:\n        raise DataError("no")\n    return x', "does not say so"),
        ('class A:\n    """It."""\n\n    def f(self, x: np.ndarray) -> int:\n        """It."""', "without a shape"),
        ('def f(timeout: float) -> int:\n    """It."""', "without a unit"),
        ('def entropy() -> float:\n    """It."""', "without a unit"),
        ('"""It.\n\n    y = x   (1)\n"""', "no source"),
    ],
)
def test_a_lack_is_seen(source, said):
    found = problems(source, set())
    assert len(found) == 1 and said in found[0]


@pytest.mark.parametrize(
    "source",
    [
        'def f(x: Float[Array, "b t"], key: Key) -> Bool[np.ndarray, "b"]:\n    """It."""',
        'def f(x: Array) -> int:\n    """Of `x` [b, t]."""',
        'def f(x: int) -> int:\n    """It. Raises DataError for 0."""\n    raise DataError("no")',
        'def f(timeout: float, max_bytes: int) -> int:\n    """At most `timeout` seconds."""',
        'def f() -> int:\n    """It."""\n    def g():\n        raise DataError("no")\n    return 1',
        '"""It.\n\n    y = x   (1)\n\nSource: Gauss 1809.\n"""\n\ndef _f(x):\n    pass',
    ],
)
def test_what_is_said_is_enough(source):
    assert problems(source, set()) == []
