"""What a sweep over a config may try, checked against the config's schema, as one JSON object: launch.sweep reads it.

It holds `config` (complete, with every default), `steps`, and `space`, that which the file's sweep() gives.
"""

from __future__ import annotations

import json
import math
import runpy
from collections.abc import Mapping
from typing import Any

from absl import flags

from experiments import cli

EXAMPLE = """
python -m experiments.space --config=configs/causal_transformer/text.py:tiny
python -m launch.sweep --config=configs/causal_transformer/text.py:tiny --study=runs/study --trials=20 --workers=2
"""
FIELDS = {  # of every kind of distribution, see configs/spaces.py
    "uniform": ("low", "high", "points"),
    "log_uniform": ("low", "high", "points"),
    "integer": ("low", "high", "step"),
    "categorical": ("choices",),
}


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "config", None, "config file with a function sweep(), with an optional mode: configs/x/y.py[:mode]", flag_values=values
    )


def run(values: Any, overrides: dict[str, str]) -> None:
    cli.require(values, "config")

    from causal_gen import build as border
    from causal_gen.types import ConfigError

    path = values.config
    tree = border.complete(border.load_config(path, overrides))
    file = path.partition(".py:")[0].removesuffix(".py") + ".py"
    made = runpy.run_path(file).get("sweep")  # load_config has seen that the file runs
    if made is None:
        raise cli.UsageError(f"config {file}: defines no sweep(), so there is nothing to search; configs/spaces.py shows how it is written")
    try:
        space = json.loads(json.dumps(made()))  # tuples as lists, as config.json holds them
    except Exception as error:  # whatever the file does wrong is the user's to mend
        raise ConfigError(f"config {file}: sweep() failed: {type(error).__name__}: {error}") from error
    problems = malformed(space)
    for setting in [] if problems else settings(space):
        try:
            border.complete(border.override(tree, setting))
        except ConfigError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    if problems:
        raise ConfigError([f"sweep() of {file}: {problem}" for problem in problems])
    print(json.dumps({"config": tree, "steps": tree["train"]["steps"], "space": space}))


def malformed(space: Any) -> list[str]:
    """What is wrong with a space in itself, a line each with its key."""
    if isinstance(space, list):
        good = space and all(isinstance(setting, Mapping) for setting in space)
        return [] if good else [f"expected a list of dicts {{key: value}}, at least one, got {space!r}"[:200]]
    if not isinstance(space, Mapping) or not space:
        return [f"expected a dict {{key: distribution}} or a list of dicts, not empty, got {space!r}"[:200]]
    return [f"{key}: {problem}" for key, given in space.items() if (problem := _problem(given))]


def _problem(given: Any) -> str:
    """What is wrong with one distribution."""
    kind = given.get("kind") if isinstance(given, Mapping) else None
    if kind not in FIELDS or set(given) != {"kind", *FIELDS[kind]}:
        return f"no distribution: {given!r}; write uniform, log_uniform, integer or categorical of configs/spaces.py"
    if kind == "categorical":
        return "" if given["choices"] else "categorical() has no choices"
    low, high, wanted = given["low"], given["high"], int if kind == "integer" else (int, float)
    if not all(isinstance(end, wanted) and not isinstance(end, bool) and math.isfinite(end) for end in (low, high)):
        return f"{kind}({low!r}, {high!r}): both ends have to be {'whole' if kind == 'integer' else 'finite'} numbers"
    if low > high:
        return f"{kind}({low!r}, {high!r}): empty range, since the lower end comes first"
    if kind == "log_uniform" and low <= 0:
        return f"log_uniform({low!r}, {high!r}): both ends have to be above 0"
    count = given.get("step" if kind == "integer" else "points")
    if count is not None and (not isinstance(count, int) or count < 1):
        return (
            f"{kind}({low!r}, {high!r}): {'step' if kind == 'integer' else 'points'} has to be a whole number of at least 1, got {count!r}"
        )
    return ""


def settings(space: Any) -> list[dict[str, Any]]:
    """What has to fit the schema: every setting of a list, and of distributions the ends or choices, one at a time."""
    if isinstance(space, list):
        return space
    ends = {key: given.get("choices", [given.get("low"), given.get("high")]) for key, given in space.items()}
    return [{key: value} for key, values in ends.items() for value in values]


COMMAND = cli.Command("space", __doc__, EXAMPLE, define, run)

if __name__ == "__main__":
    cli.start(COMMAND)
