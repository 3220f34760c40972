"""Drawings for the report as inline SVG: curves over the training steps. Graphs are drawn by evaluate/graph_drawing.py.

Colours are the page's CSS variables, so that a drawing follows the reader's dark or light theme.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 420, 240, 56, 20, 14, 34  # small enough that its texts stay legible on a telephone


def number(value: float | None) -> str:
    """Four significant digits; an em dash for a missing figure."""
    if value is None or not math.isfinite(value):
        return "\u2014"
    if value == 0 or (float(value).is_integer() and abs(value) < 1e7):
        return f"{int(value):,}".replace(",", "\u2009")
    return f"{value:.3g}" if abs(value) < 1e-4 or abs(value) >= 1e7 else f"{value:.4g}"


def curves(series: Mapping[str, Points], log: bool = False, marks: Sequence[float] = (), axis: str = "step") -> str:
    """Lines of (step, value) points over a common axis, each with its name at the top; `marks` are upright dashed lines.

    `log` asks for a logarithmic axis of values, granted where all of them are positive.
    """
    kept = {name: [(x, y) for x, y in points if math.isfinite(y)] for name, points in series.items()}
    kept = {name: points for name, points in kept.items() if points}
    if not kept:
        return ""
    xs = [x for points in kept.values() for x, _ in points]
    ys = [y for points in kept.values() for _, y in points]
    log = log and min(ys) > 0
    low, high = (math.log10(min(ys)), math.log10(max(ys))) if log else (min(ys), max(ys))
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    first, last = min(xs), max(max(xs), min(xs) + 1)

    def place(x: float, y: float) -> tuple[float, float]:
        share = ((math.log10(y) if log else y) - low) / (high - low)
        return LEFT + (x - first) / (last - first) * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM - 18)

    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(", ".join(kept))} over {escape(axis)}s">']
    for value in _ticks(low, high, log):
        y = place(first, value)[1]
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(value)}</text>')
    for step in _ticks(first, last, False):
        x = place(step, ys[0])[0]
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{number(step)}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{escape(axis)}</text>')
    for step in marks:
        x = place(step, ys[0])[0]
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP + 14}" y2="{HEIGHT - BOTTOM}"><title>resumed</title></line>')
    for place_in, (name, points) in enumerate(kept.items()):
        path = " ".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(place(*point) for point in points))
        if len(points) == 1:
            x, y = place(*points[0])
            parts.append(f'<circle class="fill{place_in % 4}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
        parts.append(f'<path class="line{place_in % 4}" d="{path}"/>')
        at = LEFT + place_in * 130
        parts.append(f'<path class="line{place_in % 4}" d="M{at} {TOP - 4} h16"/><text x="{at + 20}" y="{TOP}">{escape(name)}</text>')
    return "".join(parts) + "</svg>"


def _ticks(low: float, high: float, log: bool) -> list[float]:
    """Round values inside the range, about four of them; on a logarithmic axis `low` and `high` are exponents."""
    if log:
        fine = [
            m * 10.0**k for k in range(math.floor(low), math.ceil(high) + 1) for m in (1, 2, 5) if low <= math.log10(m * 10.0**k) <= high
        ]
        coarse = [10.0**k for k in range(math.ceil(low), math.floor(high) + 1)]
        if len(fine) > 6:
            return coarse[:: max(1, round(len(coarse) / 5))]
        if len(fine) > 1:
            return fine
    start, stop = (10.0**low, 10.0**high) if log else (low, high)
    rough = (stop - start) / 4
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough)
    return [k * step for k in range(math.ceil(start / step - 1e-9), math.floor(stop / step + 1e-9) + 1)]
