"""A Gymnasium environment small enough to be checked by hand: a point with a velocity, in curves or in pixels."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from agent.agent import Agent
from agent.build import build
from agent.config import Config
from agent.interaction.environment import Environment, environment_of
from agent.presets import debug
from modules import actor, cost, critic, decoder, perception, world_model


class Drift(gym.Env):
    """Observes place and velocity (4,). It terminates `far` from the middle."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, render_mode: str | None = None, far: float = 50.0, pixels: bool = False) -> None:
        self.render_mode, self.far, self.pixels = render_mode, far, pixels
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)
        body = spaces.Box(-np.inf, np.inf, (4,), np.float32)
        self.observation_space = spaces.Box(0, 255, (20, 24, 3), np.uint8) if pixels else body

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.x, self.v = self.np_random.uniform(-1, 1, 2), np.zeros(2)
        return self.observe(), {}

    def observe(self) -> Any:
        return self.render() if self.pixels else np.concatenate([self.x, self.v]).astype(np.float32)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.v = 0.8 * self.v + 0.2 * np.asarray(action, np.float64)
        self.x = self.x + self.v
        return self.observe(), -float(np.abs(self.x).sum()), bool(np.abs(self.x).max() > self.far), False, {}

    def render(self) -> Any:
        picture = np.full((20, 24, 3), 240, np.uint8)
        row, column = (np.tanh(self.x / 4) * 9 + 10).astype(int)
        picture[row, column] = 20
        return picture


class Blind(Drift):
    """Cannot be rendered, and does not say that it could."""

    metadata = {"render_modes": []}

    def __init__(self) -> None:
        super().__init__()


class Broken(Drift):
    """Says that it can be rendered."""

    def render(self) -> Any:
        raise RuntimeError("no display")


for name, kind, limit, options in (
    ("Drift", Drift, 200, {}),
    ("DriftShort", Drift, 11, {}),
    ("DriftTiny", Drift, 5, {}),
    ("DriftEnding", Drift, 200, {"far": 1.5}),
    ("DriftPixels", Drift, 200, {"pixels": True}),
    ("DriftBlind", Blind, 200, {}),
    ("DriftBroken", Broken, 200, {}),
):
    gym.register(f"{name}-v0", kind, max_episode_steps=limit, kwargs=options)


def config_of(env: str = "Drift-v0", drives: tuple[str, ...] = ("effort", "survive")) -> Config:
    """A run of seconds: blocks of two actions."""
    base = debug()
    pixels = "Pixels" in env
    seen = perception.Config(latent="spatial", channels=4, width=8) if pixels else perception.Config("vector", size=8)
    return dataclasses.replace(
        base,
        env=env,
        collect=dataclasses.replace(base.collect, episodes=12, length=4, steps=0),
        perception=dataclasses.replace(seen, hidden=16),
        world_model=world_model.Config(predictor="conv" if pixels else "mlp", hidden=16, action_block=2),
        cost=cost.Config(drives=drives),
        critic=critic.Config(enabled=False),
        actor=actor.Config(hidden=16),
        decoder=decoder.Config(hidden=16),
        configurator=dataclasses.replace(base.configurator, samples=8, iterations=2, horizon_without_critic=3),
        learn=dataclasses.replace(
            base.learn,
            world_model_steps=6,
            reward_steps=3,
            policy_steps=0,
            critic_steps=0,
            decoder_steps=4 if pixels else 0,
            batch=4,
            gauge_every=5,
        ),
    )


def born(config: Config) -> tuple[Agent, Environment]:
    """An agent that has learned nothing, and its environment."""
    environment = environment_of(config)
    return build(config, environment.spec), environment
