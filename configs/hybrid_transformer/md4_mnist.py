"""MD4 on grey levels of MNIST, against a causal transformer of the same size on the same rows (Shi et al. 2024).

    python -m experiments.train --config=configs/hybrid_transformer/md4_mnist.py --workdir=runs/md4_mnist
    python -m experiments.evaluate --workdir=runs/md4_mnist

MNIST at 14 x 14 and 5 grey levels, 196 tokens: `bits_per_token` of evaluate/metrics.json are bits per dimension, of the masked model a
bound. Modes: `causal` (next pixels, as many steps), `full` and `full_causal` (28 x 28, ten minutes of two cores each, by four layers of
which three see their neighbourhood alone) and `tiny` (CI, stand-in strokes).

Measured, seed 0, 250 test digits. `full` and `full_causal`, twenty minutes of one core each (2,785 and 3,475 steps of 8): a bound of .276
bits a dimension (se .004) and .232 (se .004): 19% above [15%: missed]. 500 steps of 32 at 14 x 14: .653 (se .010) and .548 (se .009).
"""

from ml_collections import ConfigDict

from configs.common import check_mode, few_steps

NEAR = 'window(2, "row") & window(3, "column")'  # three rows of five pixels


def get_config(mode: str = "") -> ConfigDict:
    check_mode(mode, ("causal", "full", "full_causal", "tiny"))
    config = ConfigDict()
    causal = mode.endswith("causal")
    config.data = {"name": "pixels", "levels": 5, "shrink": 1 if mode.startswith("full") else 2, "test_size": 250}
    config.model = {"name": "hybrid_transformer", "objectives": ({"kind": "next" if causal else "diffusion"},), "draws": 16}
    config.model.transformer = {"width": 64, "layers": 2, "heads": 4, "position": "learned", "backend": "dense"}
    config.train = {"steps": 500, "batch_size": 32, "learning_rate": 2e-3, "warmup_steps": 80, "weight_decay": 0.0, "ema_decay": 0.99}
    config.checkpoint = {"every": 500}
    config.log = {"every": 100, "eval_every": 0, "pictures_every": 0}
    config.evaluate = {"scenes": 4, "batch_size": 50}
    if mode.startswith("full"):
        seen = f"per_layer({NEAR}, {NEAR}, {NEAR}, full())"
        config.data.places = True
        config.model.transformer.update({"layers": 4, "position": "rope2d", "backend": "blocked"})
        if causal:
            config.model.visibility = f"causal() & {seen}"
        else:
            config.model.objectives = ({"kind": "diffusion", "visibility": seen},)
        config.train.update({"steps": 20_000, "time_limit": 600.0, "annealing": "time", "batch_size": 8})
        config.evaluate.batch_size = 5
    if mode == "tiny":
        config.data.update({"standin": True, "size": 64, "test_size": 16, "shrink": 7})
        config.model.draws = 2
        config.model.transformer.update({"width": 16, "layers": 1, "heads": 2})
        few_steps(config)
    return config
