"""Complete named configurations, as functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from agent.config import Config, ExploreConfig, LearnConfig
from modules import actor, configurator, cost, critic, decoder, losses, perception, world_model

_SPATIAL = Config(
    perception=perception.Config(latent="spatial", channels=12, width=32),
    world_model=world_model.Config(predictor="conv", width=32, depth=3),
    losses=losses.Config(variance=1.0, covariance=1.0, temporal=0.0, inverse=1.0),
    cost=cost.Config(goal_scale=0.1),
    configurator=configurator.Config(samples=32, iterations=2),
    learn=LearnConfig(critic_steps=3000),
)


def two_rooms() -> Config:
    """Pixels, a fixed wall with a door: the default. Minutes on two cores."""
    return _SPATIAL


def two_rooms_random() -> Config:
    """The same with wall and door drawn anew for every scene; evaluated on layouts never seen."""
    return dataclasses.replace(
        _SPATIAL,
        env="TwoRoomsRandom-v0",
        configurator=configurator.Config(samples=64),
        learn=LearnConfig(world_model_steps=9000, critic_steps=10_000),
    )


def point_maze() -> Config:
    """MuJoCo: a ball with momentum in a U maze, seen by position and velocity."""
    return Config(
        env="PointMaze-v0",
        env_options=("layout=u",),
        max_steps=150,
        collect=ExploreConfig(episodes=4000, length=24, per_scene=1),
        perception=perception.Config(latent="vector", size=64, hidden=256, fourier_features=4),
        world_model=world_model.Config(predictor="mlp", hidden=512),
        losses=losses.Config(variance=1.0, covariance=1.0, temporal=0.0, inverse=1.0, proprio=10.0),
        cost=cost.Config(goal_scale=0.02),
        learn=LearnConfig(world_model_steps=3000, batch=256, critic_steps=4000, critic_far=4),
    )


def point_maze_medium() -> Config:
    """The medium maze: twice as far."""
    return dataclasses.replace(
        point_maze(),
        env_options=("layout=medium",),
        max_steps=250,
        configurator=configurator.Config(discount=0.97),
        learn=LearnConfig(world_model_steps=5000, batch=256, critic_steps=6000, critic_far=4),
    )


def debug() -> Config:
    """Every part once, in seconds; learns nothing worth having."""
    return dataclasses.replace(
        _SPATIAL,
        threads=1,
        collect=ExploreConfig(episodes=32, length=8, per_scene=4),
        perception=dataclasses.replace(_SPATIAL.perception, channels=4, width=8),
        world_model=dataclasses.replace(_SPATIAL.world_model, width=8, depth=2),
        critic=critic.Config(hidden=32),
        actor=actor.Config(hidden=32),
        decoder=decoder.Config(hidden=32, width=8),
        configurator=configurator.Config(samples=16, iterations=2, horizon=2),
        learn=LearnConfig(
            world_model_steps=20, critic_steps=20, policy_steps=20, decoder_steps=20, batch=8, plan_episodes=4
        ),
    )


PRESETS: dict[str, Callable[[], Config]] = {
    f.__name__: f for f in (two_rooms, two_rooms_random, point_maze, point_maze_medium, debug)
}
