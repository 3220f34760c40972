"""Abduct, act, predict: the only definition of a counterfactual in the house, and of a sample.

    counterfactual(x, do) = predict(abduct(x), do)                                        Pearl, Causality, sec. 7.1

What comes out is a counterfactual of the fitted model: it rests on the graph, and on the choice of noise that the family makes.
"""

from __future__ import annotations

import functools
from typing import Any

import jax

from causal_gen.scm.intervention import Acts, Intervention, acts_on
from causal_gen.types import Batch, Key, Noise, Params, UserError


@functools.partial(jax.jit, static_argnums=0)
def _abduct(model: Any, params: Params, key: Key, evidence: Batch) -> Noise:
    return model.abduct(params, key, evidence)


@functools.partial(jax.jit, static_argnums=0)
def _predict(model: Any, params: Params, noise: Noise, context: Batch | None, acts: Acts) -> dict[str, Any]:
    return model.predict(params, noise, context, acts)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _noise(model: Any, key: Key, num: int, context: Batch | None) -> Noise:
    return model.noise(key, num, context)


def _context(model: Any, batch: Batch | None) -> Batch | None:
    if not model.context:
        return None
    given = {} if batch is None else batch
    missing = [name for name in model.context if name not in given and name not in getattr(model, "optional", ())]
    if missing:
        raise UserError(f"context: entry {missing[0]!r} is missing; this model conditions on {', '.join(model.context)}")
    return {name: given[name] for name in model.context if name in given}


def abduct(model: Any, params: Params, key: Key, evidence: Batch) -> Noise:
    """The noise behind `evidence`, a batch that holds at least `model.needs`. Raises `UserError` naming a missing need.

    Models that can find evidence out of range, or impossible as they sample, say so by `check_evidence` and `check_noise`.
    """
    missing = [name for name in model.needs if name not in evidence]
    if missing:
        raise UserError(f"evidence: entry {missing[0]!r} is missing; abduction needs {', '.join(model.needs)}")
    seen = {name: evidence[name] for name in (*model.needs, *model.context) if name in evidence}
    if hasattr(model, "check_evidence"):
        model.check_evidence(seen)
    noise = _abduct(model, params, key, seen)
    if hasattr(model, "check_noise"):
        model.check_noise(seen, noise)
    return noise


def predict(
    model: Any, params: Params, noise: Noise, context: Batch | None = None, do: Intervention | Acts | None = None
) -> dict[str, Any]:
    """The batch that `noise` gives under `do`; another value of an intervention is not another compilation.

    Models of nodes that cannot take every number say so by `check_acts`.
    """
    num = jax.tree.leaves(noise)[0].shape[0]
    acts = acts_on(model, do, num)
    if hasattr(model, "check_acts"):
        model.check_acts(acts)
    return _predict(model, params, noise, _context(model, context), acts)


def counterfactual(model: Any, params: Params, key: Key, evidence: Batch, do: Intervention | None = None) -> dict[str, Any]:
    """What `evidence` would have been under `do`: abduct, act, predict. Entries have the batch axis first, factors in physical units."""
    return predict(model, params, abduct(model, params, key, evidence), evidence, do)


def sample(model: Any, params: Params, key: Key, num: int, context: Batch | None = None, do: Intervention | None = None) -> dict[str, Any]:
    """`num` fresh draws, under `do` if given: predict(noise)."""
    return predict(model, params, _noise(model, key, num, _context(model, context)), context, do)
