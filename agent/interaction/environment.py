"""Environments as the agent meets them: a spec, copies to step, and whatever else this environment can do.

Only `spec` and `make` are required. Each consumer names the capability that it needs and degrades without it: without
goals there are no tasks to evaluate, without truth no oracles, without a view no map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from agent.errors import UserError, nearest
from agent.spec import NAMES, EnvSpec, is_picture
from envs import SIMULATORS, SimEnv, Simulator, SimVectorEnv, packages
from envs.api import Expert, Factors, Goals, Scenes, View
from modules.actions import BoxActions
from modules.types import ObservationSpec


@dataclass(frozen=True)
class Environment:
    """An environment and its capabilities."""

    name: str
    spec: EnvSpec
    make: Callable[[int], VectorEnv]
    """N copies: ours are stepped as arrays, others by Gymnasium."""
    truth: Simulator | None = None
    """The laws themselves, over arrays of physical states: for oracles and diagnosis."""
    goals: Goals | None = None
    """Tasks and their success test."""
    scenes: Scenes | None = None
    """Different scenes, and a reset that stays in one."""
    expert: Expert | None = None
    """Reference controllers."""
    view: View | None = None
    """A map; without it there are only observations to look at."""
    factors: Factors | None = None
    """Labels for probes."""

    @property
    def has_scenes(self) -> bool:
        """Whether resets draw different scenes."""
        return self.scenes is not None and self.scenes.has_scenes


def open_environment(env_id: str, options: Mapping[str, Any]) -> Environment:
    """An environment of this project, one registered by `envs.register`, or any Gymnasium id with Box spaces.

    Args:
        env_id: `Id-v0`, or `module:Id-v0` where importing the module registers it.
        options: of its constructor.

    Raises:
        UserError: there is no such environment, it cannot be made, or the agent cannot perceive it or act in it.
    """
    if env_id in SIMULATORS:
        return of_simulator(env_id, make_simulator(env_id, options))
    try:
        env = packages.make(env_id, **options)
    except (gym.error.DependencyNotInstalled, ModuleNotFoundError) as error:
        raise UserError(f"environment {env_id!r} cannot be made: {packages.install_hint(error)}") from error
    except gym.error.Error as error:
        known = [*SIMULATORS, *gym.registry]
        raise UserError(f"no environment {env_id!r}{nearest(env_id, known)}: {error}") from error
    except (ImportError, TypeError, ValueError) as error:
        raise UserError(f"environment {env_id!r} cannot be made with options {dict(options)}: {error}") from error
    inner = env.unwrapped
    env.close()
    if isinstance(inner, SimEnv):
        return of_simulator(env_id, inner.simulator)
    spec = spec_of_spaces(env_id, env.observation_space, env.action_space)
    return Environment(env_id, spec, partial(_make_gymnasium, env_id, dict(options)))


def make_simulator(env_id: str, options: Mapping[str, Any]) -> Simulator:
    """The simulator behind an environment of this project."""
    if env_id not in SIMULATORS:
        known = ", ".join(SIMULATORS)
        raise UserError(f"no environment {env_id!r}{nearest(env_id, SIMULATORS)}; this project's own are {known}")
    try:
        return SIMULATORS[env_id](**options)
    except (TypeError, ValueError) as error:
        raise UserError(f"environment {env_id} cannot be made with options {options}: {error}") from error


def of_simulator(name: str, simulator: Simulator) -> Environment:
    """A simulator with all capabilities that it has."""
    return Environment(
        name,
        EnvSpec(_observation_of(simulator), _actions_of(simulator)),
        partial(SimVectorEnv, simulator),
        truth=simulator,
        goals=simulator if isinstance(simulator, Goals) else None,
        scenes=simulator if isinstance(simulator, Scenes) else None,
        expert=simulator if isinstance(simulator, Expert) else None,
        view=simulator if isinstance(simulator, View) else None,
        factors=simulator if isinstance(simulator, Factors) else None,
    )


def spec_of_spaces(env_id: str, observation: gym.Space, action: gym.Space) -> EnvSpec:
    """The spec of a Gymnasium environment. UserError for spaces that the agent cannot perceive or act in."""
    if not isinstance(action, gym.spaces.Box) or len(action.shape) != 1 or not action.is_bounded():
        raise UserError(f"environment {env_id} has actions {action}; this agent acts in a bounded one-dimensional Box")
    spaces = dict(observation) if isinstance(observation, gym.spaces.Dict) else {"": observation}
    pixels = next((s for s in spaces.values() if is_picture(s) and len(s.shape or ()) == 3), None)
    sensors = next((s for s in spaces.values() if s.dtype != np.uint8 and len(s.shape or ()) == 1), None)
    boxes = all(isinstance(s, gym.spaces.Box) for s in spaces.values())
    if not boxes or (pixels is None and sensors is None) or not ({*spaces} <= {"", *NAMES}):
        raise UserError(
            f"environment {env_id} has observations {observation}; this agent perceives a Box of uint8 pixels "
            "(channels, rows, columns), a one-dimensional Box of numbers, or a Dict of both as pixels and sensors"
        )
    box = sensors if isinstance(sensors, gym.spaces.Box) else None
    shape: Any = None if pixels is None else pixels.shape
    seen = ObservationSpec(
        pixel_shape=None if shape is None else tuple(shape),
        sensor_low=() if box is None else tuple(float(x) for x in box.low),
        sensor_high=() if box is None else tuple(float(x) for x in box.high),
    )
    limits = BoxActions(tuple(float(x) for x in action.low), tuple(float(x) for x in action.high))
    return EnvSpec(seen, limits)


def _make_gymnasium(env_id: str, options: dict[str, Any], count: int) -> VectorEnv:
    return SyncVectorEnv([partial(packages.make, env_id, **options)] * count, autoreset_mode=AutoresetMode.NEXT_STEP)


def _observation_of(simulator: Simulator) -> ObservationSpec:
    low, high = simulator.sensor_low, simulator.sensor_high
    proprio = getattr(simulator, "proprio", ())
    return ObservationSpec(
        pixel_shape=simulator.pixel_shape,
        sensor_low=() if low is None else tuple(float(x) for x in low),
        sensor_high=() if high is None else tuple(float(x) for x in high),
        proprio_names=tuple(p.name for p in proprio),
        proprio_index=tuple(p.index for p in proprio),
        proprio_offset=tuple(p.offset for p in proprio),
        proprio_scale=tuple(p.scale for p in proprio),
        goal_proprio=tuple(i for i, p in enumerate(proprio) if p.is_goal),
    )


def _actions_of(simulator: Simulator) -> BoxActions:
    low, high = (tuple(float(x) for x in a) for a in (simulator.action_low, simulator.action_high))
    return BoxActions(low, high, getattr(simulator, "action_max_norm", None))
