"""Worlds as the agent meets them: what can be sensed and done there, whoever simulates it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from agent.errors import UserError, nearest
from envs import SIMULATORS, SimEnv, Simulator
from modules.perception import Senses
from modules.types import ActionSpace, Observation


def make_simulator(env_id: str, options: Mapping[str, Any]) -> Simulator:
    """The simulator behind a world of this project."""
    if env_id not in SIMULATORS:
        raise UserError(f"no world {env_id!r}{nearest(env_id, SIMULATORS)}; the worlds are {', '.join(SIMULATORS)}")
    try:
        return SIMULATORS[env_id](**options)
    except (TypeError, ValueError) as error:
        raise UserError(f"world {env_id} cannot be made with options {options}: {error}") from error


@dataclass(frozen=True)
class OpenWorld:
    """A world as the agent meets it."""

    senses: Senses
    actions: ActionSpace
    simulator: Simulator | None
    """None for a foreign Gymnasium environment: it can be learned from, but it offers no tasks to evaluate."""
    make: Callable[[], gym.Env] | None = None
    """How to make one copy of a foreign environment."""


def open_world(env_id: str, options: Mapping[str, Any]) -> OpenWorld:
    """A world of this project, one registered by `envs.register`, or any Gymnasium id with Box spaces."""
    if env_id in SIMULATORS:
        simulator = make_simulator(env_id, options)
        return OpenWorld(senses_of(simulator), actions_of(simulator), simulator)
    known = [*SIMULATORS, *gym.registry]
    try:
        env = gym.make(env_id, **options)
    except gym.error.Error as error:
        raise UserError(f"no world {env_id!r}{nearest(env_id, known)}: {error}") from error
    except (ImportError, TypeError, ValueError) as error:
        raise UserError(f"world {env_id!r} cannot be made with options {dict(options)}: {error}") from error
    if isinstance(env.unwrapped, SimEnv):
        simulator = env.unwrapped.simulator
        return OpenWorld(senses_of(simulator), actions_of(simulator), simulator)
    action, seen = env.action_space, env.observation_space
    env.close()
    if not isinstance(action, gym.spaces.Box) or len(action.shape) != 1 or not action.is_bounded():
        raise UserError(f"world {env_id} has actions {action}; this agent acts in a bounded one-dimensional Box")
    spaces = dict(seen) if isinstance(seen, gym.spaces.Dict) else {"": seen}
    pixels = next((s for s in spaces.values() if s.dtype == np.uint8 and len(s.shape or ()) == 3), None)
    sensors = next((s for s in spaces.values() if s.dtype != np.uint8 and len(s.shape or ()) == 1), None)
    boxes = all(isinstance(s, gym.spaces.Box) for s in spaces.values())
    if not boxes or (pixels is None and sensors is None) or not ({*spaces} <= {"", "pixels", "sensors"}):
        raise UserError(
            f"world {env_id} has observations {seen}; this agent perceives a Box of uint8 pixels (channels, rows, "
            "columns), a one-dimensional Box of numbers, or a Dict of both named 'pixels' and 'sensors'"
        )
    box = sensors if isinstance(sensors, gym.spaces.Box) else None
    senses = Senses(
        pixel_shape=None if pixels is None or pixels.shape is None else tuple(pixels.shape),  # type: ignore[arg-type]
        sensor_low=() if box is None else tuple(float(x) for x in box.low),
        sensor_high=() if box is None else tuple(float(x) for x in box.high),
    )
    limits = ActionSpace(tuple(float(x) for x in action.low), tuple(float(x) for x in action.high))
    return OpenWorld(senses, limits, None, lambda: gym.make(env_id, **options))


def senses_of(simulator: Simulator) -> Senses:
    """What perception needs to know of a world."""
    low, high = simulator.sensor_low, simulator.sensor_high
    proprio = simulator.proprio
    return Senses(
        pixel_shape=simulator.pixel_shape,
        sensor_low=() if low is None else tuple(float(x) for x in low),
        sensor_high=() if high is None else tuple(float(x) for x in high),
        proprio_names=tuple(s.name for s in proprio),
        proprio_index=tuple(s.index for s in proprio),
        proprio_offset=tuple(s.offset for s in proprio),
        proprio_scale=tuple(s.scale for s in proprio),
        goal_proprio=tuple(i for i, s in enumerate(proprio) if s.is_goal),
    )


def actions_of(simulator: Simulator) -> ActionSpace:
    """The action space as the modules see it."""
    low, high = (tuple(float(x) for x in a) for a in (simulator.action_low, simulator.action_high))
    return ActionSpace(low, high, simulator.action_max_norm)


def as_tensors(percepts: Any) -> Observation:
    """An observation in Gymnasium's form (array, or dict of `pixels` and `sensors`), batched, as tensors."""
    if isinstance(percepts, dict):
        pixels, sensors = percepts.get("pixels"), percepts.get("sensors")
    else:
        array = np.asarray(percepts)
        pixels, sensors = (array, None) if array.dtype == np.uint8 and array.ndim >= 3 else (None, array)
    return Observation(
        None if pixels is None else torch.from_numpy(np.ascontiguousarray(pixels)),
        None if sensors is None else torch.from_numpy(np.ascontiguousarray(sensors, np.float32)),
    )
