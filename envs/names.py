"""Names for the numbers of an observation, so that the cost of a task can be written in words (`envs/tasks.py`).

Gymnasium describes its observations in prose only. Here are tables for classic control and for those MuJoCo
environments that need one; the others follow from Gymnasium's `observation_structure` and the joint names of the model.
Where nothing is known, or a wrapper may have changed the observation, the names are `obs[0]`, `obs[1]`, ...: no name is
better than a wrong one.

Shapes: S numbers of an observation, Q numbers of the physical state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium as gym
from gymnasium import spaces, wrappers

from envs.gym_env import SimEnv


@dataclass(frozen=True)
class Sensor:
    """One number of an observation."""

    name: str
    state: int | None = None
    """Which number of the physical state it shows: an index into `qpos` in MuJoCo, into `state` in classic control.
    None for whatever a picture does not need: velocities of MuJoCo, forces, positions that follow from others."""
    form: Literal["value", "cos", "sin"] = "value"
    """Whether it is that number itself, or a function of it."""
    offset: float = 0.0
    """Added to the number of the state (values only)."""


def sensor_names(env: gym.Env, key: str = "", size: int | None = None) -> tuple[str, ...]:
    """A unique name for each number of a one-dimensional observation.

    Args:
        env: any Gymnasium environment, with or without wrappers.
        key: which part of a Dict observation; empty for a Box.
        size: S, where the observation space does not say it or says something else.

    Returns:
        (S,) names. The same environment has the same names in every session.

    Raises:
        ValueError: size is not given, and the observation is not one-dimensional.
    """
    return tuple(sensor.name for sensor in sensors_of(env, key, size))


def sensors_of(env: gym.Env, key: str = "", size: int | None = None) -> tuple[Sensor, ...]:
    """As `sensor_names`, each with the number of the physical state that it shows."""
    shape = _space(env, key).shape
    if size is None:
        if shape is None or len(shape) != 1:
            what = f"the part {key!r} of the observation" if key else "the observation"
            raise ValueError(f"{what} of {env} is not one-dimensional: {_space(env, key)}")
        size = shape[0]
    known = _known(env.unwrapped, key) if shape == (size,) and _as_made(env) else ()
    if len(known) == size and len({sensor.name for sensor in known}) == size:
        return tuple(known)
    return tuple(Sensor(f"{key or 'obs'}[{i}]") for i in range(size))


def skipped_positions(env: gym.Env) -> int:
    """How many of the first numbers of `qpos` the observation leaves out on purpose (the way that was run, say)."""
    return (_structure(env.unwrapped) or {}).get("skipped_qpos", 0)


HARMLESS = (
    gym.ActionWrapper,
    gym.RewardWrapper,
    wrappers.Autoreset,
    wrappers.HumanRendering,
    wrappers.NormalizeReward,
    wrappers.OrderEnforcing,
    wrappers.PassiveEnvChecker,
    wrappers.RecordEpisodeStatistics,
    wrappers.RecordVideo,
    wrappers.RenderCollection,
    wrappers.RepeatAction,
    wrappers.TimeLimit,
)
"""Wrappers that return observations as they are."""


def _as_made(env: gym.Env) -> bool:
    """Whether the observation is that of the innermost environment.

    The spaces alone do not decide: a wrapper may permute or rescale the numbers and keep the space.
    """
    seen: gym.Env = env
    while isinstance(seen, gym.Wrapper):
        if not isinstance(seen, HARMLESS):
            return False
        seen = seen.env
    return env.observation_space == env.unwrapped.observation_space


def _space(env: gym.Env, key: str) -> spaces.Space:
    if not key:
        return env.observation_space
    if not isinstance(env.observation_space, spaces.Dict) or key not in env.observation_space.spaces:
        raise ValueError(f"no part {key!r} in the observation of {env}: {env.observation_space}")
    return env.observation_space[key]


def _known(inner: gym.Env, key: str) -> Sequence[Sensor]:
    """The sensors of an environment without wrappers; empty for one that is not known."""
    if isinstance(inner, SimEnv):
        return _of_simulator(inner) if key in ("", "sensors") else ()
    table = TABLES.get(_made_in(inner), {})
    if key in table:
        return table[key]
    return tuple(_of_structure(inner)) if not key else ()


def _made_in(inner: gym.Env) -> str:
    """The module whose code makes the observation.

    A subclass elsewhere that leaves that function alone has the names of its parent; one that replaces it has none.
    """
    methods = (getattr(type(inner), name, None) for name in ("_get_obs", "_get_ob", "step"))
    return next(method.__module__ for method in methods if method is not None)


# Environments of this project


def _of_simulator(env: SimEnv) -> tuple[Sensor, ...]:
    """The names that a Simulator gives its proprio; its other sensors have none."""
    low = env.simulator.sensor_low
    names = {p.index: p.name for p in getattr(env.simulator, "proprio", ())}
    return tuple(Sensor(names.get(i, f"obs[{i}]")) for i in range(0 if low is None else len(low)))


# MuJoCo environments that list the positions and then the velocities of their joints

_SKIPPED_V4 = {"ant": 2, "half_cheetah": 1, "hopper": 1, "inverted_pendulum": 0, "swimmer": 2, "walker2d": 1}
"""Gymnasium's v4 environments observe as v5 and do not say so: how many positions they leave out by default."""


def _structure(inner: gym.Env) -> Mapping[str, int] | None:
    """Sizes of the parts of an observation in their order, as Gymnasium's v5 environments state them, or None."""
    made_in = _made_in(inner)
    structure = getattr(inner, "observation_structure", None)
    if structure is not None:
        # A subclass that replaces _get_obs inherits a structure that describes the observation of its parent.
        own = made_in == type(inner).__init__.__module__ or made_in.startswith("gymnasium.envs.mujoco.")
        return structure if own else None
    name, _, version = made_in.rpartition(".")[2].rpartition("_")
    if made_in.startswith("gymnasium.envs.mujoco.") and version == "v4" and name in _SKIPPED_V4:
        model: Any = getattr(inner, "model")  # noqa: B009 (every MuJoCo environment has one; gym.Env has not)
        skipped = _SKIPPED_V4[name] if getattr(inner, "_exclude_current_positions_from_observation", False) else 0
        return {"skipped_qpos": skipped, "qpos": model.nq - skipped, "qvel": model.nv}
    return None


def _of_structure(inner: gym.Env) -> Iterator[Sensor]:
    """Positions and velocities by joint; the other parts by number, `cfrc_ext[12]`."""
    structure, model = _structure(inner), getattr(inner, "model", None)
    if structure is None or model is None:
        return
    positions, velocities = _joints(model)
    skipped = structure.get("skipped_qpos", 0)
    for part, size in structure.items():
        if part == "skipped_qpos":
            continue
        if part == "qpos":
            yield from (Sensor(positions[i], i) for i in range(skipped, skipped + size))
        elif part == "qvel":
            yield from (Sensor(velocities[i]) for i in range(size))
        else:
            yield from (Sensor(f"{part}[{i}]") for i in range(size))


_FREE, _BALL = 0, 1  # mujoco.mjtJoint; hinges and slides have one position and one velocity


def _joints(model: Any) -> tuple[list[str], list[str]]:
    """Names of all of `qpos`, (nq,), and of all of `qvel`, (nv,), of an MjModel.

    A free joint's linear velocity is that in the world, its angular velocity that about the axes of the body.
    """
    positions: list[str] = []
    velocities: list[str] = []
    for i in range(model.njnt):
        name, kind = model.joint(i).name or f"joint[{i}]", int(model.jnt_type[i])
        if kind == _FREE:
            positions += [f"{name}_{axis}" for axis in "xyz"]
            velocities += [f"{name}_velocity_{axis}" for axis in "xyz"]
        if kind in (_FREE, _BALL):
            positions += [f"{name}_q{part}" for part in "wxyz"]
            velocities += [f"{name}_angular_{axis}" for axis in "xyz"]
        else:
            positions.append(name)
            velocities.append(f"{name}_velocity")
    return positions, velocities


# Tables. Each was read off the source of Gymnasium, and tests/envs/test_names.py checks every line by number.


def _values(*names: str) -> tuple[Sensor, ...]:
    """An observation that is the state itself."""
    return tuple(Sensor(name, i) for i, name in enumerate(names))


_CAR = _values("position", "velocity")
_ARM = ("shoulder_pan", "shoulder_lift", "upper_arm_roll", "elbow_flex", "forearm_roll", "wrist_flex", "wrist_roll")
_REACHER = (
    Sensor("cos_joint0", 0, "cos"),
    Sensor("cos_joint1", 1, "cos"),
    Sensor("sin_joint0", 0, "sin"),
    Sensor("sin_joint1", 1, "sin"),
    Sensor("target_x", 2),
    Sensor("target_y", 3),
    Sensor("joint0_velocity"),
    Sensor("joint1_velocity"),
    # The vector from the target to the fingertip.
    Sensor("fingertip_from_target_x"),
    Sensor("fingertip_from_target_y"),
)
_PUSHER = (
    *(Sensor(f"r_{name}_joint", i) for i, name in enumerate(_ARM)),
    *(Sensor(f"r_{name}_joint_velocity") for name in _ARM),
    *(Sensor(f"tip_{axis}") for axis in "xyz"),
    # Both slide along y first; their bodies stand at (0.45, -0.05) in the model file, and slides count from there.
    Sensor("object_x", 8, offset=0.45),
    Sensor("object_y", 7, offset=-0.05),
    Sensor("object_z"),
    Sensor("goal_x", 10, offset=0.45),
    Sensor("goal_y", 9, offset=-0.05),
    Sensor("goal_z"),
)
_DOUBLE_PENDULUM = (
    Sensor("slider", 0),
    Sensor("sin_hinge", 1, "sin"),
    Sensor("sin_hinge2", 2, "sin"),
    Sensor("cos_hinge", 1, "cos"),
    Sensor("cos_hinge2", 2, "cos"),
    Sensor("slider_velocity"),
    Sensor("hinge_velocity"),
    Sensor("hinge2_velocity"),
    Sensor("slider_constraint_force"),
)

TABLES: Mapping[str, Mapping[str, tuple[Sensor, ...]]] = {
    "gymnasium.envs.classic_control.pendulum": {
        "": (Sensor("cos_angle", 0, "cos"), Sensor("sin_angle", 0, "sin"), Sensor("angular_velocity", 1))
    },
    "gymnasium.envs.classic_control.cartpole": {"": _values("position", "velocity", "angle", "angular_velocity")},
    "gymnasium.envs.classic_control.mountain_car": {"": _CAR},
    "gymnasium.envs.classic_control.continuous_mountain_car": {"": _CAR},
    "gymnasium.envs.classic_control.acrobot": {
        "": (
            Sensor("cos_angle1", 0, "cos"),
            Sensor("sin_angle1", 0, "sin"),
            Sensor("cos_angle2", 1, "cos"),
            Sensor("sin_angle2", 1, "sin"),
            Sensor("angular_velocity1", 2),
            Sensor("angular_velocity2", 3),
        )
    },
    "gymnasium.envs.box2d.lunar_lander": {
        "": tuple(
            Sensor(name)
            for name in ("x", "y", "velocity_x", "velocity_y", "angle", "angular_velocity", "left_leg", "right_leg")
        )
    },
    "gymnasium.envs.mujoco.reacher_v5": {"": _REACHER},
    "gymnasium.envs.mujoco.reacher_v4": {"": (*_REACHER, Sensor("fingertip_from_target_z"))},
    "gymnasium.envs.mujoco.pusher_v5": {"": _PUSHER},
    "gymnasium.envs.mujoco.inverted_double_pendulum_v5": {"": _DOUBLE_PENDULUM},
    "gymnasium.envs.mujoco.inverted_double_pendulum_v4": {
        "": (*_DOUBLE_PENDULUM, Sensor("hinge_constraint_force"), Sensor("hinge2_constraint_force"))
    },
    "gymnasium_robotics.envs.maze.point_maze": {
        "observation": (Sensor("x", 0), Sensor("y", 1), Sensor("velocity_x"), Sensor("velocity_y")),
        "achieved_goal": (Sensor("achieved_x", 0), Sensor("achieved_y", 1)),
        "desired_goal": (Sensor("desired_x"), Sensor("desired_y")),
    },
}
"""Sensors by the module that makes the observation, then by key of the observation; an empty key for a Box."""
