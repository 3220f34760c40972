"""Drawings of a study's page as inline SVG: its trials over parallel axes, one objective against another, and bars.

Colours are the page's CSS variables, as in evaluate/charts.py. Every line and dot has its trial's words as a title.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from causal_gen.evaluate import charts
from causal_gen.evaluate.importance import Scale

AXIS, HEIGHT, TOP, BOTTOM, LEFT = 128, 290, 44, 14, 64  # pixels between two axes, and of the drawing
SHADES = 5  # how many classes of good and bad the lines are drawn in
MAX_LABEL = 18  # letters of an axis' name


def parallel(scales: Mapping[str, Scale], metric: str, trials: Sequence[Mapping[str, Any]], goal: str) -> str:
    """A line a trial over an axis a setting, the metric last; the best lines darkest and drawn last. Failed trials have no last point.

    `trials` have `number`, `params`, `state`, `value` (None where there is none) and `words`. Empty where there is nothing to draw.
    """
    known = sorted((trial["value"] for trial in trials if trial["value"] is not None), reverse=goal == "min")
    if not trials or not scales:
        return ""
    last = Scale(min(known, default=0.0), max(known, default=1.0), bool(known) and min(known) > 0 and max(known) > 20 * min(known))
    axes = {**scales, metric: last}
    width = LEFT * 2 + AXIS * (len(axes) - 1)
    at = {key: LEFT + AXIS * i for i, key in enumerate(axes)}
    label = f"{len(trials)} trials over {len(scales)} settings and {metric}"
    sizes = f"min-width:{0.8 * width:.0f}px;max-width:{1.2 * width:.0f}px"
    parts = [f'<svg class="parallel" viewBox="0 0 {width} {HEIGHT}" style="{sizes}" role="img" '
             f'aria-label="{escape(label)}">']  # fmt: skip
    rank = {value: i for i, value in enumerate(known)}
    for trial in sorted(trials, key=lambda one: -1 if one["value"] is None else rank[one["value"]]):
        points = [(at[key], _height(scale.place(trial["params"][key]))) for key, scale in scales.items() if key in trial["params"]]
        shade = "none" if trial["value"] is None else str(rank[trial["value"]] * SHADES // len(known))
        if trial["value"] is not None:
            points.append((at[metric], _height(last.place(trial["value"]))))
            shade = "best" if rank[trial["value"]] == len(known) - 1 else shade
        path = " ".join(f"{'L' if i else 'M'}{x:.0f} {y:.1f}" for i, (x, y) in enumerate(points))
        parts.append(f'<path class="trial shade-{shade}" d="{path}"><title>{escape(trial["words"])}</title></path>')
    for i, (key, scale) in enumerate(axes.items()):
        parts += _axis(key, scale, at[key], i % 2 == 1 and len(axes) > 4)
    return "".join(parts) + "</svg>"


def _height(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _axis(key: str, scale: Scale, x: float, upper: bool) -> list[str]:
    """An upright axis with its name above, at two heights in turn, and its ends or choices beside it."""
    name = key.rpartition(".")[2]
    shown = name if len(name) <= MAX_LABEL else name[: MAX_LABEL - 1] + "\u2026"
    parts = [f'<line class="axis" x1="{x}" x2="{x}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>']
    parts.append(
        f'<text class="label" x="{x}" y="{14 if upper else 30}" text-anchor="middle">{escape(shown)}<title>{escape(key)}</title></text>'
    )
    if scale.choices:
        for i, choice in enumerate(scale.choices):
            y = _height(i / max(len(scale.choices) - 1, 1))
            parts.append(f'<text class="tick" x="{x + 5}" y="{y + 4:.1f}">{escape(str(json.loads(choice))[:14])}</text>')
        return parts
    for value in _marks(scale):
        parts.append(f'<text class="tick" x="{x + 5}" y="{_height(scale.place(value)) + 4:.1f}">{charts.number(value)}</text>')
    return parts


def _marks(scale: Scale) -> list[float]:
    """The ends of a range and, of a logarithmic one, the powers of ten between that stand clear of them."""
    if not scale.log or scale.low >= scale.high:
        return sorted({scale.low, scale.high})
    between = [10.0**k for k in range(math.ceil(math.log10(scale.low)), math.floor(math.log10(scale.high)) + 1)]
    return [scale.low, *(value for value in between if 0.1 < scale.place(value) < 0.9), scale.high]


def front(points: Sequence[tuple[float, float]], goal: str) -> list[int]:
    """Indices of the points (cost, value) that no other beats in both, cheapest first: less cost, and a value that is better by `goal`."""
    sign = 1.0 if goal == "min" else -1.0
    found, best = [], math.inf
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], sign * points[i][1])):
        if sign * points[i][1] < best:
            found.append(i)
            best = sign * points[i][1]
    return found


def scatter(points: Sequence[tuple[float, float]], words: Sequence[str], on: Sequence[int], cost: str, metric: str) -> str:
    """Dots of (cost, value), those of the front `on` filled and joined by steps."""
    width, height, left, right, top, bottom = charts.WIDTH, charts.HEIGHT, charts.LEFT, charts.RIGHT, charts.TOP, charts.BOTTOM
    xs, ys = zip(*points, strict=True)
    across, up = _span(xs), _span(ys)

    def place(x: float, y: float) -> tuple[float, float]:
        return left + across.place(x) * (width - left - right), height - bottom - up.place(y) * (height - top - bottom - 18)

    parts = [f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(f"{metric} against {cost}")}">']
    for value in _marks(up):
        y = place(xs[0], value)[1]
        parts.append(f'<line class="rule" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{charts.number(_short(value))}</text>')
    for value in _marks(across):
        parts.append(
            f'<text x="{place(value, ys[0])[0]:.1f}" y="{height - bottom + 16}" text-anchor="middle">{charts.number(_short(value))}</text>'
        )
    parts.append(f'<text x="{width - right}" y="{height - 4}" text-anchor="end">{escape(cost)}</text>')
    parts.append(f'<text x="{left}" y="{top}">{escape(metric)}</text>')
    steps, before = "", None
    for i in on:
        x, y = place(*points[i])
        steps += f"M{x:.1f} {y:.1f}" if before is None else f" H{x:.1f} V{y:.1f}"
        before = y
    parts.append(f'<path class="line0" d="{steps}"/>' if steps else "")
    for i, point in enumerate(points):
        x, y = place(*point)
        kind = "dot on" if i in set(on) else "dot"
        parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{escape(words[i])}</title></circle>')
    return "".join(parts) + "</svg>"


def _span(values: Sequence[float]) -> Scale:
    low, high = min(values), max(values)
    return Scale(low, high, low > 0 and high > 20 * low)


def _short(value: float) -> float:
    """Three digits: the ends of an axis are values of trials, with all their digits."""
    return float(f"{value:.3g}")
