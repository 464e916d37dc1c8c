"""A small cost with a critic, and the same again in numpy: what the tests of cost and critic compare with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from modules.actions import BoxActions
from modules.cost import CostModule
from modules.critic import Config, Critic
from modules.drives import compose
from modules.heads import ProprioEmbedding, StateEmbedding
from modules.types import BodySpec, Directive, Goal, State

SPACE = BoxActions((-2.0, -2.0), (2.0, 2.0))
GAMMA, SCALE = 0.9, 0.5
BODY = BodySpec(SPACE, goal_scale=SCALE)
FEELING = BodySpec(SPACE, ("x", "contact", "y"), goal_scale=SCALE)
"""A body whose second proprio is contact."""


def directive(goal: State | None, critic: float | Mapping[str, float] = 1.0, **changes: Any) -> Directive:
    """What planning is told; critic: weight of the goal's head, or of each head by name."""
    heads = critic if isinstance(critic, Mapping) else {"goal": critic}
    base = Directive(goal and Goal(goal), {"goal": 1.0}, heads, GAMMA, "terminal", 2, "cem", 3, 4, 2, 1)
    return base.but(**changes)


def critical(
    body: BodySpec,
    names: Sequence[str] = ("goal",),
    weights: Mapping[str, float] | None = None,
    size: tuple[int, int] = (6, 3),
    gamma: float = GAMMA,
    heads: Sequence[str] | None = None,
    **config: Any,
) -> CostModule:
    """Drives, and a critic with a head for each (or for those named in heads), on a vector latent of size (D, I)."""
    torch.manual_seed(0)
    settings = Config(**{"hidden": 7, "ensemble": 2, **config})
    latent, proprio, index = *size, body.goal_proprio
    state = StateEmbedding(latent, proprio, None, settings.hidden)
    goal = ProprioEmbedding(index, settings.hidden) if index else StateEmbedding(latent, proprio, None, settings.hidden)
    drives = compose(names, weights or {}, {}, body)
    headed = [d for d in drives if heads is None or d.name in heads]
    return CostModule(drives, Critic(settings, state, goal, gamma, headed))


def make(body: BodySpec = BODY, names: Sequence[str] = ("goal", "effort", "contact"), **changes: Any) -> CostModule:
    """In double precision, with a head for the goal alone unless told otherwise."""
    return critical(body, names, **{"heads": ("goal",), **changes}).double()


def draw(*batch: int, latent: int = 6, proprio: int = 3, seed: int = 0) -> State:
    """Random states (..., D), (..., I)."""
    generator = torch.Generator().manual_seed(seed)
    return State(
        torch.randn(*batch, latent, generator=generator, dtype=torch.float64),
        torch.randn(*batch, proprio, generator=generator, dtype=torch.float64),
    )


def tc(cost: CostModule, state: State, goal: State) -> np.ndarray:
    """The critic again, in numpy: (..., J, M)."""
    critic = cost.critic
    assert isinstance(critic, Critic)
    w = {k: v.detach().numpy() for k, v in critic.state_dict().items()}

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def silu(x: np.ndarray) -> np.ndarray:
        return x / (1 + np.exp(-x))

    s, g = (np.concatenate([x.latent.numpy(), x.proprio.numpy()], -1) for x in (state, goal))
    index = critic.drives[0].body.goal_proprio
    if index:
        g = goal.proprio.numpy()[..., list(index)]
    x = linear(silu(linear(silu(linear(s, "state.head") + linear(g, "goal.head")), "heads.1")), "heads.3")
    x = 1 / (1 + np.exp(-x)) / (1 - critic.discount)
    return x.reshape(*x.shape[:-1], len(critic.names), critic.ensemble)


def distance(states: State, goal: State) -> np.ndarray:
    """Saturated goal distance in the latent."""
    d = np.square(states.latent.numpy() - goal.latent.numpy()).mean(-1)
    return 1 - np.exp(-d / SCALE)


def touched(states: State) -> np.ndarray:
    """Contact of the body FEELING."""
    return np.clip(states.proprio.numpy()[..., 1], 0, 1)


def beside(goal: State, count: int) -> State:
    """Goals (E, D) for `count` steps each: (E, count, D)."""
    return goal.map(lambda x: x[:, None].expand(-1, count, -1))
