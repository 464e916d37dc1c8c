"""The actor: Mode-1 acts by a policy, Mode-2 proposes plans and improves them (LeCun 2022, section 3.1).

Mode-1 is one pass through a goal-conditioned policy. Mode-2 is a search by a planner; the loop around it (simulate,
evaluate, improve) stands in agent/agent.py. Mode-2 teaches Mode-1: the policy is distilled from plans.

Shapes: E episodes, H imagined steps, K primitive actions a step, A action.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modules.types import ActionSpace, Directive, Embedding, Planner, State


@dataclass(frozen=True)
class Config:
    """Settings of the policy."""

    hidden: int = 128
    """Hidden units of the policy."""


class Policy(nn.Module):
    """A(s, g): one action, to be held for a block. No search."""

    offset: Tensor
    scale: Tensor

    def __init__(self, config: Config, actions: ActionSpace, state: Embedding, goal: Embedding) -> None:
        """state and goal: modules from State to a vector of config.hidden numbers."""
        super().__init__()
        self.actions, self.state, self.goal = actions, state, goal
        self.net = nn.Sequential(
            nn.SiLU(),
            nn.Linear(config.hidden, config.hidden),
            nn.SiLU(),
            nn.Linear(config.hidden, actions.size),
        )
        low, high = torch.tensor(actions.low), torch.tensor(actions.high)
        self.register_buffer("offset", (low + high) / 2)
        self.register_buffer("scale", (high - low) / 2)

    def forward(self, state: State, goal: State) -> Tensor:
        """States (B, ...), goals (B, ...) -> actions (B, A) in the world's units, inside the action space."""
        x = self.net(self.state(state) + self.goal(goal))
        return self.actions.clip(torch.addcmul(self.offset, self.scale, x))


class Actor(nn.Module):
    """Proposals for Mode-2, actions for Mode-1."""

    trained: Tensor

    def __init__(
        self,
        policy: Policy,
        planners: Mapping[str, Callable[[ActionSpace, Tensor, int, int, torch.Generator], Planner]],
        block: int,
        seed: int = 0,
    ) -> None:
        """planners: name -> factory(space, start, samples, iterations, generator); block: K."""
        super().__init__()
        self.policy, self.planners, self.block = policy, planners, block
        self.generator = torch.Generator().manual_seed(seed)
        self.register_buffer("trained", torch.zeros((), dtype=torch.bool))
        """Whether the policy has been distilled; saved with the weights."""
        self._elite_std = 0.0

    def act(self, state: State, directive: Directive) -> Tensor:
        """Mode-1: (E, ...) -> (E, A)."""
        if directive.goal is None:
            raise ValueError("the policy is goal-conditioned and the task has no goal: give a goal, or use mode 2")
        return self.policy(state, directive.goal)

    def propose(self, state: State, directive: Directive, last: Tensor | None) -> Tensor:
        """Step 2 of Mode-2: a first plan (E, H, K, A), the rest of the last one (E, L, A) or no movement."""
        space, episodes, device = self.policy.actions, state.latent.shape[0], state.latent.device
        low, high = torch.tensor(space.low, device=device), torch.tensor(space.high, device=device)
        length = directive.horizon * self.block
        start = ((low + high) / 2).expand(episodes, length, -1).clone()
        if last is not None and directive.warm_start and last.shape[0] == episodes:
            start[:, : last.shape[1]] = last[:, :length]
        return start.unflatten(1, (directive.horizon, self.block))

    def search(self, start: Tensor, directive: Directive) -> Planner:
        """A planner that begins at start (E, H, K, A)."""
        factory = self.planners[directive.planner]
        return factory(self.policy.actions, start, directive.samples, directive.iterations, self.generator)

    def status(self) -> dict[str, float]:
        """What the configurator may know of the actor."""
        return {"policy_trained": float(self.trained)}


def distillation_loss(policy: Policy, state: State, goal: State, planned: Tensor) -> Tensor:
    """D(a*, A(s, g)): squared difference to the planned action (B, A), in half action ranges (section 3.1.3)."""
    return ((policy(state, goal) - planned) / policy.scale).square().mean()
