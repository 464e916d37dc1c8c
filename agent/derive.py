"""Settings for an environment that no preset was written for: from its spec alone, each with a reason.

    config, reasons = derive(Config(env="Pendulum-v1"), open_environment("Pendulum-v1", {}), task="")

Nothing is tried out here, so the same environment gives the same settings everywhere.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

import envs.tasks
from agent.config import Config, ExploreConfig, LearnConfig
from agent.errors import UserError, nearest
from agent.interaction.environment import Environment
from agent.presets import PRESETS
from envs import SIMULATORS
from modules import configurator, cost, critic, losses, perception, world_model
from modules.actions import DiscreteActions
from modules.cost import REWARD
from modules.drives import DRIVES, Readings
from modules.types import BodySpec, Imagined, State

SECONDS_A_BLOCK = 0.05
"""Control tasks: how long one imagined step should be, where the environment says how long an action takes."""
CELLS = 9
"""Cells of a spatial latent along the longer side of a picture."""
KEPT = ("env", "env_options", "wrappers", "goal", "seed", "device")
"""Fields that say which agent is meant, not how it learns."""


@dataclass(frozen=True)
class Reason:
    """Why a setting is what it is."""

    setting: str
    value: Any
    why: str


def known_in(environment: Environment) -> list[envs.tasks.KnownTask]:
    """Its known tasks, the default one first, as far as the sensors that they read are there: wrappers change them."""
    seen, actions = environment.spec.observation, environment.spec.actions
    body = BodySpec(actions, proprio_names=seen.proprio_names)
    imagined = Imagined(State(torch.zeros(1, 1), torch.zeros(1, len(seen.proprio_names))), None)

    def fits(task: envs.tasks.KnownTask) -> bool:
        try:
            task.cost(Readings(imagined, body))
        except KeyError:
            return False
        return True

    return [task for task in envs.tasks.known_for(environment.name) if fits(task)]


def purpose(environment: Environment, task: str, goal: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    """What is wanted in an environment: the drives, and a sentence that says so.

    Args:
        environment: for its own goals and its known tasks.
        task: NAME of a known task, FILE:FUNCTION of one's own, reward, goal, or empty for what fits the environment.
        goal: name=value each, a goal in readings of the body.

    Raises:
        UserError: a task that does not exist, or a goal that the environment does not give.
    """
    name, here = environment.name.rpartition(":")[2], known_in(environment)
    has_goals = environment.asks or environment.goals is not None
    if goal:
        if task not in ("", "goal"):
            raise UserError(f"--goal and --task {task} ask for different things: give one of them")
        return ("goal",), f"the goal {' '.join(goal)}"
    if task == "goal" or (not task and not here and has_goals):
        if not has_goals:
            raise UserError(f"{environment.name} gives no goal of its own: name one with --goal sensor=value ...")
        return ("goal",), "the environment's own goal, another one in each episode"
    if task == REWARD:
        return (REWARD,), "the environment's own reward, which is learned"
    if not task:
        if not here:
            return (REWARD,), "the environment's own reward, which is learned, since no task of it is known"
        return _drives_of(here[0]), f"its known task {here[0].name}"
    if task in envs.tasks.TASKS:
        return _drives_of(envs.tasks.TASKS[task]), f"the task {task}"
    if ":" not in task and task not in DRIVES:
        has = ", ".join([known.name for known in here] + ["reward"] + ["goal"] * has_goals)
        raise UserError(
            f"--task: unknown task {task!r}{nearest(task, [*DRIVES, REWARD])}; {name} has {has}, or FILE:FUNCTION of "
            "your own"
        )
    return (task, "survive"), f"the task {task}"


def _drives_of(known: envs.tasks.KnownTask) -> tuple[str, ...]:
    """Of a known task: to survive besides, unless the end of an episode is what is wanted."""
    return (known.name,) if known.ends_well else (known.name, "survive")


def settings(base: Config, environment: Environment, task: str = "") -> tuple[Config, list[Reason]]:
    """As `derive`; but where a preset was written for the environment, that preset, and no reasons."""
    mine = base.env.rpartition(":")[2]
    for make in PRESETS.values():
        preset = make()
        if preset.env == mine and mine in SIMULATORS:
            kept = {name: getattr(base, name) for name in KEPT}
            kept = {k: v for k, v in kept.items() if v != getattr(Config(), k)}
            return dataclasses.replace(preset, **kept), []
    return derive(base, environment, task)


def derive(base: Config, environment: Environment, task: str = "") -> tuple[Config, list[Reason]]:
    """A configuration for this environment, and the reasons.

    Args:
        base: its fields env, env_options, wrappers, goal, seed, device and threads are kept.
        environment: that of base.
        task: see `purpose`.
    """
    reasons: list[Reason] = []

    def because(setting: str, value: Any, why: str) -> Any:
        reasons.append(Reason(setting, value, why))
        return value

    drives, told = purpose(environment, task, base.goal)
    because("cost.drives", drives, told)
    spec, limit = environment.spec, environment.max_steps
    seen, discrete, aims = spec.observation, isinstance(spec.actions, DiscreteActions), "goal" in drives
    pixels, sensors = seen.pixel_shape, len(seen.sensor_low) - len(seen.unseen)
    block = _block(environment, discrete, aims, because)
    length = min(24 if aims else 12, (limit or 1000) // block)
    because(
        "collect.length", length, f"blocks in a row that learning sees, inside episodes of {limit or 'any'} actions"
    )
    window = min(4 if aims else 6, length + 1)
    tile = environment.tile
    steps = 200_000 if aims and not pixels else 100_000 if aims else 20_000
    because(
        "collect.steps",
        steps,
        "goals may be anywhere, so exploration has to be" if aims else "a control task takes little",
    )
    # The critic should see to the end of an episode that is not spent on detours.
    away = 50 if block == 1 else min(50, max(20, (limit or 1000) // (4 * block)))
    discount = round(1 - 1 / away, 3) if aims else 0.95
    if aims:
        because("configurator.discount", discount, f"the critic looks about {away} blocks ahead")
    kept = {name: getattr(base, name) for name in (*KEPT, "threads")}
    return Config(
        **kept,
        max_steps=because(
            "max_steps", limit or 500, "the environment's own limit" if limit else "the environment has no limit"
        ),
        collect=ExploreConfig(steps=steps, length=length, per_scene=1, held=0.6 if aims and not discrete else 0.3),
        perception=_perception(pixels, sensors, tile, aims, because),
        world_model=world_model.Config(
            predictor="conv" if pixels else "mlp",
            action_block=block,
            hidden=because("world_model.hidden", 512 if sensors > 24 or aims else 256, f"{sensors} sensors"),
            depth=3 if pixels else 2,
        ),
        losses=losses.Config(variance=1.0, covariance=1.0, temporal=0.0, inverse=1.0, proprio=10.0),
        cost=cost.Config(
            drives=drives, floors={"survive": 0.1} if "survive" in drives else {}, goal_scale=0.1 if pixels else 0.02
        ),
        critic=critic.Config(enabled=aims),
        configurator=configurator.Config(
            discount=discount,
            horizon_without_critic=because(
                "configurator.horizon_without_critic", _horizon(environment, block), "blocks, about a second"
            ),
            samples=64,
            iterations=3,
        ),
        learn=LearnConfig(
            world_model_steps=because("learn.world_model_steps", 4500 if pixels else 5000 if aims else 4000, "updates"),
            batch=64 if pixels else 256,
            window=because("learn.window", window, "states; all but the first are predicted open loop"),
            critic_steps=(6000 if away > 20 else 4000) if aims else 0,
            critic_far=4 if aims and not pixels and not discrete else 1,
            policy_steps=3000 if aims else 0,
            decoder_steps=800 if pixels else 0,
        ),
    ), reasons


def _block(environment: Environment, discrete: bool, aims: bool, because: Any) -> int:
    if discrete:
        return because("world_model.action_block", 1, "discrete actions are not held")
    if aims:
        return because("world_model.action_block", 4, "actions in one imagined step: goals are far away")
    if environment.seconds:
        block = min(5, max(1, round(SECONDS_A_BLOCK / environment.seconds)))
        why = f"actions of {environment.seconds:g} s make an imagined step of about {SECONDS_A_BLOCK} s"
        return because("world_model.action_block", block, why)
    return because("world_model.action_block", 1, "the environment does not say how long an action takes")


def _horizon(environment: Environment, block: int) -> int:
    seconds = environment.seconds
    return 15 if not seconds else min(25, max(10, round(1.0 / (seconds * block))))


def _perception(
    pixels: tuple[int, int, int] | None, sensors: int, tile: int | None, aims: bool, because: Any
) -> perception.Config:
    if pixels is None:
        size = because(
            "perception.size", min(128, max(32, 4 * sensors)), f"numbers of the latent, for {sensors} sensors"
        )
        return perception.Config(latent="vector", size=size, hidden=256, fourier_features=4 if aims else 0)
    side = max(pixels[1:])
    stride = tile if tile else max(1, side // CELLS)
    patch = stride if tile else min(stride + 2, *pixels[1:])
    because(
        "perception.stride",
        stride,
        f"a picture of {pixels[1]}x{pixels[2]} becomes a map of about {side // stride} cells a side",
    )
    return perception.Config(latent="spatial", channels=12, width=32, patch=patch, stride=stride)


def explained(config: Config, reasons: list[Reason]) -> list[dict[str, str]]:
    """Rows for people: setting, value, why."""
    flat = dataclasses.asdict(config)
    rows = []
    for reason in reasons:
        value: Any = flat
        for name in reason.setting.split("."):
            value = value[name]
        shown = " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
        rows.append({"setting": f"--{reason.setting.replace('_', '-')}", "value": shown, "why": reason.why})
    return rows
