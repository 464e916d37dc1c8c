"""`run_agent.py ablate`: what is a part worth?"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from agent.cli import common
from agent.cli.task_file import check_task
from agent.cli.train import check_memory, settings_of
from agent.config import Config
from agent.console import table, tell, warn
from agent.errors import UserError
from agent.evaluation.evaluate import capable
from agent.experiments import cells, cluster
from agent.experiments.variants import FULL, variants
from agent.inspection.watch import Gallery
from agent.interaction.environment import environment_of
from agent.learning.train import train_run
from agent.report.text import in_words, reference
from agent.storage.lock import FolderLock

LISTS = ("--without", "--against", "--vary", "--placebo", "--set")
"""Flags that take several values, and are given once."""


@dataclass(frozen=True)
class AblateArguments:
    """Compare an agent with variants of it on the same training seeds and the same tasks, with 95 % intervals.

    A placebo is a control: it keeps the part but makes it meaningless. A part that is worth no more than its placebo
    contributes nothing.
    """

    preset: Annotated[str, tyro.conf.Positional] = "two_rooms"
    """Preset of the full agent; left out with --env."""
    env: str | None = None
    """Any environment in place of a preset: a Gymnasium id, or module:Id-v0. Its settings are derived, as by train."""
    env_options: tuple[str, ...] = ()
    """Options of the constructor of --env: name=value."""
    wrappers: tuple[str, ...] = ()
    """Wrappers around --env, module:Class each."""
    task: str = ""
    """What is wanted in --env: a known task, FILE:FUNCTION, reward, or goal; as for train."""
    goal: tuple[str, ...] = ()
    """A goal in readings of the body of --env, name=value each."""
    steps: int | None = None
    """Explore --env for so many primitive actions."""
    without: tuple[str, ...] = ()
    """Parts to remove, one variant each: critic, variance, warm-start, ... An unknown name lists the known ones."""
    placebo: tuple[str, ...] = ()
    """Parts to replace by a placebo, one variant each: critic-labels (shuffled targets), actions (of other episodes),
    encoder (not trained), subgoals (drawn at random), or all."""
    against: tuple[str, ...] = ()
    """Other presets of the same environment."""
    vary: tuple[str, ...] = ()
    """Fields and values, one variant for each value: configurator.samples=16,32,64."""
    diagnose: common.Flag = False
    """Add {learned, oracle} dynamics x {latent, true} cost, to locate the cause of failures."""
    set: tuple[str, ...] = ()
    """Fields to change in all variants: learn.world_model_steps=3000."""
    seeds: int = 5
    """Training seeds, from 0."""
    tasks: int = 200
    """Tasks per cell, from the start of the frozen list."""
    launcher: Literal["local", "ray"] = "local"
    """ray: train, evaluate and explore on a Ray cluster, the one at RAY_ADDRESS or one on this machine."""
    runs: Path | None = None
    """Folder of the training runs, which several comparisons can share; OUT/runs by default."""
    out: Path | None = None
    """Folder of the comparison; runs/ablate_PRESET (or _ENV) by default. The same command resumes it."""
    json: common.Flag = False
    """Print the result as one JSON object on standard output, and messages on standard error."""


def parse(arguments: list[str], program: str) -> AblateArguments:
    """The arguments of ablate. UserError for a list that is given twice, of which the first would be lost."""
    for name in LISTS:
        if sum(a == name or a.startswith(f"{name}=") for a in arguments) > 1:
            raise UserError(f"{name} is given twice: give all its values after one {name}")
    return common.parse(AblateArguments, arguments, program)


def run(args: AblateArguments, command_line: list[str]) -> int:
    """run_agent.py ablate PRESET."""
    common.check_positive(args, "seeds", "tasks", "steps")
    base = _base(args)
    chosen = variants(args.preset, args.without, args.against, args.vary, args.placebo, args.set, args.diagnose, base)
    if len(chosen) == 1:
        warn("there is nothing to compare: add --without, --placebo, --against, --vary or --diagnose")
    out = args.out or Path(f"runs/ablate_{name_of(args)}")
    _check_environment(chosen[FULL].config, args)
    for variant in chosen.values():
        check_memory(variant.config, environment_of(variant.config))
    launch = cluster.launcher() if args.launcher == "ray" else cells.locally
    command = base_command(args, command_line[0], out)
    with FolderLock(out, "comparing"):
        comparison = cells.compare(
            chosen,
            args.seeds,
            args.tasks,
            out,
            partial(train_run, watcher=Gallery),
            command_line,
            args.runs,
            command,
            launch,
        )
    _print(comparison, args, out)
    common.finish(comparison, args.json)
    return 1 if any(row["failed"] for row in comparison["variants"] if row["variant"] in chosen) else 0


def base_command(args: AblateArguments, program: str, out: Path) -> list[str]:
    """The command of the full agent alone, to which the flags of a row are added."""
    base = [program, "ablate", *([args.preset] if args.env is None else ["--env", args.env])]
    for name in ("env_options", "wrappers", "goal", "set"):
        base += [common.flag(name), *getattr(args, name)] if getattr(args, name) else []
    base += ["--task", args.task] if args.task else []
    base += ["--steps", str(args.steps)] if args.steps else []
    base += ["--seeds", str(args.seeds), "--tasks", str(args.tasks)]
    return [*base, "--out", str(out), *(("--runs", str(args.runs)) if args.runs else ())]


def name_of(args: AblateArguments) -> str:
    """What the folder and the table are called."""
    return args.preset if args.env is None else re.sub(r"[^A-Za-z0-9.]+", "-", args.env)


def _base(args: AblateArguments) -> Config | None:
    """The full agent's configuration where an environment is named, derived as by train."""
    if args.env is None:
        for name in ("env_options", "wrappers", "task", "goal", "steps"):
            if getattr(args, name):
                raise UserError(f"{common.flag(name)} goes with --env; a preset is changed by --set")
        return None
    named = Config(env=args.env, env_options=args.env_options, wrappers=args.wrappers, goal=args.goal)
    config, reasons = settings_of(named, args.task)
    if reasons:
        tell(f"{args.env}: wanted is {reasons[0].why}")
    if args.steps is not None:
        config = dataclasses.replace(config, collect=dataclasses.replace(config.collect, steps=args.steps))
    return config


def _check_environment(config: Config, args: AblateArguments) -> None:
    """What cannot be compared in this environment is refused here, before hours of training."""
    environment = environment_of(config)
    for drive in config.cost.drives:
        check_task(drive, environment.spec)
    if args.launcher == "ray" and any(":" in drive for drive in config.cost.drives):
        raise UserError("a task in a file is known in this process only: leave out --launcher ray")
    if environment.truth is not None:
        capable(environment)
    elif args.diagnose:
        raise UserError(f"--diagnose needs the true states of {config.env}, which no Gymnasium environment gives")


def _print(comparison: dict[str, Any], args: AblateArguments, out: Path) -> None:
    rows = [in_words(row) for row in comparison["variants"]]
    table(f"{name_of(args)}: {args.seeds} seeds, {args.tasks} tasks each", rows)
    tell(reference(comparison))
    for name in ("comparison.json", "comparison.png", "table.md"):
        if (out / name).exists():
            tell(f"  {out / name}")
