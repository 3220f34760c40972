"""The one compile path: a pure `step(state, batch, axis=None) -> (state, metrics)` over a mesh, with the state donated.

mode "jit" shards state and batch by NamedSharding and lets XLA place the collectives. mode "pmap" runs the same function replicated, one
slice of the batch a device; the step then reduces over the named axis itself, which is why a loss that mixes examples is refused there.
While it is traced the mesh is JAX's current one, for layers that ask (nn/ring_attention.py).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax._src import lru_cache  # its writing of entries has no public name
from jax.sharding import Mesh

from causal_gen.parallel import hosts
from causal_gen.parallel.interrupt import whole
from causal_gen.parallel.mesh import batch_sharding, replicated
from causal_gen.types import ConfigError, PyTree

Step = Callable[..., tuple[Any, dict[str, Any]]]


def on_mesh(mesh: Mesh, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with `mesh` as the current one while it is traced."""

    @functools.wraps(function)
    def traced(*args: Any, **kwargs: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*args, **kwargs)

    return traced


def compile_step(step: Step, mesh: Mesh, state_shardings: PyTree, mode: str = "jit", batch_coupled: str | bool = False) -> Any:
    """A jitted step with `.lower(state, batch)`; it consumes the state that it is given. `batch_coupled` names the model whose loss mixes
    examples, if it does. Raises ConfigError for an unknown mode, and for such a loss under pmap."""
    if mode == "jit":
        return jax.jit(
            on_mesh(mesh, step),
            in_shardings=(state_shardings, batch_sharding(mesh)),
            out_shardings=(state_shardings, replicated(mesh)),
            donate_argnums=(0,),
        )
    if mode != "pmap":
        raise ConfigError(f"mesh.mode={mode!r}: use jit or pmap")
    if hosts.count() > 1:
        raise ConfigError("mesh.mode=pmap runs in one process: use mesh.mode=jit, which does the same over several")
    if batch_coupled:
        name = "this model" if batch_coupled is True else batch_coupled
        raise ConfigError(
            f"mesh.mode=pmap computes the loss on each device's slice, but the loss of {name} mixes examples (batch_coupled): use "
            "mesh.mode=jit"
        )
    return _replicated_step(step, mesh, state_shardings)


def _replicated_step(step: Step, mesh: Mesh, state_shardings: PyTree) -> Any:
    devices = list(mesh.devices.flatten())
    mapped = jax.pmap(functools.partial(step, axis="batch"), axis_name="batch", in_axes=(None, 0), out_axes=None, devices=devices)

    def whole(state: Any, batch: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        sliced = jax.tree.map(lambda x: x.reshape(len(devices), x.shape[0] // len(devices), *x.shape[1:]), batch)
        return mapped(state, sliced)

    return jax.jit(
        whole, in_shardings=(state_shardings, batch_sharding(mesh)), out_shardings=(state_shardings, replicated(mesh)), donate_argnums=(0,)
    )


def enable_compile_cache(folder: str | Path | None = None) -> Path:
    """Keep compiled programs between processes, by default in the user's own cache folder.

    Whoever may write there may run code here, hence a folder of mode 0700 and never the workdir. Called by the commands, not on import.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(folder) if folder is not None else base / "causal_gen" / "xla"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return folder  # a home that cannot be written costs compile time, not the run
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    lru_cache.LRUCache.put = _put_whole  # type: ignore[method-assign]
    return folder


def _put_whole(cache: Any, key: str, value: bytes, put: Callable[..., None] = lru_cache.LRUCache.put) -> None:
    """As JAX's own, whole or not at all. Where that is killed it leaves a piece, which every later start reads, warns of and compiles
    again: what is there is never written over."""
    if cache.eviction_enabled:
        return put(cache, key, value)
    entry = Path(str(cache.path)) / f"{key}-cache"
    if not entry.exists():
        with whole(entry) as part:
            part.write_bytes(value)
