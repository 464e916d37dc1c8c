"""The promises of known tasks: finite, differentiable, over sensors that exist, and they rank as the reward does."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from envs.names import sensor_names
from envs.tasks import TASKS, known_for, task_of
from modules.actions import BoxActions
from modules.drives import DRIVES, Readings, compose, task_cost
from modules.types import BodySpec, Imagined, State


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """MuJoCo writes its warnings into the current folder."""
    monkeypatch.chdir(tmp_path)


def newest(pattern: str) -> str:
    """An id that a pattern fits."""
    return pattern.replace("[45]", "5").replace("[01]", "1")


@cache
def body_of(env_id: str) -> BodySpec:
    """The body of an environment: its sensors by name, all of them proprio, in the units of the environment."""
    env = gym.make(env_id)
    space = env.action_space
    size = int(space.n) if isinstance(space, spaces.Discrete) else space.shape[0]
    return BodySpec(BoxActions((-1.0,) * size, (1.0,) * size), sensor_names(env))


@cache
def rollout(env_id: str, hold: int = 5, steps: int = 300) -> tuple[Tensor, Tensor, np.ndarray, list[dict[str, Any]]]:
    """Random actions, each held for some steps: observations (H, S), actions (H, A), rewards (H,) and infos."""
    env = gym.make(env_id)
    env.action_space.seed(0)
    env.reset(seed=0)
    discrete, rows = isinstance(env.action_space, spaces.Discrete), []
    action = env.action_space.sample()
    for step in range(steps):
        if step % hold == 0:
            action = env.action_space.sample()
        seen, reward, terminated, truncated, info = env.step(action)
        rows.append((np.array(seen), np.eye(env.action_space.n)[action] if discrete else action, reward, info))
        if terminated or truncated:
            env.reset()
    env.close()
    seen, actions, rewards, infos = zip(*rows, strict=True)
    return torch.tensor(np.array(seen)).float(), torch.tensor(np.array(actions)).float(), np.array(rewards), list(infos)


def cost(name: str, sensors: Tensor, actions: Tensor | None = None) -> Tensor:
    """Sensors (..., H, S), actions (..., H, A) -> (..., H)."""
    states = State(torch.zeros(*sensors.shape[:-1], 1), sensors)
    imagined = Imagined(states, None if actions is None else actions.unsqueeze(-2))
    return TASKS[name].cost(Readings(imagined, body_of(newest(TASKS[name].envs[0]))))


def of(name: str, **readings: float) -> float:
    """The cost of one state by name, everything else 0, with the action 0."""
    body = body_of(newest(TASKS[name].envs[0]))
    assert readings.keys() <= set(body.proprio_names)
    return cost(name, torch.tensor([[readings.get(n, 0.0) for n in body.proprio_names]])).item()


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's, without ties."""
    ranks = [np.argsort(np.argsort(x)) for x in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


@pytest.mark.parametrize("name", TASKS)
def test_costs_are_finite_and_differentiable_on_real_rollouts(name: str):
    sensors, actions, _, _ = rollout(newest(TASKS[name].envs[0]))
    sensors = sensors[:24].view(2, 3, 4, -1).clone().requires_grad_()
    actions = actions[:24].view(2, 3, 4, -1).clone().requires_grad_()
    found = cost(name, sensors, actions)
    assert found.shape == (2, 3, 4) and found.isfinite().all()
    assert found.min() > -1e-3 and found.median() < 2.5
    (by_sensor,) = torch.autograd.grad(found.sum(), sensors, retain_graph=True)
    assert by_sensor.isfinite().all() and (by_sensor.flatten(0, 2) != 0).any(0).any()
    (by_action,) = torch.autograd.grad(found.sum(), actions, allow_unused=True)
    assert by_action is None or by_action.isfinite().all()
    assert cost(name, sensors).isfinite().all(), "states that no action has reached"


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("point", [0.0, 1e3, -1e3])
def test_costs_and_gradients_are_finite_far_from_everything_real(name: str, point: float):
    """A world model may predict anything; only the angle of Pendulum has none where cosine and sine are both 0."""
    body = body_of(newest(TASKS[name].envs[0]))
    sensors = torch.full((1, len(body.proprio_names)), point)
    if name == "pendulum-upright" and point == 0:
        sensors += 1e-6
    sensors.requires_grad_()
    found = cost(name, sensors)
    (gradient,) = torch.autograd.grad(found.sum(), sensors)
    assert found.isfinite().all() and gradient.isfinite().all()


DENSE = {
    "pendulum-upright": 0.9,
    "inverted-double-pendulum-balance": 0.99,
    "reacher-touch": 0.999,
    "pusher-push": 0.999,
    "cheetah-run": 0.9,
    "hopper-run": 0.9,
    "walker-run": 0.9,
    "swimmer-swim": 0.9,
}
"""Least rank correlation with the reward. Pendulum's reward is that of the state before the action; rewards for speed
use the mean over a step, and the sensors show the end of it."""


@pytest.mark.parametrize("name", DENSE)
def test_costs_rank_as_dense_rewards_do(name: str):
    sensors, actions, rewards, _ = rollout(newest(TASKS[name].envs[0]))
    assert rank_correlation(-cost(name, sensors, actions).numpy(), rewards) > DENSE[name]


def test_pendulum_is_its_reward_in_the_state_before():
    sensors, actions, rewards, _ = rollout("Pendulum-v1")
    found = cost("pendulum-upright", sensors[:199], actions[1:200])  # the first episode
    assert torch.allclose(-16.2736 * found, torch.tensor(rewards[1:200]).float(), atol=1e-3)


def test_reacher_and_pusher_are_their_rewards():
    for name in ("reacher-touch", "pusher-push"):
        sensors, actions, rewards, _ = rollout(newest(TASKS[name].envs[0]))
        assert torch.allclose(cost(name, sensors, actions), -torch.tensor(rewards).float(), atol=1e-3)


def test_running_back_is_running_with_the_other_sign():
    sensors, actions, _, infos = rollout("HalfCheetah-v5")
    back = np.array([info["reward_ctrl"] - info["reward_forward"] for info in infos])
    assert rank_correlation(-cost("cheetah-back", sensors, actions).numpy(), back) > 0.9


def rising(*costs: float) -> bool:
    return all(a < b for a, b in pairwise(costs))


def test_pendulum_prefers_upright():
    up, down = {"cos_angle": 1.0}, {"cos_angle": -1.0}
    assert of("pendulum-upright", **up) == pytest.approx(0, abs=1e-6)
    assert rising(of("pendulum-upright", **up), of("pendulum-upright", sin_angle=1.0), of("pendulum-upright", **down))
    assert of("pendulum-upright", cos_angle=-1.0, angular_velocity=8.0) == pytest.approx(1, abs=1e-3)


def test_cartpole_prefers_its_place_with_the_pole_up():
    assert of("cartpole-balance") == 0
    assert rising(*(of("cartpole-balance", angle=math.radians(a)) for a in (0, 1, -6, 12, 30)))
    assert rising(*(of("cartpole-balance", position=p) for p in (0, -0.5, 1, 2.4, -4)))
    for name, side in (("cartpole-left", -1), ("cartpole-right", 1)):
        assert of(name, position=side) == 0
        assert rising(*(of(name, position=side * p) for p in (1, 0.5, 0, -1)))
        assert of(name) < of(name, position=side * 0.5, angle=math.radians(12)), "the way is not worth a fall"


def test_inverted_pendulum_prefers_upright_in_the_middle():
    assert of("inverted-pendulum-balance") == 0
    assert rising(*(of("inverted-pendulum-balance", hinge=a) for a in (0, -0.05, 0.1, 0.2, 1)))
    assert rising(*(of("inverted-pendulum-balance", slider=a) for a in (0, -0.2, 0.5, 1)))


def test_inverted_double_pendulum_is_0_upright_and_half_where_it_ends():
    name = "inverted-double-pendulum-balance"

    def at(first: float, second: float, **more: float) -> float:
        angles = {"hinge": first, "hinge2": second}
        turned = {f"{f}_{k}": getattr(math, f)(a) for k, a in angles.items() for f in ("cos", "sin")}
        return of(name, **turned, **more)

    assert at(0, 0) == pytest.approx(0, abs=1e-5)
    assert rising(at(0, 0), at(0.1, -0.1), at(0.3, 0.1), at(1, 0), at(math.pi, 0))
    ends = math.acos(1 / 1.2)
    tip_x = 1.2 * math.sin(ends)
    assert at(ends, 0, slider=-tip_x) == pytest.approx(0.5, abs=1e-4)
    assert at(0, 0) < at(0, 0, hinge2_velocity=2.0)


def test_acrobot_is_0_above_the_line_and_1_hanging():
    def at(first: float, second: float) -> float:
        angles = {"angle1": first, "angle2": second}
        return of(
            "acrobot-swing-up", **{f"{f}_{k}": getattr(math, f)(a) for k, a in angles.items() for f in ("cos", "sin")}
        )

    assert at(0, 0) == pytest.approx(1) and at(math.pi, 0) == 0
    assert rising(at(math.pi, 0.1) + 1e-9, at(2, 0), at(math.pi / 2, 0), at(0, 1), at(0, 0)) or at(2, 0) == 0
    env: Any = gym.make("Acrobot-v1").unwrapped
    env.reset(seed=0)
    for first, second in np.random.default_rng(0).uniform(-math.pi, math.pi, (200, 2)):
        env.state = np.array([first, second, 0, 0])
        assert (at(first, second) == 0) == env._terminal()


@pytest.mark.parametrize("env_id", ["MountainCarContinuous-v0", "MountainCar-v0"])
def test_mountain_car_falls_on_the_way_of_an_expert(env_id: str):
    """Pushing along the velocity is the known solution: each swing is higher than the last."""
    env = gym.make(env_id)
    seen, rows, ended = env.reset(seed=0)[0], [], False
    while not ended:
        forward = seen[1] >= 0
        seen, _, ended, truncated, _ = env.step(
            (2 if forward else 0) if env_id == "MountainCar-v0" else [2 * forward - 1]
        )
        rows.append(seen)
        assert not truncated
    found = cost("mountain-car-flag", torch.tensor(np.array(rows))).numpy()
    assert found[0] > 0.8 and found[-1] < 0.05 and found.argmin() == len(found) - 1
    early, middle, late = (part.mean() for part in np.array_split(found, 3))
    assert early > middle + 0.1 > late + 0.2


@pytest.mark.parametrize(
    ("name", "speed", "top", "well", "fallen"),
    [
        ("cheetah-run", "rootx_velocity", 10, {}, None),
        ("swimmer-swim", "slider1_velocity", 2, {}, None),
        ("hopper-run", "rootx_velocity", 4, {"rootz": 1.25}, {"rootz": 0.6, "rooty": 0.3}),
        ("walker-run", "rootx_velocity", 5, {"rootz": 1.25}, {"rootz": 0.7, "rooty": 1.2}),
        ("ant-run", "root_velocity_x", 5, {"root_z": 0.6}, {"root_z": 0.1}),
    ],
)
def test_runners_prefer_speed_and_not_to_fall(name: str, speed: str, top: float, well: dict, fallen: dict | None):
    speeds = (2 * top, top, top / 2, 0, -top / 2)
    assert rising(*(of(name, **well, **{speed: v}) for v in speeds))
    assert of(name, **well) == pytest.approx(1 if fallen is None else 0.5, abs=0.01)
    for key, value in (fallen or {}).items():
        assert of(name, **{**well, key: value, speed: top / 2}) > of(name, **well), (
            "standing is better than falling fast"
        )


def test_the_effort_of_a_runner_counts_as_in_the_reward():
    sensors = torch.zeros(1, len(body_of("HalfCheetah-v5").proprio_names))
    rest, full = (cost("cheetah-run", sensors, a).item() for a in (torch.zeros(1, 6), torch.ones(1, 6)))
    metre = (of("cheetah-run") - of("cheetah-run", rootx_velocity=0.01)) / 0.01  # of one m/s
    assert (full - rest) / metre == pytest.approx(0.1 * 6, rel=0.05)


def test_tasks_are_found_by_the_id_of_the_environment():
    assert [task.name for task in known_for("CartPole-v1")] == ["cartpole-balance", "cartpole-left", "cartpole-right"]
    assert [task.name for task in known_for("HalfCheetah-v5")] == ["cheetah-run", "cheetah-back"]
    found = task_of("some.module:Pendulum-v1")
    assert found is not None and found.name == "pendulum-upright"
    assert task_of("PointMaze-v0") is None and known_for("PointMaze-v0") == []
    assert all(task_of(newest(pattern)) is not None for task in TASKS.values() for pattern in task.envs)
    assert all(name == task.name and task.source for name, task in TASKS.items())


@pytest.mark.parametrize("env_id", ["HalfCheetah-v4", "InvertedPendulum-v4", "Reacher-v4", "MountainCar-v0", "Ant-v4"])
def test_a_task_fits_every_environment_that_it_names(env_id: str):
    for task in known_for(env_id):
        body = body_of(env_id)
        states = State(torch.zeros(3, 1), torch.zeros(3, len(body.proprio_names)))
        assert task.cost(Readings(Imagined(states, None), body)).shape == (3,)


def test_only_these_tasks_end_because_they_are_done():
    assert {name for name, task in TASKS.items() if task.ends_well} == {"acrobot-swing-up", "mountain-car-flag"}


def test_a_known_task_is_a_drive(monkeypatch):
    task = TASKS["cartpole-balance"]
    monkeypatch.setitem(DRIVES, task.name, task_cost(task.cost))
    (drive,) = compose([task.name], {}, {}, body_of("CartPole-v1"))
    states = State(torch.zeros(2, 5, 1), torch.zeros(2, 5, 4))
    assert torch.equal(drive(Imagined(states, None), None), torch.zeros(2, 5))
