"""Learning, always in this order and each phase repeatable: world model, critic, policy, decoder.

What the phases optimise stands in `agent/phases.py`; here is what runs them, saves them and goes on after an
interruption. The batch of step n depends on the seed, the phase and n alone, so that a training that was interrupted
ends at the same bits as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from agent.console import Progress
from agent.errors import NonFinite, check_finite
from agent.interaction.replay import Dataset
from agent.learning import critic, decoder, parallel, policy, records, world_model
from agent.learning.schedules import Phase, step_generator

if TYPE_CHECKING:
    from agent.agent import Agent
    from agent.config import Config as RunConfig
    from agent.storage.run import Run
from agent.learning.schedules import schedule


class Learner:
    """Runs the phases of one agent on one dataset, with checkpoints."""

    def __init__(self, config: RunConfig, agent: Agent, data: Dataset, run: Run | None) -> None:
        """run: where to log and save; None on all ranks but the first."""
        self.config, self.agent, self.data, self.run = config, agent, data, run
        self.seconds = {"wall": 0.0, "cpu": 0.0}
        self._clock = (time.monotonic(), time.process_time())

    def phases(self) -> list[tuple[Callable[..., Phase], int]]:
        """The phases in order and their updates; each is built when its turn comes, on what the ones before learned."""
        learn = self.config.learn
        every = [
            (world_model.world_model, learn.world_model_steps),
            (critic.critic, learn.critic_steps if self.agent.cost.critic is not None else 0),
            (policy.policy, learn.policy_steps),
            (decoder.decoder, learn.decoder_steps),
        ]
        return [(build, steps) for build, steps in every if steps]

    @property
    def total_steps(self) -> int:
        """Updates of all phases together."""
        return sum(steps for _, steps in self.phases())

    def learn(
        self,
        progress: Progress,
        stop_at: int | None = None,
        after: Run | None = None,
        show: Callable[[str, int], None] = lambda phase, step: None,
    ) -> None:
        """Train from the newest checkpoint to the end.

        stop_at (tests): leave after that many updates in all. after: a finished run of the first phases, from which a
        run that has no checkpoint yet goes on, as if the phases had been its own. show: called at the end of each phase
        with its name and the updates of all phases so far.
        """
        saved = self.run and self.run.resume()
        if self.run and saved is None and after is not None:
            tensors, meta, step = after.load_checkpoint()
            assert meta["step"] == 0 and meta["phase"] < len(self.phases()), "the other run is not finished"
            saved = {k: v for k, v in tensors.items() if not k.startswith("memory.")}, meta, step
            kept = {k: meta[k] for k in ("phase", "step", "seconds")}
            self.run.save_checkpoint(step, saved[0], kept)
        saved = parallel.same(saved)
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
        for index, (build, steps) in enumerate(self.phases()):
            if index < first:
                total += steps
                continue
            if self.run is None and index:
                return  # all but the world model is learned by the first rank
            # Building a phase may imagine and plan for a minute: that is training too.
            if index:
                progress.start(f"prepare {build.__name__}")
            self._clock = (time.monotonic(), time.process_time())
            if index and not self.agent.memory.size:
                records.remember(self.agent, self.data, self.config.learn.critic_records)
            phase = build(self.agent, self.data, self.config)
            self._run_phase(index, phase, within, optimiser_state, total, progress, stop_at)
            del phase  # and all that it holds, before the next one is built
            total += steps
            within, optimiser_state = 0, {}
            if stop_at is not None and total >= stop_at:
                return
            if self.run:
                show(self.run.phase, total)

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
        if self.run:
            self.run.phase = phase.name
        progress.start(phase.name.replace("_", " "), phase.steps, start)
        last_save = time.monotonic()
        step = start

        def save(next_phase: int, next_step: int) -> None:
            nonlocal last_save
            if self.run is None:
                return
            now = time.monotonic(), time.process_time()
            self.seconds["wall"] += now[0] - self._clock[0]
            self.seconds["cpu"] += now[1] - self._clock[1]
            self._clock, last_save = now, now[0]
            tensors = self.agent.tensors()
            if next_phase == len(self.phases()):  # the end: what was lived through stays with the run
                tensors |= self.agent.memory_tensors()
            if next_step:
                tensors |= {f"optimiser.{k}": v for k, v in optimiser_tensors(optimiser).items()}
            meta = {"phase": next_phase, "step": next_step, "seconds": self.seconds}
            self.run.save_checkpoint(before + step, tensors, meta)

        try:
            while step < phase.steps:
                values = self._update(index, phase, optimiser, step, before)
                step += 1
                extra = phase.after_step(step)
                if self.run and (step % 10 == 0 or extra):
                    self.run.log(before + step, {**values, **extra})
                progress.update(step, f"loss {values['losses/total'].item():.4f}" if step % 10 == 0 else "")
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

    def _update(
        self, index: int, phase: Phase, optimiser: torch.optim.Optimizer, step: int, before: int
    ) -> dict[str, Tensor]:
        """One update of the weights; what it was like, by scalar name."""
        for group in optimiser.param_groups:
            group["lr"] = phase.rate * schedule(step, phase.steps)
        loss, metrics = phase.update(step, step_generator(self.config.seed, index, step))
        shown = {"total": loss.detach(), **metrics}
        if phase.shared:
            shown = parallel.means(shown)
        if not math.isfinite(shown["total"].item()):
            raise NonFinite(
                f"the loss of phase {phase.name} is {shown['total'].item()} at step {step}: "
                f"{', '.join(f'{k}={shown[k].item():.4g}' for k in metrics)}. The last good checkpoint is "
                "untouched; lower --learn.learning-rate, or look for such values in the observations"
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if phase.shared:
            parallel.average_gradients(phase.parameters)
        norm = nn.utils.clip_grad_norm_(phase.parameters, self.config.learn.clip)
        optimiser.step()
        return {"health/grad_norm": norm, **{f"losses/{k}": v for k, v in shown.items()}}


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
