"""The evaluation of a labeller: what it knows of held-out labels, and the axioms of its counterfactuals.

For test rows with inputs x and labels y, told logits l:

    accuracy = share of scored labels with argmax l = y;   nats_per_label = mean of -log p(y | x), with the error of likelihood.py     (1)
    f1       = 2 |found & true| / (|found| + |true|), over labels that are not 0, where every input has one: 0 is outside           (2)
    null     = share of labels with predict(u) = y,  u = abduct(x, y)                         must be 1                             (3)
    takes    = share of rows with y*_i = v,   y* = predict(u, do(y_i = v))                    must be 1                             (4)
    others   = share of labels j != i with y*_j != y_j                                        must be 0                             (5)

(5) since labels do not depend on one another given the inputs. The noise of all entries is held against its law as in sequences.py.

Source: composition and effectiveness, Galles & Pearl 1998, for labels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.evaluate import likelihood
from causal_gen.evaluate.base import EvaluateConfig, recorded
from causal_gen.evaluate.sequences import noise_law
from causal_gen.parallel.mesh import fetch, spread
from causal_gen.scm import counterfactual as asking
from causal_gen.scm.intervention import do
from causal_gen.types import Array, Int, Key, Params


@recorded
def evaluate(run: Any, settings: EvaluateConfig, seed: int, progress: Callable[[str], Any]) -> dict[str, Any]:
    """Measure `run`: (1, 2) on all test rows, the rest on `settings.scenes` of them."""
    source, size = run.data, run.data.size("test")
    out: dict[str, Any] = {"step": int(run.step), "scenes": min(settings.scenes, size), "seed": seed}
    out |= known(run.model, run.params, source, settings.batch_size)
    out |= {name: value for name, value in run.config["data"]["stats"].get(run.model.labels, {}).items() if name.startswith("best")}
    progress("evaluate: " + ", ".join(f"{name} {out[name]:.4f}" for name in ("accuracy", "f1") if name in out))
    rows = np.sort(np.random.default_rng(seed).permutation(size)[: settings.scenes])
    out |= axioms(run, rows, jax.random.key(seed), seed)
    progress(f"evaluate: null {out['null']:.6f}, do takes {out['takes']:.6f}, others moved {out['others']}")
    return out


@functools.partial(jax.jit, static_argnums=0)
def _asked(model: Any, params: Params, batch: Mapping[str, Array]) -> tuple[Array, Array]:
    logits = model.conditionals(params, batch)[model.labels].logits
    return jnp.argmax(logits, -1), model.log_prob(params, jax.random.key(0), batch)


def known(model: Any, params: Params, source: Any, batch_size: int) -> dict[str, Any]:
    """(1) and (2) over all test rows."""
    size, found, nats = source.size("test"), [], []
    width = min(batch_size, size)
    for start in range(0, size, width):
        rows = np.minimum(np.arange(start, start + width), size - 1)  # the last row repeats as padding
        guess, log_p = fetch(_asked(model, params, spread(dict(source.gather("test", rows)))))
        found.append(guess)
        nats.append(-np.asarray(log_p, np.float64))
    batch = source.gather("test", np.arange(size))
    labels, guess, losses = batch[model.labels], np.concatenate(found)[:size], np.concatenate(nats)[:size]
    counted = np.asarray(batch.get("loss_mask", np.ones(labels.shape)), bool) if model.each else np.ones(labels.shape, bool)
    value, error = likelihood.rate(losses, counted.reshape(size, -1).sum(1).astype(np.float64))
    hit = (guess == labels) & counted
    out: dict[str, Any] = {"labels": int(counted.sum()), "accuracy": float(hit.sum() / counted.sum())}
    out["nats_per_label"] = {"value": value, "se": error}
    if model.each:
        marked = (((guess != 0) & counted).sum() + ((labels != 0) & counted).sum()) / 2
        out["f1"] = float((hit & (labels != 0)).sum() / marked) if marked else math.nan
    return out


def axioms(run: Any, rows: Int[np.ndarray, "n"], key: Key, seed: int) -> dict[str, Any]:
    """(3) to (5) for the test rows `rows` under one intervention, and the law of their noise."""
    model, batch, rng = run.model, run.data.gather("test", rows), np.random.default_rng(seed)
    labels, name, batch = batch[model.labels], model.labels, spread(dict(batch))
    place, value = int(rng.integers(labels.shape[-1])) if model.each else None, int(rng.integers(model.vocabulary))
    noise = asking.abduct(model, run.params, key, batch)
    back = fetch(asking.predict(model, run.params, noise, batch)[name])
    act = do(**{name: value if place is None else {place: value}})
    answer = fetch(asking.predict(model, run.params, noise, batch, act)[name])
    own = np.ones(labels.shape, bool) if place is None else np.broadcast_to(np.arange(labels.shape[-1]) == place, labels.shape)
    return {
        "null": float((back == labels).mean()),
        "takes": float((answer[own] == value).mean()),
        "others": float((answer != labels)[~own].mean()) if (~own).any() else None,
        "do": f"{name}={value}" if place is None else f"{name}[{place}]={value}",
        "noise": noise_law({"tokens": fetch(noise[name])}),
    }
