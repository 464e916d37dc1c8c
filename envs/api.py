"""What a world is to this project: a few pure functions over arrays of states.

Write these functions once and the world is a Gymnasium environment, a Gymnasium vector environment that steps N copies
as arrays, and an oracle (the true dynamics, to plan with instead of the learned model): see `envs/world.py`.

Shapes: N worlds, S numbers that hold the full physical state, A action, all float64 unless said otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


Percepts = dict[str, NDArray]
"""Keys `pixels` (N, C, H, W) uint8 and/or `sensors` (N, S') float32."""


@dataclass(frozen=True)
class ProprioSpec:
    """One interoceptive slot: a sensor that the agent copies, scaled, into its state and never learns."""

    name: str
    index: int
    """Position in the sensor vector."""
    offset: float = 0.0
    scale: float = 1.0
    """slot = (sensor - offset) / scale, about [-1, 1]."""
    is_goal: bool = False
    """Goal distance may be measured in this slot."""


@dataclass(frozen=True)
class Tasks:
    """A list of tasks: where to start and a state in which the goal is reached, both (N, S)."""

    start: Array
    goal: Array

    def __len__(self) -> int:
        return len(self.start)


@runtime_checkable
class Simulator(Protocol):
    """The laws of one world. Stateless: all randomness comes from the generator that is passed in."""

    action_low: NDArray[np.float32]
    action_high: NDArray[np.float32]
    action_max_norm: float | None
    """Actions beyond this Euclidean norm are scaled back to it by `step`."""
    proprio: tuple[ProprioSpec, ...]
    pixel_shape: tuple[int, int, int] | None
    """(C, H, W) or None."""
    sensor_low: NDArray[np.float32] | None
    sensor_high: NDArray[np.float32] | None
    has_scenes: bool
    """Whether `reset` draws different scenes (walls, say), between which one cannot travel."""
    success_radius: float
    """`success` means: nearer to the goal than this, in the world's length unit."""

    def reset(self, rng: np.random.Generator, n: int) -> Array:
        """n fresh states (N, S), spread over what can be reached."""
        ...

    def reset_within_scene(self, rng: np.random.Generator, states: Array) -> Array:
        """As `reset`, but each in the scene of the given state."""
        ...

    def step(self, states: Array, actions: NDArray, rng: np.random.Generator | None) -> Array:
        """The next states (N, S). With rng None the noise of the world is left out (its mean is taken)."""
        ...

    def observe(self, states: Array) -> Percepts:
        """What the senses give in these states."""
        ...

    def positions(self, states: Array) -> Array:
        """(N, 2) where the agent is, for pictures, probes and reference; never used in training."""
        ...

    def factors(self, states: Array) -> dict[str, Array]:
        """Every factor of variation by name, each (N,), for linear probes: agent_x, agent_y, wall_x, ..."""
        ...

    def sample_tasks(self, rng: np.random.Generator, n: int) -> Tasks:
        """n tasks of the benchmark that the world stands for."""
        ...

    def success(self, states: Array, goals: Array) -> NDArray[np.bool_]:
        """(N,) whether each goal is reached."""
        ...

    def expert_action(self, states: Array, goals: Array) -> NDArray:
        """(N, A) what a controller that knows the world would do: the ceiling of the reference table."""
        ...

    def render_map(self, state: Array) -> NDArray[np.uint8]:
        """(H, W, 3) the scene of one state (S,), for pictures."""
        ...

    def to_map(self, positions: Array) -> Array:
        """Positions (N, 2) -> column and row in the picture of `render_map`, (N, 2)."""
        ...

    def greedy_action(self, states: Array, goals: Array) -> NDArray:
        """(N, A) straight at the goal at full strength: the floor that a learned planner has to beat."""
        ...
