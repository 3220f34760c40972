"""LS-unLLaMA: a causal language model made a tagger by low-rank updates and a label head, its causal mask removed (Li et al. 2023).

    python -m experiments.train --config=configs/causal_transformer/layer_masks.py:language --workdir=runs/language
    python -m experiments.train --config=configs/causal_transformer/ls_unllama.py --workdir=runs/ls_unllama \
        --config.train.init_from='{"^(embed|decoder)": "runs/language"}'
    python -m experiments.evaluate --workdir=runs/ls_unllama

Names are to be labelled by a cue that comes after them (data/labelled.py). Modes: `masked` (LS-LLaMA: the causal mask stays) and `tiny`
(CI); all of the network is trained by layer_masks.py.

Measured, 4.5% of the parameters trained, 1,500 steps (17 s), F1 of 4,000 held-out names, seeds 0 to 2: .967, 1.000, 1.000, `masked` .506,
.502, .495; a tagger that does not see the cue is expected to reach .491 at most. After 600 .892, 1.000, .275, after 300 .778, .997, .275.
"""

from ml_collections import ConfigDict

from configs.causal_transformer import layer_masks
from configs.common import check_mode


def get_config(mode: str = "") -> ConfigDict:
    check_mode(mode, ("masked", "tiny"))
    config = layer_masks.get_config("tiny" if mode == "tiny" else "0000" if mode == "masked" else "1111")
    config.model.adapters = {"rank": 3, "scale": 8.0, "targets": "attention/(qkv|out)/kernel"}
    if mode == "tiny":
        config.model.adapters.rank = 1
    else:
        config.train.update({"steps": 1_500, "learning_rate": 1e-2})
    return config
