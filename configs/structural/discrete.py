"""Discrete structural model of three nodes, fitted by counting: a table of probabilities a node, Gumbel-max noise.

    python -m experiments.train --config=configs/structural/discrete.py --workdir=runs/discrete
    python -m experiments.counterfactual --workdir=runs/discrete --do=x=1 --num=4
    python -m experiments.evaluate --workdir=runs/discrete

Equations (6) of causal_gen/data/scm.py, 10,000 rows. The source's counterfactuals rest on the same choice of noise as the model's, which
abducts a draw of the noise's posterior: it cannot know which of the possible noises was behind a row. Modes: `network` (logits from a
network instead of a table) and `tiny` (CI).
"""

from ml_collections import ConfigDict

from configs.common import check_mode


def get_config(mode: str = "") -> ConfigDict:
    check_mode(mode, ("network", "tiny"))
    network = mode == "network"
    config = ConfigDict()
    config.data = {"name": "scm", "system": "discrete", "size": 10_000, "test_size": 4_000}
    config.model = {"name": "structural", "graph": (("z", "x"), ("z", "y"), ("x", "y"))}
    config.model.default = {"name": "discrete" if network else "table", "widths": (16,)}
    config.train = {"steps": 1_000 if network else 1, "batch_size": 256, "learning_rate": 1e-2, "ema_decay": 0.99 if network else None}
    config.checkpoint = {"every": config.train.steps}
    config.log = {"every": 100, "eval_every": 0, "pictures_every": 0}
    config.evaluate = {"scenes": 4_000, "batch_size": 1_000}
    if mode == "tiny":
        config.data.update({"size": 64, "test_size": 16})
        config.train.update({"steps": 2, "batch_size": 8})
        config.checkpoint.every = 2
        config.log.update({"every": 1, "eval_every": 2, "eval_batches": 1})
        config.evaluate.update({"scenes": 8, "batch_size": 8})
    return config
