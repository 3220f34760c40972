"""BAD: tokens hidden by masks that keep their places are drawn in a random order, each seeing those drawn before it (Hosseyni et al. 2024).

    python -m experiments.train --config=configs/hybrid_transformer/bad.py --workdir=runs/bad
    python -m experiments.evaluate --workdir=runs/bad

Data and network of md4.py: a chain of five tokens of four values, whose law is known. Any number of tokens is hidden, in one run of twice
the slots. Modes: `masked` (the baseline: each hidden token from the shown ones alone, as in MaskGIT), `causal` (next tokens) and `tiny`.
"""

from ml_collections import ConfigDict

from configs.common import check_mode
from configs.hybrid_transformer import md4


def get_config(mode: str = "") -> ConfigDict:
    check_mode(mode, ("masked", "causal", "tiny"))
    config = md4.get_config("tiny" if mode == "tiny" else "")
    objective = {"kind": "masked" if mode == "masked" else "permuted", "low": 0.0, "high": 1.0}
    config.model.objectives = ({"kind": "next"} if mode == "causal" else objective,)
    return config
