"""`run_agent.py train`: learn a world model by exploring, and how to act with it."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.extras import overridable_config_cli

from agent.cli import common, limits
from agent.cli.task_file import check_task, load_task, with_drives
from agent.config import Config, check
from agent.console import table, tell
from agent.derive import Reason, explained, purpose, settings
from agent.errors import UserError, nearest
from agent.inspection.watch import Gallery
from agent.interaction.environment import Environment, environment_of
from agent.learning import parallel
from agent.learning.policy import PLANS_AT_ONCE
from agent.learning.train import train_run
from agent.presets import PRESETS
from modules import perception
from modules.cost import REWARD

DEFAULT = "two_rooms"
ANY = "environment"
"""In place of a preset: settings that are derived from the environment."""


@dataclass(frozen=True)
class TrainArguments:
    """A preset with the fields that flags have changed, and where the run goes."""

    config: Annotated[Config, tyro.conf.arg(name="")]
    """The whole configuration."""
    preset: tyro.conf.Suppress[str] = DEFAULT
    """Name of the preset."""
    task: str = ""
    """What is wanted: a known task by name, FILE:FUNCTION of one's own, reward (the environment's own), or goal."""
    steps: int | None = None
    """Explore for so many primitive actions (--collect.steps)."""
    explain: common.Flag = False
    """Print the settings that were derived for the environment, with reasons, and train nothing."""
    out: Path | None = None
    """Run folder; runs/PRESET__seedN by default. The same command with the same folder resumes an interrupted run."""
    json: common.Flag = False
    """Print the result as one JSON object on standard output, and messages on standard error."""

    @property
    def folder(self) -> Path:
        """The run folder."""
        name = self.preset if self.preset != ANY else re.sub(r"[^A-Za-z0-9.]+", "-", self.config.env)
        return self.out or Path(f"runs/{name}__seed{self.config.seed}")


def parse(arguments: list[str], program: str) -> TrainArguments:
    """The arguments of train: a preset first, which may be left out, then flags for its fields.

    Without a preset, but with --env, settings are those of the environment: of its preset, or derived.
    """
    if not arguments or arguments[0].startswith("-"):
        named = any(a == "--env" or a.startswith("--env=") for a in arguments)
        arguments = [ANY if named else DEFAULT, *arguments]
    name = arguments[0].replace("-", "_")
    if name not in (*PRESETS, ANY):
        raise UserError(
            f"unknown preset {arguments[0]!r}{nearest(name, PRESETS)}; the presets are {', '.join(PRESETS)}"
        )
    presets = {
        name: (_description(name, make.__doc__ or ""), TrainArguments(make(), name)) for name, make in PRESETS.items()
    }
    if name == ANY:
        given = [a for a in arguments[1:] if a not in ("-h", "--help")]
        first = overridable_config_cli({ANY: ("", TrainArguments(Config(), ANY))}, prog=program, args=[ANY, *given])
        own = settings_of(first.config, first.task)[0]
        presets = {ANY: (_described(first.config), TrainArguments(own, ANY, task=first.task))}
    args = overridable_config_cli(presets, prog=program, args=[name, *arguments[1:]])
    config = args.config
    if args.steps is not None:
        common.check_positive(args, "steps")
        config = dataclasses.replace(config, collect=dataclasses.replace(config.collect, steps=args.steps))
    if args.task and name != ANY:
        config = with_task(config, args.task)
    return dataclasses.replace(args, config=config)


def settings_of(base: Config, task: str = "") -> tuple[Config, list[Reason]]:
    """Settings for the environment that `base` names: of its preset where there is one, else derived from its spec."""
    environment = environment_of(base)
    load_task(task)  # after the environment, whose module may hold the task as well
    config, reasons = settings(base, environment, task)
    return (with_task(config, task) if task and not reasons else config), reasons


def with_task(config: Config, task: str) -> Config:
    """The same agent with another purpose. UserError for a task that this environment cannot have."""
    environment = environment_of(config)
    load_task(task)
    return with_drives(config, purpose(environment, task, config.goal)[0], environment)


def run(args: TrainArguments, command_line: list[str]) -> int:
    """run_agent.py train [PRESET | --env ID] [--task TASK] [--steps N] [--seed N] [--out RUN_FOLDER] [--flags]."""
    config = args.config
    environment = environment_of(config)
    _tell_purpose(args, environment)
    if args.explain:
        return 0
    check_memory(config, environment)
    with parallel.ranks(config.device) as rank:
        summary = train_run(config, args.folder, command_line, watcher=Gallery)
    if rank:
        return 0
    tell(f"\ntrained in {summary['train_wall_seconds']:.0f} s; the run folder is {args.folder}")
    named = f" --env {config.env}" if ":" in config.env else ""
    own = "".join(f" --task {drive}" for drive in config.cost.drives if ":" in drive)
    tell(f"  python run_agent.py evaluate {args.folder}{named}{own}")
    tell(f"  python run_agent.py imagine {args.folder}{named}")
    tell(f"  python run_agent.py report {args.folder}")
    common.finish(summary, args.json)
    return 0


def _tell_purpose(args: TrainArguments, environment: Environment) -> None:
    """What is wanted, and of a derived configuration every setting with its reason."""
    config = args.config
    for drive in config.cost.drives:
        check_task(drive, environment.spec)
    if args.preset == ANY:
        _, reasons = settings(config, environment, args.task)
        if reasons:
            tell(f"{config.env}: wanted is {reasons[0].why}")
        if args.explain:
            table(f"settings for {config.env}", explained(config, reasons))
        elif reasons:
            tell("  settings were derived from the environment: --explain shows them with reasons")
    elif args.explain:
        raise UserError("--explain is for settings that are derived: give --env in place of a preset")
    if REWARD in config.cost.drives:
        if not config.learn.reward_steps:
            raise UserError("the environment's reward is wanted, so it has to be learned: give --learn.reward-steps")
        tell("  the environment's reward is used: a predictor of it is learned, and plans minimise it")


def check_memory(config: Config, environment: Environment) -> None:
    """UserError, with the flag to change, for a configuration whose arrays cannot fit into memory."""
    check(config)
    spec, explored = environment.spec, config.collect
    seen = spec.observation
    episodes = explored.episodes
    if explored.steps:
        episodes = max(1, explored.steps // (explored.length * config.world_model.action_block))
    try:
        encoder = perception.compose(config.perception, seen, spec.actions, config.world_model.action_block)
    except (ValueError, RuntimeError):
        return  # building the agent names what is wrong
    pixels = math.prod(seen.pixel_shape) if seen.pixel_shape else 0
    state, learn = encoder.latent_size + encoder.proprio_size, config.learn
    hidden = config.perception.hidden + config.world_model.hidden if config.perception.latent == "vector" else 0
    past = min(encoder.context, explored.length + 1 - learn.window)
    needs = [
        limits.exploration(episodes, explored.length, pixels + limits.FLOAT * len(seen.sensor_low)),
        limits.window_batch(learn.batch, learn.window + past, pixels, state, hidden),
    ]
    if learn.policy_steps:
        needs.append(
            limits.planning(
                min(PLANS_AT_ONCE, learn.plan_episodes),
                config.configurator.samples,
                config.configurator.horizon,
                state,
                "--configurator.horizon or --configurator.samples",
            )
        )
    limits.check_memory(needs)


def _described(config: Config) -> str:
    return f"Train an agent in {config.env}. Defaults were derived from it: --explain shows them with reasons."


def _description(name: str, text: str) -> str:
    return f"Train an agent by the preset {name}: {text} The presets are {', '.join(PRESETS)}; defaults are this one's."
