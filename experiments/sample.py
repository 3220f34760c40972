"""Draw fresh examples from a trained model, under an intervention if one is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from absl import flags

from experiments import cli

EXAMPLE = """
python -m experiments.sample --workdir=runs/demo --num=16
python -m experiments.sample --workdir=runs/demo --num=16 --do=angle=20 --config.sampling.steps=25 --out=pictures
"""


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "folder of a trained run", flag_values=values)
    flags.DEFINE_integer("num", 16, "how many", lower_bound=1, flag_values=values)
    cli.intervention_flags(values)
    flags.DEFINE_string("out", None, "folder for samples.npz and grid.png [WORKDIR/samples]", flag_values=values)
    flags.DEFINE_integer("seed", 0, "of the noise", lower_bound=0, flag_values=values)


def run(values: Any, overrides: dict[str, str]) -> None:
    cli.require(values, "workdir")
    import jax
    import numpy as np

    from causal_gen import build as border
    from causal_gen.evaluate import pictures
    from causal_gen.evaluate.batched import Batched
    from experiments import questions

    trained = border.restore(values.workdir, overrides)
    question = questions.parse(values.do, values.shift, trained.model.factors)
    cli.warn(question.warnings(trained.data.entries))
    key = jax.random.key(values.seed)
    noise = jax.device_get(trained.model.noise(key, values.num))
    ask = Batched(trained.model, trained.params, min(values.num, 64))
    drawn = [(label, ask.predict(noise, act)) for label, act in question.cells()]
    out = Path(values.out or Path(values.workdir) / "samples")
    out.mkdir(parents=True, exist_ok=True)
    stacked = {name: np.stack([rows[name] for _, rows in drawn], 1) for name in drawn[0][1]}
    arrays: dict[str, Any] = {name: value.reshape(values.num, *question.shape, *value.shape[2:]) for name, value in stacked.items()}
    np.savez_compressed(out / "samples.npz", **arrays)
    columns = {label if label != "null" else "sample": rows["image"] for label, rows in drawn}
    asked = ", ".join(question.spell()) or "no intervention"
    pictures.grid(columns, out / "grid.png", f"{values.num} samples at step {trained.step}, {asked}")
    print(f"sample: {values.num} x {len(drawn)} under {asked}: {out / 'samples.npz'}, {out / 'grid.png'}")


COMMAND = cli.Command("sample", __doc__, EXAMPLE, define, run, tune=True)

if __name__ == "__main__":
    cli.start(COMMAND)
