"""Any `Simulator` as a Gymnasium environment, and N of them at once as a Gymnasium vector environment.

Both hold the physical state as an array, draw every random number from Gymnasium's `np_random`, and give an exact
`get_state`/`set_state`: after `set_state` the environment goes on bit for bit, noise included.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from envs.api import Array, Goals, Percepts, Simulator, View


def observation_space(simulator: Simulator) -> spaces.Space:
    """A Box when the world has one sense, a Dict of `pixels` and `sensors` when it has both."""
    senses: dict[str, spaces.Space] = {}
    if simulator.pixel_shape is not None:
        senses["pixels"] = spaces.Box(0, 255, simulator.pixel_shape, np.uint8)
    if simulator.sensor_low is not None and simulator.sensor_high is not None:
        senses["sensors"] = spaces.Box(simulator.sensor_low, simulator.sensor_high, dtype=np.float32)
    return next(iter(senses.values())) if len(senses) == 1 else spaces.Dict(senses)


def as_observation(percepts: Percepts, index: int | None = None) -> Any:
    """Percepts of N worlds in the form of the observation space; of one world when index is given."""
    picked = {k: v if index is None else v[index] for k, v in percepts.items()}
    return next(iter(picked.values())) if len(picked) == 1 else picked


def action_space(simulator: Simulator) -> spaces.Box:
    """The box of primitive actions."""
    return spaces.Box(simulator.action_low, simulator.action_high, dtype=np.float32)


class SimEnv(gym.Env):
    """One world. Reward is 1 at the goal and 0 elsewhere, for people: no part of the agent reads it."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(
        self,
        simulator: Callable[..., Simulator],
        max_steps: int | None = None,
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        """simulator is called with options; an episode is truncated after max_steps actions, or as many as it says."""
        self.simulator = simulator(**options)
        self.max_steps, self.render_mode = _max_steps(self.simulator, max_steps), render_mode
        self.observation_space, self.action_space = observation_space(self.simulator), action_space(self.simulator)
        self._state: Array | None = None
        self._goal: Array | None = None
        self._elapsed = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """A fresh world with a goal in it. options may hold `state` and/or `goal`, each (S,)."""
        super().reset(seed=seed)
        options = options or {}
        unknown = set(options) - {"state", "goal"}
        if unknown:
            raise ValueError(f"reset options must be among 'state' and 'goal', got {sorted(unknown)}")
        self._state, self._goal = _drawn(self.simulator, self.np_random, 1, options)
        self._elapsed = 0
        return self._observe(), self._info()

    def step(self, action: NDArray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One primitive action."""
        if self._state is None:
            raise gym.error.ResetNeeded("step was called before reset: call reset() first")
        self._state = self.simulator.step(self._state, np.asarray(action)[None], self.np_random)
        self._elapsed += 1
        info = self._info()
        return self._observe(), float(info["success"]), False, self._elapsed >= self.max_steps, info

    def _observe(self) -> Any:
        assert self._state is not None
        return as_observation(self.simulator.observe(self._state), 0)

    def _info(self) -> dict[str, Any]:
        assert self._state is not None and self._goal is not None
        reached = bool(success(self.simulator, self._state, self._goal)[0])
        return {"success": reached, "state": self._state[0].copy(), "goal": self._goal[0].copy()}

    def goal_observation(self) -> Any:
        """What the senses would give at the goal."""
        assert self._goal is not None, "call reset() first"
        return as_observation(self.simulator.observe(self._goal), 0)

    def get_state(self) -> dict[str, Any]:
        """Everything that decides the future: physics, goal, elapsed steps and the generator."""
        assert self._state is not None and self._goal is not None, "call reset() first"
        generator = self.np_random.bit_generator.state
        return {"physics": self._state.copy(), "goal": self._goal.copy(), "elapsed": self._elapsed, "rng": generator}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what get_state gave."""
        self._state, self._goal = state["physics"].copy(), state["goal"].copy()
        self._elapsed = state["elapsed"]
        self.np_random.bit_generator.state = state["rng"]

    def render(self) -> NDArray[np.uint8]:
        """(H, W, 3) the map with the agent in red and the goal in green."""
        assert self._state is not None and self._goal is not None, "call reset() first"
        assert isinstance(self.simulator, View), (
            "a simulator without render_map, to_map and positions cannot be rendered"
        )
        picture = self.simulator.render_map(self._state[0]).copy()
        rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]]
        radius = max(2.0, picture.shape[0] / 40)
        for state, colour in ((self._goal, (40, 160, 60)), (self._state, (210, 50, 50))):
            x, y = self.simulator.to_map(self.simulator.positions(state))[0]
            picture[(columns - x) ** 2 + (rows - y) ** 2 <= radius**2] = colour
        return picture


class SimVectorEnv(VectorEnv):
    """N worlds stepped, and seen, as arrays.

    Autoreset follows Gymnasium's NEXT_STEP: the step after a truncation ignores its action and resets. A whole batch
    that is reset together before max_steps never meets it.
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": []}
    copy = True
    """As Gymnasium's: every observation is an array of its own."""

    def __init__(self, simulator: Simulator, num_envs: int, max_steps: int | None = None) -> None:
        """N = num_envs copies of one simulator; truncated after max_steps actions, or as many as it says."""
        self.simulator, self.num_envs, self.max_steps = simulator, num_envs, _max_steps(simulator, max_steps)
        self.single_observation_space, self.single_action_space = observation_space(simulator), action_space(simulator)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._states: Array | None = None
        self._goals: Array | None = None
        self._elapsed = np.zeros(num_envs, np.int64)
        self._done = np.zeros(num_envs, bool)
        self.observe_every = 1
        """Steps from one observation to the next; between them `step` returns the last one. For explorers, which look
        at nothing between the ends of blocks."""
        self._steps, self._seen = 0, None

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """All worlds anew. options may hold `state` and/or `goal`, each (N, S)."""
        if isinstance(seed, list):
            raise ValueError("this vector world has one generator for all its copies: give one seed, not a list")
        super().reset(seed=seed)
        options = options or {}
        unknown = set(options) - {"state", "goal"}
        if unknown:
            raise ValueError(f"reset options must be among 'state' and 'goal', got {sorted(unknown)}")
        self._states, self._goals = _drawn(self.simulator, self.np_random, self.num_envs, options)
        self._elapsed[:], self._done[:] = 0, False
        self._steps = 0
        seen = self.observe()
        self._seen = seen if self.observe_every > 1 else None
        return seen, self._info()

    def step(self, actions: NDArray) -> tuple[Any, NDArray, NDArray, NDArray, dict[str, Any]]:
        """One primitive action in each world, (N, A)."""
        assert self._states is not None and self._goals is not None, "call reset() first"
        actions = np.asarray(actions)
        if actions.shape != self.action_space.shape:
            raise ValueError(f"actions must have shape {self.action_space.shape}, got {actions.shape}")
        self._states = self.simulator.step(self._states, actions, self.np_random)
        self._elapsed += 1
        if self._done.any():
            fresh, goals = _drawn(self.simulator, self.np_random, self.num_envs, {})
            self._states = np.where(self._done[:, None], fresh, self._states)
            self._goals = np.where(self._done[:, None], goals, self._goals)
            self._elapsed[self._done] = 0
        self._done = self._elapsed >= self.max_steps
        seen = self._look()
        info = self._info()
        return (
            seen,
            info["success"].astype(np.float64),
            np.zeros(self.num_envs, bool),
            self._done.copy(),
            info,
        )

    def _look(self) -> Any:
        """The observation of this step, or the last one between two. Nothing is held where each step is observed."""
        if self.observe_every == 1:
            return self.observe()
        self._steps += 1
        if self._steps % self.observe_every == 0:
            self._seen = self.observe()
        return self._seen

    def observe(self) -> Any:
        """The batch of observations of this moment."""
        assert self._states is not None
        return as_observation(self.simulator.observe(self._states))

    def _info(self) -> dict[str, Any]:
        assert self._states is not None and self._goals is not None
        reached = success(self.simulator, self._states, self._goals)
        return {"success": reached, "state": self._states.copy(), "goal": self._goals.copy()}

    def get_state(self) -> dict[str, Any]:
        """Everything that decides the future of all N worlds."""
        assert self._states is not None and self._goals is not None, "call reset() first"
        return {
            "physics": self._states.copy(),
            "goal": self._goals.copy(),
            "elapsed": self._elapsed.copy(),
            "done": self._done.copy(),
            "rng": self.np_random.bit_generator.state,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what get_state gave."""
        self._states, self._goals = state["physics"].copy(), state["goal"].copy()
        self._elapsed, self._done = state["elapsed"].copy(), state["done"].copy()
        self.np_random.bit_generator.state = state["rng"]


def success(simulator: Simulator, states: Array, goals: Array) -> NDArray[np.bool_]:
    """(N,) whether each goal is reached; never, in a world without goals."""
    reached = getattr(simulator, "success", None)
    return np.zeros(len(states), bool) if reached is None else reached(states, goals)


def _drawn(simulator: Simulator, rng: np.random.Generator, n: int, options: dict[str, Any]) -> tuple[Array, Array]:
    """States and goals (N, S) from reset options; what is not given is drawn, what is given costs no random number.

    In a world without goals the goals are the states.
    """
    if "state" in options:
        states = _checked(options["state"], np.repeat(simulator.reset(np.random.default_rng(0), 1), n, 0))
    else:
        states = simulator.reset(rng, n)
    if "goal" in options:
        return states, _checked(options["goal"], states)
    return states, simulator.sample_tasks(rng, n).goal if isinstance(simulator, Goals) else states.copy()


def _max_steps(simulator: Simulator, asked: int | None) -> int:
    return getattr(simulator, "max_steps", 200) if asked is None else asked


def _checked(given: Array, like: Array) -> Array:
    """A state or goal from reset options; (S,) is taken for every world."""
    given = np.asarray(given, np.float64)
    if given.shape[-1:] != like.shape[-1:] or given.ndim > 2 or (given.ndim == 2 and len(given) != len(like)):
        raise ValueError(f"a state or goal in reset options must have shape {like.shape}, got {given.shape}")
    if not np.isfinite(given).all():
        raise ValueError(f"a state or goal in reset options must be finite, got {given}")
    return np.broadcast_to(given, like.shape).copy()
