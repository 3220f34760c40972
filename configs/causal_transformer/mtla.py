"""MTLA: one narrow latent for the keys and values of all heads, shared by `stride` neighbours in time (Deng and Woodland 2025).

    python -m experiments.train --config=configs/causal_transformer/mtla.py --workdir=runs/mtla
    python -m experiments.evaluate --workdir=runs/mtla

Any stride: --config.model.transformer.latent.stride=3. Modes: `mla` (the baseline: a latent a token), `heads` (multi-head attention) and
`tiny` (CI). Checked in tests/test_systems.py is decoding, for strides 1 to 4; what is learned has not been measured.
"""

from ml_collections import ConfigDict

from configs.causal_transformer import text
from configs.common import check_mode


def get_config(mode: str = "") -> ConfigDict:
    check_mode(mode, ("mla", "heads", "tiny"))
    config = text.get_config("tiny" if mode == "tiny" else "")
    if mode != "heads":
        config.model.transformer.attention = "latent"
        config.model.transformer.latent = {"rank": 32, "rotary": 16, "stride": 1 if mode == "mla" else 2}
    if mode == "tiny":
        config.model.transformer.latent.update({"rank": 8, "rotary": 4})
        return config
    config.data.update({"length": 64, "test_size": 2_000})
    config.model.transformer.update({"width": 128, "heads": 4})
    config.train.update({"steps": 300, "batch_size": 16, "learning_rate": 2e-3, "warmup_steps": 50, "ema_decay": 0.99})
    config.log.eval_every = 0
    config.evaluate = {"scenes": 64}
    return config
