"""Any Gymnasium environment in the form that an agent lives in: pixels and sensors, and actions as one vector.

Observations become a Dict of `pixels` (C, H, W) uint8 and `sensors` (S,) float32, or one of the two alone. Structured
observations are flattened, each number with a name. A goal environment's `desired_goal` is told in `info`, since it is
what is wanted and not what is perceived. The last sensor, `ended`, is 1 in the last observation of an episode that
terminated: a world model that learns it can imagine the end.

Shapes: C channels, H rows, W columns, S sensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from PIL import Image

from envs.names import sensor_names
from envs.opengl import make_current

LARGEST = 96
"""Longest side of a picture that is kept as it is; larger ones are reduced by a whole factor."""
SMALLEST = 16
"""Arrays of bytes with a shorter side are numbers, not pictures."""
UNBOUNDED = 1e6
"""Declared limits beyond this say nothing."""
ENDED = "ended"
GOAL_KEYS = ("achieved_goal", "desired_goal")


class Unperceivable(ValueError):
    """An environment that the agent cannot perceive or act in; the message says why, and what would help."""

    def __init__(self, message: str, which: str = "observation space") -> None:
        super().__init__(message)
        self.which = which
        """observation space, or action space."""


@dataclass(frozen=True)
class Part:
    """One leaf of an observation, and how it is read."""

    path: tuple[str | int, ...]
    names: tuple[str, ...]
    """Of its numbers; none for a picture."""
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    read: Callable[[Any], NDArray]
    """What the environment gives -> (C, H, W) uint8 or a vector of float32."""
    shape: tuple[int, int, int] | None = None
    """(C, H, W) of a picture."""


class Senses(gym.Wrapper):
    """The wrapper that every environment which is not this project's own is made with."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        whole = env.observation_space
        self.is_goal_env = isinstance(whole, spaces.Dict) and {*GOAL_KEYS, "observation"} <= {*whole.spaces}
        self.ignored: list[str] = []
        """Parts of the observation that cannot be perceived, such as text."""
        leaves = list(_leaves(whole, ()))
        parts: list[Part] = []
        for path, space in leaves:
            if self.is_goal_env and path[0] == "desired_goal":
                continue
            part = _part(env, path, space)
            if part is None:
                self.ignored.append(_called(path))
            else:
                parts.append(part)
        self.pictures = [p for p in parts if p.shape is not None]
        self.numbers = [p for p in parts if p.shape is None]
        if not parts:
            raise Unperceivable(f"has observations {whole}, of which nothing can be perceived: {_PERCEIVED}")
        if len({p.shape[1:] for p in self.pictures if p.shape}) > 1:
            sizes = [p.shape for p in self.pictures]
            raise Unperceivable(
                f"has pictures of different sizes {sizes}: resize them with Gymnasium's ResizeObservation"
            )
        self.sensor_names = (*(n for p in self.numbers for n in p.names), ENDED)
        low = np.concatenate([*(p.low for p in self.numbers), np.zeros(1, np.float32)])
        high = np.concatenate([*(p.high for p in self.numbers), np.ones(1, np.float32)])
        senses: dict[str, spaces.Space] = {}
        if self.pictures:
            channels = sum(p.shape[0] for p in self.pictures if p.shape)
            shape = (channels, *(self.pictures[0].shape or ())[1:])
            senses["pixels"] = spaces.Box(0, 255, shape, np.uint8)
        senses["sensors"] = spaces.Box(low, high, dtype=np.float32)
        self.observation_space = spaces.Dict(senses)
        self._act, self.action_space = _actions(env.action_space)

        info = self.reset(seed=0)[1]
        self.asks, self.tells_scene = "goal_percept" in info, "scene" in info
        """Whether every episode comes with a goal; whether it comes with the number of its scene."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the environment's, perceived; `info` has the goal, where there is one, as it would be perceived."""
        if self.pictures:
            make_current(self.env)
        observation, info = self.env.reset(seed=seed, options=options)
        told = _told(info)
        if self.is_goal_env:
            told["goal_percept"] = self.perceive({**observation, "achieved_goal": observation["desired_goal"]})
        elif "goal_observation" in info:
            told["goal_percept"] = self.perceive(told.pop("goal_observation"))
        return self.perceive(observation), told

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """As the environment's, perceived."""
        if self.pictures:
            make_current(self.env)
        observation, reward, terminated, truncated, info = self.env.step(self._act(action))
        seen = self.perceive(observation, bool(terminated))
        return seen, float(reward), bool(terminated), bool(truncated), _told(info)

    def perceive(self, observation: Any, ended: bool = False) -> dict[str, NDArray]:
        """An observation of the environment as pixels and sensors."""
        out: dict[str, NDArray] = {}
        if self.pictures:
            frames = [p.read(_at(observation, p.path)) for p in self.pictures]
            out["pixels"] = frames[0] if len(frames) == 1 else np.concatenate(frames)
        values = [p.read(_at(observation, p.path)) for p in self.numbers]
        out["sensors"] = np.concatenate([*values, np.array([ended], np.float32)]).astype(np.float32, copy=False)
        return out


def _told(info: Mapping[str, Any]) -> dict[str, Any]:
    """The environment's info, with the success test under one name."""
    told = dict(info)
    if "success" not in told and "is_success" in told:
        told["success"] = told["is_success"]
    if "success" in told:
        told["success"] = bool(np.any(told["success"]))
    return told


_PERCEIVED = "what can be are pictures of bytes and numbers (Box, Discrete, MultiDiscrete, MultiBinary, Dict, Tuple)"


def _leaves(space: spaces.Space, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], spaces.Space]]:
    if isinstance(space, spaces.Dict):
        for name, inner in space.spaces.items():
            yield from _leaves(inner, (*path, name))
    elif isinstance(space, spaces.Tuple):
        for i, inner in enumerate(space.spaces):
            yield from _leaves(inner, (*path, i))
    else:
        yield path, space


def _at(observation: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        observation = observation[step]
    return observation


def _called(path: tuple[str | int, ...]) -> str:
    return ".".join(map(str, path))


def _part(env: gym.Env, path: tuple[str | int, ...], space: spaces.Space) -> Part | None:
    """How one leaf is read; None for what cannot be perceived."""
    name = _called(path)
    if isinstance(space, spaces.Box) and _is_picture(space):
        return _picture(path, space)
    if isinstance(space, spaces.Box):
        size = int(np.prod(space.shape))
        low, high = (np.asarray(x, np.float64).ravel() for x in (space.low, space.high))
        low = np.where(np.abs(low) > UNBOUNDED, -np.inf, low).astype(np.float32)
        high = np.where(np.abs(high) > UNBOUNDED, np.inf, high).astype(np.float32)
        if not name or (size > 1 and len(path) == 1 and isinstance(path[0], str)):
            names = sensor_names(env, name, size)
        else:
            names = (name,) if size == 1 else tuple(f"{name}[{i}]" for i in range(size))
        return Part(path, names, low, high, lambda x: np.asarray(x, np.float32).ravel())
    counts: list[int]
    if isinstance(space, spaces.Discrete):
        counts, start = [int(space.n)], int(space.start)
    elif isinstance(space, spaces.MultiDiscrete):
        counts, start = [int(n) for n in space.nvec.ravel()], space.start.ravel()
    elif isinstance(space, spaces.MultiBinary):
        size = int(np.prod(space.shape))
        names = tuple(f"{name or 'obs'}[{i}]" for i in range(size))
        ones = np.ones(size, np.float32)
        return Part(path, names, 0 * ones, ones, lambda x: np.asarray(x, np.float32).ravel())
    else:
        return None
    names = tuple(
        f"{name or 'obs'}{f'[{g}]' if len(counts) > 1 else ''}={v}" for g, n in enumerate(counts) for v in range(n)
    )
    begins = np.cumsum([0, *counts[:-1]])
    total = sum(counts)

    def one_hot(x: Any) -> NDArray:
        out = np.zeros(total, np.float32)
        out[begins + np.asarray(x).ravel() - start] = 1
        return out

    return Part(path, names, np.zeros(total, np.float32), np.ones(total, np.float32), one_hot)


def _is_picture(space: spaces.Box) -> bool:
    if space.dtype != np.uint8 or len(space.shape) not in (2, 3, 4):
        return False
    return min(_sides(space.shape)) >= SMALLEST


def _sides(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of a picture (H, W), (H, W, C), (C, H, W) or a stack (N, ...) of them."""
    if len(shape) == 2:
        return shape[0], shape[1]
    last = shape[-3:]
    return (last[0], last[1]) if _channels_last(last) else (last[1], last[2])


def _channels_last(shape: tuple[int, ...]) -> bool:
    return shape[2] <= 4 or (shape[0] > 4 and shape[2] < shape[0])


def _picture(path: tuple[str | int, ...], space: spaces.Box) -> Part:
    rows, columns = _sides(space.shape)
    factor = -(-max(rows, columns) // LARGEST)
    dims = len(space.shape)
    last = dims > 2 and _channels_last(space.shape[-3:])

    def read(x: Any) -> NDArray:
        x = np.asarray(x)
        frames = x if dims == 4 else x[None]
        if dims == 2:
            planes = frames[..., None]
        else:
            planes = frames if last else frames.transpose(0, 2, 3, 1)
        whole = np.concatenate(list(planes), axis=-1) if len(planes) > 1 else planes[0]  # H W C
        if factor > 1:
            shrunk = [np.asarray(Image.fromarray(whole[..., c]).reduce(factor)) for c in range(whole.shape[-1])]
            return np.stack(shrunk)
        return np.ascontiguousarray(whole.transpose(2, 0, 1))

    shape = read(np.zeros(space.shape, np.uint8)).shape
    empty = np.zeros(0, np.float32)
    return Part(path, (), empty, empty, read, (shape[0], shape[1], shape[2]))


def _actions(space: spaces.Space) -> tuple[Callable[[Any], Any], spaces.Space]:
    """How an action of the agent is given to the environment, and the space that it is in."""
    if isinstance(space, spaces.Discrete):
        return int, space
    if isinstance(space, spaces.MultiDiscrete):
        shape = space.nvec.shape
        flat = spaces.MultiDiscrete(space.nvec.ravel(), start=space.start.ravel())
        return (lambda a: np.asarray(a).reshape(shape)), flat
    if isinstance(space, spaces.MultiBinary):
        shape = space.shape
        counts = np.full(int(np.prod(shape)), 2)
        return (lambda a: np.asarray(a, np.int8).reshape(shape)), spaces.MultiDiscrete(counts)
    if not isinstance(space, spaces.Box) or not np.issubdtype(np.dtype(space.dtype or np.float32), np.floating):
        raise Unperceivable(
            f"has actions {space}; the agent acts in a bounded Box of numbers, Discrete, MultiDiscrete or "
            "MultiBinary. A wrapper can offer one: gymnasium.wrappers.TransformAction",
            "action space",
        )
    if not space.is_bounded() or max(np.abs(space.low).max(), np.abs(space.high).max()) > UNBOUNDED:
        raise Unperceivable(
            f"has actions without bounds, {space}; the agent searches inside bounds. Give it some with "
            "gymnasium.wrappers.TransformAction(env, lambda action: action, gymnasium.spaces.Box(-1, 1, "
            f"{space.shape})), or in your environment",
            "action space",
        )
    if (still := np.flatnonzero(space.low.ravel() >= space.high.ravel()).tolist()) or not space.low.size:
        what = f"of which the numbers {still} cannot vary" if still else "which hold no number"
        raise Unperceivable(
            f"has actions {space}, {what}. Offer others with gymnasium.wrappers.TransformAction", "action space"
        )
    shape, dtype = space.shape, np.dtype(space.dtype or np.float32)
    flat = spaces.Box(space.low.ravel(), space.high.ravel(), dtype=space.dtype)  # pyright: ignore[reportArgumentType]
    return (lambda a: np.asarray(a, dtype).reshape(shape)), flat
