"""The offline schedule with logs and checkpoints: world model, critic, policy, decoder, always in this order.

The batch of step n depends on the seed, the update and n alone, so that a training that was interrupted and resumed
ends at the same bits as one that was not.
"""

from __future__ import annotations

import time
from typing import Protocol

import torch
from torch import Tensor

from agent.agent import Agent
from agent.build import load_tensors, memory_tensors, tensors
from agent.config import Config
from agent.console import Progress
from agent.errors import check_finite
from agent.interaction.replay import Replay
from agent.learning import parallel
from agent.learning.critic import CriticUpdate
from agent.learning.decoder import DecoderUpdate
from agent.learning.policy import PolicyUpdate
from agent.learning.reward import RewardUpdate
from agent.learning.schedules import learning_rate, optimiser_of, set_rate, take_step
from agent.learning.updates import Update, step_generator
from agent.learning.world_model import WorldModelUpdate
from agent.storage.run import Run


class Watch(Protocol):
    """Looks on at a training (gauges, pictures). It may write to the run and changes nothing that is learned."""

    def on_step(self, update: Update, step: int) -> dict[str, float]:
        """Called after each step of an update; what it returns is logged."""
        ...

    def on_phase_end(self, update: Update, total: int) -> None:
        """Called when an update has finished; total: steps of all updates so far."""
        ...


class NoWatch:
    """A training without gauges or pictures."""

    def on_step(self, update: Update, step: int) -> dict[str, float]:
        """Nothing to log."""
        return {}

    def on_phase_end(self, update: Update, total: int) -> None:
        """Nothing to show."""


def updates_of(agent: Agent, replay: Replay, config: Config) -> list[Update]:
    """The updates that a configuration asks for, in the order in which they are learned."""
    learn, perception, model = config.learn, agent.perception, agent.world_model
    updates: list[Update] = [
        WorldModelUpdate(perception, model, agent.inverse, replay, config.losses, learn),
    ]
    if agent.cost.critic is not None:
        primitives = agent.actor.actions.primitives()
        updates.append(CriticUpdate(perception, model, agent.cost, agent.memory, replay, learn, primitives))
    if agent.cost.reward is not None:
        updates.append(RewardUpdate(perception, agent.cost, agent.actor.actions, replay, learn))
    updates.append(PolicyUpdate(agent, replay, learn, config.seed))
    updates.append(DecoderUpdate(perception, agent.decoder, agent.memory, replay, learn))
    return [update for update in updates if update.steps and update.parameters]


class Trainer:
    """Runs the updates of one agent on one replay, saves, and resumes."""

    def __init__(
        self, config: Config, agent: Agent, replay: Replay, run: Run | None, watch: Watch | None = None
    ) -> None:
        """run: where to log and save; None on all ranks but the first."""
        self.config, self.agent, self.replay, self.run = config, agent, replay, run
        self.watch = watch or NoWatch()
        self.updates = updates_of(agent, replay, config)
        self.seconds = {"wall": 0.0, "cpu": 0.0}
        self._clock = (time.monotonic(), time.process_time())

    def learn(self, progress: Progress, stop_at: int | None = None, resume_from: Run | None = None) -> None:
        """Train from the newest checkpoint to the end.

        Args:
            progress: is told what is being done.
            stop_at: leave after that many steps in all (tests).
            resume_from: a finished run of the first updates, from which a run that has no checkpoint yet goes on, as
                if these updates had been its own.
        """
        first, within, optimiser_state = self._resume(resume_from)
        total = 0
        for index, update in enumerate(self.updates):
            if index < first:
                total += update.steps
                continue
            if self.run is None and index:
                return  # all but the world model is learned by the first rank
            # Preparing may imagine and plan for a minute: that is training too.
            self._clock = (time.monotonic(), time.process_time())
            update.prepare(progress, tabulate=True)
            self._run_update(index, within, optimiser_state, total, progress, stop_at)
            total += update.steps
            within, optimiser_state = 0, {}
            if stop_at is not None and total >= stop_at:
                return
            if self.run:
                self.watch.on_phase_end(update, total)

    def _resume(self, resume_from: Run | None) -> tuple[int, int, dict[str, Tensor]]:
        """Load the newest checkpoint: the update and the step that come next, and the optimiser's state."""
        saved = self.run and self.run.resume()
        if self.run and saved is None and resume_from is not None:
            held, meta, step = resume_from.load_checkpoint()
            assert meta["step"] == 0 and meta["phase"] < len(self.updates), "the other run is not finished"
            saved = {k: v for k, v in held.items() if not k.startswith("memory.")}, meta, step
            kept = {k: meta[k] for k in ("phase", "step", "seconds", "spec")}
            self.run.save_checkpoint(step, saved[0], kept)
        saved = parallel.same(saved)
        if saved is None:
            return 0, 0, {}
        held, meta, _ = saved
        load_tensors(self.agent, held)
        self.seconds = dict(meta["seconds"])
        state = {k.removeprefix("optimiser."): v for k, v in held.items() if k.startswith("optimiser.")}
        return meta["phase"], meta["step"], state

    def _run_update(
        self,
        index: int,
        start: int,
        optimiser_state: dict[str, Tensor],
        before: int,
        progress: Progress,
        stop_at: int | None,
    ) -> None:
        update, learn = self.updates[index], self.config.learn
        optimiser = optimiser_of(update, learn)
        if optimiser_state:
            restore_optimiser(optimiser, optimiser_state)
        if self.run:
            self.run.phase = update.name
        progress.start(update.name.replace("_", " "), update.steps, start)
        last_save = time.monotonic()
        step = start
        try:
            while step < update.steps:
                set_rate(optimiser, update.rate * learning_rate(step, update.steps))
                generator = step_generator(self.config.seed, index, step)
                values = take_step(update, optimiser, generator, learn.clip, step)
                step += 1
                extra = self.watch.on_step(update, step)
                if self.run and (step % 10 == 0 or extra):
                    self.run.log(before + step, {**values, **extra})
                progress.update(step, f"loss {values['losses/total'].item():.4f}" if step % 10 == 0 else "")
                if time.monotonic() - last_save > learn.checkpoint_seconds:
                    check_finite(tensors(self.agent), before + step, "weights")
                    self._save(index, step, before + step, optimiser)
                    last_save = time.monotonic()
                if stop_at is not None and before + step >= stop_at and step < update.steps:
                    self._save(index, step, before + step, optimiser)
                    return
        except KeyboardInterrupt:
            self._save(index, step, before + step, optimiser)
            raise
        check_finite(tensors(self.agent), before + step, "weights")
        update.finish()
        self._save(index + 1, 0, before + step, optimiser)

    def _save(self, next_update: int, next_step: int, total: int, optimiser: torch.optim.Optimizer) -> None:
        """Save the agent, what comes next, and in the middle of an update the optimiser."""
        if self.run is None:
            return
        now = time.monotonic(), time.process_time()
        self.seconds["wall"] += now[0] - self._clock[0]
        self.seconds["cpu"] += now[1] - self._clock[1]
        self._clock = now
        held = tensors(self.agent)
        if next_update == len(self.updates):  # the end: the memory stays with the run
            held |= memory_tensors(self.agent)
        if next_step:
            held |= {f"optimiser.{k}": v for k, v in optimiser_tensors(optimiser).items()}
        meta = {"phase": next_update, "step": next_step, "seconds": self.seconds, "spec": self.agent.spec.to_json()}
        self.run.save_checkpoint(total, held, meta)


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
