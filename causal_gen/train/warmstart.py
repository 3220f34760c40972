"""Where training starts other than at random: parameters of earlier runs, by `train.init_from = {path regex: workdir[:subtree]}`.

A leaf whose path the regex is found in is taken from the run's checkpoint (its averaged parameters where it kept them): at the same path,
or with a subtree, at the path in which that stands for what the regex found. {"^(embed|decoder)": "runs/text"} takes two entries as they
are, {"^encoder": "runs/text:decoder"} what the other run calls decoder. A file that experiments.export wrote stands for its run. Applied
once, at step 0; the new run saves what it got. Before that a model that has parameters in closed form takes them from the training rows.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.parallel.rules import leaf_path
from causal_gen.train import export
from causal_gen.train.checkpoint import Checkpoints
from causal_gen.train.state import State
from causal_gen.types import Array, CheckpointError, ConfigError, Params, PyTree, WorkdirError


def fitted(state: State, model: Any, data: Any, placed: PyTree) -> State:
    """The state of step 0 with the parameters that `model` has in closed form, from all training rows, where it has any (`model.fit`)."""
    if not hasattr(model, "fit"):
        return state
    rows = data.gather("train", np.arange(data.size("train")))
    return _with(state, model.fit(state.params, rows), placed)


def _with(state: State, params: Params, placed: PyTree) -> State:
    params = jax.tree.map(jax.device_put, params, placed)
    ema = None if state.ema is None else jax.tree.map(jnp.copy, params)  # its own buffers, since the state is donated
    return dataclasses.replace(state, params=params, ema=ema)


def start(state: State, init_from: Mapping[str, str], placed: PyTree) -> tuple[State, dict[str, Any]]:
    """The state of step 0 with what `init_from` names in its parameters and their average, placed like `placed`; and what was taken.

    The second is {regex: {workdir, step, leaves}}, for metadata.json. Raises `WorkdirError` or `ConfigError` of one line.
    """
    params, origin = state.params, {}
    for pattern, source in init_from.items():
        params, origin[pattern] = _take(params, pattern, source)
    if not origin:
        return state, {}
    return _with(state, params, placed), origin


def _take(params: Params, pattern: str, source: str) -> tuple[Params, dict[str, Any]]:
    folder, _, subtree = source.partition(":")
    what = f"train.init_from {pattern!r}"
    stored, step = _stored(folder, what)
    taken = 0

    def one(path: tuple, leaf: Array) -> Array:
        nonlocal taken
        name = leaf_path(path)
        found = re.search(pattern, name)
        if not found:
            return leaf
        there = name[: found.start()] + subtree + name[found.end() :] if subtree else name
        if there not in stored:
            near = sorted({other.partition("/")[0] for other in stored})
            raise ConfigError(f"{what}: {folder} holds no {there}, for {name}; its entries are {', '.join(near)}")
        if stored[there].shape != leaf.shape:
            shapes = f"{tuple(stored[there].shape)} in {folder}, {tuple(leaf.shape)} in this config"
            raise ConfigError(f"{what}: {there} is {shapes}; give both the same model and data, or a narrower regex")
        taken += 1
        return jnp.asarray(stored[there], leaf.dtype)

    params = jax.tree_util.tree_map_with_path(one, params)
    if not taken:
        names = sorted({leaf_path(path).partition("/")[0] for path, _ in jax.tree_util.tree_leaves_with_path(params)})
        raise ConfigError(f"{what} is found in no parameter; they begin with {', '.join(names)}")
    return params, {"workdir": folder, "step": step, "leaves": taken}


def _stored(folder: str, what: str) -> tuple[Mapping[str, Any], int]:
    """{path: array} of a run's newest checkpoint that is whole or of an exported file, and its step."""
    if folder.endswith(export.SUFFIX):
        try:
            exported = export.read(folder)
        except CheckpointError as error:
            raise CheckpointError(f"{what}: {error}") from error
        return exported.leaves, exported.step
    if not (Path(folder) / "checkpoints").is_dir():
        raise WorkdirError(f"{what}: {folder or 'nothing'} is no workdir of a trained run; write workdir, workdir:subtree or a file")
    try:
        with Checkpoints(Path(folder) / "checkpoints", read_only=True) as saved:
            _, tree, step, _ = saved.stored()
    except CheckpointError as error:
        raise CheckpointError(f"{what}: {error}") from error
    return {leaf_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}, step
