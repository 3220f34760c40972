"""The contrastive loss: equal to a softmax where nothing is mined, mined negatives are the hardest, and a limit that forgets the others."""

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.losses import contrastive

SCORES = jax.random.normal(jax.random.key(0), (6, 6))


def test_with_all_negatives_it_is_the_cross_entropy_of_the_diagonal():
    want = -jnp.diagonal(jax.nn.log_softmax(SCORES))
    np.testing.assert_allclose(contrastive.info_nce(SCORES), want, rtol=1e-5)
    np.testing.assert_allclose(contrastive.info_nce(SCORES, 9), want, rtol=1e-5)


def test_mined_negatives_are_the_hardest_of_each_row_and_never_its_partner():
    scores = np.asarray(SCORES.at[jnp.arange(6), jnp.arange(6)].set(9.0))
    want = [sorted(np.delete(row, i), reverse=True)[:2] for i, row in enumerate(scores)]
    found = contrastive.mined(jnp.asarray(scores), 2)
    np.testing.assert_array_equal(found, want)
    assert (found.mean(1) > contrastive.mined(jnp.asarray(scores), 0).mean(1)).all()


def test_only_the_partner_and_the_mined_negatives_get_a_gradient():
    slope = np.asarray(jax.jacobian(lambda s: contrastive.info_nce(s, 2))(SCORES))
    for i in range(6):
        others = np.argsort(-np.where(np.arange(6) == i, -np.inf, SCORES[i]))[:2]
        felt = np.zeros((6, 6), bool)
        felt[i, [i, *others]] = True
        np.testing.assert_array_equal(slope[i] != 0, felt)


def test_cosines_do_not_depend_on_length():
    x, y = jax.random.normal(jax.random.key(1), (3, 4)), jax.random.normal(jax.random.key(2), (5, 4))
    np.testing.assert_allclose(contrastive.cosines(3 * x, y), contrastive.cosines(x, 0.1 * y), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jnp.diagonal(contrastive.cosines(x, x)), 1, rtol=1e-5)
