"""Sequences wired by a latent graph: every token is drawn given a few earlier ones, the same in all sequences.

    x_i ~ table_i[x_a, x_b, ..],  a, b, .. the parents of place i, each row of a table a draw of Dirichlet(alpha)              (1)

Graph and tables are drawn once for the set, from its seed. Parents lie at least two places back: the token before is known to a slot
without looking, so that an edge from it could not be read off who looks at whom. In some training sequences one token has been set at
random (an intervention); it is not scored, and what follows from it is. Letters: t places, k parents of a place.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from causal_gen.data.generated import stream
from causal_gen.data.sequences import Drawn, Task
from causal_gen.types import Bool, Float, Int, at_least


@dataclasses.dataclass(frozen=True)
class WiredConfig(Task):
    """Eq. (1) over `items` places of `states` states, at most `degree` parents each; `interventions` is the share of training sequences
    in which a token was set."""

    name: str = "wired"
    states: int = at_least(4, 2)
    items: int = at_least(24, 3)
    degree: int = at_least(2, 1, 4)
    alpha: float = at_least(0.3, 1e-3)
    interventions: float = at_least(0.0, 0.0, 1.0)

    @property
    def length(self) -> int:
        return self.items

    @property
    def tokens(self) -> int:
        return self.states

    @property
    def adjacency(self) -> Bool[np.ndarray, "t t"]:
        """Entry [i, j] says that place j is a parent of place i."""
        rng, found = stream(self.seed, 0x71D0), np.zeros((self.items, self.items), bool)
        for i in range(2, self.items):
            found[i, rng.permutation(i - 1)[: rng.integers(1, self.degree + 1)]] = True
        return found

    def tables(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The parents [k] of every place, and its table [states^k, states]."""
        rng = stream(self.seed, 0x71D1)
        parents = [np.flatnonzero(row) for row in self.adjacency]
        return [(above, rng.dirichlet(np.full(self.states, self.alpha), self.states ** len(above))) for above in parents]

    def _row(self, tokens: Int[np.ndarray, "b t"], above: Int[np.ndarray, "k"]) -> Int[np.ndarray, "b"]:
        """Which row of its table a place goes by."""
        return tokens[:, above] @ (self.states ** np.arange(len(above)))

    def draw(self, split: str) -> Drawn:
        num = self.count(split)
        uniform = stream(self.seed, 0x71D2, split).random((num, self.items))
        rng = stream(self.seed, 0x71D3, split)
        share = self.interventions if split == "train" else 0.0
        place = np.where(rng.random(num) < share, rng.integers(0, self.items, num), -1)
        value = rng.integers(0, self.states, num)
        tokens = np.zeros((num, self.items), np.int32)
        for i, (above, table) in enumerate(self.tables()):
            steps = table.cumsum(-1)[self._row(tokens, above)]
            steps[:, -1] = 1.0  # rounding must not leave a draw without a state
            tokens[:, i] = np.where(place == i, value, (uniform[:, i, None] >= steps).sum(-1))
        return tokens, (place[:, None] != np.arange(self.items)[None]).astype(np.float32)

    def best(self, tokens: Int[np.ndarray, "b t"]) -> Float[np.ndarray, "b"]:
        """-log p of (1), for sequences that nobody has touched, as those of the test are."""
        chosen = [table[self._row(tokens, above), tokens[:, i]] for i, (above, table) in enumerate(self.tables())]
        return -np.log(np.stack(chosen, 1)).sum(1)
