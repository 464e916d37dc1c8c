"""A Gymnasium environment that shows when it is and what was done to it, so that a test can tell a jump from a step."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from envs.guard import Guarded
from modules.actions import BoxActions

SPACE = BoxActions((-1.0, -2.0), (1.0, 4.0), None)


class Counter(gym.Env):
    """Observes (copy, episode, step, the sum of all actions of the episode so far), as sensors, pixels or both."""

    def __init__(self, copy: int, length: int, terminates: bool, form: str, reward: float) -> None:
        self.copy, self.length, self.terminates, self.form, self.reward = copy, length, terminates, form, reward
        self.action_space = spaces.Box(np.array(SPACE.low, np.float32), np.array(SPACE.high, np.float32))
        sensors, pixels = spaces.Box(-1e6, 1e6, (5,), np.float32), spaces.Box(0, 255, (3, 2, 2), np.uint8)
        both = spaces.Dict({"sensors": sensors, "pixels": pixels, "clock": spaces.Box(0, 1e6, (1,))})
        self.observation_space = {"sensors": sensors, "pixels": pixels, "both": both}[form]
        self.episode = -1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.episode, self.time, self.sum = self.episode + 1, 0, np.zeros(2)
        return self.observe(), {}

    def observe(self) -> Any:
        sensors = np.array([self.copy, self.episode, self.time, *self.sum], np.float32)
        pixels = np.full((3, 2, 2), self.time, np.uint8)
        pixels[1], pixels[2] = self.copy, self.episode % 256
        both = {"sensors": sensors, "pixels": pixels, "clock": np.zeros(1, np.float32)}
        return {"sensors": sensors, "pixels": pixels, "both": both}[self.form]

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict]:
        assert self.time < self.length, "stepped after the end of the episode"
        assert action in self.action_space
        self.time, self.sum = self.time + 1, self.sum + action
        over = self.time >= self.length
        return self.observe(), self.reward, over and self.terminates, over and not self.terminates, {}


def ends(copy: int) -> bool:
    """Whether the episodes of this copy terminate: every other copy's do."""
    return copy % 2 == 0


def counters(
    mode: AutoresetMode,
    lengths: list[int],
    form: str = "sensors",
    reward: float = 0.0,
    copy: bool = True,
    terminates: bool | None = None,
) -> SyncVectorEnv:
    """One Counter for each length of episode; every other one (`ends`) terminates, the others are truncated."""
    return SyncVectorEnv(
        [
            lambda i=i, n=n: Counter(i, n, ends(i) if terminates is None else terminates, form=form, reward=reward)
            for i, n in enumerate(lengths)
        ],
        autoreset_mode=mode,
        copy=copy,
    )


class Fails(Counter):
    """A Counter that raises in step `at` of every `each`-th episode, over all copies made anew (`episodes`)."""

    def __init__(self, copy: int, length: int, each: int, at: int, episodes: list[int]) -> None:
        super().__init__(copy, length, terminates=copy % 2 == 0, form="sensors", reward=1.0)
        self.each, self.at, self.episodes = each, at, episodes

    def reset(self, **given: Any) -> tuple[Any, dict]:
        super().reset(**given)
        self.episode = self.episodes[0]
        self.episodes[0] += 1
        return self.observe(), {}

    def step(self, action: np.ndarray) -> Any:
        if self.time + 1 == self.at and self.episode % self.each == self.each - 1:
            raise [ValueError, KeyError][self.copy % 2](f"episode {self.episode}")
        return super().step(action)


def failing(mode: AutoresetMode, lengths: list[int], each: int = 2, at: int = 3) -> SyncVectorEnv:
    """Guarded copies, whose every `each`-th episode fails in its step `at`."""
    return SyncVectorEnv(
        [
            lambda i=i, n=n, episodes=[0]: Guarded(lambda: Fails(i, n, each, at, episodes))
            for i, n in enumerate(lengths)
        ],
        autoreset_mode=mode,
    )
