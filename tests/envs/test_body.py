"""The promises of the body: a picture of an observation is the frame of the environment that gave it."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from gymnasium import wrappers

import envs  # noqa: F401 (registers the worlds of this project)
from envs.body import body_of, frame

MUJOCO = ("HalfCheetah-v5", "InvertedPendulum-v5", "InvertedDoublePendulum-v5", "Reacher-v5", "Pusher-v5", "Ant-v5")
CLASSIC = ("Pendulum-v1", "CartPole-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0")


@pytest.fixture(autouse=True)
def headless(tmp_path, monkeypatch):
    """As run_agent.py; and MuJoCo writes its warnings into the current folder."""
    monkeypatch.chdir(tmp_path)
    if sys.platform == "linux":
        monkeypatch.setenv("MUJOCO_GL", "egl")
        monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


@contextmanager
def made(env_id: str, **options: Any) -> Iterator[gym.Env]:
    """Small frames, and closed at the end. Skipped where nothing can be rendered."""
    if env_id not in CLASSIC:
        options = {"width": 96, "height": 96, **options}
    env = gym.make(env_id, render_mode="rgb_array", **options)
    env.reset(seed=0)
    env.action_space.seed(0)
    try:
        env.render()
    except Exception as error:
        pytest.skip(f"nothing can be rendered here: {error}")
    yield env
    env.close()


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference of two pictures."""
    assert a.shape == b.shape and a.dtype == b.dtype == np.uint8
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


def skipped_of(env: gym.Env, count: int) -> np.ndarray:
    data: Any = getattr(env.unwrapped, "data", None)
    return data.qpos[:count].copy() if count else np.zeros(0)


@pytest.mark.parametrize("env_id", (*MUJOCO, *CLASSIC))
def test_a_picture_of_an_observation_is_the_frame(env_id: str):
    with made(env_id) as real, made(env_id) as other:
        inner: Any = real.unwrapped
        body = body_of(other)
        assert body is not None
        seen = real.reset(seed=1)[0]
        first = frame(real)
        assert apart(frame(real), body.picture(seen, skipped_of(real, body.skipped))) == 0
        for _ in range(12):
            seen = real.step(real.action_space.sample())[0]
        picture, shown = body.picture(seen, skipped_of(real, body.skipped)), frame(real)
        assert apart(shown, first) > 0, "the real environment has moved"
        assert apart(shown, picture) < 2
        if env_id in MUJOCO:  # its frame is one physics step behind its observation
            mujoco.mj_forward(inner.model, inner.data)  # pyright: ignore[reportAttributeAccessIssue]
            shown = frame(real)
        elif env_id == "Pendulum-v1":  # its frame shows the torque, its observation does not
            inner.last_u = None
            shown = frame(real)
        assert apart(shown, picture) == 0


def test_a_pose_comes_back_from_its_sines_and_its_offsets():
    for env_id in ("Reacher-v5", "Pusher-v5", "InvertedDoublePendulum-v5"):
        env: Any = gym.make(env_id, render_mode="rgb_array")
        body = body_of(env)
        assert body is not None
        env.reset(seed=0)
        qpos = np.random.default_rng(0).uniform(-0.9, 0.9, env.unwrapped.model.nq)
        env.unwrapped.set_state(qpos, np.zeros(env.unwrapped.model.nv))
        assert np.allclose(body.state(env.unwrapped._get_obs()), qpos, atol=1e-12)
        env.close()


def test_imagined_sines_and_cosines_need_not_fit_each_other():
    env = gym.make("Pendulum-v1", render_mode="rgb_array")
    body = body_of(env)
    assert body is not None
    assert body.state([0.5, 0.5, 3.0]) == pytest.approx([math.pi / 4, 3.0])
    assert body.state([-0.3, 0.0, 0.0])[0] == pytest.approx(math.pi)
    upright = body.picture([1.0, 0.0, 0.0])
    env.reset(seed=0)
    env.step(np.ones(1, np.float32))
    assert apart(upright, body.picture([2.0, 0.0, 5.0])) == 0, "neither before the first reset nor later by a torque"
    env.close()


def test_skipped_positions_are_given_or_zero():
    env = gym.make("HalfCheetah-v5", render_mode="rgb_array")
    body = body_of(env)
    assert body is not None and body.skipped == 1
    readings = np.arange(1.0, 18.0)
    assert body.state(readings).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert body.state(readings, [9.5])[0] == 9.5
    with pytest.raises(ValueError, match="17 readings and 1 skipped"):
        body.state(readings[:5])
    with pytest.raises(ValueError, match="17 readings and 1 skipped"):
        body.state(readings, [1.0, 2.0])
    env.close()


def test_pictures_do_not_depend_on_those_before():
    with made("InvertedPendulum-v5") as env:
        body = body_of(env)
        assert body is not None
        left, right = [-0.5, 0.1, 0, 0], [0.5, -0.1, 0, 0]
        once = body.picture(left)
        assert apart(once, body.picture(right)) > 0.1 and apart(once, body.picture(left)) == 0
        body.picture(right)
        assert apart(once, body.picture([-0.5, 0.1, 7, 7])) == 0, "velocities do not show"
        kept = once.copy()
        body.picture(right)
        assert apart(once, kept) == 0, "a picture is an array of its own"


def test_frames_are_right_while_several_environments_render_in_turn():
    with made("Reacher-v5") as one:
        alone = frame(one)
        with made("InvertedPendulum-v5") as two:
            other = frame(two)
            assert apart(frame(one), alone) == 0 and apart(frame(two), other) == 0


def test_a_point_maze_of_gymnasium_robotics_is_posed_by_its_observation():
    robotics = pytest.importorskip("gymnasium_robotics", reason="needs gymnasium-robotics")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gym.register_envs(robotics)
    with made("PointMaze_UMaze-v3") as real, made("PointMaze_UMaze-v3") as other:
        body = body_of(other, "observation")
        assert body is not None and body_of(other) is None and body_of(other, "desired_goal") is None
        seen, _ = real.reset(seed=0)
        for _ in range(20):
            seen = real.step(np.ones(2, np.float32))[0]
        assert apart(frame(real), body.picture(seen["observation"])) < 2


def test_no_body_where_the_observation_does_not_determine_the_pose():
    for env in (
        gym.make("TwoRooms-v0", render_mode="rgb_array"),
        gym.make("PointMaze-v0", render_mode="rgb_array"),
        wrappers.TimeAwareObservation(gym.make("HalfCheetah-v5", render_mode="rgb_array")),
        wrappers.AddRenderObservation(gym.make("Pendulum-v1", render_mode="rgb_array"), render_only=True),
    ):
        env.reset(seed=0)
        assert body_of(env) is None
        env.close()


def test_an_environment_that_does_not_render_is_refused():
    with pytest.raises(ValueError, match="render_mode='rgb_array'"):
        body_of(gym.make("Pendulum-v1"))
