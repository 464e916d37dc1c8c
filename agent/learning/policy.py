"""Mode-2 teaches Mode-1: the policy is distilled from plans (LeCun 2022, section 3.1.3).

Shapes: B examples, E plans at once, H steps of a plan, K primitive actions a block, A action.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from agent.agent import Agent
from agent.config import LearnConfig
from agent.console import Progress
from agent.interaction.replay import Replay
from agent.learning.records import Scenes, remember
from agent.learning.updates import step_generator
from agent.planning import plan
from modules.actor import distillation_loss
from modules.types import Goal, Situation, State, Task

PLANS_AT_ONCE = 64
BATCH = 256

Examples = tuple[State, State, Tensor]
"""States (B, ...), goals (B, ...), planned actions (B, A)."""


class PolicyUpdate:
    """Imitates plans between remembered states of one scene, every step of a plan an example (`updates.Update`)."""

    name, shared = "policy", False

    def __init__(self, agent: Agent, replay: Replay, learn: LearnConfig, seed: int) -> None:
        self.agent, self.replay, self.learn, self.seed = agent, replay, learn, seed
        self.steps, self.rate = learn.policy_steps, learn.policy_rate
        self.parameters = list(agent.actor.policy.parameters())
        self._examples: Examples | None = None

    def ready(self, replay: Replay) -> bool:
        """There has to be something to remember."""
        return replay.size > 0 and self.agent.memory.config.capacity > 0

    def prepare(self, progress: Progress | None, tabulate: bool) -> None:
        """Fill memory from the replay, and make all plans if nothing they depend on will change."""
        agent, learn = self.agent, self.learn
        if not agent.memory.size or not tabulate:
            remember(agent.perception, agent.memory, self.replay, learn.critic_records)
        self._examples = None
        if not tabulate:
            return
        parts: list[Examples] = []
        generator = step_generator(self.seed, 100, 0)
        if progress is not None:
            progress.start("prepare policy", learn.plan_episodes, unit="plans")
        for first in range(0, learn.plan_episodes, PLANS_AT_ONCE):
            size = min(PLANS_AT_ONCE, learn.plan_episodes - first)
            parts.append(examples(agent, self.replay, size, generator))
            if progress is not None:
                progress.update(first + size)
        states, goals, actions = zip(*parts, strict=True)
        self._examples = State.cat(states), State.cat(goals), torch.cat(actions)

    def loss(self, generator: Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared difference to planned actions."""
        drawn = self._examples or examples(self.agent, self.replay, PLANS_AT_ONCE // 4, generator)
        state, goal, wanted = drawn
        index = torch.randint(len(wanted), (BATCH,), generator=generator)
        loss = distillation_loss(self.agent.actor.policy, state[index], goal[index], wanted[index])
        return loss, {"distillation": loss.detach()}

    def after(self) -> None:
        """Nothing."""

    def finish(self) -> None:
        """The policy may act from now on."""
        self._examples = None
        self.agent.actor.trained.fill_(True)


@torch.no_grad()
def examples(agent: Agent, replay: Replay, count: int, generator: Generator) -> Examples:
    """Examples from `count` Mode-2 plans between records of the same scene.

    A plan teaches more than its first action: every imagined step towards the goal is an example, and so is every step
    towards any later imagined state, which the plan reaches by construction.
    """
    records = agent.memory.records()
    scenes = Scenes(replay, records)
    which = scenes.draw(count, generator)
    state, goal = (records.state[scenes.pick(which, 1, generator)[:, 0]] for _ in range(2))
    situation = Situation(state, Task(), Goal(goal), agent.status(), agent.memory, generator=agent.generator)
    directive = agent.configurator.configure(situation)
    planned = plan(agent.level, state, directive, agent.generator)
    path = State.cat([state.map(lambda x: x[:, None]), planned.imagined.states], 1)  # s[0..H]
    out: list[Examples] = []
    for i in range(planned.plan.actions.shape[1]):
        here, action = path[:, i], planned.plan.actions[:, i, 0]
        later = [goal, *(path[:, j] for j in range(i + 1, path.latent.shape[1]))]
        out += [(here, target, action) for target in later]
    states, goals, actions = zip(*out, strict=True)
    return State.cat(states), State.cat(goals), torch.cat(actions)
