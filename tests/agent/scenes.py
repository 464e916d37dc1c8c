"""Agents ready to act, and observations to act on: what the tests of the agent share."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.agent import Agent
from agent.config import Config
from agent.interaction.environment import Environment
from envs.gym_env import as_observation
from modules.types import State
from tests.helpers import born, tiny, tiny_maze

PLANNERS = ["cem", "mppi", "gradient"]
both = pytest.mark.parametrize("make", [tiny, tiny_maze])


def settings(config: Config, **changes: Any) -> Config:
    """With other settings of the configurator."""
    return dataclasses.replace(config, configurator=dataclasses.replace(config.configurator, **changes))


def drives(config: Config, *names: str, **changes: Any) -> Config:
    """With other intrinsic drives."""
    return dataclasses.replace(config, cost=dataclasses.replace(config.cost, drives=names, **changes))


def ready(config: Config) -> tuple[Agent, Environment]:
    """As if critic and policy had learned."""
    agent, environment = born(config)
    agent.cost.trained.fill_(True)
    agent.actor.trained.fill_(True)
    return agent, environment


def scene(environment: Environment, n: int, seed: int = 0) -> tuple[NDArray, NDArray]:
    """Observations and goals of n tasks."""
    assert environment.goals is not None and environment.truth is not None
    tasks = environment.goals.sample_tasks(np.random.default_rng(seed), n)
    return tuple(as_observation(environment.truth.observe(s)) for s in (tasks.start, tasks.goal))


def encoded(agent: Agent, observation: NDArray) -> State:
    """What the agent perceives."""
    return agent.perception.encode(agent.sense(observation)[0])
