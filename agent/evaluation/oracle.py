"""Oracles: the truth in place of what was learned, to find out which part of a failure is whose.

Four cells tell: {learned, oracle} dynamics x {latent, true} cost. Where the oracle dynamics helps, the world model is
at fault; where the true cost helps, the cost is; where neither does, the search is.

Shapes: E episodes, B imagined paths, H imagined steps, K primitive actions a step, L landmarks of an episode, P numbers
of a physical state.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from agent.interaction.environment import as_tensors
from envs import Simulator
from envs.api import Array
from envs.gym_env import as_observation
from modules.perception import Encoder
from modules.types import Directive, PathCost, State

LANDMARKS = 512


def perceive(perception: Encoder, simulator: Simulator, states: Array) -> State:
    """Physical states (N, P) as the agent perceives them."""
    percepts, device = as_tensors(as_observation(simulator.observe(states))), perception.sensor_offset.device
    return perception.encode(percepts.map(lambda x: x.to(device)))


class OracleDynamics:
    """The true dynamics as a drop-in for the world model: imagines by simulating, then perceiving.

    It reads the true state of the episodes from `states`, set before each decision; noise is left out.
    """

    def __init__(self, simulator: Simulator, perception: Encoder, block: int) -> None:
        self.simulator, self.perception, self.action_block = simulator, perception, block
        self.states: Array = np.zeros((0, 0))
        self.visited: Array = np.zeros((0, 0, 0))
        """(B, H, P) true states of the last rollout."""

    def rollout(self, state: State, actions: Tensor) -> State:
        """As the world model's; state (B, ...) where B is a multiple of the number of episodes."""
        states = np.repeat(self.states, len(actions) // len(self.states), 0)
        chunks = actions.detach().cpu().numpy()
        out, visited = [], []
        for h in range(chunks.shape[1]):
            for k in range(chunks.shape[2]):
                states = self.simulator.step(states, chunks[:, h, k], None)
            out.append(perceive(self.perception, self.simulator, states))
            visited.append(states)
        self.visited = np.stack(visited, 1)
        return State.stack(out, 1)

    def predict(self, state: State, actions: Tensor) -> State:
        """One step: actions (B, K, A)."""
        return self.rollout(state, actions[:, None])[:, 0]

    def status(self) -> dict[str, float]:
        """As the world model's."""
        return {"oracle": 1.0}


class TrueCost:
    """What the goal really costs as a drop-in for the learned cost: the oracle controller's way from there.

    An imagined state is taken for the nearest of LANDMARKS true ones of the same scene, as the agent perceives them;
    where oracle dynamics imagine, the true states are known and nothing learned is left. The energy is the critic's:
    1 for every step that does not end at the goal, then the discounted number of steps that the oracle controller
    still needs.
    """

    def __init__(
        self, simulator: Simulator, perception: Encoder, block: int, limit: int, dynamics: OracleDynamics | None = None
    ) -> None:
        """limit: primitive actions after which a goal counts as out of reach. dynamics: the oracle that imagines."""
        self.simulator, self.perception, self.block, self.limit = simulator, perception, block, limit
        self.dynamics = dynamics
        self.landmarks = State(torch.empty(0, 0, 0), torch.empty(0, 0, 0))
        """(E, L, ...), set by `survey`."""
        self.goals: Array = np.zeros((0, 0))
        self.steps = torch.empty(0, 0)
        """(E, L) primitive actions from each landmark to its episode's goal."""

    @torch.no_grad()
    def survey(self, goals: Array) -> None:
        """Spread landmarks over the scenes of the goals (E, P), goals included, and walk from each to its goal."""
        rng = np.random.default_rng(0)
        wanted = np.repeat(goals, LANDMARKS, 0)
        start = self.simulator.reset_within_scene(rng, wanted)
        start[::LANDMARKS] = goals
        pieces = [perceive(self.perception, self.simulator, x) for x in np.array_split(start, len(goals))]
        self.landmarks, self.goals = State.stack(pieces, 0), goals
        self.steps = self._walk(start, wanted).view(len(goals), LANDMARKS).to(self.landmarks.latent.device)

    def _walk(self, states: Array, goals: Array) -> Tensor:
        """Primitive actions that the oracle controller needs from states to goals, both (N, P); at most the limit."""
        steps = np.where(self.simulator.success(states, goals), 0, self.limit)
        for t in range(1, self.limit):
            left = steps == self.limit
            if not left.any():
                break
            states = states.copy()
            states[left] = self.simulator.step(
                states[left], self.simulator.expert_action(states[left], goals[left]), None
            )
            steps[left & self.simulator.success(states, goals)] = t
        return torch.from_numpy(steps).float()

    def remaining(self, states: State, known: Array | None = None) -> Tensor:
        """Blocks that the oracle controller needs from imagined states (E, ..., D) to the goal, (E, ...).

        known: the true states (E * ..., P), where they are.
        """
        if known is not None:
            flat = known.reshape(-1, known.shape[-1])
            steps = self._walk(flat, np.repeat(self.goals, len(flat) // len(self.goals), 0)).to(self.steps.device)
        else:
            proprio = list(self.perception.senses.goal_proprio)
            seen, marks = (x.proprio[..., proprio] if proprio else x.latent for x in (states, self.landmarks))
            # About their mean: what hardly varies would drown in the rounding of its length.
            seen, middle = seen.reshape(len(marks), -1, seen.shape[-1]), marks.mean((0, 1))
            steps = self.steps.gather(1, torch.cdist(seen - middle, marks - middle).argmin(-1))
        return (steps / self.block).view(states.batch_shape)

    def path(self, states: State, actions: Tensor, directive: Directive) -> PathCost:
        """As the cost's: states (E, ..., H, D)."""
        return self._energy(self.remaining(states, self.dynamics and self.dynamics.visited), directive)

    def _energy(self, remaining: Tensor, directive: Directive) -> PathCost:
        gamma, horizon = directive.discount, remaining.shape[-1]
        away = (remaining > 0).float()
        away[..., -1] = 0.0
        later = torch.zeros_like(away)
        later[..., -1] = gamma**horizon * (1 - gamma ** remaining[..., -1]) / (1 - gamma)
        return PathCost({"goal": away}, later, (away + later).sum(-1))

    def here(self, state: State, directive: Directive) -> PathCost:
        """As the cost's: states (E, D) themselves, H = 1."""
        return self._energy(self.remaining(state.map(lambda x: x[:, None])), directive)

    def status(self) -> dict[str, float]:
        """As the cost's; it stands at the end of a plan as a critic does."""
        return {"critic_trained": 1.0}
