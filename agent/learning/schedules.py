"""What is learned when: a phase, its generator of each step, and the learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn


def schedule(step: int, steps: int) -> float:
    """Share of the peak rate: linear warm-up over 5 %, cosine to 2 %."""
    warm = max(1, min(100, steps // 20))
    return min(1.0, (step + 1) / warm) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / max(1, steps))))


Update = Callable[[int, torch.Generator], tuple[Tensor, dict[str, Tensor]]]
"""(step, generator of that step) -> (loss, metrics)."""


@dataclass
class Phase:
    """One phase of training: what to optimise, and the loss of a step."""

    name: str
    steps: int
    rate: float
    parameters: list[nn.Parameter]
    update: Update
    after_step: Callable[[int], dict[str, float]] = lambda _: {}
    """Called after each update; what it returns is logged."""
    finish: Callable[[], None] = lambda: None
    shared: bool = False
    """Every rank computes a part of each batch (see agent/parallel.py); otherwise rank 0 computes all of it."""


def step_generator(seed: int, phase: int, step: int) -> torch.Generator:
    """The generator of one step: a function of its arguments only, so there is no state to save."""
    mixed = np.random.SeedSequence([seed, phase, step]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed >> np.uint64(1)))
