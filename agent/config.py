# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The Config tree: every setting of a run, its checks, and how it becomes JSON and back."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import dacite

from agent.errors import UserError, nearest
from modules import actor, configurator, cost, critic, decoder, losses, memory, perception, planners, world_model
from modules.cost import REWARD
from modules.drives import DRIVES
from modules.planners import PLANNERS


@dataclass(frozen=True)
class ExploreConfig:
    """How much to explore, and how."""

    episodes: int = 4000
    """Episodes of exploration (M); of an environment that is not this project's own, pieces of them."""
    steps: int = 0
    """Explore for so many primitive actions, in place of a number of episodes; 0: as many as the episodes take."""
    length: int = 24
    """T: action blocks in an episode."""
    processes: bool = False
    """Run each copy of an environment that is not this project's own in a process of its own: for slow ones, and for
    several that render with OpenGL."""
    per_scene: int = 8
    """Episodes that share one scene, where the environment can reset within a scene."""
    held: float = 0.6
    """Share of blocks in which one action is held."""
    redraw: float = 0.15
    """Probability, per block, of resampling the direction."""
    wander: float = 0.6
    """Standard deviation of the change of direction from block to block, in radians."""
    jitter: float = 0.5
    """Standard deviation of the change of direction between actions of a block that does not hold one, in radians."""
    strength: float = 0.8
    """Mean strength of an action in units of the largest; single ones vary by 0.3."""


@dataclass(frozen=True)
class LearnConfig:
    """How long and how fast each phase learns."""

    world_model_steps: int = 1500
    """Updates of encoder and predictor."""
    batch: int = 64
    """Windows in a batch of the world model."""
    window: int = 4
    """T: states in a window; T - 1 are predicted open loop."""
    learning_rate: float = 2e-3
    """Peak rate of the world model; warm-up, then cosine."""
    weight_decay: float = 1e-5
    """AdamW, all phases."""
    clip: float = 2.0
    """Largest norm of a gradient."""
    critic_steps: int = 1500
    """Updates of the critic."""
    critic_rate: float = 3e-3
    """Peak rate of the critic."""
    critic_records: int = 20_000
    """Memory records whose futures are imagined."""
    critic_far: int = 1
    """Blocks ahead of the farthest imagined futures; 1: none is farther than one block."""
    critic_scenes: int = 8
    """Scenes in a batch; every one with 8 records and 16 goals."""
    critic_tau: float = 0.1
    """Share by which the target critic moves towards the critic after each update."""
    reward_steps: int = 2000
    """Updates of the reward predictor, where the environment's reward is asked for."""
    reward_rate: float = 1e-3
    """Peak rate of the reward predictor."""
    policy_steps: int = 3000
    """Updates of the policy."""
    policy_rate: float = 1e-3
    """Peak rate of the policy."""
    plan_episodes: int = 4000
    """Mode-2 plans from which the policy is distilled."""
    decoder_steps: int = 800
    """Updates of the decoder."""
    decoder_rate: float = 4e-3
    """Peak rate of the decoder."""
    checkpoint_seconds: float = 60.0
    """Time between checkpoints; does not change the result."""
    gauge_every: int = 250
    """Updates of the world model between collapse gauges and probes."""
    train_encoder: bool = True
    """If false, the encoder keeps its random initial weights (placebo)."""
    shuffle_actions: bool = False
    """Train the world model with the actions of other episodes (placebo)."""
    shuffle_critic_labels: bool = False
    """Train the critic on the targets of other pairs of state and goal (placebo)."""


@dataclass(frozen=True)
class Config:
    """A whole run: the environment, the six modules, and how they learn. Every field is a flag of the command line."""

    env: str = "TwoRooms-v0"
    """Environment: an id of this project, or module:Id-v0 of any Gymnasium environment."""
    env_options: tuple[str, ...] = ()
    """Options of the environment's constructor: layout=medium pixels=true. To pass none, give --env-options alone."""
    wrappers: tuple[str, ...] = ()
    """Wrappers around the environment, module:Class each, from the inside outwards; none: not even the one that a
    known environment comes with."""
    goal: tuple[str, ...] = ()
    """A goal in readings of the body, name=value each: position=0.5. Readings that are not named do not matter."""
    data: str = ""
    """Recorded episodes to learn from in place of exploring: a folder of collect, or minari:ID."""
    max_steps: int = 60
    """Budget of an evaluation task, in primitive actions."""
    seed: int = 0
    """Seed of everything random."""
    device: str = "auto"
    """auto (a GPU when there is one), cpu, cuda, cuda:1, mps."""
    threads: int = 2
    """CPU threads of training; the last bits of the result depend on it."""
    collect: ExploreConfig = field(default_factory=ExploreConfig)
    """Exploration."""
    perception: perception.Config = field(default_factory=perception.Config)
    """Encoder."""
    world_model: world_model.Config = field(default_factory=world_model.Config)
    """Predictor."""
    losses: losses.Config = field(default_factory=losses.Config)
    """Self-supervised losses."""
    cost: cost.Config = field(default_factory=cost.Config)
    """Intrinsic drives: weights, guardrails, and the scale of the goal."""
    critic: critic.Config = field(default_factory=critic.Config)
    """Trainable cost."""
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
    learn: LearnConfig = field(default_factory=LearnConfig)
    """Phases of training."""


def options_of(config: Config) -> dict[str, Any]:
    """The environment's options by name; numbers, lists, true and false as such. UserError for what has no name."""
    out: dict[str, Any] = {}
    for option in config.env_options:
        name, equals, text = option.partition("=")
        if not name or not equals:
            raise UserError(f"--env-options takes name=value, such as layout=medium, and was given {option!r}")
        try:
            out[name] = json.loads(text.lower() if text in ("True", "False") else text)
        except ValueError:
            out[name] = text
    return out


def check(config: Config) -> None:
    """UserError for settings with which nothing can be learned, before anything is."""
    _check_numbers(config)
    learn, block = config.learn, config.world_model.action_block
    for flag, names, known in (
        ("--cost.drives", config.cost.drives, DRIVES),
        ("--configurator.planner", [config.configurator.planner], PLANNERS),
    ):
        for name in names:
            if name not in known and not (flag == "--cost.drives" and (name == REWARD or ":" in name)):
                raise UserError(f"{flag}: unknown {name!r}{nearest(name, known)}; there are {', '.join(known)}")
    if config.configurator.discount >= 1:
        raise UserError(f"--configurator.discount must be less than 1, got {config.configurator.discount}")
    if config.seed >= 2**63:
        raise UserError(f"--seed must be less than 2^63, got {config.seed}")
    if learn.batch < 2:
        raise UserError("--learn.batch must be 2 or more: variance over a batch of one is undefined")
    if config.planner.action_repeat is not None and block % config.planner.action_repeat:
        raise UserError(
            f"--planner.action-repeat {config.planner.action_repeat} must divide the {block} actions of "
            "--world-model.action-block"
        )
    if not config.memory.capacity and (learn.policy_steps or (config.critic.enabled and learn.critic_steps)):
        raise UserError(
            "with --memory.capacity 0 there is nothing that critic and policy could learn from: "
            "add --learn.critic-steps 0 --learn.policy-steps 0"
        )
    if not 2 <= learn.window <= config.collect.length + 1:
        raise UserError(
            f"--learn.window {learn.window} states must be from 2 to one more than the "
            f"--collect.length {config.collect.length} blocks of an episode"
        )


def _check_numbers(config: Config) -> None:
    for name, value in _numbers(dataclasses.asdict(config)):
        field, flag = name.rsplit(".", 1)[-1], f"--{name.replace('_', '-')}"
        if isinstance(value, int) and not isinstance(value, bool):
            least = 0 if field in MAY_BE_ZERO else 1
            if value < least:
                raise UserError(f"{flag} must be {least} or more, got {value}")
        elif isinstance(value, float):
            if not math.isfinite(value) or value < 0:
                raise UserError(f"{flag} must be a number from 0, got {value}")
            if value <= 0 and field in NOT_ZERO:
                raise UserError(f"{flag} must be more than 0")
            if value > 1 and field in SHARES:
                raise UserError(f"{flag} is a share from 0 to 1, got {value}")


MAY_BE_ZERO = (
    "seed",
    "steps",
    "fourier_features",
    "critic_steps",
    "reward_steps",
    "policy_steps",
    "decoder_steps",
    "capacity",
)


NOT_ZERO = (
    "learning_rate",
    "critic_rate",
    "reward_rate",
    "policy_rate",
    "decoder_rate",
    "critic_tau",
    "clip",
    "goal_scale",
)


SHARES = ("held", "redraw", "critic_tau")


def _numbers(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, item in value.items():
        if isinstance(item, dict):
            yield from _numbers(item, f"{prefix}{name}.")
        elif isinstance(item, int | float):
            yield prefix + name, item


T = TypeVar("T")


def from_dict(kind: type[T], values: Any) -> T:
    """A configuration back from config.json. Absent fields take their defaults.

    Raises:
        ValueError: a field that this version does not know, or a value of another type than the field's.
    """
    if not isinstance(values, dict):
        raise ValueError(f"config.json has {values!r}, where an object is expected")
    hints = _hints(kind)
    hooks: dict[Any, Callable[[Any], Any]] = {int: _no_bool, float: _float}
    hooks |= {hint: _no_bool for hint in hints if get_origin(hint) is Literal}
    hooks |= {hint: _tuple for hint in hints if get_origin(hint) is tuple}
    try:
        return dacite.from_dict(kind, values, dacite.Config(type_hooks=hooks, strict=True))
    except dacite.UnexpectedDataError as error:
        unknown = ", ".join(sorted(error.keys))
        raise ValueError(f"config.json has fields that this version does not know: {unknown}") from error
    except dacite.WrongTypeError as error:
        expected = _in_words(error.field_type)
        raise ValueError(
            f"config.json has {error.field_path} = {error.value!r}, where {expected} is expected"
        ) from error


def _no_bool(value: Any) -> Any:
    """True is 1 in Python and not in a configuration."""
    if isinstance(value, bool):
        raise dacite.WrongTypeError(int, value)
    return value


def _float(value: Any) -> float:
    """Someone who edits the file writes 2 for 2.0."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    except OverflowError:
        pass
    raise dacite.WrongTypeError(float, value)


def _tuple(value: Any) -> tuple[Any, ...]:
    """JSON has lists in place of tuples."""
    if isinstance(value, list | tuple):
        return tuple(value)
    raise dacite.WrongTypeError(list, value)


def _hints(kind: type) -> set[Any]:
    """The types of all fields of a dataclass and of the dataclasses inside it."""
    hints = set(get_type_hints(kind).values())
    return hints.union(*(_hints(hint) for hint in hints if isinstance(hint, type) and dataclasses.is_dataclass(hint)))


def _in_words(hint: Any) -> str:
    if dataclasses.is_dataclass(hint):
        return "an object"
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
