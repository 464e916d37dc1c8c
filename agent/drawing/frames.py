"""Frames, strips and films of real beside imagined frames.

Shapes: N episodes, T = SEEN + H moments, H imagined steps; pictures are (rows, columns, 3) uint8.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from agent.drawing.colours import BLUE, DARK, GREEN, GREY, RED, WHITE, Picture

SEEN = 3  # observations before the open loop begins


SIDE = 130  # of a frame in pixels, about


BORDER, GAP, LABEL, HEAD, BOUNDARY = 4, 6, 150, 104, 26


ROWS = (
    ("real", "observed"),
    ("imagined", "decoded state"),
    ("error", "red: only imagined\nblue: only real"),
)


COLOUR_ROWS = (*ROWS[:2], ("error", "red: too dark\nblue: too bright"))
"""Of pictures that are not dark on white."""


BODY_ROWS = (ROWS[0], ("imagined", "body in imagined\npose"))


Rows = Sequence[tuple[str, str]]
"""A name and a remark for each row of frames."""


def to_rgb(pixels: NDArray[np.uint8]) -> Picture:
    """(..., C, h, w) uint8 -> (..., h, w, 3). Three channels are colours, one is grey; of two the first is drawn in red
    and the second in dark grey on near white: the agent, and what stands in its way."""
    x = np.moveaxis(pixels, -3, -1)
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
    from matplotlib import get_data_path  # here, because it loads slowly

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / name), size)


def _framed(frame: Picture, moment: int) -> Image.Image:
    """A frame, enlarged by a whole factor; its border is green where it is observed and red where it is imagined."""
    height, width = frame.shape[:2]
    factor = max(1, round(SIDE / max(height, width)))
    size, colour = (width * factor, height * factor), GREEN if moment < SEEN else RED
    picture = Image.new("RGB", (size[0] + 2 * BORDER, size[1] + 2 * BORDER), colour)
    picture.paste(Image.fromarray(frame).resize(size, Image.Resampling.NEAREST), (BORDER, BORDER))
    return picture


def columns(horizon: int) -> list[int]:
    """The moments that the strip shows: all observed ones, then about ten imagined steps, first and last included."""
    stride = -(-horizon // 9)
    steps = sorted({1, *range(stride, horizon, stride), horizon})
    return [*range(SEEN), *(SEEN - 1 + h for h in steps)]


def _row_labels(draw: ImageDraw.ImageDraw, top: int, height: int, rows: Rows = ROWS) -> None:
    for row, (name, remark) in enumerate(rows):
        y = top + row * height + height // 2 - 24
        draw.text((14, y), name, DARK, _font(18, True))
        draw.multiline_text((14, y + 24), remark, GREY, _font(12), spacing=3)


def strip(real: Picture, imagined: Picture, error: Picture | None, world: str, rows: Rows = ROWS) -> Picture:
    """Columns are moments; each episode is a group of rows. A vertical line separates observed from imagined moments.

    Args:
        real: (N, T, h, w, 3).
        imagined: likewise.
        error: likewise, or None for two rows only.
        world: for the title.
        rows: a name and a remark for each.
    """
    kinds = [kind for kind in (real, imagined, error) if kind is not None]
    moments = columns(real.shape[1] - SEEN)
    width, height = _framed(real[0, 0], 0).size
    step = height + GAP
    group = len(kinds) * step + 3 * GAP
    left = [LABEL + j * (width + GAP) + (BOUNDARY if j >= SEEN else 0) for j in range(len(moments))]
    title = f"{SEEN} observed steps, then {real.shape[1] - SEEN} imagined steps, open loop ({world})"
    right = max(left[-1] + width, 14 + int(_font(22, True).getlength(title)))
    sheet = Image.new("RGB", (right + 2 * GAP, HEAD + len(real) * group), WHITE)
    draw = ImageDraw.Draw(sheet)
    draw.text((14, 10), title, DARK, _font(22, True))
    draw.text((left[0], 48), "observed", GREEN, _font(20, True))
    draw.text((left[SEEN], 48), "imagined, open loop", RED, _font(20, True))
    for j, moment in enumerate(moments):
        ahead = moment - (SEEN - 1)
        text = "now" if ahead == 0 else f"{ahead:+d}"
        draw.text((left[j] + width // 2, HEAD - 16), text, GREY, _font(16), anchor="mm")
        for n in range(len(real)):
            for row, kind in enumerate(kinds):
                sheet.paste(_framed(kind[n, moment], moment), (left[j], HEAD + n * group + row * step))
    for n in range(len(real)):
        _row_labels(draw, HEAD + n * group, step, rows)
    middle = left[SEEN] - (GAP + BOUNDARY) // 2
    draw.rectangle((middle - 2, 48, middle + 2, sheet.height - 2 * GAP), DARK)
    return np.array(sheet)


def film(real: Picture, imagined: Picture, error: Picture | None, rows: Rows = ROWS) -> list[Picture]:
    """The same as a film, episodes side by side; the bar below is green while observing, red while imagining."""
    kinds = [kind for kind in (real, imagined, error) if kind is not None]
    count, total = real.shape[:2]
    width, height = _framed(real[0, 0], 0).size
    step, right = height + GAP, LABEL + max(count, 3 if width < 2 * SIDE else 2) * (width + GAP)
    below = 44 + len(kinds) * step
    out = []
    for moment in range(total):
        sheet = Image.new("RGB", (right + GAP, below + 40), WHITE)
        draw = ImageDraw.Draw(sheet)
        observed, ahead = moment < SEEN, moment - (SEEN - 1)
        text = "observed" if observed else f"imagined, open loop: step {ahead} of {total - SEEN}"
        draw.text((LABEL, 12), text, GREEN if observed else RED, _font(20, True))
        _row_labels(draw, 44, step, rows)
        for n in range(count):
            for row, kind in enumerate(kinds):
                sheet.paste(_framed(kind[n, moment], moment), (LABEL + n * (width + GAP), 44 + row * step))
        y, edges = below + 12, np.linspace(LABEL, right - GAP, total + 1).astype(int)
        draw.rectangle((edges[0], y, edges[SEEN], y + 12), (205, 232, 212))
        draw.rectangle((edges[SEEN], y, edges[-1], y + 12), (248, 214, 214))
        draw.rectangle((edges[moment], y, edges[moment + 1], y + 12), GREEN if observed else RED)
        draw.rectangle((edges[SEEN] - 1, y - 5, edges[SEEN] + 1, y + 17), DARK)
        out.append(np.array(sheet))
    return out


# Plans, and what cannot be decoded


PLAN_ROWS = (("imagined", "decoded state"), ("executed", "in a copy"))


def plan_sheet(
    imagined: Picture, executed: Picture, goals: Sequence[Picture | None], titles: Sequence[str], title: str
) -> Picture:
    """Plans of N tasks as frames: what is imagined above what happens, and the goal on the right where there is one.

    Args:
        imagined: (N, H + 1, h, w, 3), from the first moment on.
        executed: likewise.
        goals: (N,).
        titles: (N,), above each task.
        title: of the whole.
    """
    moments = [0, *(m - SEEN + 1 for m in columns(imagined.shape[1] - 1)[SEEN:])]
    width, height = _framed(imagined[0, 0], 0).size
    step, head = height + GAP, 52
    group = 2 * step + 34
    left = [LABEL + j * (width + GAP) for j in range(len(moments))]
    aside = left[-1] + width + BOUNDARY
    right = max(aside + width, 14 + int(_font(22, True).getlength(title)))
    sheet = Image.new("RGB", (right + 2 * GAP, head + len(imagined) * group), WHITE)
    draw = ImageDraw.Draw(sheet)
    draw.text((14, 10), title, DARK, _font(22, True))
    for n, name in enumerate(titles):
        top = head + n * group
        draw.text((14, top + 5), name, DARK, _font(14))
        for j, moment in enumerate(moments):
            for row, kind in enumerate((imagined, executed)):
                border = SEEN if moment and not row else 0  # red for what is imagined, as in the strip
                sheet.paste(_framed(kind[n, moment], border), (left[j], top + 28 + row * step))
            if moment:
                draw.text((left[j] + width // 2, top + 15), f"{moment:+d}", GREY, _font(14), anchor="mm")
        _row_labels(draw, top + 28, step, PLAN_ROWS)
        goal = goals[n]
        if goal is not None:
            draw.text((aside + width // 2, top + 15), "goal", GREY, _font(14), anchor="mm")
            sheet.paste(_framed(goal, 0), (aside, top + 28))
    return np.array(sheet)


def that_fit(width: int, frame: int) -> int:
    """How many frames of that width stand beside each other in a sheet."""
    return max(2, (width - GAP) // (frame + GAP))


def contact_sheet(frames: Picture, labels: Sequence[str], width: int) -> Picture:
    """Frames (N, h, w, 3) beside each other with a label above each; as many as `that_fit`."""
    step = frames.shape[2] + GAP
    sheet = Image.new("RGB", (width, frames.shape[1] + 30), WHITE)
    draw = ImageDraw.Draw(sheet)
    for n, (frame, label) in enumerate(zip(frames, labels, strict=True)):
        draw.text((GAP + n * step + frame.shape[1] // 2, 12), label, GREY, _font(14), anchor="mm")
        sheet.paste(Image.fromarray(frame), (GAP + n * step, 24))
    return np.array(sheet)


def beside(frame: Picture, chart: Picture, marks: Sequence[tuple[int, int, int]], text: str) -> Picture:
    """A frame beside a chart, in which each (column, top, bottom) of `marks` is a vertical line: now."""
    height = max(frame.shape[0] + 40, chart.shape[0])
    sheet = Image.new("RGB", (frame.shape[1] + 3 * GAP + chart.shape[1], height), WHITE)
    draw = ImageDraw.Draw(sheet)
    top = (height - frame.shape[0]) // 2
    draw.text((GAP, top - 26), text, DARK, _font(16, True))
    sheet.paste(Image.fromarray(frame), (GAP, top))
    left = frame.shape[1] + 3 * GAP
    sheet.paste(Image.fromarray(chart), (left, 0))
    for x, high, low in marks:
        draw.line((left + x, high, left + x, low), DARK, 2)
    return np.array(sheet)
