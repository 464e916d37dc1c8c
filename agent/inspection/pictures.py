"""What `imagine` has to show, and the averages behind its curves: the same with and without a map.

Shapes: M episodes, T = SEEN + H moments, H imagined steps, D latent, I proprio.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from agent.agent import Agent
from agent.drawing.colours import Picture
from agent.drawing.frames import SEEN
from agent.inspection.probes import encode_some
from agent.interaction.replay import Replay
from modules.types import State

RATIO_AT = 16  # imagined steps after which the error is compared with its baselines


@dataclass(frozen=True)
class Pictures:
    """Everything there is to look at, and the numbers behind it. None: this environment has nothing of the kind."""

    latent_error: Picture
    numbers: dict[str, Any]
    film: list[Picture] | None = None
    """One frame per moment."""
    strip: Picture | None = None
    plans: Picture | None = None
    latent_map: Picture | None = None
    sensors: Picture | None = None

    def stills(self) -> dict[str, Picture]:
        """The single pictures by name, without the strip."""
        every = {name: getattr(self, name) for name in ("plans", "latent_error", "latent_map", "sensors")}
        return {name: picture for name, picture in every.items() if picture is not None}


def predicted(agent: Agent, data: Replay) -> tuple[State, State, State]:
    """What the agent makes of M pieces of T - 1 blocks, of which it sees the first SEEN observations.

    Returns:
        States perceived at every moment (M, T, ...); imagined open loop from moment SEEN - 1 on (M, H, ...) under the
        actions that were taken; and under those of another piece (M, H, ...).
    """
    count, moments = data.episodes, data.length + 1
    index = torch.arange(count).repeat_interleave(moments), torch.arange(moments).repeat(count)
    state = encode_some(agent.perception, data, *index).map(lambda x: x.unflatten(0, (count, moments)))
    actions = data.actions[:, SEEN - 1 :].to(agent.device)
    model, last = agent.world_model, state[:, SEEN - 1]
    shuffled = model.rollout(last, actions.flip(0)).states
    return state, model.rollout(last, actions).states, shuffled


def guesses(state: State, imagined: State, shuffled: State) -> dict[str, State]:
    """The learned model's guess of `state[:, SEEN:]` beside two baselines, (M, H, ...) each; states as `predicted`."""
    truth, last = state[:, SEEN:], state[:, SEEN - 1 : SEEN]
    still = last.map(lambda x: x.expand_as(truth.latent if x is last.latent else truth.proprio))
    return {"learned": imagined, "persistence": still, "shuffled": shuffled}


def averaged(name: str, values: Mapping[str, Tensor]) -> dict[str, dict[str, list[float]]]:
    """Errors (M, H) of each guess as means over episodes with 95 % half widths: {name: ..., name_ci95: ...}."""
    sem = {k: v.std(0) / len(v) ** 0.5 for k, v in values.items()}
    return {
        name: {k: v.mean(0).tolist() for k, v in values.items()},
        f"{name}_ci95": {k: (1.96 * v).tolist() for k, v in sem.items()},
    }


def ratios(errors: Mapping[str, list[float]], at: int) -> dict[str, float]:
    """The learned model's error after `at` steps in units of each baseline's."""
    return {
        f"ratio_{baseline}": errors["learned"][at - 1] / max(errors[baseline][at - 1], 1e-12)
        for baseline in ("persistence", "shuffled")
    }
