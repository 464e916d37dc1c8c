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
from agent.storage.recording import RELEVANT, Moment, Recording, check

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

# The other two kinds: PNG is a sheet of two frames.
IMAGINED = {"at": None, "readings": [[0.5], [None]]}
WHOLE_MOMENT = {**MOMENT, "at": None, "recalled": None, "readings": [1.5, -2], "action": [0.5], "reward": -1}
WHOLE_EPISODE = {
    **{"task": 0, "steps": -1, "goal": None, "reach": None, "map": None, "frames": PNG, "frame_size": [2, 2]},
    **{"moments": [WHOLE_MOMENT] * 2, "goal_frame": None, "goal_readings": {"angle": 0}, "seed": 7, "success": False},
    **{"episode_return": -2.5, "length": 9, "end": "truncated"},
    "plans": [
        {**PLAN, "paths": [{**PATH, **IMAGINED}, {**PATH, **IMAGINED}], "framed": 1, "frame_steps": [1, 2]},
    ],
}
WHOLE = {
    **{"version": 1, "block": 1, "kind": "frames", "posed": True, "sensors": ["angle", "speed"], "relevant": [1]},
    **{"rewarded": False, "episodes": [WHOLE_EPISODE]},
}


def without_a_map(value: dict) -> None:
    episode = value["episodes"][0]
    episode |= {"goal": None, "reach": None, "map": None, "frames": None, "frame_size": None, "goal_frame": None}
    for moment in episode["moments"]:
        moment["at"] = None
    for plan in episode["plans"]:
        plan["frames"] = None
        for path in plan["paths"]:
            path["at"] = None


def kept(value, like):
    """Of a value, what the other has too: recordings of a map need not name what only other kinds have."""
    if isinstance(like, dict):
        return {name: kept(value[name], one) for name, one in like.items()}
    return [kept(v, one) for v, one in zip(value, like, strict=True)] if isinstance(like, list) else value


def test_a_recording_is_decoded():
    found = check(json.loads(json.dumps(RECORDING)))
    assert isinstance(found, Recording) and isinstance(found.episodes[0].moments[0], Moment)
    assert found.episodes[0].plans[0].paths[1].at == [(0, 1), (2.5, 3), (4, 5)]
    assert kept(json.loads(json.dumps(dataclasses.asdict(found))), RECORDING) == RECORDING and found.kind == "map"
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


def test_whole_episodes_are_decoded_with_and_without_frames():
    found = check(json.loads(json.dumps(WHOLE)))
    assert found.sensors == ["angle", "speed"] and found.episodes[0].moments[1].readings == [1.5, -2]
    assert found.episodes[0].plans[0].paths[1].readings == [[0.5], [None]]
    curves = copy.deepcopy(WHOLE)
    curves["kind"] = "curves"
    curves["episodes"][0] |= {"frames": None, "frame_size": None}
    curves["episodes"][0]["plans"][0] |= {"frames": None, "framed": None, "frame_steps": None}
    assert check(curves).kind == "curves"


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (put("film", "kind"), "kind"),
        (put("curves", "kind"), "frames do not fit a recording of kind curves"),
        (put(None, *E, "frames"), "frames do not fit a recording of kind frames"),
        (put(None, "sensors"), "2 readings|0 readings|without sensors"),
        (put(["angle", "angle"], "sensors"), "two sensors of one name"),
        (put(["angle", "speed", "more"], "sensors"), "episodes 0: a moment does not have 3 readings"),
        (put([2], "relevant"), "relevant must name at most"),
        (put([1, 1], "relevant"), "imagined readings are not 2 steps of 2"),
        (put([1.5], *E, "moments", 1, "readings"), "a moment does not have 2 readings"),
        (put(["a", "b"], *E, "moments", 1, "readings"), "readings"),
        (put({"heat": 1}, *E, "goal_readings"), "the goal names a sensor that is not there"),
        (put([1, 2], *E, "frame_size"), "its sheet does not hold a frame for each moment"),
        (put("later", *E, "end"), "end"),
        (put(2, *P, "moment"), "plan 0: its moment is not there"),
        (put(-1, *P, "moment"), "plan 0: its moment is not there"),
        (put([[0.5]], *P, "paths", 1, "readings"), "plan 0: imagined readings are not 2 steps of 1 sensors"),
        (put(None, *P, "paths", 0, "readings"), "plan 0: imagined readings are not 2 steps of 1 sensors"),
        (put(2, *P, "framed"), "plan 0: its sheet does not hold 2 rows of 2 frames"),
        (put(3, *P, "framed"), "frames of steps or paths that are not there"),
        (put([1, 3], *P, "frame_steps"), "frames of steps or paths that are not there"),
        (put([2, 1], *P, "frame_steps"), "frames of steps or paths that are not there"),
        (put([2], *P, "frame_steps"), "its sheet does not hold 1 rows of 1 frames"),
        (put(PNG[:40], *P, "frames"), "a picture is not a PNG in base64"),
        (put([], *P, "paths"), "plan 0: no paths"),
        (put(1, "posed"), "posed"),
    ],
)
def test_whole_episodes_that_are_damaged_are_refused_with_the_place(damage, why):
    value = copy.deepcopy(WHOLE)
    damage(value)
    with pytest.raises(ValueError, match=why):
        check(value)


def test_too_many_relevant_sensors_are_refused():
    many = RELEVANT + 1
    value = copy.deepcopy(WHOLE)
    value |= {"sensors": [str(i) for i in range(many)], "relevant": [*range(many)]}
    value["episodes"][0]["goal_readings"] = None
    for moment in value["episodes"][0]["moments"]:
        moment["readings"] = [0] * many
    for path in value["episodes"][0]["plans"][0]["paths"]:
        path["readings"] = [[0] * many] * 2
    with pytest.raises(ValueError, match=f"at most {RELEVANT}"):
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
