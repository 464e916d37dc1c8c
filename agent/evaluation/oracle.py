"""Oracles: the truth in place of what was learned, to locate the cause of failures.

Four cells tell: {learned, oracle} dynamics x {latent, true} cost. Where the oracle dynamics helps, the world model is
at fault; where the true cost helps, the cost is; where neither does, the search is.

Shapes: E episodes, B imagined trajectories, H imagined steps, K primitive actions a step, N states, S numbers of a
physical state, D latent, I proprio.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agent.interaction.environment import Environment
from agent.spec import as_tensors
from envs.api import Array, Simulator
from envs.gym_env import as_observation
from modules.blocks import device_of, mlp
from modules.types import Directive, Imagined, Perception, State, TrajectoryCost

READER_STATES, READER_STEPS, READER_BATCH = 6000, 1200, 256


def perceive(perception: Perception, simulator: Simulator, states: Array) -> State:
    """Physical states (N, S) as the agent perceives them, each as the first moment of an episode.

    A perception with a carry cannot tell from a first moment what only a history shows (a hidden velocity): goals in
    its latent, and what oracle dynamics imagine, lack it. Proprio do not.
    """
    percepts, device = as_tensors(as_observation(simulator.observe(states))), device_of(perception)
    return perception.encode_window(percepts.map(lambda x: x[:, None].to(device)))[:, 0]


class OracleDynamics:
    """The true dynamics in place of the world model: imagines by simulating, then perceiving (`types.WorldModel`).

    It reads the true state of the episodes from `states`, set before each decision; noise is left out.
    """

    z_size = 0
    continues = False  # what it imagines does not say in which true state it is

    def __init__(self, simulator: Simulator, perception: Perception, block: int) -> None:
        self.simulator, self.perception, self.action_block = simulator, perception, block
        self.states: Array = np.zeros((0, 0))
        self.visited: Array = np.zeros((0, 0, 0))
        """(B, H, S) true states of the last rollout."""

    def rollout(self, state: State, actions: Tensor, z: Tensor | None = None, context: Any = None) -> Imagined:
        """As the world model's; state (B, ...) where B is a multiple of the number of episodes."""
        states = np.repeat(self.states, len(actions) // len(self.states), 0)
        chunks = actions.detach().cpu().numpy()
        out: list[State] = []
        visited: list[Array] = []
        for h in range(chunks.shape[1]):
            for k in range(chunks.shape[2]):
                states = self.simulator.step(states, chunks[:, h, k], None)
            out.append(perceive(self.perception, self.simulator, states))
            visited.append(states)
        self.visited = np.stack(visited, 1)
        return Imagined(State.stack(out, 1), actions)

    def predict(self, state: State, actions: Tensor, z: Tensor | None = None, context: Any = None) -> State:
        """One step: actions (B, K, A)."""
        return self.rollout(state, actions[:, None]).states[:, 0]

    def status(self) -> dict[str, float]:
        """As the world model's."""
        return {"oracle": 1.0}


class StateReader(nn.Module):
    """Physical states out of the agent's: an MLP, kept inside the range of the states that it was fitted on."""

    def __init__(self, sizes: list[int], states: Tensor, features: Tensor) -> None:
        """states (N, S) and features (N, D + I) that it will be fitted on, for scales and limits."""
        super().__init__()
        self.low, self.high = states.amin(0), states.amax(0)
        self.mean, self.std = states.mean(0), states.std(0).clamp(min=1e-6)
        self.centre, self.width = features.mean(0), features.std(0).clamp(min=1e-6)
        self.net = mlp(sizes)

    def forward(self, features: Tensor) -> Tensor:
        """(..., D + I) -> standardised state (..., S)."""
        return self.net((features - self.centre) / self.width)

    @torch.no_grad()
    def read(self, state: State) -> Array:
        """State (..., D) -> physical states (..., S)."""
        standard = self(_features(state))
        return torch.clamp(self.mean + self.std * standard, self.low, self.high).double().cpu().numpy()


def fit_reader(perception: Perception, environment: Environment, seed: int = 0) -> tuple[StateReader, float]:
    """Fit a reader of the true state on states that the environment draws, tasks' scenes included.

    Returns:
        The reader, and its error on states held out: mean distance of positions, or of states without a map.
    """
    truth = environment.truth
    assert truth is not None
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    states = truth.reset(rng, READER_STATES)
    if environment.scenes is not None and environment.goals is not None:
        # Half of them in the scenes of tasks, which `reset` may never draw.
        scenes = environment.goals.sample_tasks(rng, READER_STATES // 2).start
        states[::2] = environment.scenes.reset_within_scene(rng, scenes)
    with torch.no_grad():
        parts = [_features(perceive(perception, truth, part)) for part in np.array_split(states, READER_STATES // 200)]
    seen, wanted = torch.cat(parts).detach(), torch.from_numpy(states).float().to(parts[0].device)
    train = READER_STATES * 5 // 6
    with torch.random.fork_rng(devices=[]):  # weights that depend on the seed only
        torch.manual_seed(seed)
        reader = StateReader([seen.shape[1], 256, 256, states.shape[1]], wanted[:train], seen[:train])
    reader = reader.to(seen.device)
    standard = (wanted - reader.mean) / reader.std
    optimiser = torch.optim.Adam(reader.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, READER_STEPS)
    for _ in range(READER_STEPS):
        index = torch.randint(train, (READER_BATCH,), generator=generator)
        loss = (reader(seen[index]) - standard[index]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        guess = torch.clamp(reader.mean + reader.std * reader(seen[train:]), reader.low, reader.high)
    guessed, true = guess.double().cpu().numpy(), states[train:]
    if environment.view is not None:
        guessed, true = environment.view.positions(guessed), environment.view.positions(true)
    return reader, float(np.linalg.norm(guessed - true, axis=1).mean())


def _features(state: State) -> Tensor:
    return torch.cat([state.latent, state.proprio], -1)


class TrueCost:
    """What the goal really costs in place of the learned cost: the expert's way from there (`types.Cost`).

    Where oracle dynamics imagine, the true states are known; elsewhere a fitted reader reads them out of what is
    imagined. The energy is the critic's: 1 for every step that does not end at the goal, then the discounted number of
    steps that the expert still needs.
    """

    def __init__(
        self,
        environment: Environment,
        block: int,
        limit: int,
        dynamics: OracleDynamics | None = None,
        reader: StateReader | None = None,
    ) -> None:
        """limit: primitive actions after which a goal counts as out of reach. dynamics: the oracle that imagines."""
        assert environment.truth is not None and environment.goals is not None and environment.expert is not None
        self.simulator, self.tests, self.expert = environment.truth, environment.goals, environment.expert
        self.block, self.limit, self.dynamics, self.reader = block, limit, dynamics, reader
        self.scenes = environment.scenes
        self.goals: Array = np.zeros((0, 0))
        """(E, S) of the episodes under way."""

    def _true(self, states: State, known: Array | None) -> Array:
        """Physical states (E * ..., S) of imagined ones (E, ..., D), in the scenes of their episodes."""
        if known is not None:
            return known.reshape(-1, known.shape[-1])
        assert self.reader is not None, "a true cost needs oracle dynamics or a reader of true states"
        read = self.reader.read(states).reshape(-1, self.goals.shape[-1])
        if self.scenes is not None:
            goals = np.repeat(self.goals, len(read) // len(self.goals), 0)
            scene = (self.scenes.reset_within_scene(np.random.default_rng(0), goals) == goals).all(0)
            read[:, scene] = goals[:, scene]
        return read

    def _walk(self, states: Array, goals: Array) -> Array:
        """Primitive actions that the expert needs from states to goals, both (N, S); at most the limit."""
        steps = np.where(self.tests.success(states, goals), 0, self.limit)
        for t in range(1, self.limit):
            left = steps == self.limit
            if not left.any():
                break
            states = states.copy()
            action = self.expert.expert_action(states[left], goals[left])
            states[left] = self.simulator.step(states[left], action, None)
            steps[left & self.tests.success(states, goals)] = t
        return steps

    def trajectory(self, imagined: Imagined, directive: Directive) -> TrajectoryCost:
        """As the cost's: states (E, ..., H, D)."""
        return self._energy(imagined.states, self.dynamics and self.dynamics.visited, directive)

    def state(self, state: State, directive: Directive) -> TrajectoryCost:
        """As the cost's: states (E, D) themselves, H = 1."""
        known = None if self.dynamics is None else self.dynamics.states
        return self._energy(state.map(lambda x: x[:, None]), known, directive)

    def _energy(self, states: State, known: Array | None, directive: Directive) -> TrajectoryCost:
        shape, device = states.batch_shape, states.latent.device
        true = self._true(states, known)
        goals = np.repeat(self.goals, len(true) // len(self.goals), 0)
        reached = self.tests.success(true, goals).reshape(shape)
        last = np.arange(len(true)).reshape(shape)[..., -1].ravel()
        blocks = torch.from_numpy(self._walk(true[last], goals[last]) / self.block).float().view(shape[:-1]).to(device)
        gamma, horizon = directive.discount, shape[-1]
        away = torch.from_numpy(~reached).float().to(device)
        away[..., -1] = 0.0
        later = torch.zeros_like(away)
        later[..., -1] = gamma**horizon * (1 - gamma**blocks) / (1 - gamma)
        return TrajectoryCost({"goal": away}, later, (away + later).sum(-1))

    def status(self) -> dict[str, float]:
        """As the cost's; it stands at the end of a plan as a critic does."""
        return {"critic_trained": 1.0}
