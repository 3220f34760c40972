"""Linear causal disentanglement: four latents behind eight mixtures, one perfect intervention on each (Squires et al. 2023).

    python -m experiments.train --config=configs/linear_latent/interventions.py --workdir=runs/latents
    python -m experiments.evaluate --workdir=runs/latents
    python -m experiments.counterfactual --workdir=runs/latents --do=z2=1 --num=4

Equations (1, 2) of causal_gen/data/contexts.py, 100,000 rows over five contexts. Nothing is left to train: the parameters are there before
the only step. Ranks are told on x of unit covariance (causal_gen/scm/disentangle.py), which decides on how many rows it takes.

Measured, seeds 0 to 99 of the data (equations and rows): the graph without a wrong edge in 96, each latent that of its own context in all,
MCC .9986 on average and .964 at worst, largest error of H G .067 and of a weight .047 on average, in standard deviations. With 100,000 rows
in every context (--config.data.size=500000): 100 of 100, MCC at worst .9992, errors .030 and .021. `plain`, ranks on x as it is: 39, MCC
.904 (with five times the rows 68, .951). On exact covariances both are exact, 1e-6 (tests/scm/test_disentangle.py).

Modes: `plain` (the baseline) and `tiny` (CI).
"""

from ml_collections import ConfigDict

from configs.common import check_mode, few_steps


def get_config(mode: str = "") -> ConfigDict:
    check_mode(mode, ("plain", "tiny"))
    config = ConfigDict()
    config.data = {"name": "contexts", "latents": 4, "width": 8, "size": 100_000, "test_size": 20_000}
    config.model = {"name": "linear_latent", "latents": 4, "whiten": mode != "plain"}
    config.train = {"steps": 1, "batch_size": 256, "ema_decay": None}
    config.checkpoint = {"every": 1}
    config.log = {"every": 1, "eval_every": 0, "pictures_every": 0}
    config.evaluate = {"scenes": 4_000}
    if mode == "tiny":
        config.data.update({"size": 500, "test_size": 50})
        few_steps(config)
    return config
