"""Spaces as experiments.space gives them, and how one is drawn from without a search engine.

A space is {dotted config key: {"kind": ...}}, see configs/spaces.py, or a list of settings {key: value}. Setting `number` of a study is a
function of the seed and that number alone, so that a study that is taken up again goes on as if it had never stopped.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
import random
from collections.abc import Callable, Mapping
from typing import Any

from launch.command import LaunchError

Params = dict[str, Any]
Drawer = Callable[[int], Params | None]  # of a trial's number: its setting, None past the last one
DRAWN = ("random", "grid", "list")  # samplers that need nothing installed


def drawer(sampler: str, space: Any, seed: int) -> Drawer:
    """Settings by a sampler of DRAWN. Raises LaunchError for a space that it cannot go through."""
    if isinstance(space, list) != (sampler == "list"):
        way = "give --sampler=list" if isinstance(space, list) else "let sweep() give a list of dicts, or choose another --sampler"
        raise LaunchError(f"--sampler={sampler}: sweep() gives {'a list' if isinstance(space, list) else 'distributions'}; {way}")
    if sampler == "random":
        return lambda number: {key: draw(given, random.Random(f"{seed}/{number}/{key}")) for key, given in space.items()}
    settings = space if sampler == "list" else list(grid(space))
    return lambda number: settings[number] if number < len(settings) else None


def draw(given: Mapping[str, Any], rng: random.Random) -> Any:
    """One value of a distribution."""
    if given["kind"] == "categorical":
        return rng.choice(given["choices"])
    low, high = given["low"], given["high"]
    if given["kind"] == "integer":
        return rng.randrange(low, high + 1, given["step"])
    if given["kind"] == "uniform":
        return rng.uniform(low, high)
    return min(max(math.exp(rng.uniform(math.log(low), math.log(high))), low), high)


def grid(space: Mapping[str, Any]) -> itertools.product[Any] | map[Params]:
    """Every setting; the last key changes fastest. Raises LaunchError for a range of which nobody said how many points."""
    return map(lambda values: dict(zip(space, values, strict=True)), itertools.product(*(values_of(k, d) for k, d in space.items())))


def values_of(key: str, given: Mapping[str, Any]) -> list[Any]:
    """The values that a grid tries of one key."""
    if given["kind"] == "categorical":
        return given["choices"]
    low, high = given["low"], given["high"]
    if given["kind"] == "integer":
        return list(range(low, high + 1, given["step"]))
    count = given["points"]
    if count is None:
        raise LaunchError(f"--sampler=grid: {key} is a range; say how many values to try: {given['kind']}({low:g}, {high:g}, points=5)")
    shares = [i / (count - 1) if count > 1 else 0.5 for i in range(count)]
    if given["kind"] == "uniform":
        return [low + share * (high - low) for share in shares]
    return [low * (high / low) ** share for share in shares]


def place(tree: Mapping[str, Any], params: Params) -> dict[str, Any]:
    """A copy of a config with the settings at their dotted paths, which exist there or will be checked by whoever builds it."""
    made = copy.deepcopy(dict(tree))
    for dotted, value in params.items():
        *path, last = dotted.split(".")
        node = made
        for key in path:
            node = node.setdefault(key, {})
        node[last] = copy.deepcopy(value)
    return made


def spell(params: Params) -> str:
    """A setting in short: last names of keys, unless two share one, and three digits."""
    ends = [key.rpartition(".")[2] for key in params]
    names = [end if ends.count(end) == 1 else key for key, end in zip(params, ends, strict=True)]
    texts = [
        f"{value:.3g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value) for value in params.values()
    ]
    return " ".join(f"{name}={text}" for name, text in zip(names, texts, strict=True))
