# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Cost: C(s) = sum_j u_j IC_j(s) + sum_j v_j TC_j(s) (LeCun 2022, section 3.2).

The drives IC_j have no parameters, can be computed on imagined states and are differentiable (`modules/drives.py`). The
critic TC has a head for each drive (`modules/critic.py`). The Directive may weigh the terms; nothing may change what
they measure.

Shapes: E episodes, H imagined steps, K primitive actions a step, A action, D latent, I proprio, J drives, M critics.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from modules.types import Actions, Directive, Drive, Embedding, Imagined, State, TrajectoryCost

REWARD = "reward"
"""The name among the drives by which the environment's own reward is asked for."""


@dataclass(frozen=True)
class Config:
    """Settings of the intrinsic drives."""

    drives: tuple[str, ...] = ("goal",)
    """Intrinsic drives by name: goal, effort, contact, survive, a known task, FILE:FUNCTION; or reward, which is the
    environment's own and learned. With a goal the critic learns a head for each."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """u_j: weight of a drive by name; 1 for drives that are not named. May be changed after learning."""
    floors: Mapping[str, float] = field(default_factory=dict)
    """Guardrails: weights that no task can go below, by drive."""
    goal_scale: float = 1.0
    """Squared distance at which the goal drive reaches 1 - 1/e. A constant of the preset, never learned."""
    saturate: bool = True
    """Goal drive 1 - exp(-d / goal_scale); otherwise d / goal_scale."""

    def __post_init__(self) -> None:
        for flag, given in (("--cost.weights", self.weights), ("--cost.floors", self.floors)):
            for name, value in given.items():
                if name not in self.drives:
                    raise ValueError(f"{flag} names {name!r}: the drives are {', '.join(self.drives)} (--cost.drives)")
                if not 0 <= value < float("inf"):
                    raise ValueError(f"{flag} {name} must be a number from 0, got {value}")
        if self.goal_scale <= 0:
            raise ValueError(f"--cost.goal-scale must be more than 0, got {self.goal_scale}")


class HeadedCritic(Protocol):
    """What the cost needs of a critic (see `modules.critic.Critic`)."""

    names: tuple[str, ...]
    """The drive of each head."""
    goal: Embedding

    def __call__(self, state: State, embedded_goal: Tensor, /) -> Tensor:
        """State (..., D) and an embedded goal that broadcasts -> cost-to-go (..., J, M)."""
        ...


class CostModule(nn.Module):
    """IC and TC of imagined trajectories (Protocol `types.Cost`)."""

    trained: Tensor
    reward_trained: Tensor

    def __init__(
        self,
        drives: Sequence[Drive],
        critic: nn.Module | None = None,
        reward: nn.Module | None = None,
        actions: Actions | None = None,
    ) -> None:
        """critic: see `HeadedCritic`; None plans by the drives alone. reward: see `modules.critic.RewardPredictor`."""
        super().__init__()
        self.reward, self.actions = reward, actions
        self.drives = {drive.name: drive for drive in drives}
        self.critic = critic
        self.target = copy.deepcopy(critic)
        """Slow copy that gives the critic its targets."""
        if self.target is not None:
            self.target.requires_grad_(False)
        self.register_buffer("trained", torch.zeros((), dtype=torch.bool))
        """Whether the critic has learned; saved with the weights."""
        if reward is not None:
            self.register_buffer("reward_trained", torch.zeros((), dtype=torch.bool))

    def intrinsic(self, imagined: Imagined, directive: Directive) -> dict[str, Tensor]:
        """Weighted IC by drive: imagined (E, ..., H, D) -> (E, ..., H) each. Drives with weight 0 are left out."""
        out: dict[str, Tensor] = {}
        goal = None
        if directive.goal is not None:
            goal = directive.goal.state.map(lambda x: _beside(x, imagined.states.latent.dim()))
        for name, weight in directive.weights.items():
            if name not in self.drives:
                raise ValueError(f"unknown drive {name!r} in the directive: the drives are {sorted(self.drives)}")
            if weight:
                out[name] = weight * self.drives[name](imagined, goal)
        return out

    def trajectory(self, imagined: Imagined, directive: Directive) -> TrajectoryCost:
        """Energy of imagined trajectories (E, ..., H, D) for the goal (E, D) of each episode.

        `terminal`: F = sum_{t<H} IC(s[t]) + gamma^H TC(s[H]); without a critic the last state pays IC instead.
        `literal`: F = sum_t IC(s[t]) + TC(s[t]) as the paper prints it, which counts the future more than once.
        `last`: as `terminal`, without the sum: F = gamma^H TC(s[H]), or IC(s[H]) without a critic.
        """
        drives = self.intrinsic(imagined, directive)
        states = imagined.states
        horizon = states.latent.shape[-2]
        critic = states.latent.new_zeros(states.batch_shape)
        literal = directive.energy == "literal"
        value = self.to_go(states if literal else states[..., -1:, :], directive)
        if value is not None and literal:
            critic = value
        elif value is not None:
            critic = torch.cat([critic[..., :-1], directive.discount**horizon * value], -1)
            # At s[H] the critic's goal head replaces the goal drive, whose cost at s[H] it includes; others still pay.
            if "goal" in drives:
                drives["goal"] = torch.cat([drives["goal"][..., :-1], torch.zeros_like(value)], -1)
        if directive.energy == "last":
            drives = {k: torch.cat([torch.zeros_like(v[..., :-1]), v[..., -1:]], -1) for k, v in drives.items()}
        if (reward := self.rewarded(imagined, directive)) is not None:
            critic = critic + reward
        energy = critic.sum(-1)
        for cost in drives.values():
            energy = energy + cost.sum(-1)
        return TrajectoryCost(drives, critic, energy)

    def rewarded(self, imagined: Imagined, directive: Directive) -> Tensor | None:
        """Weighted cost of the reward that each imagined step is predicted to bring, (E, ..., H); None if not asked."""
        weight = directive.critic_weights.get(REWARD, 0.0)
        if self.reward is None or not weight or imagined.actions is None:
            return None
        assert self.actions is not None
        return weight * self.reward(imagined.states, self.actions.features(imagined.actions).flatten(-2))

    def to_go(self, states: State, directive: Directive) -> Tensor | None:
        """Weighted TC of states (E, ..., H, D) -> (E, ..., H); None where the critic is absent or not asked."""
        if self.critic is None or directive.goal is None or not any(directive.critic_weights.values()):
            return None
        critic: HeadedCritic = self.critic  # pyright: ignore[reportAssignmentType]
        goal = _beside(directive.goal.embedded(critic.goal), states.latent.dim())
        heads = critic(states, goal).mean(-1)
        weights = [directive.critic_weights.get(name, 0.0) for name in critic.names]
        if len(weights) == 1:  # the usual case, without a sum over one head
            return weights[0] * heads[..., 0]
        return (heads * heads.new_tensor(weights)).sum(-1)

    def state(self, state: State, directive: Directive) -> TrajectoryCost:
        """C(s) = IC(s) + TC(s) of states (E, D) themselves, which no action of a plan has reached; H = 1."""
        one = state.map(lambda x: x[:, None])
        drives = self.intrinsic(Imagined(one, None), directive)
        value = self.to_go(one, directive)
        critic = torch.zeros_like(one.latent[..., 0]) if value is None else value
        return TrajectoryCost(drives, critic, sum(drives.values(), critic)[:, 0])

    @torch.no_grad()
    def update_target(self, rate: float) -> None:
        """Move the target critic towards the critic."""
        if self.critic is not None and self.target is not None:
            for slow, fast in zip(self.target.parameters(), self.critic.parameters(), strict=True):
                slow.lerp_(fast, rate)

    def status(self) -> dict[str, float]:
        """What the configurator may know of the cost."""
        critic = {"critic_trained": float(self.trained) if self.critic is not None else 0.0}
        return critic if self.reward is None else {**critic, "reward_trained": float(self.reward_trained)}


def _beside(x: Tensor, dims: int) -> Tensor:
    """(E, D) -> (E, 1, ..., 1, D) with `dims` axes: one goal per episode beside all its trajectories."""
    return x.reshape(x.shape[0], *[1] * (dims - 2), x.shape[-1])
