"""Questions that take several documents, in the order of the reasoning or against it: documents that refer to documents.

    depth 0     `each` documents give a value, uniform and independent                                                     (1)
    depth h     `each` documents say "as in document j", j uniform among those of depth h - 1,   h = 1 .. `hops`            (2)
    a row       all documents, a token each, in some order, then questions  j y:  y, the value that j leads to, is scored   (3)

Documents are named by their place. Forwards, each comes after the one it refers to, as a proof goes, and can be resolved where it stands;
backwards it comes before, and under a causal mask stays what it says: the question has to follow all references itself, one a layer. Best
loss 0. Training asks documents of every depth, tests those of depth `hops`.

Fields of the slots (slot i holds token i - 1): "prefix", 1 for documents and the start; "segment", 0 for those, the number of the question
from 1 on, and -1 for answers. The order of documents is the subject of Huang et al., Masking in multi-hop QA, 2025.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from causal_gen.data.generated import stream
from causal_gen.data.sequences import Drawn, Task, scored
from causal_gen.types import Int, at_least, choice

ORDERS = ("random", "forwards", "backwards")


@dataclasses.dataclass(frozen=True)
class ReferencesConfig(Task):
    """Tokens are references by place, then `values`. `order` is that of the training documents, `test_order` of the test's; what refers to
    what, and what is asked, does not depend on either."""

    name: str = "references"
    values: int = at_least(8, 2)
    each: int = at_least(3, 1)
    hops: int = at_least(2, 1)
    questions: int = at_least(3, 1)
    order: str = choice(*ORDERS)
    test_order: str = choice(*ORDERS)

    @property
    def documents(self) -> int:
        """Documents of a row."""
        return self.each * (1 + self.hops)

    @property
    def length(self) -> int:
        return self.documents + 2 * self.questions

    @property
    def tokens(self) -> int:
        return self.documents + self.values

    def draw(self, split: str) -> Drawn:
        num, order = (self.size, self.order) if split == "train" else (self.test_size, self.test_order)
        shape, every = (num, self.hops + 1, self.each), np.arange(num)[:, None]
        # documents by depth, before they have places: what each refers to among those one less deep, and the value that it leads to
        to = stream(self.seed, 0x4EF0, split).integers(0, self.each, shape)
        value = stream(self.seed, 0x4EF1, split).integers(0, self.values, (num, self.each))
        leads = [value := value if depth == 0 else value[every, to[:, depth]] for depth in range(self.hops + 1)]
        depth = np.arange(self.documents) // self.each
        rank = stream(self.seed, 0x4EF2, split).random((num, self.documents))
        rank += depth * {"random": 0, "forwards": 1, "backwards": -1}[order]
        place = rank.argsort(1).argsort(1).reshape(shape)
        says = np.concatenate([self.documents + leads[0][:, None], place[every[..., None], depth_before(self.hops), to[:, 1:]]], 1)
        documents = np.take_along_axis(says.reshape(num, -1), rank.argsort(1), 1)
        rng = stream(self.seed, 0x4EF3, split)
        asked = rng.integers(0 if split == "train" else self.hops * self.each, self.documents, (num, self.questions))
        answer = self.documents + np.stack(leads, 1).reshape(num, -1)[every, asked]
        questions = np.stack([place.reshape(num, -1)[every, asked], answer], -1).reshape(num, -1)
        tokens = np.concatenate([documents, questions], 1).astype(np.int32)
        return tokens, scored(num, self.length, slice(self.documents + 1, None, 2))

    def fields(self, tokens: Int[np.ndarray, "b t"]) -> dict[str, Int[np.ndarray, "b t"]]:
        since = np.arange(-1, self.length - 1) - self.documents  # of the token that a slot holds, from the first question on
        segment = np.where(since < 0, 0, np.where(since % 2 == 1, -1, 1 + since // 2))
        kinds = {"prefix": since < 0, "segment": segment}
        return {name: np.broadcast_to(kind.astype(np.int32), tokens.shape) for name, kind in kinds.items()}


def depth_before(hops: int) -> Int[np.ndarray, "1 h 1"]:
    """The depth that documents of depth 1 .. `hops` refer to."""
    return np.arange(hops).reshape(1, -1, 1)
