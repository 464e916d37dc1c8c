"""Promise: any observation that can be perceived arrives as pixels and sensors, each number with a name."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from envs.senses import Senses, Unperceivable


class Shown(gym.Env):
    """Shows what it is told to; an episode has two steps."""

    def __init__(self, space: spaces.Space, action: spaces.Space | None = None, terminates: bool = False) -> None:
        self.observation_space = space
        self.action_space = action or spaces.Box(-1, 1, (1,), np.float32)
        self.terminates, self.taken, self.given = terminates, 0, None
        self.observation_space.seed(0)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.taken = 0
        self.shown = self.observation_space.sample()
        return self.shown, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.given, self.taken = action, self.taken + 1
        self.shown = self.observation_space.sample()
        return self.shown, 1.0, self.terminates and self.taken == 2, False, {"is_success": np.array([True])}


def box(*shape: int) -> spaces.Box:
    return spaces.Box(-2, 3, shape, np.float32)


def picture(*shape: int) -> spaces.Box:
    return spaces.Box(0, 255, shape, np.uint8)


@pytest.mark.parametrize(
    ("space", "names"),
    [
        (box(2), ("obs[0]", "obs[1]", "ended")),
        (box(2, 2), ("obs[0]", "obs[1]", "obs[2]", "obs[3]", "ended")),
        (spaces.Discrete(3, start=5), ("obs=0", "obs=1", "obs=2", "ended")),
        (spaces.MultiDiscrete([2, 2]), ("obs[0]=0", "obs[0]=1", "obs[1]=0", "obs[1]=1", "ended")),
        (spaces.MultiBinary(2), ("obs[0]", "obs[1]", "ended")),
        (spaces.Dict({"a": box(1), "b": spaces.Dict({"c": box(2)})}), ("a", "b.c[0]", "b.c[1]", "ended")),
        (spaces.Tuple((box(1), spaces.Discrete(2))), ("0", "1=0", "1=1", "ended")),
        (picture(7, 7, 3), (*(f"obs[{i}]" for i in range(147)), "ended")),  # too small for a picture
    ],
)
def test_numbers_are_sensors_with_names(space: spaces.Space, names: tuple[str, ...]):
    senses = Senses(Shown(space))
    seen, _ = senses.reset(seed=0)
    assert senses.sensor_names == names
    assert set(seen) == {"sensors"} and seen["sensors"].shape == (len(names),) and seen["sensors"].dtype == np.float32
    assert seen in senses.observation_space


def test_numbers_keep_their_values_and_choices_become_one_hot():
    env = Shown(spaces.Dict({"x": box(2), "choice": spaces.Discrete(3, start=-1)}))
    senses = Senses(env)
    for _ in range(20):
        seen, _ = senses.reset()
        by_name = dict(zip(senses.sensor_names, seen["sensors"], strict=True))
        assert [by_name["x[0]"], by_name["x[1]"]] == env.shown["x"].tolist()
        assert [by_name[f"choice={i}"] for i in range(3)] == [float(env.shown["choice"] == i - 1) for i in range(3)]


@pytest.mark.parametrize(
    ("shape", "seen"),
    [
        ((96, 96, 3), (3, 96, 96)),  # CarRacing's
        ((3, 64, 64), (3, 64, 64)),
        ((48, 32), (1, 48, 32)),
        ((4, 40, 40, 3), (12, 40, 40)),  # a stack of frames
        ((400, 600, 3), (3, 57, 85)),  # 600 / 7
        ((4, 84, 84), (4, 84, 84)),  # a stack of grey frames
    ],
)
def test_pictures_of_any_form_are_channels_first(shape: tuple[int, ...], seen: tuple[int, int, int]):
    env = Shown(picture(*shape))
    senses = Senses(env)
    pixels = senses.reset(seed=0)[0]["pixels"]
    assert pixels.dtype == np.uint8
    assert pixels.shape == seen or (abs(pixels.shape[1] - seen[1]) <= 1 and abs(pixels.shape[2] - seen[2]) <= 1)
    if shape == (96, 96, 3):
        assert np.array_equal(pixels, env.shown.transpose(2, 0, 1))
    if shape == (4, 40, 40, 3):
        assert np.array_equal(pixels[3:6], env.shown[1].transpose(2, 0, 1))


def test_a_large_picture_is_the_mean_of_its_blocks():
    env = Shown(picture(192, 192, 1))
    senses = Senses(env)
    pixels = senses.reset(seed=0)[0]["pixels"]
    mean = env.shown[..., 0].reshape(96, 2, 96, 2).mean((1, 3))
    assert pixels.shape == (1, 96, 96) and np.abs(pixels[0] - mean).max() <= 1


def test_the_end_of_an_episode_is_a_sensor_and_its_limit_is_not():
    senses = Senses(Shown(box(1), terminates=True))
    senses.reset()
    assert [senses.step(np.zeros(1))[0]["sensors"][-1] for _ in range(2)] == [0.0, 1.0]
    assert senses.reset()[0]["sensors"][-1] == 0.0
    endless = Senses(Shown(box(1)))
    endless.reset()
    assert [endless.step(np.zeros(1))[0]["sensors"][-1] for _ in range(2)] == [0.0, 0.0]


def test_success_has_one_name():
    senses = Senses(Shown(box(1)))
    senses.reset()
    assert senses.step(np.zeros(1))[4]["success"] is True


def test_a_wanted_goal_is_told_and_not_perceived():
    space = spaces.Dict({"observation": box(3), "achieved_goal": box(2), "desired_goal": box(2)})
    env = Shown(space)
    senses = Senses(env)
    seen, info = senses.reset(seed=0)
    assert senses.asks and len(seen["sensors"]) == 3 + 2 + 1
    at = [senses.sensor_names.index(f"achieved_goal[{i}]") for i in range(2)]
    assert seen["sensors"][at].tolist() == env.shown["achieved_goal"].tolist()
    assert info["goal_percept"]["sensors"][at].tolist() == env.shown["desired_goal"].tolist()


def test_what_cannot_be_perceived_is_named():
    with_text = Senses(Shown(spaces.Dict({"x": box(1), "mission": spaces.Text(5)})))
    assert with_text.ignored == ["mission"] and with_text.sensor_names == ("x", "ended")
    with pytest.raises(Unperceivable, match="nothing can be perceived"):
        Senses(Shown(spaces.Text(5)))


@pytest.mark.parametrize(
    ("action", "given", "taken"),
    [
        (spaces.Box(-1, 1, (2, 2), np.float64), np.arange(4, dtype=np.float32) / 4, np.arange(4.0).reshape(2, 2) / 4),
        (spaces.Discrete(3), np.int64(2), 2),
        (spaces.MultiDiscrete([2, 3]), np.array([1, 2]), np.array([1, 2])),
        (spaces.MultiBinary(3), np.array([1, 0, 1]), np.array([1, 0, 1], np.int8)),
    ],
)
def test_actions_reach_the_environment_in_its_own_form(action: spaces.Space, given: Any, taken: Any):
    env = Shown(box(1), action)
    senses = Senses(env)
    senses.reset()
    senses.step(given)
    assert np.array_equal(env.given, taken) and env.given in action


@pytest.mark.parametrize(
    ("action", "says"),
    [
        (spaces.Box(-np.inf, np.inf, (2,), np.float32), "without bounds.*TransformAction"),
        (spaces.Box(np.array([-1.0]), np.array([np.inf]), dtype=np.float64), "without bounds.*TransformAction"),
        (spaces.Dict({"a": box(1)}), "bounded Box.*Discrete"),
        (spaces.Box(0, 5, (1,), np.int64), "bounded Box.*Discrete"),
    ],
)
def test_actions_that_cannot_be_searched_are_refused_with_what_helps(action: spaces.Space, says: str):
    with pytest.raises(Unperceivable, match=says):
        Senses(Shown(box(1), action))
