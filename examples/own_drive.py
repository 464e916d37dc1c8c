"""A drive of your own, smoothness, beside the goal drive: python examples/own_drive.py runs/smooth.

A drive is a differentiable function without parameters. It maps what the world model imagined to a cost per imagined
step. The weight says how much it counts; the floor is a weight below which no task can push it.

Shapes: H imagined steps, K primitive actions in a step, A action.
"""

import dataclasses
import sys
from pathlib import Path

import torch
from torch import Tensor

from agent.config import Config
from agent.learning.train import train_run
from agent.presets import debug
from modules import cost
from modules.drives import DRIVES
from modules.types import BodySpec, Imagined, State


def smoothness(imagined: Imagined, goal: State | None, body: BodySpec) -> Tensor:
    """Mean squared change from one primitive action to the next, in half action ranges: (..., H)."""
    actions = imagined.actions  # (..., H, K, A)
    if actions is None:  # a state itself, which no action has led to
        return torch.zeros_like(imagined.states.latent[..., 0])
    steps = body.actions.features(actions).flatten(-3, -2)  # (..., H * K, A), in half action ranges
    changes = torch.cat([steps[..., :1, :] * 0, steps[..., 1:, :] - steps[..., :-1, :]], -2)
    return changes.square().mean(-1).unflatten(-1, actions.shape[-3:-1]).mean(-1)


DRIVES["smoothness"] = smoothness


def smooth(base: Config) -> Config:
    """A configuration with the drive: half the weight of the goal, and never less than 0.2."""
    drives = cost.Config(drives=("goal", "smoothness"), weights={"smoothness": 0.5}, floors={"smoothness": 0.2})
    return dataclasses.replace(base, cost=drives)


if __name__ == "__main__":
    train_run(smooth(debug()), Path(sys.argv[1]), sys.argv)
