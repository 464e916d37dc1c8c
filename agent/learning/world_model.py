"""The world model learns self-supervised: prediction in representation space, kept from collapse.

No reward, goal or decoder takes part.

Shapes: B windows, T states of a window, H = T - 1 steps, K primitive actions a block, A action, D latent.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from agent.config import LearnConfig
from agent.console import Progress
from agent.interaction.replay import Replay
from agent.learning import parallel
from modules import losses
from modules.blocks import device_of
from modules.types import Perception, State
from modules.world_model import JEPA, InverseDynamics


class WorldModelUpdate:
    """Encoder, predictor and inverse dynamics, on windows of exploration (`updates.Update`)."""

    name, shared = "world_model", True

    def __init__(
        self,
        perception: Perception,
        model: JEPA,
        inverse: InverseDynamics,
        replay: Replay,
        weights: losses.Config,
        learn: LearnConfig,
    ) -> None:
        self.perception, self.model, self.inverse = perception, model, inverse
        self.replay, self.weights, self.learn = replay, weights, learn
        self.steps, self.rate = learn.world_model_steps, learn.learning_rate
        modules = (perception, model, inverse) if learn.train_encoder else (model, inverse)
        self.parameters = [p for m in modules if isinstance(m, nn.Module) for p in m.parameters()]

    def ready(self, replay: Replay) -> bool:
        """A window has to fit."""
        return replay.size > 0 and replay.length + 1 >= self.learn.window

    def prepare(self, progress: Progress | None, tabulate: bool) -> None:
        """Nothing."""

    def loss(self, generator: Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted terms of `losses.Config` on a batch of windows.

        A perception with a carry sees up to `context` moments before the window, as far as the piece has them, so that
        states inside the window are those of life; no term counts them.
        """
        learn, weights, device = self.learn, self.weights, device_of(self.perception)
        whole, begin = self.replay.draw(learn.batch, learn.window, generator)
        episode, end = parallel.part(whole), begin + learn.window
        past = min(begin, self.perception.context)
        seen = self.replay.observe(episode, slice(begin - past, end)).map(lambda x: x.to(device))
        done = self.replay.actions[episode, begin - past : end - 1].to(device)
        with torch.set_grad_enabled(learn.train_encoder):
            state = self.perception.encode_window(seen, done)[:, past:]
        actions = done[:, past:]
        if learn.shuffle_actions:  # what the world model is told; perception is told what was really done
            actions = self.replay.actions[parallel.part(whole.roll(1)), begin : end - 1].to(device)
        after = state[:, 1:]
        imagined = self._predicted(state, actions)
        terms = {"prediction": (imagined.latent - after.latent).square().mean()}
        loss = weights.prediction * terms["prediction"]
        if state.proprio.shape[-1]:
            terms["proprio"] = (imagined.proprio - after.proprio).square().mean()
            loss = loss + weights.proprio * terms["proprio"]
        kept_apart = losses.anticollapse(parallel.whole(state.latent), weights, self.perception.map_shape, generator)
        loss = loss + sum(getattr(weights, k) * v for k, v in kept_apart.items())
        terms |= kept_apart
        if weights.within_episode:
            terms["within_episode"] = losses.within_episode(state.latent, weights.within_episode_target)
            loss = loss + weights.within_episode * terms["within_episode"]
        if weights.temporal:
            terms["temporal"] = losses.temporal(state.latent)
            loss = loss + weights.temporal * terms["temporal"]
        if weights.inverse:
            pairs = (state[:, :-1].map(lambda x: x.flatten(0, 1)), after.map(lambda x: x.flatten(0, 1)))
            wanted = self.model.actions.features(actions).flatten(0, 1).flatten(1)
            terms["inverse"] = (self.inverse(*pairs) - wanted).square().mean()
            loss = loss + weights.inverse * terms["inverse"]
        return loss, {k: v.detach() for k, v in terms.items()}

    def _predicted(self, state: State, actions: Tensor) -> State:
        """States (B, H, ...) predicted for s[1..H]: open loop from s[0], or one step from every state."""
        if self.weights.multi_step:
            return self.model.rollout(state[:, 0], actions).states
        one = self.model.predict(state[:, :-1].map(lambda x: x.flatten(0, 1)), actions.flatten(0, 1))
        return one.map(lambda x: x.unflatten(0, actions.shape[:2]))

    def after(self) -> None:
        """Nothing."""

    def finish(self) -> None:
        """Nothing."""
