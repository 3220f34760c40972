"""Films as vectors, a frame or a sound each, and one question about the order of what happens in them.

    arrow        frame f of F shows the stage floor(S p_f) of one process, p_f = (f + u_f) / F, or of the same film backwards;
                 x_f = stage + scene + noise;   label 1: forwards, 0: backwards                                              (1)
    soundtrack   frame f is a picture and a sound; in n frames of F one of K sights is seen, in one frame a noise is heard;
                 label: the sight that was seen last before, or when, the noise is heard                                     (2)

In (1) stages are a fixed path of S random vectors, the scene is a vector a film, u_f uniform in [0, 1): the frames of a film, as a set,
say nothing of the label, so that what does not know order is right half of the time. In (2) the events fall into different windows of
`window` frames, the noise into the window of a sight or any after the first; the sights of a film are distinct, so that who
knows the set but no order is right 1 / n of the time where the noise says nothing (more, since it is never the ones after).
Letters: n rows, t vectors, f features.

The tasks are this project's own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from causal_gen.data.generated import Columns, Generated, choose, stream
from causal_gen.structure.layout import interleave
from causal_gen.types import Entry, at_least


@dataclasses.dataclass(frozen=True)
class Film(Generated):
    """What the two share: `frames` of `features` numbers with noise of standard deviation `noise`."""

    size: int = at_least(10_000, 1)
    test_size: int = at_least(2_000, 1)
    frames: int = at_least(8, 2)
    features: int = at_least(16, 1)
    noise: float = at_least(0.5, 0.0)

    @property
    def inputs(self) -> int:
        return self.frames

    @property
    def width(self) -> int:
        return self.features

    @property
    def classes(self) -> int:
        return 2

    @property
    def entries(self) -> Mapping[str, Entry]:
        label = Entry((), "int32", "", 0.0, self.classes - 1.0, "the answer", self.classes)
        return {"film": Entry((self.inputs, self.width), description="what is seen and heard, in turn"), "labels": label}

    def facts(self, rows: Mapping[str, Columns]) -> dict[str, Any]:
        """How many answers there are, and how often the commonest of them is right."""
        found = np.bincount(rows["train"]["labels"], minlength=self.classes)
        return {"labels": {"vocabulary": self.classes, "commonest": float(found.max() / found.sum())}}


@dataclasses.dataclass(frozen=True)
class ArrowConfig(Film):
    """Eq. (1), of `stages` stages."""

    name: str = "arrow"
    stages: int = at_least(4, 2)

    def draw(self, split: str) -> dict[str, np.ndarray]:
        num, rng = self.count(split), stream(self.seed, 0xF11, split)
        stages = stream(0, 0xF10).normal(size=(self.stages, self.features))  # one process, whatever the seed
        label = rng.integers(0, 2, num)
        phase = (np.arange(self.frames) + rng.random((num, self.frames))) / self.frames
        shown = np.floor(self.stages * phase).astype(int)
        shown = np.where(label[:, None] == 1, shown, shown[:, ::-1])
        film = stages[shown] + rng.normal(size=(num, 1, self.features)) + self.noise * rng.normal(size=(num, self.frames, self.features))
        return {"film": film.astype(np.float32), "labels": label.astype(np.int32)}


@dataclasses.dataclass(frozen=True)
class SoundtrackConfig(Film):
    """Eq. (2), with `sights` of `kinds` kinds in windows of `window` frames. A vector ends with a flag: 0 a picture, 1 a sound."""

    name: str = "soundtrack"
    noise: float = at_least(0.2, 0.0)
    kinds: int = at_least(8, 2)
    sights: int = at_least(3, 1)
    window: int = at_least(2, 1)

    def __post_init__(self):
        if self.frames % self.window or self.sights > min(self.kinds, self.frames // self.window):
            raise ValueError(
                f"sights={self.sights} of {self.kinds} kinds in {self.frames} frames, {self.window} a window; "
                "give more frames, in whole windows"
            )

    @property
    def inputs(self) -> int:
        return 2 * self.frames

    @property
    def width(self) -> int:
        return self.features + 1

    @property
    def classes(self) -> int:
        return self.kinds

    def draw(self, split: str) -> dict[str, np.ndarray]:
        num, rng, windows = self.count(split), stream(self.seed, 0xF21, split), self.frames // self.window
        sights, bang = np.split(stream(0, 0xF20).normal(size=(self.kinds + 1, self.features)), [self.kinds])
        kinds = choose(rng, num, self.kinds, self.sights)
        at = np.sort(choose(rng, num, windows, self.sights), 1)
        heard = at[:, 0] + np.floor(rng.random(num) * (windows - at[:, 0])).astype(int)
        inside = rng.integers(0, self.window, (num, windows))  # the frame of a window's events
        rows = np.arange(num)
        label = kinds[rows, (at <= heard[:, None]).sum(1) - 1]
        pictures, sounds = self.noise * rng.normal(size=(2, num, self.frames, self.features))
        place = at * self.window + np.take_along_axis(inside, at, 1)
        pictures[rows[:, None], place] += sights[kinds]
        sounds[rows, heard * self.window + inside[rows, heard]] += bang
        flagged = [np.concatenate([x, np.full((*x.shape[:2], 1), flag)], -1) for flag, x in enumerate((pictures, sounds))]
        both = np.swapaxes(np.concatenate(flagged, 1), 0, 1)  # an arrangement is of the first axis
        film = interleave((self.frames, self.frames)).apply(both)
        return {"film": np.swapaxes(film, 0, 1).astype(np.float32), "labels": label.astype(np.int32)}
