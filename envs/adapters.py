"""Known Gymnasium environments that need a wrapper to be seen whole, and goals where they have some."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

TILE = 8
"""Pixels of a side of a MiniGrid cell."""


def adapted(env: gym.Env) -> gym.Env:
    """The environment in the wrapper that belongs to it; itself where there is none."""
    if type(env.unwrapped).__module__.startswith("minigrid."):
        return GridPicture(env)
    return env


def is_tiled(env: gym.Env) -> bool:
    """Whether the environment is seen as tiles of TILE pixels."""
    while isinstance(env, gym.Wrapper):
        if isinstance(env, GridPicture):
            return True
        env = env.env
    return False


class GridPicture(gym.Wrapper):
    """MiniGrid seen from above, as a picture; the goal is the picture with the agent on the green square.

    Success is to end the episode with a reward, which is how MiniGrid itself says it.
    """

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        grid: Any = env.unwrapped
        self.observation_space = spaces.Box(0, 255, (grid.height * TILE, grid.width * TILE, 3), np.uint8)
        # Nothing there can be picked up, dropped or toggled where there are neither doors nor things.
        name = type(grid).__name__
        self.action_space = (
            spaces.Discrete(3)
            if name in ("EmptyEnv", "FourRoomsEnv", "CrossingEnv", "LavaGapEnv")
            else env.action_space
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As MiniGrid's, with the goal's picture."""
        _, info = self.env.reset(seed=seed, options=options)
        goal = self._goal()
        told = {**info, "success": False}
        return self._seen(), told if goal is None else {**told, "goal_observation": goal}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """As MiniGrid's."""
        _, reward, terminated, truncated, info = self.env.step(action)
        success = bool(terminated) and float(reward) > 0
        return self._seen(), float(reward), terminated, truncated, {**info, "success": success}

    def _seen(self) -> NDArray[np.uint8]:
        grid: Any = self.env.unwrapped
        return grid.get_frame(highlight=False, tile_size=TILE)

    def _goal(self) -> NDArray[np.uint8] | None:
        """The picture with the agent on the green square, as it arrives from a free neighbour; None without one."""
        grid: Any = self.env.unwrapped
        cells = [
            (i % grid.width, i // grid.width)
            for i, x in enumerate(grid.grid.grid)
            if x is not None and x.type == "goal"
        ]
        if len(cells) != 1:
            return None
        x, y = cells[0]
        steps = ((1, 0), (0, 1), (-1, 0), (0, -1))
        free = [d for d, (dx, dy) in enumerate(steps) if grid.grid.get(x - dx, y - dy) is None]
        position, direction = grid.agent_pos, grid.agent_dir
        grid.agent_pos, grid.agent_dir = (x, y), free[0] if free else 0
        try:
            return self._seen()
        finally:
            grid.agent_pos, grid.agent_dir = position, direction
