"""Train a config into a workdir; the same command goes on where it stopped."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from pathlib import Path
from typing import Any

from absl import flags

from experiments import cli

EXAMPLE = """
python -m experiments.train --config=configs/diffusion_ae/pendulum.py:demo --workdir=runs/demo
python -m experiments.train --config=configs/diffusion_ae/pendulum.py --workdir=runs/full --config.train.steps=200 --config.mesh.fsdp=2
python -m experiments.train --workdir=runs/demo     # go on with the stored config
python -m experiments.train --workdir=runs/demo --config.train.steps=9000 --profile=8010:8015
"""


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_string("config", None, "config file, with an optional mode: configs/x/y.py[:mode]", flag_values=values)
    flags.DEFINE_string("workdir", None, "folder of the run: config, checkpoints, metrics, samples", flag_values=values)
    flags.DEFINE_string("profile", None, "FIRST:LAST, steps for JAX's profiler to trace, into the workdir's profile/", flag_values=values)
    text = "stop at the first nan that any operation makes, and name the operation; much slower"
    flags.DEFINE_boolean("debug_nans", False, text, flag_values=values)


def run(values: Any, overrides: dict[str, str]) -> None:
    cli.require(values, "workdir")
    workdir = Path(values.workdir)
    if values.config is None and not (workdir / "config.json").is_file():
        raise cli.UsageError(f"--config is missing, and {workdir} holds no run to go on with; --help shows an example")
    profile = _window(values.profile)

    import jax

    from causal_gen import build as border
    from causal_gen.parallel import hosts
    from causal_gen.train.guard import left_behind

    if values.config is None:
        config: Any = border.override(border.stored_config(workdir), overrides)
    else:
        config = border.load_config(values.config, overrides)
    experiment = border.build(config)
    model, data, steps = experiment.config["model"]["name"], experiment.config["data"]["name"], experiment.train.steps
    size = experiment.data.size("train")
    print(f"train: {model} on {data} ({size:,} examples), {steps:,} steps of {experiment.train.batch_size}, into {workdir}", flush=True)
    with jax.debug_nans(True) if values.debug_nans else contextlib.nullcontext():
        done = border.train(experiment, workdir, profile)
    if done.interrupted:
        print(f"train: stopped at step {done.step:,} of {steps:,} and saved; to go on: python -m experiments.train --workdir={workdir}")
        if left_behind():  # a compilation that the signal cut off goes on in its thread, and would crash an interpreter that ends
            sys.stdout.flush()
            hosts.leave()
            os._exit(0)
        return
    print(f"train: finished at step {done.step:,}. Next, for example:")
    if done.model.actable:
        print(f"    python -m experiments.counterfactual --workdir={workdir} --do={_example(done)}")
    print(f"    python -m experiments.evaluate --workdir={workdir} && python -m experiments.report --workdir={workdir}")


def _window(text: str | None) -> tuple[int, int] | None:
    """The steps of --profile."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+):(\d+)", text)
    if not found or not 0 < int(found[1]) <= int(found[2]):
        raise cli.UsageError(f"--profile={text}: write FIRST:LAST, the first and the last step, for instance --profile=10:15")
    return int(found[1]), int(found[2])


def _example(run: Any) -> str:
    """An intervention to try first: a factor a standard deviation above its mean, or a token."""
    name = run.model.actable[0]
    stats = run.config["data"]["stats"].get(name, {})
    if "mean" in stats:
        return f"{name}={stats['mean'] + stats['std']:.3g}"
    return f"'{name}[5]=1'" if name in getattr(run.model, "spans", {}) else f"{name}=1"


TEXT = f"{__doc__}\n--config.a.b=VALUE overrides any leaf of the config."
COMMAND = cli.Command("train", TEXT, EXAMPLE, define, run, tune=True, spread=True, hosts=True)

if __name__ == "__main__":
    cli.start(COMMAND)
