"""Which of a few statements a model finds likeliest: minimal pairs of grammar, and probing of facts, for models of any visibility.

For items of k statements x_1 .. x_k of which one is true (grammatical), with scores s_j of the model:

    s = log p(x), exact or a bound as the model has it;  or sum_i log p(x_i | all other tokens), of a model trained by masks         (1)
    accuracy = share of items whose true statement has the highest score; m statements that share it count 1 / m                      (2)
    rank     = mean over items of 1 + (statements that score higher) + (others that score the same) / 2                               (3)

Where the model is drawn with a window of w masks (sampling/unmask_config.py), pseudo-likelihood hides the w - 1 tokens after the scored
one too: s = sum_i log p(x_i | x_<i, x_>=i+w). Else the pieces of a word tell each other, whatever the word: long ones look likely.

Only tokens with mask 1 count in (1). (2) of one who knows nothing is 1 / k. The average is over groups (phenomena, relations), each of one
weight, as both sources do.

Sources: pairs: Warstadt et al., BLiMP, TACL 2020, as BabyLM scores them (Hu et al. 2024); several statements: Wiland et al., BEAR,
2024, and Ploner et al., LM-PUB-QUIZ, 2024; the second of (1): Salazar et al., Masked language model scoring, ACL 2020; with a window:
Samuel, BERTs are generative in-context learners, NeurIPS 2024, sec. 3.
Letters: n items, k statements, t places.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.data import statements
from causal_gen.data.statements import Statements
from causal_gen.evaluate.base import EvaluateConfig
from causal_gen.losses import categorical
from causal_gen.models.hybrid_transformer_config import FILLED
from causal_gen.models.objectives import Query
from causal_gen.parallel.mesh import fetch, spread
from causal_gen.types import ConfigError, Float, Int, Key, Params


def measure(model: Any, params: Params, key: Key, source: Any, settings: EvaluateConfig) -> dict[str, Any]:
    """(2) and (3) by group, of the source's own statements or those of the file `settings.statements`; empty where there are none.

    Raises `ConfigError` for a model that cannot score them, `DataError` for a file that holds none.
    """
    sets = _sets(source, settings.statements)
    if not sets:
        return {}
    scorer = scorer_of(model, settings.scoring)
    groups = {}
    for number, (name, items) in enumerate(sets.items()):
        found = scores(scorer, model, params, jax.random.fold_in(key, number), items, settings.batch_size)
        groups[name] = {**judged(found, items.truth), "chance": 1 / found.shape[1], "items": len(found)}
    mean = {name: float(np.mean([group[name] for group in groups.values()])) for name in ("accuracy", "rank", "chance")}
    return {"scoring": settings.scoring, **mean, "groups": groups}


def _sets(source: Any, file: str | None) -> Mapping[str, Statements]:
    if file is None:
        return source.statements() if hasattr(source, "statements") else {}
    tokenizer = getattr(source, "tokenizer", None)
    if tokenizer is None:
        raise ConfigError(f"evaluate.statements: {source.name} has no tokenizer to read {file} with; leave it at none")
    return statements.read(Path(file), tokenizer, source.entries["tokens"].shape[0])


@functools.partial(jax.jit, static_argnums=0)
def _likelihood(model: Any, params: Params, key: Key, batch: Mapping[str, Any]) -> Any:
    return model.log_prob(params, key, batch)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _pseudo(objective: str, model: Any, params: Params, key: Key, batch: Mapping[str, Any]) -> Any:
    return model.log_prob(params, key, batch, query=Query(objective=objective, how="pseudo"))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _windowed(objective: str, window: int, model: Any, params: Params, key: Key, batch: Mapping[str, Any]) -> Any:
    """The pseudo-likelihood under a window; of one place it is the plain one."""
    del key
    tokens, counts = batch["tokens"], batch["loss_mask"]
    place = jnp.arange(tokens.shape[1])[None]

    def step(total: Any, i: Any) -> tuple[Any, None]:
        hidden = (place >= i) & (place < i + window) & (counts > 0)
        logits = model.conditionals(params, batch, Query(objective=objective, mask=hidden))["tokens"].logits
        return total + jnp.where(place == i, counts * -categorical.nll(logits, tokens), 0).sum(-1), None

    return jax.lax.scan(step, jnp.zeros(tokens.shape[:1]), place[0])[0]


def scorer_of(model: Any, scoring: str) -> Any:
    """(1) as a function (model, params, key, batch) -> [b]. Raises `ConfigError` where the model has no such score."""
    given = [name for name in model.context if name not in getattr(model, "optional", ())]
    if given:
        raise ConfigError(f"evaluate: the model is conditioned on {given[0]!r}, which statements do not say; they cannot be ranked")
    if scoring == "pseudo":
        kinds = getattr(model.config, "objectives", ()) if hasattr(model, "config") else ()
        masked = next((kind.called for kind in kinds if kind.kind in FILLED), None)
        if masked is None:
            raise ConfigError(f"evaluate.scoring: pseudo needs a model that is trained by masks, this {type(model).__name__} is not")
        window = getattr(getattr(model, "sampling", None), "window", 0)
        return functools.partial(_windowed, masked, window) if window else functools.partial(_pseudo, masked)
    if model.log_prob is None or model.likelihood is None:
        raise ConfigError(f"evaluate.scoring: {type(model).__name__} has no likelihood; set it to pseudo")
    return _likelihood


def scores(scorer: Any, model: Any, params: Params, key: Key, items: Statements, batch_size: int) -> Float[np.ndarray, "n k"]:
    """(1) of every statement."""
    n, k, t = items.tokens.shape
    tokens, mask = items.tokens.reshape(n * k, t), items.mask.reshape(n * k, t)
    return scored(scorer, model, params, key, tokens, mask, batch_size).reshape(n, k)


def scored(
    scorer: Any, model: Any, params: Params, key: Key, tokens: Int[np.ndarray, "n t"], mask: Float[np.ndarray, "n t"], batch_size: int
) -> Float[np.ndarray, "n"]:
    """`scorer` of n rows, `batch_size` at a time, the last batch padded with its last row."""
    num, found = len(tokens), []
    size = min(batch_size, num)
    for start in range(0, num, size):
        rows = np.minimum(np.arange(start, start + size), num - 1)
        batch = spread({"tokens": tokens[rows], "loss_mask": mask[rows]})
        found.append(np.asarray(fetch(scorer(model, params, jax.random.fold_in(key, start), batch)), np.float64))
    return np.concatenate(found)[:num]


def likelihoods(model: Any, params: Params, key: Key, tokens: Int[np.ndarray, "n t"], batch_size: int) -> Float[np.ndarray, "n"]:
    """log p of n rows, every token of which counts."""
    mask = np.ones(tokens.shape, np.float32)
    return scored(scorer_of(model, "likelihood"), model, params, key, tokens, mask, batch_size)


def judged(found: Float[np.ndarray, "n k"], truth: Int[np.ndarray, "n"]) -> dict[str, float]:
    """(2) with its standard error, and (3)."""
    own = found[np.arange(len(found)), truth][:, None]
    above, same = (found > own).sum(1), (found == own).sum(1)
    right = np.where(above == 0, 1 / same, 0.0)
    error = right.std(ddof=1) / math.sqrt(len(right)) if len(right) > 1 else math.nan
    return {"accuracy": float(right.mean()), "se": float(error), "rank": float((1 + above + (same - 1) / 2).mean())}
