"""The four phases of learning: what each optimises, on which data, and the loss of one update.

The world model learns self-supervised from exploration; the critic from memory records, perceived and imagined; the
policy from Mode-2 plans; the decoder, for pictures only, from what is then fixed. What runs them is `agent/learn.py`.

Shapes: M episodes, T states of a window, K primitive actions a block, A action, D latent, N imagined futures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from agent import gauges, parallel
from agent.collect import Dataset
from modules import actor, cost, objectives
from modules import decoder as pictures
from modules.memory import Records
from modules.types import Observation, State, Task

if TYPE_CHECKING:
    from agent.agent import Agent
    from agent.presets import Config as RunConfig

PLANS_AT_ONCE = 64

Update = Callable[[int, torch.Generator], tuple[Tensor, dict[str, Tensor]]]
"""(step, generator of that step) -> (loss, metrics)."""


@dataclass
class Phase:
    """One phase of training: what to optimise, and the loss of a step."""

    name: str
    steps: int
    rate: float
    parameters: list[nn.Parameter]
    update: Update
    after_step: Callable[[int], dict[str, float]] = lambda _: {}
    """Called after each update; what it returns is logged."""
    finish: Callable[[], None] = lambda: None
    shared: bool = False
    """Every rank computes a part of each batch (see agent/parallel.py); otherwise rank 0 computes all of it."""


def step_generator(seed: int, phase: int, step: int) -> torch.Generator:
    """The generator of one step: a function of its arguments only, so there is no state to save."""
    mixed = np.random.SeedSequence([seed, phase, step]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed >> np.uint64(1)))


def world_model(agent: Agent, data: Dataset, config: RunConfig) -> Phase:
    """Prediction in representation space, kept from collapse by the objectives of the configuration."""
    learn, weights = config.learn, config.objectives
    model, encoder = agent.world_model, agent.perception
    inverse = agent.inverse
    scale = model.action_scale

    def update(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        whole = torch.randint(data.episodes, (learn.batch,), generator=generator)
        episode, acted = (parallel.part(x) for x in (whole, whole.roll(1) if learn.shuffle_actions else whole))
        begin = int(torch.randint(data.length + 2 - learn.window, (1,), generator=generator))
        seen = data.observe(episode, slice(begin, begin + learn.window)).map(lambda x: x.to(agent.device))
        actions = data.actions[acted, begin : begin + learn.window - 1].to(agent.device)
        with torch.set_grad_enabled(learn.train_encoder):
            state = encoder.encode(seen.map(lambda x: x.flatten(0, 1)))
        state = state.map(lambda x: x.unflatten(0, (-1, learn.window)))
        after = state[:, 1:]
        if weights.multi_step:
            imagined = model.rollout(state[:, 0], actions)
        else:
            one = model.predict(state[:, :-1].map(lambda x: x.flatten(0, 1)), actions.flatten(0, 1))
            imagined = one.map(lambda x: x.unflatten(0, (-1, learn.window - 1)))
        terms = {"prediction": (imagined.latent - after.latent).square().mean()}
        loss = weights.prediction * terms["prediction"]
        if state.slots.shape[-1]:
            terms["slots"] = (imagined.slots - after.slots).square().mean()
            loss = loss + weights.slots * terms["slots"]
        terms |= objectives.anticollapse(parallel.whole(state.latent), weights, encoder.map_shape, generator)
        loss = loss + sum(getattr(weights, k) * v for k, v in terms.items() if k not in ("prediction", "slots"))
        if weights.within_episode:
            terms["within_episode"] = objectives.within_episode(state.latent, weights.within_episode_target)
            loss = loss + weights.within_episode * terms["within_episode"]
        if weights.temporal:
            terms["temporal"] = objectives.temporal(state.latent)
            loss = loss + weights.temporal * terms["temporal"]
        if weights.inverse:
            pairs = (state[:, :-1].map(lambda x: x.flatten(0, 1)), after.map(lambda x: x.flatten(0, 1)))
            wanted = ((actions - model.action_offset) / scale).flatten(0, 1).flatten(1)
            terms["inverse"] = (inverse(*pairs) - wanted).square().mean()
            loss = loss + weights.inverse * terms["inverse"]
        return loss, {k: v.detach() for k, v in terms.items()}

    def after_step(step: int) -> dict[str, float]:
        if parallel.rank():
            return {}
        if step != 1 and step % learn.gauge_every and step != learn.world_model_steps:
            return {}
        return gauges.measure(agent, data, seed=config.seed)

    modules = (encoder, model, inverse) if learn.train_encoder else (model, inverse)
    parameters = [p for m in modules for p in m.parameters()]
    return Phase(
        "world_model", learn.world_model_steps, learn.learning_rate, parameters, update, after_step, shared=True
    )


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
                agent.memory.write(t * agent.world_model.block, chosen, state[:, t], action, zero, zero, False)


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
            imagined.latent[piece], imagined.slots[piece] = ahead.latent.bfloat16(), ahead.slots.bfloat16()
        blocks = torch.cat([blocks, blocks.new_ones(1)])  # the perceived one comes last
    following = next_record(records, agent.world_model.block)
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
        agent.cost.follow(learn.critic_follow)
        return {}

    def finish() -> None:
        agent.cost.trained.fill_(True)

    assert agent.cost.critic is not None
    parameters = list(agent.cost.critic.parameters())
    return Phase("critic", learn.critic_steps, learn.critic_rate, parameters, update, after_step, finish)


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
        directive = agent.configurator.configure(Task(None), goal, agent.digests())
        plan, imagined, _ = agent.plan(state, directive)
        path = State.cat([state.map(lambda x: x[:, None]), imagined], 1)  # s[0..H]
        for i in range(plan.actions.shape[1]):
            here, action = path[:, i], plan.actions[:, i, 0]
            examples += [
                (here, later, action) for later in (goal, *(path[:, j] for j in range(i + 1, path.latent.shape[1])))
            ]
    states, goals, actions = zip(*examples, strict=True)
    return State.cat(states), State.cat(goals), torch.cat(actions)


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
    return actions[:, None].expand(-1, agent.world_model.block, -1).to(device)
