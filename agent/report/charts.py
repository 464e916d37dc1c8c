"""Charts of the report as SVG text: they scale, follow the page's colours in the dark, and have a text alternative.

Colours are the page's own (agent/page/report.css): classes c0, c1, ... for series, `axis`, `grid`, `band`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from agent.drawing.colours import place_colours

WIDTH, HEIGHT = 440, 260


LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 40


DECADES = 5  # of a logarithmic axis


@dataclass(frozen=True)
class Series:
    """One line of a chart."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    """None: a gap."""
    half: Sequence[float] | None = None
    """Half the width of the band around it."""
    dash: str = ""


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from low to high, about `count` of them."""
    if not math.isfinite(high - low) or high <= low:
        return [low]
    raw = (high - low) / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def figure(body: str, description: str, width: int = WIDTH, height: int = HEIGHT, kind: str = "chart") -> str:
    """An SVG of its own with a text alternative."""
    return (
        f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(description)}">'
        f"<title>{escape(description)}</title>{body}</svg>"
    )


def lines(series: Sequence[Series], description: str, x_label: str, y_label: str = "", log: bool = False) -> str:
    """Lines over one axis; logarithmic when asked and all is positive. An empty chart says so."""
    good = [
        (s, [(x, y) for x, y in zip(s.x, s.y, strict=True) if y is not None and math.isfinite(x) and math.isfinite(y)])
        for s in series
    ]
    every = [p for _, points in good for p in points]
    if not every:
        return f'<p class="missing">{escape(description)}: no values.</p>'
    log = log and min(y for _, y in every) > 0
    of = math.log10 if log else float
    x_low, x_high = min(x for x, _ in every), max(x for x, _ in every)
    y_low, y_high = min(of(y) for _, y in every), max(of(y) for _, y in every)
    if log:  # what is smaller than that is nothing, and would press the rest together
        y_low = max(y_low, y_high - DECADES)
    if not log:
        y_low = min(0.0, y_low)
    x_high, y_high = _above(x_low, x_high), _above(y_low, y_high)
    frame = _Frame(x_low, x_high, y_low, y_high + 0.04 * (y_high - y_low))
    body = [frame.axes(x_label, y_label, log)]
    for number, (one, points) in enumerate(good):
        if one.half is not None and not log:
            upper = [frame.at(x, y + h) for x, y, h in zip(one.x, one.y, one.half, strict=True) if y is not None]
            lower = [
                frame.at(x, max(y_low, y - h)) for x, y, h in zip(one.x, one.y, one.half, strict=True) if y is not None
            ]
            outline = " ".join(f"{a:.1f},{b:.1f}" for a, b in [*upper, *lower[::-1]])
            body.append(f'<polygon class="band c{number}" points="{outline}"/>')
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in (frame.at(x, max(y_low, of(y))) for x, y in points))
        dash = f' stroke-dasharray="{one.dash}"' if one.dash else ""
        body.append(f'<polyline class="line c{number}" points="{path}"{dash}/>')
        if len(points) == 1:
            a, b = frame.at(points[0][0], of(points[0][1]))
            body.append(f'<circle class="dot c{number}" cx="{a:.1f}" cy="{b:.1f}" r="3"/>')
    legend = "".join(f'<li class="c{i}">{escape(s.name)}</li>' for i, s in enumerate(series)) if len(series) > 1 else ""
    return figure("".join(body), description) + (f'<ul class="legend">{legend}</ul>' if legend else "")


def _above(low: float, high: float) -> float:
    """The end of an axis, which is never its beginning: not even where 1 more makes no difference to the number."""
    return high if high > low else low + max(1.0, 1e-6 * abs(low))


class _Frame:
    """From values to places in the picture."""

    def __init__(self, x_low: float, x_high: float, y_low: float, y_high: float) -> None:
        self.x, self.y = (x_low, x_high), (y_low, y_high)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Column and row of a point."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    def axes(self, x_label: str, y_label: str, log: bool = False) -> str:
        """Grid, numbers and names."""
        out = []
        marks = (
            [float(k) for k in range(math.ceil(self.y[0]), math.floor(self.y[1]) + 1)] if log else ticks(*self.y)
        ) or [self.y[0], self.y[1]]
        for y in marks:
            _, row = self.at(self.x[0], y)
            text = f"{10**y:.3g}" if log else f"{y:.3g}"
            out.append(f'<path class="grid" d="M{LEFT} {row:.1f}H{WIDTH - RIGHT}"/>')
            out.append(f'<text class="axis" x="{LEFT - 6}" y="{row + 4:.1f}" text-anchor="end">{text}</text>')
        for x in ticks(*self.x):
            column, _ = self.at(x, self.y[0])
            out.append(
                f'<text class="axis" x="{column:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{x:g}</text>'
            )
        middle = (LEFT + WIDTH - RIGHT) / 2
        out.append(f'<text class="axis" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
        if y_label:
            row = (TOP + HEIGHT - BOTTOM) / 2
            turned = f'transform="rotate(-90 12 {row})" x="12" y="{row}"'
            out.append(f'<text class="axis" {turned} text-anchor="middle">{escape(y_label)}</text>')
        return "".join(out)


def _check_finite(values: Any) -> None:
    if not np.isfinite(np.asarray(values, np.float64)).all():
        raise ValueError("a number that is not finite")


def shares(rows: Sequence[tuple[float, float, float, float, int]], description: str, x_label: str) -> str:
    """Success in %, with intervals, at several x: (x, value, low, high, n) with shares from 0 to 1."""
    if not rows:
        return f'<p class="missing">{escape(description)}: no values.</p>'
    _check_finite([x for row in rows for x in row])
    low, high = min(r[0] for r in rows), max(r[0] for r in rows)
    gap = (high - low) / max(1, len(rows) - 1) / 2 or 1.0
    frame = _Frame(low - gap, high + gap, 0, 105)
    body = [frame.axes(x_label, "success in %")]
    points = []
    for x, value, least, most, n in rows:
        (column, row), (_, top), (_, bottom) = (frame.at(x, 100 * v) for v in (value, most, least))
        body.append(f'<path class="line c0" d="M{column:.1f} {top:.1f}V{bottom:.1f}"/>')
        body.append(
            f'<circle class="dot c0" cx="{column:.1f}" cy="{row:.1f}" r="4"><title>{100 * value:.0f} % of {n}</title>'
            "</circle>"
        )
        points.append(f"{x:.0f}: {100 * value:.0f} %")
    return figure("".join(body), f"{description}: {', '.join(points)}")


def intervals(rows: Sequence[Mapping[str, Any]], description: str) -> str:
    """Success of every variant with its interval (the rows of a comparison), one below the other."""
    height = TOP + BOTTOM + 26 * len(rows)
    left = 170
    width = 640

    def column(share: float) -> float:
        return left + share * (width - left - RIGHT)

    body = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = column(share)
        body.append(f'<path class="grid" d="M{x:.1f} {TOP}V{height - BOTTOM}"/>')
        body.append(
            f'<text class="axis" x="{x:.1f}" y="{height - BOTTOM + 16}" text-anchor="middle">{100 * share:.0f}</text>'
        )
    body.append(f'<text class="axis" x="{column(0.5):.1f}" y="{height - 6}" text-anchor="middle">success in %</text>')
    for number, row in enumerate(rows):
        y, name = TOP + 26 * number + 13, str(row["variant"])
        shown = name if len(name) < 27 else name[:25] + ".."
        body.append(f'<text class="axis" x="{left - 8}" y="{y + 4}" text-anchor="end">{escape(shown)}</text>')
        if not row.get("iqm"):
            state = ("failed", "axis failed") if row["failed"] else ("not computed yet", "axis")
            body.append(f'<text class="{state[1]}" x="{column(0.5):.1f}" y="{y + 4}">{state[0]}</text>')
            continue
        value, low, high = (float(row["iqm"][k]) for k in ("value", "low", "high"))
        colour = "c0" if number == 0 else "c1"
        body.append(f'<path class="bar {colour}" d="M{column(low):.1f} {y}H{column(high):.1f}"/>')
        body.append(f'<circle class="dot {colour}" cx="{column(value):.1f}" cy="{y}" r="4"/>')
    return f'<div class="scroll" tabindex="0">{figure("".join(body), description, width, height, "chart wide")}</div>'


def latent_map(numbers: Mapping[str, Any], description: str) -> str:
    """States of held-out episodes laid out flat, coloured by true position; imagined paths beside perceived ones."""
    points = np.array(numbers["points"], np.float64)
    colours = place_colours(np.array(numbers["places"], np.float64))
    every = [points, *(np.array(p[k], np.float64) for p in numbers["paths"] for k in ("perceived", "imagined"))]
    whole = np.concatenate(every)
    _check_finite(whole)
    low, high = whole.min(0), whole.max(0)
    side = 420.0

    def at(x: Any) -> np.ndarray:
        return 10 + (np.asarray(x, np.float64) - low) / np.maximum(high - low, 1e-9) * (side - 20)

    body = [
        f'<circle cx="{u:.1f}" cy="{v:.1f}" r="3" fill="#{r:02x}{g:02x}{b:02x}" opacity="0.75"/>'
        for (u, v), (r, g, b) in zip(at(points), colours, strict=True)
    ]
    for path in numbers["paths"]:
        for kind, style in (("perceived", "line ink"), ("imagined", "line imagined")):
            joined = " ".join(f"{u:.1f},{v:.1f}" for u, v in at(path[kind]))
            body.append(f'<polyline class="{style}" points="{joined}"/>')
        u, v = at(path["perceived"][0])
        body.append(f'<circle class="start" cx="{u:.1f}" cy="{v:.1f}" r="4"/>')
    key = ['<g transform="translate(426 10)">']
    for i in range(8):
        for j in range(8):
            r, g, b = place_colours(np.array([[i / 7, j / 7]]))[0]
            key.append(f'<rect x="{i * 7}" y="{j * 7}" width="7" height="7" fill="#{r:02x}{g:02x}{b:02x}"/>')
    key.append('<text class="axis" x="28" y="72" text-anchor="middle">map</text></g>')
    return figure("".join([*body, *key]), description, 490, int(side))
