"""CausalDiffAE as its authors released it (Akomand/CausalDiffAE), on the same scenes and the same network as pendulum.py.

    python -m experiments.train --config=configs/diffusion_ae/pendulum_as_released.py --workdir=runs/pendulum_as_released

For comparison: mechanisms read the parents' u, roots pass through one too, the posterior's variance is nearly fixed, divergences
are summed, the encoder normalises over the batch, z is masked half the time by zeros, x_T is drawn anew, and raw weights are used.

Measured, seed 0, mode `demo` to its end (5,000 steps), 64 unseen scenes, 25 DDIM steps: composition .259 where pendulum.py has .003,
counterfactual pixel error .279 and .277 under do(angle) and do(light) where copying the factual picture has .045 and .038; the predicted
shadow length is off by 1.89 and 2.15 units, as far as copying it. A drawn x_T holds nothing of the scene, and z too little of it.
"""

from ml_collections import ConfigDict

from configs.common import check_mode
from configs.diffusion_ae import pendulum


def get_config(mode: str = "") -> ConfigDict:
    check_mode(mode, ("demo", "tiny"))
    config = pendulum.get_config(mode)
    config.model.update(
        {
            "through": "u",
            "net_for_roots": True,
            "noise_scale": "unit",
            "root_prior": "unit",
            "label_scale": 1.0,
            "fixed_variance": 0.001,
            "kl_reduction": "sum",
            "kl_kept_only": True,
            "drop": 0.5,
            "label_forcing": 0.0,
            "null": "zero",
            "process": {"prediction": "eps"},
            "unet": {**config.model.unet.to_dict(), "canvas": 0, "modulate": True},
            # the released weight rises to 1 over 50,000 steps
            "weights": {"gamma": 1.0, "gamma_warmup": 50_000, "mechanism": 0.0, "footprint": 0.0},
        }
    )
    config.model.encoder = {**config.model.get("encoder", ConfigDict()).to_dict(), "norm": "batch"}
    config.sampling.encode = "renoise"
    config.train.ema_decay = None
    return config
