"""Tagging with a known best score: names among fillers, whose label is told by a cue that comes after them.

    a row is `items` stretches of `span` tokens; in each a name n, uniform, stands somewhere before a cue c, the rest are fillers
    c ~ pi(. | n),   pi(. | n) ~ Dirichlet(alpha), drawn once for the set;   the label of the name is 1 + c, of all else 0         (1)
    what comes before a name tells no more of its cue than the name: best accuracy on names = mean_n max_c pi(c | n)               (2)

Who sees the cue, to the right of the name, needs no guess and is always right. Every label is scored; on names alone accuracy is the
micro-averaged F1 of a tagger that knows a name when it sees one, since 0 is no find. The tokens by themselves are a language like any
other: a causal transformer takes this source as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from causal_gen.data.generated import Columns, Generated, stream
from causal_gen.data.text import token_entries
from causal_gen.types import Entry, Float, at_least


@dataclasses.dataclass(frozen=True)
class TaggingConfig(Generated):
    """Eq. (1): tokens are cues, then names (`entities` of them), then fillers."""

    name: str = "tagging"
    cues: int = at_least(4, 2)
    entities: int = at_least(16, 1)
    fillers: int = at_least(12, 1)
    items: int = at_least(5, 1)
    span: int = at_least(6, 2)
    alpha: float = dataclasses.field(default=1.0, metadata={"min": 1e-3})

    @property
    def length(self) -> int:
        return self.items * self.span

    @property
    def vocabulary(self) -> int:
        return self.cues + self.entities + self.fillers

    @property
    def entries(self) -> Mapping[str, Entry]:
        """Tokens, which of them are scored (all), and their labels."""
        label = Entry((self.length,), "int32", "", 0.0, self.cues, "1 + the cue that follows a name, 0 for all else", 1 + self.cues)
        return {**token_entries(self.length, self.vocabulary, "cues, names and fillers"), "labels": label}

    @property
    def chances(self) -> Float[np.ndarray, "n c"]:
        """pi of (1), a row a name."""
        return stream(self.seed, 0x7A0).dirichlet(np.full(self.cues, self.alpha), self.entities)

    @property
    def best_causal(self) -> float:
        """Eq. (2)."""
        return float(self.chances.max(1).mean())

    def draw(self, split: str) -> dict[str, np.ndarray]:
        """Tokens, the mask of those that are scored (all), and labels."""
        num = self.count(split)
        shape = (num, self.items)
        name = stream(self.seed, 0x7A1, split).integers(0, self.entities, shape)
        steps = self.chances.cumsum(1)
        steps[:, -1] = 1.0  # rounding must not leave a draw without a cue
        cue = (stream(self.seed, 0x7A2, split).random(shape)[..., None] >= steps[name]).sum(-1)
        tokens = self.cues + self.entities + stream(self.seed, 0x7A3, split).integers(0, self.fillers, (*shape, self.span))
        places = np.sort(stream(self.seed, 0x7A4, split).random((*shape, self.span)).argsort(-1)[..., :2], -1)
        labels = np.zeros_like(tokens)
        np.put_along_axis(tokens, places, np.stack([self.cues + name, cue], -1), -1)
        np.put_along_axis(labels, places[..., :1], 1 + cue[..., None], -1)
        tokens, labels = (part.reshape(num, -1).astype(np.int32) for part in (tokens, labels))
        return {"tokens": tokens, "loss_mask": np.ones(tokens.shape, np.float32), "labels": labels}

    def facts(self, rows: Mapping[str, Columns]) -> dict[str, Any]:
        """Sizes, and the best accuracy on names of who does not see what comes after them."""
        del rows
        return {"tokens": {"vocabulary": self.vocabulary}, "labels": {"vocabulary": 1 + self.cues, "best_causal": self.best_causal}}
