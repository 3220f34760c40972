"""Parallel continuations against each one alone, on a language whose law is a table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.sampling.parallel import one_shot
from causal_gen.types import ConfigError
from tests.sampling.tables import engine, table

V, STEPS = 5, 4
LOGITS = table(jax.random.key(0), V)
PROMPT = jnp.array([[1, 2, 3], [0, 4, 4]])


def tell(ways: int, steps: int = STEPS):
    parts = engine(LOGITS, 3 + ways * steps)
    return jax.jit(lambda prompt: one_shot(parts.prefill, parts.advance, prompt, ways=ways, steps=steps))(PROMPT)


def alone(prompt: list[int], first: int, steps: int) -> tuple[list[int], float]:
    """A greedy continuation by the table itself."""
    law = np.asarray(jax.nn.log_softmax(LOGITS), np.float64)
    text, log_p = [*prompt, first], law[prompt[-2], prompt[-1], first]
    for _ in range(steps - 1):
        told = law[text[-2], text[-1]]
        text.append(int(told.argmax()))
        log_p += told.max()
    return text[len(prompt) :], log_p


@pytest.mark.parametrize("ways", [1, 3, V])
def test_every_branch_is_the_greedy_text_of_its_first_token_and_they_are_ranked(ways):
    found = tell(ways)
    for row, prompt in enumerate(PROMPT.tolist()):
        first = np.argsort(-np.asarray(LOGITS[prompt[-2], prompt[-1]]))[:ways]
        want = sorted((alone(prompt, int(token), STEPS) for token in first), key=lambda told: -told[1])
        np.testing.assert_array_equal(found.tokens[row], [text for text, _ in want])
        np.testing.assert_allclose(found.log_prob[row], [log_p for _, log_p in want], rtol=1e-5)


def test_one_token_is_the_most_likely_ones():
    np.testing.assert_array_equal(tell(2, 1).tokens[..., 0], jnp.argsort(-LOGITS[PROMPT[:, 1], PROMPT[:, 2]], axis=-1)[:, :2])


@pytest.mark.parametrize(("ways", "steps"), [(0, 2), (V + 1, 2), (2, 0)])
def test_no_branch_no_token_and_more_branches_than_tokens_are_refused(ways, steps):
    with pytest.raises(ConfigError, match=f"{ways} continuations of {steps} tokens"):
        tell(ways, steps)
