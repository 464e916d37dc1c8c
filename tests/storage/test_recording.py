"""Promises of agent/storage/recording.py: the format is checked, what an environment cannot give may be None.

tests/inspection/test_recorder.py damages what a Recorder wrote; here the recordings are written by hand.
"""

import base64
import copy
import dataclasses
import json
import time

import numpy as np
import pytest

from agent.drawing.media import encode_png
from agent.storage.recording import Moment, Recording, check

PNG = base64.b64encode(encode_png(np.zeros((2, 4, 3), np.uint8))).decode()
PATH = {
    "energy": 3,
    "at": [[0, 1], [2.5, 3], [4, 5]],
    "drives": {"goal": [1.0, 2], "contact": [0, 0]},
    "critic": [0, 0],
}
PLAN = {
    **{"moment": 0, "planner": "cem", "samples": 8, "iterations": 2, "proposal_energy": 4.5, "frames": PNG},
    "paths": [PATH, {**PATH, "energy": 5.0}],
}
MOMENT = {
    **{"at": [1.5, 2], "mode": 2, "replanned": True, "plan": 0, "milliseconds": 3.5, "surprise": None},
    **{"drives": {"goal": 1.5}, "critic": 0.5, "recalled": {"unlike": [0.1, 0.2], "at": [[1, 2], [3, 4]]}},
}
EPISODE = {
    **{"task": 0, "steps": -1, "goal": [5, 6], "reach": 2.5, "map": PNG, "frames": PNG, "frame_size": [2, 2]},
    **{"moments": [MOMENT, {**MOMENT, "mode": 1, "plan": None, "recalled": None}], "plans": [PLAN], "goal_frame": PNG},
}
RECORDING = {"version": 1, "block": 4, "episodes": [EPISODE]}


def without_a_map(value: dict) -> None:
    episode = value["episodes"][0]
    episode |= {"goal": None, "reach": None, "map": None, "frames": None, "frame_size": None, "goal_frame": None}
    for moment in episode["moments"]:
        moment["at"] = None
    for plan in episode["plans"]:
        plan["frames"] = None
        for path in plan["paths"]:
            path["at"] = None


def test_a_recording_is_decoded():
    found = check(json.loads(json.dumps(RECORDING)))
    assert isinstance(found, Recording) and isinstance(found.episodes[0].moments[0], Moment)
    assert found.episodes[0].plans[0].paths[1].at == [(0, 1), (2.5, 3), (4, 5)]
    assert json.loads(json.dumps(dataclasses.asdict(found))) == RECORDING
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.block = 5  # pyright: ignore[reportAttributeAccessIssue]


def test_an_environment_without_map_or_pixels_is_a_recording_too():
    value = copy.deepcopy(RECORDING)
    without_a_map(value)
    assert check(value).episodes[0].goal is None
    value["episodes"][0]["moments"][0]["recalled"]["at"] = None
    check(value)


def put(new: object, *path: object):
    def change(value) -> None:
        for name in path[:-1]:
            value = value[name]
        value[path[-1]] = new

    return change


E = ("episodes", 0)
P = (*E, "plans", 0)
LATE = put([[0, 0]], *P, "paths", 1, "at")


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (put(2, "version"), "version 2, this program reads 1"),
        (put(0, "block"), "block must be 1 or more"),
        (put(1.5, "block"), '"block"'),
        (put([], "episodes"), "no episodes"),
        (put({}, "episodes"), '"episodes"'),
        (put("x" * 3, *E, "moments"), "moments"),
        (put([], *E, "moments"), "episodes 0: no moments"),
        (put([1], *E, "goal"), "episodes.goal"),
        (put("ab", *E, "goal"), "episodes.goal"),
        (put({"a": 1, "b": 2}, *E, "goal"), "."),
        (put([True, 1], *E, "goal"), "episodes"),
        (put(PNG[:40], *E, "map"), "episodes 0: a picture is not a PNG in base64"),
        (put(None, *E, "frame_size"), "frames without frame_size"),
        (put(1, *E, "moments", 0, "plan"), "a plan that is not there"),
        (put(-1, *E, "moments", 0, "plan"), "a plan that is not there"),
        (put(None, *E, "moments", 0, "critic"), "critic"),
        (put(1, *E, "moments", 0, "replanned"), "replanned"),
        (put(1, "more"), "more"),
        (put([], *P, "paths"), "plan 0: no paths"),
        (put([1], *P, "paths", 0, "drives", "goal"), "different lengths"),
        (LATE, "different lengths"),
    ],
)
def test_what_is_not_a_recording_is_refused_with_the_place(damage, why):
    value = copy.deepcopy(RECORDING)
    damage(value)
    with pytest.raises(ValueError, match=why):
        check(value)


@pytest.mark.parametrize("value", [None, [], "x", {}, {"version": 1}, {"version": 1, "block": 1, "episodes": None}])
def test_something_else_is_refused(value):
    with pytest.raises(ValueError):
        check(value)


def test_numbers_that_a_browser_cannot_read_and_endless_nesting_are_refused():
    with pytest.raises(ValueError, match="JSON"):
        check({**RECORDING, "more": float("nan")})
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError):
        check({**RECORDING, "more": deep})


def test_a_large_recording_is_checked_in_a_moment():
    paths = [{**PATH, "at": [[1, 2]] * 9, "drives": {"goal": [1] * 8, "contact": [0] * 8}, "critic": [0] * 8}] * 9
    episode = {**EPISODE, "moments": [MOMENT] * 60, "plans": [{**PLAN, "paths": paths}] * 15}
    began = time.perf_counter()
    check({**RECORDING, "episodes": [episode] * 6})
    assert time.perf_counter() - began < 5
