"""`run_agent.py ablate`: what is a part worth?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from agent.cli import common
from agent.cli.train import check_memory
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
    """Preset of the full agent."""
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
    """Folder of the comparison; runs/ablate_PRESET by default. The same command resumes an interrupted comparison."""
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
    common.check_positive(args, "seeds", "tasks")
    chosen = variants(args.preset, args.without, args.against, args.vary, args.placebo, args.set, args.diagnose)
    if len(chosen) == 1:
        warn("there is nothing to compare: add --without, --placebo, --against, --vary or --diagnose")
    out = args.out or Path(f"runs/ablate_{args.preset}")
    _check_environment(chosen[FULL].config)
    for variant in chosen.values():
        check_memory(variant.config)
    launch = cluster.launcher() if args.launcher == "ray" else cells.locally
    base = base_command(args, command_line[0], out)
    with FolderLock(out, "comparing"):
        comparison = cells.compare(
            chosen,
            args.seeds,
            args.tasks,
            out,
            partial(train_run, watcher=Gallery),
            command_line,
            args.runs,
            base,
            launch,
        )
    _print(comparison, args, out)
    common.finish(comparison, args.json)
    return 1 if any(row["failed"] for row in comparison["variants"] if row["variant"] in chosen) else 0


def base_command(args: AblateArguments, program: str, out: Path) -> list[str]:
    """The command of the full agent alone, to which the flags of a row are added."""
    base = [program, "ablate", args.preset, *(("--set", *args.set) if args.set else ())]
    base += ["--seeds", str(args.seeds), "--tasks", str(args.tasks)]
    return [*base, "--out", str(out), *(("--runs", str(args.runs)) if args.runs else ())]


def _check_environment(config: Config) -> None:
    """An environment without tasks is refused here, before hours of training."""
    capable(environment_of(config))


def _print(comparison: dict[str, Any], args: AblateArguments, out: Path) -> None:
    rows = [in_words(row) for row in comparison["variants"]]
    table(f"{args.preset}: {args.seeds} seeds, {args.tasks} tasks each", rows)
    tell(reference(comparison))
    for name in ("comparison.json", "comparison.png", "table.md"):
        if (out / name).exists():
            tell(f"  {out / name}")
