"""The embedder: its logits are cosines over temperature, its loss is coupled, and a soft mask at its ends is the hard one."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.evaluate import retrieval
from causal_gen.models.embedder_config import EmbedderConfig
from causal_gen.nn.transformer_config import TransformerConfig
from causal_gen.types import ConfigError, Entry

B, T, V = 5, 4, 9
KEY = jax.random.key(0)
SMALL = TransformerConfig(width=8, layers=2, heads=2, backend="dense", mlp_ratio=2.0, scan=True)
ENTRIES = {"tokens": Entry((T,), "int32", vocabulary=V), "partner": Entry((T,), "int32", vocabulary=V), "size": Entry(())}
BATCH = {name: jax.random.randint(jax.random.key(i), (B, T), 0, V) for i, name in enumerate(("tokens", "partner"))}


def make(**changes):
    return EmbedderConfig(transformer=SMALL, **changes).make(ENTRIES, {}, None, "", "none")


SOFT = make(visibility="soft(causal(), full())", hard=2, temperature=0.5)
PARAMS = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(KEY, x.shape), SOFT.init(KEY))


@functools.partial(jax.jit, static_argnums=0)
def logits(model, alpha=None, batch=BATCH):
    return model.conditionals(PARAMS, batch, None if alpha is None else {"alpha": alpha})["partner"].logits


def test_logits_are_cosines_over_temperature_of_each_text_alone():
    one = np.stack([SOFT.embed(PARAMS, {"tokens": BATCH["tokens"][i : i + 1]}, "tokens", 1.0)[0] for i in range(B)])
    other = np.stack([SOFT.embed(PARAMS, {"partner": BATCH["partner"][i : i + 1]}, "partner", 1.0)[0] for i in range(B)])
    want = (one / np.linalg.norm(one, axis=1)[:, None]) @ (other / np.linalg.norm(other, axis=1)[:, None]).T / 0.5
    np.testing.assert_allclose(logits(SOFT), want, atol=1e-5)


@pytest.mark.parametrize(("alpha", "visibility"), [(0.0, "causal()"), (1.0, "full()")])
def test_a_soft_mask_at_its_ends_is_the_hard_one_exactly(alpha, visibility):
    np.testing.assert_array_equal(logits(SOFT, alpha), logits(make(visibility=visibility, temperature=0.5)))


def test_mined_negatives_are_told_and_harder_than_any():
    total, aux = jax.jit(lambda: SOFT.loss(PARAMS, KEY, BATCH, step=jnp.int32(0), train=True))()
    assert SOFT.batch_coupled and total.shape == (B,) and (aux.terms["hard"] > aux.terms["any"]).all()
    scores = np.asarray(logits(SOFT))
    others = np.sort(np.where(np.eye(B, dtype=bool), -np.inf, scores), 1)[:, -2:]
    own = np.diagonal(scores)
    np.testing.assert_allclose(total, np.log(np.exp(own) + np.exp(others).sum(1)) - own, rtol=1e-5)


def test_recall_counts_ties_against_the_model():
    perfect = np.eye(8)
    assert retrieval.recall(perfect) == {"recall@1": 1.0, "recall@5": 1.0}
    assert retrieval.recall(np.zeros((8, 8))) == {"recall@1": 0.0, "recall@5": 0.0}
    behind = perfect - 2 * np.eye(8)[:, np.roll(np.arange(8), 1)] * -1
    assert retrieval.recall(behind) == {"recall@1": 0.0, "recall@5": 1.0}


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match="model.partner: entry 'other' is not in the data"):
        make(partner="other")
    with pytest.raises(ConfigError, match="model.partner: entry 'size' is not of the kind"):
        make(partner="size")
