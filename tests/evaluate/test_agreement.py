"""Counterfactuals of tokens: agreement of draws is counted, null interventions and prefixes are exact, the posterior is right."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.evaluate import batched
from causal_gen.evaluate.agreement import agreement
from causal_gen.models.causal_transformer_config import CausalTransformerConfig
from causal_gen.nn.transformer_config import TransformerConfig
from causal_gen.sampling.truncation import DecodingConfig
from causal_gen.scm import counterfactual as asking
from causal_gen.scm.intervention import do
from causal_gen.types import Entry

KEY = jax.random.key(0)
SMALL = TransformerConfig(width=8, layers=1, heads=2, backend="dense", mlp_ratio=2.0, length=16)


def model_of(vocabulary, length):
    """A transformer, and parameters at which its logits differ by some nats."""
    entries = {"tokens": Entry((length,), "int32", vocabulary=vocabulary)}
    model = dataclasses.replace(CausalTransformerConfig(), transformer=SMALL).make(entries, {}, DecodingConfig(), "", "none")
    leaves, tree = jax.tree.flatten(jax.jit(model.init)(KEY))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return model, jax.tree.unflatten(tree, [p + 0.4 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)])


def test_agreement_counts_what_it_says():
    factual = np.zeros((1, 6), int)
    answers = np.array([[[0, 9, 0, 1, 0, 2]], [[0, 9, 0, 1, 0, 3]]])  # position 1 is set; 2 to 5 come after it
    found = agreement(factual, answers, [1])
    assert found == {"changed": [0.5, 0.5], "agreement": 0.75, "settled": 0.75}
    assert agreement(factual, answers, [1], np.arange(6)[None] < 5)["agreement"] == 1.0
    assert agreement(factual, answers, [5])["agreement"] is None


def test_null_interventions_are_exact_on_a_thousand_texts_and_prefixes_stay():
    """1,000 rows of 12 tokens; the answers to do(tokens[5]) differ after it, and the draws do not all agree: the noise is a draw."""
    model, params = model_of(11, 12)
    texts = np.asarray(jax.random.randint(jax.random.key(2), (1_000, 12), 0, 11))
    several = []
    for seed in range(3):
        back, answer = batched.answers(model, params, jax.random.key(seed), {"tokens": texts}, [None, do(tokens={5: 3})])
        np.testing.assert_array_equal(back["tokens"], texts)
        np.testing.assert_array_equal(answer["tokens"][:, :5], texts[:, :5])
        assert (answer["tokens"][:, 5] == 3).all()
        several.append(answer["tokens"])
    found = agreement(texts, np.stack(several), [5])
    assert 0 < found["changed"][0] < 1 and found["settled"] < found["agreement"] < 1


def test_counterfactuals_of_three_tokens_have_the_law_that_rejection_leaves():
    """All counterfactuals of one text of 3 tokens over 3 values under do(first): the posterior's law against that of the prior's noise
    which draws the text, in total variation, of 9 outcomes; a control drawn from the prior without evidence is far off."""
    model, params = model_of(3, 3)
    free = jax.jit(model.noise, static_argnums=1)(jax.random.key(3), 300_000)
    drawn = np.asarray(asking.predict(model, params, free)["tokens"])
    text = np.array(max(itertools.product(range(3), repeat=3), key=lambda one: int((drawn == np.array(one)).all(1).sum())))
    act = do(tokens={0: int(text[0] + 1) % 3})
    forced = np.asarray(asking.predict(model, params, free, do=act)["tokens"])
    kept = forced[(drawn == text).all(1)]
    evidence = {"tokens": jnp.broadcast_to(jnp.asarray(text, jnp.int32), (100_000, 3))}
    told = np.asarray(asking.counterfactual(model, params, jax.random.key(4), evidence, act)["tokens"])
    assert len(kept) > 20_000 and np.ptp(law(told)) > 0.1
    assert 0.5 * np.abs(law(told) - law(kept)).sum() <= 0.02
    assert 0.5 * np.abs(law(forced) - law(kept)).sum() > 0.1


def law(tokens):
    """Shares of the 9 continuations."""
    return np.bincount(3 * tokens[:, 1] + tokens[:, 2], minlength=9) / len(tokens)
