"""Helpers that several test files share: a configuration even smaller than the preset `debug`, and tiny trainings."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import torch

from agent.agent import Agent
from agent.build import build
from agent.config import Config, options_of
from agent.console import set_quiet
from agent.inspection.watch import Gallery
from agent.interaction.environment import Environment, open_environment
from agent.interaction.explore import explore
from agent.interaction.replay import Replay
from agent.learning.train import train_run
from agent.learning.updates import Update
from agent.presets import debug
from agent.storage.run import Run
from modules import actor, cost, critic, decoder, perception, world_model
from modules.types import Directive, Goal, Situation, State, Task

TINY_STEPS = {"world_model_steps": 12, "critic_steps": 11, "policy_steps": 10, "decoder_steps": 10}


def tiny(**changes) -> Config:
    """Every phase of a training in about a second: Two Rooms, pixels, a spatial latent."""
    base = debug()
    config = dataclasses.replace(
        base,
        collect=dataclasses.replace(base.collect, episodes=8, length=4, per_scene=2),
        learn=dataclasses.replace(base.learn, **TINY_STEPS, batch=4, plan_episodes=2, critic_records=40, gauge_every=5),
        configurator=dataclasses.replace(base.configurator, samples=8, iterations=2, horizon=2),
        max_steps=8,
    )
    return dataclasses.replace(config, **changes)


def tiny_maze(**changes) -> Config:
    """The same for a ball with sensors and proprio: a vector latent."""
    config = dataclasses.replace(
        tiny(),
        env="PointMaze-v0",
        env_options=("layout=u",),
        perception=perception.Config(latent="vector", size=8, hidden=16),
        world_model=world_model.Config(predictor="mlp", hidden=16),
        cost=cost.Config(goal_scale=0.02),
        critic=critic.Config(hidden=16),
        actor=actor.Config(hidden=16),
        decoder=decoder.Config(hidden=16),
    )
    return dataclasses.replace(config, **changes)


def born(config: Config) -> tuple[Agent, Environment]:
    """An agent that has learned nothing, and its environment."""
    environment = open_environment(config.env, options_of(config))
    return build(config, environment.spec), environment


def explored(config: Config, seed: int = 0) -> Replay:
    """Data to learn from."""
    environment = open_environment(config.env, options_of(config))
    return explore(config.collect, environment, config.world_model.action_block, seed)


def directive_for(agent: Agent, goal: State | None, task: Task | None = None, **changes: Any) -> Directive:
    """What the agent's configurator says for a goal, with some fields changed."""
    state = goal if goal is not None else State(torch.zeros(1, 1), torch.zeros(1, 0))
    situation = Situation(state, task or Task(), goal and Goal(goal), agent.status(), agent.memory)
    return agent.configurator.configure(situation).but(**changes)


class Gauges(Gallery):
    """Looks on without drawing: pictures take longer than the rest and change nothing."""

    def on_phase_end(self, update: Update, total: int) -> None:
        """Nothing."""


def train_tiny(config: Config, folder: Path, stop_at: int | None = None) -> dict:
    """Train without a word on the terminal, and without pictures."""
    set_quiet(True)
    try:
        return train_run(config, folder, ["run_agent.py", "train"], stop_at, watcher=Gauges)
    finally:
        set_quiet(False)


def weights_hash(folder: Path) -> str:
    """SHA-256 of every tensor in the newest checkpoint, names included."""
    tensors = Run.open(folder).load_checkpoint()[0]
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()
