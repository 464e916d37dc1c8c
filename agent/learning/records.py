"""Memory records as training data: perceived again, grouped by scene, with their successors.

Shapes: P scenes, n records.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from agent.interaction.replay import Replay
from modules.blocks import device_of
from modules.memory import EpisodicMemory, Records
from modules.types import Observation, Perception, State


@torch.no_grad()
def remember(perception: Perception, memory: EpisodicMemory, replay: Replay, count: int) -> None:
    """Perceive what was explored, and write it to memory: as many whole episodes as hold `count` records."""
    memory.clear()
    length, block, device = replay.length, replay.actions.shape[2], device_of(perception)
    episodes = max(1, min(replay.episodes, count // (length + 1), memory.config.capacity // (length + 1)))
    for first in range(0, episodes, 16):
        chosen = torch.arange(first, min(first + 16, episodes))
        actions = replay.actions[chosen].to(device)
        seen = replay.observe(chosen, slice(None)).map(lambda x: x.to(device))
        state = perception.encode_window(seen, actions)
        for t in range(length + 1):
            memory.write(t * block, chosen, state[:, t], actions[:, min(t, length - 1)], imagined=False)


class Scenes:
    """Which memory records belong to which scene, to draw states and goals between which one can travel."""

    def __init__(self, replay: Replay, records: Records) -> None:
        scene = torch.from_numpy(replay.scene)[records.episode.cpu()]
        self.order = scene.argsort(stable=True)
        self.counts = torch.unique_consecutive(scene[self.order], return_counts=True)[1]
        self.starts = self.counts.cumsum(0) - self.counts

    def draw(self, n: int, generator: Generator) -> Tensor:
        """n scenes, (n,)."""
        return torch.randint(len(self.counts), (n,), generator=generator)

    def pick(self, which: Tensor, n: int, generator: Generator) -> Tensor:
        """n records of each scene (P,) -> indices (P, n)."""
        share = torch.rand(len(which), n, generator=generator)
        return self.order[self.starts[which, None] + (share * self.counts[which, None]).long()]


def next_record(records: Records, step: int) -> Tensor:
    """Index of the record that follows each one in its episode, `step` primitive actions later; its own at the end."""
    moments = list(zip(records.episode.tolist(), records.time.tolist(), strict=True))
    index = {moment: i for i, moment in enumerate(moments)}
    return torch.tensor([index.get((e, t + step), i) for i, (e, t) in enumerate(moments)])


def encode_at(perception: Perception, replay: Replay, episode: Tensor, moment: Tensor) -> tuple[State, Observation]:
    """States and observations at single moments, (n,) each.

    A perception with a carry sees each piece from its beginning, so that its states are those of life.
    """
    device = device_of(perception)
    seen = replay.observe(episode, moment).map(lambda x: x.to(device))
    if not perception.context:
        return perception.encode_window(seen.map(lambda x: x[:, None]))[:, 0], seen
    piece, row = episode.unique(return_inverse=True)  # several moments of one piece need it encoded once
    whole = replay.observe(piece, slice(None)).map(lambda x: x.to(device))
    state = perception.encode_window(whole, replay.actions[piece].to(device))
    return state[row, moment], seen
