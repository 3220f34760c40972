"""Write the script that runs a command on all hosts of a TPU VM, and run it; a spot VM that is taken away is made again.

    python -m launch.tpu_vm --name=pod --zone=us-central2-b -- python -m experiments.train --distributed --config=... --workdir=gs://...
    python -m launch.tpu_vm --name=pod --zone=us-central2-b --spot --type=v5litepod-16 --version=v2-alpha-tpuv5-lite \\
        --setup='git clone REPOSITORY causal-gen && cd causal-gen && pip install -e .[tpu]' -- python -m experiments.train --distributed ...

--print shows the script instead. The command runs in --folder on every host, from where it finds the others (--distributed). A command that
says what to mend (exit code 2) ends the script; one that stopped because the VM went is started again from its last checkpoint, which has
to lie where a new VM sees it.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence

from launch.command import LaunchError, Parser, finish, hand_over

SCRIPT = """#!/bin/bash
set -u
vm=(gcloud compute tpus tpu-vm)
name={name}
zone={zone}
log=$(mktemp)
{make}
starts=0
while true; do
    {ready}
    "${{vm[@]}}" ssh "$name" --zone="$zone" --worker=all --command={command} 2>&1 | tee "$log"
    if grep -q 'exit code 2$' "$log"; then exit 2; fi  # its line says what to mend
    if grep -q 'exit code 0$' "$log" && ! grep -q 'exit code [1-9]' "$log" && ! grep -q 'train: stopped at step' "$log"; then exit 0; fi
    {count}
    sleep {pause}
done
"""
SPOT = """make() {{
    until "${{vm[@]}}" create "$name" --zone="$zone" --accelerator-type={type} --version={version} --spot; do sleep {wait}; done
    {setup}
}}
ready() {{  # wait for the VM; make it again where it was taken away
    case "$("${{vm[@]}}" describe "$name" --zone="$zone" --format='value(state)' 2>/dev/null)" in
        READY) ;;
        CREATING|STARTING|RESTARTING|REPAIRING) sleep {wait}; ready ;;
        "") starts=0; make ;;
        *) starts=0; "${{vm[@]}}" delete "$name" --zone="$zone" --quiet; make ;;
    esac
}}"""
COUNT = 'starts=$((starts + 1)); if [ "$starts" -gt {restarts} ]; then echo "not started again, after $starts starts"; exit 1; fi'


def render(options: argparse.Namespace, command: Sequence[str]) -> str:
    """The script."""
    remote = f"cd {shlex.quote(options.folder)} && {shlex.join(command)}; code=$?; echo; echo exit code $code; exit $code"
    make, ready = "", ":"
    if options.spot:
        remote_setup = shlex.quote(options.setup)
        setup = f'"${{vm[@]}}" ssh "$name" --zone="$zone" --worker=all --command={remote_setup}' if options.setup else ":"
        make = SPOT.format(type=shlex.quote(options.type), version=shlex.quote(options.version), wait=options.wait, setup=setup)
        ready = "ready"
    return SCRIPT.format(
        name=shlex.quote(options.name),
        zone=shlex.quote(options.zone),
        make=make,
        ready=ready,
        command=shlex.quote(remote),
        count=COUNT.format(restarts=options.restarts),
        pause=options.wait,
    )


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    parser = Parser("tpu_vm", __doc__)
    parser.add_argument("--name", required=True, help="of the TPU VM")
    parser.add_argument("--zone", required=True, help="where it is")
    parser.add_argument("--folder", default="causal-gen", help="the repository on its hosts [causal-gen]")
    parser.add_argument("--spot", action="store_true", help="make the VM where there is none, and again when it is taken away")
    parser.add_argument("--type", help="of a spot VM, such as v5litepod-16")
    parser.add_argument("--version", help="its software, such as v2-alpha-tpuv5-lite")
    parser.add_argument("--setup", default="", help="a command for all hosts of a new VM: get the repository and install it")
    parser.add_argument("--restarts", type=int, default=3, help="how often to start again on a VM that stays [3]")
    parser.add_argument("--wait", type=int, default=30, help="seconds between two tries [30]")
    parser.add_argument("--print", action="store_true", help="show the script and end")
    options, command = parser.with_command(argv)
    if options.spot and not (options.type and options.version):
        raise LaunchError("--spot has to make the VM: give its --type and --version")
    text = render(options, command)
    return hand_over(text, ["bash", "-c", text], options.print, needs="gcloud")


if __name__ == "__main__":
    finish(main)
