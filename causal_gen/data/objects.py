"""Pictures of several objects as tokens, then the names of what is seen, in no order.

    g_1 .. g_P   0 k_1 c_1   0 k_2 c_2 ..   0 k_n c_n                                                                       (1)

An object is a glyph of its kind and, to the right of it, one of its colour; it stands anywhere in a grid of rows, among clutter. Kinds
are distinct in a picture, colours drawn with replacement. Its name is two words, one for the kind and one for the colour. Scored: all
words, and the 0 that ends a name where another one follows. The order of the names is random, so that of n names one ahead of all others
has log n nats that nobody can avoid: the best loss of a first word that knows nothing of other names is log n; of one that has read j
names it is log(n - j).

Fields of the slots: "group", 0 for the picture and j for the j-th name with the 0 before it; and "position", which restarts at every name,
as if it were the first. Letters: n rows, p cells.

The task is this project's own.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from causal_gen.data.generated import choose, stream
from causal_gen.data.sequences import MARK, Drawn, Task, scored
from causal_gen.types import Float, Int, at_least

WORDS = 2  # of a name


@dataclasses.dataclass(frozen=True)
class ObjectsConfig(Task):
    """`objects` of `kinds` kinds and `colours` colours in `rows` rows of `columns` cells, between which there are `clutter` other glyphs.

    apart: names are told without knowing one another, which is what the best loss is about.
    """

    name: str = "objects"
    rows: int = at_least(4, 1)
    columns: int = at_least(4, 2)
    objects: int = at_least(4, 1)
    kinds: int = at_least(24, 1)
    colours: int = at_least(6, 1)
    clutter: int = at_least(8, 1)
    apart: bool = True

    def __post_init__(self):
        if self.objects > min(self.kinds, self.rows * (self.columns // 2)):
            places = self.rows * (self.columns // 2)
            raise ValueError(f"objects={self.objects} of {self.kinds} distinct kinds in {places} places; raise kinds, rows or columns")

    @property
    def cells(self) -> int:
        """Tokens of a picture."""
        return self.rows * self.columns

    @property
    def length(self) -> int:
        return self.cells + (1 + WORDS) * self.objects

    @property
    def tokens(self) -> int:
        return 1 + self.clutter + 2 * (self.kinds + self.colours)  # MARK, clutter, glyphs, words

    def draw(self, split: str) -> Drawn:
        num = self.count(split)
        pairs = self.rows * (self.columns // 2)
        kinds = choose(stream(self.seed, 0x0B1, split), num, self.kinds, self.objects)
        colours = self.kinds + stream(self.seed, 0x0B2, split).integers(0, self.colours, kinds.shape, dtype=np.int32)
        places = choose(stream(self.seed, 0x0B3, split), num, pairs, self.objects)
        picture = stream(self.seed, 0x0B4, split).integers(1, 1 + self.clutter, (num, self.cells), dtype=np.int32)
        # an odd last column is always clutter
        left = places // (self.columns // 2) * self.columns + 2 * (places % (self.columns // 2))
        glyphs = np.stack([kinds, colours], -1) + 1 + self.clutter
        np.put_along_axis(picture, np.stack([left, left + 1], -1).reshape(num, -1), glyphs.reshape(num, -1), 1)
        names = glyphs + self.kinds + self.colours
        told = np.concatenate([np.full((num, self.objects, 1), MARK, np.int32), names], -1).reshape(num, -1)
        return np.concatenate([picture, told], axis=1).astype(np.int32), scored(num, self.length, slice(self.cells + 1, None))

    def fields(self, tokens: Int[np.ndarray, "b t"]) -> dict[str, Int[np.ndarray, "b t"]]:
        held = np.arange(self.length, dtype=np.int32) - 1
        group = np.where(held < self.cells, 0, 1 + (held - self.cells) // (1 + WORDS))
        position = np.where(group == 0, held, self.cells + (held - self.cells) % (1 + WORDS)) + 1
        found = {"group": group.astype(np.int32), "position": position.astype(np.int32)}
        return {name: np.broadcast_to(field, tokens.shape) for name, field in found.items()}

    def prompt(self, tokens: Int[np.ndarray, "b t"]) -> Int[np.ndarray, "b p"]:
        """What stands before the first name: the picture, and the 0."""
        return tokens[:, : self.cells + 1]

    def names(self, tokens: Int[np.ndarray, "b t"]) -> Int[np.ndarray, "b n 2"]:
        """The names in these rows."""
        return tokens[:, self.cells :].reshape(len(tokens), self.objects, 1 + WORDS)[..., 1:]

    def best(self, tokens: Int[np.ndarray, "b t"]) -> Float[np.ndarray, "b"]:
        nats = self.objects * math.log(self.objects) if self.apart else math.lgamma(self.objects + 1)
        return np.full(len(tokens), nats)
