"""Whether a graph identifies a causal effect from observations, by what formula, and what the formula says of given rows.

Prints the formula, the sets to adjust for and, with --data, an estimate with 90% bootstrap intervals; as JSON last. An effect that the
graph does not identify is refused with its hedge, exit code 2. With a BIF file that has tables the network itself is asked too, by
surgery.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from absl import flags

from experiments import cli

EXAMPLE = """
python -m experiments.identify --graph='z -> x, z -> y, x -> y' --effect='p(y | do(x))'
python -m experiments.identify --graph='x -> m -> y, x <-> y' --effect='p(y | do(x))' --data=rows.csv
python -m experiments.identify --graph=study.dot --latent=u --effect='p(y | do(x))' --given=age --data=rows.csv --bins=4
python -m experiments.identify --graph=configs/structural/smoking.bif --latent=disposition --effect='p(cancer | do(smoking))'
python -m experiments.identify --workdir=runs/dag_aware --latent=x1 --effect='p(outcome | do(treatment))'
"""

SHOWN = 40  # lines of an answer that are printed; the JSON has all


def define(values: flags.FlagValues) -> None:
    text = "FILE.dot, FILE.gv or FILE.bif, or edges such as 'z -> x, x -> y, x <-> y', where <-> is a latent common cause"
    flags.DEFINE_string("graph", None, text, flag_values=values)
    flags.DEFINE_string("workdir", None, "instead of --graph: the graph of a trained run's model", flag_values=values)
    flags.DEFINE_string("effect", None, "what is asked, 'p(y | do(x))' or 'p(y | do(x), z)'", flag_values=values)
    flags.DEFINE_list("given", [], "nodes to condition on, in addition to those in --effect", flag_values=values)
    flags.DEFINE_list("latent", [], "nodes that are not observed, in addition to those that the file marks", flag_values=values)
    flags.DEFINE_string(
        "data", None, "FILE.csv or FILE.parquet with a header: rows to estimate the effect from, every value a category", flag_values=values
    )
    flags.DEFINE_integer(
        "bins", None, "cut numeric columns of more values into so many bins of equal shares", lower_bound=2, flag_values=values
    )
    flags.DEFINE_integer("bootstrap", 200, "resamples behind the intervals; 0 for none", lower_bound=0, flag_values=values)
    flags.DEFINE_integer("seed", 0, "of the resamples", lower_bound=0, flag_values=values)


def run(values: Any, overrides: dict[str, str]) -> None:
    cli.require(values, "effect")
    if (values.graph is None) == (values.workdir is None):
        raise cli.UsageError("give either --graph or --workdir; --help shows an example")
    import dataclasses

    from causal_gen.scm import formula
    from causal_gen.scm.identify import Effect, identify

    graph, network = _graph(values, overrides)
    effect = Effect.parse(values.effect)
    effect = dataclasses.replace(effect, given=(*effect.given, *(name for name in values.given if name not in effect.given)))
    effect.check(graph)
    print(f"graph: {graph}")
    sets = _sets(graph, effect)
    found = identify(graph, effect)
    print(found)
    print(f"LaTeX: {found.latex()}")
    told: dict[str, Any] = {
        "effect": str(effect),
        "formula": formula.text(found.formula),
        "latex": found.latex(),
        "any": found.spare,
        **sets,
    }
    if network is not None and network.tables:
        told["network"] = _by_surgery(network, graph, found)
    if values.data is not None:
        told["estimate"] = _from_rows(values, found)
    print(json.dumps(told))


def _graph(values: Any, overrides: dict[str, str]) -> tuple[Any, Any]:
    """The graph over what is observed, and the network where it is a BIF file's."""
    from causal_gen.structure import graph_files
    from causal_gen.structure.graph_mixed import Admg

    if values.workdir is not None:
        from causal_gen import build as border

        return Admg(border.restore(values.workdir, overrides).model.graph).project(values.latent), None
    if not values.graph.endswith(graph_files.SUFFIXES) and any(arrow in values.graph for arrow in ("->", "<-")):
        return Admg.parse(values.graph, values.latent), None
    network = graph_files.read_bif(values.graph) if values.graph.endswith(".bif") else None
    return graph_files.read_graph(values.graph, values.latent), network


def _sets(graph: Any, effect: Any) -> dict[str, Any]:
    """The sets that give p(y | do(x)) by a formula of their own, printed and as lists."""
    from causal_gen.structure import graph_separation as separation

    if not effect.x:
        return {}
    x, y = effect.x, effect.y
    kinds = {"back_door": separation.back_door_sets, "adjustment": separation.adjustment_sets, "front_door": separation.front_door_sets}
    found = {kind: [graph.sorted(one) for one in sets(graph, x, y)] for kind, sets in kinds.items()}
    for kind, sets in found.items():
        if kind != "adjustment" or sets != found["back_door"]:
            print(f"{kind.replace('_', '-')} sets: {', '.join('{' + ', '.join(one) + '}' for one in sets) or 'none'}")
    tools = separation.instruments(graph, x[0], y[0]) if len(x) == len(y) == 1 else ()
    if tools:
        listed = (name + (f" given {', '.join(graph.sorted(given))}" if given else "") for name, given in tools)
        print(f"instruments (for linear models): {', '.join(listed)}")
    return {**found, "instruments": [{"node": name, "given": graph.sorted(given)} for name, given in tools]}


def _by_surgery(network: Any, graph: Any, found: Any) -> list[dict[str, Any]]:
    """The formula on what the network lets be seen, beside what an intervention on the network does."""
    from causal_gen.scm import plugin
    from causal_gen.scm.diagram import Diagram

    diagram, effect = Diagram(network.dag, network.tables), found.effect
    named = {*effect.y, *effect.x, *effect.given}
    joint = diagram.state(plugin.variables(found.formula) | named)
    truth = diagram.do(effect.y, effect.x, effect.given)
    seen = plugin.conditioned(found, joint.names, joint.array)
    print("the network's own numbers, by the formula from what is observed; by surgery; by conditioning alone:")
    return _table(
        effect, network.states, {"value": found.evaluate(joint), "surgery": truth, "seen": seen}, "{value:.4f}  {surgery:.4f}  {seen:.4f}"
    )


def _from_rows(values: Any, found: Any) -> list[dict[str, Any]]:
    """The estimate from the rows of a file."""
    from causal_gen.scm import plugin

    effect = found.effect
    needed = sorted(plugin.variables(found.formula) | {*effect.y, *effect.x, *effect.given})
    columns, states = _read(Path(values.data), needed, values.bins)
    names, counts = plugin.count(columns, {name: len(states[name]) for name in needed})
    told = plugin.estimate(found, names, counts, values.bootstrap, values.seed)
    print(f"estimate from {told.rows:,} rows, 90% interval; by conditioning alone:")
    lacking = int((~_finite(told.value)).sum())
    if lacking:
        cli.warn(
            [f"warning: {lacking} of {told.value.size} values are undefined: the rows hold no case with the conditions that they need"]
        )
    arrays = {"value": told.value, "low": told.low, "high": told.high, "seen": plugin.conditioned(found, names, counts)}
    return _table(effect, states, arrays, "{value:.4f}  ({low:.4f} to {high:.4f})  {seen:.4f}")


def _finite(array: Any) -> Any:
    import numpy as np

    return np.isfinite(array)


def _table(effect: Any, states: dict[str, Any], arrays: dict[str, Any], line: str) -> list[dict[str, Any]]:
    """A line and a dict for every state of the effect's variables; what is undefined is None."""
    import numpy as np

    names, told = (*effect.y, *effect.x, *effect.given), []
    shape = next(iter(arrays.values())).shape
    for place in np.ndindex(*shape):
        state = {name: states[name][i] for name, i in zip(names, place, strict=True)}
        numbers = {key: float(array[place]) for key, array in arrays.items()}
        if len(told) < SHOWN:
            print(f"  {_spelled(effect, state)} = {line.format(**numbers)}")
        told.append({**state, **{key: number if math.isfinite(number) else None for key, number in numbers.items()}})
    if len(told) > SHOWN:
        print(f"  and {len(told) - SHOWN} more, in the JSON below")
    return told


def _spelled(effect: Any, state: dict[str, str]) -> str:
    def each(names: Any) -> str:
        return ", ".join(f"{name}={state[name]}" for name in names)

    right = [f"do({each(effect.x)})"] * bool(effect.x) + ([each(effect.given)] if effect.given else [])
    return f"p({each(effect.y)}{' | ' + ', '.join(right) if right else ''})"


def _read(path: Path, needed: list[str], bins: int | None) -> tuple[dict[str, Any], dict[str, tuple[str, ...]]]:
    """Codes and states of the columns `needed` of a table. Raises `DataError` for a missing column or cell, with its place."""
    from causal_gen.data import table
    from causal_gen.types import DataError

    cells = table.read(path, f"--data={path}")
    lacking = [name for name in needed if name not in cells]
    if lacking:
        raise DataError(f"--data={path}: there is no column {lacking[0]!r}; the columns are {', '.join(cells) or 'none'}")
    found = {name: _column(cells[name], f"--data={path}: column {name!r}", bins) for name in needed}
    return {name: codes for name, (codes, _) in found.items()}, {name: states for name, (_, states) in found.items()}


def _column(cells: Any, what: str, bins: int | None) -> tuple[Any, tuple[str, ...]]:
    """Codes and states of one column; numbers in their own order, in bins where they have more values than that."""
    import numpy as np

    from causal_gen.data import table

    if not table.is_real(cells):
        names = tuple(sorted({str(cell) for cell in cells}))
        return table.places(cells, names, what), names
    numbers = table.numbers(cells, what)
    states, codes = np.unique(numbers, return_inverse=True)
    if bins is None or len(states) <= bins:
        return codes, tuple(f"{state:g}" for state in states)
    edges = np.unique(np.quantile(numbers, np.linspace(0, 1, bins + 1)))
    codes = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, len(edges) - 2)
    return codes, tuple(f"{low:g}..{high:g}" for low, high in zip(edges, edges[1:], strict=False))


COMMAND = cli.Command("identify", __doc__, EXAMPLE, define, run)

if __name__ == "__main__":
    cli.start(COMMAND)
