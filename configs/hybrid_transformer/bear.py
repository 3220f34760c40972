"""BEAR and LM-PUB-QUIZ: what a model knows, by the rank of the true statement among its alternatives (Wiland et al.; Ploner et al. 2024).

    python -m experiments.train --config=configs/hybrid_transformer/bear.py --workdir=runs/bear
    python -m experiments.evaluate --workdir=runs/bear

200 facts of a made-up world (causal_gen/data/facts.py), each asked in a wording that no row tells it in, against all ten objects of its
relation: `statements` of evaluate/metrics.json, by relation. A model of next tokens ranks them by their likelihood; modes: `masked`, one of
masked tokens, by pseudo-likelihood; `first` and `second`, the facts of half of the relations, of which the second goes on from the
first (--config.train.init_from='{".*": "runs/first"}') and shows what it forgets; `tiny` (CI).

Measured, seed 0, 600 steps: the true one of ten first in all 200, chance 10%; 1.509 nats a held-out token, the law's own 1.498. The modes
`masked`, `first` and `second` have not been run to their end.
"""

from ml_collections import ConfigDict

from configs.common import check_mode, few_steps


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
        few_steps(config)
    return config
