"""The worlds. Importing this package registers them with Gymnasium."""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium as gym

from envs.api import Simulator
from envs.gym_env import SimEnv, SimVectorEnv
from envs.point_maze import PointMaze
from envs.two_rooms import TwoRooms

SIMULATORS = {
    "TwoRooms-v0": partial(TwoRooms, random_wall=False),
    "TwoRoomsRandom-v0": partial(TwoRooms, random_wall=True),
    "PointMaze-v0": PointMaze,
}
"""Every world of this project, by Gymnasium id; `register` adds to it."""


def _vector(simulator: Any, num_envs: int = 1, max_steps: int | None = None, **options: Any) -> SimVectorEnv:
    return SimVectorEnv(simulator(**options), num_envs, max_steps)


def register(env_id: str, simulator: Any, max_steps: int | None = None) -> None:
    """Make a Simulator class known, to Gymnasium under env_id (single and vectorised) and to the commands.

    Episodes end after max_steps actions; without it after the simulator's own `max_steps`, else after 200.
    """
    SIMULATORS[env_id] = simulator
    gym.register(
        env_id,
        entry_point="envs.gym_env:SimEnv",
        vector_entry_point=partial(_vector, simulator=simulator),
        kwargs={"simulator": simulator, "max_steps": max_steps},
    )


for _id, _simulator in list(SIMULATORS.items()):
    if _id not in gym.registry:
        register(_id, _simulator)

__all__ = ["SIMULATORS", "PointMaze", "SimEnv", "SimVectorEnv", "Simulator", "TwoRooms", "register"]
