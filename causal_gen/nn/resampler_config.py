"""Fields of a resampler (nn/resampler.py): what a config may say about it."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from causal_gen.structure import expression
from causal_gen.structure.visibility import Visibility, fields_for
from causal_gen.types import ConfigError, at_least

Fields = dict[str, np.ndarray]
KNOWN = ("fraction", "frame", "index", "window")


@dataclasses.dataclass(frozen=True)
class ResamplerConfig:
    """`queries` learned vectors read a film in each of its windows (0: no resampler, the inputs themselves go on).

    frame: inputs that make up a frame.  window: frames of a window, 0: the whole film is one.
    visibility: what a query sees of the inputs, by the fields "window", "frame" (that of an input; of a query the last of its window) and
    "fraction" (of an input where its frame begins, of a query where its share of the film ends), which suits films of any length.
    diversity: weight of losses/diversity.py.
    """

    queries: int = at_least(0, 0)
    frame: int = at_least(1, 1)
    window: int = at_least(0, 0)
    visibility: str = "full()"
    diversity: float = at_least(0.0, 0.0)

    def __post_init__(self):
        if unknown := sorted(self.seen.fields - set(KNOWN)):
            raise ConfigError(f"visibility {self.visibility!r}: a resampler has no field {unknown[0]!r}; it has {', '.join(KNOWN)}")
        if self.diversity and self.queries < 2:
            raise ConfigError(f"diversity={self.diversity} is about the queries of a window, and there are {self.queries}; raise queries")

    @functools.cached_property
    def seen(self) -> Visibility:
        """What a query sees of the inputs."""
        return expression.read(self.visibility)

    def problem(self, inputs: int) -> str | None:
        """Why so many inputs cannot be read, if they cannot."""
        if inputs % (self.frame * max(self.window, 1)):
            return f"{inputs} inputs do not make up whole windows of {max(self.window, 1)} frames of {self.frame}; choose divisors"
        return None

    def windows(self, inputs: int) -> int:
        """Windows of a film of so many inputs."""
        return inputs // (self.frame * self.window) if self.window else 1

    def fields(self, inputs: int) -> tuple[Fields, Fields]:
        """What the visibility reads, of the queries of all windows one after another and of the inputs."""
        windows, frames = self.windows(inputs), inputs // self.frame
        query, frame = np.arange(windows * self.queries), np.arange(inputs) // self.frame
        at, size = query // self.queries, frames // windows
        # a quotient is the same float in whatever terms it is written: a share ends exactly where a frame begins, or does not
        fraction = ((query + 1) / len(query)).astype(np.float32), (frame / frames).astype(np.float32)
        window = at.astype(np.int32), (frame // size).astype(np.int32)
        last = ((at + 1) * size - 1).astype(np.int32), frame.astype(np.int32)
        return fields_for(len(query), inputs, fraction=fraction, window=window, frame=last)
