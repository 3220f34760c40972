"""iLLaMA: a LLaMA-like decoder classifies images; its class token comes after the image, its mask turns causal softly (Wang et al. 2024).

    python -m experiments.train --config=configs/causal_transformer/illama.py --workdir=runs/illama
    python -m experiments.evaluate --workdir=runs/illama

MNIST at half its size, as 49 patches of 2 x 2, in the folder data.root or CAUSAL_GEN_DATA; --config.data.standin=true draws figures
instead. The mask is bidirectional at first and causal from step 80 of 250 on. Modes: `hard` (causal from the start), `first` (causal from
the start, the class token before the image, which it then cannot see), `full` (bidirectional to the end) and `tiny` (CI).

Measured on MNIST, 2,000 test digits, seeds 0 to 2: accuracy .838, .779, .816 (.516, .655, .562 nats), `hard` .845, .805, .822 (.497, .600,
.561): that a soft start does better is not seen here. `first` .117 (seed 0): that it is blind is exact (tests/systems/test_labellers.py).
"""

from ml_collections import ConfigDict

from configs.common import check_mode


def get_config(mode: str = "") -> ConfigDict:
    check_mode(mode, ("hard", "first", "full", "tiny"))
    config = ConfigDict()
    config.data = {"name": "pixels", "shrink": 2, "patch": 2, "size": 10_000, "test_size": 2_000}
    config.model = {
        "name": "labeller",
        "inputs": "patches",
        "columns": 7,
        "labels": "digit",
        "slot": "first" if mode == "first" else "last",
        "pool": "slot",
        "visibility": {"hard": "causal()", "first": "causal()", "full": "full()"}.get(mode, "soft(full(), causal())"),
        "transformer": {
            "width": 48, "layers": 3, "heads": 4, "mlp": "swiglu", "mlp_ratio": 2.0, "norm": "rms", "bias": False, "backend": "dense",
            "position": "rope2d", "scan": True,
        },
    }  # fmt: skip
    if mode in ("", "tiny"):
        config.model.mask_schedule = {"start": 0.0, "end": 1.0, "begin": 0, "finish": 80}
    config.train = {"steps": 250, "batch_size": 32, "learning_rate": 3e-3, "warmup_steps": 25, "weight_decay": 0.05, "ema_decay": 0.98}
    config.checkpoint = {"every": 1_000}
    config.log = {"every": 50, "eval_every": 0, "pictures_every": 0}
    config.evaluate = {"scenes": 64}
    if mode == "tiny":
        config.data.update({"size": 64, "test_size": 16, "shrink": 7, "patch": 2, "standin": True})
        config.model.transformer.update({"width": 16, "layers": 2, "heads": 2})
        config.model.columns, config.model.mask_schedule.finish = 2, 3
        config.train.update({"steps": 4, "batch_size": 8, "warmup_steps": 1})
        config.checkpoint.every = 2
        config.log.update({"every": 2, "eval_every": 2, "eval_batches": 1})
    return config
