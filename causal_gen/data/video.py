"""Generated video as tokens: frames of a small grid, then questions whose answers lie in how the frames follow one another.

    every frame f of F shows one actor a_f and one act c_f, in two of its P cells; the other cells are empty                (1)
    v_11 .. v_1P  v_21 .. v_FP  0  a_i c_{i+1}  a_j c_{j+1} ..      what is done in the frame after the one with a_i?         (2)

Actors are distinct over the frames, acts are drawn with replacement, cells are random: to answer, who was seen must be bound to the frame,
and the frame to the one `after` it; how far apart the two tokens are tells neither. Scored: the acts after 0; best loss 0.

Fields of the slots: "frame", the number of the frame that the slot's token belongs to, F for all of the text, and "prefix", 1 for
video. Letters: n rows, f frames, p cells.

The task is this project's own.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from causal_gen.data.generated import choose, stream
from causal_gen.data.sequences import MARK, Drawn, Task, scored
from causal_gen.types import Int, at_least

EMPTY = 1


@dataclasses.dataclass(frozen=True)
class VideoConfig(Task):
    """`frames` frames of `cells` cells, `actors` who may appear and `acts` that they may do, and `queries` questions a video."""

    name: str = "video"
    frames: int = at_least(8, 2)
    cells: int = at_least(6, 2)
    actors: int = at_least(16, 2)
    acts: int = at_least(16, 2)
    queries: int = at_least(4, 1)
    after: int = at_least(1, 0)

    def __post_init__(self):
        if self.frames > self.actors:
            raise ValueError(f"frames={self.frames} need as many distinct actors, there are {self.actors}; raise actors")
        if self.queries > self.frames - self.after:
            raise ValueError(
                f"queries={self.queries} ask more than the {self.frames - self.after} frames that have one {self.after} later; raise frames"
            )

    @property
    def seen(self) -> int:
        """Tokens of a video."""
        return self.frames * self.cells

    @property
    def length(self) -> int:
        return self.seen + 1 + 2 * self.queries

    @property
    def tokens(self) -> int:
        return 2 + self.actors + self.acts  # MARK, EMPTY, actors, acts

    def draw(self, split: str) -> Drawn:
        num, rows = self.size if split == "train" else self.test_size, np.arange(self.size if split == "train" else self.test_size)
        actors = 2 + choose(stream(self.seed, 0x51D, split), num, self.actors, self.frames)
        acts = stream(self.seed, 0x52D, split).integers(2 + self.actors, self.tokens, (num, self.frames), dtype=np.int32)
        cells = choose(stream(self.seed, 0x53D, split), num * self.frames, self.cells, 2).reshape(num, self.frames, 2)
        video = np.full((num, self.frames, self.cells), EMPTY, np.int32)
        np.put_along_axis(video, cells, np.stack([actors, acts], -1), -1)
        asked = choose(stream(self.seed, 0x54D, split), num, self.frames - self.after, self.queries)
        questions = np.stack([actors[rows[:, None], asked], acts[rows[:, None], asked + self.after]], -1)
        parts = [video.reshape(num, -1), np.full((num, 1), MARK, np.int32), questions.reshape(num, -1)]
        return np.concatenate(parts, axis=1), scored(num, self.length, slice(self.seen + 2, None, 2))

    def fields(self, tokens: Int[np.ndarray, "b t"]) -> dict[str, Int[np.ndarray, "b t"]]:
        held = np.maximum(np.arange(self.length, dtype=np.int32) - 1, 0)  # the start stands with the first frame
        frame = np.minimum(held // self.cells, self.frames)
        found = {"frame": frame, "prefix": (held < self.seen).astype(np.int32)}
        return {name: np.broadcast_to(field, tokens.shape) for name, field in found.items()}
