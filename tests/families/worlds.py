"""Environments of families that no package at hand has."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import AddRenderObservation


class Blind(gym.Env):
    """A mass on a spring whose velocity no sensor gives."""

    observation_space = spaces.Box(-2, 2, (1,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.x, self.v = self.np_random.uniform(-1, 1, 2)
        return np.array([self.x], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.v += 0.2 * (float(action[0]) - self.x)
        self.x = float(np.clip(self.x + 0.2 * self.v, -2, 2))
        return np.array([self.x], np.float32), -abs(self.x), False, False, {}


class Levers(gym.Env):
    """Two levers move a number; a Dict with a choice and text beside it."""

    observation_space = spaces.Dict(
        {"level": spaces.Box(-np.inf, np.inf, (2,), np.float32), "last": spaces.Discrete(3), "note": spaces.Text(4)}
    )
    action_space = spaces.MultiDiscrete([3, 2])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.level, self.last = self.np_random.uniform(-1, 1, 2), 0
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.last = int(action[0])
        self.level = 0.9 * self.level + np.array([action[0] - 1, action[1] - 0.5])
        return self._seen(), -float(np.abs(self.level).sum()), bool(np.abs(self.level[0]) > 6), False, {}

    def _seen(self) -> dict[str, Any]:
        return {"level": self.level.astype(np.float32), "last": self.last, "note": "abc"}


class Faulty(Blind):
    """Raises, gives NaN, or leaves its space in one episode of thirty; the others are sound."""

    episodes, fails = 0, True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        Faulty.episodes += 1
        self.kind = Faulty.episodes // 30 % 3 if Faulty.fails and Faulty.episodes % 30 == 15 else None
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        seen, reward, terminated, truncated, info = super().step(action)
        if self.kind == 0:
            raise RuntimeError("a wheel came off")
        if self.kind == 1:
            seen = np.full(1, np.nan, np.float32)
        if self.kind == 2:
            seen = np.full(1, 9.0, np.float32)
        return seen, reward, terminated, truncated, info


def pixel_pendulum(render_mode: str | None = None) -> gym.Env:
    """MuJoCo's pendulum as it looks."""
    env = gym.make("InvertedPendulum-v5", render_mode="rgb_array", width=64, height=64)
    return AddRenderObservation(env, render_only=True)


gym.register("Blind-v0", entry_point=Blind, max_episode_steps=20)
gym.register("Levers-v0", entry_point=Levers, max_episode_steps=20)
gym.register("FaultyWorld-v0", entry_point=Faulty, max_episode_steps=8)
gym.register("PixelPendulum-v0", entry_point=pixel_pendulum, max_episode_steps=40)
