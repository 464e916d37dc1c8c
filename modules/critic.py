# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The critic: trainable cost TC(s, g), the discounted cost-to-go of each drive, learned from memory (LeCun 2022, 3.3).

Shapes: P scenes, R records of each, N futures of each record, G goals of the same scene, K primitive actions a block,
A action, D latent, J drives (one head each), M critics of the ensemble.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modules.blocks import mlp
from modules.types import Drive, Embedding, Float, Imagined, State


@dataclass(frozen=True)
class Config:
    """Settings of the critic."""

    enabled: bool = True
    """Learn a trainable cost; without it the plan's last state pays its intrinsic cost instead."""
    hidden: int = 128
    """Hidden units."""
    ensemble: int = 2
    """M: critics; the cost-to-go is their mean when acting and their maximum when learning."""


class Critic(nn.Module):
    """TC(s, g): what is read of state and goal, added, then an ensemble of heads. Output in steps, discounted.

    The goal head holds the cost from s on, s included: 0 at the goal. The head of any other drive holds what follows s.
    """

    def __init__(
        self, config: Config, state: Embedding, goal: Embedding, discount: float, drives: Sequence[Drive]
    ) -> None:
        """state and goal: modules from State to a vector of config.hidden numbers. drives: one head for each."""
        super().__init__()
        self.discount, self.drives, self.ensemble = discount, tuple(drives), config.ensemble
        self.names = tuple(drive.name for drive in drives)
        self.state, self.goal = state, goal
        last = nn.Linear(config.hidden, len(self.drives) * config.ensemble)
        self.heads = nn.Sequential(nn.SiLU(), nn.Linear(config.hidden, config.hidden), nn.SiLU(), last)
        # Values begin high and come down from the goals outwards, as shortest paths do; from below they creep up.
        nn.init.constant_(last.bias, 0.5)

    def forward(self, state: State, embedded_goal: Tensor) -> Float[Tensor, "*B J M"]:
        """State (..., D), embedded goal that broadcasts -> cost-to-go (..., J, M) in [0, 1 / (1 - gamma)]."""
        value = torch.sigmoid(self.heads(self.state(state) + embedded_goal)) / (1 - self.discount)
        return value.unflatten(-1, (len(self.drives), self.ensemble))


class RewardPredictor(nn.Module):
    """The environment's reward as a trainable cost: how much less than the best reward a block of actions brings.

    Used only by asking for the environment's reward by name; nothing of it reaches perception or world model.
    """

    best: Tensor
    worst: Tensor

    def __init__(self, latent: int, proprio: int, action: int, hidden: int = 256) -> None:
        """action: numbers of one block, K * A."""
        super().__init__()
        self.net = mlp([latent + proprio + action, hidden, hidden, 1])
        self.register_buffer("best", torch.ones(()))
        self.register_buffer("worst", torch.zeros(()))
        """The range of rewards that was seen: cost 0 and cost 1."""

    def forward(self, states: State, features: Tensor) -> Float[Tensor, "*B"]:
        """States (..., D) that were reached by blocks with features (..., K * A) -> cost (...), 0 to about 1."""
        return self.net(torch.cat([states.latent, states.proprio, features], -1))[..., 0]

    def cost(self, reward: Tensor) -> Tensor:
        """Rewards -> the cost that is learned."""
        return (self.best - reward) / (self.best - self.worst).clamp(min=1e-6)


def critic_loss(
    critic: Critic,
    target: Critic,
    state: State,
    futures: Imagined,
    blocks: Float[Tensor, " N"],
    goal: State,
    shuffled: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Learn the cost-to-go until the goal is reached by value iteration over imagined futures.

    With V_n = what follows when future n, k_n blocks ahead, is chosen, and n* = argmin_n sum_j u_j V_n,j:

        TC_goal(s, g) = IC_goal(s, g) (1 + gamma V_n*)
            with V_n = 1 + gamma + ... + gamma^(k_n - 2) + gamma^(k_n - 1) TC'_goal(s_n, g)
        TC_j(s, g) = IC_goal(s, g) V_n*,j
            with V_n,j = (1 + gamma + ... + gamma^(k_n - 1)) IC_j(s_n) + gamma^k_n TC'_j(s_n, g)

    A goal ends all costs, since IC_goal is 0 there. For the goal head each step before s_n costs 1, the most that a
    step can; for other drives all of them cost what the last does. The futures of a record are the state perceived
    after it and states imagined under other actions, so that the critic values what can be done rather than what was
    done. TC' is the slow copy, pessimistic over its ensemble; nothing flows into the encoder.

    Args:
        critic: learns.
        target: the slow copy of it.
        state: (P, R, ...) detached.
        futures: (P, R, N, ...) detached; its actions (P, R, N, K, A) are only needed by drives that look at them.
        blocks: (N,) the k_n.
        goal: (P, G, ...) detached.
        shuffled: give every pair the target of another scene, record and goal (placebo).

    Returns:
        The loss, and metrics by name.
    """
    gamma, names = critic.discount, critic.names
    here, there = state.map(lambda x: x.unsqueeze(2)), goal.map(lambda x: x.unsqueeze(1))
    with torch.no_grad():
        embedded = target.goal(goal)[:, None, None]  # P 1 1 G h
        value = target(futures.states.map(lambda x: x.unsqueeze(-2)), embedded).amax(-1)  # P R N G J
        follows: list[Tensor] = []
        away = torch.ones_like(value[:, :, 0, :, 0])
        for j, drive in enumerate(critic.drives):
            if names[j] == "goal":
                later = gamma ** (blocks[:, None] - 1)
                follows.append((1 - later) / (1 - gamma) + later * value[..., j])
                away = drive(Imagined(here, None), there)  # P R G
            else:
                later = gamma ** blocks[:, None]
                follows.append(drive(futures, None)[..., None] * (1 - later) / (1 - gamma) + later * value[..., j])
        total = torch.stack([d.weight * v for d, v in zip(critic.drives, follows, strict=True)]).sum(0)
        best = total.argmin(2, keepdim=True)
        after = [v.gather(2, best).squeeze(2) for v in follows]  # P R G each
        wanted = torch.stack(
            [away * (1 + gamma * v) if name == "goal" else away * v for name, v in zip(names, after, strict=True)], -1
        )
        if shuffled:
            wanted = wanted.roll((1, 1, 1), (0, 1, 2))
    value = critic(here, critic.goal(goal)[:, None])
    loss = (value - wanted.unsqueeze(-1)).square().mean()
    return loss, {"critic": loss.detach(), "critic_value": value.detach().mean(), "critic_target": wanted.mean()}
