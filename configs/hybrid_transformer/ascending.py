"""Ascending steps and early rejection of end tokens: a whole working filled in by a few calls (Yang et al. 2025).

python -m experiments.train --config=configs/hybrid_transformer/ascending.py --workdir=runs/ascending
python -m experiments.evaluate --workdir=runs/ascending --config.sampling.counts=ascending --config.sampling.reject=0.1
"""

from ml_collections import ConfigDict

from configs.common import check_mode


def get_config(mode: str = "") -> ConfigDict:
    check_mode(mode, ("tiny",))
    config = ConfigDict()
    config.data = {"name": "scratchpad", "terms": 8, "restated": 8, "padded": True, "size": 50_000, "test_size": 1_000}
    config.model = {
        "name": "hybrid_transformer",
        "objectives": ({"kind": "any_order"},),
        "transformer": {"width": 64, "layers": 3, "heads": 4, "norm": "rms", "position": "learned", "length": 32, "backend": "dense"},
    }
    config.sampling = {"policy": "confidence", "top_k": 1, "end": 2}
    config.train = {"steps": 1_500, "batch_size": 64, "learning_rate": 4e-3, "optimizer": "muon", "warmup_steps": 50, "ema_decay": 0.99}
    config.checkpoint = {"every": 500}
    config.log = {"every": 100, "eval_every": 0, "pictures_every": 0}
    config.evaluate = {"scenes": 1_000, "batch_size": 500}
    if mode == "tiny":
        config.data.update({"terms": 2, "restated": 1, "size": 64, "test_size": 16})
        config.model.transformer.update({"width": 16, "layers": 2, "heads": 2})
        config.train.update({"steps": 4, "batch_size": 8, "warmup_steps": 1})
        config.checkpoint.every = 2
        config.log.update({"every": 2, "eval_every": 2, "eval_batches": 1})
        config.evaluate = {"scenes": 8}
    return config
