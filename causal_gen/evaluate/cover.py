"""Which counterfactual questions the training rows cover: those whose causes stand together in them as the question sets them.

    d_j(x) = distance of x_pa(j) to the nearest training row's, each column in its standard deviations                      (1)
    x is covered at j     where d_j(x) <= q_j, the 99% quantile of d_j over the test rows as they are                       (2)
    an answer about j under do(x_i = v) is covered where its row, with its true counterfactual values, is covered at j and at every node
    between i and j                                                                                                         (3)

A value may be common and a pair of values never seen: under do(x2 = -1) a row with x1 = 3 asks what x3 is where no row has been, and what
a fitted model says there comes from the shape of its network, not from data. This is the overlap, or positivity, that effects need
(Rosenbaum & Rubin 1983), asked row by row. Letters: b rows, p parents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.spatial import KDTree

from causal_gen.types import Bool, Float

KEPT = 0.99  # of the test rows count as covered as they are, eq. (2)
MOST = 50_000  # training rows that are looked through


class Cover:
    """Eqs. (1, 2) for every node of a run's graph that has parents; `rows` are test rows as they are."""

    def __init__(self, run: Any, rows: Mapping[str, np.ndarray]):
        self._graph, self._parts = run.model.graph, {}
        train = run.data.gather("train", np.arange(min(run.data.size("train"), MOST)))
        for name in self._graph.nodes:
            if not (parents := self._graph.parents(name)):
                continue
            scale = np.array([max(float(np.std(train[parent])), 1e-12) for parent in parents])
            tree = KDTree(_table(train, parents) / scale)
            own = tree.query(_table(rows, parents) / scale)[0]
            self._parts[name] = tree, scale, float(np.quantile(own, KEPT))

    def covers(self, cause: str, name: str, asked: Mapping[str, np.ndarray]) -> Bool[np.ndarray, "b"]:
        """Eq. (3) of the answers about `name` under an intervention on `cause`, `asked` holding all nodes' true values under it."""
        between = (self._graph.descendants(cause) & self._graph.ancestors(name)) | {name}
        found = np.ones(len(asked[name]), bool)
        for node in between:
            tree, scale, far = self._parts[node]
            found &= tree.query(_table(asked, self._graph.parents(node)) / scale)[0] <= far
        return found


def _table(rows: Mapping[str, np.ndarray], names: Sequence[str]) -> Float[np.ndarray, "b p"]:
    return np.stack([np.asarray(rows[name], np.float64) for name in names], -1)
