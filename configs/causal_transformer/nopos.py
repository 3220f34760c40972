"""NoPos: a causal transformer that is told no positions and still knows them, from the mask alone (Haviv et al. 2022).

    python -m experiments.train --config=configs/causal_transformer/nopos.py --workdir=runs/nopos
    python -m experiments.evaluate --workdir=runs/nopos

Modes: `learned` (the baseline: a learned table of positions) and `tiny` (CI). The evaluation probes every layer for positions, with the
mask and with the mask taken away.

Measured, 400 steps, seeds 0 to 2: 2.514, 2.560, 2.509 nats a byte on 2,000 held-out rows of the standard library, learned positions 2.505,
2.514, 2.508. A linear probe is off by 20.6, 18.2, 17.5, 17.4% of the length after layers 1 to 4 (seed 1: 19.1, 15.2, 14.8, 15.6%), by 24.6
to 24.9% without the mask (chance 25%).
"""

from ml_collections import ConfigDict

from configs.causal_transformer import text
from configs.common import check_mode


def get_config(mode: str = "") -> ConfigDict:
    check_mode(mode, ("learned", "tiny"))
    config = text.get_config("tiny" if mode == "tiny" else "")
    config.model.transformer.position = "learned" if mode == "learned" else "none"
    config.model.capture = (0, 1)
    if mode != "tiny":
        config.data.update({"length": 64, "test_size": 2_000})
        config.model.capture = (0, 1, 2, 3)
        config.model.transformer.update({"width": 64, "heads": 4, "length": 64})
        config.train.update({"steps": 400, "batch_size": 16, "learning_rate": 2e-3, "warmup_steps": 50, "ema_decay": 0.99})
        config.log.eval_every = 0
        config.evaluate = {"scenes": 128}
    return config
