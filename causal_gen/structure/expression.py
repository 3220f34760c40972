"""A visibility as one line of text, which is how a config says it: `causal() & same_document() | prefix(4)`.

The line is Python's grammar and nothing of its power: calls of the functions of masks.py and variants.py with constants, or with other
visibilities, joined by `&`, `|` and `~`. A graph is written as its edges: `dag([("a", "b")])`.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Callable
from typing import Any

from causal_gen.structure import masks, variants
from causal_gen.structure.graph import Dag
from causal_gen.structure.visibility import Visibility
from causal_gen.types import ConfigError


def known() -> dict[str, Callable[..., Any]]:
    """The functions that a line may call, by name."""
    return {
        name: value
        for module in (masks, variants)
        for name, value in vars(module).items()
        if callable(value) and not isinstance(value, type) and getattr(value, "__module__", "") == module.__name__ and name[0] != "_"
    }


def read(text: str) -> Visibility:
    """The visibility that `text` describes. Raises `ConfigError`, one line, for anything else."""
    try:
        return _visibility(ast.parse(text.strip(), mode="eval").body, text)
    except SyntaxError as error:
        raise ConfigError(f"visibility {text!r}: not an expression ({error.msg}); write, for instance, causal() & window(64)") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"visibility {text!r}: {error}") from error


def _visibility(node: ast.expr, text: str) -> Visibility:
    found = _value(node, text)
    if not isinstance(found, Visibility):
        raise ConfigError(f"visibility {text!r}: {ast.unparse(node)} is not a visibility; write, for instance, causal() & window(64)")
    return found


def _value(node: ast.expr, text: str) -> Any:
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.BitAnd, ast.BitOr)):
        left, right = _visibility(node.left, text), _visibility(node.right, text)
        return left & right if isinstance(node.op, ast.BitAnd) else left | right
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Invert):
        return ~_visibility(node.operand, text)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return _call(node.func.id, node, text)
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        raise ConfigError(f"visibility {text!r}: {ast.unparse(node)} is neither a constant nor a call of a visibility") from error


def _call(name: str, node: ast.Call, text: str) -> Any:
    functions = known()
    if name not in functions:
        near = difflib.get_close_matches(name, functions, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(functions))}"
        raise ConfigError(f"visibility {text!r}: unknown {name!r}; {hint}")
    args: list[Any] = [_value(arg, text) for arg in node.args]
    if name == "dag" and args:
        args[0] = Dag.from_edges(args[0])
    return functions[name](*args, **{keyword.arg: _value(keyword.value, text) for keyword in node.keywords if keyword.arg})
