"""Write the JobSet of a command for TPU slices on Google Kubernetes Engine, and apply it.

    python -m launch.gke --name=run --image=REGISTRY/causal-gen:1 --accelerator=tpu-v5-lite-podslice --topology=4x4 \\
        --claim=shared:/shared -- python -m experiments.train --distributed --config=... --workdir=/shared/run

--print shows the YAML instead. One pod a host, one job a slice. A pod that is lost ends all, and the JobSet starts them again, from the
last checkpoint; a command that says what to mend (exit code 2) fails the JobSet at once. The image holds the repository and `.[tpu]`.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Sequence

from launch.command import LaunchError, Parser, finish, hand_over
from launch.local import positive

GRACE = 120  # seconds for a save after SIGTERM
YAML = """apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: {name}
spec:
  failurePolicy:
    maxRestarts: {restarts}
    rules:
    - action: FailJobSet  # exit code 2: its line says what to mend
      onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
  - name: slice
    replicas: {slices}
    template:
      spec:
        parallelism: {hosts}
        completions: {hosts}
        completionMode: Indexed
        backoffLimit: 0
        podFailurePolicy:
          rules:
          - action: FailJob
            onExitCodes:
              containerName: main
              operator: In
              values: [2]
        template:
          metadata:
            annotations:
              alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
          spec:
            restartPolicy: Never
            terminationGracePeriodSeconds: {grace}
            nodeSelector:
              cloud.google.com/gke-tpu-accelerator: {accelerator}
              cloud.google.com/gke-tpu-topology: {topology}{spot}
            containers:
            - name: main
              image: {image}
              workingDir: {folder}
              command: {command}
              ports:
              - containerPort: 8471
              - containerPort: 8080
              resources:
                requests:
                  google.com/tpu: {chips}
                limits:
                  google.com/tpu: {chips}{mount}{volume}
"""
SPOT = '\n              cloud.google.com/gke-spot: "true"'
MOUNT = "\n              volumeMounts:\n              - name: shared\n                mountPath: {path}"
VOLUME = "\n            volumes:\n            - name: shared\n              persistentVolumeClaim:\n                claimName: {claim}"


def render(options: argparse.Namespace, command: Sequence[str]) -> str:
    """The YAML. Words of the command are JSON strings, which YAML reads as they are."""
    hosts = math.prod(int(side) for side in options.topology.split("x")) // options.chips
    claim, _, path = (options.claim or "").partition(":")
    return YAML.format(
        name=options.name,
        restarts=options.restarts,
        slices=options.slices,
        hosts=hosts,
        grace=GRACE,
        accelerator=options.accelerator,
        topology=options.topology,
        spot=SPOT if options.spot else "",
        image=json.dumps(options.image),
        folder=json.dumps(options.folder),
        command=json.dumps(list(command)),
        chips=options.chips,
        mount=MOUNT.format(path=json.dumps(path)) if claim else "",
        volume=VOLUME.format(claim=json.dumps(claim)) if claim else "",
    )


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    parser = Parser("gke", __doc__)
    parser.add_argument("--name", required=True, help="of the JobSet")
    parser.add_argument("--image", required=True, help="container image with the repository")
    parser.add_argument("--accelerator", required=True, help="of the node pool, such as tpu-v5-lite-podslice")
    parser.add_argument("--topology", required=True, help="chips of a slice, such as 4x4 or 2x2x4")
    parser.add_argument("--chips", type=positive, default=4, help="of a host [4]")
    parser.add_argument("--slices", type=positive, default=1, help="[1]")
    parser.add_argument("--spot", action="store_true", help="on spot nodes")
    parser.add_argument("--claim", help="CLAIM:/PATH, a persistent volume claim that all pods see, for the workdir")
    parser.add_argument("--folder", default="/causal-gen", help="the repository in the image [/causal-gen]")
    parser.add_argument("--restarts", type=int, default=10, help="how often to start all again [10]")
    parser.add_argument("--print", action="store_true", help="show the YAML and end")
    options, command = parser.with_command(argv)
    if not re.fullmatch(r"\d+(x\d+){1,2}", options.topology):
        raise LaunchError(f"--topology={options.topology}: write the sides of a slice, such as 4x4 or 2x2x4")
    if math.prod(int(side) for side in options.topology.split("x")) % options.chips:
        raise LaunchError(f"--topology={options.topology} cannot be cut into hosts of {options.chips} chips: give --chips")
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", options.name):
        raise LaunchError(f"--name={options.name}: Kubernetes takes lower-case letters, digits and -, at most 40")
    if options.claim and not re.fullmatch(r"[a-z0-9.-]+:/.+", options.claim):
        raise LaunchError(f"--claim={options.claim}: write CLAIM:/PATH")
    return hand_over(render(options, command), ["kubectl", "apply", "-f", "-"], options.print)


if __name__ == "__main__":
    finish(main)
