"""The decoder learns pictures, for people, from states that it does not change."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from agent.config import LearnConfig
from agent.console import Progress
from agent.interaction.replay import Replay
from agent.learning.records import encode_at, remember
from modules.decoder import Decoder, decoder_loss
from modules.memory import EpisodicMemory
from modules.types import Perception

BATCH = 64


class DecoderUpdate:
    """Observations from states (`updates.Update`)."""

    name, shared = "decoder", False

    def __init__(
        self, perception: Perception, decoder: Decoder, memory: EpisodicMemory, replay: Replay, learn: LearnConfig
    ) -> None:
        self.perception, self.decoder, self.memory, self.replay, self.learn = (
            perception, decoder, memory, replay, learn,
        )  # fmt: skip
        self.steps, self.rate = learn.decoder_steps, learn.decoder_rate
        self.parameters = list(decoder.parameters())

    def ready(self, replay: Replay) -> bool:
        """Any observation will do."""
        return replay.size > 0

    def prepare(self, progress: Progress | None, tabulate: bool) -> None:
        """Fill an empty memory, which is saved with the run: recordings show what it recalls."""
        if not self.memory.size and self.memory.config.capacity:
            remember(self.perception, self.memory, self.replay, self.learn.critic_records)

    def loss(self, generator: Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Reconstruction error of single moments."""
        replay = self.replay
        episode = torch.randint(replay.episodes, (BATCH,), generator=generator)
        moment = torch.randint(replay.length + 1, (BATCH,), generator=generator)
        with torch.no_grad():
            state, seen = encode_at(self.perception, replay, episode, moment)
        loss = decoder_loss(self.decoder, state, seen)
        return loss, {"decoder": loss.detach()}

    def after(self) -> None:
        """Nothing."""

    def finish(self) -> None:
        """Nothing."""
