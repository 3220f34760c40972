"""The evaluation of a linear structural model of latents against the equations that made the data.

Latents are matched one to one with the true ones by their correlations over the test rows of context 0; in units of their standard
deviation there, and but for their signs,

    mcc       mean |correlation| of the pairs                                                                    (1)
    order     whether of no true edge the effect was found before the cause                                       (2)
    wrong     pairs of latents between which an edge is missing, too many or reversed, edges being |A_0| > EDGE     (3)
    graph     whether that is none                                                                              (4)
    mixing    largest entry of H G - I, of G the columns of degree 1;   weights   that of A_0 - true A_0        (5)
    named     whether each latent is that of its own context, where contexts are interventions                      (6)

`residue` is the largest one of scm/disentangle.py: ranks that had to be one. `rest` is the root mean square of what the model leaves of x
over all test rows, as a share of that of x. Letters: b batch, d latents.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from causal_gen.evaluate.base import EvaluateConfig, recorded
from causal_gen.models.linear_latent import EDGE
from causal_gen.structure import polynomial
from causal_gen.types import Float


@recorded
def evaluate(run: Any, settings: EvaluateConfig, seed: int, progress: Callable[[str], Any]) -> dict[str, Any]:
    """Measure `run` on the first `settings.scenes` test rows of context 0; `seed` is taken as by every evaluation, nothing is drawn."""
    del seed
    params = {name: np.asarray(value, np.float64) for name, value in run.params.items()}
    rows = run.data.gather("test", np.arange(run.data.size("test")))
    x, inputs = np.asarray(rows[run.model.config.inputs], np.float64), rows[run.model.config.contexts] == 0
    centred = x - params["mean"]
    phi = np.stack(polynomial.monomials(centred @ params["unmixing"].T, run.model.config.degree), -1)
    rest = centred - params["intercept"] - phi @ params["mixing"].T
    out: dict[str, Any] = {"step": int(run.step), "rest": float(np.sqrt((rest**2).mean() / (centred**2).mean()))}
    out["residue"] = float(params["residue"].max())
    chosen = np.flatnonzero(inputs)[: settings.scenes]
    found = compared(params, run.data.equations, centred[chosen] @ params["unmixing"].T, run.data.latents("test", chosen))
    if run.model.config.told_by in ("domains", "nothing"):
        del found["named"]
    out["latents"] = found
    progress(f"evaluate: order {'right' if found['order'] else 'wrong'}, {found['wrong']} wrong edges, MCC {found['mcc']:.4f}")
    return out


def compared(params: Any, truth: Any, found: Float[np.ndarray, "b d"], hidden: Float[np.ndarray, "b d"]) -> dict[str, Any]:
    """(1-6) for latents `found` and the true ones, `hidden`, of the same rows."""
    d = found.shape[1]
    correlation = np.corrcoef(found.T, hidden.T)[:d, d:]
    true_of = linear_sum_assignment(-np.abs(correlation))[1]  # of each latent found
    signs = np.sign(correlation[np.arange(d), true_of])
    spread = np.sqrt(np.diag(truth.covariance(0)))
    weights = (truth.weights[0] * spread[None] / spread[:, None])[np.ix_(true_of, true_of)]
    edges, told = weights != 0, signs[:, None] * params["weights"][0] * signs[None]
    wrong = (np.abs(told) > EDGE) != edges
    place = params["place"]
    product = (params["unmixing"] @ truth.mixing[:, :d] * spread)[:, true_of] * signs[:, None]
    return {
        "mcc": float(np.abs(correlation[np.arange(d), true_of]).mean()),
        "order": bool(all(place[effect] > place[cause] for effect, cause in np.argwhere(edges))),
        "wrong": int(np.triu(wrong | wrong.T).sum()),
        "graph": not wrong.any(),
        "mixing": float(np.abs(product - np.eye(d)).max()),
        "weights": float(np.abs(told - weights).max()),
        "named": bool((true_of == np.arange(d)).all()),
    }
