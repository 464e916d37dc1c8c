"""Memory records as training data: perceived again, grouped by scene, and their successors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from agent.interaction.replay import Dataset
from modules.memory import Records

if TYPE_CHECKING:
    from agent.agent import Agent


def remember(agent: Agent, data: Dataset, count: int) -> None:
    """Perceive what was explored, and write it to memory: as many whole episodes as hold `count` records."""
    agent.memory.clear()
    episodes = max(1, min(data.episodes, count // (data.length + 1), agent.memory.config.capacity // (data.length + 1)))
    with torch.no_grad():
        for first in range(0, episodes, 16):
            chosen = torch.arange(first, min(first + 16, episodes))
            n = len(chosen)
            seen = data.observe(chosen, slice(None)).map(lambda x: x.flatten(0, 1).to(agent.device))
            state = agent.perception.encode(seen).map(lambda x, n=n: x.unflatten(0, (n, -1)))
            for t in range(data.length + 1):
                action = data.actions[chosen, min(t, data.length - 1)].to(agent.device)
                zero = torch.zeros(len(chosen), device=agent.device)
                agent.memory.write(t * agent.world_model.action_block, chosen, state[:, t], action, zero, zero, False)


class Scenes:
    """Which memory records belong to which scene, to draw states and goals between which one can travel."""

    def __init__(self, data: Dataset, records: Records) -> None:
        scene = torch.from_numpy(data.scene)[records.episode.cpu()]
        self.order = scene.argsort(stable=True)
        self.counts = torch.unique_consecutive(scene[self.order], return_counts=True)[1]
        self.starts = self.counts.cumsum(0) - self.counts

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """n scenes, (n,)."""
        return torch.randint(len(self.counts), (n,), generator=generator)

    def pick(self, which: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """n records of each scene (P,) -> indices (P, n)."""
        share = torch.rand(len(which), n, generator=generator)
        return self.order[self.starts[which, None] + (share * self.counts[which, None]).long()]


def next_record(records: Records, step: int) -> Tensor:
    """Index of the record that follows each one in its episode, `step` primitive actions later; its own at the end."""
    moments = list(zip(records.episode.tolist(), records.time.tolist(), strict=True))
    index = {moment: i for i, moment in enumerate(moments)}
    return torch.tensor([index.get((e, t + step), i) for i, (e, t) in enumerate(moments)])
