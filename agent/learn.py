"""Learning, always in this order and each phase repeatable: world model, critic, policy, decoder.

The world model learns self-supervised from exploration; the critic from memory records, perceived and imagined; the
policy from Mode-2 plans; the decoder, for pictures only, from what is then fixed. The batch of step n depends on the
seed, the phase and n alone, so that a training that was interrupted ends at the same bits as one that was not.

Shapes: M episodes, T states of a window, K primitive actions a block, A action, D latent, N imagined futures.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from agent import gauges
from agent.collect import Dataset
from agent.console import Progress
from agent.errors import NonFinite, check_finite
from modules import actor, cost, decoder, objectives
from modules.memory import Records
from modules.types import Observation, State, Task

if TYPE_CHECKING:
    from agent.agent import Agent
    from agent.presets import Config as RunConfig
    from agent.run import Run


@dataclass(frozen=True)
class Config:
    """How long and how fast each phase learns."""

    world_model_steps: int = 1500
    """Updates of encoder and predictor."""
    batch: int = 64
    """Windows in a batch of the world model."""
    window: int = 4
    """T: states in a window; T - 1 are predicted open loop."""
    learning_rate: float = 2e-3
    """Peak rate of the world model; warm-up, then cosine."""
    weight_decay: float = 1e-5
    """AdamW, all phases."""
    clip: float = 2.0
    """Largest norm of a gradient."""
    critic_steps: int = 1500
    """Updates of the critic."""
    critic_rate: float = 1e-3
    """Peak rate of the critic."""
    critic_records: int = 20_000
    """Memory records whose futures are imagined."""
    critic_scenes: int = 8
    """Scenes in a batch; every one with 8 records and 16 goals."""
    critic_follow: float = 0.04
    """How fast the slow copy follows."""
    policy_steps: int = 3000
    """Updates of the policy."""
    policy_rate: float = 1e-3
    """Peak rate of the policy."""
    plan_episodes: int = 4000
    """Mode-2 plans from which the policy is distilled."""
    decoder_steps: int = 400
    """Updates of the decoder."""
    decoder_rate: float = 2e-3
    """Peak rate of the decoder."""
    checkpoint_seconds: float = 60.0
    """Time between checkpoints; does not change the result."""
    gauge_every: int = 250
    """Updates of the world model between collapse gauges and probes."""


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


def step_generator(seed: int, phase: int, step: int) -> torch.Generator:
    """The generator of one step: a function of its arguments only, so there is no state to save."""
    mixed = np.random.SeedSequence([seed, phase, step]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed >> np.uint64(1)))


def schedule(step: int, steps: int) -> float:
    """Share of the peak rate: linear warm-up over 5 %, cosine to 2 %."""
    warm = max(1, min(100, steps // 20))
    return min(1.0, (step + 1) / warm) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / max(1, steps))))


class Learner:
    """Runs the phases of one agent on one dataset, with checkpoints."""

    def __init__(self, config: RunConfig, agent: Agent, data: Dataset, run: Run) -> None:
        self.config, self.agent, self.data, self.run = config, agent, data, run
        self.device = agent.device
        self.seconds = {"wall": 0.0, "cpu": 0.0}
        self._clock = (time.monotonic(), time.process_time())

    def phases(self) -> Iterator[Callable[[], Phase]]:
        """The phases in order; each is built only when its turn comes, on what the ones before have learned."""
        yield self.world_model
        if self.agent.cost.critic is not None and self.config.learn.critic_steps:
            yield self.critic
        if self.config.learn.policy_steps:
            yield self.policy
        if self.config.learn.decoder_steps:
            yield self.decoder

    @property
    def total_steps(self) -> int:
        """Updates of all phases together."""
        return sum(self._steps_of(build) for build in self.phases())

    def learn(self, progress: Progress, stop_at: int | None = None) -> None:
        """Train from the newest checkpoint to the end. stop_at (tests): leave after that many updates in all."""
        saved = self.run.resume()
        first, within = 0, 0
        optimiser_state: dict[str, Tensor] = {}
        if saved is not None:
            tensors, meta, _ = saved
            self.agent.load_tensors(tensors)
            first, within = meta["phase"], meta["step"]
            self.seconds = dict(meta["seconds"])
            optimiser_state = {
                k.removeprefix("optimiser."): v for k, v in tensors.items() if k.startswith("optimiser.")
            }
        total = 0
        for index, build in enumerate(self.phases()):
            if index < first:
                total += self._steps_of(build)
                continue
            # Building a phase may imagine and plan for a minute: that is training too.
            self._clock = (time.monotonic(), time.process_time())
            if index and not self.agent.memory.size:
                self.remember(self.config.learn.critic_records)
            phase = build()
            self._run_phase(index, phase, within, optimiser_state, total, progress, stop_at)
            total += phase.steps
            within, optimiser_state = 0, {}
            if stop_at is not None and total >= stop_at:
                return

    def _steps_of(self, build: Callable[[], Phase]) -> int:
        learn = self.config.learn
        return {
            "world_model": learn.world_model_steps,
            "critic": learn.critic_steps,
            "policy": learn.policy_steps,
            "decoder": learn.decoder_steps,
        }[build.__name__]

    def _run_phase(
        self,
        index: int,
        phase: Phase,
        start: int,
        optimiser_state: dict[str, Tensor],
        before: int,
        progress: Progress,
        stop_at: int | None,
    ) -> None:
        learn = self.config.learn
        optimiser = torch.optim.AdamW(phase.parameters, phase.rate, weight_decay=learn.weight_decay)
        if optimiser_state:
            restore_optimiser(optimiser, optimiser_state)
        self.run.phase = phase.name
        progress.start(phase.name.replace("_", " "), phase.steps, start)
        last_save = time.monotonic()
        step = start

        def save(next_phase: int, next_step: int) -> None:
            nonlocal last_save
            now = time.monotonic(), time.process_time()
            self.seconds["wall"] += now[0] - self._clock[0]
            self.seconds["cpu"] += now[1] - self._clock[1]
            self._clock, last_save = now, now[0]
            tensors = self.agent.tensors()
            if next_phase == len(list(self.phases())):  # the end: what was lived through stays with the run
                tensors |= self.agent.memory_tensors()
            if next_step:
                tensors |= {f"optimiser.{k}": v for k, v in optimiser_tensors(optimiser).items()}
            meta = {"phase": next_phase, "step": next_step, "seconds": self.seconds}
            self.run.save_checkpoint(before + step, tensors, meta)

        try:
            while step < phase.steps:
                for group in optimiser.param_groups:
                    group["lr"] = phase.rate * schedule(step, phase.steps)
                loss, metrics = phase.update(step, step_generator(self.config.seed, index, step))
                if not math.isfinite(loss.item()):
                    raise NonFinite(
                        f"the loss of phase {phase.name} is {loss.item()} at step {step}: "
                        f"{', '.join(f'{k}={v.item():.4g}' for k, v in metrics.items())}. The last good checkpoint is "
                        "untouched; lower --learn.learning-rate, or look for such values in the observations"
                    )
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                norm = nn.utils.clip_grad_norm_(phase.parameters, learn.clip)
                optimiser.step()
                step += 1
                extra = phase.after_step(step)
                if step % 10 == 0 or extra:
                    scalars = {f"losses/{k}": v for k, v in metrics.items()}
                    self.run.log(before + step, {"losses/total": loss, "health/grad_norm": norm, **scalars, **extra})
                progress.update(step, f"loss {loss.item():.4f}" if step % 10 == 0 else "")
                if time.monotonic() - last_save > learn.checkpoint_seconds:
                    check_finite(self.agent.tensors(), before + step, "weights")
                    save(index, step)
                if stop_at is not None and before + step >= stop_at and step < phase.steps:
                    save(index, step)
                    return
        except KeyboardInterrupt:
            save(index, step)
            raise
        check_finite(self.agent.tensors(), before + step, "weights")
        phase.finish()
        save(index + 1, 0)

    # World model

    def world_model(self) -> Phase:
        """Prediction in representation space, kept from collapse by the objectives of the configuration."""
        agent, data, learn, weights = self.agent, self.data, self.config.learn, self.config.objectives
        model, encoder = agent.world_model, agent.perception
        if data.length + 1 < learn.window:
            raise ValueError(f"--learn.window {learn.window} needs episodes of {learn.window - 1} blocks or more")
        inverse = agent.inverse
        scale = model.action_scale

        def update(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
            episode = torch.randint(data.episodes, (learn.batch,), generator=generator)
            begin = int(torch.randint(data.length + 2 - learn.window, (1,), generator=generator))
            seen = data.observe(episode, slice(begin, begin + learn.window)).map(lambda x: x.to(self.device))
            actions = data.actions[episode, begin : begin + learn.window - 1].to(self.device)
            state = encoder.encode(seen.map(lambda x: x.flatten(0, 1))).map(
                lambda x: x.unflatten(0, (learn.batch, learn.window))
            )
            after = state[:, 1:]
            if weights.multi_step:
                imagined = model.rollout(state[:, 0], actions)
            else:
                one = model.predict(state[:, :-1].map(lambda x: x.flatten(0, 1)), actions.flatten(0, 1))
                imagined = one.map(lambda x: x.unflatten(0, (learn.batch, learn.window - 1)))
            terms = {"prediction": (imagined.latent - after.latent).square().mean()}
            loss = weights.prediction * terms["prediction"]
            if state.slots.shape[-1]:
                terms["slots"] = (imagined.slots - after.slots).square().mean()
                loss = loss + weights.slots * terms["slots"]
            terms |= objectives.anticollapse(state.latent, weights, encoder.map_shape, generator)
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
            if step != 1 and step % learn.gauge_every and step != learn.world_model_steps:
                return {}
            return gauges.measure(agent, data, seed=self.config.seed)

        modules = (encoder, model, inverse)
        parameters = [p for m in modules for p in m.parameters()]
        return Phase("world_model", learn.world_model_steps, learn.learning_rate, parameters, update, after_step)

    # Critic

    def remember(self, count: int) -> None:
        """Perceive what was explored, and write it to memory: as many whole episodes as hold `count` records."""
        agent, data = self.agent, self.data
        agent.memory.clear()
        episodes = max(
            1, min(data.episodes, count // (data.length + 1), agent.memory.config.capacity // (data.length + 1))
        )
        with torch.no_grad():
            for first in range(0, episodes, 16):
                chosen = torch.arange(first, min(first + 16, episodes))
                n = len(chosen)
                seen = data.observe(chosen, slice(None)).map(lambda x: x.flatten(0, 1).to(self.device))
                state = agent.perception.encode(seen).map(lambda x, n=n: x.unflatten(0, (n, -1)))
                for t in range(data.length + 1):
                    action = data.actions[chosen, min(t, data.length - 1)].to(self.device)
                    zero = torch.zeros(len(chosen), device=self.device)
                    agent.memory.write(t * agent.world_model.block, chosen, state[:, t], action, zero, zero, False)

    def futures(self, state: State) -> State:
        """States imagined one block ahead under held actions in all directions and none: (B, ...) -> (B, N, ...)."""
        agent = self.agent
        actions = held_actions(agent, self.device)
        count = len(actions)
        repeated = state.map(lambda x: x.repeat_interleave(count, 0))
        imagined = agent.world_model.predict(repeated, actions.repeat(state.latent.shape[0], 1, 1))
        return imagined.map(lambda x: x.unflatten(0, (-1, count)))

    def critic(self) -> Phase:
        """Cost-to-go for (state, goal) of the same scene, from perceived records and their imagined futures."""
        agent, learn = self.agent, self.config.learn
        records = agent.memory.records()
        table = Scenes(self.data, records)
        state = records.state
        # Kept in half precision: they are only ever compared through the critic.
        with torch.no_grad():
            pieces = state.latent.split(256), state.slots.split(256)
            imagined = State.cat([self.futures(State(*p)).map(Tensor.bfloat16) for p in zip(*pieces, strict=True)])
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
            loss, metrics = cost.critic_loss(agent.cost, state[record], State.cat([future, seen], 2), goal)
            return loss, metrics

        def after_step(step: int) -> dict[str, float]:
            agent.cost.follow(learn.critic_follow)
            return {}

        def finish() -> None:
            agent.cost.trained.fill_(True)

        assert agent.cost.critic is not None
        parameters = list(agent.cost.critic.parameters())
        return Phase("critic", learn.critic_steps, learn.critic_rate, parameters, update, after_step, finish)

    # Policy

    def policy(self) -> Phase:
        """Distil Mode-2: plans between remembered states of one scene, every step of a plan an example."""
        agent, learn = self.agent, self.config.learn
        start, goal, wanted = self.plans(step_generator(self.config.seed, 100, 0))
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
    def plans(self, generator: torch.Generator) -> tuple[State, State, Tensor]:
        """Examples (state, goal, planned action (A,)) from Mode-2 plans between records of the same scene.

        A plan teaches more than its first action: every imagined step towards the goal is an example, and so is every
        step towards any later imagined state, which the plan reaches by construction.
        """
        agent, learn = self.agent, self.config.learn
        records = agent.memory.records()
        scenes = Scenes(self.data, records)
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

    # Decoder

    def decoder(self) -> Phase:
        """Pictures from states that no longer change."""
        agent, data, learn = self.agent, self.data, self.config.learn

        def update(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
            episode = torch.randint(data.episodes, (64,), generator=generator)
            moment = torch.randint(data.length + 1, (64,), generator=generator)
            seen: Observation = data.observe(episode, moment).map(lambda x: x.to(self.device))
            with torch.no_grad():
                state = agent.perception.encode(seen)
            loss = decoder.decoder_loss(agent.decoder, state, seen)
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
    """Standing still and full strength in all directions, held for a block: (N, K, A)."""
    space = agent.actor.policy.actions
    if space.size == 2:
        angle = torch.arange(8) * (math.pi / 4)
        direction = torch.stack([angle.cos(), angle.sin()], 1)
    else:
        eye = torch.eye(space.size)
        direction = torch.cat([eye, -eye])
    low, high = torch.tensor(space.low), torch.tensor(space.high)
    actions = (low + high) / 2 + (high - low) / 2 * torch.cat([torch.zeros(1, space.size), direction])
    return space.clip(actions)[:, None].expand(-1, agent.world_model.block, -1).to(device)


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as flat tensors."""
    return {f"{i}.{k}": v for i, s in optimiser.state_dict()["state"].items() for k, v in s.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The inverse of optimiser_tensors."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
