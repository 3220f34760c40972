"""The evaluation: composition, reversibility, counterfactual error against the truth, effectiveness, and what must stay still.

For scenes x of the test split, with noise u = abduct(x) taken once and used for every intervention:

    composition_m(x)  = |x - g^m(x)|,   g(x) = predict(abduct(x))                                          (1)
    reversibility(x)  = |x - predict(abduct(x*), do(f = original))|,   x* = predict(u, do(f = value))        (2)
    error(x)          = |x* - truth(x, do(f = value))|                                                       (3)
    effectiveness(g)  = |instrument_g(x*) - truth_g(x, do(f = value))|                                       (4)

with |.| the mean absolute difference. Beside (3) stand two baselines: copying the factual image, and the truth with the descendants
of f held at their factual values (the effect does not propagate). Beside (4) stand the instrument's own error on the true
counterfactual image (its floor), on the factual image (copy) and that of shuffled values (chance).

Axioms after Monteiro et al., ICLR 2023 (1, 2, 4).
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from causal_gen.evaluate import scores
from causal_gen.evaluate.base import Bench, EvaluateConfig, mean_abs, open_folder, recorded
from causal_gen.evaluate.batched import Batched
from causal_gen.evaluate.instruments import bench_of
from causal_gen.evaluate.sliders import write_sliders
from causal_gen.scm.intervention import Intervention, do
from causal_gen.types import Key, Noise

PIXEL_FIGURES = ("mae", "mae_p95", "copy", "not_propagated", "reversibility")


@dataclasses.dataclass(frozen=True, eq=False)
class Scenes:
    """The scenes under evaluation: test rows `indices`, their factual `batch`, and the `noise` abducted from it."""

    ask: Batched
    source: Any
    bench: Bench
    key: Key
    indices: np.ndarray
    batch: Mapping[str, np.ndarray]
    noise: Noise

    @property
    def image(self) -> np.ndarray:
        """Factual images [b, h, w, c]."""
        return self.batch["image"]

    @property
    def num(self) -> int:
        """Number of scenes."""
        return len(self.indices)

    @functools.cached_property
    def readings(self) -> dict[str, np.ndarray]:
        """What every instrument reads from the factual images."""
        return {tool.name: np.asarray(tool.read(self.image)) for tool in self.bench.instruments}

    def truth(self, intervention: Intervention) -> dict[str, np.ndarray] | None:
        """The simulator's answer, or None where there is no simulator."""
        return self.source.truth("test", self.indices, intervention)


def measure(run: Any, settings: EvaluateConfig, seed: int, progress: Callable[[str], Any]) -> dict[str, Any]:
    """Measure `run`, in images in [0, 1] and factors in their units, and write `evaluate/sliders.npz`."""
    started = time.time()
    scenes = choose(run.model, run.params, run.data, settings, seed)
    few = min(scenes.num, settings.cycle_scenes or scenes.num)
    out: dict[str, Any] = {
        "step": int(run.step), "scenes": scenes.num, "cycle_scenes": few, "seed": seed,
        "steps": getattr(getattr(scenes.ask.model, "sampling", None), "steps", None), "image_size": int(scenes.image.shape[1]),
    }  # fmt: skip
    progress(f"evaluate: {scenes.num} test scenes, noise abducted in {time.time() - started:.0f} s")
    out["instruments"] = scores.instruments(scenes.bench, scenes.batch, scenes.readings)
    reconstruction, out["composition"] = composition(scenes, settings.cycles, few, progress)
    out["do"] = {}
    for place, factor in enumerate(scenes.ask.model.factors):
        values = draw(scenes, factor, np.random.default_rng((seed, place)))
        out["do"][factor] = found = intervene(scenes, factor, values, reconstruction, few)
        beside = ", ".join(f"{name} {found[name]:.5f}" for name in ("copy", "not_propagated") if found.get(name) is not None)
        progress(f"evaluate: do({factor}) pixel error {found.get('mae', float('nan')):.5f} ({beside})")
    out["noise"] = scores.noise_law(scenes.noise, scenes.batch, scenes.ask.model.graph)
    out |= readings(scenes, settings, seed)
    out["expectations"] = scores.expectations(scenes.ask, scenes.bench, jax.random.fold_in(scenes.key, 7))
    if settings.slider_scenes:
        write_sliders(scenes, settings, open_folder(Path(run.workdir)) / "sliders.npz")
    return out


evaluate = recorded(measure)


def choose(model: Any, params: Any, source: Any, settings: EvaluateConfig, seed: int) -> Scenes:
    """Draw the scenes from the test split and abduct their noise. `settings.steps` replaces the model's DDIM steps."""
    if settings.steps is not None and hasattr(model, "sampling"):
        model = dataclasses.replace(model, sampling=dataclasses.replace(model.sampling, steps=settings.steps))
    size = source.size("test")
    indices = np.sort(np.random.default_rng(seed).permutation(size)[: settings.scenes])
    batch = source.gather("test", indices)
    ask, key = Batched(model, params, settings.batch_size), jax.random.key(seed)
    return Scenes(ask, source, bench_of(source), key, indices, batch, ask.abduct(jax.random.fold_in(key, 0), batch))


def draw(scenes: Scenes, factor: str, rng: np.random.Generator) -> np.ndarray:
    """A value of `factor` for every scene [b], in its unit: over the entry's range, or those of other test scenes."""
    entry = scenes.source.entries[factor]
    if scenes.bench.values == "uniform" and entry.low is not None and entry.high is not None:
        return rng.uniform(entry.low, entry.high, scenes.num).astype(np.float32)
    others = rng.permutation(scenes.source.size("test"))[: scenes.num]
    return np.asarray(scenes.source.gather("test", others)[factor], np.float32)


def _head(tree: Any, num: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[:num], tree)


def composition(scenes: Scenes, cycles: int, few: int, progress: Callable[[str], Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """(1) after one cycle on all scenes and after each further one on the first `few`; also the reconstructions [b, h, w, c]."""
    ask, errors = scenes.ask, {}

    def note(cycle: int, image: np.ndarray) -> None:
        errors[str(cycle)] = mean_abs(image, scenes.image[: len(image)])
        progress(f"evaluate: composition, cycle {cycle} of {cycles}: error {errors[str(cycle)]:.5f}")

    reconstruction = ask.predict(scenes.noise)["image"]
    note(1, reconstruction)
    current = {name: value[:few] for name, value in scenes.batch.items()} | {"image": reconstruction[:few]}
    for cycle in range(2, cycles + 1):
        noise = ask.abduct(jax.random.fold_in(scenes.key, 100 + cycle), current)
        current = current | {"image": ask.predict(noise)["image"]}
        note(cycle, current["image"])
    shown = {m: errors[m] for m in dict.fromkeys(("1", str(cycles)))}
    return reconstruction, {"mae": shown, "every_cycle": list(errors.values()), **scores.grey(shown, scenes.image)}


def intervene(scenes: Scenes, factor: str, values: np.ndarray, reconstruction: np.ndarray, few: int) -> dict[str, Any]:
    """Everything about do(factor = values): (2), (3), (4), predicted children, and what must not have moved.

    `values` [b], `reconstruction` [b, h, w, c].
    """
    ask, graph = scenes.ask, scenes.ask.model.graph
    act = do(**{factor: values})
    answer, truth = ask.predict(scenes.noise, act), scenes.truth(act)
    below = [name for name in ask.model.factors if name in graph.descendants(factor)]
    still = [name for name in ask.model.factors if name != factor and name not in below]
    out: dict[str, Any] = {"low": float(values.min()), "high": float(values.max())}
    if truth is not None:
        held = scenes.truth(act & do(**{name: scenes.batch[name] for name in below})) if below else None
        out |= scores.pixels(
            scenes.bench, factor, scenes.image, answer["image"], truth["image"], None if held is None else held["image"], reconstruction
        )
        out["children"] = {
            name: {
                "mae": mean_abs(answer[name], truth[name]),
                "copy": mean_abs(scenes.batch[name], truth[name]),
                "unit": scenes.source.entries[name].unit,
            }
            for name in below
        }
    out["effectiveness"] = scores.effectiveness(scenes.bench, factor, values, answer["image"], truth, scenes.readings, scenes.batch)
    stays = {*still, *(tool.name for tool in scenes.bench.instruments if tool.name not in ask.model.factors)}
    out["held"] = scores.held(scenes.bench, stays, answer["image"], truth, scenes.batch, scenes.readings)
    before, after = ask.latents(scenes.noise), ask.latents(scenes.noise, act)
    out["non_descendants_z"] = max((float(np.abs(after[name] - before[name]).max()) for name in still), default=0.0)
    out["reversibility"] = reversibility(scenes, factor, answer["image"][:few])
    return out | scores.grey({name: value for name, value in out.items() if name in PIXEL_FIGURES}, scenes.image)


def reversibility(scenes: Scenes, factor: str, counterfactual: np.ndarray) -> float:
    """(2) on the scenes of `counterfactual` [b, h, w, c]: abduct from it and set `factor` back to its factual value."""
    num = len(counterfactual)
    batch = {name: value[:num] for name, value in scenes.batch.items()} | {"image": counterfactual}
    noise = scenes.ask.abduct(jax.random.fold_in(scenes.key, 1), batch)
    back = scenes.ask.predict(noise, do(**{factor: scenes.batch[factor][:num]}))
    return mean_abs(back["image"], scenes.image[:num])


def readings(scenes: Scenes, settings: EvaluateConfig, seed: int) -> dict[str, Any]:
    """Label recovery R2, DCI and MCC, from `settings.disentangle_images` images of the test split."""
    if not settings.disentangle_images:
        return {}
    indices = np.random.default_rng((seed, 77)).permutation(scenes.source.size("test"))[: settings.disentangle_images]
    batch = scenes.source.gather("test", np.sort(indices))
    values, latents = scenes.ask.read(jax.random.fold_in(scenes.key, 2), batch)
    return scores.alignment(values, latents, {name: batch[name] for name in scenes.ask.model.factors}, seed)
