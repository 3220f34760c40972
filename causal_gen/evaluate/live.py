"""A trained model that answers one question at a time, for a page whose sliders ask it: scenes abducted once, predicted as asked."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from causal_gen.evaluate.base import to_bytes
from causal_gen.evaluate.batched import Batched
from causal_gen.evaluate.pictures import data_address, difference, heat
from causal_gen.evaluate.sliders import span
from causal_gen.scm.intervention import do
from causal_gen.types import Batch, Noise, UserError

TICKS = 200  # places of a slider


@dataclasses.dataclass(frozen=True, eq=False)
class Live:
    """The first scenes of the test split, `factual` [s, ...], with the noise behind each, and the span of every factor's slider.

    Every answer is about one scene, so that all are one compiled program.
    """

    ask: Batched
    source: Any
    factual: Batch
    noise: Noise
    spans: Mapping[str, tuple[float, float]]

    @classmethod
    def of(cls, run: Any, scenes: int, seed: int = 0) -> Live:
        """`scenes` of the test split of a restored run, abducted; the first answer is compiled here.

        Raises `UserError` for a model that has no picture under named factors.
        """
        model = run.model
        if not hasattr(model, "factors"):
            name = run.config["model"]["name"]
            raise UserError(f"explore: it draws pictures under factors, and a {name} has none; ask with experiments.counterfactual")
        ask, indices = Batched(model, run.params, 1), np.arange(min(scenes, run.data.size("test")))
        factual = run.data.gather("test", indices)
        found = cls(ask, run.data, factual, ask.abduct(jax.random.key(seed), factual), {f: span(run.data, f) for f in model.factors})
        found.answer(0, {})
        return found

    def describe(self) -> dict[str, Any]:
        """What the page needs to know: how many scenes, the factors with their spans, and the names of the pictures."""
        factors = []
        for name, (low, high) in self.spans.items():
            step = 10.0 ** math.floor(math.log10((high - low) / TICKS))
            unit = self.source.entries[name].unit
            factors.append({"name": name, "low": _down(low, step), "high": _down(high, step), "step": f"{step:g}", "unit": unit})
        truth = self.source.truth("test", np.arange(1), do()) is not None
        pictures = ("factual", "counterfactual", *(("truth", "difference") if truth else ()))
        return {"scenes": len(next(iter(self.factual.values()))), "factors": factors, "pictures": pictures}

    def answer(self, scene: int, values: Mapping[str, float]) -> dict[str, Any]:
        """Scene number `scene` under do(values): {"factors": {name: value}, "pictures": {name: data address}}.

        Raises `UserError` for a scene that there is not, an unknown factor, and a value outside its slider's span.
        """
        num = len(next(iter(self.factual.values())))
        if not 0 <= scene < num:
            raise UserError(f"explore: there is no scene {scene}; they are 0..{num - 1}")
        for name, value in values.items():
            if name not in self.spans:
                raise UserError(f"explore: unknown factor {name!r}; the factors are {', '.join(self.spans)}")
            low, high = self.spans[name]
            slack = (high - low) / TICKS  # a slider's last place may lie beyond the end by less than a step
            if not low - slack <= value <= high + slack:
                raise UserError(f"explore: {name}={value:g} lies outside of its slider, {low:.4g}..{high:.4g}; move it back")
        acts = do(**values)
        found = self.ask.predict(jax.tree.map(lambda leaf: leaf[scene : scene + 1], self.noise), acts)
        pictures = {"factual": self.factual["image"][scene], "counterfactual": found["image"][0]}
        truth = self.source.truth("test", np.array([scene]), acts)
        if truth is not None:
            gap = heat(difference(pictures["counterfactual"], truth["image"][0]))
            pictures |= {"truth": truth["image"][0], "difference": gap}
        return {
            "factors": {name: float(found[name][0]) for name in self.spans},
            "pictures": {name: data_address(to_bytes(picture)) for name, picture in pictures.items()},
        }


def _down(value: float, step: float) -> str:
    """A multiple of `step` no larger than `value`, without the digits that binary arithmetic adds."""
    return f"{math.floor(value / step) * step:.10g}"
