"""Perceiver AR: the last tokens read the whole input once, then one another; only they go on after the first layer (Hawthorne et al. 2022).

    python -m experiments.train --config=configs/causal_transformer/perceiver_ar.py --workdir=runs/perceiver_ar
    python -m experiments.evaluate --workdir=runs/perceiver_ar

Copied are the first tokens of the input, one latent each. Modes: `local` (the baseline: no layer reads the long input) and `tiny` (CI).
Decoding runs all layers on all tokens, with the same numbers: what is saved is training's and scoring's cost.

Measured, seeds 0, 1, 2, 1,000 steps: 32 tokens copied from 224 away are right in 100, 100, 99.8%, whole rows in 100, 100, 93.8%; `local`,
seed 0, is right in 4.7% (one of 16 symbols by chance 6.3%).
"""

from ml_collections import ConfigDict

from configs.causal_transformer import text
from configs.common import check_mode


def get_config(mode: str = "") -> ConfigDict:
    check_mode(mode, ("local", "tiny"))
    config = text.get_config("tiny" if mode == "tiny" else "")
    items, latents = (12, 4) if mode == "tiny" else (224, 32)
    config.data = {"name": "copy", "symbols": 16, "items": items, "copied": latents, "size": 50_000, "test_size": 1_000}
    config.model.visibility = f"causal() & ~prefix({items + 1})" if mode == "local" else "causal()"
    config.model.latents = latents
    if mode == "tiny":
        config.data.update({"size": 64, "test_size": 16})
        return config
    config.model.transformer.update({"width": 64, "layers": 3, "heads": 2})
    config.train.update({"steps": 1_000, "batch_size": 64, "learning_rate": 2e-3, "warmup_steps": 100, "weight_decay": 0.0})
    config.train.ema_decay = 0.99
    config.log.eval_every = 0
    config.evaluate = {"scenes": 64}
    return config
