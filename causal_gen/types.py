"""Array aliases, the glossary of dimension letters, and the errors that a user can cause.

Letters in shape strings, the same in every file:

    b  batch            t  position in a sequence, or diffusion time where the text says so
    h  image height     w  image width          c  channels
    n  factors (nodes)  k  entries of a block   d  feature width        v  vocabulary

Every error below is one line that names the cause, the place and the way out; the commands print it and exit with code 2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeAlias

import jax
from jaxtyping import Array, Bool, Float, Int, Integer, UInt8

__all__ = [
    "Array", "Batch", "Bool", "CheckpointError", "ConfigError", "DataError", "Entry", "Float", "GraphError", "Int", "Integer",
    "InterventionError", "Key", "Noise", "Params", "PyTree", "UInt8", "UserError", "WorkdirError", "at_least", "choice",
]  # fmt: skip

Key: TypeAlias = jax.Array  # a typed PRNG key, from jax.random.key
PyTree: TypeAlias = Any
Params: TypeAlias = Any  # one pytree of arrays; its optional entry "state" is updated without a gradient
Batch: TypeAlias = Mapping[str, Any]  # named entries, batch axis first
Noise: TypeAlias = Any  # a pytree of exogenous draws, batch axis first


@dataclasses.dataclass(frozen=True)
class Entry:
    """One entry of a batch: the shape of an example, its dtype, its physical unit and support (None: unbounded).

    Tokens and categories say how many values they may take, 0 .. vocabulary - 1, and categories what a person calls them (`names`).
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    unit: str = ""
    low: float | None = None
    high: float | None = None
    description: str = ""
    vocabulary: int | None = None
    names: tuple[str, ...] = ()


class UserError(Exception):
    """Something that the user can mend. The message is one line: cause, place, way out."""


class ConfigError(UserError):
    """A config that does not build. `problems` holds one line a problem, each with its dotted path."""

    def __init__(self, problems: str | list[str]):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("; ".join(self.problems))


class GraphError(UserError):
    """A graph with a cycle, an unknown node or a repeated edge."""


class InterventionError(UserError):
    """An intervention on an unknown node, of an unknown kind or of the wrong shape."""


class DataError(UserError):
    """Data that is missing, cut short or not what was declared."""


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged or of another model."""


class WorkdirError(UserError):
    """A folder that is not a workdir, cannot be written, or holds another run."""


def choice(default: str, *others: str) -> Any:
    """A field of a config that takes one of these words; schema.py reads the metadata."""
    return dataclasses.field(default=default, metadata={"choices": (default, *others)})


def at_least(default: Any, low: float, high: float | None = None) -> Any:
    """A field of a config that takes numbers from `low` on, up to `high` if that is given."""
    return dataclasses.field(default=default, metadata={"min": low} if high is None else {"min": low, "max": high})
