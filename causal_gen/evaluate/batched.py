"""A model asked about many scenes: compiled once a function, in batches of one size, the last one padded.

Batches are split over the current mesh where there is one. The results are host arrays over all scenes, so the noise of a scene is
abducted once and used for every intervention. The noise of sequences, [b, t, v], is too large for that: `answers` and `draws` hold that
of one batch at a time.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from causal_gen.parallel.mesh import fetch, spread
from causal_gen.scm import counterfactual as asking
from causal_gen.scm.intervention import Intervention, acts_on
from causal_gen.types import Batch, Key, Noise, Params

HELD = 1 << 26  # entries of noise that `answers` and `draws` hold at once


@functools.partial(jax.jit, static_argnums=0)
def _latents(model: Any, params: Params, noise: Noise, acts: Any) -> dict[str, Any]:
    return model.latents(params, noise, do=acts)


@functools.partial(jax.jit, static_argnums=0)
def _read(model: Any, params: Params, key: Key, evidence: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    noise = model.abduct(params, key, evidence)
    values = model.predict(params, noise)
    # only the factors are returned, so the compiler drops the inversion and the drawing of the image
    return {name: values[name] for name in model.factors}, model.latents(params, noise)


@dataclasses.dataclass(frozen=True)
class Batched:
    """`model` with `params`, asked `batch_size` scenes at a time. The model has `factors` and `latents` (models/)."""

    model: Any
    params: Params
    batch_size: int

    def _over(self, num: int, ask: Callable[..., Any], *trees: Any) -> Any:
        """Apply `ask(start, *parts)` to slices of host trees with `num` rows; join the results, padding removed."""
        size = min(self.batch_size, num)
        results = []
        for part in range(math.ceil(num / size)):
            rows = np.minimum(np.arange(part * size, (part + 1) * size), num - 1)  # the last scene repeats as padding
            results.append(fetch(ask(part, *spread(trees, rows))))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:num], *results)

    def _evidence(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """What abduction needs and nothing else: labels of the test split never reach the encoder."""
        return {name: np.asarray(batch[name]) for name in (*self.model.needs, *self.model.context)}

    def abduct(self, key: Key, batch: Mapping[str, Any]) -> Noise:
        """Noise of every scene of `batch`, each entry [b, ...]."""
        evidence = self._evidence(batch)
        num = len(next(iter(evidence.values())))
        return self._over(num, lambda part, e: asking.abduct(self.model, self.params, jax.random.fold_in(key, part), e), evidence)

    def predict(self, noise: Noise, do: Intervention | None = None, context: Mapping[str, Any] | None = None) -> dict[str, np.ndarray]:
        """All entries under `do`, from the noise of b scenes; values of `do` are scalars or [b], `context` is what the model reads."""
        num = len(jax.tree.leaves(noise)[0])
        acts = acts_on(self.model, do, num)
        return self._over(num, lambda _, n, a, c: asking.predict(self.model, self.params, n, c, a), noise, acts, context)

    def latents(self, noise: Noise, do: Intervention | None = None) -> dict[str, np.ndarray]:
        """Causal latents z {factor: [b, k]} under `do`."""
        num = len(jax.tree.leaves(noise)[0])
        acts = acts_on(self.model, do, num)
        return self._over(num, lambda _, n, a: _latents(self.model, self.params, n, a), noise, acts)

    def read(self, key: Key, batch: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Factor values {factor: [b]} and latents {factor: [b, k]} that the model reads from the scenes; draws no image."""
        evidence = self._evidence(batch)
        num = len(next(iter(evidence.values())))
        return self._over(num, lambda part, e: _read(self.model, self.params, jax.random.fold_in(key, part), e), evidence)


def answers(
    model: Any, params: Params, key: Key, evidence: Mapping[str, Any], acts: Sequence[Intervention | None]
) -> list[dict[str, np.ndarray]]:
    """The counterfactuals of `evidence` [b, ...] under each of `acts`, all from one abduction; None gives its reconstruction."""

    def noise(part: int, rows: np.ndarray) -> tuple[Noise, Batch]:
        batch = spread(dict(evidence), rows)
        return asking.abduct(model, params, jax.random.fold_in(key, part), batch), batch

    return _replayed(model, params, len(next(iter(evidence.values()))), acts, noise)


def draws(
    model: Any, params: Params, key: Key, num: int, acts: Sequence[Intervention | None], context: Mapping[str, Any] | None = None
) -> list[dict[str, np.ndarray]]:
    """`num` fresh draws under each of `acts`, all from the same noise; `context` [num, ...] as the model reads it."""

    def noise(part: int, rows: np.ndarray) -> tuple[Noise, Batch | None]:
        given = None if context is None else spread(dict(context), rows)
        return spread(model.noise(jax.random.fold_in(key, part), len(rows), given)), given

    return _replayed(model, params, num, acts, noise)


def _replayed(
    model: Any,
    params: Params,
    num: int,
    acts: Sequence[Intervention | None],
    noise: Callable[[int, np.ndarray], tuple[Noise, Batch | None]],
) -> list[dict[str, np.ndarray]]:
    one = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(jax.eval_shape(lambda: model.noise(jax.random.key(0), 1))))
    size = max(1, min(num, 64, HELD // one))
    parts = []
    for part in range(math.ceil(num / size)):
        rows = np.minimum(np.arange(part * size, (part + 1) * size), num - 1)  # the last row repeats as padding
        found, context = noise(part, rows)
        parts.append([fetch(asking.predict(model, params, found, context, act)) for act in acts])
    return [jax.tree.map(lambda *leaves: np.concatenate(leaves)[:num], *cell) for cell in zip(*parts, strict=True)]
