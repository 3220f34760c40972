"""Try to refute a fitted model: its own laws, held-out rows, the effect fitted anew, and rows under an intervention that it never saw.

Prints a scorecard that ends in "do not trust this", "these data cannot tell" or "not refuted", and JSON last. Observations alone never say
more than "cannot tell": what would, is an --environment, rows in which the nodes of --do were set to what stands in their columns.
--environment=simulator asks the data's own equations, where there are some, for the test rows under --do. All p-values share one level of
1% by Holm's method: the chance of any false alarm.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from absl import flags

from experiments import cli

EXAMPLE = """
python -m experiments.refute --workdir=runs/linear
python -m experiments.refute --workdir=runs/linear --environment=experiment.csv --do=b=1
python -m experiments.refute --workdir=runs/linear --environment=simulator --do=b=1 --cause=b --outcome=d
"""
SIMULATOR = "simulator"


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "folder of a trained run", flag_values=values)
    text = f"FILE.csv|npz with a column a node, rows under an intervention; or {SIMULATOR!r}, where the data has equations"
    flags.DEFINE_string("environment", None, text, flag_values=values)
    text = "a node that was set: NODE=VALUE, or NODE alone where its column says to what; repeat for several"
    flags.DEFINE_multi_string("do", [], text, flag_values=values)
    flags.DEFINE_string(
        "cause", None, "of the effect that is fitted anew [the first node that was set, else the first node]", flag_values=values
    )
    flags.DEFINE_string("outcome", None, "of that effect [the last node downstream of it]", flag_values=values)
    flags.DEFINE_integer(
        "num", 2_000, "how many rows of the test split and of the environment, at most", lower_bound=30, flag_values=values
    )
    flags.DEFINE_integer(
        "refits", None, "models fitted anew [200 in closed form, else those in WORKDIR/refits]", lower_bound=2, flag_values=values
    )
    flags.DEFINE_integer("seed", 0, "of the units drawn", lower_bound=0, flag_values=values)


def run(values: Any, overrides: dict[str, str]) -> None:
    cli.require(values, "workdir")
    import jax
    import numpy as np

    from causal_gen import build as border
    from causal_gen.evaluate import refute, refute_refits

    trained = border.restore(values.workdir, overrides)
    model, params, key = trained.model, trained.params, jax.random.key(values.seed)
    if getattr(model, "spans", None) or model.predict is None or model.context:
        raise cli.UsageError("refute is for models of named numbers without a context; evaluate this one instead")
    if wide := [name for name in model.graph.nodes if trained.data.entries[name].shape != ()]:
        raise cli.UsageError(f"refute is for models of named numbers, and node {wide[0]!r} is none; evaluate this one instead")
    acted = _acted(values, model)
    train = trained.data.gather("train", np.arange(trained.data.size("train")))
    test = trained.data.gather("test", np.arange(min(values.num, trained.data.size("test"))))
    refits = _refits(values, trained, train)
    checks = [*refute.axioms(model, params, key, test), *refute.observations(model, params, key, test, trained.data.size("train"))]
    cause, outcome = _effect(values, model, acted)
    if cause and outcome:
        checks += refute_refits.attempts(model, refits, key, train, cause, outcome, values.seed)
    informative, told = False, refute.unknown(model)
    if acted:
        found, informative = refute.environment(model, params, refits, key, _environment(values, trained, acted), tuple(acted), train)
        checks += found
        if not informative:
            told.append(f"this environment: nothing moved under do({', '.join(acted)}), and by the model nothing should have")
        else:
            told = [f"what do({', '.join(acted)}) does not move: {line}" for line in told]
    else:
        told.append("anything about interventions: there is no environment (--environment)")
    card = refute.judged(checks, told, informative)
    _print(card)
    print(json.dumps({"step": int(trained.step), **_plain(card), "alpha": refute.ALPHA, "acted": acted}))


def _acted(values: Any, model: Any) -> dict[str, float | None]:
    """{node: value, or None where the environment's column says it}."""
    found: dict[str, float | None] = {}
    for text in values.do:
        name, equals, number = (part.strip() for part in text.partition("="))
        if name not in model.actable:
            raise cli.UsageError(f"--do={text}: no node {name!r} that can be set; they are {', '.join(model.actable)}")
        try:
            found[name] = float(number) if equals else None
        except ValueError as error:
            raise cli.UsageError(f"--do={text}: write NODE=NUMBER, or NODE where the environment's column says to what") from error
    if bool(found) != bool(values.environment):
        raise cli.UsageError("--environment and --do go together: the rows, and which nodes were set in them")
    return found


def _environment(values: Any, trained: Any, acted: dict[str, float | None]) -> dict[str, Any]:
    """Its rows."""
    import numpy as np

    from causal_gen.scm.intervention import do
    from experiments import evidence

    if values.environment == SIMULATOR:
        if None in acted.values():
            raise cli.UsageError("--environment=simulator sets nodes to values; write --do=NODE=NUMBER")
        indices = np.arange(min(values.num, trained.data.size("test")))
        rows = trained.data.truth("test", indices, do(**{name: value for name, value in acted.items()}))
        if rows is None:
            raise cli.UsageError("this data has no equations of its own; give the environment as a FILE.csv")
        return rows
    rows = evidence.load(values.environment, trained, values.num).batch
    for name, value in acted.items():
        if value is not None and name in rows and not np.allclose(rows[name], value, rtol=1e-4, atol=1e-6):
            raise cli.UsageError(
                f"environment {values.environment}: --do={name}={value:g}, but its column {name} holds other values; write --do={name}"
            )
    return {
        **{name: np.full(len(next(iter(rows.values()))), value, np.float32) for name, value in acted.items() if value is not None},
        **rows,
    }


def _refits(values: Any, trained: Any, train: Any) -> Any:
    import numpy as np

    from causal_gen import build as border
    from causal_gen.evaluate import intervals

    if intervals.closed(trained.model):
        size = trained.data.size("train")
        weights = intervals.drawn_rows(np.random.default_rng(values.seed), size, values.refits or intervals.REFITS)
        return intervals.refit(trained.model, train, weights)
    folder = Path(values.workdir) / "refits"
    done = len([path for path in folder.glob("*") if (path / "checkpoints").is_dir()]) if folder.is_dir() else 0
    if values.refits is None and done < 2:
        return None
    say = lambda line: print(line, file=sys.stderr, flush=True)  # noqa: E731
    return intervals.retrained(border.build(trained.config), border.train, folder, values.refits or done, say)


def _effect(values: Any, model: Any, acted: dict[str, float | None]) -> tuple[str | None, str | None]:
    graph = model.graph
    for flag in ("cause", "outcome"):
        if values[flag].value is not None and values[flag].value not in graph.nodes:
            raise cli.UsageError(f"--{flag}={values[flag].value}: no node of the graph; they are {', '.join(graph.nodes)}")
    cause = values.cause or next((name for name in (*acted, *graph.order) if graph.descendants(name)), None)
    below = [name for name in graph.order if cause and name in graph.descendants(cause)]
    outcome = values.outcome or (below[-1] if below else None)
    if cause is not None and cause == outcome:
        raise cli.UsageError(f"--cause and --outcome are both {cause}; give two nodes")
    return cause, outcome


def _print(card: Any) -> None:
    marks = {True: "ok", False: "FAILED", None: "-"}
    for kind in dict.fromkeys(check.kind for check in card.checks):
        print(kind)
        own = [check for check in card.checks if check.kind == kind]
        shown = (
            own
            if len(own) <= 12
            else sorted(own, key=lambda check: (check.passed is not False, check.p if check.p is not None else 1.0))[:12]
        )
        for check in shown:
            p = f"p = {check.p:.2g}" if check.p is not None else ""
            print(f"  {marks[check.passed]:7}{check.name:34}{p:13}{check.detail}")
        if len(own) > len(shown):
            print(f"  and {len(own) - len(shown)} more that passed more easily")
    if card.open:
        print("these data cannot tell")
        for line in card.open:
            print(f"  {line}")
    failed = ", ".join(f"{check.kind}: {check.name}" for check in card.failed)
    print(f"\nverdict: {card.verdict}{f' ({failed})' if failed else ''}")


def _plain(card: Any) -> dict[str, Any]:
    return {
        "verdict": card.verdict,
        "failed": [f"{check.kind}: {check.name}" for check in card.failed],
        "open": list(card.open),
        "checks": [dataclasses.asdict(check) for check in card.checks],
    }


COMMAND = cli.Command("refute", __doc__, EXAMPLE, define, run, tune=True)

if __name__ == "__main__":
    cli.start(COMMAND)
