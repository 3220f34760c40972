"""BAD: tokens hidden by masks that keep their places are drawn in a random order, each seeing those drawn before it (Hosseyni et al. 2024).

    python -m experiments.train --config=configs/hybrid_transformer/bad.py --workdir=runs/bad
    python -m experiments.evaluate --workdir=runs/bad

Data and network of md4.py: a chain of five tokens of four values, whose law is known. Any number of tokens is hidden, in one run of twice
the slots. Modes: `masked` (the baseline: each hidden token from the shown ones alone, as in MaskGIT), `causal` (next tokens) and `tiny`.

Measured, seed 0, 2,000 steps of 256, 10,000 held-out rows: .0036 nats a token (se .0006) above the law's own, `masked` .0034, `causal`
.0002; total variation of 200,000 samples .037, .038, .024 (.020 for the law's own). Next tokens are easiest here; to see what was drawn
before is no gain.
"""

from ml_collections import ConfigDict

from configs.common import check_mode
from configs.hybrid_transformer import md4


def get_config(mode: str = "") -> ConfigDict:
    check_mode(mode, ("masked", "causal", "tiny"))
    config = md4.get_config("tiny" if mode == "tiny" else "")
    objective = {"kind": "masked" if mode == "masked" else "permuted", "low": 0.0, "high": 1.0}
    config.model.objectives = ({"kind": "next"} if mode == "causal" else objective,)
    if mode != "tiny":
        config.train.update({"steps": 2_000})
        config.checkpoint.every = 2_000
        config.evaluate.draws = 200_000
    return config
