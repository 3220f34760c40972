"""BEAR and LM-PUB-QUIZ: what a model knows, by the rank of the true statement among its alternatives (Wiland et al.; Ploner et al. 2024)."""

from ml_collections import ConfigDict

from configs.common import check_mode


def get_config(mode: str = "") -> ConfigDict:
    check_mode(mode, ("masked", "first", "second", "tiny"))
    config = ConfigDict()
    config.data = {"name": "facts", "phase": mode if mode in ("first", "second") else "all"}
    objective = {"kind": "masked", "low": 0.15, "high": 0.6} if mode == "masked" else {"kind": "next"}
    config.model = {"name": "hybrid_transformer", "objectives": (objective,)}
    config.model.transformer = {"width": 64, "layers": 2, "heads": 4, "backend": "dense"}
    config.train = {"steps": 600, "batch_size": 64, "learning_rate": 2e-3, "warmup_steps": 50, "weight_decay": 0.0, "ema_decay": 0.99}
    config.checkpoint = {"every": 600}
    config.log = {"every": 200, "eval_every": 0, "pictures_every": 0}
    config.evaluate = {"scenes": 64, "batch_size": 200, "scoring": "pseudo" if mode == "masked" else "likelihood"}
    if mode == "tiny":
        config.data.update({"size": 64, "test_size": 16, "subjects": 4, "relations": 2, "objects": 3})
        config.model.transformer.update({"width": 16, "layers": 1, "heads": 2})
        config.train.update({"steps": 4, "batch_size": 8, "warmup_steps": 1})
        config.checkpoint.every = 2
        config.log.update({"every": 2, "eval_every": 2, "eval_batches": 1})
        config.evaluate.update({"scenes": 8, "batch_size": 8})
    return config
