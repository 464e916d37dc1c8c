"""Recordings: every Decision of an episode, with the plans that lost, in plain JSON that is checked before its use."""

from __future__ import annotations

import base64
import copy
import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from agent.agent import Agent
from agent.build import load
from agent.config import Config
from agent.evaluation.evaluate import acting, evaluate, run_agent
from agent.evaluation.tasks import task_list
from agent.inspection import imagination
from agent.inspection.recorder import RECALLED, Recorder, sheet
from agent.interaction.environment import Environment, open_environment
from agent.storage.recording import check
from tests.helpers import born, tiny, tiny_maze


def recorder_of(agent: Agent, config: Config, environment: Environment, episodes: int = 2) -> Recorder:
    assert environment.goals is not None
    tasks, _ = task_list(environment.goals, episodes)
    return Recorder(environment, tasks, imagination.probe_of(agent, config, environment, 0))


def recorded(agent: Agent, config: Config, environment: Environment, mode: int = 2) -> dict[str, Any]:
    recorder = recorder_of(agent, config, environment)
    _, raw = evaluate(agent, environment, 8, 3, {"mode": mode}, watch=recorder.attach)
    return recorder.recording(raw.steps.tolist())


ROOMS = open_environment("TwoRooms-v0", {})


@pytest.fixture(scope="module")
def recording(trained_run) -> dict[str, Any]:
    return recorded(load(trained_run, "cpu"), tiny(), ROOMS)


def size(sheet: str) -> tuple[int, int]:
    return Image.open(io.BytesIO(base64.b64decode(sheet))).size


def test_a_recording_is_json_and_passes_its_own_check(recording):
    check(json.loads(json.dumps(recording, allow_nan=False)))


def test_every_moment_has_a_decision_and_a_frame(recording):
    for episode in recording["episodes"]:
        assert len(episode["moments"]) == 8 and episode["steps"] == -1
        width, height = episode["frame_size"]
        assert size(episode["frames"]) == (8 * width, height)
        assert [m["replanned"] for m in episode["moments"]] == [t % 4 == 0 for t in range(8)]
        assert [m["plan"] for m in episode["moments"]] == [t // 4 for t in range(8)]
        assert [p["moment"] for p in episode["plans"]] == [0, 4]
        # What the plan of moment 0 imagined of moment 4 is compared with what came.
        assert [m["surprise"] is not None for m in episode["moments"]] == [t == 4 for t in range(8)]


def test_plans_hold_the_chosen_one_and_others_that_cost_more(recording):
    for plan in (p for e in recording["episodes"] for p in e["plans"]):
        energies = [path["energy"] for path in plan["paths"]]
        assert len(energies) > 2 and energies == sorted(energies), "the chosen one first, then from cheap to dear"
        for path in plan["paths"]:
            terms = [*path["drives"].values(), path["critic"]]
            assert sum(map(sum, terms)) == pytest.approx(path["energy"], rel=1e-3, abs=1e-4)
            assert len(path["at"]) == len(path["critic"]) + 1
        width, height = recording["episodes"][0]["frame_size"]
        steps = len(plan["paths"][0]["critic"])
        assert size(plan["frames"]) == (steps * width, len(energies) * height)
        assert energies[0] <= plan["proposal_energy"] * (1 + 1e-3) + 1e-4


def test_memory_recalls_what_was_like_this(recording):
    recalled = recording["episodes"][0]["moments"][0]["recalled"]
    assert len(recalled["at"]) == RECALLED and recalled["unlike"] == sorted(recalled["unlike"])


def test_an_episode_ends_at_its_goal():
    agent, environment = born(tiny())
    recorder = recorder_of(agent, tiny(), environment)
    tasks = recorder.tasks
    tasks.start[0] = tasks.goal[0]
    acts, _ = acting(agent, environment, 8)
    result = run_agent(acts, tasks, 8, 0, listener=recorder.attach(acts.agent))
    first, second = recorder.recording(result.steps.tolist())["episodes"]
    assert first["steps"] == len(first["moments"]) - 1 < 8 == len(second["moments"]) and second["steps"] == -1


def test_what_is_recorded_is_the_evaluation_itself(trained_run):
    """The same noise and the same search: the episode in the player is the one in the table."""
    config, agent = tiny(), load(trained_run, "cpu")
    at: list[np.ndarray] = []
    plain, raw = evaluate(agent, ROOMS, 8, 3, watch=lambda _: lambda step: at.append(step.moment.info["state"]))
    recorder = recorder_of(agent, config, ROOMS)
    watched, seen = evaluate(agent, ROOMS, 8, 3, watch=recorder.attach)
    assert plain["task_steps"] == watched["task_steps"] and (raw.steps == seen.steps).all()
    assert ROOMS.view is not None
    for e, episode in enumerate(recorder.recording(raw.steps.tolist())["episodes"]):
        where = ROOMS.view.to_map(ROOMS.view.positions(np.stack(at)[:, e]))
        assert np.allclose([m["at"] for m in episode["moments"]], where, atol=0.01)


def test_mode_1_has_no_plans(trained_run):
    config, agent = tiny(), load(trained_run, "cpu")
    found = recorded(agent, config, ROOMS, mode=1)
    check(found)
    assert all(not e["plans"] and e["moments"][0]["plan"] is None for e in found["episodes"])


def test_a_world_without_pixels_is_recorded_by_its_map():
    agent, environment = born(tiny_maze())
    found = recorded(agent, tiny_maze(), environment)
    check(found)
    episode = found["episodes"][0]
    assert episode["frames"] is episode["plans"][0]["frames"] is None
    assert episode["moments"][0]["recalled"] is None, "nothing has been lived through"


def test_frames_stand_in_rows():
    frames = [np.full((2, 3, 3), i, np.uint8) for i in range(18)]
    found = sheet(frames)
    assert found.shape == (4, 48, 3)
    assert found[0, 3, 0] == 1 and found[2, 0, 0] == 16 and found[2, 6, 0] == 255


def drop(*path: Any) -> Callable[[Any], None]:
    def change(value: Any) -> None:
        for name in path[:-1]:
            value = value[name]
        del value[path[-1]]

    return change


def put(new: Any, *path: Any) -> Callable[[Any], None]:
    def change(value: Any) -> None:
        for name in path[:-1]:
            value = value[name]
        value[path[-1]] = new

    return change


EPISODE = ("episodes", 0)
PLAN = (*EPISODE, "plans", 0)


@pytest.mark.parametrize(
    "damage",
    [
        drop("version"),
        put(0, "version"),
        put(0, "block"),
        put([], *EPISODE, "moments"),
        put("x", *EPISODE, "goal"),
        put("<img>", *EPISODE, "map"),
        put("no base64!", *PLAN, "frames"),
        put(None, *EPISODE, "frame_size"),
        lambda value: value["episodes"][0].update(frames=None, frame_size=None),  # while its plans have pictures
        put(99, *EPISODE, "moments", 0, "plan"),
        put(float("inf"), *EPISODE, "moments", 0, "critic"),
        put(
            float("nan"),
            "something",
        ),
        put([], "episodes"),
        put(True, *EPISODE, "moments", 0, "milliseconds"),
        put(0.5, *EPISODE, "moments", 0, "plan"),
        put({"at": [[1, 2]]}, *EPISODE, "moments", 0, "recalled"),
        put(base64.b64encode(b"no picture").decode(), *EPISODE, "map"),
        put("now", *EPISODE, "moments", 0, "milliseconds"),
        put({"goal": "much"}, *EPISODE, "moments", 0, "drives"),
        put([1.0], *PLAN, "paths", 0, "critic"),
        put([[0, 0]], *PLAN, "paths", 0, "at"),
        put({"at": [[1]]}, *EPISODE, "moments", 0, "recalled"),
        put(7, *PLAN, "planner"),
        drop(*PLAN, "paths", 0, "energy"),
    ],
)
def test_what_is_not_a_recording_is_refused(recording, damage):
    damaged = copy.deepcopy(recording)
    damage(damaged)
    with pytest.raises((KeyError, TypeError, ValueError, IndexError, OSError, SyntaxError)):
        check(damaged)
