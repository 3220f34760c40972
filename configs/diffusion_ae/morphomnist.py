"""CausalDiffAE on real digits: stroke thickness causes intensity (Morpho-MNIST, equations of Pawlowski et al. 2020).

    python -m experiments.train --config=configs/diffusion_ae/morphomnist.py --workdir=runs/morphomnist --config.data.root=FOLDER
    python -m experiments.evaluate --workdir=runs/morphomnist

Measured, seed 0: 11,000 steps of 128, of which 8 go through the decoder, without the limit of 20 minutes, beside 10 to 30 other
processes (at best 142 ms a step, some 8,400 of which fit into the limit; after 4,554 of these steps 96 digits gave pixels 3.24,
thickness .114 and composition .87); 1,000 test digits, 60 DDIM steps, marginal values; 28x28 grey levels (0..255) against the exact
counterfactual:

    pixel error                     do(thickness) 2.80, do(intensity) 1.91   (goals 4.0, 2.5; copying 12.16, 6.94)
    thickness after do(thickness)   off by .086 pixel (goal .15); intensity moved to its counterfactual within 5.31 levels (goal 8)
    intensity after do(intensity)   off by 3.28 grey levels (goal 6); the thickness moves by .051 pixel more than the instrument's floor
    composition, 1 and 10 cycles    .74, 1.52 (10 cycles: 100 digits; goals 1.0, 8)
    digit still read                98.1% after do(thickness), 98.3% after do(intensity) (true pictures 98.5%, 98.4%)
    mean intensity                  88.61, 159.53, 230.36 under do(thickness = 1.5, 2.5, 3.5) (exact 88.64, 159.51, 230.36)

Without the sketch, 15,000 steps of 8 left the pixels at 4.06 and the thickness off by .167: x_T remembered the strokes as they were.
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
        "process": {"schedule": "cosine", "prediction": "edm", "data_std": 0.5},
        "weights": {"mechanism": 1.0},
        "drop": 0.0,
        # sketches are cheap and want many examples, the decoder is neither: 8 of 128
        "sketched": True,
        "sketch": {"latents": (32,), "widths": (768, 768), "level": "intensity", "effectiveness": 100.0},
        "decoded": 16,
    }
    # one refining sweep makes the inversion nearly exact, at twice its cost; evenly spaced steps leave large changes 5% worse
    config.sampling = {"steps": 60, "refine": 1, "spacing": 0.8}
    config.train = {"steps": 11_000, "batch_size": 128, "learning_rate": 1.5e-3, "warmup_steps": 200, "weight_decay": 1e-4}
    config.train.update({"time_limit": 1_200.0, "annealing": "time"})
    config.checkpoint = {"every": 1_000}
    config.log = {"every": 100, "eval_every": 2_000, "eval_batches": 16, "pictures_every": 4_000}
    config.evaluate = {"scenes": 1_000, "cycles": 10, "cycle_scenes": 100, "steps": 60}
    if mode == "tiny":
        make_tiny(config)
        config.data.standin = True
        config.model.decoded = 2
        config.model.sketch.update({"latents": (4,), "widths": (16,)})
    return config
