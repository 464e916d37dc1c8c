"""Colours that the drawings and the report share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]


TONES = {
    "blue": ("#1f5ac8", "#7fb0ff"),
    "orange": ("#c8501e", "#f0925f"),
    "green": ("#28964a", "#6ccb85"),
    "purple": ("#7a4fb3", "#b79bea"),
    "olive": ("#9a7100", "#dcb74a"),
    "teal": ("#0a7f86", "#55c3ca"),
    "pink": ("#b03a72", "#ee86b4"),
    "red": ("#d62728", "#ff6b6b"),
    "grey": ("#5a5a5a", "#a3adb7"),
}
"""Name -> the colour on a light and on a dark page."""


SERIES = ("blue", "orange", "green", "purple", "olive", "teal", "pink")
"""Names of the colours of a chart's lines, in order."""


def tone(name: str) -> str:
    """The colour of that name on a light page, as #rrggbb."""
    return TONES[name][0]


def _rgb(name: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(tone(name)[1:])
    return red, green, blue


GREEN, RED, BLUE, GREY = (_rgb(name) for name in ("green", "red", "blue", "grey"))


DARK, WHITE = (30, 30, 30), (255, 255, 255)


CORNERS = np.array([[[31, 119, 180], [44, 160, 44]], [[148, 60, 180], [230, 120, 20]]], np.float64)


def place_colours(places: NDArray) -> Picture:
    """Places (N, 2) from 0 to 1, column and row -> colours (N, 3): the four corners differ, what is near is alike."""
    x, y = np.asarray(places, np.float64).clip(0, 1)[:, :, None].swapaxes(0, 1)
    top, bottom = (CORNERS[i, 0] * (1 - x) + CORNERS[i, 1] * x for i in (0, 1))
    return (top * (1 - y) + bottom * y).round().astype(np.uint8)
