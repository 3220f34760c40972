"""Write the batch script of a command for SLURM, and submit it.

    python -m launch.slurm --nodes=4 --gpus=8 --time=24:00:00 -- python -m experiments.train --config=... --workdir=/shared/run
    python -m launch.slurm --array=0-4 -- python -m experiments.train --config=... --workdir=runs/seed{task} --config.train.seed={task}
    python -m launch.slurm --array=0-15 --gpus=1 -- python -m launch.worker --study=/shared/study     # workers of a sweep

--print shows the script instead. One process a node, which has all of its devices; {task} in the command is the number of an array's task.
Two minutes before the time is up SLURM sends SIGTERM, the command saves, and the script puts the job into the queue again. A command that
is lost on the way starts again in the same allocation; one that says what to mend (exit code 2) ends the job.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from launch.command import LaunchError, Parser, finish, hand_over
from launch.local import positive

NOTICE = 120  # seconds before the end at which SLURM sends SIGTERM
TASK = "{task}"


def render(options: argparse.Namespace, command: Sequence[str]) -> str:
    """The script."""
    flags = [("job-name", options.name), ("nodes", options.nodes), ("ntasks-per-node", 1), ("gpus-per-node", options.gpus)]
    flags += [("cpus-per-task", options.cpus), ("mem", options.mem), ("partition", options.partition), ("account", options.account)]
    flags += [("time", options.time), ("array", options.array), ("signal", f"TERM@{NOTICE}")]
    lines = ["#!/bin/bash", *(f"#SBATCH --{name}={value}" for name, value in flags if value is not None)]
    lines += [
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        f"#SBATCH --output={options.log}/%x-%{'A_%a' if options.array else 'j'}.log",
    ]
    lines += ["", "set -u", 'cd "$SLURM_SUBMIT_DIR"', *([options.setup] if options.setup else [])]
    words = " ".join(quoted(word) for word in command)
    start = f"srun --kill-on-bad-exit=1 {words}"
    if options.nodes > 1:
        lines += [f'coordinator=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):{options.port}']
        join = '--coordinator="$0" --processes="$SLURM_NTASKS" --process="$SLURM_PROCID"'
        start = f'srun --kill-on-bad-exit=1 bash -c \'exec "$@" {join}\' "$coordinator" {words}'
    return "\n".join([*lines, *ENDING.format(start=start, restarts=options.restarts, margin=NOTICE + 30).splitlines()]) + "\n"


ENDING = """
left() {{ echo $(( ${{SLURM_JOB_END_TIME:-99999999999}} - $(date +%s) )); }}  # seconds that the allocation still has
for start in $(seq 0 {restarts}); do
    {start}
    code=$?
    if [ "$(left)" -lt {margin} ]; then  # the time is nearly up, and the command has saved: it goes on in another allocation
        [ "$code" -eq 2 ] || scontrol requeue "$SLURM_JOB_ID"
        break
    fi
    case "$code" in 0|2) break ;; esac  # done, or its line says what to mend
    echo "ended with $code after start $start of {restarts}; it goes on from its last checkpoint"
done
exit "$code"
"""


def quoted(word: str) -> str:
    """A word for bash; {task} becomes the array's number."""
    return '"$SLURM_ARRAY_TASK_ID"'.join(shlex.quote(part) if part else "" for part in word.split(TASK)) or "''"


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    parser = Parser("slurm", __doc__)
    parser.add_argument("--nodes", type=positive, default=1, help="[1]")
    parser.add_argument("--gpus", type=positive, help="GPUs of each node [none asked for]")
    parser.add_argument("--cpus", type=positive, help="cores of each node [SLURM's default]")
    parser.add_argument("--mem", help="memory of each node, such as 64G [SLURM's default]")
    parser.add_argument("--time", default="24:00:00", help="of one allocation, after which the job goes on in another [24:00:00]")
    parser.add_argument("--array", help="FIRST-LAST or FIRST-LAST%%AT_ONCE: many jobs, told apart by {task}")
    parser.add_argument("--partition", help="[SLURM's default]")
    parser.add_argument("--account", help="[SLURM's default]")
    parser.add_argument("--name", default="causal-gen", help="of the job [causal-gen]")
    parser.add_argument("--log", default="runs/slurm", help="folder for what the jobs print [runs/slurm]")
    parser.add_argument("--setup", default=". .venv/bin/activate", help="line that runs first [. .venv/bin/activate]")
    parser.add_argument("--port", type=positive, default=12345, help="free on the first node, where there are several [12345]")
    parser.add_argument("--restarts", type=int, default=3, help="how often to start again in one allocation [3]")
    parser.add_argument("--print", action="store_true", help="show the script and end")
    options, command = parser.with_command(argv)
    if options.array and not re.fullmatch(r"\d+(-\d+)?(%\d+)?", options.array):
        raise LaunchError(f"--array={options.array}: write FIRST-LAST, or FIRST-LAST%AT_ONCE")
    if not options.array and any(TASK in word for word in command):
        raise LaunchError(f"the command holds {TASK} but there is no array: give --array=FIRST-LAST")
    if not options.print:
        Path(options.log).mkdir(parents=True, exist_ok=True)  # SLURM makes no folders
    return hand_over(render(options, command), ["sbatch"], options.print)


if __name__ == "__main__":
    finish(main)
