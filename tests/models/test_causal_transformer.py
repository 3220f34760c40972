"""The causal transformer: cached steps against whole passes, exact likelihood, counterfactuals on positions, decoding, what is refused."""

import dataclasses
import functools
import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from causal_gen.models.causal_transformer import CausalTransformer
from causal_gen.models.causal_transformer_config import CacheConfig, CausalTransformerConfig, WeightsConfig
from causal_gen.nn.transformer_config import LatentConfig, TransformerConfig
from causal_gen.sampling import ar
from causal_gen.sampling.beam import beam
from causal_gen.sampling.speculative import Tree, speculate
from causal_gen.sampling.truncation import DecodingConfig
from causal_gen.scm.counterfactual import abduct, counterfactual, predict, sample
from causal_gen.scm.intervention import do, shift
from causal_gen.train.state import TrainConfig
from causal_gen.train.step import make_init, make_step
from causal_gen.types import ConfigError, Entry, InterventionError, UserError

V, T, B = 7, 10, 3
KEY = jax.random.key(0)
SMALL = TransformerConfig(width=8, layers=2, heads=2, backend="dense", mlp_ratio=2.0, length=16)
CONFIG = CausalTransformerConfig(transformer=SMALL)
TOKENS = jax.random.randint(jax.random.key(5), (B, T), 0, V)
DOCUMENT = jnp.array([[0] * 4 + [1] * 6, [0] * T, [0] * 2 + [1] * 3 + [2] * 5])
BATCH = {"tokens": TOKENS, "document": DOCUMENT, "kind": jnp.array([0, 1, 2])}


def entries(vocabulary: int = V, length: int = T) -> dict[str, Entry]:
    return {"tokens": Entry((length,), "int32", vocabulary=vocabulary), "kind": Entry((), "int32", vocabulary=3), "size": Entry(())}


def make(sampling: DecodingConfig | None = None, vocabulary: int = V, length: int = T, transformer=None, **changes) -> CausalTransformer:
    config = dataclasses.replace(CONFIG, transformer=dataclasses.replace(SMALL, **(transformer or {})), **changes)
    return config.make(entries(vocabulary, length), {}, sampling or DecodingConfig(), "", "none")


@functools.cache
def params(model: CausalTransformer):
    """Off the start, so that logits differ by some nats."""
    with jax.ensure_compile_time_eval():  # some tests first ask for them inside of jit
        leaves, tree = jax.tree.flatten(jax.jit(model.init)(KEY))
        keys = jax.random.split(jax.random.key(1), len(leaves))
        return jax.tree.unflatten(tree, [p + 0.4 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)])


@functools.partial(jax.jit, static_argnums=0)
def logits(model, params, batch):
    return model.conditionals(params, batch)["tokens"].logits


PLAIN = make()


# -- likelihood and visibility -------------------------------------------------------------------------------------------------


def test_probabilities_of_all_texts_add_up_to_one():
    model = make(vocabulary=3, length=3)
    texts = jnp.array(list(itertools.product(range(3), repeat=3)))
    found = jax.jit(lambda texts: model.log_prob(params(model), KEY, {"tokens": texts}))(texts)
    np.testing.assert_allclose(np.exp(np.asarray(found, np.float64)).sum(), 1, atol=1e-5)
    assert np.exp(found).max() > 2 / 27  # the model is not uniform


@pytest.mark.parametrize("visibility", ["causal()", "causal() & same_document()", "causal() & window(3)"])
def test_a_tokens_logits_see_what_came_before_it_in_its_own_document_and_nothing_else(visibility):
    """Another token at place j moves no logits at j or before, nor in another document where documents are apart; it moves others."""
    model = make(visibility=visibility)
    tokens, plain = np.asarray(TOKENS), np.asarray(logits(model, params(model), BATCH))

    def changed(j):
        return np.where(np.arange(T) == j, (tokens + 1) % V, tokens)

    other = np.stack([logits(model, params(model), {**BATCH, "tokens": changed(j)}) for j in range(T)])
    moved = (other != plain[None]).any(-1)  # [j, b, i]
    j, i = np.arange(T)[:, None, None], np.arange(T)[None, None, :]
    may = np.broadcast_to(j < i, moved.shape)
    if "document" in visibility:
        may = may & np.asarray(DOCUMENT[:, :, None] == DOCUMENT[:, None, :]).transpose(2, 0, 1)
    assert not moved[~may].any()
    assert moved[may & (j == i - 1)].all()


# -- parallel = incremental ----------------------------------------------------------------------------------------------------

LATENT = {"attention": "latent", "latent": LatentConfig(rank=6, rotary=4)}
WAYS = {
    "plain": {},
    "grouped, alibi, swiglu, rms": {"transformer": {"kv_heads": 1, "position": "alibi", "mlp": "swiglu", "norm": "rms", "qk_norm": True}},
    "learned places, scanned, untied": {"transformer": {"position": "learned", "scan": True, "tie": False}},
    "experts": {"transformer": {"experts": 3, "active": 2}},
    "documents": {"visibility": "causal() & same_document()"},
    "ring": {"visibility": "causal() & window(4)", "cache": CacheConfig("ring", 3)},
    "evict": {"cache": CacheConfig("evict", 3)},
    "latent": {"transformer": LATENT},
    "gates": {"visibility": 'causal() & learned("gate", "index")', "transformer": {"gates": T + 1}},
    "merged latents": {"transformer": {**LATENT, "latent": LatentConfig(rank=6, rotary=4, stride=3)}},
}


@pytest.mark.parametrize("way", WAYS)
def test_cached_steps_give_the_logits_of_the_whole_pass(way):
    """Prefill of p tokens, then one at a time to the end, each step's logits; under the visibility that the cache realises."""
    model = make(**WAYS[way])
    whole = make(**{**WAYS[way], "visibility": "causal() & window(4)"}) if way == "evict" else model  # without scores the oldest go
    want = logits(whole, params(model), BATCH)
    context = {name: BATCH[name] for name in model.context if name in BATCH}

    @functools.partial(jax.jit, static_argnums=0)
    def run(p, tokens):
        out, cache = model.prefill(params(model), tokens[:, :p], context)

        def step(cache, token):
            out, cache = model.advance(params(model), cache, token[:, None])
            return cache, out[:, 0]

        return out, jnp.swapaxes(jax.lax.scan(step, cache, tokens[:, p : T - 1].T)[1], 0, 1)

    for p in (0,) if way == "evict" else (0, 4):  # a prompt is read whole before anything of it is dropped
        first, rest = run(p, TOKENS)
        np.testing.assert_allclose(first, want[:, : p + 1], atol=1e-5)
        np.testing.assert_allclose(rest, want[:, p + 1 :], atol=1e-5)


def test_several_tokens_at_once_are_the_same_as_one_by_one():
    step = jax.jit(lambda cache, tokens: PLAIN.advance(params(PLAIN), cache, tokens))
    _, cache = PLAIN.prefill(params(PLAIN), TOKENS[:, :3])
    together, after = step(cache, TOKENS[:, 3:7])
    np.testing.assert_allclose(together, logits(PLAIN, params(PLAIN), BATCH)[:, 4:8], atol=1e-5)
    out, _ = step(after, TOKENS[:, 7:8])
    np.testing.assert_allclose(out[:, 0], logits(PLAIN, params(PLAIN), BATCH)[:, 8], atol=1e-5)


def test_a_tree_of_candidates_is_scored_in_one_call_and_its_path_kept():
    """Two branches of two tokens below a prompt of three: each branch has its own text's logits; after the commit the text goes on."""
    _, cache = PLAIN.prefill(params(PLAIN), TOKENS[:, :3])
    tree = Tree((2, 1))
    nodes = jnp.concatenate([TOKENS[:, 3:4], (TOKENS[:, 4:5] + jnp.array([[0, 1]])) % V, (TOKENS[:, 5:6] + jnp.array([[0, 2]])) % V], 1)
    fields = {name: jnp.asarray(value)[None] for name, value in tree.fields().items()}
    out, cache = jax.jit(lambda cache: PLAIN.advance(params(PLAIN), cache, nodes, fields))(cache)
    for path in ((0, 1, 3), (0, 2, 4)):
        text = jnp.concatenate([TOKENS[:, :3], nodes[:, jnp.array(path)], TOKENS[:, 6:]], 1)
        want = logits(PLAIN, params(PLAIN), {"tokens": text})
        np.testing.assert_allclose(out[:, jnp.array(path)], want[:, 4:7], atol=1e-5)
    cache = PLAIN.commit(cache, jnp.array([[0, 2, 4]] * B))
    out, _ = jax.jit(lambda cache: PLAIN.advance(params(PLAIN), cache, TOKENS[:, 6:8]))(cache)
    np.testing.assert_allclose(out, want[:, 7:9], atol=1e-5)


# -- counterfactuals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", [DecodingConfig(), DecodingConfig(temperature=0.6, repetition=1.2)], ids=["plain", "warped"])
def test_a_null_intervention_returns_the_tokens_and_nothing_before_an_intervention_moves(sampling):
    model = make(sampling)
    noise = abduct(model, params(model), KEY, BATCH)
    again = predict(model, params(model), noise)
    np.testing.assert_array_equal(again["tokens"], TOKENS)
    act = do(tokens={4: 2, 6: np.array([0, 1, 2])})
    moved = np.asarray(predict(model, params(model), noise, do=act)["tokens"])
    may = np.asarray(model.descendants(noise, act)["tokens"])
    np.testing.assert_array_equal(may, np.broadcast_to(np.arange(T) >= 4, (B, T)))
    np.testing.assert_array_equal(moved[~may], np.asarray(TOKENS)[~may])
    np.testing.assert_array_equal(moved[:, [4, 6]], [[2, 0], [2, 1], [2, 2]])
    assert (moved[:, 5:] != np.asarray(TOKENS)[:, 5:]).any()
    same = counterfactual(model, params(model), KEY, BATCH, do(tokens={i: np.asarray(TOKENS[:, i]) for i in (1, 5)}))
    np.testing.assert_array_equal(same["tokens"], TOKENS)


def test_abducted_noise_is_noise_and_many_texts_come_back_exactly():
    """4,000 tokens drawn from the model; the posterior's pooled marginal is the prior's, the noise of the drawn entries apart is not."""
    num = 400
    drawn = sample(PLAIN, params(PLAIN), jax.random.key(3), num)
    noise = abduct(PLAIN, params(PLAIN), jax.random.key(4), drawn)
    np.testing.assert_array_equal(predict(PLAIN, params(PLAIN), noise)["tokens"], drawn["tokens"])
    assert noise["tokens"].shape == PLAIN.noise(KEY, num)["tokens"].shape
    pooled = np.asarray(noise["tokens"])
    assert stats.kstest(pooled.reshape(-1), "gumbel_r").pvalue > 1e-3
    chosen = np.take_along_axis(pooled, np.asarray(drawn["tokens"])[..., None], -1)
    assert stats.kstest(chosen.reshape(-1), "gumbel_r").pvalue < 1e-6


def test_samples_have_the_models_law():
    model = make(vocabulary=3, length=3)
    texts = np.array(list(itertools.product(range(3), repeat=3)))
    log_p = jax.jit(lambda texts: model.log_prob(params(model), KEY, {"tokens": texts}))(jnp.asarray(texts))
    drawn = np.asarray(sample(model, params(model), jax.random.key(3), 3_000)["tokens"])
    observed = np.array([(drawn == text).all(1).sum() for text in texts])
    expected = np.exp(np.asarray(log_p, np.float64))
    assert stats.chisquare(observed, 3_000 * expected / expected.sum()).pvalue > 1e-3


def test_evidence_that_sampling_could_not_have_drawn_is_named():
    model = make(DecodingConfig(top_k=1))
    greedy = sample(model, params(model), KEY, 2)
    again = predict(model, params(model), abduct(model, params(model), KEY, greedy))
    np.testing.assert_array_equal(again["tokens"], greedy["tokens"])
    wrong = {"tokens": greedy["tokens"].at[1, 4].set((greedy["tokens"][1, 4] + 1) % V)}
    with pytest.raises(UserError, match=r"evidence: token \d at place 4 of row 1 has probability 0 under sampling.top_k"):
        abduct(model, params(model), KEY, wrong)


# -- decoding ------------------------------------------------------------------------------------------------------------------


def naive(model, prompt, steps):
    text = prompt
    run = jax.jit(lambda text, i: model.conditionals(params(model), {"tokens": text})["tokens"].logits[:, i])
    text = jnp.pad(prompt, ((0, 0), (0, steps)))
    for i in range(prompt.shape[1], prompt.shape[1] + steps):
        text = text.at[:, i].set(jnp.argmax(run(text, i), -1))
    return text[:, prompt.shape[1] :]


def test_greedy_text_is_that_of_whole_passes_also_by_speculation():
    greedy, prompt = DecodingConfig(top_k=1), TOKENS[:, :2]
    engine = PLAIN.engine(params(PLAIN), slots=30)
    want = naive(PLAIN, prompt, 8)
    out = jax.jit(lambda: ar.generate(engine.prefill, engine.advance, KEY, prompt, greedy, steps=8))()
    np.testing.assert_array_equal(out.tokens, want)
    draft = make(transformer={"layers": 1})
    draft = draft.engine(params(draft), slots=30)
    spoken = jax.jit(lambda: speculate(engine, draft, KEY, prompt, greedy, steps=8, tree=Tree((2, 1))))()
    np.testing.assert_array_equal(spoken.tokens, want)


def test_beams_fork_the_cache():
    """Exhaustive over all texts of three tokens: scores are the model's own log-probabilities."""
    model = make(vocabulary=3, length=3)
    engine = model.engine(params(model))
    found = jax.jit(lambda: beam(engine.prefill, engine.advance, model.fork, jnp.zeros((2, 0), jnp.int32), beams=9, steps=3))()
    texts = jnp.array(list(itertools.product(range(3), repeat=3)))
    log_p = jax.jit(lambda texts: model.log_prob(params(model), KEY, {"tokens": texts}))(texts)
    order = jnp.argsort(-log_p)[:9]
    for row in range(2):
        np.testing.assert_allclose(found.score[row], log_p[order], atol=1e-4)
        np.testing.assert_array_equal(found.tokens[row], texts[order])


def test_classes_condition_and_guidance_without_weight_ignores_them():
    def tokens(omega: float, kind: int):
        model = make(DecodingConfig(omega=omega), classes=("kind",), drop=0.5)
        noise = {"tokens": jax.random.gumbel(KEY, (B, T, V))}
        return np.asarray(predict(model, params(make(classes=("kind",), drop=0.5)), noise, {"kind": jnp.full((B,), kind)})["tokens"])

    np.testing.assert_array_equal(tokens(0.0, 0), tokens(0.0, 1))
    assert (tokens(1.0, 0) != tokens(1.0, 1)).any()
    with pytest.raises(UserError, match="context: entry 'kind' is missing"):
        sample(make(classes=("kind",)), params(make(classes=("kind",))), KEY, 2)


# -- training ------------------------------------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=(0, 3))
def loss(model, params, batch, train=False):
    return model.loss(params, KEY, batch, step=jnp.int32(0), train=train)


def test_the_loss_is_the_mean_nll_of_scored_tokens():
    mask = (jnp.arange(T)[None] >= jnp.array([[0], [3], [9]])).astype(jnp.float32)
    total, aux = loss(PLAIN, params(PLAIN), {**BATCH, "loss_mask": mask})
    log_p = jax.nn.log_softmax(logits(PLAIN, params(PLAIN), BATCH))
    nll = -np.take_along_axis(np.asarray(log_p), np.asarray(TOKENS)[..., None], -1)[..., 0]
    np.testing.assert_allclose(total, [(row * m).sum() / m.sum() for row, m in zip(nll, np.asarray(mask), strict=True)], rtol=1e-5)
    np.testing.assert_array_equal(total, aux.terms["nll"])
    got = jax.jit(lambda b: PLAIN.log_prob(params(PLAIN), KEY, b))({**BATCH, "loss_mask": mask})
    np.testing.assert_allclose(got, -(nll * np.asarray(mask)).sum(1), rtol=1e-5)


def test_terms_enter_the_loss_at_their_weight():
    model = make(transformer={"experts": 3}, weights=WeightsConfig(z=0.5, balance=0.25))
    total, aux = loss(model, params(model), BATCH)
    np.testing.assert_allclose(total, aux.terms["nll"] + 0.5 * aux.terms["z"] + 0.25 * aux.terms["balance"], rtol=1e-6)
    lse = jax.nn.logsumexp(logits(model, params(model), BATCH), -1)
    np.testing.assert_allclose(aux.terms["z"], (lse**2).mean(-1), rtol=1e-5)


def test_dropped_classes_are_the_row_of_no_class():
    always = make(classes=("kind",), drop=1.0)
    nothing = {**BATCH, "kind": jnp.full((B,), 3)}
    np.testing.assert_allclose(loss(always, params(always), BATCH, True)[0], loss(always, params(always), nothing)[0], rtol=1e-6)
    assert (loss(always, params(always), BATCH)[0] != loss(always, params(always), nothing)[0]).any()


def test_captured_layers_come_back():
    model = make(capture=(1,))
    found = jax.eval_shape(lambda: model.conditionals(params(model), BATCH)["tokens"])
    assert {layer: h.shape for layer, h in found.hidden.items()} == {1: (B, T, 8)} and found.logits.shape == (B, T, V)
    assert {layer: seen.shape for layer, seen in found.attention.items()} == {1: (B, 2, T, T)}
    latent = make(capture=(0, 1), transformer={**LATENT, "scan": True})
    seen = jax.jit(lambda: latent.conditionals(params(latent), BATCH)["tokens"].attention)()
    assert set(seen) == {0, 1} and (np.triu(seen[0], 1) == 0).all()
    np.testing.assert_allclose(seen[1].sum(-1), 1, atol=1e-5)


@pytest.mark.slow
def test_compiling_a_step_takes_as_long_for_48_scanned_layers_as_for_12():
    """The best of three each, in turn; no two programs are alike, so that none comes from the cache."""

    def seconds(layers: int, turn: int) -> float:
        model = make(transformer={"layers": layers, "scan": True})
        train = TrainConfig(learning_rate=1e-3 + 1e-6 * turn + 1e-12 * (time.time_ns() % 100_000))
        state = jax.eval_shape(make_init(model, train))
        batch = jax.eval_shape(lambda: {"tokens": TOKENS})
        lowered = jax.jit(make_step(model, train)).lower(state, batch)
        start = time.perf_counter()
        lowered.compile()
        return time.perf_counter() - start

    found = np.array([[seconds(layers, turn) for layers in (12, 48)] for turn in range(3)])
    print(f"compile [s], 12 and 48 layers: {found.round(2).tolist()}")
    assert found[:, 1].min() <= 1.3 * found[:, 0].min(), found


# -- mistakes ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make_it", "kind", "message"),
    [
        (lambda: make(tokens="words"), ConfigError, "model.tokens: entry 'words' is not in the data"),
        (lambda: make(tokens="size"), ConfigError, "model.tokens: entry 'size' has shape"),
        (lambda: make(classes=("size",)), ConfigError, "model.classes: entry 'size'"),
        (lambda: make(DecodingConfig(omega=2.0)), ConfigError, "sampling.omega: 2.0 needs"),
        (lambda: make(visibility="causl()"), ConfigError, "unknown 'causl'; did you mean causal"),
        (lambda: make(visibility="causal() &"), ConfigError, "not an expression"),
        (lambda: make(visibility="__import__('os')"), ConfigError, "unknown '__import__'"),
        (lambda: make(visibility="window()"), ConfigError, "visibility 'window\\(\\)': missing"),
        (lambda: make(visibility="3"), ConfigError, "not a visibility"),
        (lambda: make(capture=(2,)), ConfigError, "capture"),
        (lambda: make(cache=CacheConfig("ring")), ConfigError, "needs a number of slots"),
        (lambda: make(length=20, transformer={"position": "learned"}), ConfigError, "16 positions for texts of 20"),
        (lambda: PLAIN.prefill(params(PLAIN), TOKENS, slots=5), ConfigError, "do not fit into 5 slots"),
        (lambda: abduct(PLAIN, params(PLAIN), KEY, {"tokens": TOKENS.at[1, 2].set(V)}), UserError, "token 7 at place 2 of row 1 is out"),
        (lambda: predict(PLAIN, params(PLAIN), PLAIN.noise(KEY, 2), do=do(tokens={10: 1})), InterventionError, "no such position"),
        (lambda: predict(PLAIN, params(PLAIN), PLAIN.noise(KEY, 2), do=do(tokens={1: V})), InterventionError, "token 7 is out of range"),
        (lambda: predict(PLAIN, params(PLAIN), PLAIN.noise(KEY, 2), do=do(tokens=3)), InterventionError, "name their positions"),
        (lambda: predict(PLAIN, params(PLAIN), PLAIN.noise(KEY, 2), do=shift(tokens={1: 1})), InterventionError, "only do sets them"),
        (
            lambda: logits(make(visibility="causal() & same_segment()"), params(PLAIN), BATCH),
            ConfigError,
            "no field 'segment'",
        ),
    ],
)
def test_mistakes_are_named_in_one_line(make_it, kind, message):
    with pytest.raises(kind, match=message) as error:
        make_it()
    assert "\n" not in str(error.value)
