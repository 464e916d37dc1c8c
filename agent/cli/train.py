"""`run_agent.py train`: learn a world model by exploring, and how to act with it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.extras import overridable_config_cli

from agent.cli import common, limits
from agent.config import Config, check, options_of
from agent.console import tell
from agent.errors import UserError, nearest
from agent.inspection.watch import Gallery
from agent.interaction.environment import open_environment
from agent.learning import parallel
from agent.learning.policy import PLANS_AT_ONCE
from agent.learning.train import train_run
from agent.presets import PRESETS
from envs import SIMULATORS
from modules import perception

DEFAULT = "two_rooms"


@dataclass(frozen=True)
class TrainArguments:
    """A preset with the fields that flags have changed, and where the run goes."""

    config: Annotated[Config, tyro.conf.arg(name="")]
    """The whole configuration."""
    preset: tyro.conf.Suppress[str] = DEFAULT
    """Name of the preset."""
    out: Path | None = None
    """Run folder; runs/PRESET__seedN by default. The same command with the same folder resumes an interrupted run."""
    json: common.Flag = False
    """Print the result as one JSON object on standard output, and messages on standard error."""

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.out or Path(f"runs/{self.preset}__seed{self.config.seed}")


def parse(arguments: list[str], program: str) -> TrainArguments:
    """The arguments of train: a preset first, which may be left out, then flags for its fields."""
    if not arguments or arguments[0].startswith("-"):
        arguments = [DEFAULT, *arguments]
    name = arguments[0].replace("-", "_")
    if name not in PRESETS:
        raise UserError(
            f"unknown preset {arguments[0]!r}{nearest(name, PRESETS)}; the presets are {', '.join(PRESETS)}"
        )
    presets = {
        name: (_description(name, make.__doc__ or ""), TrainArguments(make(), name)) for name, make in PRESETS.items()
    }
    return overridable_config_cli(presets, prog=program, args=[name, *arguments[1:]])


def run(args: TrainArguments, command_line: list[str]) -> int:
    """run_agent.py train [PRESET] [--seed N] [--out RUN_FOLDER] [--flags]."""
    config = args.config
    check_memory(config)
    with parallel.ranks(config.device) as rank:
        summary = train_run(config, args.folder, command_line, watcher=Gallery)
    if rank:
        return 0
    tell(f"\ntrained in {summary['train_wall_seconds']:.0f} s; the run folder is {args.folder}")
    if config.env.rpartition(":")[2] in SIMULATORS:
        named = f" --env {config.env}" if ":" in config.env else ""
        tell(f"  python run_agent.py evaluate {args.folder}{named}\n  python run_agent.py imagine {args.folder}{named}")
    common.finish(summary, args.json)
    return 0


def check_memory(config: Config) -> None:
    """UserError, with the flag to change, for a configuration whose arrays cannot fit into memory."""
    check(config)
    spec = open_environment(config.env, options_of(config)).spec
    seen = spec.observation
    try:
        encoder = perception.compose(config.perception, seen, spec.actions, config.world_model.action_block)
    except (ValueError, RuntimeError):
        return  # building the agent names what is wrong
    pixels = math.prod(seen.pixel_shape) if seen.pixel_shape else 0
    state, learn = encoder.latent_size + encoder.proprio_size, config.learn
    hidden = config.perception.hidden + config.world_model.hidden if config.perception.latent == "vector" else 0
    past = min(encoder.context, config.collect.length + 1 - learn.window)
    needs = [
        limits.exploration(
            config.collect.episodes, config.collect.length, pixels + limits.FLOAT * len(seen.sensor_low)
        ),
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


def _description(name: str, text: str) -> str:
    return f"Train an agent by the preset {name}: {text} The presets are {', '.join(PRESETS)}; defaults are this one's."
