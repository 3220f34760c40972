"""Locret: heads learn which tokens will be looked at later, and a cache with a budget keeps those (Huang et al. 2024).

    python -m experiments.train --config=configs/causal_transformer/locret.py --workdir=runs/locret
    python -m experiments.evaluate --workdir=runs/locret

Four needles among 25 tokens, three of them asked for afterwards; the cache holds a quarter of the text. The evaluation decodes the same
weights with a sliding window, with attention summed so far (H2O) and with the learned scores. Mode: `tiny` (CI).

Measured, 700 steps of 32, 128 held-out rows, seeds 0, 1, 2 (train and data): nats an answer with the whole text .0021, .0008, .0013; with a
quarter of it 5.06, 5.16, 4.78 (window), 4.00, 4.93, 3.94 (attention), .055, .0008, .0032 (learned); with a half 3.09, 3.12, 2.73 (window),
1.95, 2.32, 1.78 (attention), .0021, .0008, .0013 (learned).
"""

from ml_collections import ConfigDict

from configs.causal_transformer import text
from configs.common import check_mode


def get_config(mode: str = "") -> ConfigDict:
    check_mode(mode, ("tiny",))
    config = text.get_config("tiny" if mode == "tiny" else "")
    config.data = {
        "name": "needles",
        "kinds": 4,
        "values": 4,
        "fillers": 8,
        "needles": 4,
        "queries": 3,
        "haystack": 25,
        "size": 50_000,
        "test_size": 500,
    }
    config.model.cache = {"kind": "evict", "slots": 8, "score": "learned", "recent": 2}
    if mode == "tiny":
        config.data.update({"kinds": 3, "values": 3, "fillers": 4, "needles": 2, "queries": 2, "haystack": 9, "size": 64, "test_size": 16})
        config.model.cache.update({"slots": 5, "recent": 1})
        return config
    config.model.transformer.update({"width": 32, "layers": 2, "heads": 2, "position": "none", "backend": "dense"})
    config.train.update({"steps": 700, "batch_size": 32, "learning_rate": 5e-3, "warmup_steps": 50, "weight_decay": 0.0})
    config.train.ema_decay = 0.99
    config.train.clip_norm = None  # a norm over both would let the heads' gradient shorten the transformer's
    config.train.annealing = "steps"
    config.log.eval_every = 0
    config.evaluate = {"scenes": 128, "batch_size": 128}
    return config
