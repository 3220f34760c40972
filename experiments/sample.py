"""Draw fresh examples from a trained model, under an intervention if one is given.

Writes samples.npz, and grid.png, or samples.txt for sequences that are no pictures. --prompt sets the first tokens of sequences.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from absl import flags

from experiments import cli

EXAMPLE = """
python -m experiments.sample --workdir=runs/demo --num=16
python -m experiments.sample --workdir=runs/demo --num=16 --do=angle=20 --config.sampling.steps=25 --out=pictures
python -m experiments.sample --workdir=runs/text --num=4 --prompt="def read(" --config.sampling.temperature=0.8
"""

SHOWN = 600  # characters of a text that are printed


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "folder of a trained run", flag_values=values)
    flags.DEFINE_integer("num", 16, "how many", lower_bound=1, flag_values=values)
    cli.intervention_flags(values)
    prompt = "how every sequence begins: text, or numbers such as 3,1,4 where the data has no tokenizer"
    flags.DEFINE_string("prompt", None, prompt, flag_values=values)
    out = "folder for samples.npz and grid.png or samples.txt [WORKDIR/samples]"
    flags.DEFINE_string("out", None, out, flag_values=values)
    flags.DEFINE_integer("seed", 0, "of the noise", lower_bound=0, flag_values=values)


def run(values: Any, overrides: dict[str, str]) -> None:
    cli.require(values, "workdir")
    import jax

    from causal_gen import build as border
    from causal_gen.evaluate import batched
    from causal_gen.parallel import hosts, mesh
    from experiments import questions

    trained = border.restore(values.workdir, overrides)
    question, spans = questions.asked(values, trained), getattr(trained.model, "spans", {})
    if values.prompt and not spans:
        raise cli.UsageError("--prompt is the beginning of a sequence, and this model draws none; leave it out")
    cli.warn(question.warnings(trained.data.entries))
    key = jax.random.key(values.seed)
    if spans:
        ((node, span),) = spans.items()
        if values.prompt:
            question = questions.prompted(question, values.prompt, node, span, getattr(trained.data, "tokenizer", None))
        acts = [act for _, act in question.cells()]
        with mesh.current(trained.params):
            drawn = batched.draws(trained.model, trained.params, key, values.num, acts, _context(trained, values.num))
    else:
        noise = jax.device_get(trained.model.noise(key, values.num))
        ask = batched.Batched(trained.model, trained.params, min(values.num, 64))
        context = _context(trained, values.num)
        with mesh.current(trained.params):
            drawn = [ask.predict(noise, act, context) for _, act in question.cells()]
    if hosts.first():
        _write(Path(values.out or Path(values.workdir) / "samples"), trained, question, values.num, drawn)


def _context(trained: Any, num: int) -> dict[str, Any] | None:
    """What the model cannot draw without: classes and fields as in the first test rows, over and over."""
    import numpy as np

    names = [name for name in trained.model.context if name not in getattr(trained.model, "optional", ())]
    if not names:
        return None
    rows = trained.data.gather("test", np.arange(num) % trained.data.size("test"))
    cli.warn([f"sample: {', '.join(names)} as in the first rows of the test split"])
    return {name: rows[name] for name in names}


def _write(out: Path, trained: Any, question: Any, num: int, drawn: list[dict[str, Any]]) -> None:
    import numpy as np

    from causal_gen.evaluate import pictures
    from causal_gen.parallel.interrupt import whole

    out.mkdir(parents=True, exist_ok=True)
    stacked = {name: np.stack([rows[name] for rows in drawn], 1) for name in drawn[0]}
    arrays: dict[str, Any] = {name: value.reshape(num, *question.shape, *value.shape[2:]) for name, value in stacked.items()}
    with whole(out / "samples.npz") as part:
        np.savez_compressed(part, **arrays)
    asked = ", ".join(f"{name}={value}" for name, value in question.spell().items()) or "no intervention"
    labels = [label if label != "null" else "sample" for label, _ in question.cells()]
    title = f"{num} samples at step {trained.step}, {asked}"
    node = next(iter(getattr(trained.model, "spans", {})), None)
    if node is None and "image" not in drawn[0]:
        readable = "no grid.png (single numbers are no pictures)"
    elif node is None or hasattr(trained.data, "images"):
        seen = [rows["image"] if node is None else trained.data.images(rows[node]) for rows in drawn]
        readable = pictures.grid(dict(zip(labels, seen, strict=True)), out / "grid.png", title)
    else:
        readable = out / "samples.txt"
        text = passages(getattr(trained.data, "tokenizer", None), labels, [rows[node] for rows in drawn])
        with whole(readable) as part:
            part.write_text(f"{title}\n\n{text}\n", encoding="utf-8")
        print(text[:SHOWN] + (" [...]" if len(text) > SHOWN else "") + "\n")
        print("no grid.png: these sequences are no pictures", file=sys.stderr)
    print(f"sample: {num} x {len(drawn)} under {asked}: {out / 'samples.npz'}, {readable}")


def passages(tokenizer: Any, labels: list[str], drawn: list[Any]) -> str:
    """Rows [b, t] of every cell as text, each under a heading."""
    from causal_gen.evaluate.texts import Spelling

    spelling, parts = Spelling(tokenizer), []
    for row in range(len(drawn[0])):
        for label, tokens in zip(labels, drawn, strict=True):
            heading = f"---- {row}" + (f", {label}" if len(labels) > 1 else "") + " ----"
            parts.append(f"{heading}\n{spelling.passage(tokens[row])}")
    return "\n\n".join(parts)


COMMAND = cli.Command("sample", __doc__, EXAMPLE, define, run, tune=True, spread=True, hosts=True)

if __name__ == "__main__":
    cli.start(COMMAND)
