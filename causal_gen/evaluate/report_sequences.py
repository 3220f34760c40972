"""What the page about a run says where the model is one of sequences: who sees whom, an answer position by position, and texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from causal_gen.evaluate import texts
from causal_gen.structure import expression
from causal_gen.types import UserError

SHOWN = 16  # positions in the picture of a visibility
MAX_TEXTS, MAX_LETTERS = 8, 20_000  # files that are shown, and how much of each
# what a row may look like, for visibilities that read it: two documents of eight tokens
EXAMPLE = {"document": [0] * 8 + [1] * 8, "segment": [0] * 8 + [1] * 8, "position": [*range(8), *range(8)]}

QUESTION = "What would this very sequence have been, had a token of it been another, with everything that was left to chance as it was?"


def is_sequence(config: Mapping[str, Any]) -> bool:
    """Whether the run's data is tokens, of which the config says how many there are."""
    data = config.get("data")
    stats = data.get("stats") if isinstance(data, dict) else None
    return isinstance(stats, dict) and any(isinstance(found, dict) and "vocabulary" in found for found in stats.values())


def parts(workdir: Path, config: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    """For the template; `visibility` is (expression, picture), of which the latter may be empty."""
    example = metrics.get("example")
    return {
        "visibility": _visibility(config),
        "answer": example if isinstance(example, dict) and isinstance(example.get("side_by_side"), str) else None,
        "legend": texts.LEGEND,
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


def _visibility(config: Mapping[str, Any]) -> tuple[str, str]:
    model = config.get("model")
    text = str(model.get("visibility") or "") if isinstance(model, dict) else ""
    try:
        found = expression.read(text)
        known = {name: value for name, value in EXAMPLE.items() if name in found.fields}
        return text, found.show(SHOWN, layer=0, **known) if text else ""
    except UserError:  # it reads a field of the user's own, of which there is no example
        return text, ""


def _passages(workdir: Path) -> list[tuple[str, str]]:
    """Answers first, then samples: (path in the workdir, text), long ones cut."""
    paths = [*sorted(workdir.glob("counterfactual*/**/counterfactual.txt")), *sorted((workdir / "samples").glob("**/*.txt"))]
    found = []
    for path in paths[:MAX_TEXTS]:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        more = f"\n[... {len(text) - MAX_LETTERS:,} more characters in the file]" if len(text) > MAX_LETTERS else ""
        found.append((path.relative_to(workdir).as_posix(), text[:MAX_LETTERS] + more))
    return found
