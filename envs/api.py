"""What a simulator is to this project: a few pure functions over arrays of states.

Write `reset`, `step` and `observe`, and the world is a Gymnasium environment, a Gymnasium vector environment that steps
N copies as arrays, and an oracle (true dynamics to plan with instead of the learned model): see `envs/gym_env.py`. This
is Gymnasium's functional form (`gymnasium.experimental.functional.FuncEnv`) for N states at once. What else a world can
do is optional, one Protocol for each: goals, scenes, an expert, a view, factors.

Shapes: N worlds, S numbers that hold the full physical state, A action, all float64 unless said otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Percepts = dict[str, NDArray]
"""Keys `pixels` (N, C, H, W) uint8 and/or `sensors` (N, number of sensors) float32."""


@dataclass(frozen=True)
class ProprioSpec:
    """One sensor that the agent copies, scaled, into its state and never learns: a joint, energy, pain, a position."""

    name: str
    index: int
    """Position in the sensor vector."""
    offset: float = 0.0
    scale: float = 1.0
    """proprio = (sensor - offset) / scale, about [-1, 1]."""
    is_goal: bool = False
    """Goal distance may be measured in it."""


@dataclass(frozen=True)
class Tasks:
    """A list of tasks: where to start and a state in which the goal is reached, both (N, S)."""

    start: Array
    goal: Array

    def __len__(self) -> int:
        return len(self.start)


@runtime_checkable
class Simulator(Protocol):
    """The laws of one world. Stateless: all randomness comes from the generator that is passed in.

    Optional attributes: `action_max_norm` (actions beyond this Euclidean norm are scaled back to it by `step`; None),
    `proprio` (a tuple of ProprioSpec; none), `max_steps` (length of a Gymnasium episode; 200).
    """

    @property
    def action_low(self) -> NDArray[np.float32]: ...

    @property
    def action_high(self) -> NDArray[np.float32]: ...

    @property
    def pixel_shape(self) -> tuple[int, int, int] | None:
        """(C, H, W) or None."""
        ...

    @property
    def sensor_low(self) -> NDArray[np.float32] | None: ...

    @property
    def sensor_high(self) -> NDArray[np.float32] | None: ...

    def reset(self, rng: np.random.Generator, n: int) -> Array:
        """n fresh states (N, S), spread over what can be reached."""
        ...

    def step(self, states: Array, actions: NDArray, rng: np.random.Generator | None) -> Array:
        """The next states (N, S). With rng None the noise of the world is left out (its mean is taken)."""
        ...

    def observe(self, states: Array) -> Percepts:
        """What the senses give in these states."""
        ...


@runtime_checkable
class Goals(Protocol):
    """Tasks with a goal state. Without them the agent can be trained, not evaluated by success."""

    @property
    def success_radius(self) -> float:
        """`success` means: nearer to the goal than this, in the world's length unit."""
        ...

    def sample_tasks(self, rng: np.random.Generator, n: int) -> Tasks:
        """n tasks of the benchmark that the world stands for."""
        ...

    def success(self, states: Array, goals: Array) -> NDArray[np.bool_]:
        """(N,) whether each goal is reached."""
        ...


@runtime_checkable
class Scenes(Protocol):
    """Different scenes (walls, say), between which one cannot travel."""

    @property
    def has_scenes(self) -> bool:
        """Whether `reset` draws different ones."""
        ...

    def reset_within_scene(self, rng: np.random.Generator, states: Array) -> Array:
        """As `reset`, but each in the scene of the given state."""
        ...


@runtime_checkable
class Expert(Protocol):
    """Reference controllers."""

    def expert_action(self, states: Array, goals: Array) -> NDArray:
        """(N, A) what a controller with access to the true state would do: an upper bound."""
        ...

    def greedy_action(self, states: Array, goals: Array) -> NDArray:
        """(N, A) straight at the goal at full strength: what a learned planner has to beat."""
        ...


@runtime_checkable
class View(Protocol):
    """A map of the world, for pictures."""

    def positions(self, states: Array) -> Array:
        """(N, 2) where the agent is, for pictures and probes; never used in training."""
        ...

    def render_map(self, state: Array) -> NDArray[np.uint8]:
        """(H, W, 3) the scene of one state (S,)."""
        ...

    def to_map(self, positions: Array) -> Array:
        """Positions (N, 2) -> column and row in the picture of `render_map`, (N, 2)."""
        ...


@runtime_checkable
class Factors(Protocol):
    """Labels for linear probes; never used in training."""

    def factors(self, states: Array) -> dict[str, Array]:
        """Every factor of variation by name, each (N,): agent_x, agent_y, wall_x, ..."""
        ...
