"""CausalDiffAE on pendulum scenes: angle and light cause the length and position of a shadow (Akomand et al. 2024).

    python -m experiments.train --config=configs/diffusion_ae/pendulum.py --workdir=runs/pendulum
    python -m experiments.evaluate --workdir=runs/pendulum

Modes: `demo` (what `make demo` runs), `short` (a third of the demo's steps, batches of 32 of which 8 pass the decoder), and beside it
with equal steps `tenth` (labels on a tenth of the rows) and `independent` (the same network without edges); `tiny` (CI).

Measured, seed 0, on 2 CPU cores that ran other work beside it. Demo: 64 unseen scenes, 25 DDIM steps, after the 4,284 of 5,000 steps that
its limit of 470 s left room for, the rate brought to its end by then. Full: 512 scenes, 50 DDIM steps, 22,000 steps in 42 minutes.

                                    demo: do(angle), do(light)    full: do(angle), do(light)
    counterfactual pixel error      .0046, .0043                  .0020, .0019     (copying .0446, .0382; not propagating .0078, .0123)
    error in the shadow strip       .0090, .0090                  .0036, .0037  (not propagating .0836, .1306)
    predicted shadow length         .170, .171 simulator units    .018, .018
    predicted shadow position       .029, .030                    .006, .010
    composition                     .0033, 3 cycles .0051         .0016, 10 cycles .0056
    do(shadow_length), elsewhere    .0036 of change outside the strip, of which .0014 by the intervention; a null intervention .0031
                                    full: .0018, of which .0005; a null intervention .0016

1,700 steps each, 64 scenes, 25 DDIM steps, seed 0; pixel error of do(angle), do(light), in the strip, and composition:

    short          .0065, .0059    .0108, .0105    .0042
    tenth          .0113, .0101    .0172, .0169    .0075     1.74 and 1.72 times the error of all labels (goal 1.25: missed in so few steps)
    independent    .0141, .0185    .0847, .1369    .0051     the shadow stays where it was: 7.8 and 13 times the error in the strip
"""

from ml_collections import ConfigDict

from configs.common import check_mode, make_tiny

PARENTS = ("angle", "light")
CHILDREN = ("shadow_length", "shadow_position")


def get_config(mode: str = "") -> ConfigDict:
    check_mode(mode, ("demo", "short", "tenth", "independent", "tiny"))
    config = ConfigDict()
    config.data = {"name": "pendulum", "size": 40_000, "test_size": 2_000, "image_size": 32}
    config.model = {
        "name": "diffusion_ae",
        "graph": tuple((parent, child) for parent in PARENTS for child in CHILDREN),
        # the scene is a function of the factors: each draws its own map, and what is left to the network at high noise is small
        "unet": {"channels": 64, "multipliers": (1, 1), "patch": 2, "canvas": 32, "modulate": False},
        "process": {"prediction": "edm", "data_std": 0.25},
        # what the decoder sees of a factor is sharp: noise of label_scale / 2 on unit scale is a few hundredths of a pixel
        "label_scale": 0.01,
        # the length bends sharply at its floor of 3: two layers of 64 are off by .11 after 22,000 steps of labels alone, these by .015
        "mechanism_widths": (128, 128, 128),
        "weights": {"gamma": 0.002, "mechanism": 1.0, "footprint": 0.06},
        "drop": 0.0,
    }
    config.sampling = {"steps": 50}
    # small batches: a step is cheap, and there are more of them in the same time
    config.train = {"steps": 22_000, "batch_size": 8, "learning_rate": 1.5e-3, "warmup_steps": 200, "weight_decay": 1e-4}
    config.train.update({"time_limit": 1_800.0, "annealing": "time"})
    config.checkpoint = {"every": 2_000}
    config.log = {"every": 100, "eval_every": 2_000, "eval_batches": 16, "pictures_every": 5_000}
    config.evaluate = {"scenes": 512, "cycles": 10, "cycle_scenes": 512, "steps": 50}
    if mode in ("demo", "short", "tenth", "independent"):
        config.data.size = 20_000
        config.sampling.steps = 25
        config.train.update({"steps": 5_000, "time_limit": 470.0})
        config.checkpoint.every = 1_000
        config.log.update({"eval_every": 1_000, "pictures_every": 2_500})
        config.evaluate.update({"scenes": 64, "cycles": 3, "cycle_scenes": 64, "steps": 25, "disentangle_images": 1_000})
    if mode in ("short", "tenth", "independent"):
        # an encoder's step costs little beside a decoder's: more rows through it, so that each step has some that are labelled
        config.model.decoded = 4
        config.train.update({"steps": 1_700, "batch_size": 32, "time_limit": None, "annealing": "steps"})
        config.checkpoint.every = 1_700
        config.log.update({"eval_every": 850, "pictures_every": 0})
    if mode == "tenth":
        config.data.label_fraction = 0.1
        # what labelled rows say weighs as much as where every row is one, and the decoder is shown their own factors
        config.model.weights.label = 10.0
        config.model.label_forcing = 1.0
    if mode == "independent":
        config.model.update({"graph": (), "nodes": PARENTS + CHILDREN})
    if mode == "tiny":
        make_tiny(config)
    return config
