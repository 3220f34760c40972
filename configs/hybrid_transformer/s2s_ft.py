"""s2s-ft: a source read whole, a target told from it one token after the other, by three ways of hiding it (Bao et al. 2021).

    python -m experiments.train --config=configs/hybrid_transformer/s2s_ft.py --workdir=runs/s2s_ft
    python -m experiments.evaluate --workdir=runs/s2s_ft

Eight of 16 symbols and their copy, of which the copy is scored. Without a mode: pseudo-masks beside the target's tokens, all of it in one
run. Modes: `masked` (a random part of the target is masked), `causal` (the target is read on from the source) and `tiny` (CI).

Measured, seed 0, 1,000 steps: pseudo-masks .0012 nats a token, `masked` .0014, `causal` .0018, every held-out token right; drawn from
masks, in order or at random, 98.4% of 256 copies are whole, 98.0% of those of `masked`. All three learn it: no way is seen to be better.
"""

from ml_collections import ConfigDict

from configs.common import check_mode, few_steps


def get_config(mode: str = ""):
    check_mode(mode, ("masked", "causal", "tiny"))
    objective = {"kind": "permuted", "order": "identity", "low": 1.0, "high": 1.0}
    if mode == "masked":
        objective = {"kind": "masked", "low": 0.2, "high": 1.0}
    if mode == "causal":
        objective = {"kind": "next"}
    config = ConfigDict()
    config.data = {"name": "copy", "symbols": 16, "items": 8, "size": 20_000, "test_size": 1_000}
    config.model = {"name": "hybrid_transformer", "objectives": (objective,)}
    config.model.transformer = {"width": 32, "layers": 2, "heads": 2, "backend": "dense", "scan": False}
    config.sampling = {"policy": "order"}
    config.train = {"steps": 1_000, "batch_size": 64, "learning_rate": 3e-3, "warmup_steps": 50, "weight_decay": 0.0}
    config.checkpoint = {"every": 1_000}
    config.log = {"every": 100, "eval_every": 0, "pictures_every": 0}
    config.evaluate = {"scenes": 256, "batch_size": 256}
    if mode == "tiny":
        config.data.update({"items": 3, "size": 64, "test_size": 16})
        config.model.transformer.update({"width": 8, "layers": 1, "heads": 2})
        few_steps(config)
    return config
