"""A planner of your own, random search that halves its width: python examples/own_planner.py runs/halving.

A planner only searches: `ask` proposes candidates, `tell` receives their energies, `best` returns the plan. It knows
neither the world model nor the cost.

Shapes: E episodes, N candidates, H imagined steps, K primitive actions in a step, A action.
"""

import dataclasses
import sys
from pathlib import Path

import torch
from torch import Generator, Tensor

from agent.config import Config
from agent.learning.train import train_run
from agent.presets import debug
from modules import planners
from modules.planners import PLANNERS, better, first, usable
from modules.types import Actions, Plan


class Halving:
    """Gaussian search around the best plan so far; every iteration is half as wide as the one before."""

    needs_gradient = False

    def __init__(
        self,
        config: planners.Config,
        actions: Actions,
        start: Tensor,
        samples: int,
        iterations: int,
        generator: Generator,
    ) -> None:
        """start: (E, H, K, A), the plan to begin with."""
        self.actions, self.samples, self.rounds, self.generator = actions, samples, iterations, generator
        self.width = config.initial_std * actions.unit(start)
        self.plan = first(actions, start, samples, iterations)
        self.candidates, self.energy = self.plan.actions[:, None], self.plan.energy[:, None]

    def ask(self) -> Tensor:
        """Candidates (E, N, H, K, A). One noise for all episodes, and each action is held for a whole step."""
        _, steps, _, size = self.plan.actions.shape
        noise = torch.empty(self.samples, steps, 1, size, device=self.width.device).normal_(generator=self.generator)
        noise[0] = 0  # the best plan so far stays among the candidates
        return self.actions.project(self.plan.actions[:, None] + self.width * noise)

    def tell(self, candidates: Tensor, energy: Tensor) -> None:
        """Keep the best of the candidates (E, N, H, K, A) by their energies (E, N)."""
        self.candidates, self.energy = candidates, usable(energy)[0]
        self.plan = better(self.plan, candidates, self.energy)
        self.width = self.width / 2

    def best(self) -> Plan:
        """The best plan seen so far."""
        return self.plan


PLANNERS["halving"] = Halving


def halving(base: Config) -> Config:
    """A configuration that plans with it."""
    return dataclasses.replace(base, configurator=dataclasses.replace(base.configurator, planner="halving"))


if __name__ == "__main__":
    train_run(halving(debug()), Path(sys.argv[1]), sys.argv)
