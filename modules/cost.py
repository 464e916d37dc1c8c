"""Cost: C(s) = IC(s) + TC(s) (LeCun 2022, section 3.2).

IC is a weighted sum of drives that have no parameters, can be computed on imagined states and are differentiable. TC is
a critic: the discounted cost-to-go for (state, goal), learned from memory records. The Directive may weigh the terms;
nothing may change what they measure.

Shapes: B paths, H imagined steps, K primitive actions a step, A action, D latent, I proprio, M critics.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modules.types import ActionSpace, Directive, Embedding, PathCost, State


@dataclass(frozen=True)
class Config:
    """Settings of drives and critic."""

    critic: bool = True
    """Learn a trainable cost; without it the plan's last state pays its intrinsic cost instead."""
    hidden: int = 128
    """Hidden units of the critic."""
    ensemble: int = 2
    """M: critics; the cost-to-go is their mean when acting and their maximum when learning."""
    goal_scale: float = 1.0
    """Squared distance at which the goal drive reaches 1 - 1/e. A constant of the world's preset, never learned."""
    saturate: bool = True
    """Goal drive 1 - exp(-d / goal_scale); otherwise d / goal_scale."""


@dataclass(frozen=True)
class Anatomy:
    """What the drives need to know of the body: which proprio mean what, and the limits of actions."""

    actions: ActionSpace
    goal_proprio: tuple[int, ...] = ()
    """Slots in which goals are given; without any, goals are compared in the latent."""
    contact_proprio: int | None = None


def goal_distance(states: State, goal: State, anatomy: Anatomy, config: Config) -> Tensor:
    """How far from the goal: (..., D) states against a goal that broadcasts -> (...)."""
    if anatomy.goal_proprio:
        index = list(anatomy.goal_proprio)
        d = (states.proprio[..., index] - goal.proprio[..., index]).square().sum(-1)
    else:
        d = (states.latent - goal.latent).square().mean(-1)
    d = d / config.goal_scale
    return 1 - torch.exp(-d) if config.saturate else d


def effort(actions: Tensor, anatomy: Anatomy) -> Tensor:
    """Mean squared action in units of its limits: (..., K, A) -> (...)."""
    high = torch.as_tensor(anatomy.actions.high, dtype=actions.dtype, device=actions.device)
    return (actions / high).square().mean((-1, -2))


def contact(states: State, anatomy: Anatomy) -> Tensor:
    """The contact slot where the body has one, 0 elsewhere: (..., I) -> (...)."""
    if anatomy.contact_proprio is None:
        return torch.zeros_like(states.latent[..., 0])
    return states.proprio[..., anatomy.contact_proprio].clamp(0, 1)


DRIVES: dict[str, Callable[..., Tensor]] = {"goal": goal_distance, "effort": effort, "contact": contact}
"""The intrinsic drives by name."""


def intrinsic_hash(anatomy: Anatomy, config: Config) -> str:
    """SHA-256 over source and constants of the intrinsic cost: the same before and after any run."""
    source = "".join(inspect.getsource(f) for f in DRIVES.values())
    return hashlib.sha256(f"{source}{anatomy}{config.goal_scale}{config.saturate}".encode()).hexdigest()


class Critic(nn.Module):
    """TC(s, g): what is read of state and goal, added, then an ensemble of heads. Output in steps, discounted."""

    def __init__(self, config: Config, state: Embedding, goal: Embedding, discount: float) -> None:
        """state and goal: modules from State to a vector of config.hidden numbers."""
        super().__init__()
        self.discount = discount
        self.state, self.goal = state, goal
        last = nn.Linear(config.hidden, config.ensemble)
        self.heads = nn.Sequential(nn.SiLU(), nn.Linear(config.hidden, config.hidden), nn.SiLU(), last)
        # Values begin high and come down from the goals outwards, as shortest paths do; from below they creep up.
        nn.init.constant_(last.bias, 0.5)

    def embed_goal(self, goal: State) -> Tensor:
        """(..., D) -> (..., hidden): the goal's part of the first layer, computed once a plan."""
        return self.goal(goal)

    def forward(self, state: State, embedded_goal: Tensor) -> Tensor:
        """State (..., D), embedded goal that broadcasts -> cost-to-go (..., M) in [0, 1 / (1 - gamma)]."""
        return torch.sigmoid(self.heads(self.state(state) + embedded_goal)) / (1 - self.discount)


class Costs(nn.Module):
    """IC and TC of imagined paths."""

    trained: Tensor

    def __init__(self, config: Config, anatomy: Anatomy, state: Embedding, goal: Embedding, discount: float) -> None:
        """state and goal: modules from State to a vector of config.hidden numbers, which the critic then owns."""
        super().__init__()
        self.config, self.anatomy = config, anatomy
        self.critic = None
        if config.critic:
            self.critic = Critic(config, state, goal, discount)
        self.target = copy.deepcopy(self.critic)
        """Slowly following copy that gives the critic its targets."""
        if self.target is not None:
            self.target.requires_grad_(False)
        self.register_buffer("trained", torch.zeros((), dtype=torch.bool))
        """Whether the critic has learned; saved with the weights."""

    def intrinsic(self, states: State, actions: Tensor | None, directive: Directive) -> dict[str, Tensor]:
        """Weighted IC by drive: states (E, ..., H, D) reached by actions (E, ..., H, K, A), or none -> (E, ..., H)."""
        out: dict[str, Tensor] = {}
        for name, weight in directive.weights.items():
            if name not in DRIVES:
                raise ValueError(f"unknown drive {name!r} in the directive: the drives are {sorted(DRIVES)}")
            if weight == 0 or (name == "goal" and directive.goal is None):
                continue
            if name == "goal":
                assert directive.goal is not None
                goal = directive.goal.map(lambda x: _beside(x, states.latent.dim()))
                out[name] = weight * goal_distance(states, goal, self.anatomy, self.config)
            elif name == "effort":
                if actions is not None:
                    out[name] = weight * effort(actions, self.anatomy)
            else:
                out[name] = weight * contact(states, self.anatomy)
        return out

    def path(self, states: State, actions: Tensor, directive: Directive) -> PathCost:
        """Energy of imagined paths: states (E, ..., H, D), actions (E, ..., H, K, A), goal (E, D) of each episode.

        `terminal`: F = sum_{t<H} IC(s[t]) + gamma^H TC(s[H]); without a critic the last state pays IC instead.
        `literal`: F = sum_t IC(s[t]) + TC(s[t]) as the paper prints it, which counts the future more than once.
        `last`: as `terminal`, without the sum: F = gamma^H TC(s[H]), or IC(s[H]) without a critic.
        """
        drives = self.intrinsic(states, actions, directive)
        horizon = states.latent.shape[-2]
        critic = states.latent.new_zeros(states.batch_shape)
        if self.critic is not None and directive.critic_weight and directive.goal is not None:
            goal = _beside(self.critic.embed_goal(directive.goal), states.latent.dim())
            asked = states if directive.energy == "literal" else states[..., -1:, :]
            value = directive.critic_weight * self.critic(asked, goal).mean(-1)
            if directive.energy == "literal":
                critic = value
            else:
                critic = torch.cat([critic[..., :-1], directive.discount**horizon * value], -1)
                # The critic speaks for the goal from s[H] on, s[H] included; other drives still pay there.
                if "goal" in drives:
                    drives["goal"] = torch.cat([drives["goal"][..., :-1], torch.zeros_like(value)], -1)
        if directive.energy == "last":
            drives = {k: torch.cat([torch.zeros_like(v[..., :-1]), v[..., -1:]], -1) for k, v in drives.items()}
        energy = critic.sum(-1)
        for cost in drives.values():
            energy = energy + cost.sum(-1)
        return PathCost(drives, critic, energy)

    def here(self, state: State, directive: Directive) -> PathCost:
        """C(s) = IC(s) + TC(s) of states (E, D) themselves, which no action of a plan has reached; H = 1."""
        drives = {k: v[:, None] for k, v in self.intrinsic(state, None, directive).items()}
        critic = state.latent.new_zeros(len(state.latent), 1)
        if self.critic is not None and directive.critic_weight and directive.goal is not None:
            value = self.critic(state, self.critic.embed_goal(directive.goal))
            critic = directive.critic_weight * value.mean(-1, keepdim=True)
        return PathCost(drives, critic, sum(drives.values(), critic)[:, 0])

    @torch.no_grad()
    def update_target(self, rate: float) -> None:
        """Move the target critic towards the critic."""
        if self.critic is not None and self.target is not None:
            for slow, fast in zip(self.target.parameters(), self.critic.parameters(), strict=True):
                slow.lerp_(fast, rate)

    def status(self) -> dict[str, float]:
        """What the configurator may know of the cost."""
        return {"critic_trained": float(self.trained) if self.critic is not None else 0.0}


def _beside(x: Tensor, dims: int) -> Tensor:
    """(E, D) -> (E, 1, ..., 1, D) with `dims` axes: one goal per episode beside all its paths."""
    return x.reshape(x.shape[0], *[1] * (dims - 2), x.shape[-1])


def critic_loss(
    costs: Costs, state: State, futures: State, blocks: Tensor, goal: State, shuffled: bool = False
) -> tuple[Tensor, dict[str, Tensor]]:
    """Learn TC(s, g), the cost-to-go until the goal is reached, from memory records (LeCun 2022, section 3.3).

    TC(s, g) = IC(s, g) * (1 + gamma * min_n V_n): what is paid here and, unless this is the goal (IC = 0), the least of
    what follows, V_n = 1 + gamma + ... + gamma^(k_n - 2) + gamma^(k_n - 1) * TC(s_n, g) for a future k_n steps ahead:
    its first k_n - 1 steps cost 1 each, the most that a step can. The futures s_n of a record are the state perceived
    after it and states imagined under other actions, so that the critic values what can be done rather than what was
    done. The target comes from the slow copy, pessimistic over its ensemble; nothing flows into the encoder.

    Shapes: P scenes, R records of each, N futures of each record, G goals of the same scene: state (P, R, ...), futures
    (P, R, N, ...), blocks (N,) the k_n, goal (P, G, ...), all detached. shuffled: every pair is given the target of
    another scene, record and goal, to see what learning from labels that mean nothing would bring.
    """
    assert costs.critic is not None and costs.target is not None
    gamma = costs.critic.discount
    with torch.no_grad():
        embedded = costs.target.embed_goal(goal)[:, None, None]  # P 1 1 G h
        value = costs.target(futures.map(lambda x: x.unsqueeze(-2)), embedded).amax(-1)  # P R N G
        later = gamma ** (blocks[:, None] - 1)
        after = ((1 - later) / (1 - gamma) + later * value).amin(2)
        here, there = state.map(lambda x: x.unsqueeze(2)), goal.map(lambda x: x.unsqueeze(1))
        target = goal_distance(here, there, costs.anatomy, costs.config) * (1 + gamma * after)
        if shuffled:
            target = target.roll((1, 1, 1), (0, 1, 2))
    value = costs.critic(here, costs.critic.embed_goal(goal)[:, None])
    loss = (value - target.unsqueeze(-1)).square().mean()
    return loss, {"critic": loss.detach(), "critic_value": value.detach().mean(), "critic_target": target.mean()}
