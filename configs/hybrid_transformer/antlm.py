"""AntLM: next tokens and masked tokens in turn, some steps each, on one stack (Yu et al. 2024).

    python -m experiments.train --config=configs/hybrid_transformer/antlm.py --workdir=runs/antlm
    python -m experiments.evaluate --workdir=runs/antlm

Data, network and objectives of gpt_bert.py, which is also where the two baselines are; masks are predicted in place. Modes: `biphasic`
(next tokens first, then masked ones: the split of a fixed budget of Gisserot-Boukhlef et al. 2025) and `tiny` (CI).

Measured, seed 0, 400 steps: 2.656 nats a byte of next tokens, 2.639 of masked ones, in the mean 2.647; gpt_bert.py's baselines reach 2.737
(next tokens alone) and 2.925 (masked ones alone). `biphasic`, a quarter of the steps on next tokens: 2.987, 2.563.
"""

from configs.common import check_mode
from configs.hybrid_transformer import gpt_bert


def get_config(mode: str = ""):
    check_mode(mode, ("biphasic", "tiny"))
    config = gpt_bert.get_config("tiny" if mode == "tiny" else "")
    config.model.objectives = ({"kind": "next", "name": "causal"}, {"kind": "masked", "low": 0.15, "high": 0.3})
    config.model.mixer = {"kind": "alternate", "steps": (2, 2) if mode == "tiny" else (50, 50)}
    if mode == "biphasic":
        config.model.mixer = {"kind": "phases", "steps": (config.train.steps // 4,), "stages": ((1.0, 0.0), (0.0, 1.0))}
    return config
