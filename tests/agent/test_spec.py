"""One function tells pixels from sensors, for arrays, dicts, batches and spaces."""

import json
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from agent.spec import EnvSpec, is_picture, named
from modules.actions import BoxActions, DiscreteActions
from modules.types import ObservationSpec

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


def test_a_batch_of_pictures_is_pixels():
    assert list(named(PIXELS)) == ["pixels"]


def test_spaces_are_told_apart_like_arrays():
    assert is_picture(spaces.Box(0, 255, (3, 8, 8), np.uint8)) and is_picture(PIXELS[0])
    assert not is_picture(spaces.Box(0, 1, (3, 8, 8), np.float32)) and not is_picture(spaces.Discrete(3))


@pytest.mark.parametrize("actions", [
    BoxActions((-1.0, -2.0), (1.0, 2.0), 1.5), DiscreteActions((7,), (-3,)), DiscreteActions((3, 2), kind="multi"),
], ids=["box", "discrete", "multi"])  # fmt: skip
def test_the_spec_survives_json_and_strangers_are_refused(actions: BoxActions | DiscreteActions, request: Any):
    seen = ObservationSpec((2, 8, 8), (-1.0,), (1.0,), ("x",), (0,), (0.0,), (1.0,), (0,))
    spec = EnvSpec(seen, actions)
    assert spec.to_json()["actions"]["kind"] in request.node.name
    assert EnvSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    for broken in (
        {},
        {**spec.to_json(), "actions": {"kind": "ropes"}},
        {**spec.to_json(), "observation": {"eyes": 2}},
        {**spec.to_json(), "observation": None},
        {**spec.to_json(), "actions": {"kind": "discrete", "counts": [3], "low": [1.0]}},
    ):
        with pytest.raises(ValueError, match=r"spec|kind"):
            EnvSpec.from_json(broken)
