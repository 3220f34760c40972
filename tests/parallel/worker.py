"""A command that trains the toy model as one of several processes, and does itself harm where a test says so.

    python -m launch.local --processes=2 --devices=2 -- python -m tests.parallel.worker --workdir=W --steps=6

Every process says on stderr which rows it read and where it stopped; process 0 leaves the final parameters in W/final.npz.
`--fault=PROCESS:PLACE:SIGNAL` sends that process that signal while it compiles, evaluates or trains, once a workdir; with `--long`
compiling (where that is PLACE) and evaluating take longer than anybody waits for.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags

from experiments import cli


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "of the run", flag_values=values)
    flags.DEFINE_integer("steps", 6, "how many", flag_values=values)
    flags.DEFINE_integer("every", 4, "checkpoints", flag_values=values)
    flags.DEFINE_integer("width", 1024, "of the model; from 1024 on its first kernel is split over fsdp", flag_values=values)
    flags.DEFINE_string("mesh", "data=-1", "sizes: data=2,fsdp=-1", flag_values=values)
    flags.DEFINE_string("fault", "", "PROCESS:PLACE:SIGNAL", flag_values=values)
    flags.DEFINE_boolean("long", False, "long parts", flag_values=values)
    flags.DEFINE_float("time-limit", None, "seconds, of a rate that falls with them", flag_values=values)


def _noticed(width: int, harm: Callable[[str], None], long: bool) -> tuple[Any, Any]:
    """The toy's model and source, which call `harm` where they are, and say what is read; of `long` there is much to evaluate."""
    import numpy as np

    from causal_gen.parallel import hosts
    from tests.train.toy import ToyModel, ToySource

    seen: dict[str, int] = {}

    @dataclasses.dataclass(frozen=True)
    class Model(ToyModel):
        def init(self, key: Any) -> Any:
            params = super().init(key)
            return {**params, "second": {"kernel": params["second"]["kernel"] * (8 / self.width) ** 0.5}}  # a loss near 1 at any width

        def loss(self, params: Any, key: Any, batch: Any, *, step: Any, train: bool) -> Any:
            if train:
                harm("compile")  # this is Python, and runs while the step is traced
            return super().loss(params, key, batch, step=step, train=train)

    @dataclasses.dataclass(frozen=True)
    class Source(ToySource):
        def gather(self, split: str, indices: np.ndarray) -> dict[str, np.ndarray]:
            seen[split] = seen.get(split, 0) + 1
            print(f"process {hosts.index()} reads {split} {indices.tolist()}", file=sys.stderr, flush=True)
            if split == "test":
                harm("evaluate")
                time.sleep(0.1 * long)
                indices = indices % 40
            elif seen[split] == 7:  # the compiler's, that of step 0, and five more
                harm("train")
            return ToySource(self.rows).gather(split, indices)

        def size(self, split: str) -> int:
            return 10**6 if long and split == "test" else super().size(split)

    return Model(width=width), Source()


def run(values: Any, overrides: dict[str, str]) -> None:
    import numpy as np

    from causal_gen.parallel import hosts
    from causal_gen.parallel.mesh import MeshConfig
    from causal_gen.train.checkpoint import CheckpointConfig
    from causal_gen.train.guard import left_behind
    from causal_gen.train.log import LogConfig
    from causal_gen.train.loop import fit
    from causal_gen.train.state import TrainConfig
    from tests.train.toy import CONFIG

    workdir = Path(values.workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    process, place, number = values.fault.split(":") if values.fault else ("-1", "", "0")

    def harm(here: str) -> None:
        done = workdir / "harmed"
        if here == place and hosts.index() == int(process) and not done.exists():
            done.touch()
            os.kill(os.getpid(), int(number))

    if values.long and place == "compile":
        import jax

        def compile(*args: Any, **kwargs: Any) -> None:
            print(f"process {hosts.index()} compiles", file=sys.stderr, flush=True)
            time.sleep(3600)

        jax.stages.Lowered.compile = compile  # type: ignore[method-assign]
    model, source = _noticed(values.width, harm, values.long)
    hosts.agree_on_run({**CONFIG, "train": {"steps": values.steps, **overrides}})
    limit = values["time-limit"].value
    pace = {"time_limit": limit, "annealing": "time"} if limit else {}
    sizes = {name: int(size) for name, _, size in (part.partition("=") for part in values.mesh.split(","))}
    done = fit(
        model,
        source,
        workdir,
        train=TrainConfig(steps=values.steps, batch_size=16, warmup_steps=3, learning_rate=1e-3, **pace),
        mesh=MeshConfig(**{"data": 1, **sizes}),
        checkpoint=CheckpointConfig(every=values.every),
        log=LogConfig(every=1, eval_every=5, eval_batches=10**6 if values.long else 2, tensorboard=False),
        config=CONFIG,
    )
    print(f"process {hosts.index()} stopped at step {done.step} interrupted={done.interrupted}", file=sys.stderr, flush=True)
    if left_behind():  # as experiments/train.py
        hosts.leave()
        os._exit(0)
    params = hosts.gather(done.params)
    if hosts.first():
        flat = {name: np.asarray(value) for name, value in hosts.flat(params).items()}
        np.savez(workdir / "final.npz", **flat)


COMMAND = cli.Command("worker", __doc__, "python -m tests.parallel.worker --workdir=W", define, run, hosts=True)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    cli.start(COMMAND)
