"""Frames, strips and films of real beside imagined frames.

Shapes: N episodes, T = SEEN + H moments, H imagined steps; pictures are (rows, columns, 3) uint8.
"""

from __future__ import annotations

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


def _row_labels(draw: ImageDraw.ImageDraw, top: int, height: int) -> None:
    for row, (name, remark) in enumerate(ROWS):
        y = top + row * height + height // 2 - 24
        draw.text((14, y), name, DARK, _font(18, True))
        draw.multiline_text((14, y + 24), remark, GREY, _font(12), spacing=3)


def strip(real: Picture, imagined: Picture, error: Picture, world: str) -> Picture:
    """Columns are moments; each episode is three rows. A vertical line separates observed from imagined moments."""
    moments = columns(real.shape[1] - SEEN)
    width, height = _framed(real[0, 0], 0).size
    step = height + GAP
    group = 3 * step + 3 * GAP
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
            for row, kind in enumerate((real, imagined, error)):
                sheet.paste(_framed(kind[n, moment], moment), (left[j], HEAD + n * group + row * step))
    for n in range(len(real)):
        _row_labels(draw, HEAD + n * group, step)
    middle = left[SEEN] - (GAP + BOUNDARY) // 2
    draw.rectangle((middle - 2, 48, middle + 2, sheet.height - 2 * GAP), DARK)
    return np.array(sheet)


def film(real: Picture, imagined: Picture, error: Picture) -> list[Picture]:
    """The same as a film, episodes side by side; the bar below is green while observing, red while imagining."""
    count, total = real.shape[:2]
    width, height = _framed(real[0, 0], 0).size
    step, right = height + GAP, LABEL + max(count, 3) * (width + GAP)
    out = []
    for moment in range(total):
        sheet = Image.new("RGB", (right + GAP, 44 + 3 * step + 40), WHITE)
        draw = ImageDraw.Draw(sheet)
        observed, ahead = moment < SEEN, moment - (SEEN - 1)
        text = "observed" if observed else f"imagined, open loop: step {ahead} of {total - SEEN}"
        draw.text((LABEL, 12), text, GREEN if observed else RED, _font(20, True))
        _row_labels(draw, 44, step)
        for n in range(count):
            for row, kind in enumerate((real, imagined, error)):
                sheet.paste(_framed(kind[n, moment], moment), (LABEL + n * (width + GAP), 44 + row * step))
        y, edges = 44 + 3 * step + 12, np.linspace(LABEL, right - GAP, total + 1).astype(int)
        draw.rectangle((edges[0], y, edges[SEEN], y + 12), (205, 232, 212))
        draw.rectangle((edges[SEEN], y, edges[-1], y + 12), (248, 214, 214))
        draw.rectangle((edges[moment], y, edges[moment + 1], y + 12), GREEN if observed else RED)
        draw.rectangle((edges[SEEN] - 1, y - 5, edges[SEEN] + 1, y + 17), DARK)
        out.append(np.array(sheet))
    return out
