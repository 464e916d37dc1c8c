"""The promises of names: each name is what it says, in every state; no name is better than a wrong one."""

from __future__ import annotations

import math
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces, wrappers
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv

import envs  # noqa: F401 (registers the worlds of this project)
from envs.names import sensor_names, sensors_of, skipped_positions

CLASSIC = ("Pendulum-v1", "CartPole-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0")
BOTH = ("Ant", "HalfCheetah", "Hopper", "InvertedPendulum", "Swimmer", "Walker2d")
BY_STRUCTURE = (*(f"{name}-v{v}" for name in BOTH for v in (4, 5)), "Humanoid-v5", "HumanoidStandup-v5")
BY_TABLE = ("Reacher-v4", "Reacher-v5", "Pusher-v5", "InvertedDoublePendulum-v4", "InvertedDoublePendulum-v5")
AXES, PARTS = "xyz", "wxyz"
BODIES = {"tip": "tips_arm", "object": "object", "goal": "goal"}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """MuJoCo writes its warnings into the current folder."""
    monkeypatch.chdir(tmp_path)


def truth(env: Any, name: str) -> float:
    """What a name of a MuJoCo sensor says, from MuJoCo's own access by name."""
    data, joints = env.data, {env.model.joint(i).name for i in range(env.model.njnt)}
    stem, _, last = name.rpartition("_")
    if name in joints:
        return data.joint(name).qpos[0]
    if last == "velocity":
        return data.joint(stem).qvel[0]
    if name.startswith("root_velocity_"):
        return data.joint("root").qvel[AXES.index(last)]
    if name.startswith("root_angular_"):
        return data.joint("root").qvel[3 + AXES.index(last)]
    if stem == "root":
        return data.joint("root").qpos[AXES.index(last) if len(last) == 1 else 3 + PARTS.index(last[1])]
    if name.startswith(("cos_", "sin_")):
        return getattr(math, name[:3])(data.joint(name[4:]).qpos[0])
    if name.startswith("fingertip_from_target_"):
        return data.body("fingertip").xpos[AXES.index(last)] - data.body("target").xpos[AXES.index(last)]
    if name.endswith("_constraint_force"):
        return data.qfrc_constraint[env.model.joint(name.removesuffix("_constraint_force")).dofadr[0]]
    if stem in BODIES:
        return data.body(BODIES[stem]).xpos[AXES.index(last)]
    part, _, index = name.removesuffix("]").partition("[")
    return getattr(data, part)[6 if part == "qfrc_actuator" else 1 :].ravel()[int(index)]


@pytest.mark.parametrize("env_id", (*BY_STRUCTURE, *BY_TABLE))
def test_names_of_mujoco_sensors_say_what_the_numbers_are(env_id: str):
    env = gym.make(env_id)
    names, inner = sensor_names(env), env.unwrapped
    assert len(set(names)) == len(names) == env.observation_space.shape[0]
    assert not any(name.startswith("obs[") for name in names)
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    for _ in range(3):
        qpos, qvel = rng.uniform(-0.9, 0.9, inner.model.nq), rng.uniform(-0.9, 0.9, inner.model.nv)
        inner.set_state(qpos, qvel)  # every number of the state is different from every other
        seen = inner._get_obs()
        for number, sensor in zip(seen, sensors_of(env), strict=True):
            limit = 1 if "cfrc_ext" in sensor.name and "Ant" in env_id else 10 if "force" in sensor.name else math.inf
            assert number == pytest.approx(np.clip(truth(inner, sensor.name), -limit, limit), abs=1e-9), sensor.name
            if sensor.state is not None:
                q = qpos[sensor.state]
                shown = q + sensor.offset if sensor.form == "value" else getattr(math, sensor.form)(q)
                assert number == pytest.approx(shown, abs=1e-9), sensor
    env.close()


@pytest.mark.parametrize("env_id", CLASSIC)
def test_sensors_of_classic_control_show_the_numbers_of_the_state(env_id: str):
    env = gym.make(env_id)
    env.reset(seed=1)
    env.action_space.seed(1)
    assert len(set(sensor_names(env))) == env.observation_space.shape[0]
    for _ in range(5):
        seen = env.step(env.action_space.sample())[0]
        for number, sensor in zip(seen, sensors_of(env), strict=True):
            assert sensor.state is not None
            q = env.unwrapped.state[sensor.state]
            assert number == pytest.approx(q if sensor.form == "value" else getattr(math, sensor.form)(q), abs=1e-5)


@pytest.mark.parametrize(
    ("env_id", "place", "speed", "seconds", "new"),
    [
        ("CartPole-v1", "position", "velocity", 0.02, False),
        ("CartPole-v1", "angle", "angular_velocity", 0.02, False),
        ("MountainCar-v0", "position", "velocity", 1, True),
        ("MountainCarContinuous-v0", "position", "velocity", 1, True),
    ],
)
def test_a_velocity_is_the_rate_of_its_place(env_id: str, place: str, speed: str, seconds: float, new: bool):
    """By semi-implicit Euler with the new velocity, by explicit Euler with the old one."""
    env = gym.make(env_id)
    names = sensor_names(env)
    before = env.reset(seed=2)[0]
    env.action_space.seed(2)
    for _ in range(5):
        after = env.step(env.action_space.sample())[0]
        rate = (after if new else before)[names.index(speed)]
        assert after[names.index(place)] - before[names.index(place)] == pytest.approx(rate * seconds, abs=1e-6)
        before = after


@pytest.mark.parametrize(
    ("cos", "sin", "speed", "env_id", "seconds"),
    [
        ("cos_angle", "sin_angle", "angular_velocity", "Pendulum-v1", 0.05),
        ("cos_angle1", "sin_angle1", "angular_velocity1", "Acrobot-v1", 0.2),
        ("cos_angle2", "sin_angle2", "angular_velocity2", "Acrobot-v1", 0.2),
    ],
)
def test_an_angular_velocity_is_the_rate_of_its_angle(cos: str, sin: str, speed: str, env_id: str, seconds: float):
    env = gym.make(env_id)
    read = {name: i for i, name in enumerate(sensor_names(env))}
    before = env.reset(seed=3)[0]
    env.action_space.seed(3)
    for _ in range(5):
        after = env.step(env.action_space.sample())[0]
        turned = math.atan2(after[read[sin]], after[read[cos]]) - math.atan2(before[read[sin]], before[read[cos]])
        rates = sorted((before[read[speed]], after[read[speed]]))
        assert rates[0] * seconds - 0.06 <= turned <= rates[1] * seconds + 0.06
        before = after


def test_names_of_the_cheetah():
    assert sensor_names(gym.make("HalfCheetah-v5"))[:10] == (
        *("rootz", "rooty", "bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot"),
        *("rootx_velocity", "rootz_velocity"),
    )
    env = gym.make("HalfCheetah-v5", exclude_current_positions_from_observation=False)
    assert sensor_names(env)[:2] == ("rootx", "rootz") and skipped_positions(env) == 0


def test_names_of_the_lunar_lander():
    pytest.importorskip("Box2D", reason="needs box2d: pip install 'gymnasium[box2d]'")
    assert sensor_names(gym.make("LunarLander-v3"))[:3] == ("x", "y", "velocity_x")


def test_names_of_a_point_maze_of_gymnasium_robotics():
    robotics = pytest.importorskip("gymnasium_robotics", reason="needs gymnasium-robotics")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gym.register_envs(robotics)
        env = gym.make("PointMaze_UMaze-v3")
    seen = env.reset(seed=0)[0]
    assert sensor_names(env, "observation") == ("x", "y", "velocity_x", "velocity_y")
    assert sensor_names(env, "achieved_goal") == ("achieved_x", "achieved_y")
    assert sensor_names(env, "desired_goal") == ("desired_x", "desired_y")
    inner: Any = env.unwrapped
    assert np.array_equal(seen["observation"], [*inner.data.qpos, *inner.data.qvel])
    assert np.array_equal(seen["achieved_goal"], inner.data.qpos)
    assert np.array_equal(seen["desired_goal"], inner.goal)
    env.close()


def test_worlds_of_this_project_keep_the_names_of_their_proprio():
    assert sensor_names(gym.make("PointMaze-v0")) == ("x", "y", "vx", "vy")
    assert sensor_names(gym.make("PointMaze-v0", pixels=True), "sensors") == ("x", "y", "vx", "vy")


class Swapped(gym.ObservationWrapper):
    """Another order in the same space, which only the type of the wrapper gives away."""

    def observation(self, observation: Any) -> Any:
        return observation[::-1]


class Named(gym.Env):
    """Unknown, with a Dict observation."""

    observation_space = spaces.Dict(
        {
            "observation": spaces.Box(-1, 1, (3,)),
            "achieved_goal": spaces.Box(-1, 1, (2,)),
            "picture": spaces.Discrete(2),
        }
    )
    action_space = spaces.Box(-1, 1, (1,))

    def step(self, action: Any) -> Any: ...


PLAIN = tuple(f"obs[{i}]" for i in range(17))


@pytest.mark.parametrize(
    "wrap",
    [
        Swapped,
        wrappers.TimeAwareObservation,
        wrappers.NormalizeObservation,
        lambda env: wrappers.DelayObservation(env, 1),
        lambda env: wrappers.TransformObservation(env, lambda x: x[::-1], env.observation_space),
        lambda env: wrappers.TimeLimit(Swapped(env), 5),
    ],
)
def test_a_wrapper_that_may_change_observations_leaves_numbers_only(wrap: Any):
    env = wrap(gym.make("HalfCheetah-v5"))
    size = env.observation_space.shape[0]
    assert sensor_names(env) == tuple(f"obs[{i}]" for i in range(size))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda env: wrappers.TimeLimit(env, 7),
        lambda env: wrappers.RescaleAction(env, -2, 2),
        lambda env: wrappers.TransformReward(env, lambda r: 0.0),
        wrappers.RecordEpisodeStatistics,
    ],
)
def test_other_wrappers_leave_the_names(wrap: Any):
    env = gym.make("HalfCheetah-v5")
    assert sensor_names(wrap(env)) == sensor_names(env)


def test_a_subclass_keeps_the_names_unless_it_makes_the_observation():
    class OtherReward(HalfCheetahEnv):
        def _get_rew(self, x_velocity: float, action: Any) -> Any:
            return 0.0, {}

    class OtherObservation(HalfCheetahEnv):
        def _get_obs(self) -> Any:
            return super()._get_obs()[::-1]

    class OtherPole(CartPoleEnv):
        def step(self, action: Any) -> Any:
            seen, *rest = super().step(action)
            return seen[::-1], *rest

    assert sensor_names(OtherReward())[0] == "rootz"
    assert sensor_names(OtherObservation()) == PLAIN
    assert sensor_names(OtherPole()) == PLAIN[:4]


def test_unknown_observations_have_numbers_for_names():
    assert sensor_names(Named(), "observation") == ("observation[0]", "observation[1]", "observation[2]")
    assert sensor_names(Named(), "achieved_goal") == ("achieved_goal[0]", "achieved_goal[1]")
    assert sensor_names(gym.make("HalfCheetah-v5"), size=5) == PLAIN[:5]
    assert sensor_names(Named(), "picture", size=2) == ("picture[0]", "picture[1]")


def test_what_has_no_row_of_numbers_is_refused():
    with pytest.raises(ValueError, match="not one-dimensional"):
        sensor_names(Named())
    with pytest.raises(ValueError, match="no part 'pixels'"):
        sensor_names(Named(), "pixels")
    with pytest.raises(ValueError, match="not one-dimensional"):
        sensor_names(gym.make("TwoRooms-v0"))
