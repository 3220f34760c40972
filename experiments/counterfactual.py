"""Ask what given examples would have been: abduct their noise, act on factors or positions, predict.

Writes counterfactual.npz (factual_NAME, reconstruction_NAME, counterfactual_NAME, and truth_NAME where a simulator knows it),
grid.png and metrics.json into --out, and prints that JSON last. A range adds an axis: counterfactual_NAME is [b, k, ...]; two
ranges give [b, k, l, ...]. In the place of grid.png sequences that are no pictures have counterfactual.txt, the answers beside the
evidence, and rows of a table counterfactual.csv, a line for every row and every value of a range.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags

from experiments import cli

EXAMPLE = """
python -m experiments.counterfactual --workdir=runs/demo --do=angle=20 --do=light=90 --num=8
python -m experiments.counterfactual --workdir=runs/demo --do=angle=-30:30:7 --evidence=test:0:4
python -m experiments.counterfactual --workdir=runs/demo --shift=light=-15 --evidence=my_pictures/ --out=answers
python -m experiments.counterfactual --workdir=runs/mine --do=smoker=no --evidence=patients.csv
python -m experiments.counterfactual --workdir=runs/table --do='treatment->outcome=1' --soft=normal:x1=0,2
python -m experiments.counterfactual --workdir=runs/text --do='tokens[5]=17' --num=4
python -m experiments.counterfactual --workdir=runs/text --do='text[10:14]="1912"' --evidence=speech.txt --draws=8
"""


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "folder of a trained run", flag_values=values)
    cli.intervention_flags(values)
    evidence = "SPLIT:START:STOP, FILE.npz|png|jpg|csv|txt, or a FOLDER of pictures [the first --num of the test split]"
    flags.DEFINE_string("evidence", None, evidence, flag_values=values)
    flags.DEFINE_integer("num", 16, "how many examples, at most", lower_bound=1, flag_values=values)
    flags.DEFINE_string("out", None, "folder for the answer [WORKDIR/counterfactual]", flag_values=values)
    flags.DEFINE_integer("seed", 0, "of the abduction, where it draws", lower_bound=0, flag_values=values)
    text = "in a sequence: draws of the noise behind each row; how far their answers agree is in metrics.json"
    flags.DEFINE_integer("draws", 1, text, lower_bound=1, flag_values=values)


def run(values: Any, overrides: dict[str, str]) -> None:
    cli.require(values, "workdir")

    from causal_gen import build as border
    from causal_gen.parallel import hosts, mesh
    from causal_gen.parallel.interrupt import whole
    from experiments import evidence, questions

    trained = border.restore(values.workdir, overrides)
    question, sequence = questions.asked(values, trained), bool(getattr(trained.model, "spans", None))
    if not question.terms:
        known = "write --do='tokens[5]=17'" if sequence else f"the factors are {', '.join(trained.model.actable)}"
        raise cli.UsageError(f"--do, --shift or --soft is missing; {known}")
    cli.warn(question.warnings(trained.data.entries, trained.config["data"]["stats"]))
    given = evidence.load(values.evidence, trained, values.num)
    missing = [name for name in trained.model.needs if name not in given.batch]
    if missing:
        raise cli.UsageError(f"evidence {given.source}: entry {missing[0]!r} is missing; abduction needs {', '.join(trained.model.needs)}")
    if sequence:
        _check_lengths(question, given)
    elif values.draws > 1:
        raise cli.UsageError("--draws is for sequences, whose noise is drawn from its posterior; leave it out")
    with mesh.current(trained.params):
        answers = (_sequences if sequence else _scenes)(trained, question, given, values.seed)
    metrics = {"step": trained.step, "evidence": given.source, "num": given.num, "intervention": question.spell()}
    if outside := question.outside(trained.data.entries, trained.config["data"]["stats"]):
        metrics["outside"] = outside
    metrics |= _token_scores(trained, answers, question, given) if sequence else _scores(answers, question)
    if values.draws > 1:
        metrics |= _drawn_again(trained, answers, question, given, values)
    if not hosts.first():
        return
    out = Path(values.out or Path(values.workdir) / "counterfactual")
    out.mkdir(parents=True, exist_ok=True)
    _write_arrays(out / "counterfactual.npz", answers, question, given.num)
    shown = _show(out, trained, answers, question, given)
    with whole(out / "metrics.json") as part:
        part.write_text(json.dumps(metrics, indent=2) + "\n")
    print(f"counterfactual: wrote {out / 'counterfactual.npz'}, {shown} and metrics.json", file=sys.stderr)
    print(f"These are {_meaning(trained)}", file=sys.stderr)
    print(json.dumps(metrics))


def _meaning(trained: Any) -> str:
    from experiments import questions

    if getattr(trained.model, "spans", None):
        return f"{questions.GUMBEL}."
    told = hasattr(trained.model, "found_edges")  # a model that finds its graph has it among its parameters
    pairs = trained.model.found_edges(trained.params) if told else trained.model.graph.edges
    edges = ", ".join(f"{parent} -> {child}" for parent, child in pairs if child in trained.model.actable)
    drawn = "; of discrete factors also on the Gumbel-max choice of noise, others being possible" if _discrete(trained) else ""
    return f"{questions.MEANING}{drawn}. Graph of the factors{', as found' if told else ''}: {edges or 'no edges'}."


def _discrete(trained: Any) -> bool:
    return any(trained.data.entries[name].vocabulary for name in trained.model.actable if name in trained.data.entries)


def _scenes(trained: Any, question: Any, given: Any, seed: int) -> dict[str, Any]:
    """The answers to a question about factors, and the truth where a simulator knows it."""
    import jax

    from causal_gen.evaluate.batched import Batched

    ask = Batched(trained.model, trained.params, min(given.num, 64))
    noise = ask.abduct(jax.random.key(seed), given.batch)
    context = {name: given.batch[name] for name in trained.model.context} or None
    truths = [None]
    if given.indices is not None:
        truths = [trained.data.truth(given.split, given.indices, act) for _, act in question.cells()]
    return {
        "factual": given.batch,
        "reconstruction": ask.predict(noise, None, context),
        "counterfactual": [ask.predict(noise, act, context) for _, act in question.cells()],
        "truth": None if any(truth is None for truth in truths) else truths,
    }


def _sequences(trained: Any, question: Any, given: Any, seed: int) -> dict[str, Any]:
    """The answers to a question about positions."""
    import jax

    from causal_gen.evaluate import batched

    acts = [None, *(act for _, act in question.cells())]
    again, *found = batched.answers(trained.model, trained.params, jax.random.key(seed), given.batch, acts)
    return {"factual": given.batch, "reconstruction": again, "counterfactual": found, "truth": None}


def _drawn_again(trained: Any, answers: dict[str, Any], question: Any, given: Any, values: Any) -> dict[str, Any]:
    """How far further draws of the noise agree with the first; they join the answers as "draws", an entry [b, d, ...] for each cell."""
    import numpy as np

    from causal_gen.evaluate.agreement import agreement
    from causal_gen.evaluate.base import jsonable

    several = [answers["counterfactual"]]
    for draw in range(1, values.draws):
        several.append(_sequences(trained, question, given, values.seed + 0x10000 * draw)["counterfactual"])
    node = next(iter(trained.model.spans))
    factual = np.asarray(given.batch[node])
    own = np.arange(factual.shape[1]) < (np.full(given.num, factual.shape[1]) if given.lengths is None else given.lengths)[:, None]
    answers["draws"] = [{node: np.stack([draw[cell][node] for draw in several], 1)} for cell in range(len(several[0]))]
    sets = [act.actions[node].args[0] for _, act in question.cells()]
    found = [agreement(factual, np.moveaxis(cell[node], 1, 0), places, own) for cell, places in zip(answers["draws"], sets, strict=True)]
    return {"draws": values.draws, **jsonable(found[0] if not question.axes else {"agreements": found})}


def _check_lengths(question: Any, given: Any) -> None:
    """Raises `UsageError` for a position that no row of the user's own text has."""
    if given.lengths is None:
        return
    for term in question.terms:
        if term.places[-1] >= given.lengths.max():
            where = f"evidence {given.source}: its text has {given.lengths.max()} tokens a row"
            raise cli.UsageError(f"{where}, and {term.written} lies beyond; give a position before that, or more text")


def _stack(rows: list[dict[str, Any]], shape: tuple[int, ...], num: int) -> dict[str, Any]:
    """Entries of every cell of the question as [b, *shape, ...]."""
    import numpy as np

    stacked = {name: np.stack([np.asarray(row[name]) for row in rows], 1) for name in rows[0]}
    return {name: value.reshape(num, *shape, *value.shape[2:]) for name, value in stacked.items()}


def _write_arrays(path: Path, answers: dict[str, Any], question: Any, num: int) -> None:
    import numpy as np

    from causal_gen.parallel.interrupt import whole

    arrays = {}
    for kind, found in answers.items():
        if found is not None:
            entries = _stack(found, question.shape, num) if isinstance(found, list) else found
            arrays |= {f"{kind}_{name}": value for name, value in entries.items()}
    arrays |= {f"axis_{term.written}": np.asarray(term.values).reshape(len(term.values)) for term in question.axes}
    with whole(path) as part:
        np.savez_compressed(part, **arrays)


def _show(out: Path, trained: Any, answers: dict[str, Any], question: Any, given: Any) -> str:
    """Write what a person reads or looks at, and return its name: grid.png, counterfactual.txt or counterfactual.csv."""
    from causal_gen.parallel.interrupt import whole
    from experiments import tables

    asked = ", ".join(f"{name} = {value}" for name, value in question.spell().items())
    title = f"{asked}: counterfactuals of the model at step {trained.step}"
    node = next(iter(getattr(trained.model, "spans", {})), None)
    if node is None and "image" not in answers["factual"]:
        with whole(out / "counterfactual.csv") as part:
            tables.write(part, tables.beside(answers, question, given.num, trained.data.entries), trained.data.entries)
        return "counterfactual.csv (no grid.png: single numbers are no pictures)"
    if node is None:
        _draw(out / "grid.png", answers, question, title, lambda entries: entries["image"])
        return "grid.png"
    if hasattr(trained.data, "images"):
        _draw(out / "grid.png", answers, question, title, lambda entries: trained.data.images(entries[node]))
        return "grid.png"
    text = _beside(answers, question, given, node, getattr(trained.data, "tokenizer", None))
    with whole(out / "counterfactual.txt") as part:
        part.write_text(f"{title}; evidence {given.source}\n\n{text}\n", encoding="utf-8")
    return "counterfactual.txt (no grid.png: these sequences are no pictures)"


def _beside(answers: dict[str, Any], question: Any, given: Any, node: str, tokenizer: Any) -> str:
    """Factual, reconstruction and counterfactual tokens of every row, position by position, with what was set and what moved marked."""
    from causal_gen.evaluate import texts

    spelling, parts = texts.Spelling(tokenizer), [texts.LEGEND]
    factual, again = answers["factual"][node], answers["reconstruction"][node]
    labels = [label if question.axes else "counterfactual" for label, _ in question.cells()]
    for row in range(given.num):
        length = factual.shape[1] if given.lengths is None else given.lengths[row]
        forced = question.forced(factual.shape[1])[:length]
        cells = {label: cell[node][row, :length] for label, cell in zip(labels, answers["counterfactual"], strict=True)}
        rows = {"factual": factual[row, :length], "reconstruction": again[row, :length]}
        lines = [f"==== row {row} ===="]
        for label, tokens in cells.items():
            lines.append(f"{label}: {texts.moved(spelling, rows['factual'], tokens, forced)}")
        parts.append("\n".join([*lines, texts.side_by_side(spelling, rows, cells, forced)]))
    return "\n\n".join(parts)


def _draw(path: Path, answers: dict[str, Any], question: Any, title: str, image: Callable[[dict[str, Any]], Any]) -> None:
    """A row a scene: factual, reconstruction, counterfactual, truth and their difference; for a range a row of pictures."""
    import numpy as np

    from causal_gen.evaluate import pictures

    factual = image(answers["factual"])
    columns = {"factual": factual, "reconstruction": image(answers["reconstruction"])}
    for kind in ("counterfactual", "truth"):
        if answers[kind] is not None:
            stacked = np.stack([image(cell) for cell in answers[kind]], 1)
            columns[kind] = stacked if question.axes else stacked[:, 0]
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
    scores: dict[str, Any] = {}
    if "image" in factual:
        scores["reconstruction_mae"] = gap(again["image"], factual["image"])
        scores["changed_mae"] = float(np.mean([gap(cell["image"], factual["image"]) for cell in cells]))
    factors = [name for name in cells[0] if name != "image"]
    scores["factors"] = {name: {"reconstruction": float(np.mean(again[name]))} for name in factors}
    for name in factors:
        means = np.asarray([float(np.mean(cell[name])) for cell in cells])
        scores["factors"][name]["counterfactual"] = means.reshape(question.shape).tolist()
        if np.asarray(again[name]).dtype.kind == "i":  # of categories the mean says little
            changed = np.asarray([float(np.mean(cell[name] != again[name])) for cell in cells])
            scores["factors"][name]["changed"] = changed.reshape(question.shape).tolist()
    truths = answers["truth"]
    if truths is not None:
        pairs = list(zip(cells, truths, strict=True))
        if "image" in factual:
            scores["truth_mae"] = float(np.mean([gap(cell["image"], truth["image"]) for cell, truth in pairs]))
            scores["copy_mae"] = float(np.mean([gap(factual["image"], truth["image"]) for truth in truths]))
        for name in factors:
            if name in truths[0]:
                scores["factors"][name]["truth_mae"] = float(np.mean([gap(cell[name], truth[name]) for cell, truth in pairs]))
                if name in factual:
                    scores["factors"][name]["copy_mae"] = float(np.mean([gap(factual[name], truth[name]) for truth in truths]))
    return scores


def _token_scores(trained: Any, answers: dict[str, Any], question: Any, given: Any) -> dict[str, Any]:
    """What evaluate/sequences.py measures of an answer, for these rows, with an axis a range: null and takes must be 1, before 0."""
    import numpy as np

    from causal_gen.evaluate import sequences, texts
    from causal_gen.evaluate.base import jsonable

    node = next(iter(trained.model.spans))
    factual, length = answers["factual"][node], answers["factual"][node].shape[1]
    own = np.arange(length) < (np.full(given.num, length) if given.lengths is None else given.lengths)[:, None]
    scores: dict[str, Any] = {"null": float((answers["reconstruction"][node] == factual)[own].mean())}
    cells = [cell[node] for cell in answers["counterfactual"]]
    sets = [act.actions[node].args[0] for _, act in question.cells()]
    found = [sequences.effects(factual, cell, values, own) for cell, values in zip(cells, sets, strict=True)]
    for name in ("takes", "before", "after"):
        scores[name] = np.array([part[name] for part in found]).reshape(question.shape)
    # what the model makes of the rest of a row that was filled up is nobody's question
    first = [texts.first_difference(factual, np.where(own, cell, factual), question.forced(length)) for cell in cells]
    scores["first_difference"] = np.stack(first, 1).reshape(given.num, *question.shape)
    return jsonable(scores)


COMMAND = cli.Command("counterfactual", __doc__, EXAMPLE, define, run, tune=True, spread=True, hosts=True)

if __name__ == "__main__":
    cli.start(COMMAND)
