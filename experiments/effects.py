"""What a change of a cause does to an outcome, on average, by a fitted model, with an interval that includes how well it was fitted.

total            of do(cause = from) against do(cause = to)
direct, indirect natural effects: what does not go through anything between cause and outcome, and what goes through it alone
decomposition    the three beside one another
controlled       with nodes between held at values of your own, --hold=m=0
path             along the paths given alone, --path='x>m>y'; several are taken together
causation        probability of necessity, of sufficiency and of both, with what data alone say about them

Prints a table, what the numbers rest on, and JSON last. --given='z>0' asks for those whose natural values fulfil it, --evidence for rows
of the data. Intervals: refits on rows drawn with replacement, 200 at once where the fit has a closed form; else --refits=5 trains five
times, into WORKDIR/refits. --confounded='x<->y' says that a cause of both is not in the data: what the graph then does not identify is
refused.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from absl import flags

from experiments import cli

EXAMPLE = """
python -m experiments.effects --workdir=runs/linear --cause=a --outcome=d --from=0 --to=1
python -m experiments.effects --workdir=runs/linear --cause=a --outcome=d --from=0 --to=1 --kind=decomposition --given='b>1'
python -m experiments.effects --workdir=runs/linear --cause=a --outcome=d --from=0 --to=1 --kind=path --path='a>b>d'
python -m experiments.effects --workdir=runs/discrete --cause=x --outcome=y --from=0 --to=1 --kind=causation --event=2
python -m experiments.effects --workdir=runs/triangle --cause=x1 --outcome=x3 --from=-1 --to=1 --refits=5
"""
PARTS = {"decomposition": ("total", "direct", "indirect")}
LEVEL = 0.9


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "folder of a trained run", flag_values=values)
    flags.DEFINE_string("cause", None, "the factor that is set", flag_values=values)
    flags.DEFINE_string("outcome", None, "the node that is looked at", flag_values=values)
    flags.DEFINE_string("from", None, "value of the cause, in its own units, or what it is called", flag_values=values)
    flags.DEFINE_string("to", None, "value that it is changed to", flag_values=values)
    kinds = ["total", "direct", "indirect", "decomposition", "controlled", "path", "causation"]
    flags.DEFINE_enum("kind", "total", kinds, "which effect; see above", flag_values=values)
    flags.DEFINE_multi_string("path", [], "for kind path: nodes from cause to outcome, 'x>m>y'; repeat for several", flag_values=values)
    flags.DEFINE_multi_string("hold", [], "for kind controlled: FACTOR=VALUE", flag_values=values)
    flags.DEFINE_multi_string(
        "given", [], "NAME>NUMBER (or >= < <= = !=) of natural values; repeat for several at once", flag_values=values
    )
    flags.DEFINE_string("event", None, "take the outcome as whether it is this value", flag_values=values)
    flags.DEFINE_string("evidence", None, "effects on given rows, SPLIT:START:STOP or a FILE.csv|npz [fresh units]", flag_values=values)
    flags.DEFINE_multi_string("confounded", [], "'x<->y': a common cause of both is not in the data", flag_values=values)
    text = "P(event) under do(to) and under do(from) of an experiment of your own, '0.6,0.2', for kind causation"
    flags.DEFINE_string("experiment", None, text, flag_values=values)
    flags.DEFINE_integer(
        "refits", None, "models fitted anew for the interval [200 in closed form, else 0]", lower_bound=0, flag_values=values
    )
    flags.DEFINE_integer("num", 20_000, "fresh units that are drawn", lower_bound=30, flag_values=values)
    flags.DEFINE_integer("seed", 0, "of the units, and of the rows of refits", lower_bound=0, flag_values=values)


def run(values: Any, overrides: dict[str, str]) -> None:
    cli.require(values, "workdir", "cause", "outcome", "from", "to")
    from causal_gen import build as border

    trained = border.restore(values.workdir, overrides)
    if getattr(trained.model, "spans", None) or trained.model.predict is None:
        raise cli.UsageError("effects are of models of named numbers; of a sequence ask experiments.counterfactual")
    if hidden := [name for name in (values.cause, values.outcome) if name in trained.model.actable and name not in trained.data.entries]:
        raise cli.UsageError(f"{hidden[0]} is in no row of the data, which say nothing of how it varies; ask experiments.counterfactual")
    contrasts = _contrasts(values, trained)
    if _value(values, trained, "from") == _value(values, trained, "to"):
        raise cli.UsageError("--from and --to are the same value, between which nothing changes; give two")
    _refuse_unidentified(values, trained)
    cli.warn(_extrapolations(values, trained))
    if values.kind == "causation":
        found = _causation(values, trained)
    else:
        found = _effects(values, trained, contrasts)
    found |= {"rests_on": _rests_on(values, trained, found)}
    ends = {flag: _value(values, trained, flag) for flag in ("from", "to")}
    asked = {"cause": values.cause, "outcome": values.outcome, **ends, "kind": values.kind}
    print("\n".join(["rests on", *(f"  {line}" for line in found["rests_on"])]), end="\n\n")
    print(json.dumps({"step": int(trained.step), **asked, "given": list(values.given), **found}))


def _contrasts(values: Any, trained: Any) -> dict[str, Any]:
    """{kind: what is asked}, checked."""
    from causal_gen.scm.effects import Contrast

    paths = tuple(tuple(part.strip() for part in text.replace("->", ">").split(">")) for text in values.path)
    event = _value(values, trained, "event") if values.kind != "causation" else None
    found = {}
    entry = trained.data.entries.get(values.outcome)
    if entry is not None and entry.shape != ():
        raise cli.UsageError(f"--outcome={values.outcome} is no single number; name a factor")
    for kind in PARTS.get(values.kind, (values.kind if values.kind != "causation" else "total",)):
        found[kind] = Contrast(values.cause, values.outcome, kind, paths, tuple(_held(values, trained)), event)
        found[kind].check(trained.model)
    return found


def _held(values: Any, trained: Any) -> dict[str, float]:
    pairs = [text.partition("=") for text in values.hold]
    return {name.strip(): _number(f"--hold={name}=", number, trained, name.strip()) for name, _, number in pairs}


def _value(values: Any, trained: Any, flag: str) -> float | None:
    """The number that --from, --to or --event stands for."""
    text = values[flag].value
    return None if text is None else _number(f"--{flag}=", text, trained, values.outcome if flag == "event" else values.cause)


def _number(flag: str, text: str, trained: Any, node: str) -> float:
    """A value of `node`: a number, or what the data call it."""
    called = list(_called(trained).get(node, ()))
    if text.strip() in called:
        return float(called.index(text.strip()))
    try:
        return float(text)
    except ValueError as error:
        raise cli.UsageError(f"{flag}{text}: give a number{f', or one of {chr(44).join(called)}' if called else ''}") from error


def _called(trained: Any) -> dict[str, tuple[str, ...]]:
    """{node: what its values are called}, of those that have names."""
    return {name: entry.names for name, entry in trained.data.entries.items() if getattr(entry, "names", ())}


def _refuse_unidentified(values: Any, trained: Any) -> None:
    """Raises `UserError` where latent common causes, as declared, leave the effect open, or stand where the model has none."""
    if not values.confounded:
        return
    from causal_gen.scm.identify import Effect, identify
    from causal_gen.structure.graph_mixed import Admg

    pairs = tuple(tuple(name.strip() for name in text.split("<->")) for text in values.confounded)
    wrong = [text for text, pair in zip(values.confounded, pairs, strict=True) if len(pair) != 2]
    if wrong:
        raise cli.UsageError(f"--confounded={wrong[0]}: write --confounded='x<->y'")
    if values.kind not in ("total", "causation") or values.given:
        raise cli.UsageError(f"--confounded is checked for total effects of everyone; not for kind {values.kind} or --given")
    graph = Admg(trained.model.graph, pairs)  # pyright: ignore[reportArgumentType]  (pairs of two, as checked)
    found = identify(graph, Effect((values.outcome,), (values.cause,)))
    unlike = _latent_in_mechanisms(graph, values.cause, values.outcome)
    if unlike:
        raise cli.UsageError(
            f"effect: the graph identifies {found}, but not by this model, whose mechanism of {unlike} knows no latent cause"
        )


def _latent_in_mechanisms(graph: Any, cause: str, outcome: str) -> str | None:
    """A node between whose regression on its parents is not its mechanism, or whose noise is shared: the model then answers wrongly."""
    from causal_gen.structure.graph_mixed import Admg
    from causal_gen.structure.graph_separation import separated

    through = graph.do(cause).ancestors(outcome) - {cause}
    for name in graph.sorted(through):
        kept = [edge for edge in graph.edges if edge[1] != name]
        parents = graph.dag.parents(name)
        shared = any({a, b} <= through and name in (a, b) for a, b in graph.bidirected)
        if shared or (parents and not separated(Admg.from_edges(kept, graph.bidirected, graph.nodes), [name], parents, [])):
            return name
    return None


def _extrapolations(values: Any, trained: Any) -> list[str]:
    """A line where the cause is set to what the training rows hardly show."""
    import numpy as np

    column = np.asarray(trained.data.gather("train", np.arange(trained.data.size("train")))[values.cause], np.float64)
    lines = []
    for name in ("from", "to"):
        value = _value(values, trained, name) or 0.0
        if not column.min() <= value <= column.max():
            beyond = max(column.min() - value, value - column.max()) / max(column.std(), 1e-12)
            lines.append(
                f"warning: do({values.cause}={value:g}) lies {beyond:.2g} sd beyond the training rows' "
                f"{column.min():.4g}..{column.max():.4g}: an extrapolation"
            )
    return lines


def _units(values: Any, trained: Any) -> tuple[Any, Any, Any]:
    """Noise of fresh units or of given rows, their natural values, and what they are called."""
    import jax

    from causal_gen.scm import counterfactual as asking
    from experiments import evidence

    key = jax.random.key(values.seed)
    if trained.model.context:
        raise cli.UsageError(f"this model conditions on {', '.join(trained.model.context)}; effects of such models are not computed")
    if values.evidence is None:
        noise = jax.jit(trained.model.noise, static_argnums=1)(key, values.num)
        return noise, asking.predict(trained.model, trained.params, noise), "fresh units"
    given = evidence.load(values.evidence, trained, values.num)
    noise = asking.abduct(trained.model, trained.params, key, given.batch)
    return noise, asking.predict(trained.model, trained.params, noise), f"rows {given.source}"


def _effects(values: Any, trained: Any, contrasts: dict[str, Any]) -> dict[str, Any]:
    import jax
    import numpy as np

    from causal_gen.evaluate import intervals
    from causal_gen.scm import effects

    noise, natural, units = _units(values, trained)
    num = jax.tree.leaves(noise)[0].shape[0]
    conditions = [effects.Condition.parse(text, tuple(natural), _called(trained)) for text in values.given]
    kept = effects.fulfil(conditions, natural, num)
    again = _refits(values, trained) if values.evidence is None else None
    low, high, held = _value(values, trained, "from"), _value(values, trained, "to"), _held(values, trained)
    rows, out = {}, {}
    for kind, contrast in contrasts.items():
        unit = effects.unit_effects(trained.model, contrast, trained.params, noise, low, high, held)
        estimate = effects.average(unit, kept if conditions else None)
        spread = np.zeros(0)
        if again is not None:
            spread = np.asarray(effects.refitted_effects(trained.model, contrast, again, noise, low, high, held, kept), np.float64)
        ends = intervals.interval(estimate.value, estimate.error, spread, LEVEL)
        rows[kind] = f"{estimate.value:>10.4f}  {estimate.error:>10.4f}  {ends[0]:>9.4f} .. {ends[1]:.4f}"
        out[kind] = {"value": estimate.value, "standard_error": estimate.error, "interval": list(ends)}
        units_kept = estimate.units
    shown = f" = {values.event}" if values.event is not None else ""
    print(
        f"{values.cause}: {values['from'].value} -> {values.to}, on {values.outcome}{shown}; {units_kept:,} {units}"
        + (f", given {', '.join(map(str, conditions))}" if conditions else "")
    )
    print(f"{'effect':14}{'value':>10}  {'sampling':>10}  {f'{LEVEL:.0%} interval':>21}")
    for kind, line in rows.items():
        print(f"{kind:14}{line}")
    out = out if len(out) > 1 else next(iter(out.values()))
    refits = 0 if again is None else len(jax.tree.leaves(again)[0])
    return out | {"units": units_kept, "level": LEVEL, "refits": refits, **_seen(values, trained)}


def _seen(values: Any, trained: Any) -> dict[str, float]:
    """The difference of the groups' means in the training rows, for a cause of few values: seeing, not doing."""
    import numpy as np

    rows = trained.data.gather("train", np.arange(trained.data.size("train")))
    cause, outcome = rows[values.cause], np.asarray(rows[values.outcome], np.float64)
    if values.event is not None:
        outcome = (outcome == _value(values, trained, "event")).astype(float)
    groups = [outcome[cause == _value(values, trained, name)] for name in ("from", "to")]
    if cause.dtype != np.int32 or values.given or min(map(len, groups)) == 0:
        return {}
    found = float(groups[1].mean() - groups[0].mean())
    print(f"{'(groups)':14}{found:>10.4f}  the difference that the training rows show: seeing, not doing")
    return {"groups": found}


def _refits(values: Any, trained: Any) -> Any:
    """Parameters of models fitted anew, stacked, or None."""
    import numpy as np

    from causal_gen import build as border
    from causal_gen.evaluate import intervals

    closed = intervals.closed(trained.model)
    refits = values.refits if values.refits is not None else intervals.REFITS if closed else 0
    if refits < 2:
        return None
    if not closed:
        say = lambda line: print(line, file=sys.stderr, flush=True)  # noqa: E731
        return intervals.retrained(border.build(trained.config), border.train, Path(values.workdir) / "refits", refits, say)
    size = trained.data.size("train")
    weights = intervals.drawn_rows(np.random.default_rng(values.seed), size, refits)
    return intervals.refit(trained.model, trained.data.gather("train", np.arange(size)), weights)


def _causation(values: Any, trained: Any) -> dict[str, Any]:
    import numpy as np

    from causal_gen.scm import effects
    from causal_gen.scm.bounds import Observed, bounds, widened

    low, high, event = (_value(values, trained, flag) or 0.0 for flag in ("from", "to", "event"))
    event = 1.0 if values.event is None else event
    experiment = _experiment(values.experiment)
    noise, _, units = _units(values, trained)
    point = effects.causation(trained.model, trained.params, noise, values.cause, values.outcome, low, high, event)
    rows = trained.data.gather("train", np.arange(trained.data.size("train")))
    observed = Observed.of(np.asarray(rows[values.cause]), np.asarray(rows[values.outcome]), low, high, event)
    own = (point["with"].value, point["without"].value)
    told = {"observations": (bounds(observed), widened(observed, len(rows[values.cause]), None))}
    if experiment:
        told["experiment"] = (bounds(None, experiment), bounds(None, experiment))
        told["both"] = (bounds(observed, experiment), widened(observed, len(rows[values.cause]), experiment))
    else:
        told["with the model's do"] = (bounds(observed, own), widened(observed, len(rows[values.cause]), own))
    shown = f"{values.outcome} = {values.event or '1'}"
    print(f"{values.cause}: {values['from'].value} -> {values.to}, {shown}; {point['pns'].units:,} {units}")
    out: dict[str, Any] = {"event": event, "with": own[0], "without": own[1], "units": point["pns"].units}
    names = {"pn": "necessity", "ps": "sufficiency", "pns": "both"}
    print(f"{'probability of':16}{'Gumbel-max':>11}  {'sampling':>8}  " + "  ".join(f"{name:>22}" for name in told))
    for name, shown in names.items():
        ends = {source: pair[0][name] for source, pair in told.items()}
        line = "  ".join(f"{low:>14.4f} .. {high:.4f}" for low, high in ends.values())
        print(f"{shown:16}{point[name].value:>11.4f}  {point[name].error:>8.4f}  {line}")
        out[name] = {
            "gumbel_max": point[name].value,
            "standard_error": point[name].error,
            "bounds": {source: list(pair) for source, pair in ends.items()},
            "bounds_90": {source: list(pair[1][name]) for source, pair in told.items()},
        }
    return out


def _experiment(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        with_, without = (float(part) for part in text.split(","))
    except ValueError:
        with_ = without = -1.0
    if not (0 <= with_ <= 1 and 0 <= without <= 1):
        raise cli.UsageError(f"--experiment={text}: write two probabilities, P(event) under do(to) and under do(from), as in 0.6,0.2")
    return with_, without


def _rests_on(values: Any, trained: Any, found: dict[str, Any]) -> list[str]:
    """What a reader has to believe before the numbers."""
    graph = trained.model.graph
    edges = ", ".join(f"{parent} -> {child}" for parent, child in graph.edges)
    lines = [f"the model at step {int(trained.step)} and its graph: {edges or 'no edges'}; no common cause left out"]
    if values.kind in ("direct", "indirect", "decomposition", "path", "causation") or values.evidence:
        lines.append("the same noise in both worlds: no experiment can check what one unit does in two of them")
    if any(getattr(trained.model, "discrete", ())) and (values.kind == "causation" or values.evidence):
        lines.append("the Gumbel-max choice of noise of discrete nodes; another one gives other numbers with the same data")
    if values.kind == "causation":
        lines.append(
            "bounds (Tian & Pearl): the data named alone, whatever the noise"
            + ("" if values.experiment else "; 'the model's do' rests on the graph")
        )
    elif found["refits"]:
        lines.append(f"intervals: {found['refits']} refits on rows drawn with replacement; a wrong graph is in none of them")
    else:
        lines.append("intervals: the units drawn alone, not how well the model was fitted; --refits=5 trains it again")
    return lines


COMMAND = cli.Command("effects", __doc__, EXAMPLE, define, run, tune=True)

if __name__ == "__main__":
    cli.start(COMMAND)
