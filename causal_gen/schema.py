"""From plain nested mappings to frozen dataclasses and back: a dataclass's fields are the schema.

Names, types and defaults come from the fields; a field's metadata gives its range as {"min": .., "max": .., "choices": (..)}, or says
{"handed": True}: no key, but what another section hands on (workdirs of a time when it was a key may hold it, unset);
what only several fields together can say is a `ValueError` in `__post_init__`. Nothing here knows what is configured.
Problems are collected, one line each with its dotted path, so that a user sees all of them at once.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import json
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from causal_gen.types import UserError

BAD = object()  # stands for a value that was refused; the reason is among the problems
_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def convert(schema: type, tree: Mapping[str, Any], path: str, problems: list[str]) -> Any:
    """An instance of the dataclass `schema` from `tree`, or `BAD`; every reason is appended to `problems` under `path`.

    An int may be written as an integral float (1e3), a float as an int, a tuple as a list; a bool is not a number.
    """
    hints, fields = hints_of(schema), keys_of(schema)
    handed = [field.name for field in dataclasses.fields(schema) if field.metadata.get("handed")]
    unknown = [key for key in tree if key not in fields and (key not in handed or tree[key])]
    problems.extend(f"{path}.{key}: unknown key; {suggest(key, fields)}" for key in unknown)
    values: dict[str, Any] = {}
    for name, field in fields.items():
        where = f"{path}.{name}"
        if name not in tree:
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                problems.append(f"{where}: missing; give it a value of type {spell(hints[name])}")
                values[name] = BAD
            continue
        value = _value(hints[name], tree[name], where, problems)
        values[name] = value if value is BAD or _in_range(field.metadata, value, where, problems) else BAD
    if any(value is BAD for value in values.values()):
        return BAD
    try:
        made = schema(**values)  # a typo does not hide a contradiction among the other keys
        return BAD if unknown else made
    except (ValueError, UserError) as error:
        problems.append(f"{path}: {error}")
        return BAD


def to_tree(value: Any) -> Any:
    """The plain, JSON-able form of a dataclass: nested dicts, with lists for tuples."""
    if dataclasses.is_dataclass(value):
        return {field.name: to_tree(getattr(value, field.name)) for field in keys_of(type(value)).values()}
    if isinstance(value, Mapping):
        return {str(key): to_tree(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_tree(item) for item in value]
    return value.item() if hasattr(value, "item") else value


def keys_of(schema: type) -> dict[str, Any]:
    """The fields of a dataclass that a config may name."""
    return {field.name: field for field in dataclasses.fields(schema) if field.init and not field.metadata.get("handed")}


def suggest(name: str, known: Iterable[str]) -> str:
    """The way out of a mistyped name: the nearest known one, or all of them."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"


@functools.cache
def hints_of(schema: type) -> dict[str, Any]:
    """The resolved type of every field."""
    return typing.get_type_hints(schema)


def hint_at(schema: Any, keys: tuple[str, ...]) -> Any:
    """The type of the leaf that dotted `keys` lead to from `schema`, or None where they lead nowhere."""
    for key in keys:
        inner = next((typing.get_args(option) for option in _options(schema) if typing.get_origin(option) is Mapping), None)
        if inner:  # any key leads to what the mapping holds
            schema = inner[1]
            continue
        schema = next((option for option in _options(schema) if dataclasses.is_dataclass(option)), None)
        if schema is None or key not in hints_of(schema):
            return None
        schema = hints_of(schema)[key]
    return schema


def spell(hint: Any) -> str:
    """A type as a user would write it: `int | None`, `tuple[int, ...]`, one of 'a', 'b'."""
    if _is_union(hint):
        return " | ".join(spell(option) for option in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    if hint is types.NoneType:
        return "None"
    if isinstance(hint, type) and not typing.get_args(hint):
        return hint.__name__
    return re.sub(r"(\w+\.)+(?=\w)", "", str(hint))  # without the modules of its types


def parse(text: str, hint: Any) -> Any:
    """What `text`, typed on a command line, means for a field of type `hint`.

    Text that cannot be of that type comes back unchanged, for `convert` to refuse it with its path; sections come back as they were read,
    for it to name the key that is wrong in them.
    """
    for option in _options(hint):
        value = _parse_one(text.strip(), option)
        if _value(option, value, "", []) is not BAD:
            return value
    held = _structure(text)
    return held if _has_sections(held) else text


def _has_sections(value: Any) -> bool:
    return isinstance(value, Mapping) or isinstance(value, (list, tuple)) and any(map(_has_sections, value))


def _options(hint: Any) -> tuple[Any, ...]:
    """The members of a union, None first: "none" for a `str | None` is None."""
    members = typing.get_args(hint) if _is_union(hint) else (hint,)
    return tuple(sorted(members, key=lambda member: member is not types.NoneType))


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _parse_one(text: str, hint: Any) -> Any:
    if hint is types.NoneType:
        return None if text.lower() in ("none", "null", "") else text
    if hint is bool:
        return _WORDS.get(text.lower(), text)
    if hint in (int, float):
        try:
            return int(text) if hint is int and "." not in text and "e" not in text.lower() else float(text)
        except ValueError:
            return text
    if typing.get_origin(hint) is typing.Literal:
        return next((choice for choice in typing.get_args(hint) if str(choice).lower() == text.lower()), text)
    if typing.get_origin(hint) is tuple:
        return _parse_tuple(text, typing.get_args(hint))
    return text if hint is str else _structure(text)


def _parse_tuple(text: str, args: tuple[Any, ...]) -> Any:
    """`1,2,2`, `(1,2,2)`, `[1,2,2]`, or nested lists as JSON or as Python writes them."""
    value = _structure(text)
    if isinstance(value, (list, tuple)):
        return value
    parts = [part for part in text.removeprefix("(").removesuffix(")").removeprefix("[").removesuffix("]").split(",") if part.strip()]
    hints = [args[0]] * len(parts) if args[-1] is Ellipsis else list(args) + [str] * len(parts)
    return [parse(part.strip(), hint) for part, hint in zip(parts, hints, strict=False)]


def _structure(text: str) -> Any:
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError):
            continue
    return text


def _value(hint: Any, value: Any, path: str, problems: list[str]) -> Any:
    """`value` as `hint` wants it, or `BAD` with the reason in `problems`."""
    if hint is Any:
        return value
    if _is_union(hint):
        return _union(hint, value, path, problems)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return convert(hint, value, path, problems) if isinstance(value, Mapping) else _refuse(hint, value, path, problems)
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return _literal(typing.get_args(hint), value, path, problems)
    if origin is tuple or hint is tuple:
        return _tuple(hint, value, path, problems)
    kind: Any = origin or hint
    if isinstance(kind, type) and issubclass(kind, Mapping):
        return _mapping(hint, value, path, problems)
    plain = value.item() if hasattr(value, "item") and getattr(value, "shape", None) == () else value
    if hint is int and isinstance(plain, float) and plain.is_integer():
        return int(plain)
    if hint is float and isinstance(plain, (int, float)) and not isinstance(plain, bool):
        return float(plain) if not math.isnan(plain) else _refuse(hint, value, path, problems)
    if isinstance(plain, kind) and (hint is bool or not isinstance(plain, bool)):
        return plain
    return _refuse(hint, value, path, problems)


def _refuse(hint: Any, value: Any, path: str, problems: list[str]) -> Any:
    kind = "a section" if isinstance(value, Mapping) else f"{value!r} ({type(value).__name__})"
    problems.append(f"{path}: expected {spell(hint)}, got {kind}")
    return BAD


def _union(hint: Any, value: Any, path: str, problems: list[str]) -> Any:
    inner: list[str] = []
    for option in _options(hint):
        found = None if option is types.NoneType and value is None else BAD
        if option is not types.NoneType:
            inner = []
            found = _value(option, value, path, inner)
        if found is not BAD:
            return found
    if inner and _has_sections(value):  # the reasons inside a section say more than the union does
        problems.extend(inner)
        return BAD
    return _refuse(hint, value, path, problems)


def _literal(choices: tuple[Any, ...], value: Any, path: str, problems: list[str]) -> Any:
    for choice in choices:
        if choice == value and type(choice) is type(value):
            return choice
    near = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    problems.append(f"{path}: expected {spell(typing.Literal[choices])}, got {value!r}{hint}")
    return BAD


def _tuple(hint: Any, value: Any, path: str, problems: list[str]) -> Any:
    args = typing.get_args(hint)
    if not isinstance(value, (list, tuple)):
        return _refuse(hint, value, path, problems)
    if not args or args[-1] is Ellipsis:
        args = (args[0] if args else Any,) * len(value)
    if len(args) != len(value):
        problems.append(f"{path}: expected {len(args)} entries, got {len(value)}: {value!r}")
        return BAD
    items = tuple(_value(arg, item, f"{path}[{index}]", problems) for index, (arg, item) in enumerate(zip(args, value, strict=True)))
    return BAD if any(item is BAD for item in items) else items


def _mapping(hint: Any, value: Any, path: str, problems: list[str]) -> Any:
    if not isinstance(value, Mapping):
        return _refuse(hint, value, path, problems)
    inner = (typing.get_args(hint) or (str, Any))[1]
    items = {str(key): _value(inner, item, f"{path}.{key}", problems) for key, item in value.items()}
    return BAD if any(item is BAD for item in items.values()) else items


def _in_range(metadata: Mapping[str, Any], value: Any, path: str, problems: list[str]) -> bool:
    """Whether `value`, or every entry of a tuple, lies within the field's declared range."""
    if isinstance(value, tuple):
        return all([_in_range(metadata, item, f"{path}[{index}]", problems) for index, item in enumerate(value)])
    if value is None or isinstance(value, str) and not metadata.get("choices"):
        return True
    low, high, choices = metadata.get("min"), metadata.get("max"), metadata.get("choices")
    if choices is not None and value not in choices:
        near = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        problems.append(f"{path}: must be one of {', '.join(map(repr, choices))}, got {value!r}{hint}")
    elif low is not None and high is not None and not low <= value <= high:
        problems.append(f"{path}: must lie in [{low}, {high}], got {value!r}")
    elif low is not None and value < low:
        problems.append(f"{path}: must be at least {low}, got {value!r}")
    elif high is not None and value > high:
        problems.append(f"{path}: must be at most {high}, got {value!r}")
    else:
        return True
    return False
