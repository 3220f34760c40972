"""CausalDiffAE on real digits: stroke thickness causes intensity (Morpho-MNIST, equations of Pawlowski et al. 2020).

    python -m experiments.train --config=configs/diffusion_ae/morphomnist.py --workdir=runs/morphomnist --config.data.root=FOLDER
    python -m experiments.evaluate --workdir=runs/morphomnist

FOLDER holds MNIST's idx files (or CAUSAL_GEN_DATA does); without, they are fetched. `tiny` runs on rasterised stand-ins.
"""

from ml_collections import ConfigDict

from configs.common import check_mode, make_tiny


def get_config(mode: str = "") -> ConfigDict:
    check_mode(mode, ("tiny",))
    config = ConfigDict()
    config.data = {"name": "morphomnist", "size": 60_000, "test_size": 10_000}
    config.model = {
        "name": "diffusion_ae",
        "graph": (("thickness", "intensity"),),
        "pad": 2,
        # the noise of intensity acts before a sigmoid: on the logit of its support it is additive
        "scaling": (("intensity", "logit"),),
        "unet": {"channels": 64, "multipliers": (1, 1), "patch": 2},
    }
    config.sampling = {"steps": 60}
    config.train = {
        "steps": 6_000,
        "batch_size": 32,
        "learning_rate": 1e-3,
        "warmup_steps": 200,
        "weight_decay": 1e-4,
        "time_limit": 1_200.0,
    }
    config.checkpoint = {"every": 1_000}
    config.log = {"every": 50, "eval_every": 1_000, "pictures_every": 3_000}
    config.evaluate = {"scenes": 1_000, "cycles": 10, "cycle_scenes": 100, "steps": 60}
    if mode == "tiny":
        make_tiny(config)
        config.data.standin = True
    return config
