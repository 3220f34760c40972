"""What the page about a run says where the model is one of sequences: who sees whom, an answer position by position, and texts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from causal_gen.evaluate import texts
from causal_gen.evaluate.workdir import answers, as_dict
from causal_gen.models.hybrid_transformer_config import SEEN
from causal_gen.structure import expression
from causal_gen.types import UserError

SHOWN = 16  # positions in the picture of a visibility
MAX_TEXTS, MAX_LETTERS = 8, 20_000  # files that are shown, and how much of each
CELL = 12  # pixels of a square in a mask
# a line of marks: texts stand behind the position of their first token, or that much room and a name
MARKS = re.compile(r" {10,}[=^~][=^~ ]*")
# what a row may look like, for visibilities that read it: two documents of eight tokens, the first six a prefix; or four blocks and their
# noisy copies
EXAMPLE = {
    "document": [0] * 8 + [1] * 8, "segment": [0] * 8 + [1] * 8, "position": [*range(8), *range(8)], "prefix": [True] * 6 + [False] * 10,
    "noisy": [0] * 8 + [1] * 8, "block": [0, 0, 1, 1, 2, 2, 3, 3] * 2,
}  # fmt: skip

QUESTION = "What would this very sequence have been, had a token of it been another, with everything that was left to chance as it was?"


def is_sequence(config: Mapping[str, Any]) -> bool:
    """Whether the run's data is tokens, of which the config says how many there are."""
    data = config.get("data")
    stats = data.get("stats") if isinstance(data, dict) else None
    return isinstance(stats, dict) and any(isinstance(found, dict) and "vocabulary" in found for found in stats.values())


def parts(workdir: Path, config: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    """For the template: masks, an answer with what moved marked, and texts as HTML."""
    from markupsafe import Markup

    example = metrics.get("example")
    return {
        "masks": [one | {"svg": Markup(one["svg"])} for one in masks(config)],
        "answer": example if isinstance(example, dict) and isinstance(example.get("side_by_side"), str) else None,
        "side_by_side": Markup(marked(str(example["side_by_side"]))) if isinstance(example, dict) and "side_by_side" in example else "",
        "legend": texts.LEGEND.partition("\n")[2],  # the first line is of the marks, which are coloured here
        "passages": _passages(workdir),
    }


def facts(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[tuple[str, float | str]]:
    """What stands at the head of the page."""
    data = config.get("data") or {}
    found: list[tuple[str, float | str]] = [(name, str(data[name])) for name in ("tokenizer", "length") if data.get(name) is not None]
    found += [("vocabulary", int(value["vocabulary"])) for value in data["stats"].values() if "vocabulary" in value]
    held = metrics.get("heldout")
    for name, label in (("bits_per_byte", "bits per byte"), ("nats_per_token", "nats a token")):
        if isinstance(held, dict) and isinstance(held.get(name), dict):
            return [*found, (f"held-out {label}", held[name]["value"])]
    return found


def masks(config: Mapping[str, Any]) -> list[dict[str, str]]:
    """Who sees whom: of the model, or of each objective that it is trained by; `layers` where those differ, `svg` empty where undrawn."""
    model = as_dict(config.get("model"))
    own = str(model.get("visibility") or "")
    named = [(str(one.get("name") or one.get("kind")), _seen_by(one, own)) for one in map(as_dict, model.get("objectives") or [])]
    depth = as_dict(model.get("transformer")).get("layers")
    found = []
    for title, text in named or [("", own)]:
        pictures = _layers(text, depth if isinstance(depth, int) else 1) if text else {}
        for layers, picture in pictures.items() or [("", "")]:
            found.append({"title": title, "text": text, "layers": layers, "svg": mask_svg(picture) if picture else ""})
    return found


def _seen_by(objective: Mapping[str, Any], own: str) -> str:
    """The visibility of an objective: its own, that of its kind, or the model's."""
    kind = objective.get("kind")
    return own if kind == "next" else str(objective.get("visibility") or SEEN.get(str(kind), "full()"))


def _layers(text: str, depth: int) -> dict[str, str]:
    """A picture for every group of layers that see alike: {"0, 2": picture}, {"": picture} where all do; none where it has no example."""
    try:
        found = expression.read(text)
        known = {name: value for name, value in EXAMPLE.items() if name in found.fields}
        drawn = [found.show(SHOWN, layer=layer, **known) for layer in range(depth)]
    except UserError:  # it reads a field of the user's own, of which there is no example
        return {}
    if len(set(drawn)) == 1:
        return {"": drawn[0]}
    return {", ".join(str(i) for i, other in enumerate(drawn) if other == one): one for one in dict.fromkeys(drawn)}


def mask_svg(picture: str) -> str:
    """What `Visibility.show` draws as squares: a row a position, a column one that it sees; heads side by side."""
    rows = [line.split("  ") for line in picture.splitlines()]
    heads, size = len(rows[0]), len(rows[0][0])
    width, height = heads * (size + 1) * CELL - CELL + 2, len(rows) * CELL + 2
    parts = [f'<svg class="mask" viewBox="0 0 {width} {height}" style="max-width:{min(width * 1.2, 480):.0f}px" role="img" ']
    parts.append('aria-label="which positions see which">')
    for head in range(heads):
        left = 1 + head * (size + 1) * CELL
        parts.append(f'<rect class="frame" x="{left}" y="1" width="{size * CELL}" height="{len(rows) * CELL}"/>')
        for y, row in enumerate(rows):
            for x, cell in enumerate(row[head]):
                if cell != ".":
                    faint = "" if cell == "#" else f' style="opacity:.{max(int(cell), 1)}"'
                    parts.append(
                        f'<rect class="seen" x="{left + x * CELL + 1}" y="{y * CELL + 2}" width="{CELL - 2}" height="{CELL - 2}"{faint}/>'
                    )
    return "".join(parts) + "</svg>"


def marked(text: str) -> str:
    """What `texts.side_by_side` writes, as HTML: what its lines of marks point at is marked where it stands."""
    lines, found = text.split("\n"), []
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if MARKS.fullmatch(line):
            continue
        found.append(_spans(line, below) if MARKS.fullmatch(below) else escape(line))
    return "\n".join(found)


def _spans(line: str, marks: str) -> str:
    """One line with its marked stretches in <mark>."""
    parts, padded = [], marks.ljust(len(line))[: len(line)]
    for run in re.finditer(r"=+|\^+|~+| +", padded):
        piece = escape(line[run.start() : run.end()])
        kind = {"=": "set", "^": "first", "~": "moved"}.get(run[0][0])
        parts.append(f'<mark class="{kind}">{piece}</mark>' if kind else piece)
    return "".join(parts)


def _passages(workdir: Path) -> list[tuple[str, Any]]:
    """Answers first, then samples: (path in the workdir, HTML), long ones cut; in answers what moved is marked."""
    from markupsafe import Markup

    given = [folder / "counterfactual.txt" for folder, _ in answers(workdir)]
    paths = [*(path for path in given if path.is_file()), *sorted((workdir / "samples").glob("**/*.txt"))]
    found = []
    for path in paths[:MAX_TEXTS]:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        more = f"\n[... {len(text) - MAX_LETTERS:,} more characters in the file]" if len(text) > MAX_LETTERS else ""
        shown = text[:MAX_LETTERS] + more
        found.append((path.relative_to(workdir).as_posix(), Markup(marked(shown) if path in given else escape(shown))))
    return found
