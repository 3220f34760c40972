"""NXTP: names of what a picture shows, each sees the whole picture and no other name, so that all are told at once (Yue et al. 2024).

    python -m experiments.train --config=configs/causal_transformer/nxtp.py --workdir=runs/nxtp
    python -m experiments.evaluate --workdir=runs/nxtp

The evaluation tells the names in one shot, and one after another (evaluate/recall.py; data/objects.py). Modes: `sequential` (the baseline:
a name sees those before it, in random order) and `tiny` (CI). Laws: tests/systems/test_seeing.py.

Measured, 1,000 steps, recall of the names on test pictures, seeds 0 to 2: .456, .458, .451 in one shot, in sequence .318, .338, .385.
"""

from ml_collections import ConfigDict

from configs.causal_transformer import text
from configs.common import check_mode


def get_config(mode: str = "") -> ConfigDict:
    check_mode(mode, ("sequential", "tiny"))
    config = text.get_config("tiny" if mode == "tiny" else "")
    config.data = {"name": "objects", "size": 50_000, "test_size": 2_000, "apart": mode != "sequential"}
    config.model.visibility = "causal() | prefix(17)" if mode == "sequential" else "label_blocks()"
    config.model.cache = {"kind": "reread"}  # a draw from the first token on writes the picture as well
    if mode == "tiny":
        config.data.update({"size": 64, "test_size": 16, "rows": 2, "objects": 3, "kinds": 5, "colours": 2, "clutter": 2})
        return config
    config.model.transformer.update({"width": 48, "layers": 2, "heads": 4, "backend": "dense", "scan": True})
    config.train.update({"steps": 1_000, "batch_size": 64, "learning_rate": 2e-3, "warmup_steps": 50, "weight_decay": 0.0})
    config.train.ema_decay = 0.99
    config.log.eval_every = 0
    config.evaluate = {"scenes": 512, "batch_size": 128}
    return config
