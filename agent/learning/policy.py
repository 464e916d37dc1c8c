"""The policy is distilled from Mode-2 plans.

Shapes: B records, K primitive actions a block, A action, H steps of a plan.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from agent.interaction.replay import Dataset
from modules import actor
from modules.types import State, Task

if TYPE_CHECKING:
    from agent.agent import Agent
    from agent.config import Config as RunConfig
from agent.learning.records import Scenes
from agent.learning.schedules import Phase, step_generator

PLANS_AT_ONCE = 64


def policy(agent: Agent, data: Dataset, config: RunConfig) -> Phase:
    """Distil Mode-2: plans between remembered states of one scene, every step of a plan an example."""
    learn = config.learn
    start, goal, wanted = plans(agent, data, config, step_generator(config.seed, 100, 0))
    count = wanted.shape[0]

    def update(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        index = torch.randint(count, (256,), generator=generator)
        loss = actor.distillation_loss(agent.actor.policy, start[index], goal[index], wanted[index])
        return loss, {"distillation": loss.detach()}

    def finish() -> None:
        agent.actor.trained.fill_(True)

    parameters = list(agent.actor.policy.parameters())
    return Phase("policy", learn.policy_steps, learn.policy_rate, parameters, update, finish=finish)


@torch.no_grad()
def plans(agent: Agent, data: Dataset, config: RunConfig, generator: torch.Generator) -> tuple[State, State, Tensor]:
    """Examples (state, goal, planned action (A,)) from Mode-2 plans between records of the same scene.

    A plan teaches more than its first action: every imagined step towards the goal is an example, and so is every
    step towards any later imagined state, which the plan reaches by construction.
    """
    learn = config.learn
    records = agent.memory.records()
    scenes = Scenes(data, records)
    examples: list[tuple[State, State, Tensor]] = []
    for first in range(0, learn.plan_episodes, PLANS_AT_ONCE):
        size = min(PLANS_AT_ONCE, learn.plan_episodes - first)
        which = scenes.draw(size, generator)
        state, goal = (records.state[scenes.pick(which, 1, generator)[:, 0]] for _ in range(2))
        directive = agent.configurator.configure(Task(None), goal, agent.statuses())
        plan, imagined, _ = agent.plan(state, directive)
        path = State.cat([state.map(lambda x: x[:, None]), imagined], 1)  # s[0..H]
        for i in range(plan.actions.shape[1]):
            here, action = path[:, i], plan.actions[:, i, 0]
            examples += [
                (here, later, action) for later in (goal, *(path[:, j] for j in range(i + 1, path.latent.shape[1])))
            ]
    states, goals, actions = zip(*examples, strict=True)
    return State.cat(states), State.cat(goals), torch.cat(actions)
