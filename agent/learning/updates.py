"""What learns: an Update is some parameters and the loss of a batch. Schedules decide when each one runs.

A new Update is one class with these members; both schedules run it (`agent/learning/schedules.py`).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Generator, Tensor, nn

from agent.console import Progress
from agent.interaction.replay import Replay


class Update(Protocol):
    """One kind of learning step."""

    name: str
    steps: int
    """Steps of the offline schedule."""
    rate: float
    """Peak learning rate."""
    parameters: list[nn.Parameter]
    """What it changes."""
    shared: bool
    """Every rank computes a part of each batch (`agent/learning/parallel.py`); otherwise rank 0 computes all of it."""

    def ready(self, replay: Replay) -> bool:
        """Whether there is enough to learn from."""
        ...

    def prepare(self, progress: Progress | None, tabulate: bool) -> None:
        """Called when its turn comes (offline) or the replay has grown (online). tabulate: the other modules stay as
        they are until `finish`, so what they say of the data may be computed once."""
        ...

    def loss(self, generator: Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch that it draws, and metrics by name."""
        ...

    def after(self) -> None:
        """Called after each optimiser step."""
        ...

    def finish(self) -> None:
        """Called after the last step."""
        ...


def step_generator(seed: int, phase: int, step: int) -> Generator:
    """The generator of one step: a function of its arguments only, so there is no state to save."""
    mixed = np.random.SeedSequence([seed, phase, step]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed >> np.uint64(1)))
