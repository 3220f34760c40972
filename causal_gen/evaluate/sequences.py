"""The evaluation of a model of tokens: held-out likelihood, and the axioms of its counterfactuals, position by position.

For test rows x with noise u = abduct(x), a place i drawn in the middle half of the row, and a value v that another row has there:

    null    = share of tokens with predict(u) = x                                            must be 1               (1)
    takes   = share of rows with x*_i = v,   x* = predict(u, do(x_i = v))                    must be 1               (2)
    before  = share of tokens k < i with x*_k != x_k                                         must be 0               (3)
    after   = share of tokens k > i with x*_k != x_k, over the rows with x_i != v            what the value does     (4)
    noise   : the Gumbel noise of all entries, pooled, against its law: mean .5772, sd 1.2825, Kolmogorov-Smirnov distance    (5)

(1) to (3) hold by construction where the fast and the slow path are one model; they are measured all the same. Composition,
effectiveness and reversibility of images are in axioms.py.

Source: composition and effectiveness, Galles & Pearl 1998, for tokens; (4) and (5) are this project's own.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.evaluate import eviction, extraction, laws, likelihood, probes, quality, ranking, recall, speculation, termination, texts
from causal_gen.evaluate.base import EvaluateConfig, recorded
from causal_gen.parallel.mesh import fetch, spread
from causal_gen.scm import counterfactual as asking
from causal_gen.scm.intervention import do
from causal_gen.types import Bool, Int, Key

POOLED = 50_000  # noise entries that (5) looks at
SHOWN = 288  # tokens of an example
DECODING = {
    "eviction": eviction,
    "extraction": extraction,
    "recall": recall,
    "speculation": speculation,
    "termination": termination,
}  # what decoding does beyond drawing; each is empty for a model that it is not about


@recorded
def evaluate(run: Any, settings: EvaluateConfig, seed: int, progress: Callable[[str], Any]) -> dict[str, Any]:
    """Measure `run`: the likelihood of all test rows, the rest on `settings.scenes` of them."""
    key, source, size = jax.random.key(seed), run.data, run.data.size("test")
    out: dict[str, Any] = {"step": int(run.step), "scenes": min(settings.scenes, size), "seed": seed}
    if run.model.likelihood is not None:
        out["heldout"] = likelihood.heldout(run.model, run.params, key, source, batch_size=settings.batch_size)
        progress("evaluate: " + summary(out["heldout"]))
    indices = np.sort(np.random.default_rng(seed).permutation(size)[: settings.scenes])
    out |= accuracy(run.model, run.params, source, indices, settings.batch_size)
    out |= beyond(run, key, settings)
    if probed := probes.measure(run.model, run.params, source, indices, settings.batch_size):
        out["probes"] = probed
    for name, part in DECODING.items():
        if told := part.measure(run.model, run.params, key, source, indices, settings.batch_size):
            out[name] = told
    found = [
        ask(run, indices[start : start + settings.batch_size], jax.random.fold_in(key, 1 + start), np.random.default_rng((seed, start)))
        for start in range(0, len(indices), settings.batch_size)
    ]
    weights = [len(part["rows"]) for part in found]
    for name in ("null", "takes", "before", "after"):
        shares = np.array([part[name] for part in found])
        known = np.isfinite(shares)
        out[name] = float(np.average(shares[known], weights=np.array(weights)[known])) if known.any() else None
    out["noise"] = noise_law(fetch(found[0]["noise"]))
    out["example"] = shown(source, found[0]["example"], found[0]["do"])
    progress(f"evaluate: null {out['null']:.6f}, do takes {out['takes']:.6f}, before it {out['before']:.6f} moved, after it {out['after']}")
    return out


def summary(found: Mapping[str, Any]) -> str:
    """The rates of `likelihood.heldout` in a line."""
    rates = (f"{name.replace('_', ' ')} {found[name]['value']:.4f} (se {found[name]['se']:.4f})" for name in found if "per" in name)
    return ", ".join(rates) + f" over {found['tokens']:,} held-out tokens"


@functools.partial(jax.jit, static_argnums=0)
def _hits(model: Any, params: Any, batch: Mapping[str, Any]) -> Any:
    right = jnp.argmax(model.conditionals(params, batch)["tokens"].logits, -1) == batch["tokens"]
    mask = batch.get("loss_mask", jnp.ones(right.shape))
    return (right * mask).sum(), mask.sum(), (right | (mask == 0)).all(1).sum()


def accuracy(model: Any, params: Any, source: Any, indices: Int[np.ndarray, "n"], batch_size: int) -> dict[str, float]:
    """`accuracy`, the share of the scored tokens that are the likeliest one as the model samples; `exact`, the share of the rows of which
    all scored tokens are: of a causal model, that a greedy continuation gets right from the first scored token on."""
    hits = total = rows = 0.0
    for start in range(0, len(indices), batch_size):
        batch = spread(dict(source.gather("test", indices[start : start + batch_size])))
        right, count, whole = _hits(model, params, batch)
        hits, total, rows = hits + float(right), total + float(count), rows + float(whole)
    return {"accuracy": hits / total if total else math.nan, "exact": rows / len(indices)}


def beyond(run: Any, key: Key, settings: EvaluateConfig) -> dict[str, Any]:
    """What the source allows to be measured beyond its rows: statements to be ranked, a law that samples have, pictures that they are."""
    common = (run.model, run.params, key, run.data)
    found = {
        "statements": ranking.measure(*common, settings),
        "law": laws.measure(*common, settings.draws, settings.batch_size),
        "quality": quality.measure(*common, settings.draws, settings.batch_size),
    }
    return {name: told for name, told in found.items() if told}


def ask(run: Any, indices: Int[np.ndarray, "n"], key: Key, rng: np.random.Generator) -> dict[str, Any]:
    """(1) to (4) for the test rows at `indices` under one intervention, with their noise."""
    held = run.data.gather("test", indices)
    tokens, batch = held["tokens"], spread(dict(held))
    place = int(rng.integers(tokens.shape[1] // 4, max(3 * tokens.shape[1] // 4, 1)))
    value = int(tokens[rng.integers(len(tokens)), place])
    noise = asking.abduct(run.model, run.params, key, batch)
    back = fetch(asking.predict(run.model, run.params, noise, batch)["tokens"])
    answer = fetch(asking.predict(run.model, run.params, noise, batch, do(tokens={place: value}))["tokens"])
    # a row that has the value already would show nothing
    row = int(np.argmax(tokens[:, place] != value))
    example = {"row": int(indices[row]), "place": place, "factual": tokens[row], "counterfactual": answer[row]}
    shares = {"null": float((back == tokens).mean()), **effects(tokens, answer, {place: value})}
    return {**shares, "rows": indices, "noise": noise, "do": f"tokens[{place}]={value}", "example": example}


def effects(
    tokens: Int[np.ndarray, "b t"], answer: Int[np.ndarray, "b t"], values: Mapping[int, int], own: Bool[np.ndarray, "b t"] | None = None
) -> dict[str, float]:
    """(2) to (4) of the answers to do(x_i = v for i, v in values), i the first of them; NaN where there is nothing to count.

    `own` says which tokens count, where rows were filled up.
    """
    places, wanted = np.array(list(values)), np.array(list(values.values()))
    own = np.ones(tokens.shape, bool) if own is None else own
    moved, other = answer != tokens, (tokens[:, places] != wanted).any(1)
    first, free = int(places.min()), own.copy()
    free[:, places] = False
    return {
        "takes": _share(answer[:, places] == wanted, own[:, places]),
        "before": _share(moved[:, :first], free[:, :first]),
        "after": _share(moved[other, first:], free[other, first:]),
    }


def _share(hits: np.ndarray, among: np.ndarray) -> float:
    return float(hits[among].mean()) if among.any() else math.nan


def noise_law(noise: Any) -> dict[str, float]:
    """(5) of the entry "tokens" of abducted noise."""
    from scipy import stats

    pooled = np.asarray(noise["tokens"], np.float64).reshape(-1)
    sample = np.random.default_rng(0).choice(pooled, min(len(pooled), POOLED), replace=False)
    ks = float(stats.kstest(sample, "gumbel_r").statistic)
    return {"mean": float(pooled.mean()), "std": float(pooled.std()), "ks": ks}


def shown(source: Any, example: Mapping[str, Any], asked: str) -> dict[str, Any]:
    """An answer beside its evidence, as text where the source has a tokenizer, else as numbers, from a little before what was set."""
    spelling = texts.Spelling(getattr(source, "tokenizer", None))
    start = max(0, example["place"] - SHOWN // 4)
    factual, answer = (example[name][start : start + SHOWN] for name in ("factual", "counterfactual"))
    forced = np.arange(start, start + len(factual)) == example["place"]
    beside = texts.side_by_side(spelling, {"factual": factual}, {"counterfactual": answer}, forced, start)
    passages = {"factual": spelling.passage(factual), "counterfactual": spelling.passage(answer)}
    return {"do": asked, "row": example["row"], **passages, "side_by_side": beside}
