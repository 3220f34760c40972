"""Who sees whom, and what is predicted: the grid of Wang et al. 2022 over one stack, each mode a cell of it.

    python -m experiments.train --config=configs/hybrid_transformer/grid.py:prefix_span --workdir=runs/prefix_span
    python -m experiments.evaluate --workdir=runs/prefix_span

Causal or prefix decoder, trained on whole rows (next tokens, or those after a prefix) or on denoising (spans at the end, which alone are
predicted). Without a mode: a causal decoder on whole rows. Modes: `causal_span`, `prefix`, `prefix_span`, `adapted` (a causal decoder on
whole rows first, then a prefix decoder on spans, on the same weights) and `tiny` (CI).

Measured, seed 0, 400 steps, nats a byte in the four cells (causal, causal_span, prefix, prefix_span; standard errors .012 to .019): without
a mode 2.360, 3.184, 2.292, 3.182; `adapted` 2.547, 2.813, 2.491, 2.796. Half of the steps on spans buy .39 nats there for .19 on rows.
"""

from configs.common import check_mode
from configs.hybrid_transformer import gpt_bert


def get_config(mode: str = ""):
    check_mode(mode, ("causal_span", "prefix", "prefix_span", "adapted", "tiny"))
    config = gpt_bert.get_config("tiny" if mode == "tiny" else "")
    short = {"shortest": 2, "longest": 3, "spans": 1} if mode == "tiny" else {"shortest": 2, "longest": 4, "spans": 2}
    cells = {
        "causal": {"kind": "next", "name": "causal"},
        "causal_span": {"kind": "span", "name": "causal_span", "rest": False, **short},
        "prefix": {"kind": "prefix", "low": 0.2, "high": 0.8},
        "prefix_span": {"kind": "span", "name": "prefix_span", "visibility": "causal() | prefix()", "rest": False, **short},
    }
    chosen = {"": ("causal",), "adapted": ("causal", "prefix_span"), "tiny": tuple(cells)}.get(mode, (mode,))
    # every cell is asked of every model; only those chosen are trained, and next tokens draw
    config.model.objectives = tuple({**cell, "share": float(name in chosen)} for name, cell in cells.items())
    config.model.mixer = {}
    if mode == "adapted":
        config.model.mixer = {"kind": "phases", "steps": (config.train.steps // 2,), "stages": ((1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))}
    return config
