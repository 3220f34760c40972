"""What a run leaves in its workdir, read as it stands: anything missing, damaged or cut short is left out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def read_json(path: Path) -> Any:
    """The value in a file; None where there is none that can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def as_dict(value: Any) -> dict[str, Any]:
    """`value` if it is a dict, else an empty one."""
    return value if isinstance(value, dict) else {}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a metrics.jsonl; a line cut short (the run is still writing, or was killed) is left out."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    found = []
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int | float):
            found.append(row)
    return found


def answers(workdir: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Folders in which `counterfactual` has written, with their metrics.json (empty where it is not there), by name."""
    folders = {path.parent for name in ("metrics.json", "grid.png") for path in workdir.glob(f"counterfactual*/**/{name}")}
    known = {path.parent: as_dict(read_json(path)) for path in workdir.glob("*/metrics.json")}
    folders |= {folder for folder, metrics in known.items() if "intervention" in metrics}
    return [(folder, as_dict(read_json(folder / "metrics.json"))) for folder in sorted(folders)]


def resumes(lines: Sequence[Mapping[str, Any]], metadata: Mapping[str, Any]) -> list[float]:
    """Steps from which the run was taken up again, of those that its curves span: by metadata.json, and where steps go back."""
    said = metadata.get("resumes") or [metadata.get("resumed_from")]
    marks = [float(mark) for mark in said if isinstance(mark, int | float) and mark > 0]
    steps = [float(row["step"]) for row in lines]
    marks += [step for step, before in zip(steps[1:], steps, strict=False) if step <= before]
    return sorted({mark for mark in marks if steps and min(steps) <= mark <= max(steps)})
