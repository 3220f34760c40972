"""Ask what given examples would have been: abduct their noise, act on factors, predict.

Writes counterfactual.npz (factual_NAME, reconstruction_NAME, counterfactual_NAME, and truth_NAME where a simulator knows it),
grid.png and metrics.json into --out, and prints that JSON last. A range adds an axis: counterfactual_NAME is [b, k, ...]; two
ranges give [b, k, l, ...].
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from absl import flags

from experiments import cli

EXAMPLE = """
python -m experiments.counterfactual --workdir=runs/demo --do=angle=20 --do=light=90 --num=8
python -m experiments.counterfactual --workdir=runs/demo --do=angle=-30:30:7 --evidence=test:0:4
python -m experiments.counterfactual --workdir=runs/demo --shift=light=-15 --evidence=my_pictures/ --out=answers
"""


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "folder of a trained run", flag_values=values)
    cli.intervention_flags(values)
    evidence = "SPLIT:START:STOP, FILE.npz|png|jpg|csv, or a FOLDER of pictures [the first --num of the test split]"
    flags.DEFINE_string("evidence", None, evidence, flag_values=values)
    flags.DEFINE_integer("num", 16, "how many examples, at most", lower_bound=1, flag_values=values)
    flags.DEFINE_string("out", None, "folder for the answer [WORKDIR/counterfactual]", flag_values=values)
    flags.DEFINE_integer("seed", 0, "of the abduction, where it draws", lower_bound=0, flag_values=values)


def run(values: Any, overrides: dict[str, str]) -> None:
    cli.require(values, "workdir")
    import jax

    from causal_gen import build as border
    from causal_gen.evaluate.batched import Batched
    from experiments import evidence, questions

    trained = border.restore(values.workdir, overrides)
    question = questions.parse(values.do, values.shift, trained.model.factors)
    if not question.terms:
        raise cli.UsageError(f"--do or --shift is missing; the factors are {', '.join(trained.model.factors)}")
    cli.warn(question.warnings(trained.data.entries))
    given = evidence.load(values.evidence, trained, values.num)
    missing = [name for name in trained.model.needs if name not in given.batch]
    if missing:
        raise cli.UsageError(f"evidence {given.source}: entry {missing[0]!r} is missing; abduction needs {', '.join(trained.model.needs)}")

    ask = Batched(trained.model, trained.params, min(given.num, 64))
    noise = ask.abduct(jax.random.key(values.seed), given.batch)
    answers = {
        "factual": given.batch,
        "reconstruction": ask.predict(noise),
        "counterfactual": [ask.predict(noise, act) for _, act in question.cells()],
        "truth": None,
    }
    if given.indices is not None:
        truths = [trained.data.truth(given.split, given.indices, act) for _, act in question.cells()]
        answers["truth"] = None if any(truth is None for truth in truths) else truths
    out = Path(values.out or Path(values.workdir) / "counterfactual")
    out.mkdir(parents=True, exist_ok=True)
    _write_arrays(out / "counterfactual.npz", answers, question, given.num)
    _draw(out / "grid.png", answers, question, trained.step)
    metrics = {"step": trained.step, "evidence": given.source, "num": given.num, "intervention": question.spell()}
    metrics |= _scores(answers, question)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(f"counterfactual: wrote {out / 'counterfactual.npz'}, grid.png and metrics.json", file=sys.stderr)
    edges = ", ".join(f"{parent} -> {child}" for parent, child in trained.model.graph.edges if child in trained.model.factors)
    print(f"These are {questions.MEANING}. Graph of the factors: {edges or 'no edges'}.", file=sys.stderr)
    print(json.dumps(metrics))


def _stack(rows: list[dict[str, Any]], shape: tuple[int, ...], num: int) -> dict[str, Any]:
    """Entries of every cell of the question as [b, *shape, ...]."""
    import numpy as np

    stacked = {name: np.stack([np.asarray(row[name]) for row in rows], 1) for name in rows[0]}
    return {name: value.reshape(num, *shape, *value.shape[2:]) for name, value in stacked.items()}


def _write_arrays(path: Path, answers: dict[str, Any], question: Any, num: int) -> None:
    import numpy as np

    arrays = {}
    for kind, found in answers.items():
        if found is not None:
            entries = _stack(found, question.shape, num) if isinstance(found, list) else found
            arrays |= {f"{kind}_{name}": value for name, value in entries.items()}
    arrays |= {f"axis_{term.node}": np.asarray(term.values) for term in question.axes}
    np.savez_compressed(path, **arrays)


def _draw(path: Path, answers: dict[str, Any], question: Any, step: int) -> None:
    """A row a scene: factual, reconstruction, counterfactual, truth and their difference; for a range a row of pictures."""
    import numpy as np

    from causal_gen.evaluate import pictures

    factual = answers["factual"]["image"]
    columns = {"factual": factual, "reconstruction": answers["reconstruction"]["image"]}
    for kind in ("counterfactual", "truth"):
        if answers[kind] is not None:
            stacked = np.stack([cell["image"] for cell in answers[kind]], 1)
            columns[kind] = stacked if question.axes else stacked[:, 0]
    asked = ", ".join(f"{name} = {value}" for name, value in question.spell().items())
    title = f"{asked}: counterfactuals of the model at step {step}"
    if answers["truth"] is None and not question.axes:
        columns["difference"] = pictures.difference(columns["counterfactual"], factual)
        title += "; the difference is that to the factual image"
    pictures.grid(columns, path, title, labels=[label for label, _ in question.cells()])


def _scores(answers: dict[str, Any], question: Any) -> dict[str, Any]:
    """Mean absolute errors in the entries' units (images in 0..1), over all cells of the question; baselines where the truth is known."""
    import numpy as np

    def gap(one: Any, other: Any) -> float:
        return float(np.mean(np.abs(np.asarray(one, np.float64) - np.asarray(other, np.float64))))

    factual, again, cells = answers["factual"], answers["reconstruction"], answers["counterfactual"]
    scores: dict[str, Any] = {"reconstruction_mae": gap(again["image"], factual["image"])}
    scores["changed_mae"] = float(np.mean([gap(cell["image"], factual["image"]) for cell in cells]))
    factors = [name for name in cells[0] if name != "image"]
    scores["factors"] = {name: {"reconstruction": float(np.mean(again[name]))} for name in factors}
    for name in factors:
        means = np.asarray([float(np.mean(cell[name])) for cell in cells])
        scores["factors"][name]["counterfactual"] = means.reshape(question.shape).tolist()
    truths = answers["truth"]
    if truths is not None:
        pairs = list(zip(cells, truths, strict=True))
        scores["truth_mae"] = float(np.mean([gap(cell["image"], truth["image"]) for cell, truth in pairs]))
        scores["copy_mae"] = float(np.mean([gap(factual["image"], truth["image"]) for truth in truths]))
        for name in factors:
            if name in truths[0]:
                scores["factors"][name]["truth_mae"] = float(np.mean([gap(cell[name], truth[name]) for cell, truth in pairs]))
    return scores


COMMAND = cli.Command("counterfactual", __doc__, EXAMPLE, define, run, tune=True)

if __name__ == "__main__":
    cli.start(COMMAND)
