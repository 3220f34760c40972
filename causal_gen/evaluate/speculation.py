"""How many calls of the target a speculative pair saves, and that it writes the target's own text.

For test rows, each cut after a quarter, the pair goes on for as many tokens as the row has left:

    acceptance = candidates accepted on the way down / levels drawn                                  (Lu et al. 2024)          (1)
    per call   = tokens drawn / calls of the target,   1 for plain decoding, depth + 1 at most                                (2)
    same       = share of tokens of the greedy text that are those of the target's own greedy text      must be 1              (3)

(1) and (2) for the config's tree, for the same tree cut where its best path falls below each of LEAST, by the draft's probabilities ("cut")
and by its decision head ("decided"), for a chain as deep, for trees of one level with 1 to 4 candidates, and, where noise is given, for
`predict`.
Letters: b batch, t position.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from causal_gen.models import decoding
from causal_gen.sampling.speculative import Speculation, Tree
from causal_gen.sampling.truncation import DecodingConfig
from causal_gen.types import Int, Key, Params

CANDIDATES = (1, 2, 3, 4)
LEAST = (0.2, 0.4, 0.6, 0.8)


def measure(model: Any, params: Params, key: Key, source: Any, indices: Int[np.ndarray, "n"], batch_size: int) -> dict[str, Any]:
    """(1) to (3) over the test rows at `indices`; empty where the model has no draft."""
    if not hasattr(model, "draft"):
        return {}
    rows = source.gather("test", indices[:batch_size])[model.target.config.tokens]
    prompt, steps = rows[:, : rows.shape[1] // 4], rows.shape[1] - rows.shape[1] // 4
    speak = functools.partial(decoding.speculate, model.target, params["target"], model.draft, params["draft"])
    out: dict[str, Any] = {"tree": list(model.tree.branches)}
    head = params.get("decision")
    trees = {"rates": (model.tree, head), "chain": (Tree((1,) * model.tree.depth), None)}
    for name, decision in {"cut": None, **({} if head is None else {"decided": head})}.items():
        trees |= {f"{name}_{least:g}": (dataclasses.replace(model.tree, least=least), decision) for least in LEAST}
    trees |= {f"candidates_{k}": (Tree((k,)), None) for k in CANDIDATES if k <= model.target.vocabulary}
    for name, (tree, decision) in trees.items():
        out[name] = rates(speak(key, prompt, steps=steps, tree=tree, sampling=model.sampling, decision=decision))
    out["given_noise"] = rates(_replayed(model, params, model.noise(key, len(rows))))
    greedy = DecodingConfig(top_k=1)
    ours = speak(key, prompt, steps=steps, tree=model.tree, sampling=greedy).tokens
    theirs = decoding.generate(model.target, params["target"], key, prompt, steps=steps, sampling=greedy).tokens
    return {**out, "same": float((ours == theirs).mean())}


def rates(found: Speculation) -> dict[str, float]:
    """(1) and (2), and the levels of candidates that a call looked at."""
    drawn, rounds, levels = (int(value.sum()) for value in (found.drawn, found.rounds, found.levels))
    return {"acceptance": (drawn - rounds) / levels, "per_call": drawn / rounds, "levels": levels / rounds}


@functools.partial(jax.jit, static_argnums=0)
def _replayed(model: Any, params: Params, noise: Any) -> Any:
    return model.speak(params, noise)
