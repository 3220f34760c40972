"""Write WORKDIR/report.html: one page without outside files, with config, curves, grids and metrics with their meaning.

Of the folder of a study (launch.sweep) it shows the trials over their settings, what matters, what better costs, and the best config.
"""

from __future__ import annotations

from typing import Any

from absl import flags

from experiments import cli

EXAMPLE = "python -m experiments.report --workdir=runs/demo"


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "folder of a run, best after evaluate, or of a study", flag_values=values)


def run(values: Any, overrides: dict[str, str]) -> None:
    cli.require(values, "workdir")
    if overrides:
        raise cli.UsageError(f"report reads what is there; --config.{next(iter(overrides))} changes nothing, leave it out")
    from causal_gen import build as border
    from causal_gen.evaluate import report, report_study

    if not report_study.is_study(values.workdir):
        border.stored_config(values.workdir)  # a folder that is no workdir is named as such
    print(f"report: {report.write(values.workdir)}")


COMMAND = cli.Command("report", __doc__, EXAMPLE, define, run)

if __name__ == "__main__":
    cli.start(COMMAND)
