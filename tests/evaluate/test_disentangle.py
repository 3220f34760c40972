"""R2, DCI and MCC on mixings whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from causal_gen.evaluate import disentangle

RNG = np.random.default_rng(0)
FACTORS = RNG.uniform(-1, 1, (600, 3))
NAMED = {name: FACTORS[:, place] for place, name in enumerate("abc")}


def rotation() -> np.ndarray:
    """A rotation that spreads every factor evenly over all codes."""
    c = 1 / np.sqrt(3)
    v, w = 1 / np.sqrt(2), 1 / np.sqrt(6)
    return np.array([[c, c, c], [v, -v, 0], [w, w, -2 * w]])


def test_the_identity_is_perfectly_disentangled():
    found = disentangle.dci(FACTORS, NAMED)
    assert min(found.values()) > 0.97
    assert disentangle.mcc(FACTORS, FACTORS) == pytest.approx(1.0)


def test_permutation_sign_and_scale_do_not_matter():
    codes = FACTORS[:, [2, 0, 1]] * np.array([-3.0, 0.1, 40.0]) + 5
    assert min(disentangle.dci(codes, NAMED).values()) > 0.97
    assert disentangle.mcc(codes, FACTORS) == pytest.approx(1.0)


def test_a_rotation_is_informative_but_entangled():
    codes = FACTORS @ rotation().T
    found = disentangle.dci(codes, NAMED)
    assert found["informativeness"] > 0.8 and found["disentanglement"] < 0.5 and found["completeness"] < 0.5
    assert disentangle.mcc(codes, FACTORS) < 0.85


def test_noise_tells_nothing():
    codes = RNG.normal(size=FACTORS.shape)
    assert disentangle.dci(codes, NAMED)["informativeness"] < 0.1
    assert disentangle.mcc(codes, FACTORS) < 0.15


def test_blocks_are_judged_as_wholes():
    """Two noisy copies of each factor: single codes are incomplete, blocks are complete."""
    codes = np.repeat(FACTORS, 2, axis=1) + 0.05 * RNG.normal(size=(600, 6))
    blocks = {name: slice(2 * place, 2 * place + 2) for place, name in enumerate("abc")}
    whole, single = disentangle.dci(codes, NAMED, blocks), disentangle.dci(codes, NAMED)
    assert whole["completeness"] > 0.95 > single["completeness"]


def test_entropies_against_closed_forms():
    assert disentangle.disentanglement(np.eye(4)) == pytest.approx(1.0)
    assert disentangle.disentanglement(np.ones((4, 3))) == pytest.approx(0.0, abs=1e-12)
    half = np.array([[0.5, 0.5], [0.5, 0.5], [1.0, 0.0]])  # two codes that serve both, one of weight 1/3 that serves one
    assert disentangle.disentanglement(half) == pytest.approx(1 / 3)
    assert disentangle.completeness(np.array([[1.0, 0.5], [0.0, 0.5]])) == pytest.approx(0.5)


def test_the_matching_is_one_to_one_and_optimal():
    """A greedy choice would give both factors the first code; the optimum is found by trying all assignments."""
    codes = np.stack([FACTORS[:, 0] + FACTORS[:, 1], FACTORS[:, 0] + 0.5 * FACTORS[:, 2], FACTORS[:, 2]], axis=1)
    corr = np.abs(np.corrcoef(codes.T, FACTORS[:, :2].T)[:3, 3:])
    best = max((corr[i, 0] + corr[j, 1]) / 2 for i in range(3) for j in range(3) if i != j)
    assert disentangle.mcc(codes, FACTORS[:, :2]) == pytest.approx(best)


def test_r2_of_the_mean_is_zero_and_of_the_truth_one():
    y = FACTORS[:, 0]
    assert disentangle.r2(y, y) == 1.0
    assert disentangle.r2(y, np.full_like(y, y.mean())) == pytest.approx(0.0)
    assert disentangle.r2(y, -y) == pytest.approx(-3.0, abs=0.1)
