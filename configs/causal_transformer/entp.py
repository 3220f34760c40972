"""ENTP: the next token by an encoder without a mask that is run anew on every prefix, on Triplet-Counting (Ewer et al. 2024).

    python -m experiments.train --config=configs/causal_transformer/entp.py --workdir=runs/entp
    python -m experiments.evaluate --workdir=runs/entp

Modes: `decoder` (the baseline: the same stack under a causal mask, run once) and `tiny` (CI).

Measured, 1,000 test rows, seeds 0 to 2: ENTP is right on 99.1, 100, 100% (.028, .011, .015 nats), the decoder on 96.5, 96.3, 98.7% (.106,
.105, .061). The paper's wide gap is not seen: counts of 6 tokens over 4 symbols are few enough for a decoder to keep.
Over 6 symbols (1,500 steps at rate 5e-3, seed 0 alone) it is 62.6 to 54.1%, neither having converged.
"""

from ml_collections import ConfigDict

from configs.common import check_mode


def get_config(mode: str = "") -> ConfigDict:
    check_mode(mode, ("decoder", "tiny"))
    config = ConfigDict()
    config.data = {"name": "triplets", "symbols": 4, "items": 6, "size": 50_000, "test_size": 1_000}
    config.model = {
        "name": "causal_transformer",
        "visibility": "full()",
        "prefixes": 1,
        "cache": {"kind": "reread"},
        "transformer": {"width": 48, "layers": 3, "heads": 4, "norm": "rms", "position": "learned", "length": 16, "backend": "dense"},
    }
    if mode == "decoder":
        config.model.update({"visibility": "causal()", "prefixes": 0})
        config.model.cache.kind = "append"
    config.train = {"steps": 700, "batch_size": 64, "learning_rate": 3e-3, "warmup_steps": 70, "ema_decay": 0.99}
    config.checkpoint = {"every": 700}
    config.log = {"every": 100, "eval_every": 0, "pictures_every": 0}
    config.evaluate = {"scenes": 1_000, "batch_size": 500}
    if mode == "tiny":
        config.data.update({"items": 6, "answers": 3, "size": 64, "test_size": 16})
        config.model.prefixes = 3
        config.model.transformer.update({"width": 16, "layers": 2, "heads": 2})
        config.train.update({"steps": 4, "batch_size": 8, "warmup_steps": 1})
        config.checkpoint.every = 2
        config.log.update({"every": 2, "eval_every": 2, "eval_batches": 1})
        config.evaluate = {"scenes": 8}
    return config
