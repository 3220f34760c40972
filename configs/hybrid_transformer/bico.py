"""BICO: a causal model goes on with both directions of attention and masked tokens, and learns facts backwards too (Lv et al. 2023).

    python -m experiments.train --config=configs/hybrid_transformer/bico.py --workdir=runs/bico
    python -m experiments.evaluate --workdir=runs/bico

200 facts "a is b" (causal_gen/data/sequences.py, reversal), 160 of them also told backwards; the others are asked backwards, which no row
shows. 500 steps of next tokens, then 1,000 in which any share of a row is masked and predicted where the next token would be. `exact` of
evaluate/metrics.json is the share of the names that are right. Modes: `causal` (the baseline: next tokens throughout) and `tiny` (CI).

Measured, seeds 0 and 1: of the 40 facts asked backwards 100% right, and of all 200 asked forwards 100%. `causal`, seeds 1 and 2, and seed 0
with 2,000 steps: 0% and 100%. Names are single tokens here; longer ones have not been run.
"""

from ml_collections import ConfigDict

from configs.common import check_mode, few_steps


def get_config(mode: str = "") -> ConfigDict:
    check_mode(mode, ("causal", "tiny"))
    config = ConfigDict()
    config.data = {"name": "reversal", "size": 200, "test_size": 40, "letters": 1, "alphabet": 400}
    denoising = {"kind": "masked", "name": "denoising", "hides": "all", "shifted": True, "low": 0.0, "high": 1.0}
    config.model = {"name": "hybrid_transformer", "objectives": ({"kind": "next"}, denoising)}
    config.model.mixer = {"kind": "phases", "steps": (500,), "stages": ((1.0, 0.0), (0.0, 1.0))}
    config.model.drawn = "next" if mode == "causal" else "denoising"
    if mode == "causal":
        config.model.objectives, config.model.mixer = ({"kind": "next"},), {}
    config.model.transformer = {"width": 64, "layers": 2, "heads": 4, "backend": "dense"}
    config.train = {"steps": 1_500, "batch_size": 60, "learning_rate": 2e-3, "warmup_steps": 100, "weight_decay": 0.1, "ema_decay": 0.99}
    config.checkpoint = {"every": 1_500}
    config.log = {"every": 500, "eval_every": 0, "pictures_every": 0}
    config.evaluate = {"scenes": 200, "batch_size": 200}
    if mode == "tiny":
        config.data.update({"size": 12, "test_size": 4})
        config.model.mixer.steps = (2,)
        config.model.transformer.update({"width": 16, "layers": 1, "heads": 2})
        few_steps(config)
    return config
