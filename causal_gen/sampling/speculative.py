"""Speculative decoding with several candidates in a tree, lossless: every token is distributed as if the target had drawn it.

A draft grows a tree of candidates below the last token; the target scores the whole tree in one call, in which a candidate sees its
ancestors alone; a walk from the root accepts candidates or refuses them:

    children of a node: c_1, c_2, ... drawn from the draft's q without replacement, c_i ~ q_i = q off c_1 .. c_{i-1}       (1)
    accept c_i with probability min(1, p_i(c_i) / q_i(c_i)),   p_1 = p the target's law at the node                      (2)
    if refused:  p_{i+1} = (p_i - q_i)^+ / sum (p_i - q_i)^+                                                            (3)
    with no child left: draw from the last p_i, and stop; at an accepted leaf draw from its p                           (4)

By (2) and (3) the token chosen at a node has law p exactly, for any q and any number of children. (1) is Gumbel-top-k: the k largest of
log q + Gumbel noise, in order. Each round so yields between 1 and depth + 1 tokens for one call of the target. Sources: Leviathan et
al. 2023, alg. 1; Miao et al. 2024 (SpecInfer), tree verification; Yang et al. 2024 (MCSD), alg. 2, and Jeon et al. 2024 for (1).

One text is written here; `speculate` maps it over a batch, so that rows may accept different numbers. Letters: b batch, n nodes,
v vocabulary.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

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

    Tokens of a tree come with fields [b, k]: "depth" (0: what follows the committed text directly), "enter" and "leave" (`tree` of
    structure/masks.py), "node", their number among the tokens advanced since the last commit, and "parent", the node that they follow.
    """

    prefill: Prefill
    advance: Advance
    commit: Callable[[PyTree, Array], PyTree]


@dataclasses.dataclass(frozen=True)
class Tree:
    """`branches[d]` candidates below each node of depth d; (4,) is four single tokens, (1, 1, 1) the classic chain of three."""

    branches: tuple[int, ...] = (2, 2, 1)

    def __post_init__(self):
        if not self.branches or min(self.branches) < 1:
            raise ConfigError(f"speculation: a tree with branches {self.branches} has no candidates; give at least one a level")

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
    """`tokens` i32 [b, n], padded after `length` [b]; `rounds` [b] calls of the target gave `drawn` [b] tokens, past the end or not."""

    tokens: Any
    length: Any
    rounds: Any
    drawn: Any


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
    one = functools.partial(_one, target, draft, config, steps, tree, stop or Stop())
    return jax.vmap(one)(jax.random.split(key, prompt.shape[0]), prompt)


def _one(target: Engine, draft: Engine, config: DecodingConfig, steps: int, tree: Tree, stop: Stop, key: Key, prompt: Array) -> Speculation:
    logits, target_cache = target.prefill(prompt[None])
    _, draft_cache = draft.prefill(prompt[None])
    first = gumbel.draw(*_perturbed(jax.random.fold_in(key, 0), logits[:, -1], config))
    # room for a last round that begins one token short of the end
    tokens = jnp.full((1, steps + tree.depth), stop.pad, jnp.int32).at[:, 0].set(first)

    def body(carry: tuple) -> tuple:
        i, count, tokens, target_cache, draft_cache, _ = carry
        root = jax.lax.dynamic_index_in_dim(tokens, count - 1, 1, keepdims=False)
        keys = jax.random.split(jax.random.fold_in(key, i), 2)
        nodes, laws, draft_cache = grow(draft.advance, draft_cache, keys[0], root[0], config, tree)
        logits, target_cache = target.advance(target_cache, nodes[None], _rows(tree.fields(), slice(None)))
        path, accepted, last = verify(keys[1], warp(logits[0].astype(jnp.float32), config), nodes, laws, tree)
        kept = jnp.where(jnp.arange(tree.depth + 1) <= accepted, path, -1)[None]
        target_cache, draft_cache = target.commit(target_cache, kept), draft.commit(draft_cache, kept)
        found = jnp.where(jnp.arange(1, tree.depth + 2) <= accepted, nodes[jnp.append(path[1:], 0)], last)
        drawn = jax.lax.dynamic_update_slice_in_dim(tokens, found[None], count, 1)
        over = jnp.zeros((1,), bool)
        for extra in range(1, tree.depth + 2):
            over = over | (stop(drawn, count + extra) & (extra <= accepted + 1))
        return i + 1, count + accepted + 1, drawn, target_cache, draft_cache, over

    carry = (jnp.int32(1), jnp.int32(1), tokens, target_cache, draft_cache, stop(tokens, jnp.int32(1)))
    rounds, count, tokens, *_ = jax.lax.while_loop(lambda carry: (carry[1] < steps) & ~carry[-1].all(), body, carry)
    length = jnp.minimum(_ended(tokens, count, stop), steps)
    text = jnp.where(jnp.arange(tokens.shape[1]) < length, tokens[0], stop.pad)[:steps]
    return Speculation(text, length, rounds - 1, count - 1)


def grow(
    advance: Advance, cache: PyTree, key: Key, root: Int[Array, ""], config: DecodingConfig, tree: Tree
) -> tuple[Int[Array, "n"], Float[Array, "m v"], PyTree]:
    """A tree of candidates below `root`, eq. (1): tokens of all nodes, the draft's log-law at every node that is not a leaf, the cache.

    The draft reads the leaves too, so that its cache holds whatever path is accepted.
    """
    fields, level, nodes, laws = tree.fields(), root[None], [root[None]], []
    for d in range(tree.depth + 1):
        logits, cache = advance(cache, level[None], _rows(fields, tree.level(d)))
        if d == tree.depth:
            break
        log_q, noise = _perturbed(jax.random.fold_in(key, d), logits[0], config)
        laws.append(jax.nn.log_softmax(log_q))
        _, level = jax.lax.top_k(log_q + noise, tree.branches[d])
        level = level.reshape(-1).astype(jnp.int32)
        nodes.append(level)
    return jnp.concatenate(nodes), jnp.concatenate(laws), cache


def verify(
    key: Key, logits: Float[Array, "n v"], nodes: Int[Array, "n"], laws: Float[Array, "m v"], tree: Tree
) -> tuple[Int[Array, "d"], Int[Array, ""], Int[Array, ""]]:
    """The accepted path, eqs. (2-4): its nodes, the root first; how many of them below the root were accepted; the token after the last."""
    p, accepted = jax.nn.softmax(logits[0]), jnp.int32(0)
    path, alive = [jnp.int32(0)], jnp.bool_(True)
    vocabulary = jnp.arange(logits.shape[-1])
    for d, branch in enumerate(tree.branches):
        q, moved, chosen = jnp.exp(laws[path[-1]]), jnp.bool_(False), path[-1]
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
