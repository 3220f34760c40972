"""TC-LLaVA: frames of a video see themselves whole and earlier ones, and attention turns with the frame as well (Gao et al. 2024).

    python -m experiments.train --config=configs/causal_transformer/tc_llava.py --workdir=runs/tc_llava
    python -m experiments.evaluate --workdir=runs/tc_llava

Asked is what is done in the frame after the one with an actor (data/video.py). Modes: `causal` (the baseline: the plain causal mask and
RoPE), `mask` and `rope` (only one of the two) and `tiny` (CI). Checked in tests/systems/test_seeing.py are the laws.

Measured, 1,000 steps, 512 test films, seeds 0 to 2: 30, 31, 31% right against 30, 32, 31% of the baseline: the task is not learned under
either mask, so that the paper's gain cannot be seen.
"""

from ml_collections import ConfigDict

from configs.causal_transformer import text
from configs.common import check_mode


def get_config(mode: str = "") -> ConfigDict:
    check_mode(mode, ("causal", "mask", "rope", "tiny"))
    config = text.get_config("tiny" if mode == "tiny" else "")
    config.data = {"name": "video", "frames": 6, "cells": 4, "size": 50_000, "test_size": 2_000}
    config.model.cache = {"kind": "reread"}  # a draw from the first token on writes the frames as well
    if mode not in ("causal", "rope"):
        config.model.visibility = "causal() | same('frame') & prefix()"
    config.model.transformer.update({"position": "rope" if mode in ("causal", "mask") else "rope_dual", "frame_weight": 100.0})
    if mode == "tiny":
        config.data.update({"size": 64, "test_size": 16, "frames": 3, "cells": 3, "queries": 2, "actors": 4, "acts": 3})
        return config
    config.model.transformer.update({"width": 48, "layers": 2, "heads": 4, "backend": "dense", "scan": True})
    config.train.update({"steps": 1_000, "batch_size": 64, "learning_rate": 2e-3, "warmup_steps": 50, "weight_decay": 0.0})
    config.train.ema_decay = 0.99
    config.log.eval_every = 0
    config.evaluate = {"scenes": 512, "batch_size": 128}
    return config
