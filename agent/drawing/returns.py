"""Returns of single episodes as a chart: a row for each evaluation, a dot for each episode.

Shapes: n episodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from agent.drawing.colours import SERIES, tone
from agent.drawing.figures import SMALL, plain

LANES = 7
"""Heights between which the dots of a row alternate, so that fewer lie on each other."""


@dataclass(frozen=True)
class Returns:
    """What one way of acting reached."""

    name: str
    values: Sequence[float]
    """(n,) in the order of the seeds."""
    mean: float
    interval: tuple[float, float] | None
    """95 % of the mean."""


def strip(rows: Sequence[Returns], references: Mapping[str, float]) -> Figure:
    """Dots, mean and its interval for each row; references are dashed lines across all of them."""
    lines = 1 + (len(references) + 1) // 2
    figure = Figure(figsize=(SMALL[0], 1.0 + 0.75 * len(rows) + 0.22 * lines), layout="constrained")
    axes = figure.subplots()
    for number, (name, value) in enumerate(references.items()):
        colour = tone(("grey", "orange", "teal", "olive")[number % 4])
        axes.axvline(value, color=colour, linestyle=("--", ":", "-.")[number % 3], linewidth=1.6, label=plain(name))
    for place, row in enumerate(rows):
        colour = tone(SERIES[0])
        values = np.asarray(row.values, np.float64)
        lanes = place + 0.28 * ((np.arange(len(values)) * 3 % LANES) / (LANES - 1) - 0.5) if len(values) > 1 else place
        alpha = 0.75 if len(values) <= 30 else 0.35
        axes.plot(values, lanes * np.ones(len(values)), "o", color=colour, markersize=4, alpha=alpha, linewidth=0)
        if row.interval is not None:
            axes.plot(row.interval, [place + 0.3, place + 0.3], color="black", linewidth=4, alpha=0.35)
        axes.plot(row.mean, place + 0.3, "d", color="black", markersize=7)
    axes.set_yticks(range(len(rows)), [""] * len(rows))
    for place, row in enumerate(rows):
        behind = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        where = axes.get_yaxis_transform()
        axes.text(0.01, place - 0.38, plain(row.name, 60), transform=where, fontsize=9, va="center", bbox=behind)
    axes.set_ylim(len(rows) - 0.45, -0.6)
    axes.set_xlabel("return of an episode; diamonds: mean, bands: its 95 % interval")
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 5, 10)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}" if 1000 <= abs(x) < 1e7 else f"{x:.4g}"))
    axes.margins(x=0.06)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    if references:
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure
