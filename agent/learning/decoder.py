"""The decoder learns pictures, for people, from states that no longer change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from agent.interaction.replay import Dataset
from modules import decoder as pictures
from modules.types import Observation

if TYPE_CHECKING:
    from agent.agent import Agent
    from agent.config import Config as RunConfig
from agent.learning.schedules import Phase


def decoder(agent: Agent, data: Dataset, config: RunConfig) -> Phase:
    """Pictures from states that no longer change."""
    learn = config.learn

    def update(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        episode = torch.randint(data.episodes, (64,), generator=generator)
        moment = torch.randint(data.length + 1, (64,), generator=generator)
        seen: Observation = data.observe(episode, moment).map(lambda x: x.to(agent.device))
        with torch.no_grad():
            state = agent.perception.encode(seen)
        loss = pictures.decoder_loss(agent.decoder, state, seen)
        return loss, {"decoder": loss.detach()}

    parameters = list(agent.decoder.parameters())
    return Phase("decoder", learn.decoder_steps, learn.decoder_rate, parameters, update)
