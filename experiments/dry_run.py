"""Compile a config's training step for a machine that is not here, and say what it would need: memory, exchanges, time.

Nothing is trained, downloaded or fitted. TPU topologies are compiled by libtpu (pip install 'jax[tpu]'), which needs no TPU; cpu:N needs
nothing. Exit code 2 where the program does not fit or is not compiled in time.
"""

from __future__ import annotations

import time
from typing import Any, NoReturn

from absl import flags

from experiments import cli

EXAMPLE = """
python -m experiments.dry_run --config=configs/causal_transformer/pod.py --topology=v5e:16x16
python -m experiments.dry_run --config=configs/causal_transformer/pod.py --topology=v5e:16x16 --slices=2 --config.train.batch_size=1024
python -m experiments.dry_run --config=configs/diffusion_ae/pendulum.py --topology=cpu:8 --config.mesh.fsdp=2
"""


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_string("config", None, "config file, with an optional mode: configs/x/y.py[:mode]", flag_values=values)
    flags.DEFINE_string("topology", None, "v4, v5e, v5p or v6e and the shape of a slice, such as v5e:16x16; or cpu:8", flag_values=values)
    flags.DEFINE_integer("slices", 1, "slices of that shape, joined by the data centre's network", lower_bound=1, flag_values=values)
    flags.DEFINE_float("limit", 240.0, "seconds for tracing and compiling", lower_bound=0.0, flag_values=values)


def run(values: Any, overrides: dict[str, str]) -> None:
    cli.require(values, "config", "topology")
    from causal_gen import build as border
    from causal_gen.parallel import hosts
    from causal_gen.parallel import topology as topologies

    topology = topologies.find(values.topology, values.slices)
    config = border.load_config(values.config, _sliced(values.slices) | overrides)
    experiment = border.outline(config)
    late = f"not compiled within {values.limit:g} s; raise --limit, or scan the layers and lower their number"
    with hosts.limited(values.limit, f"{values.config} on {values.topology}: {late}"):
        _report(values, experiment, topology)


def _sliced(slices: int) -> dict[str, str]:
    return {"mesh.slices": str(slices)} if slices > 1 else {}


def _report(values: Any, experiment: Any, topology: Any) -> None:
    import jax

    from causal_gen.parallel import cost
    from causal_gen.train import ahead, meter

    if topology.chip is not None:  # a program for a machine that is not here can be kept, but not read again
        jax.config.update("jax_enable_compilation_cache", False)
    start, batch = time.monotonic(), experiment.train.batch_size
    planned = ahead.plan(experiment.model, experiment.data, experiment.train, experiment.mesh, topology.devices)
    where = _where(topology, planned.mesh)
    count = sum(leaf.size for leaf in jax.tree.leaves(planned.state.params))
    print(f"dry run: {values.config} on {where}; {count:,} parameters, batch {batch:,}", flush=True)
    try:
        compiled = planned.traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        _refused(error, planned, f"{values.config} on {where}", batch // experiment.train.accumulate)
    print(f"compiled in {time.monotonic() - start:.0f} s")
    peak = None if topology.chip is None else meter.peak_flops(planned.mesh)
    print(cost.report(cost.measure(compiled, topology, planned.flops, planned.model_flops, peak)))


def _where(topology: Any, mesh: Any) -> str:
    sizes = " ".join(f"{name}={size}" for name, size in mesh.shape.items() if size > 1) or "of one device"
    slices = f"{topology.slices} slices of " if topology.slices > 1 else ""
    return f"{slices}{topology.name} ({len(topology.devices)} x {topology.devices[0].device_kind}, mesh {sizes})"


def _refused(error: Exception, planned: Any, what: str, batch: int) -> NoReturn:
    """Says that a program does not fit and what is large in it; an error about anything else goes on."""
    from causal_gen.parallel import cost
    from causal_gen.parallel.mesh import batch_shards
    from causal_gen.types import UserError

    verdict = cost.verdict(str(error))
    if verdict is None:
        raise error
    arguments = cost.by_name(planned.state) + cost.by_name(planned.batch)
    print(f"{verdict}\n{cost.table(cost.largest(planned.traced.jaxpr.jaxpr, arguments, batch, batch_shards(planned.mesh)))}", flush=True)
    raise UserError(f"{what} does not fit: take more devices, a smaller train.batch_size or train.remat=full") from error


TEXT = f"{__doc__}\n--config.a.b=VALUE overrides any leaf of the config."
COMMAND = cli.Command("dry_run", TEXT, EXAMPLE, define, run)

if __name__ == "__main__":
    cli.start(COMMAND)
