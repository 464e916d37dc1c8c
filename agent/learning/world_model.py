"""The world model learns self-supervised: prediction in representation space, kept from collapse.

Shapes: M episodes, T states of a window, K primitive actions a block, A action, D latent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from agent.inspection import gauges
from agent.interaction.replay import Dataset
from agent.learning import parallel
from modules import losses

if TYPE_CHECKING:
    from agent.agent import Agent
    from agent.config import Config as RunConfig
from agent.learning.schedules import Phase


def world_model(agent: Agent, data: Dataset, config: RunConfig) -> Phase:
    """Prediction in representation space, kept from collapse by the losses of the configuration."""
    learn, weights = config.learn, config.losses
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
        if state.proprio.shape[-1]:
            terms["proprio"] = (imagined.proprio - after.proprio).square().mean()
            loss = loss + weights.proprio * terms["proprio"]
        terms |= losses.anticollapse(parallel.whole(state.latent), weights, encoder.map_shape, generator)
        loss = loss + sum(getattr(weights, k) * v for k, v in terms.items() if k not in ("prediction", "proprio"))
        if weights.within_episode:
            terms["within_episode"] = losses.within_episode(state.latent, weights.within_episode_target)
            loss = loss + weights.within_episode * terms["within_episode"]
        if weights.temporal:
            terms["temporal"] = losses.temporal(state.latent)
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
