"""The critic learns from memory records, perceived and imagined.

Shapes: M episodes, K primitive actions a block, A action, D latent, N imagined futures.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from agent.interaction.replay import Dataset
from modules import cost
from modules.types import State

if TYPE_CHECKING:
    from agent.agent import Agent
    from agent.config import Config as RunConfig
from agent.learning.records import Scenes, next_record
from agent.learning.schedules import Phase


def futures(agent: Agent, state: State, far: int) -> tuple[State, Tensor]:
    """What `held_actions` lead to: states (B, ...) -> imagined (B, N, ...), and how many blocks ahead each is, (N,).

    All of them for one block and, when far > 1, those of full strength for `far` blocks as well.
    """
    model, actions = agent.world_model, held_actions(agent, agent.device)
    full = actions[1 : 1 + len(actions) // 2]

    def ahead(actions: Tensor, blocks: int) -> State:
        now = state.map(lambda x: x.repeat_interleave(len(actions), 0))
        repeated = actions.repeat(len(state.latent), 1, 1)
        for _ in range(blocks):
            now = model.predict(now, repeated)
        return now.map(lambda x: x.unflatten(0, (-1, len(actions))))

    near = ahead(actions, 1)
    blocks = torch.ones(len(actions), device=agent.device)
    if far == 1:
        return near, blocks
    return State.cat([near, ahead(full, far)], 1), torch.cat([blocks, blocks.new_full((len(full),), far)])


def critic(agent: Agent, data: Dataset, config: RunConfig) -> Phase:
    """Cost-to-go for (state, goal) of the same scene, from perceived records and their imagined futures."""
    learn = config.learn
    records = agent.memory.records()
    table = Scenes(data, records)
    state = records.state
    # Kept in half precision: they are only ever compared through the critic. One buffer, filled piece by piece.
    with torch.no_grad():
        size = records.time.shape[0]
        blocks = futures(agent, state[:1], learn.critic_far)[1]
        imagined = state.map(lambda x: x.new_empty(size, len(blocks), x.shape[-1], dtype=torch.bfloat16))
        for first in range(0, size, 256):
            piece = slice(first, first + 256)
            ahead = futures(agent, state[piece], learn.critic_far)[0]
            imagined.latent[piece], imagined.proprio[piece] = ahead.latent.bfloat16(), ahead.proprio.bfloat16()
        blocks = torch.cat([blocks, blocks.new_ones(1)])  # the perceived one comes last
    following = next_record(records, agent.world_model.action_block)
    scenes, rows, goals = learn.critic_scenes, 8, 16

    def update(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        which = table.draw(scenes, generator)
        record, other = (table.pick(which, n, generator) for n in (rows, goals - rows))
        future = imagined[record].map(Tensor.float)
        seen = state[following[record]].map(lambda x: x.unsqueeze(2))
        # Goals: the records themselves, what was just imagined of half of them, and anything else of the scene.
        near = torch.randint(future.latent.shape[2], (scenes, rows // 2), generator=generator)
        beside = future[torch.arange(scenes)[:, None], torch.arange(rows // 2).expand(scenes, -1), near]
        goal = State.cat([state[record[:, rows // 2 :]], beside, state[other]], 1)
        futures_of = State.cat([future, seen], 2)
        return cost.critic_loss(agent.cost, state[record], futures_of, blocks, goal, learn.shuffle_critic_labels)

    def after_step(step: int) -> dict[str, float]:
        agent.cost.update_target(learn.critic_tau)
        return {}

    def finish() -> None:
        agent.cost.trained.fill_(True)

    assert agent.cost.critic is not None
    parameters = list(agent.cost.critic.parameters())
    return Phase("critic", learn.critic_steps, learn.critic_rate, parameters, update, after_step, finish)


def held_actions(agent: Agent, device: torch.device) -> Tensor:
    """Standing still, and full and half strength in all directions, held for a block: (N, K, A).

    Half strength matters where a full step would jump past what it has to meet, such as a door.
    """
    space = agent.actor.policy.actions
    if space.size == 2:
        angle = torch.arange(8) * (math.pi / 4)
        direction = torch.stack([angle.cos(), angle.sin()], 1)
    else:
        eye = torch.eye(space.size)
        direction = torch.cat([eye, -eye])
    low, high = torch.tensor(space.low), torch.tensor(space.high)
    full = space.clip((low + high) / 2 + (high - low) / 2 * direction)
    still = (low + high) / 2
    actions = torch.cat([still[None], full, (full + still) / 2])
    return actions[:, None].expand(-1, agent.world_model.action_block, -1).to(device)
