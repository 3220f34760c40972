"""One page about a study of launch.sweep: `report.html` in its folder, self-contained, from study.json alone.

It can be written while the study runs. study.json is read as launch/study.py writes it; what a trial lacks is left out of the drawings.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from causal_gen.evaluate import charts, importance, study_charts
from causal_gen.types import WorkdirError

NAME = "study.json"
MAX_ROWS, MAX_LINES = 300, 1000  # trials in the table, and lines over the axes: the best ones
FIXED = ("sampler", "pruner", "seed", "metric", "goal", "storage")  # flags that a study keeps, in the order of its command


def is_study(folder: str | Path) -> bool:
    """Whether a folder is that of a study."""
    return (Path(folder) / NAME).is_file()


def render(folder: str | Path) -> str:
    """The page of the study in `folder`. Raises `WorkdirError` where its study.json cannot be read."""
    from markupsafe import Markup

    from causal_gen.evaluate.report import template

    folder = Path(folder)
    study = _read(folder / NAME)
    trials = [_trial(row) for row in study["trials"]]
    done = [trial for trial in trials if trial["state"] == "complete" and trial["value"] is not None]
    ranked = sorted(done, key=lambda trial: trial["value"] * (1 if study["goal"] == "min" else -1))
    rest = sorted((trial for trial in trials if trial not in done), key=lambda trial: trial["number"])
    scales = importance.scales(study["space"], [trial["params"] for trial in trials])
    shares = importance.importance(scales, [one["params"] for one in done], [one["value"] for one in done], study["goal"])
    best = ranked[0] if ranked else None
    drawn = study_charts.parallel(scales, study["metric"], [*ranked, *rest][:MAX_LINES], study["goal"])
    longest = max(shares.values(), default=1.0)
    ends = [key.rpartition(".")[2] for key in scales]
    short = {key: end if ends.count(end) == 1 else key for key, end in zip(scales, ends, strict=True)}
    page = {
        "name": f"Study {folder.resolve().name}", "question": _question(study, scales), "facts": _facts(study, trials),
        "metric": study["metric"], "spread": _spread(ranked), "trained_once": len(ranked) > 1,
        "best": best and {"number": best["number"], "shown": charts.number(best["value"]),
                          "settings": [(key, _spell(value)) for key, value in best["params"].items()]},
        "best_file": "best.py" if (folder / "best.py").is_file() else "",
        "parallel": Markup(drawn),
        "bars": [(short[key], f"{100 * share:.0f}%", f"{100 * share / longest:.1f}") for key, share in shares.items()],
        "quarter": "quarter", "complete": len(done), "fewest": importance.FEWEST,
        "fronts": [(title, Markup(svg), on) for title, svg, on in _fronts(done, study)],
        "history": Markup(_history(done, study["goal"])),
        "search": [("sampler", _spell_all(study["sampler"])), ("pruner", _spell_all(study["pruner"])), ("seed", study["seed"])],
        "space": [(key, _describe(given)) for key, given in study["space"].items()] if isinstance(study["space"], dict)
                 else [("settings", f"a list of {len(study['space'])}")],
        "keys": list(short.items()),
        "rows": [_row(folder, trial, trial is best, list(scales), study["steps"]) for trial in [*ranked, *rest][:MAX_ROWS]],
        "left_out": max(len(trials) - MAX_ROWS, 0),
        "commands": _commands(folder, study, best), "config": json.dumps(study["tree"], indent=2),
    }  # fmt: skip
    return template("study.html").render(page)


# -- what study.json holds ---------------------------------------------------------------------------------------------------


def _read(path: Path) -> dict[str, Any]:
    try:
        study = json.loads(path.read_text(encoding="utf-8"))
        missing = {"trials", "space", "metric", "goal", "fixed", "sampler", "pruner", "seed", "steps", "config", "tree"} - set(study)
    except (OSError, ValueError, TypeError) as error:
        raise WorkdirError(f"report: {path} cannot be read ({error}); restore it, or begin another study") from error
    if missing:
        raise WorkdirError(f"report: {path} lacks {', '.join(sorted(missing))}; it is no study of launch.sweep")
    return study


def _trial(row: Mapping[str, Any]) -> dict[str, Any]:
    """A trial with `value` None where there is no number, and a line of words about it."""
    value = row.get("value") if row["state"] == "complete" else None
    value = float(value) if isinstance(value, int | float) and value == value and abs(value) != float("inf") else None
    settings = ", ".join(f"{key.rpartition('.')[2]} = {_spell(setting)}" for key, setting in row["params"].items())
    words = f"trial {row['number']}, {row['state']}{'' if value is None else ', ' + charts.number(value)}: {settings}"
    return {**row, "value": value, "words": words}


# -- the parts of the page ---------------------------------------------------------------------------------------------------


def _question(study: Mapping[str, Any], scales: Mapping[str, Any]) -> str:
    named = [key.rpartition(".")[2].replace("_", " ") for key in scales]
    words = f"{', '.join(named[:-1])} and {named[-1]}" if len(named) > 1 else "".join(named)
    least = {"min": "smallest", "max": "largest"}[study["goal"]]
    return f"Which {words} give the {least} {study['metric']} of {study['config']}, trained for {study['steps']} steps?"


def _facts(study: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    counts = {state: sum(trial["state"] == state for trial in trials) for state in ("complete", "pruned", "failed", "running", "waiting")}
    found = [("trials", f"{len(trials)} of {study.get('trials_wanted', len(trials))}")]
    found += [(state, str(count)) for state, count in counts.items() if count]
    whole = sum(trial["step"] for trial in trials)
    full = study["steps"] * sum(trial["state"] in ("complete", "pruned") for trial in trials)
    if counts["pruned"]:
        spent = sum(trial["step"] for trial in trials if trial["state"] in ("complete", "pruned"))
        found.append(("steps saved by pruning", f"{100 * (1 - spent / max(full, 1)):.0f}%"))
    found += [("steps trained", charts.number(whole)), ("time of all trials", _clock(sum(trial["seconds"] for trial in trials)))]
    return [*found, ("begun", str(study.get("created", "?")))]


def _spread(ranked: Sequence[Mapping[str, Any]]) -> str:
    """How the best stands among the others."""
    if len(ranked) < 2:
        return ""
    middle, worst = ranked[len(ranked) // 2]["value"], ranked[-1]["value"]
    return (
        f"the second has {charts.number(ranked[1]['value'])}, the middle one {charts.number(middle)}, the worst that finished "
        f"{charts.number(worst)}"
    )


def _fronts(done: Sequence[Mapping[str, Any]], study: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The metric against each cost that differs between trials: (title, drawing, trials of the front)."""
    found = []
    for key, cost in (("parameters", "parameters"), ("seconds", "seconds of training")):
        known = [trial for trial in done if trial.get(key)]
        points = [(float(trial[key]), trial["value"]) for trial in known]
        if len({x for x, _ in points}) < 2:
            continue
        on = study_charts.front(points, study["goal"])
        svg = study_charts.scatter(points, [trial["words"] for trial in known], on, cost, study["metric"])
        found.append((f"{study['metric']} against {cost}", svg, ", ".join(str(known[i]["number"]) for i in on)))
    return found


def _history(done: Sequence[Mapping[str, Any]], goal: str) -> str:
    """The value of every trial and the best so far."""
    points = sorted((float(trial["number"]), trial["value"]) for trial in done)
    if len(points) < 2:
        return ""
    best, choose = [], min if goal == "min" else max
    for number, value in points:
        best.append((number, choose(value, best[-1][1]) if best else value))
    values = [value for _, value in points]
    return charts.curves({"each trial": points, "best so far": best}, min(values) > 0 and max(values) > 20 * min(values), axis="trial")


def _row(folder: Path, trial: Mapping[str, Any], best: bool, keys: Sequence[str], steps: int) -> dict[str, Any]:
    page = Path("trials") / f"{trial['number']:04d}" / "report.html"
    shown = trial["value"] if trial["value"] is not None else trial.get("best")
    return {
        "number": trial["number"], "state": trial["state"], "best": best,
        "shown": ("" if trial["value"] is not None or shown is None else "so far ") + charts.number(shown),
        "step": f"{trial['step']}/{steps}", "time": _clock(trial["seconds"]),
        "settings": [_spell(trial["params"][key]) if key in trial["params"] else "" for key in keys],
        "line": trial.get("line", ""), "page": page.as_posix() if (folder / page).is_file() else "",
    }  # fmt: skip


def _commands(folder: Path, study: Mapping[str, Any], best: Mapping[str, Any] | None) -> dict[str, str]:
    place = shlex.quote(str(folder))
    sweep = "python -m launch.sweep"
    fixed = {name: study["fixed"].get(name) for name in FIXED}
    flags = [f"--{name}={value}" for name, value in fixed.items() if value not in (None, "", "none")]
    tail = study.get("command") or []
    words = [f"--config={study['config']}", f"--study={folder}-again", f"--trials={study.get('trials_wanted', 20)}", "--workers=1", *flags]
    words += [str(word) for word in study.get("overrides", [])]
    usual = tail[1:] == ["-m", "experiments.train"] or not tail
    repeat = " ".join([sweep, *map(shlex.quote, words), *([] if usual else ["--", *map(shlex.quote, tail)])])
    file = folder / "best.py"
    if best is None or file.is_file():
        trained = f"python -m experiments.train --config={shlex.quote(str(file))} --workdir=runs/best"
    else:
        chosen = " ".join(shlex.quote(f"--config.{key}={_spell(value)}") for key, value in best["params"].items())
        trained = f"python -m experiments.train --config={study['config']} --workdir=runs/best {chosen}"
    return {
        "repeat": repeat, "best": trained, "on": f"{sweep} --study={place}", "list": f"{sweep} --study={place} --list",
        "report": f"python -m experiments.report --workdir={place}",
    }  # fmt: skip


def _describe(given: Mapping[str, Any]) -> str:
    if given["kind"] == "categorical":
        return "one of " + ", ".join(map(_spell, given["choices"]))
    words = {"uniform": "evenly", "log_uniform": "evenly over orders of magnitude", "integer": f"whole numbers, by {given.get('step', 1)}"}
    return f"{_spell(given['low'])} to {_spell(given['high'])}, {words[given['kind']]}"


def _spell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def _spell_all(given: Mapping[str, Any]) -> str:
    more = ", ".join(f"{key}={_spell(value)}" for key, value in given.items() if key != "name")
    return f"{given['name']}({more})" if more else str(given["name"])


def _clock(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d}"
