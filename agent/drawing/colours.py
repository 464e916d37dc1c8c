"""Colours that the drawings and the report share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]


GREEN, RED, BLUE, DARK, GREY, WHITE = (
    (40, 150, 70),
    (214, 39, 40),
    (31, 90, 200),
    (30, 30, 30),
    (90, 90, 90),
    (255,) * 3,
)


CORNERS = np.array([[[31, 119, 180], [44, 160, 44]], [[148, 60, 180], [230, 120, 20]]], np.float64)


def place_colours(places: NDArray) -> Picture:
    """Places (N, 2) from 0 to 1, column and row -> colours (N, 3): the four corners differ, what is near is alike."""
    x, y = np.asarray(places, np.float64).clip(0, 1)[:, :, None].swapaxes(0, 1)
    top, bottom = (CORNERS[i, 0] * (1 - x) + CORNERS[i, 1] * x for i in (0, 1))
    return (top * (1 - y) + bottom * y).round().astype(np.uint8)


def _unit(colour: tuple[int, int, int]) -> tuple[float, float, float]:
    return colour[0] / 255, colour[1] / 255, colour[2] / 255
