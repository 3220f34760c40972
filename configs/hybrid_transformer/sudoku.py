"""Sudoku by masked diffusion, its cells filled in an adaptive order against a random one (Kim et al. 2025).

python -m experiments.train --config=configs/hybrid_transformer/sudoku.py --workdir=runs/sudoku
"""

from ml_collections import ConfigDict

from configs.common import check_mode

UNITS = 'per_head(same("row"), same("column"), same("box"))'


def get_config(mode: str = "") -> ConfigDict:
    check_mode(mode, ("small", "middle", "tiny"))
    config = ConfigDict()
    side = {"small": 4, "tiny": 4, "middle": 6}.get(mode, 9)
    config.data = {"name": "sudoku", "side": side, "size": 50_000, "test_size": 1_000}
    config.model = {
        "name": "hybrid_transformer",
        "objectives": ({"kind": "any_order", "visibility": UNITS},),
        "transformer": {"width": 48, "layers": 4, "heads": 3, "norm": "rms", "position": "none", "mlp_ratio": 2.0, "backend": "dense"},
    }
    config.sampling = {"policy": "margin", "top_k": 1}
    config.train = {"steps": 2_000, "batch_size": 64, "learning_rate": 4e-3, "optimizer": "muon", "warmup_steps": 50, "ema_decay": 0.99}
    config.checkpoint = {"every": 1_000}
    config.log = {"every": 50, "eval_every": 0, "pictures_every": 0}
    config.evaluate = {"scenes": 1_000, "batch_size": 250}
    if mode == "small":
        config.data.size = 20_000
        config.train.update({"steps": 1_000})
    if mode == "tiny":
        config.data.update({"bases": 4, "size": 64, "test_size": 16})
        config.model.transformer.update({"width": 12, "layers": 2})
        config.train.update({"steps": 4, "batch_size": 8, "warmup_steps": 1})
        config.checkpoint.every = 2
        config.log.update({"every": 2, "eval_every": 2, "eval_batches": 1})
        config.evaluate = {"scenes": 8}
    return config
