"""Statements are ranked by what a model says of them: closed forms, ties, and files that are wrong."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.data import statements
from causal_gen.data.grammar import GrammarConfig, WordTokenizer
from causal_gen.data.statements import Statements
from causal_gen.data.text import token_entries
from causal_gen.evaluate import ranking
from causal_gen.evaluate.base import EvaluateConfig
from causal_gen.models.hybrid_transformer_config import HybridTransformerConfig, ObjectiveConfig
from causal_gen.models.objectives import Query
from causal_gen.nn.transformer_config import TransformerConfig
from causal_gen.sampling.unmask_config import UnmaskConfig
from causal_gen.types import ConfigError, DataError

KEY = jax.random.key(0)


@dataclasses.dataclass(frozen=True)
class Counter:
    """Likes small tokens: -log p is their sum over what is scored; by its masked objective it likes large ones."""

    likelihood: str | None = "exact"
    context: tuple[str, ...] = ()
    config: HybridTransformerConfig = HybridTransformerConfig(objectives=(ObjectiveConfig(), ObjectiveConfig(kind="masked", name="m")))

    def log_prob(self, params, key, batch, query=None):
        sign = 1 if query is not None and (query.objective, query.how) == ("m", "pseudo") else -1
        return sign * (batch["tokens"] * batch["loss_mask"]).sum(1)


ITEMS = Statements(
    np.array([[[1, 9], [2, 0], [3, 0]], [[5, 0], [4, 0], [4, 0]], [[7, 0], [7, 0], [8, 0]]]),
    np.array([[[1, 0], [1, 1], [1, 1]], [[1, 1]] * 3, [[1, 1]] * 3], np.float32),  # the 9 does not count
    np.array([0, 0, 1], np.int32),
)


class Source:
    name = "made up"

    def __init__(self, **sets):
        self.sets = sets

    def statements(self):
        return self.sets


@pytest.mark.parametrize("size", [2, 64])
def test_the_true_one_is_ranked_among_its_others(size):
    """Item 1 is right; item 2 is behind both others, which are alike; item 3 shares the first place with one other."""
    settings = EvaluateConfig(batch_size=size)
    found = ranking.measure(Counter(), None, KEY, Source(one=ITEMS, again=ITEMS), settings)
    assert found["accuracy"] == pytest.approx((1 + 0 + 0.5) / 3) and found["rank"] == pytest.approx((1 + 3 + 1.5) / 3)
    assert found["chance"] == pytest.approx(1 / 3) and set(found["groups"]) == {"one", "again"}
    other = ranking.measure(Counter(), None, KEY, Source(one=ITEMS), EvaluateConfig(scoring="pseudo"))
    assert other["accuracy"] == pytest.approx((0 + 1 + 0) / 3) and other["scoring"] == "pseudo"


def test_a_coin_is_right_half_of_the_time():
    """A model that hashes its rows knows no grammar."""

    @dataclasses.dataclass(frozen=True)
    class Hash(Counter):
        def log_prob(self, params, key, batch, query=None):
            powers = jnp.array([79.0, 1047.0, 12997.0, 154.0, 373.0, 2971.0, 31.0, 17.0])
            return jnp.sin(jnp.mod((batch["tokens"] * powers[None]).sum(1) ** 2, 1009.0))

    found = ranking.measure(Hash(), None, KEY, GrammarConfig(size=1, test_size=1).make(), EvaluateConfig())
    assert abs(found["accuracy"] - 0.5) < 0.04 and all(abs(group["accuracy"] - 0.5) < 0.2 for group in found["groups"].values())


@pytest.mark.parametrize("window", [1, 2, 8])
def test_a_window_hides_the_tokens_after_the_scored_one(window):
    """Of one place it is the plain pseudo-likelihood, of all the likelihood from left to right; between them a loop says it in numpy."""
    length = 5
    config = HybridTransformerConfig(
        objectives=(ObjectiveConfig("masked"),), transformer=TransformerConfig(width=8, layers=1, heads=2, backend="dense")
    )
    sampling = UnmaskConfig(policy="order", end=0, window=window)
    model: Any = config.make(token_entries(length, 6, ""), {}, sampling, "params=float32,compute=float32,output=float32", "none")
    params = jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(KEY, leaf.shape), jax.jit(model.init)(KEY))
    tokens = np.array([[1, 2, 3, 0, 0], [5, 4, 1, 2, 0]], np.int32)
    mask = np.array([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]], np.float32)
    found = ranking.scored(ranking.scorer_of(model, "pseudo"), model, params, KEY, tokens, mask, 2)
    batch = {"tokens": jnp.asarray(tokens), "loss_mask": jnp.asarray(mask)}
    want = np.zeros(2)
    for i in range(length):
        hidden = np.zeros((2, length), bool)
        hidden[:, i : i + window] = mask[:, i : i + window] > 0
        logits = model.conditionals(params, batch, Query(mask=jnp.asarray(hidden)))["tokens"].logits
        want += mask[:, i] * np.asarray(jax.nn.log_softmax(logits))[np.arange(2), i, tokens[:, i]]
    np.testing.assert_allclose(found, want, atol=1e-4)
    if window == 1:
        np.testing.assert_allclose(found, model.log_prob(params, KEY, batch, Query(how="pseudo")), atol=1e-4)
    if window >= length:
        np.testing.assert_allclose(found, model.log_prob(params, KEY, batch, Query(order=jnp.arange(length))), atol=1e-4)


def test_what_cannot_be_scored_is_refused_in_a_line():
    source = Source(one=ITEMS)
    with pytest.raises(ConfigError, match="has no likelihood; set it to pseudo"):
        ranking.measure(Counter(None), None, KEY, source, EvaluateConfig())
    with pytest.raises(ConfigError, match="pseudo needs a model that is trained by masks, this Counter is not"):
        ranking.measure(Counter(config=HybridTransformerConfig()), None, KEY, source, EvaluateConfig(scoring="pseudo"))
    with pytest.raises(ConfigError, match="conditioned on 'digit', which statements do not say"):
        ranking.measure(Counter(context=("digit",)), None, KEY, source, EvaluateConfig())
    with pytest.raises(ConfigError, match="evaluate.statements: made up has no tokenizer"):
        ranking.measure(Counter(), None, KEY, source, EvaluateConfig(statements="x.jsonl"))
    assert ranking.measure(Counter(), None, KEY, object(), EvaluateConfig()) == {}


def test_files_of_both_spellings_are_read(tmp_path):
    lines = [
        {"group": "a", "good": "the queen sleeps", "bad": ["the queen sleep", "the queens sleeps"]},
        {"UID": "b", "sentence_good": "no boy ever runs", "sentence_bad": "the boy ever runs"},
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    found = statements.read(file, WordTokenizer(), 6)
    assert {name: items.tokens.shape for name, items in found.items()} == {"a": (1, 3, 6), "b": (1, 2, 6)}
    assert WordTokenizer().decode(found["a"].tokens[0, 2]) == "the queens sleeps" and found["b"].mask.sum() == 8
    with pytest.raises(DataError, match="a statement has 4 tokens, the model's texts 3; shorten it"):
        statements.read(file, WordTokenizer(), 3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty; give it a line an item"),
        ("nonsense", ":1: not a JSON object"),
        ("[1]", ":1: not a JSON object"),
        ('{"good": "a"}', ":1: needs a text 'good' and one or more texts 'bad'"),
        ('{"good": "a", "bad": []}', ":1: needs a text 'good' and one or more"),
        ('{"good": "a", "bad": "a"}', ":1: the good statement is also among the bad ones"),
        ('{"good": "a", "bad": "b"}\n{"good": "a", "bad": ["b", "c"]}', r"group 'all' have \[2, 3\] statements"),
    ],
)
def test_a_wrong_file_is_refused_in_a_line(tmp_path, text, said):
    file = tmp_path / "pairs.jsonl"
    file.write_text(text)
    with pytest.raises(DataError, match=said):
        statements.read(file, WordTokenizer(), 6)
    with pytest.raises(DataError, match="cannot read .*nowhere"):
        statements.read(tmp_path / "nowhere", WordTokenizer(), 6)
