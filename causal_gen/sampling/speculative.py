"""Speculative decoding with several candidates in a tree, lossless: every token is distributed as if the target had drawn it.

A draft grows a tree of candidates below the last token; the target scores the whole tree in one call, in which a candidate sees its
ancestors alone; a walk from the root accepts candidates or refuses them:

    children of a node: c_1, c_2, ... drawn from the draft's q without replacement, c_i ~ q_i = q off c_1 .. c_{i-1}       (1)
    accept c_i with probability min(1, p_i(c_i) / q_i(c_i)),   p_1 = p the target's law at the node                      (2)
    if refused:  p_{i+1} = (p_i - q_i)^+ / sum (p_i - q_i)^+                                                            (3)
    with no child left: draw from the last p_i, and stop; at an accepted leaf draw from its p                           (4)

By (2) and (3) the token chosen at a node has law p exactly, for any q and any number of children. (1) is Gumbel-top-k: the k largest of
log q + Gumbel noise, in order. Each round so yields between 1 and depth + 1 tokens for one call of the target. The root is drawn from
the target (Lu et al. 2024 draw several such roots: by (2) the first of them is always accepted, so that one is all a lossless tree needs).

Where the noise g of every place is given, tokens are a function of it, and the same tree finds them in fewer calls:

    x_i = argmax_v (log p(v | x_<i) + g_iv),    children of a node at place i: the k largest of log q + g_i               (5)

A child is right or wrong; what comes out is ar.py's `replay`, token for token.

A tree need not be drawn to its end: with `least` it goes on below a level only where

    max over its nodes of  prod of a along the path  >=  least                                                            (6)

and the target is called on the levels that are there, a slice of the tree and of its mask. a is the draft's own q of a candidate, or, where
the draft has a `trust`, the learned chance that a candidate drawn where this one was drawn is accepted (nn/acceptance.py). (6) looks at the
draft alone, never at what the target will say, so that nothing of the above changes.
Sources: Leviathan et al. 2023, alg. 1; Miao et al. 2024 (SpecInfer), tree verification; Yang et al. 2024 (MCSD), alg. 2, and Jeon et al.
2024 for (1); (5) Daliri, Musco and Suresh 2025; (6) Li et al. 2024 (EAGLE-2) with q, Lu et al. 2024 with a decision that is learned.

One text is written here; `speculate` and `replay` map it over a batch, so that rows may accept different numbers. Letters: b batch,
n nodes, m nodes with children, v vocabulary.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.sampling import gumbel
from causal_gen.sampling.ar import Advance, Prefill, Stop
from causal_gen.sampling.truncation import DecodingConfig, warp
from causal_gen.structure.masks import tree_fields
from causal_gen.types import Array, Bool, ConfigError, Float, Int, Key, PyTree


@dataclasses.dataclass(frozen=True)
class Engine:
    """A model as decoding sees it: eqs. (1, 2) of ar.py, and `commit(cache, indices [b, m])`, which takes back all other new tokens.

    `widen(cache, slots)` gives it room for more tokens, where it can be given more; None where it cannot. `trust(logits [m, v])` of a draft
    is log a [m] of eq. (6); None for q.

    Tokens of a tree come with fields [b, k]: "depth" (0: what follows the committed text directly), "enter" and "leave" (`tree` of
    structure/masks.py), "node", their number among the tokens advanced since the last commit, and "parent", the node that they follow.
    """

    prefill: Prefill
    advance: Advance
    commit: Callable[[PyTree, Array], PyTree]
    widen: Callable[[PyTree, int], PyTree] | None = None
    trust: Callable[[Array], Array] | None = None


@dataclasses.dataclass(frozen=True)
class Tree:
    """`branches[d]` candidates below each node of depth d; (4,) is four single tokens, (1, 1, 1) the classic chain of three.

    `least` is that of eq. (6); with 0 every tree is drawn whole.
    """

    branches: tuple[int, ...] = (2, 2, 1)
    least: float = 0.0

    def __post_init__(self):
        if not self.branches or min(self.branches) < 1:
            raise ConfigError(f"speculation: a tree with branches {self.branches} has no candidates; give at least one a level")
        if not 0 <= self.least <= 1:
            raise ConfigError(f"speculation: least={self.least} is a probability, below which a tree is cut; give one in 0..1")

    @property
    def depth(self) -> int:
        """Levels below the root."""
        return len(self.branches)

    @functools.cached_property
    def sizes(self) -> tuple[int, ...]:
        """Nodes a level, the root first."""
        return tuple(itertools.accumulate(self.branches, lambda size, branch: size * branch, initial=1))

    @functools.cached_property
    def parents(self) -> np.ndarray:
        """The parent of every node, level by level, -1 for the root; the children of a node are neighbours."""
        above = [self.level(d).start + np.arange(size) // self.branches[d] for d, size in enumerate(self.sizes[1:])]
        return np.concatenate([[-1], *above]).astype(np.int32)

    def level(self, d: int) -> slice:
        """The nodes of depth d."""
        start = sum(self.sizes[:d])
        return slice(start, start + self.sizes[d])

    def fields(self) -> dict[str, np.ndarray]:
        """What `Engine.advance` is told of the nodes, i32 [n]."""
        depth = np.repeat(np.arange(len(self.sizes)), self.sizes).astype(np.int32)
        with jax.ensure_compile_time_eval():
            walk = {name: np.asarray(value) for name, value in tree_fields(self.parents.tolist()).items()}
        return {"depth": depth, "node": np.arange(len(depth), dtype=np.int32), "parent": self.parents, **walk}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Speculation:
    """`tokens` i32 [b, n], padded after `length` [b]; `rounds` [b] calls of the target gave `drawn` [b] tokens, past the end or not, from
    `levels` [b] levels of candidates."""

    tokens: Any
    length: Any
    rounds: Any
    drawn: Any
    levels: Any


def speculate(
    target: Engine,
    draft: Engine,
    key: Key,
    prompt: Int[Array, "b p"],
    config: DecodingConfig,
    *,
    steps: int,
    tree: Tree,
    stop: Stop | None = None,
) -> Speculation:
    """`steps` tokens after `prompt`, as `generate` would draw them from the target. Jit it whole.

    `config` warps target and draft alike. Caches need room for the prompt, `steps` and a whole tree. Raises `ConfigError` for a repetition
    penalty, which would make a node's law hang on its path.
    """
    if steps < 1:
        raise ConfigError(f"sampling: {steps} tokens to draw; give at least 1")
    if config.repetition != 1:
        raise ConfigError("speculation: sampling.repetition is not supported, a node's law would hang on its path; set it to 1")
    one = functools.partial(_one, target, draft, steps, tree, stop or Stop())
    return jax.vmap(lambda key, prompt: one(_Fresh(key, config), prompt))(jax.random.split(key, prompt.shape[0]), prompt)


def replay(
    target: Engine,
    draft: Engine,
    noise: Float[Array, "b n v"],
    forced: Bool[Array, "b n"],
    values: Int[Array, "b n"],
    config: DecodingConfig,
    tree: Tree,
) -> Speculation:
    """Whole texts as a function of their noise, eq. (5), with `values` put where `forced`: the tokens of `ar.replay` on the target."""
    num, steps, _ = noise.shape
    none = jnp.zeros((num, 0), jnp.int32)
    # a last round looks beyond the end; what it finds there is cut off
    noise, forced, values = (jnp.pad(x, ((0, 0), (0, tree.depth + 1), *[(0, 0)] * (x.ndim - 2))) for x in (noise, forced, values))
    one = functools.partial(_one, target, draft, steps, tree, Stop())
    return jax.vmap(lambda prompt, g, force, value: one(_Given(g, force, value, config), prompt))(none, noise, forced, values)


@runtime_checkable
class _Chance(Protocol):
    """Where a text's chance comes from: at `place` of the text, in `round` of the loop."""

    def first(self, logits: Array) -> Array:
        """The token at place 0, from logits [1, v]."""
        ...

    def candidates(self, round: Array, place: Array, level: int, logits: Array, branch: int) -> tuple[Array, Array]:
        """`branch` children [m, branch] of each of m nodes of a level, and the draft's law there; `place` is theirs."""
        ...

    def walk(
        self, round: Array, place: Array, logits: Array, nodes: Array, laws: Array, tree: Tree, grown: Array
    ) -> tuple[Array, Array, Array]:
        """As `verify`; `place` is that of the root's children."""
        ...


@dataclasses.dataclass(frozen=True)
class _Fresh:
    """Fresh draws, eqs. (1-4)."""

    key: Key
    config: DecodingConfig

    def first(self, logits: Array) -> Array:
        return gumbel.draw(*_perturbed(jax.random.fold_in(self.key, 0), logits, self.config))

    def candidates(self, round: Array, place: Array, level: int, logits: Array, branch: int) -> tuple[Array, Array]:
        key = jax.random.split(jax.random.fold_in(self.key, round), 2)[0]
        log_q, noise = _perturbed(jax.random.fold_in(key, level), logits, self.config)
        return jax.lax.top_k(log_q + noise, branch)[1], jax.nn.log_softmax(log_q)

    def walk(
        self, round: Array, place: Array, logits: Array, nodes: Array, laws: Array, tree: Tree, grown: Array
    ) -> tuple[Array, Array, Array]:
        key = jax.random.split(jax.random.fold_in(self.key, round), 2)[1]
        return verify(key, warp(logits.astype(jnp.float32), self.config), nodes, laws, tree, grown)


@dataclasses.dataclass(frozen=True)
class _Given:
    """Noise [n, v] that is given, eq. (5), and tokens `values` [n] where `forced`."""

    noise: Array
    forced: Array
    values: Array
    config: DecodingConfig

    def first(self, logits: Array) -> Array:
        return self._token(jnp.int32(0), warp(logits.astype(jnp.float32), self.config))

    def _token(self, place: Array, warped: Array) -> Array:
        return jnp.where(self.forced[place], self.values[place], gumbel.draw(warped, self.noise[place][None]))

    def candidates(self, round: Array, place: Array, level: int, logits: Array, branch: int) -> tuple[Array, Array]:
        log_q = warp(logits.astype(jnp.float32), self.config)
        sure = jax.nn.one_hot(self.values[place], log_q.shape[-1], dtype=bool) & self.forced[place]
        return jax.lax.top_k(jnp.where(sure[None], jnp.inf, log_q + self.noise[place][None]), branch)[1], jax.nn.log_softmax(log_q)

    def walk(
        self, round: Array, place: Array, logits: Array, nodes: Array, laws: Array, tree: Tree, grown: Array
    ) -> tuple[Array, Array, Array]:
        warped = warp(logits.astype(jnp.float32), self.config)
        right = self._token(place, warped[:1])[0]
        path, accepted, alive = [jnp.int32(0)], jnp.int32(0), jnp.bool_(True)
        for d, branch in enumerate(tree.branches):
            first = tree.level(d + 1).start + (path[-1] - tree.level(d).start) * branch
            hit = jax.lax.dynamic_slice_in_dim(nodes, first, branch) == right
            alive = alive & hit.any() & (d < grown)
            path.append(jnp.where(alive, first + jnp.argmax(hit), path[-1]))
            accepted = accepted + alive
            right = jnp.where(alive, self._token(place + d + 1, warped[path[-1]][None])[0], right)
        return jnp.stack(path), accepted, right


def _one(target: Engine, draft: Engine, steps: int, tree: Tree, stop: Stop, chance: _Chance, prompt: Array) -> Speculation:
    logits, target_cache = target.prefill(prompt[None])
    _, draft_cache = draft.prefill(prompt[None])
    # room for a last round that begins one token short of the end
    tokens = jnp.full((1, steps + tree.depth), stop.pad, jnp.int32).at[:, 0].set(chance.first(logits[:, -1]))

    def body(carry: tuple) -> tuple:
        i, count, levels, tokens, target_cache, draft_cache, _ = carry
        root = jax.lax.dynamic_index_in_dim(tokens, count - 1, 1, keepdims=False)
        draw = functools.partial(chance.candidates, i)
        nodes, laws, draft_cache, grown = grow(draft.advance, draft_cache, draw, count, root[0], tree, draft.trust)
        logits, target_cache = _score(target.advance, target_cache, nodes, tree, grown)
        path, accepted, last = chance.walk(i, count, logits[0], nodes, laws, tree, grown)
        kept = jnp.where(jnp.arange(tree.depth + 1) <= accepted, path, -1)[None]
        target_cache, draft_cache = target.commit(target_cache, kept), draft.commit(draft_cache, kept)
        found = jnp.where(jnp.arange(1, tree.depth + 2) <= accepted, nodes[jnp.append(path[1:], 0)], last)
        drawn = jax.lax.dynamic_update_slice_in_dim(tokens, found[None], count, 1)
        over = jnp.zeros((1,), bool)
        for extra in range(1, tree.depth + 2):
            over = over | (stop(drawn, count + extra) & (extra <= accepted + 1))
        return i + 1, count + accepted + 1, levels + grown, drawn, target_cache, draft_cache, over

    carry = (jnp.int32(1), jnp.int32(1), jnp.int32(0), tokens, target_cache, draft_cache, stop(tokens, jnp.int32(1)))
    rounds, count, levels, tokens, *_ = jax.lax.while_loop(lambda carry: (carry[1] < steps) & ~carry[-1].all(), body, carry)
    length = jnp.minimum(_ended(tokens, count, stop), steps)
    text = jnp.where(jnp.arange(tokens.shape[1]) < length, tokens[0], stop.pad)[:steps]
    return Speculation(text, length, rounds - 1, count - 1, levels)


def grow(
    advance: Advance,
    cache: PyTree,
    draw: Callable[..., tuple[Array, Array]],
    place: Array,
    root: Int[Array, ""],
    tree: Tree,
    trust: Callable[[Array], Array] | None = None,
) -> tuple[Int[Array, "n"], Float[Array, "m v"], PyTree, Int[Array, ""]]:
    """A tree of candidates below `root`, whose children stand at `place`: tokens of all nodes, the draft's log-law at every node that
    is not a leaf, the cache, and how many levels were drawn; zeros stand for the rest. `draw(place, level, logits [m, v], branch)` chooses
    children and tells the law; `trust` is the engine's.

    The draft reads the leaves too, so that its cache holds whatever path is accepted.
    """
    fields = tree.fields()

    def below(d: int, level: Array, reach: Array, cache: PyTree) -> tuple[Array, Any, PyTree, Array]:
        """What is below level d, where `reach` [m] are the logarithms of eq. (6) for its paths."""
        logits, cache = advance(cache, level[None], _rows(fields, tree.level(d)))
        if d == tree.depth:
            return level, None, cache, jnp.int32(0)
        children, law = draw(place + d, d, logits[0], tree.branches[d])
        sure = jnp.take_along_axis(law, children, 1) if trust is None else jnp.broadcast_to(trust(logits[0])[:, None], children.shape)
        further = (reach[:, None] + sure).reshape(-1)

        def more(cache: PyTree) -> tuple[Array, Any, PyTree, Array]:
            nodes, laws, cache, grown = below(d + 1, children.reshape(-1).astype(jnp.int32), further, cache)
            return jnp.concatenate([level, nodes]), law if laws is None else jnp.concatenate([law, laws]), cache, grown + 1

        def none(cache: PyTree) -> tuple[Array, Any, PyTree, Array]:
            rest = [jnp.zeros(leaf.shape, leaf.dtype) for leaf in jax.eval_shape(more, cache)[:2]]
            return rest[0].at[: len(level)].set(level), rest[1], cache, jnp.int32(0)

        if not tree.least or not d:  # the first level is always drawn
            return more(cache)
        return jax.lax.cond(reach.max() >= np.log(tree.least), more, none, cache)

    return below(0, root[None], jnp.zeros(1), cache)


def _score(advance: Advance, cache: PyTree, nodes: Array, tree: Tree, grown: Array) -> tuple[Array, PyTree]:
    """The target's logits [1, n, v] of the levels that were drawn, zeros for the rest."""
    fields = tree.fields()

    def upto(d: int) -> Callable[[PyTree], tuple[Array, PyTree]]:
        there = slice(tree.level(d).stop)

        def call(cache: PyTree) -> tuple[Array, PyTree]:
            logits, cache = advance(cache, nodes[None, there], _rows(fields, there))
            return jnp.pad(logits, ((0, 0), (0, len(nodes) - logits.shape[1]), (0, 0))), cache

        return call

    if not tree.least:
        return upto(tree.depth)(cache)
    return jax.lax.switch(grown - 1, [upto(d) for d in range(1, tree.depth + 1)], cache)


def verify(
    key: Key, logits: Float[Array, "n v"], nodes: Int[Array, "n"], laws: Float[Array, "m v"], tree: Tree, grown: Int[Array, ""]
) -> tuple[Int[Array, "d"], Int[Array, ""], Int[Array, ""]]:
    """The accepted path, eqs. (2-4), in the first `grown` levels: its nodes, the root first; how many of them below the root were accepted;
    the token after the last."""
    p, accepted = jax.nn.softmax(logits[0]), jnp.int32(0)
    path, alive = [jnp.int32(0)], jnp.bool_(True)
    vocabulary = jnp.arange(logits.shape[-1])
    for d, branch in enumerate(tree.branches):
        q, moved, chosen, alive = jnp.exp(laws[path[-1]]), jnp.bool_(False), path[-1], alive & (d < grown)
        first = tree.level(d + 1).start + (path[-1] - tree.level(d).start) * branch
        for i in range(branch):
            token = nodes[first + i]
            ratio = p[token] / jnp.maximum(q[token], jnp.finfo(jnp.float32).tiny)
            # a candidate of draft probability zero (fewer tokens than branches) was not drawn from q: it is passed over
            drawn = q[token] > 0
            take = alive & ~moved & drawn & (jax.random.uniform(jax.random.fold_in(key, d * 1000 + i)) < ratio)
            chosen, moved = jnp.where(take, first + i, chosen), moved | take
            p = jnp.where(alive & ~moved & drawn, _residual(p, q), p)
            q = _normalise(jnp.where(vocabulary == token, 0, q))
        alive = alive & moved
        accepted = accepted + alive
        p = jnp.where(alive, jax.nn.softmax(logits[chosen]), p)
        path.append(chosen)
    last = gumbel.draw(jnp.log(p), gumbel.prior(jax.random.fold_in(key, 999_999), p.shape))
    return jnp.stack(path), accepted, last


def _residual(p: Array, q: Array) -> Array:
    """Eq. (3); where nothing is left (p = q to rounding) a refusal has probability zero, and p stays."""
    rest = jnp.maximum(p - q, 0)
    return jnp.where(rest.sum() > 0, _normalise(rest), p)


def _normalise(p: Array) -> Array:
    return p / jnp.maximum(p.sum(), jnp.finfo(jnp.float32).tiny)


def _perturbed(key: Key, logits: Array, config: DecodingConfig) -> tuple[Array, Array]:
    """Warped logits and fresh noise for them."""
    warped = warp(logits.astype(jnp.float32), config)
    return warped, gumbel.prior(key, warped.shape)


def _rows(fields: dict[str, np.ndarray], nodes: slice) -> dict[str, Array]:
    return {name: jnp.asarray(value[nodes])[None] for name, value in fields.items()}


def _ended(tokens: Array, count: Array, stop: Stop) -> Bool[Array, ""] | Any:
    """Where a text ends: after the first token that stops it, else after `count`."""
    places = jnp.arange(1, tokens.shape[1] + 1)
    stops = jax.vmap(lambda place: stop(tokens, place)[0])(places) & (places <= count)
    return jnp.where(stops.any(), jnp.argmax(stops) + 1, count)
