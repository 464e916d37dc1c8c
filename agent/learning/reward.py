"""The reward predictor learns the environment's own reward, where it was asked for by name.

It reads states that it does not change: perception and world model never see a reward.

Shapes: B blocks, K primitive actions a block, A action.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from agent.config import LearnConfig
from agent.console import Progress
from agent.interaction.replay import Replay
from agent.learning.records import encode_at
from modules.blocks import device_of
from modules.cost import CostModule
from modules.critic import RewardPredictor
from modules.types import Actions, Perception

BATCH = 256
TAIL = 0.001
"""Share of rewards at each end that does not set the scale."""


class RewardUpdate:
    """The reward of a block from the state that it led to, and its actions (`updates.Update`)."""

    name, shared = "reward", False

    def __init__(
        self, perception: Perception, cost: CostModule, actions: Actions, replay: Replay, learn: LearnConfig
    ) -> None:
        assert isinstance(cost.reward, RewardPredictor)
        self.perception, self.cost, self.reward, self.actions, self.replay = (
            perception,
            cost,
            cost.reward,
            actions,
            replay,
        )
        self.steps, self.rate = learn.reward_steps, learn.reward_rate
        self.parameters = list(self.reward.parameters())

    def ready(self, replay: Replay) -> bool:
        """Rewards have to be there."""
        return replay.size > 0 and replay.rewards is not None

    def prepare(self, progress: Progress | None, tabulate: bool) -> None:
        """The range of rewards that were seen."""
        rewards = self.replay.rewards
        assert rewards is not None, "this replay has no rewards: explore with rewards=True"
        worst, best = torch.quantile(rewards.flatten()[:1_000_000], torch.tensor([TAIL, 1 - TAIL]))
        if best <= worst:  # all but a few are equal: the few are what matters
            worst, best = rewards.min(), rewards.max()
        self.reward.best.fill_(float(best))
        self.reward.worst.fill_(float(worst))

    def loss(self, generator: Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared error of the cost."""
        replay, device = self.replay, device_of(self.perception)
        assert replay.rewards is not None
        episode = torch.randint(replay.episodes, (BATCH,), generator=generator)
        block = torch.randint(replay.length, (BATCH,), generator=generator)
        with torch.no_grad():
            state, _ = encode_at(self.perception, replay, episode, block + 1)
        actions = self.actions.features(replay.actions[episode, block].to(device)).flatten(1)
        wanted = self.reward.cost(replay.rewards[episode, block].to(device))
        loss = (self.reward(state, actions) - wanted).square().mean()
        return loss, {"reward": loss.detach()}

    def after(self) -> None:
        """Nothing."""

    def finish(self) -> None:
        """Rewards may be predicted from now on."""
        self.cost.reward_trained.fill_(True)
