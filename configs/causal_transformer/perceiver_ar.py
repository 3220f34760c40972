"""Perceiver AR's function: the last tokens read the whole input once, then one another (Hawthorne et al. 2022).

    python -m experiments.train --config=configs/causal_transformer/perceiver_ar.py --workdir=runs/perceiver_ar
    python -m experiments.evaluate --workdir=runs/perceiver_ar

The first layer sees everything before, the others only the latents, the last 33 of 65 tokens, which alone are scored. What is hidden is
masked, not left out: the numbers are Perceiver AR's, the cost is not. Modes: `local` (the baseline: no layer reads the long input) and
`tiny` (CI). Checked in tests/test_systems.py is that masking gives the same numbers as cutting; copying has not been measured.
"""

from ml_collections import ConfigDict

from configs.causal_transformer import text
from configs.common import check_mode


def get_config(mode: str = "") -> ConfigDict:
    check_mode(mode, ("local", "tiny"))
    config = text.get_config("tiny" if mode == "tiny" else "")
    items, layers = (8, 2) if mode == "tiny" else (32, 3)
    latents = f"causal() & ~prefix({items})"
    config.data = {"name": "copy", "symbols": 16, "items": items, "size": 200_000, "test_size": 2_000}
    config.model.visibility = latents if mode == "local" else f"per_layer({', '.join(['causal()'] + [latents] * (layers - 1))})"
    if mode == "tiny":
        config.data.update({"size": 64, "test_size": 16})
        return config
    config.model.transformer.update({"width": 64, "layers": layers, "heads": 2})
    config.train.update({"steps": 1_000, "batch_size": 64, "learning_rate": 2e-3, "warmup_steps": 100, "weight_decay": 0.0})
    config.train.ema_decay = 0.99
    config.log.eval_every = 0
    config.evaluate = {"scenes": 64}
    return config
