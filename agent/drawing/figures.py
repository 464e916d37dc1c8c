"""How imagination is drawn: the strip and the film of real beside imagined frames, maps with plans, curves of errors.

Pure functions from arrays to pictures; what they show is worked out in agent/imagine.py. Figures are made through
matplotlib's object interface, so that a training that draws shares no state with anybody's own plots.

Shapes: N episodes, T = SEEN + H moments, H imagined steps, R rejected plans; pictures are (rows, columns, 3) uint8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from numpy.typing import NDArray

from agent.drawing.colours import BLUE, GREEN, GREY, RED, Picture, _unit, place_colours

# Plans and curves


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


def plan_map(views: Sequence[PlanView], title: str) -> Picture:
    """Side by side: map, start, goal, chosen plan as imagined and as it really goes, rejected plans by energy."""
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
        axes.plot(*view.true.T, color=_unit(BLUE), linewidth=2.2, linestyle=(0, (2, 1.2)), zorder=4)
        axes.plot(*view.chosen.T, color=_unit(RED), linewidth=2.4, marker="o", markersize=4, zorder=3)
        axes.add_patch(
            Circle((view.goal[0], view.goal[1]), view.reach, fill=False, edgecolor=_unit(GREEN), linestyle="--")
        )
        axes.plot(*view.goal, marker="*", markersize=15, color=_unit(GREEN), markeredgecolor="white", zorder=5)
        axes.plot(*view.start, marker="o", markersize=9, color="white", markeredgecolor="black", zorder=5)
        axes.set_title(f"energy {view.energy:.2f}\nfirst proposal {view.first:.2f}", fontsize=11)
        figure.colorbar(
            colours, ax=axes, orientation="horizontal", shrink=0.85, pad=0.02, label="energy of rejected plans"
        )
    figure.legend(handles=_plan_legend(), loc="outside lower center", ncols=6, frameon=False, fontsize=10)
    return _drawn(figure)


def _plan_legend() -> list[Line2D]:
    return [
        Line2D([], [], marker="o", linestyle="", markersize=9, color="white", markeredgecolor="black", label="start"),
        Line2D(
            [], [], marker="*", linestyle="", markersize=14, color=_unit(GREEN), label="goal, and what counts as there"
        ),
        Line2D([], [], marker="o", markersize=4, linewidth=2.4, color=_unit(RED), label="chosen plan, imagined"),
        Line2D([], [], linewidth=2.2, linestyle=(0, (2, 1.2)), color=_unit(BLUE), label="the same, executed"),
        Line2D(
            [],
            [],
            marker=".",
            linewidth=1.4,
            color=colormaps["viridis"](0.6),
            label="rejected plans of the last round, imagined",
        ),
    ]


LINES = {
    "learned": ("the world model imagines", RED, "-", 2.6),
    "shuffled": ("shuffled: another episode's actions", (230, 140, 20), "--", 1.8),
    "persistence": ("persistence: nothing changes", GREY, "-.", 1.8),
    "probe": ("the probe itself", GREEN, ":", 1.8),
}


def curves(numbers: Mapping[str, Any], reach: float) -> Picture:
    """Latent error and position error against the horizon, from what imagine.errors gives; reach: success radius."""
    figure = Figure(figsize=(12, 4.6), dpi=110, layout="constrained")
    at = numbers["horizon"]
    figure.suptitle(
        f"Error of the imagination, {numbers['episodes']} held-out episodes (bands: 95 %). Latent, after {at} steps: "
        f"{numbers['ratio_persistence']:.2f} x persistence, {numbers['ratio_shuffled']:.2f} x shuffled actions",
        fontsize=13,
    )
    left, right = figure.subplots(1, 2)
    for axes, name in ((left, "latent_mse"), (right, "position_error")):
        steps = np.array(numbers["horizons"])
        for line, values in numbers[name].items():
            label, colour, style, width = LINES[line]
            mean, half = np.array(values), np.array(numbers[f"{name}_ci95"][line])
            axes.plot(
                steps,
                mean,
                style,
                color=_unit(colour),
                linewidth=width,
                label=label,
                marker="." if len(steps) == 1 else "",
            )
            axes.fill_between(
                steps, np.maximum(mean - half, 0), mean + half, color=_unit(colour), alpha=0.15, linewidth=0
            )
        axes.set(xlabel="imagined steps (action blocks)", ylim=(0, None))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    left.set(ylabel="mean squared error", title="latent")
    right.set(
        ylabel="mean distance, in the world's unit of length", title="position, read from the state by a linear probe"
    )
    right.axhline(reach, color="black", linewidth=1, alpha=0.6, label="goal radius")
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False, fontsize=10)
    return _drawn(figure)


def latent_map(numbers: Mapping[str, Any]) -> Picture:
    """Latents laid out flat, coloured by true position, with imagined paths beside real ones (imagine.project)."""
    figure = Figure(figsize=(8.4, 6), dpi=110, layout="constrained")
    axes, key = figure.subplots(1, 2, width_ratios=(5, 1))
    points, colours = np.array(numbers["points"]), place_colours(np.array(numbers["places"])) / 255
    axes.scatter(*points.T, c=colours, s=12, alpha=0.7, linewidths=0)
    for number, path in enumerate(numbers["paths"]):
        label = ("what was perceived", "what was imagined") if number == 0 else (None, None)
        axes.plot(*np.array(path["perceived"]).T, color="black", linewidth=1.6, label=label[0])
        axes.plot(*np.array(path["imagined"]).T, "--", color=_unit(RED), linewidth=1.8, label=label[1])
        axes.plot(*path["perceived"][0], "o", color="white", markeredgecolor="black")
    u, v = (100 * x for x in numbers["explained"])
    axes.set(xlabel=f"first direction, {u:.0f} % of the distances", ylabel=f"second, {v:.0f} %")
    axes.set_title("Latents of held-out episodes, coloured by where the agent is")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    grid = np.stack(np.meshgrid(np.linspace(0, 1, 40), np.linspace(0, 1, 40)), -1).reshape(-1, 2)
    key.imshow(place_colours(grid).reshape(40, 40, 3))
    key.set(xticks=[], yticks=[])
    key.set_title("colours\nof the map", fontsize=10)
    return _drawn(figure)


def comparison(rows: Sequence[Mapping[str, Any]]) -> Picture:
    """Success of every variant with its interval, from what ablate.summarise gives; failed variants are named."""
    figure = Figure(figsize=(9, 1.4 + 0.42 * len(rows)), dpi=110, layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        if "iqm" not in row:
            text, colour = ("failed", "#a00000") if row["failed"] else ("not computed yet", "#606060")
            axes.text(50, place, text, ha="center", va="center", color=colour)
            continue
        value, low, high = (100 * row["iqm"][k] for k in ("value", "low", "high"))
        colour = "#1b4f8a" if place else "black"
        axes.plot([low, high], [place, place], color=colour, linewidth=5, alpha=0.35, solid_capstyle="butt")
        axes.plot(value, place, "o", color=colour)
    seeds = max(row["n_seeds"] for row in rows)
    axes.set(xlim=(-2, 102), ylim=(len(rows) - 0.5, -0.5), xlabel=f"success in %, {seeds} seeds; bands: 95 %")
    axes.set_yticks(range(len(rows)), [row["variant"] for row in rows])
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return _drawn(figure)


def _drawn(figure: Figure) -> Picture:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3].copy()
