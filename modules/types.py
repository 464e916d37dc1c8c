"""The words that the modules share: percepts, states, directives, plans, thoughts, and the Protocols.

Shapes: B batch, E episodes acting at once, N candidate plans, T time, H imagined steps (one action block each),
K primitive actions in a block, A action, D latent, I proprio, S sensors. Batch axes come first, time after
them, features last; pixels are (..., channels, rows, columns).

Symbols follow LeCun, "A Path Towards Autonomous Machine Intelligence" (2022): percept x, state s, action a, cost C,
intrinsic cost IC, trainable cost (critic) TC, energy F.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

if TYPE_CHECKING:
    from typing import Annotated as Float
else:
    try:
        from jaxtyping import Float
    except ImportError:  # only tests check shapes; elsewhere Float[Tensor, "B D"] is a comment
        from typing import Annotated as Float  # noqa: F401

PlannerName = Literal["cem", "mppi", "gradient", "random"]
EnergyName = Literal["terminal", "literal", "last"]


@dataclass(frozen=True)
class Observation:
    """A percept x: what the senses give at one moment. At least one of the two is present."""

    pixels: Tensor | None = None
    """(..., C, H, W) uint8."""
    sensors: Tensor | None = None
    """(..., S) float32, in the world's own units."""

    def map(self, f: Callable[[Tensor], Tensor]) -> Observation:
        """Apply f to every tensor."""
        return Observation(
            None if self.pixels is None else f(self.pixels), None if self.sensors is None else f(self.sensors)
        )

    @property
    def batch(self) -> int:
        """Length of the first axis."""
        first = self.pixels if self.pixels is not None else self.sensors
        assert first is not None
        return first.shape[0]


@dataclass(frozen=True)
class State:
    """A representation s: a learned latent, and interoceptive proprio that are copied from sensors, never learned."""

    latent: Tensor
    """(..., D). A spatial latent is a flattened feature map."""
    proprio: Tensor
    """(..., I), I may be 0."""

    def map(self, f: Callable[[Tensor], Tensor]) -> State:
        """Apply f to latent and proprio."""
        return State(f(self.latent), f(self.proprio))

    def __getitem__(self, index: Any) -> State:
        return State(self.latent[index], self.proprio[index])

    def detach(self) -> State:
        """The same state outside the autograd graph."""
        return self.map(Tensor.detach)

    @property
    def batch_shape(self) -> torch.Size:
        """All axes but the last."""
        return self.latent.shape[:-1]

    @staticmethod
    def stack(states: Sequence[State], dim: int) -> State:
        """Stack states along a new axis."""
        return State(torch.stack([s.latent for s in states], dim), torch.stack([s.proprio for s in states], dim))

    @staticmethod
    def cat(states: Sequence[State], dim: int = 0) -> State:
        """Concatenate states along an existing axis."""
        return State(torch.cat([s.latent for s in states], dim), torch.cat([s.proprio for s in states], dim))


@dataclass(frozen=True)
class ActionSpace:
    """The actions a world accepts: a box, and where the world says so, a ball inside it."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    max_norm: float | None = None
    """Largest Euclidean norm of one primitive action, or None."""

    @property
    def size(self) -> int:
        """A."""
        return len(self.low)

    def clip(self, actions: Tensor) -> Tensor:
        """Project (..., A) into the box, then into the ball. Differentiable almost everywhere."""
        if len(set(self.low)) == 1 and len(set(self.high)) == 1:  # the usual case, and half the time of the other
            actions = actions.clamp(self.low[0], self.high[0])
        else:
            low = torch.as_tensor(self.low, dtype=actions.dtype, device=actions.device)
            high = torch.as_tensor(self.high, dtype=actions.dtype, device=actions.device)
            actions = torch.maximum(torch.minimum(actions, high), low)
        if self.max_norm is None:
            return actions
        norm = torch.linalg.vector_norm(actions, dim=-1, keepdim=True)
        return actions * (self.max_norm / norm.clamp(min=self.max_norm))


@dataclass(frozen=True)
class Directive:
    """What the configurator emits and every other module obeys; nothing else modulates a module at run time."""

    goal: State | None
    """(E, ...) the state to reach, or None when the task has no goal."""
    weights: Mapping[str, float]
    """u_i: weight of each intrinsic drive by name; a drive that is not named has weight 0."""
    critic_weight: float
    """v: weight of the trainable cost at the end of an imagined path. 0 turns the critic off."""
    discount: float
    """gamma of the critic, per imagined step."""
    energy: EnergyName
    """`terminal`: sum of IC, then one critic at the end. `literal`: IC + TC at every step, as the paper prints it.
    `last`: nothing counts but where the plan ends."""
    mode: Literal[1, 2]
    """1: act by the policy, without search. 2: plan."""
    planner: PlannerName
    horizon: int
    """H, in action blocks."""
    samples: int
    """N candidates per iteration."""
    iterations: int
    """Rounds of simulate, evaluate, improve."""
    replan_every: int
    """Primitive actions executed before the next plan."""
    warm_start: bool = True
    """Start the search from the shifted last plan."""


@dataclass(frozen=True)
class Plan:
    """An action sequence and what it is expected to cost."""

    actions: Tensor
    """(E, H, K, A)."""
    energy: Tensor
    """(E,)."""


@dataclass(frozen=True)
class PathCost:
    """The cost of imagined paths, term by term. Leading axes are those of the paths."""

    drives: dict[str, Tensor]
    """Weighted IC by drive name, each (..., H)."""
    critic: Tensor
    """Weighted, discounted TC, (..., H); zero where the critic is not asked."""
    energy: Tensor
    """F, (...): the sum of everything above."""


@dataclass(frozen=True)
class Decision:
    """All that one decision was made of. Logs, reports and pictures are drawn from Decisions and nothing else."""

    steps: tuple[str, ...]
    """The steps of the paper's Mode-1 or Mode-2 episode in the order in which they ran."""
    mode: int
    state: State
    """(E, ...) s[0]."""
    directive: Directive
    cost: PathCost
    """Cost of s[0] itself (H = 1)."""
    action: Tensor
    """(E, A) the primitive action sent to the world."""
    replanned: bool
    """False when the action is the next one of an earlier plan."""
    milliseconds: float
    surprise: Tensor | None = None
    """(E,) how far s[0] is from the first state that the plan under way imagined; None at any other moment than its."""
    plan: Plan | None = None
    proposal_energy: Tensor | None = None
    """(E,) energy of the first proposal, before any improvement."""
    imagined: State | None = None
    """(E, H, ...) states imagined under the chosen plan."""
    plan_cost: PathCost | None = None
    """Cost of the chosen plan, leading axes (E,)."""
    candidates: Plan | None = None
    """The candidates of the last iteration: actions (E, N, H, K, A), energy (E, N), in the order of the search."""
    statuses: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """What every module said of itself to the configurator."""

    def but(self, **changes: Any) -> Decision:
        """A copy with some fields changed."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Task:
    """What is wanted of the agent: a goal percept and, optionally, weights that override the configured ones."""

    goal: Observation | None
    """(E, ...) a percept of the world with the goal reached."""
    weights: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class Embedding(Protocol):
    """A module from State (..., D) to a vector: what a head knows of a state."""

    def __call__(self, state: State, /) -> Tensor: ...


@runtime_checkable
class Perception(Protocol):
    """s[0] = Enc(x)."""

    def encode(self, observation: Observation) -> State: ...

    def status(self) -> dict[str, float]: ...


@runtime_checkable
class WorldModel(Protocol):
    """s[t+1] = Pred(s[t], a[t]); one imagined step covers a block of K primitive actions."""

    action_block: int

    def predict(self, state: State, actions: Tensor) -> State:
        """One step: state (B, ...), actions (B, K, A) -> state (B, ...)."""
        ...

    def rollout(self, state: State, actions: Tensor) -> State:
        """Open loop: state (B, ...), actions (B, H, K, A) -> states s[1:H+1], (B, H, ...)."""
        ...

    def status(self) -> dict[str, float]: ...


@runtime_checkable
class Cost(Protocol):
    """C(s) = IC(s) + TC(s)."""

    def path(self, states: State, actions: Tensor, directive: Directive) -> PathCost:
        """Cost of states (E, ..., H, D) reached by actions (E, ..., H, K, A); goal of the directive (E, D)."""
        ...

    def here(self, state: State, directive: Directive) -> PathCost:
        """Cost of states (E, D) themselves, H = 1."""
        ...

    def status(self) -> dict[str, float]: ...


@runtime_checkable
class Planner(Protocol):
    """Pure search over action sequences by asking and telling; it knows neither model nor cost."""

    candidates: Tensor
    """(E, N, H, K, A) the candidates of the last iteration."""
    energy: Tensor
    """(E, N) and their energies."""

    def ask(self) -> Tensor:
        """The next candidates, (E, N, H, K, A), inside the action space. The gradient planner's require grad."""
        ...

    def tell(self, candidates: Tensor, energy: Tensor) -> None:
        """Learn from the energies (E, N) of the candidates just proposed."""
        ...

    def best(self) -> Plan:
        """The best plan seen so far, never worse than the first proposal."""
        ...
