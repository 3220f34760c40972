"""Write a trained model as one safetensors file, with its config in the header and a model card beside it.

The parameters are those that the other commands use: averaged where an average was kept. Another run starts from the file by
--config.train.init_from='{".*": "FILE.safetensors"}'.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from absl import flags

from experiments import cli

EXAMPLE = """
python -m experiments.export --workdir=runs/demo --out=pendulum.safetensors
python -m experiments.export --workdir=runs/demo --step=best
"""


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "folder of a trained run", flag_values=values)
    flags.DEFINE_string("out", None, "file to write; its card is the same with .md [WORKDIR/model.safetensors]", flag_values=values)
    flags.DEFINE_string("step", None, "which checkpoint: a step, or best [the newest]", flag_values=values)


def run(values: Any, overrides: dict[str, str]) -> None:
    cli.require(values, "workdir")
    if values.step not in (None, "best") and not values.step.isdigit():
        raise cli.UsageError(f"--step={values.step} is neither a step nor best")

    from causal_gen import build as border
    from causal_gen.train import export

    workdir = Path(values.workdir)
    out = Path(values.out or workdir / f"model{export.SUFFIX}")
    if out.suffix != export.SUFFIX:
        raise cli.UsageError(f"--out={out} has to end in {export.SUFFIX}, by which a file is told from a workdir")
    config = border.override(border.stored_config(workdir), overrides)
    step = int(values.step) if values.step and values.step.isdigit() else values.step
    exported = export.read_run(workdir, step, border.section(config, "checkpoint"))
    export.write(exported, out, export.card(exported, out, _scores(workdir, exported.step)))
    size = sum(leaf.nbytes for leaf in exported.leaves.values())
    print(f"export: {len(exported.leaves)} arrays, {size:,} bytes, of step {exported.step}: {out}, {out.with_suffix('.md')}")


def _scores(workdir: Path, step: int) -> dict[str, Any] | None:
    """What evaluate measured of this very step."""
    file = workdir / "evaluate" / "metrics.json"
    try:
        scores = json.loads(file.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        cli.warn([f"export: {file} cannot be read ({error}), so the card holds no measurements"])
        return None
    return scores if scores.get("step") == step else None


COMMAND = cli.Command("export", __doc__, EXAMPLE, define, run)

if __name__ == "__main__":
    cli.start(COMMAND)
