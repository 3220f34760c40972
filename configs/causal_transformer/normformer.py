"""NormFormer: pre-norm blocks with a norm after attention, one inside the feed-forward layer, and a scale a head (Shleifer et al. 2021).

    python -m experiments.train --config=configs/causal_transformer/normformer.py --workdir=runs/normformer
    python -m experiments.evaluate --workdir=runs/normformer

Modes: `preln` (the baseline: the same stack without them) and `tiny` (CI). The evaluation probes every layer for the norm of its gradient.

Measured (`pytest tests/test_systems.py --every -k normformer`): .42% more parameters; at initial weights the gradient of the first layer
is 2.37, 2.40, 2.72 times that of the last (seeds 0 to 2), without 2.85, 2.81, 2.92. After 160 steps (train, evaluate, seeds 0 to 2) it has
2.521, 2.515, 2.510 nats a byte and a ratio of 6.9, 5.9, 6.7; `preln` has 2.454, 2.438, 2.510 and 5.9, 5.1, 4.7. That the extra norms
lower the loss is not seen in so few steps.
"""

from ml_collections import ConfigDict

from configs.causal_transformer import text
from configs.common import check_mode


def get_config(mode: str = "") -> ConfigDict:
    check_mode(mode, ("preln", "tiny"))
    config = text.get_config("tiny" if mode == "tiny" else "")
    config.model.transformer.normformer = mode != "preln"
    config.model.capture = (0, 1)
    if mode != "tiny":
        config.data.update({"length": 64, "test_size": 2_000})
        config.model.capture = (0, 1, 2, 3, 4, 5)
        config.model.transformer.update({"width": 192, "layers": 6, "heads": 4})
        config.train.update({"steps": 160, "batch_size": 16, "learning_rate": 2e-3, "warmup_steps": 20, "ema_decay": 0.99})
        config.log.update({"every": 20, "eval_every": 0})
        config.evaluate = {"scenes": 64}
    return config
