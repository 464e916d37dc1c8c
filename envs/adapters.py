"""Known Gymnasium environments that need a wrapper to be seen whole, and goals where they have some."""

from __future__ import annotations

import zlib
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

TILE, SIDE = 8, 96
"""Most pixels of a side of a MiniGrid cell, and of the whole picture."""


STILL = ("EmptyEnv", "FourRoomsEnv", "CrossingEnv", "LavaGapEnv", "DistShiftEnv")
"""MiniGrid's classes in which only the agent moves."""


def adapted(env: gym.Env) -> gym.Env:
    """The environment in the wrapper that belongs to it; itself where there is none."""
    if type(env.unwrapped).__module__.startswith("minigrid."):
        return GridPicture(env)
    return env


def tile_of(env: gym.Env) -> int | None:
    """Pixels of a side of the tiles that the environment is seen as; None for one without tiles."""
    while isinstance(env, gym.Wrapper):
        if isinstance(env, GridPicture):
            return env.tile
        env = env.env
    return None


class GridPicture(gym.Wrapper):
    """MiniGrid seen from above, as a picture; the goal is the picture with the agent on the green square.

    Success is to end the episode with a reward, which is how MiniGrid itself says it. `info["scene"]` is a number for
    what stands where at the beginning, the same for equal layouts.
    """

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        grid: Any = env.unwrapped
        self.tile = min(TILE, SIDE // max(grid.height, grid.width))
        self.observation_space = spaces.Box(0, 255, (grid.height * self.tile, grid.width * self.tile, 3), np.uint8)
        # Where nothing can be picked up, dropped or toggled, three of seven actions do something, and nothing moves but
        # the agent.
        self._still = type(grid).__name__ in STILL
        self.action_space = spaces.Discrete(3) if self._still else env.action_space
        self._empty: NDArray[np.uint8] | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As MiniGrid's, with the goal's picture."""
        _, info = self.env.reset(seed=seed, options=options)
        self._empty = None
        goal = self._goal()
        grid: Any = self.env.unwrapped
        self._scene = zlib.crc32(repr(grid.grid.encode().tolist()).encode())
        told = {**info, "success": False, "scene": self._scene}
        return self._seen(), told if goal is None else {**told, "goal_observation": goal}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """As MiniGrid's."""
        _, reward, terminated, truncated, info = self.env.step(action)
        success = bool(terminated) and float(reward) > 0
        return self._seen(), float(reward), terminated, truncated, {**info, "success": success, "scene": self._scene}

    def _seen(self) -> NDArray[np.uint8]:
        grid: Any = self.env.unwrapped
        if not self._still:
            return grid.get_frame(highlight=False, tile_size=self.tile)
        if self._empty is None:  # drawn once an episode; from then on only the agent's cell
            self._empty = grid.grid.render(self.tile, agent_pos=(-1, -1))
        assert self._empty is not None
        (x, y), side, picture = grid.agent_pos, self.tile, self._empty.copy()
        cell = grid.grid.render_tile(grid.grid.get(x, y), agent_dir=grid.agent_dir, tile_size=side)
        picture[y * side : (y + 1) * side, x * side : (x + 1) * side] = cell
        return picture

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
