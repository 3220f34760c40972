"""Measure a trained model on its test split: composition, effectiveness, reversibility, error against the truth, latents; of tokens the
likelihood, and what an intervention moves.

Writes WORKDIR/evaluate/ and prints metrics.json last. --config.evaluate.* says how much is measured.
"""

from __future__ import annotations

import functools
import json
import sys
from typing import Any

from absl import flags

from experiments import cli

EXAMPLE = """
python -m experiments.evaluate --workdir=runs/demo
python -m experiments.evaluate --workdir=runs/demo --config.evaluate.scenes=64 --config.evaluate.steps=25
"""


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "folder of a trained run", flag_values=values)
    flags.DEFINE_integer("seed", None, "picks scenes and interventions [evaluate.seed]", lower_bound=0, flag_values=values)


def run(values: Any, overrides: dict[str, str]) -> None:
    cli.require(values, "workdir")
    from causal_gen import build as border

    say = functools.partial(print, file=sys.stderr, flush=True)
    print(json.dumps(border.evaluate(border.restore(values.workdir, overrides), values.seed, say)))


COMMAND = cli.Command("evaluate", __doc__, EXAMPLE, define, run, tune=True, spread=True, hosts=True)

if __name__ == "__main__":
    cli.start(COMMAND)
