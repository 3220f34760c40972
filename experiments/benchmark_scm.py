"""Speed of counterfactuals of rows: what `benchmark --suite=dcm` times.

A diffusion for each of the three nodes of the triangle (configs/structural/triangle.py:dcm), whose noise is abducted from complete rows by
inversion with refining sweeps and decoded under do(x1), as `cg.counterfactual` does it. The networks are as they start: how long an answer
takes does not depend on what they learned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

ROWS = 1_000
STEPS, REFINE = 14, 2  # what the comparison in SYSTEMS.md is made with


def dcm(batch: int, dtype: str) -> tuple[Callable[[], Any], dict[str, Any]]:
    """`batch` counterfactuals a step."""
    import jax
    import numpy as np

    import causal_gen as cg
    from experiments import cli

    if dtype != "float32":
        raise cli.UsageError("--suite=dcm is in float32, as structural models are; leave out --dtype")
    overrides = {"data.size": batch, "data.test_size": batch, "sampling.steps": STEPS, "sampling.refine": REFINE}
    experiment = cg.build(cg.load_config("configs/structural/triangle.py:dcm", overrides))
    model, key = experiment.model, jax.random.key(0)
    params = jax.jit(model.init)(key)
    rows = jax.device_put(experiment.data.gather("test", np.arange(batch)))

    def step() -> Any:
        return jax.device_get(cg.counterfactual(model, params, key, rows, cg.do(x1=-1.0)))

    kernels = [leaf.size for leaf in jax.tree.leaves(params) if leaf.ndim == 2]
    calls = STEPS * (1 + REFINE) + STEPS  # up with its sweeps, and down
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    return step, {"unit": "counterfactual", "units": batch, "flops": 2 * sum(kernels) * batch * calls, "params": count}
