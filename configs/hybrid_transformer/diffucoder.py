"""Masked diffusion whose bound is estimated by pairs of complementary masks, and how close to reading it fills in (Gong et al. 2025).

    python -m experiments.train --config=configs/hybrid_transformer/diffucoder.py --workdir=runs/diffucoder
    python -m experiments.evaluate --workdir=runs/diffucoder

Rows of 64 bytes of text. `evaluate` tells the spread of a row's bound from one draw of masks to the next and, of rows that are drawn a
byte a call, the likeliest byte first, how often the next byte is the neighbour of the last (AR-ness; evaluate/unmasking.py).

Measured, seeds 0, 1, 2, 2,000 steps of 32 (110 s of one core): the spread, nats a byte, on 512 held-out rows, of complementary masks and
(`--config.model.coupled=False`) of masks that know nothing of each other, at as many calls of the same network (bound 2.346, seed 0):

    calls           2                     8
    coupled       .397, .400, .403      .226, .226, .221
    independent   .532, .531, .532      .259, .258, .253      (variance 1.8 and 1.3 times that of coupled ones)

AR-ness, 16 rows of 64 bytes, local / global of two (random order: .016 / .133): .513 / .591, .630 / .738, .491 / .775. Of seed 0 by
`--config.sampling.temperature`: at .2 1.000 / 1.000, at 1.5 .208 / .194. As published, a higher temperature makes the order more various,
not the bytes alone; at .2 it reads.
Modes: `apart` (independent masks) and `tiny` (CI).
"""

from ml_collections import ConfigDict

from configs.common import check_mode, few_steps


def get_config(mode: str = "") -> ConfigDict:
    check_mode(mode, ("apart", "tiny"))
    config = ConfigDict()
    config.data = {"name": "text", "tokenizer": "bytes", "length": 64, "test_size": 2_000}
    config.model = {"name": "hybrid_transformer", "objectives": ({"kind": "diffusion"},), "draws": 8, "coupled": mode != "apart"}
    config.model.transformer = {"width": 64, "layers": 2, "heads": 4, "position": "rope", "backend": "dense", "scan": False}
    config.sampling = {"policy": "confidence"}
    config.train = {"steps": 2_000, "batch_size": 32, "learning_rate": 3e-3, "warmup_steps": 50, "weight_decay": 0.1, "ema_decay": None}
    config.checkpoint = {"every": 2_000}
    config.log = {"every": 200, "eval_every": 0, "pictures_every": 0}
    config.evaluate = {"scenes": 512, "batch_size": 250}
    if mode == "tiny":
        config.data.update({"length": 16, "documents": 4, "size": 64, "test_size": 16})
        config.model.transformer.update({"width": 16, "layers": 2, "heads": 2})
        config.model.draws = 2
        few_steps(config)
    return config
