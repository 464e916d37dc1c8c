"""One function tells pixels from sensors, for arrays, dicts, batches and spaces."""

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from agent.interaction.observations import is_picture, named

PIXELS, SENSORS = np.zeros((5, 3, 8, 8), np.uint8), np.arange(10, dtype=np.float32).reshape(5, 2)


@pytest.mark.parametrize(
    ("observation", "names"),
    [
        (PIXELS[0], ["pixels"]),
        (SENSORS[0], ["sensors"]),
        (np.zeros(4, np.uint8), ["sensors"]),
        ({"pixels": PIXELS[0], "sensors": SENSORS[0]}, ["pixels", "sensors"]),
        ({"sensors": SENSORS[0], "clock": np.zeros(1)}, ["sensors"]),
    ],
)
def test_parts_have_names(observation: Any, names: list[str]):
    assert list(named(observation)) == names


def test_one_environment_is_taken_out_of_a_batch():
    assert named(SENSORS, 3)["sensors"].tolist() == [6, 7]
    one = named({"pixels": PIXELS, "sensors": SENSORS}, 3)
    assert one["pixels"].shape == (3, 8, 8) and one["sensors"].tolist() == [6, 7]


def test_a_batch_of_pictures_is_pixels():
    assert list(named(PIXELS)) == ["pixels"]


def test_spaces_are_told_apart_like_arrays():
    assert is_picture(spaces.Box(0, 255, (3, 8, 8), np.uint8)) and is_picture(PIXELS[0])
    assert not is_picture(spaces.Box(0, 1, (3, 8, 8), np.float32)) and not is_picture(spaces.Discrete(3))
