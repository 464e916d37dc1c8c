"""The critic learns the cost-to-go from memory records, perceived and imagined.

Shapes: B states, P scenes, R records, N imagined futures, K primitive actions a block, A action, D latent.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from agent.config import LearnConfig
from agent.console import Progress
from agent.interaction.replay import Replay
from agent.learning.records import Scenes, next_record, remember
from modules.blocks import device_of
from modules.cost import CostModule
from modules.critic import Critic, critic_loss
from modules.memory import EpisodicMemory
from modules.types import Imagined, Perception, State, WorldModel

ROWS, GOALS = 8, 16  # records and goals of each scene in a batch
PIECE = 256  # records whose futures are imagined at once


class CriticUpdate:
    """TC(s, g) for states and goals of the same scene (`updates.Update`)."""

    name, shared = "critic", False

    def __init__(
        self,
        perception: Perception,
        model: WorldModel,
        cost: CostModule,
        memory: EpisodicMemory,
        replay: Replay,
        learn: LearnConfig,
        primitives: Tensor,
    ) -> None:
        """primitives: (N, A) the actions whose futures are imagined (`types.Actions.primitives`)."""
        assert isinstance(cost.critic, Critic) and isinstance(cost.target, Critic)
        self.critic, self.target, self.cost = cost.critic, cost.target, cost
        self.perception, self.model, self.memory, self.replay, self.learn = perception, model, memory, replay, learn
        self.steps, self.rate = learn.critic_steps, learn.critic_rate
        self.parameters = list(self.critic.parameters())
        self.held = primitives[:, None].expand(-1, model.action_block, -1).to(device_of(perception))
        self._table: Imagined | None = None

    def ready(self, replay: Replay) -> bool:
        """There has to be something to remember."""
        return replay.size > 0 and self.memory.config.capacity > 0

    @torch.no_grad()
    def prepare(self, progress: Progress | None, tabulate: bool) -> None:
        """Fill memory from the replay, and imagine the futures of all records if nothing they depend on will change."""
        if not self.memory.size or not tabulate:
            remember(self.perception, self.memory, self.replay, self.learn.critic_records)
        self.records = self.memory.records()
        self.scenes = Scenes(self.replay, self.records)
        self.following = next_record(self.records, self.model.action_block)
        self._table = None
        if not tabulate:
            return
        # Kept in half precision: they are only ever compared through the critic. One buffer, filled piece by piece.
        state, size = self.records.state, len(self.records.time)
        count = len(futures(self.model, state[:1], self.held, self.learn.critic_far)[1])
        table = state.map(lambda x: x.new_empty(size, count, x.shape[-1], dtype=torch.bfloat16))
        if progress is not None:
            progress.start("prepare critic", size, unit="records")
        for first in range(0, size, PIECE):
            piece = slice(first, first + PIECE)
            ahead = futures(self.model, state[piece], self.held, self.learn.critic_far)[0].states
            table.latent[piece], table.proprio[piece] = ahead.latent.bfloat16(), ahead.proprio.bfloat16()
            if progress is not None:
                progress.update(min(first + PIECE, size))
        self._table = Imagined(table, None)

    def loss(self, generator: Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Value iteration on a batch of records and goals of the same scenes."""
        learn, state = self.learn, self.records.state
        which = self.scenes.draw(learn.critic_scenes, generator)
        record, other = (self.scenes.pick(which, n, generator) for n in (ROWS, GOALS - ROWS))
        future, blocks, led = self._futures(record)
        # Goals: the records themselves, what was just imagined of half of them, and anything else of the scene.
        near = torch.randint(future.latent.shape[2], (len(which), ROWS // 2), generator=generator)
        rows = torch.arange(len(which))[:, None], torch.arange(ROWS // 2).expand(len(which), -1)
        beside = future[(*rows, near)]
        goal = State.cat([state[record[:, ROWS // 2 :]], beside, state[other]], 1)
        # The future that was really perceived comes last.
        seen = state[self.following[record]].map(lambda x: x.unsqueeze(2))
        actions = torch.cat([led, self.records.action[record].unsqueeze(2)], 2)
        all_futures = Imagined(State.cat([future, seen], 2), actions)
        blocks = torch.cat([blocks, blocks.new_ones(1)])
        return critic_loss(
            self.critic, self.target, state[record], all_futures, blocks, goal, learn.shuffle_critic_labels
        )

    def _futures(self, record: Tensor) -> tuple[State, Tensor, Tensor]:
        """Of records (P, R): imagined states (P, R, N, ...), blocks ahead (N,), actions (P, R, N, K, A)."""
        far = self.learn.critic_far
        led, blocks = _led(self.held, far)
        actions = led.expand(*record.shape, -1, -1, -1)
        if self._table is not None:
            return self._table.states[record].map(Tensor.float), blocks, actions
        with torch.no_grad():
            flat = self.records.state[record.flatten()]
            ahead = futures(self.model, flat, self.held, far)[0].states
        return ahead.map(lambda x: x.unflatten(0, record.shape)), blocks, actions

    def after(self) -> None:
        """Move the target critic."""
        self.cost.update_target(self.learn.critic_tau)

    def finish(self) -> None:
        """The critic may be asked from now on."""
        self._table = None
        self.cost.trained.fill_(True)


def _led(held: Tensor, far: int) -> tuple[Tensor, Tensor]:
    """The actions (N, K, A) that lead to each future, and how many blocks ahead it is, (N,)."""
    blocks = torch.ones(len(held), device=held.device)
    if far == 1:
        return held, blocks
    full = held[1 : 1 + len(held) // 2]
    return torch.cat([held, full]), torch.cat([blocks, blocks.new_full((len(full),), far)])


def futures(model: WorldModel, state: State, held: Tensor, far: int) -> tuple[Imagined, Tensor]:
    """What held actions (N, K, A) lead to: states (B, ...) -> imagined (B, N', ...), and blocks ahead of each, (N',).

    All of them for one block and, when far > 1, those of full strength for `far` blocks as well.
    """

    def ahead(actions: Tensor, blocks: int) -> State:
        now = state.map(lambda x: x.repeat_interleave(len(actions), 0))
        repeated = actions.repeat(len(state.latent), 1, 1)
        for _ in range(blocks):
            now = model.predict(now, repeated)
        return now.map(lambda x: x.unflatten(0, (-1, len(actions))))

    led, blocks = _led(held, far)
    near = ahead(held, 1)
    actions = led.expand(len(state.latent), -1, -1, -1)
    if far == 1:
        return Imagined(near, actions), blocks
    full = held[1 : 1 + len(held) // 2]
    return Imagined(State.cat([near, ahead(full, far)], 1), actions), blocks
