"""What a data source is: named entries with units, random access a batch at a time, and the truth where it is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from causal_gen.scm.intervention import Intervention
from causal_gen.types import Entry


@runtime_checkable
class Source(Protocol):
    """A dataset with a fixed split into "train" and "test". Images are f32 [b, h, w, c] in [0, 1], factors f32 [b], tokens i32 [b, t].

    A source that fits more than `stats` can hold (a tokenizer) has `files`, {name: content}, which its run keeps in the
    workdir's data/, and its config has `reopen(folder, stats)`, which makes the source from them.
    """

    @property
    def name(self) -> str: ...
    @property
    def entries(self) -> Mapping[str, Entry]: ...

    def size(self, split: str) -> int:
        """Number of examples of a split."""
        ...

    def gather(self, split: str, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The examples at `indices` [b], each entry with the batch axis first."""
        ...

    def stats(self) -> dict[str, Any]:
        """JSON-able statistics of the labelled training rows: {factor: {mean, std, low, high, quantiles: 65 numbers}}."""
        ...

    def truth(self, split: str, indices: np.ndarray, do: Intervention | None) -> dict[str, np.ndarray] | None:
        """The exact counterfactual of the examples at `indices` under `do`, or None where nobody knows it."""
        ...
