# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The words that the modules share: percepts, states, imagined futures, directives, plans, decisions; and Protocols.

Shapes: B batch, E episodes acting at once, N candidate plans, T time, H imagined steps (one action block each),
K primitive actions in a block, A numbers of one primitive action, D latent, I proprio, S sensors, Z latent variable,
J drives. Batch axes come first, time after them, features last; pixels are (..., channels, rows, columns). Action t
leads from observation t to observation t + 1.

Symbols follow LeCun, "A Path Towards Autonomous Machine Intelligence" (2022): percept x, state s, action a, latent
variable z, cost C, intrinsic cost IC, trainable cost (critic) TC, energy F.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

if TYPE_CHECKING:
    from typing import Annotated as Float  # pyright: ignore[reportUnusedImport]
else:
    try:
        from jaxtyping import Float
    except ImportError:  # only tests check shapes; elsewhere Float[Tensor, "B D"] is a comment
        from typing import Annotated as Float

EnergyName = Literal["terminal", "literal", "last"]


# What the environment offers


@dataclass(frozen=True)
class ObservationSpec:
    """What an environment lets the agent perceive: sizes, ranges, and which sensors are proprio."""

    pixel_shape: tuple[int, int, int] | None = None
    """(C, H, W) or None."""
    sensor_low: tuple[float, ...] = ()
    sensor_high: tuple[float, ...] = ()
    proprio_names: tuple[str, ...] = ()
    proprio_index: tuple[int, ...] = ()
    """Position of each proprio in the sensor vector."""
    proprio_offset: tuple[float, ...] = ()
    proprio_scale: tuple[float, ...] = ()
    """proprio = (sensor - offset) / scale."""
    goal_proprio: tuple[int, ...] = ()
    """Positions, among the proprio, of those in which a goal may be given."""
    sensor_names: tuple[str, ...] = ()
    """One name for each sensor, where the environment has any."""
    unseen: tuple[int, ...] = ()
    """Positions of sensors that the encoder does not see: they are proprio and nothing else."""


@dataclass(frozen=True)
class BodySpec:
    """What intrinsic drives need to know of the body: limits of actions, names of proprio, the scale of goals."""

    actions: Actions
    proprio_names: tuple[str, ...] = ()
    proprio_offset: tuple[float, ...] = ()
    proprio_scale: tuple[float, ...] = ()
    """A proprio times its scale plus its offset is in the environment's units; (0, 1) where none is given."""
    goal_proprio: tuple[int, ...] = ()
    """Proprio in which goals are given; without any, goals are compared in the latent."""
    goal_scale: float = 1.0
    """Squared distance at which the goal drive reaches 1 - 1/e."""
    saturate: bool = True
    """Goal drive 1 - exp(-d / goal_scale); otherwise d / goal_scale."""


# Percepts and states


@dataclass(frozen=True)
class Observation:
    """A percept x: what the senses give at one moment. At least one of the two is present."""

    pixels: Tensor | None = None
    """(..., C, H, W) uint8."""
    sensors: Tensor | None = None
    """(..., S) float32, in the environment's own units."""

    def map(self, f: Callable[[Tensor], Tensor]) -> Observation:
        """Apply f to every tensor."""
        return Observation(
            None if self.pixels is None else f(self.pixels), None if self.sensors is None else f(self.sensors)
        )

    def __getitem__(self, index: Any) -> Observation:
        return self.map(lambda x: x[index])

    @property
    def batch(self) -> int:
        """Length of the first axis."""
        first = self.pixels if self.pixels is not None else self.sensors
        assert first is not None
        return first.shape[0]


@dataclass(frozen=True)
class State:
    """A representation s: a learned latent, and proprio (joints, energy, pain) that is copied and never learned."""

    latent: Float[Tensor, "*B D"]
    """(..., D). A spatial latent is a flattened feature map."""
    proprio: Float[Tensor, "*B I"]
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


@runtime_checkable
class Embedding(Protocol):
    """A module from State (..., D) to a vector: what a head reads of a state."""

    def __call__(self, state: State, /) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Goal:
    """The goal state, with a cache of its embeddings.

    Embeddings are valid for the weights they were computed with. Whoever changes weights makes a new Goal
    (see `agent.agent.Agent.weights_changed`).
    """

    state: State
    """(E, ...)."""
    memo: dict[Embedding, Tensor] = field(default_factory=dict)

    def embedded(self, embed: Embedding) -> Tensor:
        """`embed(state)`, (E, ...), computed once; always anew where gradients are recorded."""
        if torch.is_grad_enabled():
            return embed(self.state)
        if embed not in self.memo:
            self.memo[embed] = embed(self.state)
        return self.memo[embed]

    def __getitem__(self, index: Any) -> Goal:
        return Goal(self.state[index], {k: v[index] for k, v in self.memo.items()})


@dataclass(frozen=True)
class Imagined:
    """What a rollout returns, and all that a cost may look at."""

    states: State
    """(..., H, D) s[1..H]."""
    actions: Tensor | None
    """(..., H, K, A) the block that led to each of the states, or None for states that no action has reached."""
    z: Tensor | None = None
    """(..., H, Z) latent variables, where the world model has some."""
    disagreement: Tensor | None = None
    """(..., H) how far the members of an ensemble are apart, where the world model is one."""

    def map(self, f: Callable[[Tensor], Tensor]) -> Imagined:
        """Apply f to every tensor; f must act on leading axes only."""
        rest = (None if x is None else f(x) for x in (self.actions, self.z, self.disagreement))
        return Imagined(self.states.map(f), *rest)

    def but(self, **changes: Any) -> Imagined:
        """A copy with some fields changed."""
        return replace(self, **changes)


# Tasks and directives


@dataclass(frozen=True)
class Task:
    """What is wanted of the agent: a goal percept and, optionally, weights that override the configured ones."""

    goal: Observation | None = None
    """(E, ...) a percept of the environment with the goal reached."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Weights of drives by name."""


@dataclass(frozen=True)
class Directive:
    """What the configurator emits and every other module obeys; nothing else modulates a module at run time."""

    goal: Goal | None
    """(E, ...) the state to reach, or None when there is no goal."""
    weights: Mapping[str, float]
    """u_j: weight of each intrinsic drive by name; a drive that is not named has weight 0."""
    critic_weights: Mapping[str, float]
    """v_j: weight of each head of the trainable cost by drive; if all are 0, the critic is skipped."""
    discount: float
    """gamma of the critic, per imagined step."""
    energy: EnergyName
    """`terminal`: sum of IC, then one critic at the end. `literal`: IC + TC at every step, as the paper prints it.
    `last`: nothing counts but where the plan ends."""
    mode: Literal[1, 2]
    """1: act by the policy, without search. 2: plan."""
    planner: str
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

    def but(self, **changes: Any) -> Directive:
        """A copy with some fields changed."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Situation:
    """What the configurator decides on: everything that it may look at."""

    state: State
    """(E, ...) s[0]."""
    task: Task
    goal: Goal | None
    """(E, ...) the encoded goal of the task."""
    status: Mapping[str, Mapping[str, float]]
    """What every module reports of itself."""
    memory: Any = None
    """The episodic memory (see `modules.memory.EpisodicMemory`), to draw subgoals from."""
    replan: Tensor | None = None
    """(E,) bool: episodes that will plan now."""
    last: Directive | None = None
    """The directive of the decision before, in the same episodes."""
    generator: Generator | None = None
    """For a configurator that draws."""


# Plans, costs, decisions


@dataclass(frozen=True)
class Plan:
    """An action sequence and what it is expected to cost."""

    actions: Float[Tensor, "*E H K A"]
    """(E, H, K, A), or (E, N, H, K, A) for candidates."""
    energy: Float[Tensor, "*E"]
    """(E,), or (E, N)."""


@dataclass(frozen=True)
class TrajectoryCost:
    """The cost of imagined trajectories, term by term. Leading axes are those of the trajectories."""

    drives: dict[str, Tensor]
    """Weighted IC by drive name, each (..., H)."""
    critic: Tensor
    """Weighted, discounted TC, summed over drives, (..., H); zero where the critic is not asked."""
    energy: Tensor
    """F, (...): the sum of everything above."""


@dataclass(frozen=True)
class Decision:
    """The record of one decision: everything that it was made of. Logs, recordings and reports are made from it."""

    mode: int
    state: State
    """(E, ...) s[0]."""
    directive: Directive
    cost: TrajectoryCost
    """Cost of s[0] itself (H = 1)."""
    action: Tensor
    """(E, A) the primitive action; the environment gets it in its own form, `Actions.to_env`."""
    replanned: bool
    """Whether any episode planned now; otherwise every action is the next one of an earlier plan."""
    rows: Tensor | None = None
    """(E',) the episodes that planned now, to which proposal_energy, imagined, plan_cost and candidates belong; None
    where nothing was planned."""
    milliseconds: float = 0.0
    time: Tensor | None = None
    """(E,) primitive actions since each episode began."""
    episode: Tensor | None = None
    """(E,) a number for each episode, which no other episode of this agent has."""
    surprise: Tensor | None = None
    """(E,) one-step prediction error of the last action block, NaN where no block ends now; None where none does."""
    plan: Plan | None = None
    """(E, ...) the plan under way in every episode."""
    proposal_energy: Tensor | None = None
    """(E',) energy of the first proposal, before any improvement."""
    imagined: Imagined | None = None
    """(E', H, ...) imagined under the chosen plan."""
    plan_cost: TrajectoryCost | None = None
    """Cost of the chosen plan, leading axes (E',)."""
    candidates: Plan | None = None
    """The candidates of the last iteration: actions (E', N, H, K, A), energy (E', N), in the order of the search."""
    status: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """What every module reported of itself to the configurator."""

    def but(self, **changes: Any) -> Decision:
        """A copy with some fields changed."""
        return replace(self, **changes)


# Protocols: what a module has to offer to be composed with the others


@runtime_checkable
class Actions(Protocol):
    """An action space as verbs. Nobody else computes centres, ranges or one-hot vectors."""

    @property
    def size(self) -> int:
        """A: numbers of one primitive action."""
        ...

    def project(self, actions: Tensor) -> Tensor:
        """(..., A) -> an action that can be executed, (..., A); such an action stays as it is."""
        ...

    def rest(self, like: Tensor) -> Tensor:
        """The action that a search begins with, (A,), with the dtype and device of `like`."""
        ...

    def unit(self, like: Tensor) -> Tensor:
        """The natural width of each number, (A,): widths and steps of a search are in these units."""
        ...

    def features(self, actions: Tensor) -> Tensor:
        """(..., A) -> what networks see, (..., A), of about unit size."""
        ...

    def scale(self, features: Tensor) -> Tensor:
        """The inverse of `features`, without projection: (..., A) -> (..., A)."""
        ...

    def from_features(self, features: Tensor) -> Tensor:
        """What a network gives, (..., A) -> an action that can be executed, (..., A)."""
        ...

    def boundary(self, direction: Tensor) -> Tensor:
        """Unit vectors (..., A) -> features of the farthest action in that direction, (..., A)."""
        ...

    def primitives(self) -> Tensor:
        """Some actions that stand for all, (N, A): rest first, then full strength, then weaker ones."""
        ...

    def to_env(self, actions: NDArray[Any]) -> NDArray[Any]:
        """(..., A) in the form that the environment's `step` takes."""
        ...

    def from_env(self, actions: NDArray[Any]) -> NDArray[Any]:
        """The inverse of `to_env`, of N actions: (N, ...) -> (N, A)."""
        ...

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Mean squared difference in units of the natural width: (..., A), (..., A) -> scalar."""
        ...


@runtime_checkable
class Perception(Protocol):
    """s[0] = Enc(x), with a carry from moment to moment where a single percept does not tell all.

    The moments are the ends of action blocks, in training (`encode_window`) and in acting (`observe`) alike: a carry
    advances by whole blocks only.
    """

    context: int
    """Observations before a moment that its state depends on; 0 for an encoder without a carry."""
    latent_size: int
    """D."""
    proprio_size: int
    """I."""
    map_shape: tuple[int, int, int] | None
    """(C, rows, columns) of a spatial latent."""

    def initial(self, episodes: int) -> Any:
        """The carry of E episodes before their first observation: None, a tensor (E, ...), or a tuple or dict of such.

        Rows of it are selected by `modules.perception.select_rows`.
        """
        ...

    def observe(
        self, carry: Any, observation: Observation, last_block: Tensor | None, is_first: Tensor
    ) -> tuple[Any, State]:
        """One moment: carry, observation (E, ...) -> the next carry, State (E, ...). Nothing given is changed.

        last_block (E, K, A): the executed block that led to this observation. None at the very first moment; rows of
        is_first (E,) bool have no block and no carry either, whatever stands there. In the middle of a block
        `Agent.act` fills it up with rest and throws the next carry away.
        """
        ...

    def encode_window(self, observations: Observation, actions: Tensor | None = None) -> State:
        """Windows (B, T, ...), and the blocks (B, T - 1, K, A) between their moments -> State (B, T, ...)."""
        ...

    def status(self) -> dict[str, float]: ...


@runtime_checkable
class WorldModel(Protocol):
    """s[t+1] = Pred(s[t], a[t], z[t]); one imagined step covers a block of K primitive actions.

    A model that also has `read(memory, state) -> context` is given what it read from memory in every rollout of a plan.
    One whose rollout cannot go on from a state that it imagined itself has `continues = False` (see `Growing`).
    """

    action_block: int
    """K."""
    z_size: int
    """Z: numbers of the latent variable; 0 for a deterministic model."""

    def predict(self, state: State, actions: Tensor, z: Tensor | None = None, context: Any = None) -> State:
        """One step: state (B, ...), actions (B, K, A), z (B, Z) -> state (B, ...)."""
        ...

    def rollout(self, state: State, actions: Tensor, z: Tensor | None = None, context: Any = None) -> Imagined:
        """Open loop: state (B, ...), actions (B, H, K, A), z (B, H, Z) -> (B, H, ...). context: read from memory."""
        ...

    def status(self) -> dict[str, float]: ...


@runtime_checkable
class Drive(Protocol):
    """One intrinsic cost IC_j: no parameters, computable and differentiable on imagined states."""

    @property
    def name(self) -> str: ...

    @property
    def weight(self) -> float:
        """u_j when no task says otherwise."""
        ...

    @property
    def floor(self) -> float:
        """No task can weigh it less: a guardrail has a floor above 0."""
        ...

    def __call__(self, imagined: Imagined, goal: State | None) -> Tensor:
        """Imagined (..., H, D), a goal that broadcasts against it -> (..., H)."""
        ...


@runtime_checkable
class Cost(Protocol):
    """C(s) = IC(s) + TC(s)."""

    def trajectory(self, imagined: Imagined, directive: Directive) -> TrajectoryCost:
        """Cost of imagined trajectories (E, ..., H, D); goal of the directive (E, D)."""
        ...

    def state(self, state: State, directive: Directive) -> TrajectoryCost:
        """Cost of states (E, D) themselves, H = 1."""
        ...

    def status(self) -> dict[str, float]: ...


@runtime_checkable
class Configurator(Protocol):
    """Sets every other module to the task."""

    def configure(self, situation: Situation) -> Directive: ...


@runtime_checkable
class Planner(Protocol):
    """Pure search over action sequences by asking and telling; it knows neither model nor cost."""

    candidates: Tensor
    """(E, N, H, K, A) the candidates of the last iteration."""
    energy: Tensor
    """(E, N) and their energies."""
    needs_gradient: bool
    """Whether `tell` differentiates the energies with respect to the candidates."""
    rounds: int
    """How often to ask and tell."""

    def ask(self) -> Tensor:
        """The next candidates, (E, N, H, K, A), inside the action space."""
        ...

    def tell(self, candidates: Tensor, energy: Tensor) -> None:
        """Learn from the energies (E, N) of the candidates just asked for."""
        ...

    def best(self) -> Plan:
        """The best plan seen so far, never worse than the first proposal."""
        ...


@runtime_checkable
class Growing(Protocol):
    """What a Planner offers besides if its candidates become longer from round to round, (E, N, d, K, A) with d <= H.

    Whoever simulates may then go on from the states that it imagined before, and imagine the last step only.
    """

    parents: Tensor | None
    """(E, N) candidate n is candidate parents[n] of the round before and one step more; None: they begin anew."""

    def reached(self, ends: State) -> None:
        """The imagined states (E, N, ...) in which the candidates just asked for end; told before their energies."""
        ...


PlannerFactory = Callable[[Actions, Tensor, int, int, Generator], Planner]
"""(actions, start (E, H, K, A), samples, iterations, generator) -> a planner that begins at start."""
