"""Learning learns: a trivial world that a fresh agent masters in seconds, and broken agents that do not.

A dot in a square is seen by its coordinates among much louder noise. Only an encoder that has learned what the agent
controls can say how far a goal is; only a world model that listens to actions can say what leads there; only a search
finds it. Each broken baseline lacks one of the three and has to fail the bar, each in its own way.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import envs
from agent.build import load
from agent.config import Config, ExploreConfig, LearnConfig
from agent.evaluation.evaluate import evaluate
from agent.inspection.gauges import measure
from agent.interaction.environment import open_environment
from agent.interaction.explore import explore
from envs.api import Array, Percepts, Tasks
from modules import configurator, cost, critic, losses, perception, world_model
from tests.helpers import train_tiny

NOISE = 6
BAR = 0.9
"""Success rate on 60 unseen tasks that the agent has to reach, and no broken baseline may."""


class NoisyDot:
    """A dot that an action moves by at most 0.15 in a square from -1 to 1; six of its eight sensors are noise."""

    action_low, action_high = np.full(2, -0.15, np.float32), np.full(2, 0.15, np.float32)
    pixel_shape = None
    sensor_low, sensor_high = np.full(2 + NOISE, -1.0, np.float32), np.full(2 + NOISE, 1.0, np.float32)
    success_radius = 0.25

    def reset(self, rng: np.random.Generator, n: int) -> Array:
        return rng.uniform(-1, 1, (n, 2 + NOISE))

    def step(self, states: Array, actions: NDArray, rng: np.random.Generator | None) -> Array:
        dot = np.clip(states[:, :2] + np.clip(actions, -0.15, 0.15), -1, 1)
        noise = np.zeros((len(states), NOISE)) if rng is None else rng.uniform(-1, 1, (len(states), NOISE))
        return np.concatenate([dot, noise], 1)

    def observe(self, states: Array) -> Percepts:
        return {"sensors": states.astype(np.float32)}

    def sample_tasks(self, rng: np.random.Generator, n: int) -> Tasks:
        start, goal = self.reset(rng, n), self.reset(rng, n)
        start[:, 0], goal[:, 0] = np.minimum(-np.abs(start[:, 0]), -0.4), np.maximum(np.abs(goal[:, 0]), 0.4)
        return Tasks(start, goal)

    def success(self, states: Array, goals: Array) -> NDArray[np.bool_]:
        return np.linalg.norm(states[:, :2] - goals[:, :2], axis=1) < self.success_radius


def small() -> Config:
    """A training of seconds."""
    return Config(
        env="NoisyDot-v0",
        max_steps=40,
        threads=1,
        collect=ExploreConfig(episodes=400, length=12, per_scene=1),
        perception=perception.Config(latent="vector", size=8, hidden=64),
        world_model=world_model.Config(predictor="mlp", action_block=2, hidden=128),
        losses=losses.Config(variance=1.0, covariance=1.0, temporal=0.0, inverse=1.0),
        cost=cost.Config(goal_scale=0.3),
        critic=critic.Config(hidden=64),
        configurator=configurator.Config(samples=64, iterations=3, horizon=4),
        learn=LearnConfig(
            world_model_steps=700, batch=128, critic_steps=400, critic_records=2000, policy_steps=0, decoder_steps=0
        ),
    )


@dataclasses.dataclass(frozen=True)
class Profile:
    """What an agent is expected to look like: the lowest and highest value of each number, by name."""

    learn: dict[str, bool] = dataclasses.field(default_factory=dict)
    """Settings of `LearnConfig` that break its training."""
    act: dict[str, str] = dataclasses.field(default_factory=dict)
    """Settings of acting that break its decisions."""
    expected: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)


GOOD = {"collapse/feature_std": (0.5, 2.0), "collapse/inverse_r2": (0.6, 1.0), "collapse/swapped_action": (0.5, 3.0)}
PROFILES = {
    "full": Profile(expected={"success": (BAR, 1.0), "error against persistence": (0.0, 0.1), **GOOD}),
    # The representation and the model are as good as before; the search is not one.
    "random planner": Profile(act={"planner": "random"}, expected={"success": (0.0, 0.3), **GOOD}),
    # Nothing of what is controlled stands out of the noise.
    "untrained encoder": Profile(
        {"train_encoder": False},
        expected={"success": (0.0, 0.6), "collapse/feature_std": (0.0, 0.1), "collapse/inverse_r2": (-1.0, 0.4)},
    ),
    # The encoder is as good as before; the model does not listen to actions.
    "shuffled actions": Profile(
        {"shuffle_actions": True},
        expected={
            "success": (0.0, 0.6),
            "collapse/feature_std": (0.5, 2.0),
            "collapse/swapped_action": (0.0, 0.2),
            "error against persistence": (0.5, 1.5),
        },
    ),
}
"""Measured: success 1.00, 0.00, 0.23 and 0.08; error against persistence 0.02 and, with shuffled actions, 0.93."""


@pytest.fixture(scope="module", autouse=True)
def registered():
    envs.register("NoisyDot-v0", NoisyDot)
    yield
    del envs.SIMULATORS["NoisyDot-v0"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, bool]], Path]:
    """The run of a training with these settings; each is trained once."""
    runs: dict[str, Path] = {}

    def run(learn: dict[str, bool]) -> Path:
        name = str(learn)
        if name not in runs:
            runs[name] = tmp_path_factory.mktemp("run") / "run"
            config = small()
            train_tiny(dataclasses.replace(config, learn=dataclasses.replace(config.learn, **learn)), runs[name])
        return runs[name]

    return run


@pytest.mark.parametrize("name", PROFILES)
def test_an_agent_has_the_profile_of_what_it_lacks(name: str, trained: Callable[[dict[str, bool]], Path]):
    profile, config = PROFILES[name], small()
    run = trained(profile.learn)
    environment, agent = open_environment(config.env, {}), load(run)
    found = measure(agent, explore(dataclasses.replace(config.collect, episodes=100), environment, 2, 7), environment)
    found["error against persistence"] = found["imagination/latent_mse/h08"] / found["imagination/persistence/h08"]
    found["success"] = evaluate(agent, environment, config.max_steps, 60, profile.act)[0]["success"]
    wrong = {k: (found[k], limits) for k, limits in profile.expected.items() if not limits[0] <= found[k] <= limits[1]}
    assert not wrong, f"{name}: {wrong}"
    assert (found["success"] >= BAR) == (name == "full")


def test_it_takes_seconds(trained: Callable[[dict[str, bool]], Path]):
    summary = json.loads((trained({}) / "summary.json").read_text())
    assert summary["train_cpu_seconds"] < 20
