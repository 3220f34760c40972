"""One page about one run: `report.html`, self-contained, from what its workdir holds. It loads nothing and needs no model.

What is not there yet is named with the command that makes it, so that the page can be written at any time, also during training.
"""

from __future__ import annotations

import base64
import json
import shlex
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from causal_gen.evaluate import charts, meaning, report_graph, report_sequences, report_study
from causal_gen.evaluate.base import to_bytes
from causal_gen.evaluate.pictures import FULL, data_address, difference, heat
from causal_gen.evaluate.workdir import answers, as_dict, read_json, read_lines, resumes
from causal_gen.parallel.interrupt import whole
from causal_gen.types import WorkdirError

SKIPPED = ("step", "seconds")  # keys of metrics.jsonl that are no curve
MAX_PICTURES, MAX_BYTES = 12, 6_000_000  # a page that still opens on a telephone


def write(workdir: str | Path) -> Path:
    """Write and return `workdir`/report.html, of a run or of a study.

    Raises `WorkdirError` for a folder that is neither, or that cannot be written.
    """
    page = report_study.render(workdir) if report_study.is_study(workdir) else render(workdir)
    target = Path(workdir) / "report.html"
    try:
        with whole(target) as part:
            part.write_text(page, encoding="utf-8")
    except OSError as error:
        raise WorkdirError(f"report: cannot write {target} ({error.strerror or error}); free space or mend the folder's rights") from error
    return target


def render(workdir: str | Path, live: Mapping[str, Any] | None = None) -> str:
    """The page of `workdir`. With `live`, what evaluate/live.py says of its scenes, the sliders ask the server that the page came from.

    Raises `WorkdirError` for a folder that is not a workdir.
    """
    from markupsafe import Markup

    workdir = Path(workdir)
    config = read_json(workdir / "config.json")
    if not isinstance(config, dict):
        raise WorkdirError(f"report: {workdir} is not a workdir (no readable config.json in it); give the folder that train wrote to")
    metadata, metrics = (as_dict(read_json(workdir / name)) for name in ("metadata.json", "evaluate/metrics.json"))
    lines = read_lines(workdir / "metrics.jsonl")
    sequence = report_sequences.is_sequence(config)
    factors, edges = report_graph.factor_graph(config, metadata)
    drawn = not sequence and bool(report_graph.sink_of(config))
    slides = _sliders(workdir / "evaluate" / "sliders.npz")
    context = {
        "name": _title(config, workdir),
        "sequence": report_sequences.parts(workdir, config, metrics) if sequence else None,
        "question": report_sequences.QUESTION if sequence else report_graph.question(config, factors, edges),
        "facts": _facts(config, metrics, lines, sequence),
        "graph": None if sequence else _marked(report_graph.parts(workdir, config, metadata, metrics)),
        "noun": "picture" if drawn else "row", "drawn": drawn,
        "example": factors[0] if factors else "a factor",
        "abduction": _abduction(config, metrics),
        "sliders": slides["sliders"], "has_truth": slides["truth"], "shape": slides["shape"], "full": f"{FULL:g}",
        "groups": _groups(metrics), "glance": _glance(metrics), "measured": _measured(metrics, "scenes" if drawn else "rows"),
        "pictures": _pictures(workdir),
        "charts": [(title, Markup(svg)) for title, svg in _charts(lines, metadata)],
        "trained": _trained(lines, metadata),
        "commands": _commands(workdir, metadata, factors, metrics, config, sequence),
        "versions": _versions(metadata),
        "config": json.dumps(config, indent=2),
        "live": live,
    }  # fmt: skip
    return template("page.html").render(context)


def template(name: str) -> Any:
    """The Jinja template of that file beside this one; names from configs are escaped, and `style` is the pages' own."""
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup

    here = Path(__file__)
    found = Environment(loader=FileSystemLoader(here.parent), autoescape=True, trim_blocks=True)
    found.globals["style"] = Markup(here.with_name("page.css").read_text(encoding="utf-8"))
    return found.get_template(name)


# -- the parts of the page ---------------------------------------------------------------------------------------------------


def _title(config: Mapping[str, Any], workdir: Path) -> str:
    model, data = (as_dict(config.get(section)).get("name", "") for section in ("model", "data"))
    return f"{model} on {data}" if model and data else workdir.resolve().name


def _marked(parts: dict[str, Any]) -> dict[str, Any]:
    """The drawings of report_graph as what a template writes unescaped."""
    from markupsafe import Markup

    return parts | {"svg": Markup(parts["svg"]), "asked": [(title, Markup(svg)) for title, svg in parts["asked"]]}


def _abduction(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """How the noise is found and where its loss is measured, as sentences."""
    if not report_graph.sink_of(config):
        return "How exactly a row comes back from its own noise is the null intervention below."
    told = "; the composition error below says how much it loses."
    if as_dict(config.get("model")).get("name") == "structural":
        return "Abduction of the picture’s own noise takes the mean that the encoder gives" + told
    steps = metrics.get("steps") or as_dict(config.get("sampling")).get("steps", "the configured number of")
    return f"Abduction of the picture’s own noise is a numerical inversion with {steps} DDIM steps" + told


def _facts(
    config: Mapping[str, Any], metrics: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], sequence: bool
) -> list[tuple[str, str]]:
    train, data = as_dict(config.get("train")), as_dict(config.get("data"))
    facts = []
    if lines:
        facts.append(("trained", f"{int(lines[-1]['step'])} of {train.get('steps', '?')} steps"))
    facts += [(key.replace("_", " "), str(train[key])) for key in ("batch_size", "seed") if key in train]
    facts += [(f"data {key.replace('_', ' ')}", str(data[key])) for key in ("size", "image_size") if data.get(key) is not None]
    first = next(iter(as_dict(metrics.get("composition")).get("mae", {}).items()), None)
    if first:
        facts.append(("composition error, 1 cycle", charts.number(first[1])))
    told = report_sequences.facts(config, metrics) if sequence else []
    return facts + [(name, value if isinstance(value, str) else charts.number(value)) for name, value in told]


def _measured(metrics: Mapping[str, Any], noun: str) -> str:
    if not metrics:
        return ""
    steps = f", {metrics['steps']} DDIM steps" if metrics.get("steps") else ""
    scenes, seed, step = (metrics.get(name, "?") for name in ("scenes", "seed", "step"))
    held = as_dict(metrics.get("heldout"))
    if held:
        rows = f"The likelihood is that of {held.get('rows', '?')} rows of the test split, the rest is asked of {scenes} of them"
        return f"{rows}, seed {seed}, after training step {step}."
    return f"{scenes} {noun} of the test split{steps}, seed {seed}, after training step {step}."


def _glance(metrics: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str, str, bool]]]]:
    """Bars of the pixel error of every do and of its baselines: (label, figure, length in percent of the longest, the model's own)."""
    cards = []
    names = (("mae", "this model"), ("not_propagated", "not propagated"), ("copy", "copied"))
    for factor, found in as_dict(metrics.get("do")).items():
        known = [(key, label, found[key]) for key, label in names if found.get(key) is not None]
        if "mae" in found and known:
            longest = max(value for _, _, value in known) or 1.0
            bars = [(label, charts.number(value), f"{100 * value / longest:.1f}", key == "mae") for key, label, value in known]
            cards.append((f"do({factor})", bars))
    return cards


def _groups(metrics: Mapping[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Rows for the template. A sentence is given once a table, where its figure first appears."""
    groups = []
    for title, rows in meaning.rows(metrics):
        told: set[str] = set()
        shown = []
        for row in rows:
            about = meaning.METRICS[row.metric]
            shown.append({
                "label": about.label, "about": row.about, "value": charts.number(row.value), "unit": row.unit,
                "sentence": "" if row.metric in told else about.sentence, "verdict": _verdict(row, about.arrow),
                "arrow": {"up": "\u2191", "down": "\u2193", "": ""}[about.arrow],
                "way": {"up": "larger is better", "down": "smaller is better", "": ""}[about.arrow],
                "beside": [(label, charts.number(value)) for label, value in row.beside.items()],
            })  # fmt: skip
            told.add(row.metric)
        if shown:
            groups.append((title, shown))
    return groups


def _verdict(row: meaning.Row, arrow: str) -> str:
    """ "worse" where a baseline is not beaten, "better" where all are, "" where there is none."""
    baselines = [row.beside.get(name) for name in ("copy the factual image", "do not propagate", "copy the factual value")]
    known = [value for value in baselines if value is not None]
    if row.value is None or not known or arrow != "down":
        return ""
    return "better" if all(row.value < value for value in known) else "worse"


def _charts(lines: Sequence[Mapping[str, Any]], metadata: Mapping[str, Any]) -> list[tuple[str, str]]:
    """One drawing a quantity; held-out values (eval_NAME) join those of training."""
    values: dict[str, dict[float, float]] = {}
    for row in lines:
        for name, value in row.items():
            if name not in SKIPPED and isinstance(value, int | float) and not isinstance(value, bool):
                values.setdefault(name, {})[float(row["step"])] = float(value)
    marks = resumes(lines, metadata)
    names = sorted(
        (name for name in values if not (name.startswith("eval_") and name[5:] in values)), key=lambda name: (name != "loss", name)
    )
    drawn = []
    for name in names:
        series = {"held out" if name.startswith("eval_") else "training": sorted(values[name].items())}
        if f"eval_{name}" in values:
            series["held out"] = sorted(values[f"eval_{name}"].items())
        points = [y for line in series.values() for _, y in line]
        log = min(points) > 0 and max(points) > 20 * min(points)
        drawn.append((name.removeprefix("eval_").replace("_", " ") + (", log scale" if log else ""), charts.curves(series, log, marks)))
    return [(title, svg) for title, svg in drawn if svg]


def _trained(lines: Sequence[Mapping[str, Any]], metadata: Mapping[str, Any]) -> str:
    where = " ".join(str(metadata[key]) for key in ("devices", "device_kind") if key in metadata)
    count = f"{len(lines)} logged line{'s' if len(lines) > 1 else ''}"
    text = f"{count}, up to step {int(lines[-1]['step'])}{f', on {where}' if where else ''}." if lines else ""
    marks = resumes(lines, metadata)
    said = ", ".join(str(int(mark)) for mark in marks)
    return text + (f" Taken up again from step {said} (dashed line{'s' if len(marks) > 1 else ''})." if marks else "")


def _film(row: np.ndarray) -> str:
    """Pictures [v, h, w, c] side by side as one PNG."""
    return data_address(np.concatenate(list(row), axis=1))


def _sliders(path: Path) -> dict[str, Any]:
    """Strips of pictures for the page, from evaluate/sliders.npz; nothing where it is missing or damaged."""
    out: dict[str, Any] = {"sliders": [], "truth": False, "shape": "1"}
    try:
        # opened here: np.load leaves a damaged file open
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            rows = {name: file[name] for name in file.files}
        factual = rows["factual"]
        out["shape"] = f"{factual.shape[2]}/{factual.shape[1]}"
        for factor in (str(name) for name in rows["factors"]):
            answer, truth = rows[f"counterfactual_{factor}"], rows.get(f"truth_{factor}")
            scenes = []
            for place in range(len(factual)):
                scene = [("factual", data_address(factual[place]), 1), ("counterfactual", _film(answer[place]), answer.shape[1])]
                if truth is not None:
                    gap = to_bytes(heat(difference(answer[place], truth[place])))
                    scene += [("truth", _film(truth[place]), answer.shape[1]), ("difference", _film(gap), answer.shape[1])]
                scenes.append(scene)
            shown = [charts.number(round(float(value), 2)) for value in rows[f"values_{factor}"]]
            out["sliders"].append(
                {"factor": factor, "unit": str(rows[f"unit_{factor}"]), "shown": shown, "middle": len(shown) // 2, "scenes": scenes}
            )
            out["truth"] = out["truth"] or truth is not None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {"sliders": [], "truth": False, "shape": "1"}
    return out


def _pictures(workdir: Path) -> list[tuple[str, str]]:
    """Grids of counterfactuals first, then the latest of each series in samples/, as data addresses."""
    paths = [folder / "grid.png" for folder, _ in answers(workdir)]
    latest = {path.stem.rstrip("0123456789"): path for path in sorted((workdir / "samples").glob("**/*.png"))}
    found, total = [], 0
    for path in [*paths, *latest.values()][:MAX_PICTURES]:
        try:
            data = path.read_bytes()
        except OSError:
            continue
        total += len(data)
        if data[:8] == b"\x89PNG\r\n\x1a\n" and total <= MAX_BYTES:
            found.append((path.relative_to(workdir).as_posix(), "data:image/png;base64," + base64.b64encode(data).decode()))
    return found


def _commands(
    workdir: Path,
    metadata: Mapping[str, Any],
    factors: Sequence[str],
    metrics: Mapping[str, Any],
    config: Mapping[str, Any],
    sequence: bool,
) -> dict[str, str]:
    place = f"--workdir={shlex.quote(str(workdir))}"
    argv = [str(arg) for arg in metadata.get("argv") or []]
    flags = argv[next((i for i, arg in enumerate(argv) if arg.startswith("-")), len(argv)) :]
    train = "python -m experiments.train " + (" ".join(shlex.quote(arg) for arg in flags) or place)
    factor = factors[0] if factors else "FACTOR"
    span, known = (as_dict(as_dict(found).get(factor)) for found in (metrics.get("do"), as_dict(config.get("data")).get("stats")))
    value = f"{known['mean']:.3g}" if isinstance(known.get("mean"), float) else (known.get("categories") or ["VALUE"])[-1]
    value = f"{(span['low'] + span['high']) / 2:.3g}" if {"low", "high"} <= set(span) else value
    asked = f"{factor}={value}" if not sequence else str(as_dict(metrics.get("example")).get("do") or "tokens[5]=1")
    return {
        "train": train,
        "evaluate": f"python -m experiments.evaluate {place}",
        "counterfactual": f"python -m experiments.counterfactual {place} {shlex.quote(f'--do={asked}')}",
        "sample": f"python -m experiments.sample {place}",
        "report": f"python -m experiments.report {place}",
    }


def _versions(metadata: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = [(str(name), str(value)) for name, value in as_dict(metadata.get("versions")).items() if value]
    if metadata.get("git_sha"):
        found.insert(0, ("commit", str(metadata["git_sha"])[:12] + (" with local changes" if metadata.get("git_dirty") else "")))
    return found
