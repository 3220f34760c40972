"""Search over a config's space: ask for settings, train each as an ordinary run, and say which was best.

    python -m launch.sweep --config=configs/causal_transformer/text.py:tiny --study=runs/study --trials=20 --workers=2
    python -m launch.sweep --study=runs/study                              # go on with it; --trials=40 makes it longer
    python -m launch.sweep --study=runs/study --list                       # look at it, whoever holds it

The config file's sweep() says what may be tried (configs/spaces.py). Every trial is a workdir, STUDY/trials/0007, which all commands take.
Samplers: random, grid (every setting; ranges need points), list (sweep() gives a list); with `pip install '.[sweep]'` Optuna's tpe and qmc.
Pruners, by Optuna: median, halving, hyperband. --config.a.b=VALUE overrides the config under all trials. A trial is trained by
`python -m experiments.train`, or by the command after --, which gets --workdir=... at its end:

    python -m launch.sweep --study=... --config=... -- python -m launch.local --processes=2 -- python -m experiments.train

Ctrl-C and SIGTERM let running trials save. Exit codes: 0 when the study is over or stopped so, 2 when something is yours to mend.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launch import optuna_search as engine
from launch import table
from launch.command import LaunchError, Parser, finish
from launch.local import positive
from launch.search import Journal, Search
from launch.space import DRAWN, drawer, spell
from launch.study import Folder, Trial, best_of, held
from launch.supervisor import Plan, Supervisor, cores, gpus

SAMPLERS = (*DRAWN, *engine.SAMPLERS)
TRAIN = ("python", "-m", "experiments.train")
FIXED = {"sampler": "random", "pruner": "none", "seed": 0, "metric": "eval_loss", "goal": "min", "storage": ""}  # of a study, with defaults


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code. Raises LaunchError."""
    words = list(argv)
    command = words[words.index("--") + 1 :] if "--" in words else []
    words = words[: words.index("--")] if "--" in words else words
    overrides = [word for word in words if word.startswith("--config.")]
    options = parser().parse_args([word for word in words if word not in overrides])
    if options.storage:
        engine.check_address(options.storage)
    folder = Folder(options.study)
    if options.list:
        return listed(folder)
    stored = folder.load()
    if options.config is None and stored is None:
        raise LaunchError(f"--config is missing, and {options.study} holds no study to go on with; --help shows an example")
    if options.print:
        head, _ = describe(options, overrides, stored)
        return printed(head, options, command)
    with held(folder.path):
        head, tree = describe(options, overrides, folder.load())
        folder.make()
        trials = (folder.load() or ({}, {}))[1]
        search = open_search(folder, head)
        fixed, wanted = head["fixed"], options.trials or head["trials_wanted"]
        head["trials_wanted"], head["command"] = wanted, list(command or TRAIN)
        count = f", {len(trials)} of them begun" if trials else ""
        print(
            f"sweep: {wanted} trials of {head['config']}{count}, sampler {fixed['sampler']}, seed {fixed['seed']}, into {folder.path}",
            flush=True,
        )
        plan = Plan(wanted, options.workers, tuple(command or TRAIN), options.failures, options.patience)
        return Supervisor(folder, head, tree, search, trials, plan).run()


def parser() -> argparse.ArgumentParser:
    """The flags; those of FIXED have no default here, since a study that goes on has them already."""
    made = Parser("sweep", __doc__)
    made.add_argument("--config", help="config file with a function sweep(), with an optional mode [that of the study]")
    made.add_argument("--study", type=Path, required=True, help="folder of the study")
    made.add_argument("--trials", type=positive, help="how many in all, those of earlier starts with them [20]")
    made.add_argument(
        "--workers", type=workers, default=2, help="trials at a time on this machine; 0: leave all to launch.worker elsewhere [2]"
    )
    made.add_argument("--seed", type=int, help="of the sampler; train.seed stays the config's [0]")
    made.add_argument("--sampler", choices=SAMPLERS, help="[random]")
    made.add_argument("--pruner", choices=engine.PRUNERS, help="gives up trials that promise nothing, by their values on the way [none]")
    made.add_argument(
        "--storage",
        help=f"a database for the study, postgresql://USER@HOST/DATABASE, its password in {engine.PASSWORD} [a journal in the study]",
    )
    made.add_argument("--metric", help="the key of metrics.jsonl that is searched by, at its last line [eval_loss]")
    made.add_argument("--goal", choices=("min", "max"), help="of the metric [min]")
    made.add_argument("--failures", type=positive, default=3, help="attempts that come no further, after which a trial has failed [3]")
    made.add_argument("--patience", type=float, default=15.0, help="seconds without a heartbeat after which a worker is lost [15]")
    made.add_argument("--list", action="store_true", help="print the table of the study and end")
    made.add_argument("--print", action="store_true", help="print what would be searched and run, and end")
    return made


def workers(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError
    return value


# -- what a study is ---------------------------------------------------------------------------------------------------------


def describe(
    options: argparse.Namespace, overrides: list[str], stored: tuple[dict[str, Any], dict[int, Trial]] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The head of study.json, and the complete config under all trials. Raises LaunchError where a study would go on as another."""
    old = stored[0] if stored else {}
    given = {name: getattr(options, name) for name in FIXED}
    fixed = {name: old.get("fixed", {}).get(name, default) if given[name] is None else given[name] for name, default in FIXED.items()}
    fixed["storage"] = engine.redacted(fixed["storage"])
    config = options.config or old["config"]
    if stored and not overrides and options.config is None:  # the config's file may have changed since, or be gone; the study has not
        said = {"config": old["tree"], "space": old["space"], "steps": old["steps"]}
    else:
        said = read_space(config, overrides or old.get("overrides", []))
    head: dict[str, Any] = {
        "version": 1,
        "config": config,
        "overrides": overrides or old.get("overrides", []),
        "fixed": fixed,
        "metric": fixed["metric"],
        "goal": fixed["goal"],
        "seed": fixed["seed"],
        "steps": said["steps"],
        "sampler": {"name": fixed["sampler"]} | (engine.SAMPLERS[fixed["sampler"]][1] if fixed["sampler"] in engine.SAMPLERS else {}),
        "pruner": {"name": fixed["pruner"]} | (engine.pruner_settings(fixed["pruner"], said["steps"]) if fixed["pruner"] != "none" else {}),
        "space": said["space"],
        "tree": said["config"],
        "created": old.get("created", time.strftime("%Y-%m-%d %H:%M:%S")),
        "trials_wanted": old.get("trials_wanted", 20),
    }
    if stored:
        refuse_changes(options.study, old, head)
    return head, said["config"]


def refuse_changes(study: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Raises LaunchError, naming what differs, where trials of this start could not be compared with those before."""
    names = [f"the space of {key}" for key in differing(old["space"], new["space"])]
    names += [f"--{name}" for name in FIXED if old["fixed"].get(name) != new["fixed"][name]]
    names += [] if names else differing(old["tree"], new["tree"])
    if names:
        more = f" and {len(names) - 6} more" if len(names) > 6 else ""
        raise LaunchError(
            f"the study {study} was begun with another value of {', '.join(names[:6])}{more}: take that back, or begin another --study"
        )


def differing(old: Any, new: Any, path: str = "") -> list[str]:
    """Dotted paths at which two trees differ; a space's distributions are compared whole."""
    if isinstance(old, dict) and isinstance(new, dict) and "kind" not in old:
        keys = sorted(old.keys() | new.keys())
        return [found for key in keys for found in differing(old.get(key), new.get(key), f"{path}.{key}" if path else key)]
    return [] if old == new else [path or "sweep()"]


def read_space(config: str, overrides: Sequence[str]) -> dict[str, Any]:
    """What experiments.space says of a config: {"config", "steps", "space"}. Raises LaunchError with its line."""
    done = subprocess.run(
        [sys.executable, "-m", "experiments.space", f"--config={config}", *overrides], capture_output=True, text=True, env=without_secrets()
    )
    lines = done.stderr.strip().splitlines() or ["it said nothing"]
    if done.returncode:
        line = next((line for line in lines if line.startswith("error: ")), lines[-1])
        raise LaunchError(line.removeprefix("error: ") + ("" if "No module named" not in line else "; run this from the repository root"))
    return json.loads(done.stdout)


def without_secrets() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in engine.SECRET}


def open_search(folder: Folder, head: dict[str, Any]) -> Search:
    """The study's search and its memory. Optuna where the sampler, the pruner or the storage is Optuna's."""
    fixed, space = head["fixed"], head["space"]
    own = fixed["sampler"] in DRAWN
    draws = drawer(fixed["sampler"], space, fixed["seed"]) if own else None
    if own and fixed["pruner"] == "none" and not fixed["storage"]:
        return Journal(folder.path / "journal.jsonl", draws or (lambda number: None))
    if not own and isinstance(space, list):
        raise LaunchError(f"--sampler={fixed['sampler']}: sweep() gives a list; give --sampler=list, or let it give distributions")
    storage = fixed["storage"] or folder.path / "journal.log"
    name, sampler, pruner = folder.path.name, fixed["sampler"], fixed["pruner"]
    return engine.OptunaSearch(
        storage, name, space, sampler, pruner, seed=fixed["seed"], steps=head["steps"], goal=fixed["goal"], drawer=draws
    )


# -- looking only ------------------------------------------------------------------------------------------------------------


def listed(folder: Folder) -> int:
    """The table of a study."""
    stored = folder.load()
    if stored is None:
        raise LaunchError(f"--study={folder.path}: holds no study; python -m launch.sweep --config=... --study=... makes one")
    head, trials = stored[0], [stored[1][number] for number in sorted(stored[1])]
    print(table.text(head, trials, head["trials_wanted"], None))
    best = best_of(trials, head["goal"])
    if best is not None:
        print(f"best: trial {best.number}, {head['metric']} {best.value:.6g}: {spell(best.params)}")
    return 0


def printed(head: dict[str, Any], options: argparse.Namespace, command: Sequence[str]) -> int:
    """What a sweep would do."""
    fixed, wanted = head["fixed"], options.trials or head["trials_wanted"]
    print(
        f"{wanted} trials of {head['config']} {' '.join(head['overrides'])}".rstrip() + f", by the {fixed['goal']}imum of {head['metric']}"
    )
    print(f"sampler {json.dumps(head['sampler'])}, seed {fixed['seed']}; pruner {json.dumps(head['pruner'])}")
    print(f"storage {fixed['storage'] or 'a journal in the study'}")
    for key, given in head["space"].items() if isinstance(head["space"], dict) else ():
        print(f"    {key}: {json.dumps(given)}")
    for k in range(options.workers):
        share = f"cores {' '.join(map(str, sorted(cores(k, options.workers)))) or 'of all'}"
        print(f"worker {k}: {share}" + "".join(f", {name}={value}" for name, value in gpus(k, options.workers).items()))
    draws = drawer(fixed["sampler"], head["space"], fixed["seed"]) if fixed["sampler"] in DRAWN else None
    for number in range(min(wanted, 3)):
        params = draws(number) if draws else None
        words = [*(command or TRAIN), f"--workdir={Folder(options.study).workdir(number)}"]
        print(" ".join(words) + (f"    # {spell(params)}" if params else ""))
    print("..." if wanted > 3 else "", end="\n" if wanted > 3 else "")
    return 0


if __name__ == "__main__":
    finish(main)
