"""How the latents line up with the labels: recovery R2, DCI and MCC.

    R2_f  = 1 - sum (y_f - y^_f)^2 / sum (y_f - mean y_f)^2                                         (1)
    D     = sum_i rho_i (1 - H_n(P_i)),   P_ij = R_ij / sum_j R_ij,   rho_i = sum_j R_ij / sum R       (2)
    C     = mean_j (1 - H_m(Q_j)),        Q_ij = R_ij / sum_i R_ij                                   (3)
    MCC   = mean over factors of |corr| with the code that the best one-to-one matching gives them    (4)

R [m, n] holds the importances of m codes for n factors, from one boosted regressor a factor; H_n is entropy to base n. Informativeness
is the R2 of those regressors on codes that they were not fitted to. Sources: Eastwood & Williams, ICLR 2018 (2, 3); Hyvarinen &
Morioka, NeurIPS 2016 (4). Letters: b examples, m codes, n factors.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

__all__ = ["completeness", "dci", "disentanglement", "mcc", "r2"]


def r2(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Coefficient of determination (1) of `predicted` [b] for `truth` [b]; 0 is as good as the mean, no lower limit."""
    truth, predicted = np.asarray(truth, np.float64), np.asarray(predicted, np.float64)
    total = float(np.sum((truth - truth.mean()) ** 2))
    return 1.0 - float(np.sum((truth - predicted) ** 2)) / total if total > 0 else float("nan")


def _one_minus_entropy(importance: np.ndarray) -> np.ndarray:
    """1 - H to the base of the row length, for each row of `importance` [r, s]; 1 for a row with a single entry."""
    share = importance / np.maximum(importance.sum(axis=1, keepdims=True), 1e-12)
    if share.shape[1] < 2:
        return np.ones(len(share))
    logs = np.log(np.where(share > 0, share, 1.0)) / np.log(share.shape[1])
    return 1.0 + np.sum(share * logs, axis=1)


def disentanglement(importance: np.ndarray) -> float:
    """(2): 1 where every code serves one factor, 0 where every code serves all alike. `importance` [m, n]."""
    weight = importance.sum(axis=1) / max(float(importance.sum()), 1e-12)
    return float(np.sum(weight * _one_minus_entropy(importance)))


def completeness(importance: np.ndarray) -> float:
    """(3): 1 where every factor rests on one code. `importance` [m, n]."""
    return float(np.mean(_one_minus_entropy(importance.T)))


def dci(codes: np.ndarray, factors: Mapping[str, np.ndarray], blocks: Mapping[str, slice] | None = None, seed: int = 0) -> dict[str, float]:
    """Disentanglement, completeness and informativeness of `codes` [b, m] for `factors` {name: [b]}.

    Regressors are fitted to the first half of a keyed permutation, informativeness is measured on the other. With
    `blocks`, importances are summed over the codes of a block first: entropies are then over blocks, which is what a
    model with one block a factor claims.
    """
    from sklearn.ensemble import GradientBoostingRegressor

    codes = np.asarray(codes, np.float64)
    order = np.random.default_rng(seed).permutation(len(codes))
    fit, held = order[: len(order) // 2], order[len(order) // 2 :]
    columns, scores = [], []
    for values in factors.values():
        values = np.asarray(values, np.float64)
        model = GradientBoostingRegressor(n_estimators=60, max_depth=3, learning_rate=0.15, random_state=seed)
        model.fit(codes[fit], values[fit])
        columns.append(model.feature_importances_)
        scores.append(r2(values[held], model.predict(codes[held])))
    importance = np.stack(columns, axis=1)
    if blocks is not None:
        importance = np.stack([importance[rows].sum(axis=0) for rows in blocks.values()])
    return {
        "disentanglement": disentanglement(importance),
        "completeness": completeness(importance),
        "informativeness": float(np.mean(scores)),
    }


def mcc(codes: np.ndarray, factors: np.ndarray) -> float:
    """(4) for `codes` [b, m] and `factors` [b, n], m >= n. A constant column correlates with nothing."""
    from scipy.optimize import linear_sum_assignment

    def standard(x: np.ndarray) -> np.ndarray:
        x = np.asarray(x, np.float64)
        x = x - x.mean(axis=0)
        scale = np.sqrt(np.mean(x**2, axis=0))
        return np.where(scale > 1e-12, x / np.maximum(scale, 1e-12), 0.0)

    corr = np.abs(standard(codes).T @ standard(factors)) / len(codes)
    rows, columns = linear_sum_assignment(-corr)
    return float(corr[rows, columns].mean())
