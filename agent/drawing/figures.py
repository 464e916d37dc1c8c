"""The charts of imagination, training and ablations, as matplotlib figures; rendering.py makes pixels or SVG of them.

Pure functions from numbers to figures; the numbers come from agent/inspection, agent/evaluation and agent/experiments.
Figures are made through matplotlib's object interface, so that a training that draws shares no state with other plots.

Shapes: H imagined steps, K primitive actions a step, R rejected plans; pictures are (rows, columns, 3) uint8.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from agent.drawing.colours import SERIES, Picture, place_colours, tone

SMALL = (5.2, 3.3)  # inches of a chart in a page: readable in a column 350 pixels wide


DECADES = 5  # of a logarithmic axis


# Plans


@dataclass(frozen=True)
class PlanView:
    """One task as it is drawn; all paths in units of the map's pixels, columns first."""

    scene: Picture
    start: NDArray
    """(2,)."""
    goal: NDArray
    """(2,)."""
    reach: float
    """Radius around the goal that counts as reached."""
    chosen: NDArray
    """(H + 1, 2) imagined under the chosen plan."""
    true: NDArray
    """(H * K + 1, 2) where the chosen plan really leads."""
    rejected: NDArray
    """(R, H + 1, 2) imagined under rejected plans."""
    energies: NDArray
    """(R,) of the rejected plans."""
    energy: float
    """Of the chosen plan."""
    first: float
    """Of the first proposal, before the search."""


def plan_map(views: Sequence[PlanView], title: str) -> Figure:
    """Side by side: map, start, goal, chosen plan as imagined and as executed, rejected plans by energy."""
    tall = max(v.scene.shape[0] / v.scene.shape[1] for v in views)
    figure = Figure(figsize=(4.0 * len(views), 3.3 * tall + 1.9), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=13)
    for axes, view in zip(np.atleast_1d(figure.subplots(1, len(views))), views, strict=True):
        rows, columns = view.scene.shape[:2]
        axes.imshow(view.scene, interpolation="nearest")
        axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5), xticks=[], yticks=[])
        norm = Normalize(view.energy, max([view.energy + 1e-6, *view.energies]))
        colours = ScalarMappable(norm, "viridis")
        for path, energy in sorted(zip(view.rejected, view.energies, strict=True), key=lambda p: -p[1]):
            axes.plot(*path.T, color=colours.to_rgba(energy), linewidth=1.4, marker=".", markersize=3)
        axes.plot(*view.true.T, color=tone("blue"), linewidth=2.2, linestyle=(0, (2, 1.2)), zorder=4)
        axes.plot(*view.chosen.T, color=tone("red"), linewidth=2.4, marker="o", markersize=4, zorder=3)
        axes.add_patch(Circle(tuple(view.goal), view.reach, fill=False, edgecolor=tone("green"), linestyle="--"))
        axes.plot(*view.goal, marker="*", markersize=15, color=tone("green"), markeredgecolor="white", zorder=5)
        axes.plot(*view.start, marker="o", markersize=9, color="white", markeredgecolor="black", zorder=5)
        axes.set_title(f"energy {view.energy:.2f}\nfirst proposal {view.first:.2f}", fontsize=11)
        figure.colorbar(
            colours, ax=axes, orientation="horizontal", shrink=0.85, pad=0.02, label="energy of rejected plans"
        )
    figure.legend(handles=_plan_legend(), loc="outside lower center", ncols=6, frameon=False, fontsize=10)
    return figure


def _plan_legend() -> list[Line2D]:
    def mark(label: str, color: Any, **style: Any) -> Line2D:
        return Line2D([], [], label=label, color=color, **style)

    return [
        mark("start", "white", marker="o", linestyle="", markersize=9, markeredgecolor="black"),
        mark("goal and success radius", tone("green"), marker="*", linestyle="", markersize=14),
        mark("chosen plan, imagined", tone("red"), marker="o", markersize=4, linewidth=2.4),
        mark("chosen plan, executed", tone("blue"), linewidth=2.2, linestyle=(0, (2, 1.2))),
        mark(
            "rejected candidates of the last iteration, imagined", colormaps["viridis"](0.6), marker=".", linewidth=1.4
        ),
    ]


# Errors of imagination


LINES = {
    "learned": ("world model", "red", "-", 2.6),
    "shuffled": ("another episode's actions", "orange", "--", 1.8),
    "persistence": ("persistence (no change)", "grey", "-.", 1.8),
    "probe": ("probe on observed states", "green", ":", 1.8),
}


ERRORS = {
    "latent_mse": ("Latent prediction error", "mean squared error"),
    "position_error": ("Position error, read by a linear probe", "mean distance, world units"),
}


EVERY_ERROR = {**ERRORS, "sensor_error": ("Error of the sensors' predicted readings", "RMS, in units of each scale")}
"""ERRORS are those of an environment with a map; the last one is that of others."""


def curves(numbers: Mapping[str, Any]) -> Figure:
    """Latent prediction error and that of positions or sensors against horizon, side by side, where they were measured
    (imagination.errors and rollouts.errors have the numbers)."""
    found = [name for name in EVERY_ERROR if name in numbers]
    figure = Figure(figsize=(12 if len(found) > 1 else 8.4, 4.6), dpi=110, layout="constrained")
    ratios = (
        f"{numbers['ratio_persistence']:.2f} x persistence, {numbers['ratio_shuffled']:.2f} x another episode's actions"
    )
    figure.suptitle(
        f"Open-loop prediction error of {numbers['episodes']} held-out episodes (bands: 95 %)\n"
        f"latent after {numbers['horizon']} steps: {ratios}",
        fontsize=13,
    )
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(found))), found, strict=True):
        _errors(axes, numbers, name)
        axes.set_title(EVERY_ERROR[name][0])
    handles, labels = figure.axes[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=10)
    return figure


def error_curve(numbers: Mapping[str, Any], name: str) -> Figure:
    """One of them alone; name: a key of EVERY_ERROR."""
    figure = Figure(figsize=SMALL, layout="constrained")
    axes = figure.subplots()
    _errors(axes, numbers, name)
    _legend(figure, axes)
    return figure


def _errors(axes: Axes, numbers: Mapping[str, Any], name: str) -> None:
    steps = np.array(numbers["horizons"], np.float64)
    for line, values in numbers[name].items():
        label, colour, style, width = LINES[line]
        mean, half = np.array(values, np.float64), np.array(numbers[f"{name}_ci95"][line], np.float64)
        axes.plot(steps, mean, style, color=tone(colour), linewidth=width, label=label, marker=_marker(mean))
        low, high = np.maximum(mean - half, 0), mean + half
        axes.fill_between(steps, low, high, color=tone(colour), alpha=0.15, linewidth=0)
    if name == "position_error" and numbers.get("success_radius") is not None:
        axes.axhline(numbers["success_radius"], color="black", linewidth=1, alpha=0.6, label="success radius")
    axes.set(xlabel="horizon, imagined steps (action blocks)", ylabel=EVERY_ERROR[name][1])
    axes.set_ylim(bottom=0)
    _style(axes)


# Sensors of an environment without a map


FAN = ("red", "orange", "purple", "teal", "olive")
"""Colours of imagined futures, in turn: those that overlap differ."""


def sensor_fan(numbers: Mapping[str, Any]) -> Figure:
    """Sensors of one episode, with imagined futures that fan out of the real line (rollouts.fan has the numbers).

    numbers: {"names": [S], "real": [T][S], "futures": [{"from": t, "values": [1 + H][S]}, ...]}, in the environment's
    units; the first value of a future is that of the moment from which it is imagined.
    """
    names, real = numbers["names"], np.array(numbers["real"], np.float64)
    across = min(3, len(names)) if len(names) != 4 else 2
    down = -(-len(names) // across)
    figure = Figure(figsize=(4.2 * across if across > 1 else 7.5, 2.5 * down + 1.3), dpi=110, layout="constrained")
    title = "Readings of a held-out episode, and what is imagined open loop from every dot on"
    figure.suptitle(title if across > 1 else title.replace(", and", ",\nand"), fontsize=12)
    grid = np.atleast_1d(figure.subplots(down, across, sharex=True, squeeze=False)).ravel()
    for axes in grid[len(names) :]:
        axes.set_axis_off()
    for s, (axes, name) in enumerate(zip(grid, names, strict=False)):
        for n, future in enumerate(numbers["futures"]):
            values, colour = np.array(future["values"], np.float64)[:, s], tone(FAN[n % len(FAN)])
            x = future["from"] + np.arange(len(values))
            axes.plot(x, values, color=colour, linewidth=1.3, alpha=0.85, zorder=2)
            axes.plot(x[0], values[0], "o", color=colour, markersize=4, zorder=4)
        axes.plot(np.arange(len(real)), real[:, s], color="black", linewidth=2, zorder=3)
        axes.set_title(plain(name), fontsize=11)
        axes.set_ylim(*_around(real[:, s]))
        _style(axes)
        if s >= len(names) - across:
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("action blocks")
    handles = [
        Line2D([], [], color="black", linewidth=2, label="real"),
        Line2D([], [], color=tone(FAN[0]), linewidth=1.3, marker="o", markersize=4, label="imagined, a colour each"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=10)
    return figure


def sensor_plans(numbers: Sequence[Mapping[str, Any]], names: Sequence[str], title: str) -> Figure:
    """Plans as the readings that they imagine: a column is a plan, a row a sensor.

    Args:
        numbers: of each plan {"energy", "first_proposal", "chosen": [1 + H][S], "executed": [1 + H or fewer][S],
            "candidates": [R][1 + H][S], "goal": {name: value}} (episode_plans.as_numbers).
        names: (S,) of the sensors.
        title: of the whole.
    """
    figure = Figure(figsize=(3.3 * len(numbers), 1.9 * len(names) + 1.9), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=13)
    grid = figure.subplots(len(names), len(numbers), sharex=True, sharey="row", squeeze=False)
    goals = any(plan["goal"] for plan in numbers)
    for s, name in enumerate(names):
        shown: list[NDArray] = []
        for n, plan in enumerate(numbers):
            axes = grid[s, n]
            for path in plan["candidates"]:
                axes.plot(np.array(path, np.float64)[:, s], color=tone("grey"), linewidth=0.8, alpha=0.45, zorder=1)
            chosen, executed = (np.array(plan[k], np.float64)[:, s] for k in ("chosen", "executed"))
            axes.plot(chosen, color=tone("blue"), linewidth=2.2, zorder=3)
            axes.plot(executed, color="black", linewidth=1.8, marker=".", markersize=5, zorder=4)
            shown += [chosen, executed]
            if name in plan["goal"]:
                axes.axhline(plan["goal"][name], color=tone("green"), linestyle="--", linewidth=1.6, zorder=2)
                shown.append(np.array([plan["goal"][name]]))
            if not s:
                energies = f"energy {_number(plan['energy'])}\nfirst proposal {_number(plan['first_proposal'])}"
                axes.set_title(energies, fontsize=10)
            _style(axes)
        grid[s, 0].set_ylabel(plain(name, 24), fontsize=10)
        grid[s, 0].set_ylim(*_around(np.concatenate(shown)))
    for axes in grid[-1]:
        axes.set_xlabel("action blocks")
    handles = [
        Line2D([], [], color=tone("blue"), linewidth=2.2, label="chosen plan, imagined"),
        Line2D([], [], color="black", linewidth=1.8, marker=".", label="chosen plan, executed"),
        Line2D([], [], color=tone("grey"), linewidth=0.8, label="some candidates, imagined"),
        *([Line2D([], [], color=tone("green"), linestyle="--", label="goal")] if goals else []),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=10)
    return figure


def _around(values: NDArray) -> tuple[float, float]:
    """Limits of an axis with some room around what counts: a future that flies off does not press it flat."""
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    margin = max(0.35 * (high - low), 1e-3 * max(abs(low), abs(high)), 1e-6)
    return low - margin, high + margin


def latent_map(numbers: Mapping[str, Any], size: tuple[float, float] = (8.4, 6)) -> Figure:
    """Latents in two dimensions, coloured by true position; imagined beside observed paths (latent_map.project)."""
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    axes, key = figure.subplots(1, 2, width_ratios=(5, 1))
    points, colours = np.array(numbers["points"], np.float64), place_colours(np.array(numbers["places"])) / 255
    axes.scatter(*points.T, c=colours, s=12, alpha=0.7, linewidths=0)
    for number, path in enumerate(numbers["paths"]):
        label = ("observed path", "imagined path") if number == 0 else (None, None)
        axes.plot(*np.array(path["perceived"], np.float64).T, color="black", linewidth=1.6, label=label[0])
        axes.plot(*np.array(path["imagined"], np.float64).T, "--", color=tone("red"), linewidth=1.8, label=label[1])
        axes.plot(*path["perceived"][0], "o", color="white", markeredgecolor="black")
    u, v = (100 * x for x in numbers["explained"])
    axes.set(xlabel=f"Isomap dimension 1 ({u:.0f} % of the distances)", ylabel=f"Isomap dimension 2 ({v:.0f} %)")
    axes.spines[["top", "right"]].set_visible(False)
    _legend(figure, axes)
    grid = np.stack(np.meshgrid(np.linspace(0, 1, 8), np.linspace(0, 1, 8)), -1).reshape(-1, 2)
    key.imshow(place_colours(grid).reshape(8, 8, 3), interpolation="nearest")
    key.set(xticks=[], yticks=[])
    key.set_title("position\non the map", fontsize=9)
    return figure


# Training and evaluation


@dataclass(frozen=True)
class Series:
    """One line of a chart."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    """NaN: a gap."""


def lines(series: Sequence[Series], x_label: str, log: bool = False, legend: bool = True) -> Figure:
    """One or more lines over one axis; logarithmic where asked and all values are positive."""
    figure = Figure(figsize=SMALL, layout="constrained")
    axes = figure.subplots()
    for number, one in enumerate(series):
        colour = tone(SERIES[number % len(SERIES)])
        axes.plot(one.x, one.y, color=colour, linewidth=1.8, label=plain(one.name), marker=_marker(one.y))
    values = np.concatenate([np.asarray(one.y, np.float64) for one in series])
    values = values[np.isfinite(values)]
    axes.set_xlabel(plain(x_label))
    _style(axes)
    if log and len(values) and values.min() > 0:
        _logarithmic(axes, float(values.min()), float(values.max()))
    if legend:
        _legend(figure, axes)
    return figure


def success_by_distance(rows: Sequence[tuple[float, float, float, float, int]]) -> Figure:
    """Success rate in %, with intervals, of groups of tasks: (distance, share, low, high, number of tasks) each."""
    figure = Figure(figsize=SMALL, layout="constrained")
    axes = figure.subplots()
    for x, share, low, high, _ in rows:
        axes.plot([x, x], [100 * low, 100 * high], color=tone("blue"), linewidth=5, alpha=0.35, solid_capstyle="butt")
        axes.plot(x, 100 * share, "o", color=tone("blue"))
    axes.set(xlabel="straight distance from start to goal, world units", ylabel="success rate in %", ylim=(-3, 103))
    _style(axes)
    return figure


def comparison(rows: Sequence[Mapping[str, Any]], narrow: bool = False) -> Figure:
    """Success rate of every variant with its interval (table.summarise has the rows); failed variants are named.

    narrow: names stand above the intervals instead of beside them, for a column of a page.
    """
    figure = Figure(figsize=(SMALL[0] if narrow else 9, 1.4 + 0.42 * len(rows)), dpi=110, layout="constrained")
    axes = figure.subplots()
    returns = any(row.get("measure", "success") == "return" for row in rows)
    unit = 1 if returns else 100
    left, right = _limits([row["iqm"] for row in rows if "iqm" in row]) if returns else (-2.0, 102.0)
    for place, row in enumerate(rows):
        if narrow:
            axes.text(left + 0.02 * (right - left), place - 0.28, plain(row["variant"], 60), va="center", fontsize=9)
        if "iqm" not in row:
            text, colour = ("failed", tone("red")) if row["failed"] else ("not computed yet", tone("grey"))
            axes.text((left + right) / 2, place, text, ha="center", va="center", color=colour)
            continue
        value, low, high = (unit * row["iqm"][k] for k in ("value", "low", "high"))
        colour = tone("blue") if place else "black"
        axes.plot([low, high], [place, place], color=colour, linewidth=5, alpha=0.35, solid_capstyle="butt")
        axes.plot(value, place, "o", color=colour)
    seeds = max(row["n_seeds"] for row in rows)
    what = "return" if returns else "success rate in %"
    axes.set(xlim=(left, right), ylim=(len(rows) - 0.5, -0.5), xlabel=f"{what}, {seeds} seeds; bands: 95 %")
    axes.set_yticks(range(len(rows)), ["" if narrow else plain(row["variant"]) for row in rows])
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def _limits(estimates: Sequence[Mapping[str, float]]) -> tuple[float, float]:
    """An axis that shows every interval."""
    low, high = (f([one[k] for one in estimates], default=0.0) for f, k in ((min, "low"), (max, "high")))
    margin = 0.05 * (high - low) or max(1.0, abs(high))
    return low - margin, high + margin


# Style


def plain(text: Any, length: int = 40) -> str:
    """A label that is drawn as it is written, whatever a file holds: printable, without formulas, not too long."""
    shown = "".join(c if c.isprintable() else "?" for c in str(text))
    shown = shown if len(shown) <= length else f"{shown[: length - 2]}.."
    # A name that begins with _ would not be in the legend.
    return (f" {shown}" if shown.startswith("_") else shown).replace("$", r"\$")


def columns_at(figure: Figure, x: float) -> list[tuple[int, int, int]]:
    """Where x is in a figure that was drawn (rendering.picture): (column, top, bottom) in pixels for each chart."""
    height = figure.bbox.height
    out: list[tuple[int, int, int]] = []
    for axes in figure.axes:
        if axes.axison:
            box = axes.get_window_extent()
            column = axes.transData.transform((x, 0))[0]
            out.append((round(float(column)), round(height - box.y1), round(height - box.y0)))
    return out


def _number(value: float, _: Any = None) -> str:
    """A tick's label: 0.25, 1,500, 3e+07."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.4g}"


def _marker(values: Any) -> str:
    """One value alone is a dot: it makes no line."""
    return "o" if np.isfinite(np.asarray(values, np.float64)).sum() == 1 else ""


def _style(axes: Axes) -> None:
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=(1, 2, 5, 10)))
        axis.set_major_formatter(FuncFormatter(_number))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _logarithmic(axes: Axes, low: float, high: float) -> None:
    """A logarithmic axis of at most DECADES: what is smaller would press the rest together."""
    low = max(low, high / 10**DECADES)
    axes.set_yscale("log", nonpositive="mask")
    axes.set_ylim(low / 1.3, high * 1.3)
    wide = math.log10(high / low)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if wide < 2 else (1,)) if wide >= 1 else MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(_number))
    axes.yaxis.set_minor_locator(NullLocator())


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    columns = 2 if max(map(len, labels), default=0) > 14 else 3
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
