"""Interventional causal representation learning: latents behind a polynomial mixture, each once set to a constant (Ahuja et al. 2023).

    python -m experiments.train --config=configs/linear_latent/polynomial.py --workdir=runs/polynomial
    python -m experiments.evaluate --workdir=runs/polynomial
    python -m experiments.counterfactual --workdir=runs/polynomial --do=z2=1 --num=4

Equations (1, 2') of causal_gen/data/contexts.py, degree 2: 14 monomials of 4 latents behind 20 mixtures without noise, 10,000 rows in each
of 5 contexts. An autoencoder with a polynomial decoder finds a code that is an affine image of the latents; the direction of it that
stands still in a context is the latent that was set there (causal_gen/scm/disentangle.py, eqs. 4 and 5). Its encoder is linear: where the
monomials are told by x at all, each is a linear function of it.

Measured, seeds 0 to 99 of the data (equations and rows): MCC above .9999 in all, each latent that of its own context and the graph without
a wrong edge in all, weights off by .015 on average (largest entry, in standard deviations), x by 4e-5 of its size at most; .2 s a fit.
`affine`, the code as it is: MCC .716 on average (.566 to .860), no graph right. Degree 3 (--config.data.degree=3 --config.model.degree=3
--config.data.width=40), seeds 0 to 9: MCC above .9999, graphs right in all. Interventions that leave noise are refused, as their latents do
not stand still; independent supports, the paper's other penalty, are not built.

Modes: `affine` (the baseline, without a use of the interventions) and `tiny` (CI).
"""

from ml_collections import ConfigDict

from configs.common import check_mode
from configs.linear_latent import interventions


def get_config(mode: str = "") -> ConfigDict:
    check_mode(mode, ("affine", "tiny"))
    config = interventions.get_config("tiny" if mode == "tiny" else "")
    config.data.update({"change": "hard", "degree": 2, "width": 20})
    config.model.update({"told_by": "nothing" if mode == "affine" else "constants", "degree": 2})
    if mode == "tiny":
        config.data.update({"latents": 2, "width": 6})
        config.model.latents = 2
    else:
        config.data.update({"size": 50_000, "test_size": 10_000})
        config.evaluate.scenes = 2_000
    return config
