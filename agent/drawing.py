"""How imagination is drawn: the strip and the film of real beside imagined frames, maps with plans, curves of errors.

Pure functions from arrays to pictures; what they show is worked out in agent/imagine.py. Figures are made through
matplotlib's object interface, so that a training that draws shares no state with anybody's own plots.

Shapes: N episodes, T = SEEN + H moments, H imagined steps, R rejected plans; pictures are (rows, columns, 3) uint8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps, get_data_path
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

Picture = NDArray[np.uint8]

SEEN = 3  # observations before the eyes close
GREEN, RED, BLUE, DARK, GREY, WHITE = (
    (40, 150, 70),
    (214, 39, 40),
    (31, 90, 200),
    (30, 30, 30),
    (90, 90, 90),
    (255,) * 3,
)
SIDE = 130  # of a frame in pixels, about
BORDER, GAP, LABEL, HEAD, BOUNDARY = 4, 6, 150, 104, 26
ROWS = (
    ("real", "what happened"),
    ("imagined", "read from the state"),
    ("error", "red: only imagined\nblue: only real"),
)


def to_rgb(pixels: Tensor) -> Picture:
    """(..., C, h, w) uint8 -> (..., h, w, 3). Three channels are colours, one is grey; of two the first is drawn in red
    and the second in dark grey on near white: the agent, and what stands in its way."""
    x = pixels.movedim(-3, -1).numpy()
    if x.shape[-1] >= 3:
        return np.ascontiguousarray(x[..., :3])
    if x.shape[-1] == 1:
        return np.repeat(x, 3, -1)
    picture = np.full((*x.shape[:-1], 3), 250.0)
    for channel, colour in ((1, GREY), (0, RED)):
        share = np.minimum(1, 1.5 * x[..., channel, None] / 255.0)  # a soft dot of a few pixels is hard to see
        picture += share * (np.array(colour) - picture)
    return picture.round().astype(np.uint8)


def difference(real: Picture, imagined: Picture) -> Picture:
    """How far imagined is from real, any shape (..., 3).

    White where they agree; red where something dark is only imagined, blue where it is only real.
    """
    change = imagined.astype(np.float64) - real
    size = np.abs(change).max(-1, keepdims=True) / 255
    colour = np.where(change.sum(-1, keepdims=True) < 0, np.array(RED), np.array(BLUE))
    return (255 + np.minimum(1, 1.3 * size) * (colour - 255.0)).round().astype(np.uint8)


# Strip and film


@lru_cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / name), size)


def _framed(frame: Picture, moment: int) -> Image.Image:
    """A frame, enlarged by a whole factor, in a green border where the agent sees and a red one where it imagines."""
    height, width = frame.shape[:2]
    factor = max(1, round(SIDE / max(height, width)))
    size, colour = (width * factor, height * factor), GREEN if moment < SEEN else RED
    picture = Image.new("RGB", (size[0] + 2 * BORDER, size[1] + 2 * BORDER), colour)
    picture.paste(Image.fromarray(frame).resize(size, Image.Resampling.NEAREST), (BORDER, BORDER))
    return picture


def columns(horizon: int) -> list[int]:
    """The moments that the strip shows: all that were seen, then some ten imagined steps, first and last included."""
    stride = -(-horizon // 9)
    steps = sorted({1, *range(stride, horizon, stride), horizon})
    return [*range(SEEN), *(SEEN - 1 + h for h in steps)]


def _row_labels(draw: ImageDraw.ImageDraw, top: int, height: int) -> None:
    for row, (name, remark) in enumerate(ROWS):
        y = top + row * height + height // 2 - 24
        draw.text((14, y), name, DARK, _font(18, True))
        draw.multiline_text((14, y + 24), remark, GREY, _font(12), spacing=3)


def strip(real: Picture, imagined: Picture, error: Picture, world: str) -> Picture:
    """Columns are moments; each episode is three rows. A vertical line stands where seeing ends."""
    moments = columns(real.shape[1] - SEEN)
    width, height = _framed(real[0, 0], 0).size
    step = height + GAP
    group = 3 * step + 3 * GAP
    left = [LABEL + j * (width + GAP) + (BOUNDARY if j >= SEEN else 0) for j in range(len(moments))]
    title = f"Seen for {SEEN} moments, then imagined for {real.shape[1] - SEEN} steps without looking ({world})"
    right = max(left[-1] + width, 14 + int(_font(22, True).getlength(title)))
    sheet = Image.new("RGB", (right + 2 * GAP, HEAD + len(real) * group), WHITE)
    draw = ImageDraw.Draw(sheet)
    draw.text((14, 10), title, DARK, _font(22, True))
    draw.text((left[0], 48), "seen", GREEN, _font(20, True))
    draw.text((left[SEEN], 48), "imagined, open loop", RED, _font(20, True))
    for j, moment in enumerate(moments):
        ahead = moment - (SEEN - 1)
        text = "now" if ahead == 0 else f"{ahead:+d}"
        draw.text((left[j] + width // 2, HEAD - 16), text, GREY, _font(16), anchor="mm")
        for n in range(len(real)):
            for row, kind in enumerate((real, imagined, error)):
                sheet.paste(_framed(kind[n, moment], moment), (left[j], HEAD + n * group + row * step))
    for n in range(len(real)):
        _row_labels(draw, HEAD + n * group, step)
    middle = left[SEEN] - (GAP + BOUNDARY) // 2
    draw.rectangle((middle - 2, 48, middle + 2, sheet.height - 2 * GAP), DARK)
    return np.array(sheet)


def film(real: Picture, imagined: Picture, error: Picture) -> list[Picture]:
    """The same as a film, episodes side by side; a clock below runs from seeing (green) into imagining (red)."""
    count, total = real.shape[:2]
    width, height = _framed(real[0, 0], 0).size
    step, right = height + GAP, LABEL + max(count, 3) * (width + GAP)
    out = []
    for moment in range(total):
        sheet = Image.new("RGB", (right + GAP, 44 + 3 * step + 40), WHITE)
        draw = ImageDraw.Draw(sheet)
        seeing, ahead = moment < SEEN, moment - (SEEN - 1)
        text = "seen" if seeing else f"imagined, open loop: step {ahead} of {total - SEEN}"
        draw.text((LABEL, 12), text, GREEN if seeing else RED, _font(20, True))
        _row_labels(draw, 44, step)
        for n in range(count):
            for row, kind in enumerate((real, imagined, error)):
                sheet.paste(_framed(kind[n, moment], moment), (LABEL + n * (width + GAP), 44 + row * step))
        y, edges = 44 + 3 * step + 12, np.linspace(LABEL, right - GAP, total + 1).astype(int)
        draw.rectangle((edges[0], y, edges[SEEN], y + 12), (205, 232, 212))
        draw.rectangle((edges[SEEN], y, edges[-1], y + 12), (248, 214, 214))
        draw.rectangle((edges[moment], y, edges[moment + 1], y + 12), GREEN if seeing else RED)
        draw.rectangle((edges[SEEN] - 1, y - 5, edges[SEEN] + 1, y + 17), DARK)
        out.append(np.array(sheet))
    return out


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


CORNERS = np.array([[[31, 119, 180], [44, 160, 44]], [[148, 60, 180], [230, 120, 20]]], np.float64)


def place_colours(places: NDArray) -> Picture:
    """Places (N, 2) from 0 to 1, column and row -> colours (N, 3): the four corners differ, what is near is alike."""
    x, y = np.asarray(places, np.float64).clip(0, 1)[:, :, None].swapaxes(0, 1)
    top, bottom = (CORNERS[i, 0] * (1 - x) + CORNERS[i, 1] * x for i in (0, 1))
    return (top * (1 - y) + bottom * y).round().astype(np.uint8)


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


def _unit(colour: tuple[int, int, int]) -> tuple[float, float, float]:
    return colour[0] / 255, colour[1] / 255, colour[2] / 255


def _drawn(figure: Figure) -> Picture:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3].copy()
