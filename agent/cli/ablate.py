"""`run_agent.py ablate`: what is a part worth?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro

from agent.cli.common import _finish, _json_flag, _parse, environment_of
from agent.console import table, tell, warn
from agent.errors import UserError
from agent.evaluation.evaluate import capable
from agent.inspection.watch import Gallery
from agent.learning.train import train_run


@dataclass(frozen=True)
class AblateArguments:
    """What is a part worth? The same agent without it, or with another setting, on common seeds and the same tasks."""

    preset: Annotated[str, tyro.conf.Positional] = "two_rooms"
    """Preset of the full agent."""
    without: tuple[str, ...] = ()
    """Parts to leave out, one variant each: critic, variance, warm-start, ...; an unknown name lists the known ones."""
    against: tuple[str, ...] = ()
    """Other presets of the same world."""
    vary: tuple[str, ...] = ()
    """Fields and values, one variant per value: configurator.samples=16,32,64."""
    placebo: tuple[str, ...] = ()
    """Parts to replace by something that means nothing, one variant each: critic-labels, actions, encoder, subgoals, or
    all of them by the name all."""
    diagnose: bool = False
    """Also {learned, oracle} dynamics x {latent, true} cost: whose fault is a failure?"""
    set: tuple[str, ...] = ()
    """Fields that have another value in all variants: learn.world_model_steps=3000."""
    seeds: int = 5
    """Training seeds, from 0."""
    tasks: int = 200
    """Tasks per cell, the first of the frozen list."""
    out: Path | None = None
    """Folder of the comparison; runs/ablate_PRESET by default."""
    launcher: Literal["local", "ray"] = "local"
    """ray: cells and exploration on a Ray cluster, the one at RAY_ADDRESS or one on this machine."""
    runs: Path | None = None
    """Folder of its trainings, which comparisons may have in common; OUT/runs by default."""


def ablate(arguments: list[str], command_line: list[str]) -> int:
    """run_agent.py ablate PRESET."""
    from agent.experiments import cells as ablation
    from agent.experiments.variants import FULL, variants
    from agent.report.text import in_words, reference

    arguments, as_json = _json_flag(arguments)
    for flag in ("--without", "--against", "--vary", "--placebo", "--set"):
        if sum(a == flag or a.startswith(f"{flag}=") for a in arguments) > 1:
            raise UserError(f"{flag} is given twice: give all its values after one {flag}")
    args = _parse(AblateArguments, arguments, "run_agent.py ablate", AblateArguments.__doc__ or "")
    for name in ("seeds", "tasks"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} must be 1 or more, got {getattr(args, name)}")
    chosen = variants(args.preset, args.without, args.against, args.vary, args.placebo, args.set, args.diagnose)
    if len(chosen) == 1:
        warn("no change was asked for: --without, --placebo, --against, --vary or --diagnose say what to compare")
    common = [*command_line[:1], "ablate", args.preset, *(("--set", *args.set) if args.set else ())]
    common += ["--seeds", str(args.seeds), "--tasks", str(args.tasks)]
    out = args.out or Path(f"runs/ablate_{args.preset}")
    common += ["--out", str(out), *(("--runs", str(args.runs)) if args.runs else ())]
    capable(environment_of(chosen[FULL].config))  # a world without tasks is found out before training for hours
    launch = ablation.locally
    if args.launcher == "ray":
        from agent.experiments import cluster

        launch = cluster.launcher()
    comparison = ablation.compare(
        chosen,
        args.seeds,
        args.tasks,
        out,
        partial(train_run, watcher=Gallery),
        command_line,
        args.runs,
        common,
        launch,
    )
    rows = comparison["variants"]
    table(f"{args.preset}: {args.seeds} seeds, {args.tasks} tasks each", [in_words(row) for row in rows])
    tell(reference(comparison))
    for name in ("comparison.json", "comparison.png", "table.md"):
        if (out / name).exists():
            tell(f"  {out / name}")
    _finish(comparison, as_json)
    return 1 if any(row["failed"] for row in rows if row["variant"] in chosen) else 0
