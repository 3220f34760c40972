"""A trained model as one file for elsewhere: parameters, config and where they come from in the safetensors format, and a card to read.

    FILE.safetensors   the parameters that are sampled from, {path of a leaf: array}; in its header the config, step and graph as JSON
    FILE.md            the model card

Paths are those of the parameter table and of `train.init_from`, with slashes; dtypes are kept. The format has no checksum of its own, so
the header also holds a hash of every leaf, and one of what it says itself; `read` compares both.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from causal_gen.parallel.rules import leaf_path
from causal_gen.train.checkpoint import CheckpointConfig, Checkpoints
from causal_gen.train.checkpoint_hash import hash_host
from causal_gen.types import CheckpointError, UserError

SUFFIX = ".safetensors"


class ExportError(UserError):
    """A file that cannot be written."""


@dataclasses.dataclass(frozen=True)
class Exported:
    """What a file holds. `averaged` says whether `leaves` {path: array} are an average over training; `graph` has nodes and edges."""

    leaves: dict[str, np.ndarray]
    config: dict[str, Any]
    graph: dict[str, Any]
    step: int
    averaged: bool


def read_run(workdir: str | Path, step: int | str | None = None, config: CheckpointConfig | None = None) -> Exported:
    """What a workdir would export: of its newest checkpoint that is whole, of `step`, or of the "best". Raises CheckpointError."""
    with Checkpoints(Path(workdir) / "checkpoints", config, read_only=True) as saved:
        item, tree, found, meta = saved.stored(saved.best() if step == "best" else step)
    leaves = {leaf_path(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    return Exported(leaves, meta["config"], meta["graph"], found, item == "ema")


def write(exported: Exported, file: str | Path, card: str) -> None:
    """FILE.safetensors and its card, each whole or not at all. Raises ExportError."""
    file = Path(file)
    about = {name: value for name, value in vars(exported).items() if name != "leaves"}
    leaves = {path: np.asarray(leaf, order="C") for path, leaf in exported.leaves.items()}  # the library writes memory as it lies
    text = json.dumps({**about, "hashes": {path: hash_host(leaf) for path, leaf in leaves.items()}})
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(leaves, str(temporary), metadata={"format": "np", "causal_gen": text, "sha256": _sha256(text)})
        os.replace(temporary, file)
        temporary.write_text(card, encoding="utf-8")
        os.replace(temporary, file.with_suffix(".md"))
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise ExportError(f"cannot write {file} ({error}): free space there, or give another --out") from error


def read(file: str | Path) -> Exported:
    """What `write` wrote. Raises CheckpointError for a file that is missing, damaged or of another kind."""
    try:
        with safe_open(str(file), framework="np") as opened:
            header = opened.metadata() or {}
            leaves = {path: opened.get_tensor(path) for path in opened.keys()}  # noqa: SIM118  (no mapping)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file} is no safetensors file that can be read ({error}): export it again") from error
    if "causal_gen" not in header:
        raise CheckpointError(f"{file} was not written by experiments.export: its header names neither config nor step")
    if header.get("sha256") != _sha256(header["causal_gen"]):
        raise CheckpointError(f"{file} is damaged: its header differs from what was written; export it again")
    about = json.loads(header["causal_gen"])
    hashes = about.pop("hashes")
    for path in sorted(leaves.keys() | hashes.keys()):
        if path not in leaves or hash_host(leaves[path]) != hashes.get(path):
            raise CheckpointError(f"{file} is damaged: {path} differs from what was written; export it again")
    return Exported(leaves=leaves, **about)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def card(exported: Exported, file: str | Path, scores: Mapping[str, Any] | None = None) -> str:
    """The model card as Markdown: what it is, what it assumes, what was measured (`scores`: evaluate/metrics.json), how to use it."""
    file, config, graph = Path(file), exported.config, exported.graph
    name, data = config["model"]["name"], config["data"]["name"]
    count = sum(int(np.prod(leaf.shape, dtype=np.int64)) for leaf in exported.leaves.values())
    size = sum(leaf.nbytes for leaf in exported.leaves.values())
    dtypes = sorted({str(leaf.dtype) for leaf in exported.leaves.values()})
    kind = "averaged over training (EMA)" if exported.averaged else "of the last update, no average was kept"
    edges = ", ".join(f"{parent} -> {child}" for parent, child in graph["edges"]) or "none"
    table = [f"| {path} | {value:.6g} |" for path, value in _numbers(scores or {})]
    measured = ["| measure | value |", "|---|---|", *table] if table else ["Nothing: `experiments.evaluate` was not run before the export."]
    lines = [
        "---",
        "library_name: causal-gen",
        "tags: [causal-generation, counterfactuals, jax, flax]",
        "---",
        "",
        f"# {name} on {data}",
        "",
        f"{count:,} parameters ({size:,} bytes, {', '.join(dtypes)}), {kind}, after {exported.step:,} steps of training.",
        "",
        "## What it assumes",
        "",
        f"Variables: {', '.join(graph['nodes'])}. Direct causes: {edges}.",
        "Its answers are counterfactuals of the fitted model. They hold for the world as far as that graph does, and as far as the",
        "data, which is named above, stands for it; where variables are discrete they rest on the Gumbel-max choice of noise as well.",
        "",
        "## What was measured",
        "",
        *measured,
        "",
        "## Use",
        "",
        "Start another run from these parameters (the names of its leaves are those of the file):",
        "",
        f'    python -m experiments.train --config=CONFIG.py --workdir=RUN --config.train.init_from=\'{{".*": "{file.name}"}}\'',
        "",
        "Read them without this project:",
        "",
        f'    from safetensors.numpy import load_file; leaves = load_file("{file.name}")',
        "",
        "## Config",
        "",
        "```json",
        json.dumps(config, indent=2),
        "```",
        "",
    ]
    return "\n".join(lines)


def _numbers(tree: Mapping[str, Any], path: str = "") -> list[tuple[str, float]]:
    """The scalars of nested metrics, with dotted paths."""
    found: list[tuple[str, float]] = []
    for name, value in tree.items():
        where = f"{path}.{name}" if path else str(name)
        if isinstance(value, Mapping):
            found += _numbers(value, where)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found.append((where, float(value)))
    return found
