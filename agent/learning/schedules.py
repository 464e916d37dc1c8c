"""What is learned when: the learning rate of a step, and the order in which updates run.

Offline: explore once, then each update in turn, world model, critic, policy, decoder (`agent/learning/trainer.py`).
Online: collect with the current agent, update, repeat.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from agent.config import Config, LearnConfig
from agent.errors import NonFinite
from agent.interaction.replay import Replay
from agent.learning import parallel
from agent.learning.updates import Update, step_generator


def learning_rate(step: int, steps: int) -> float:
    """Share of the peak rate: linear warm-up over 5 %, cosine to 2 %."""
    warm = max(1, min(100, steps // 20))
    return min(1.0, (step + 1) / warm) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / max(1, steps))))


def optimiser_of(update: Update, learn: LearnConfig) -> torch.optim.AdamW:
    """A fresh optimiser of an update's parameters."""
    return torch.optim.AdamW(update.parameters, update.rate, weight_decay=learn.weight_decay)


def take_step(
    update: Update, optimiser: torch.optim.Optimizer, generator: torch.Generator, clip: float, step: int
) -> dict[str, Tensor]:
    """One optimiser step; metrics by scalar name.

    Raises:
        NonFinite: the loss is NaN or infinite. The weights are as before.
    """
    loss, metrics = update.loss(generator)
    shown = {"total": loss.detach(), **metrics}
    if update.shared:
        shown = parallel.means(shown)
    if not math.isfinite(shown["total"].item()):
        raise NonFinite(
            f"the loss of phase {update.name} is {shown['total'].item()} at step {step}: "
            f"{', '.join(f'{k}={shown[k].item():.4g}' for k in metrics)}. The last good checkpoint is "
            "untouched; lower --learn.learning-rate, or look for such values in the observations"
        )
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    if update.shared:
        parallel.average_gradients(update.parameters)
    norm = nn.utils.clip_grad_norm_(update.parameters, clip)
    optimiser.step()
    update.after()
    return {"health/grad_norm": norm, **{f"losses/{k}": v for k, v in shown.items()}}


def offline(updates: Sequence[Update], replay: Replay, config: Config) -> None:
    """Each update in turn, to its end, on data that no longer change. Without logs or checkpoints: see `Trainer`."""
    for index, update in enumerate(updates):
        update.prepare(None, tabulate=True)
        optimiser = optimiser_of(update, config.learn)
        for step in range(update.steps):
            set_rate(optimiser, update.rate * learning_rate(step, update.steps))
            take_step(update, optimiser, step_generator(config.seed, index, step), config.learn.clip, step)
        update.finish()


def online(
    updates: Sequence[Update],
    replay: Replay,
    config: Config,
    collect: Callable[[int], object],
    rounds: int,
    ratio: int,
    weights_changed: Callable[[], object] = lambda: None,
) -> None:
    """Collect with the current agent, let every update that is ready take `ratio` steps, repeat.

    Args:
        updates: in the order in which they run within a round.
        replay: what `collect` appends to.
        config: seed, clip and weight decay.
        collect: called with the number of the round; acts and appends to the replay.
        rounds: how often.
        ratio: optimiser steps of each update in a round.
        weights_changed: called after the updates of a round (`Agent.weights_changed`).
    """
    optimisers = [optimiser_of(update, config.learn) for update in updates]
    taken = [0] * len(updates)
    for number in range(rounds):
        collect(number)
        for index, (update, optimiser) in enumerate(zip(updates, optimisers, strict=True)):
            if not update.ready(replay):
                continue
            update.prepare(None, tabulate=False)
            for _ in range(ratio):
                generator = step_generator(config.seed, index, taken[index])
                take_step(update, optimiser, generator, config.learn.clip, taken[index])
                taken[index] += 1
            update.finish()
        weights_changed()


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate of the next step."""
    for group in optimiser.param_groups:
        group["lr"] = rate
