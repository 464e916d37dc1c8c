"""Complete named configurations, as functions, and how a configuration becomes text and back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_type_hints

from agent import collect, learn
from agent.errors import UserError
from modules import actor, configurator, cost, decoder, memory, objectives, perception, planners, world_model


@dataclass(frozen=True)
class Config:
    """A whole run: the world, the six modules, and how they learn. The command line has a flag for every field."""

    env: str = "TwoRooms-v0"
    """World: an id of this project, or module:Id-v0 of any Gymnasium environment."""
    env_options: dict[str, str] = field(default_factory=dict)
    """Options of the world's constructor, as name value pairs: layout medium."""
    max_steps: int = 60
    """Budget of an evaluation task, in primitive actions."""
    seed: int = 0
    """Everything random follows from this number."""
    device: str = "auto"
    """auto (a GPU when there is one), cpu, cuda, cuda:1, mps."""
    threads: int = 2
    """CPU threads of training; the last bits of the result depend on it."""
    collect: collect.Config = field(default_factory=collect.Config)
    """Exploration."""
    perception: perception.Config = field(default_factory=perception.Config)
    """Encoder."""
    world_model: world_model.Config = field(default_factory=world_model.Config)
    """Predictor."""
    objectives: objectives.Config = field(default_factory=objectives.Config)
    """Self-supervised losses."""
    cost: cost.Config = field(default_factory=cost.Config)
    """Drives and critic."""
    memory: memory.Config = field(default_factory=memory.Config)
    """Episodic store."""
    planner: planners.Config = field(default_factory=planners.Config)
    """How to search."""
    actor: actor.Config = field(default_factory=actor.Config)
    """Policy."""
    configurator: configurator.Config = field(default_factory=configurator.Config)
    """What the directive says: how much to search, weights of costs, mode."""
    decoder: decoder.Config = field(default_factory=decoder.Config)
    """Pictures."""
    learn: learn.Config = field(default_factory=learn.Config)
    """Phases of training."""


_SPATIAL = Config(
    perception=perception.Config(latent="spatial", channels=12, width=32),
    world_model=world_model.Config(predictor="conv", width=32, depth=3),
    objectives=objectives.Config(variance=1.0, covariance=1.0, temporal=0.0, inverse=1.0),
    cost=cost.Config(goal_scale=0.1),
    configurator=configurator.Config(samples=32, iterations=2),
    learn=learn.Config(critic_steps=3000),
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
        learn=learn.Config(world_model_steps=9000, critic_steps=10_000),
    )


def point_maze() -> Config:
    """MuJoCo: a ball with momentum in a U maze, seen by position and velocity."""
    return Config(
        env="PointMaze-v0",
        env_options={"layout": "u"},
        max_steps=150,
        collect=collect.Config(episodes=4000, length=24, per_scene=1),
        perception=perception.Config(latent="vector", size=64, hidden=256, octaves=4),
        world_model=world_model.Config(predictor="mlp", hidden=512),
        objectives=objectives.Config(variance=1.0, covariance=1.0, temporal=0.0, inverse=1.0, slots=10.0),
        cost=cost.Config(goal_scale=0.02),
        learn=learn.Config(world_model_steps=3000, batch=256, critic_steps=4000, critic_far=4),
    )


def point_maze_medium() -> Config:
    """The medium maze: twice as far."""
    return dataclasses.replace(
        point_maze(),
        env_options={"layout": "medium"},
        max_steps=250,
        configurator=configurator.Config(discount=0.97),
        learn=learn.Config(world_model_steps=5000, batch=256, critic_steps=6000, critic_far=4),
    )


def debug() -> Config:
    """Every part once, in seconds; learns nothing worth having."""
    return dataclasses.replace(
        _SPATIAL,
        threads=1,
        collect=collect.Config(episodes=32, length=8, per_scene=4),
        perception=dataclasses.replace(_SPATIAL.perception, channels=4, width=8),
        world_model=dataclasses.replace(_SPATIAL.world_model, width=8, depth=2),
        cost=dataclasses.replace(_SPATIAL.cost, hidden=32),
        actor=actor.Config(hidden=32),
        decoder=decoder.Config(hidden=32, width=8),
        configurator=configurator.Config(samples=16, iterations=2, horizon=2),
        learn=learn.Config(
            world_model_steps=20, critic_steps=20, policy_steps=20, decoder_steps=20, batch=8, plan_episodes=4
        ),
    )


PRESETS: dict[str, Callable[[], Config]] = {
    f.__name__: f for f in (two_rooms, two_rooms_random, point_maze, point_maze_medium, debug)
}


def options_of(config: Config) -> dict[str, Any]:
    """The world's options with numbers and truth values as such."""
    out: dict[str, Any] = {}
    for name, text in config.env_options.items():
        try:
            out[name] = json.loads(text)
        except ValueError:
            out[name] = text
    return out


def check(config: Config) -> None:
    """UserError for numbers with which nothing can be learned."""
    for name, value in _numbers(dataclasses.asdict(config)):
        least = 0 if name.rsplit(".", 1)[-1] in MAY_BE_ZERO else 1
        if value < least:
            raise UserError(f"--{name.replace('_', '-')} must be {least} or more, got {value}")
    if config.learn.batch < 2:
        raise UserError("--learn.batch must be 2 or more: variance over a batch of one is undefined")
    if not 2 <= config.learn.window <= config.collect.length + 1:
        raise UserError(
            f"--learn.window {config.learn.window} states must be from 2 to one more than the "
            f"--collect.length {config.collect.length} blocks of an episode"
        )


MAY_BE_ZERO = ("seed", "octaves", "critic_steps", "policy_steps", "decoder_steps", "capacity")


def _numbers(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, int]]:
    for name, item in value.items():
        if isinstance(item, dict):
            yield from _numbers(item, f"{prefix}{name}.")
        elif isinstance(item, int) and not isinstance(item, bool):
            yield prefix + name, item


T = TypeVar("T")


def from_dict(kind: type[T], values: dict[str, Any]) -> T:
    """A configuration back from config.json. Unknown fields are an error; absent ones take their defaults."""
    hints = get_type_hints(kind)
    unknown = set(values) - set(hints)
    if unknown:
        raise ValueError(f"config.json has fields that this version does not know: {', '.join(sorted(unknown))}")
    return kind(
        **{
            k: from_dict(hints[k], v) if dataclasses.is_dataclass(hints[k]) and isinstance(v, dict) else v
            for k, v in values.items()
        }
    )
