"""What is measured of models of variables, on models whose answers are known."""

from __future__ import annotations

import dataclasses
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.data.confounded import NOISE, ConfoundedConfig
from causal_gen.evaluate import variables
from causal_gen.evaluate.base import EvaluateConfig
from causal_gen.models.base import Prediction
from causal_gen.scm.intervention import canonical
from causal_gen.structure.graph import Dag

SOURCE = ConfoundedConfig(size=2_000, test_size=200, covariates=2).make()
EDGES = (("x1", "x2"), ("x1", "treatment"), ("x2", "treatment"), ("x1", "outcome"), ("x2", "outcome"), ("treatment", "outcome"))


@dataclasses.dataclass(frozen=True)
class Truth:
    """The equations of the data as a model. `peek` makes the answer about x2 depend on the outcome."""

    graph: Dag = Dag(("x1", "x2", "treatment", "outcome", "after"), (*EDGES, ("outcome", "after")))
    peek: float = 0.0
    likelihood: str = "exact"
    context: tuple[str, ...] = ()

    @property
    def actable(self):
        return self.graph.nodes

    needs = actable

    def conditionals(self, params, batch, query=None):
        x1, x2, t, y = (jnp.asarray(batch[name]) for name in self.graph.nodes[:4])
        mean = t * (params + x1 / 2) + x1 + (x2**2 - 1) / 2
        tell = {"x1": (0.0 * x1, 1.0), "x2": (0.6 * x1 + self.peek * y, 0.8), "outcome": (mean, NOISE), "after": (y, NOISE)}
        found = {name: Prediction(moments=(value, jnp.full(value.shape, scale))) for name, (value, scale) in tell.items()}
        return {**found, "treatment": Prediction(logits=jnp.stack([jnp.zeros_like(x1), x1 + x2], -1))}

    def noise(self, key, num, context=None):
        return {name: jax.random.normal(jax.random.fold_in(key, i), (num,)) for i, name in enumerate(self.graph.nodes)}

    def predict(self, params, noise, context=None, do=None):
        acts = canonical(do, self.actable, noise["x1"].shape[0])
        found = {name: jnp.zeros_like(noise["x1"]) for name in self.graph.nodes}
        for name in self.graph.nodes:
            told = self.conditionals(params, found)[name]
            natural = (
                (told.logits[:, 1] + noise[name] > 0) * 1.0 if told.moments is None else told.moments[0] + told.moments[1] * noise[name]
            )
            found[name] = acts[name].apply(natural)
        return found

    def abduct(self, params, key, batch):
        told = self.conditionals(params, batch)
        own = {name: (batch[name] - one.moments[0]) / one.moments[1] for name, one in told.items() if one.moments is not None}
        side = 1e3 * (2.0 * batch["treatment"] - 1)
        return {**own, "treatment": side}

    def log_prob(self, params, key, batch, query=None):
        noise = self.abduct(params, key, batch)
        told = self.conditionals(params, batch)
        logs = [-0.5 * noise[n] ** 2 - jnp.log(told[n].moments[1] * (2 * jnp.pi) ** 0.5) for n in noise if n != "treatment"]
        coin = jnp.take_along_axis(jax.nn.log_softmax(told["treatment"].logits), jnp.asarray(batch["treatment"])[:, None], 1)
        return sum(logs, coin[:, 0])


def run(tmp_path, model=None, effect=1.0):
    return types.SimpleNamespace(model=model or Truth(), params=jnp.asarray(effect), data=SOURCE, workdir=tmp_path, step=0)


def test_the_equations_themselves_have_no_gap_no_leak_and_the_true_effect(tmp_path):
    out = variables.evaluate(run(tmp_path), EvaluateConfig(scenes=64, batch_size=100), progress=lambda line: None)
    assert abs(out["heldout"]["gap"]["value"]) < 1e-4 and out["heldout"]["rows"] == 200
    assert out["leak"] == 0 and out["reach"] > 0.1 and out["null"] < 1e-5
    assert abs(out["effects"]["treatment -> outcome"]["model"] - 1) < 0.03 < out["effects"]["treatment -> outcome"]["naive"] - 1.3
    assert abs(out["rmse"]["outcome"] - NOISE) < 0.1 and set(out["rmse"]) == {"x1", "x2", "outcome", "after"}
    assert json.loads((tmp_path / "evaluate" / "metrics.json").read_text())["leak"] == 0


def test_a_model_that_peeks_at_a_descendant_leaks_and_a_wrong_effect_is_seen(tmp_path):
    rows = jax.tree.map(jnp.asarray, SOURCE.gather("test", np.arange(64)))
    assert variables.dependence(Truth(peek=0.1), jnp.ones(()), rows)["leak"] > 0.05
    assert variables.dependence(Truth(graph=Dag(("x1", "x2", "treatment", "outcome", "after"))), jnp.ones(()), rows)["leak"] > 0.5
    wrong = variables.effect(run(tmp_path, effect=2.0), jax.random.key(0), "treatment", "outcome")
    assert wrong["model"] == pytest.approx(2.0, abs=0.03)
