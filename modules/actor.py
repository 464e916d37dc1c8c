# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The actor: Mode-1 acts by a policy, Mode-2 proposes plans and improves them (LeCun 2022, section 3.1).

Mode-1 is one pass through a goal-conditioned policy. Mode-2 is a search by a planner; the loop around it (simulate,
evaluate, improve) is `agent/planning.py`. Mode-2 teaches Mode-1: the policy is distilled from plans.

Shapes: E episodes, H imagined steps, K primitive actions a step, A action.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from modules.blocks import mlp
from modules.types import Actions, Directive, Embedding, Float, Goal, Planner, PlannerFactory, State


@dataclass(frozen=True)
class Config:
    """Settings of the policy."""

    hidden: int = 128
    """Hidden units of the policy."""


class Policy(nn.Module):
    """A(s, g): one action, to be held for a block. No search."""

    def __init__(self, config: Config, actions: Actions, state: Embedding, goal: Embedding) -> None:
        """state and goal: modules from State to a vector of config.hidden numbers."""
        super().__init__()
        self.actions, self.state, self.goal = actions, state, goal
        self.net = nn.Sequential(nn.SiLU(), *mlp([config.hidden, config.hidden, actions.size]))

    def forward(self, state: State, goal: Goal) -> Float[Tensor, "B A"]:
        """States (B, ...), goals (B, ...) -> actions (B, A) in the environment's units, inside the action space."""
        return self.actions.from_features(self.net(self.state(state) + goal.embedded(self.goal)))


class Actor(nn.Module):
    """Proposals for Mode-2, actions for Mode-1."""

    trained: Tensor

    def __init__(self, policy: Policy, planners: Mapping[str, PlannerFactory]) -> None:
        """planners: what `Directive.planner` may name."""
        super().__init__()
        self.policy, self.planners, self.actions = policy, planners, policy.actions
        self.register_buffer("trained", torch.zeros((), dtype=torch.bool))
        """Whether the policy has been distilled; saved with the weights."""

    def act(self, state: State, directive: Directive) -> Tensor:
        """Mode-1: (E, ...) -> (E, A)."""
        if directive.goal is None:
            raise ValueError("the policy is goal-conditioned and the task has no goal: give a goal, or use mode 2")
        return self.policy(state, directive.goal)

    def propose(self, directive: Directive, last: Tensor, action_block: int) -> Tensor:
        """Step 2 of Mode-2: a first plan (E, H, K, A), from the rest of the last plan (E, L, A), L may be 0."""
        length = directive.horizon * action_block
        start = self.actions.rest(last).expand(len(last), length, -1).clone()
        if directive.warm_start:
            start[:, : last.shape[1]] = last[:, :length]
        return start.unflatten(1, (directive.horizon, action_block))

    def search(self, start: Tensor, directive: Directive, generator: Generator) -> Planner:
        """A planner that begins at start (E, H, K, A). ValueError for a planner that does not exist."""
        if directive.planner not in self.planners:
            raise ValueError(f"unknown planner {directive.planner!r}: the planners are {', '.join(self.planners)}")
        factory = self.planners[directive.planner]
        return factory(self.actions, start, directive.samples, directive.iterations, generator)

    def status(self) -> dict[str, float]:
        """What the configurator may know of the actor."""
        return {"policy_trained": float(self.trained)}


def distillation_loss(policy: Policy, state: State, goal: State, planned: Float[Tensor, "B A"]) -> Tensor:
    """D(a*, A(s, g)): squared difference to the planned action (B, A), in half action ranges (section 3.1.3)."""
    return policy.actions.distance(policy(state, Goal(goal)), planned)
