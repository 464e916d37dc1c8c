"""The commands of run_agent.py. Each parses its arguments, does its work and, with --json, ends on one JSON line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from agent import evaluate as evaluation
from agent import imagine as imagination
from agent import parallel, thoughts
from agent.agent import Agent
from agent.console import Progress, set_quiet, table, tell, warn
from agent.errors import UserError, nearest
from agent.metrics import to_json
from agent.presets import PRESETS, Config, from_dict, options_of
from agent.run import Run
from agent.train import setup, train_run
from agent.worlds import open_world
from envs import SIMULATORS, Simulator
from modules.types import PlannerName

T = TypeVar("T")
SETTINGS = ("planner", "mode", "samples", "iterations", "horizon", "replan_every")  # of the directive, for evaluate
MAX_RECORDED = evaluation.BATCH  # a recorder looks on at the episodes that act first


def train(arguments: list[str], command_line: list[str]) -> int:
    """run_agent.py train [PRESET] [--seed N] [--out RUN_FOLDER] [--flags]."""
    arguments, as_json = _json_flag(arguments)
    preset = "two_rooms"
    if arguments and not arguments[0].startswith("-"):
        preset, arguments = arguments[0], arguments[1:]
    if preset not in PRESETS:
        raise UserError(f"unknown preset {preset!r}{nearest(preset, PRESETS)}; the presets are {', '.join(PRESETS)}")
    description = (
        f"Train preset {preset}. Presets: {', '.join(PRESETS)}. The defaults below are this preset's. Also: "
        f"--out RUN_FOLDER (runs/{preset}__seedN) and --json."
    )
    out, arguments = _take_value(arguments, "--out")
    config = _parse(Config, arguments, f"run_agent.py train {preset}", description, PRESETS[preset]())
    folder = Path(out or f"runs/{preset}__seed{config.seed}")
    with parallel.ranks(config.device) as rank:
        summary = train_run(config, folder, command_line)
    if rank:
        return 0
    tell(f"\ntrained in {summary['train_wall_seconds']:.0f} s; the run is {folder}")
    if config.env in SIMULATORS:
        tell(f"  python run_agent.py evaluate {folder}\n  python run_agent.py imagine {folder}")
    _finish(summary, as_json)
    return 0


@dataclass(frozen=True)
class EvaluateArguments:
    """Success of a run on a frozen list of tasks that training never saw."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder."""
    tasks: int = 200
    """How many tasks of the list."""
    planner: PlannerName | None = None
    """Search method of Mode-2; the run's own by default."""
    mode: Literal[1, 2] | None = None
    """1: the policy alone. 2: planning; the run's own by default."""
    dynamics: Literal["learned", "oracle"] = "learned"
    """oracle: plan with the true dynamics in place of the world model."""
    cost: Literal["latent", "true"] = "latent"
    """true: judge plans by what the oracle controller still needs, in place of drives and critic."""
    samples: int | None = None
    """Candidate plans per iteration; the run's own by default."""
    iterations: int | None = None
    """Iterations of the search; the run's own by default."""
    horizon: int | None = None
    """Action blocks a plan looks ahead; the run's own by default."""
    replan_every: int | None = None
    """Primitive actions between plans; the run's own by default."""
    budget: int | None = None
    """Primitive actions per task; the run's own by default."""
    seed: int = 0
    """Seed of the world's noise and of the search."""
    record: int = 6
    """Episodes whose Thoughts are kept for the report, the first tasks of the list; with 0 none are left there."""
    threads: int = 1
    """CPU threads; milliseconds per decision are always of one."""
    device: str = "auto"
    """auto (a GPU when there is one), cpu, cuda, cuda:1."""


def evaluate(arguments: list[str], command_line: list[str]) -> int:
    """run_agent.py evaluate RUN."""
    arguments, as_json = _json_flag(arguments)
    args = _parse(EvaluateArguments, arguments, "run_agent.py evaluate", EvaluateArguments.__doc__ or "")
    for name in ("tasks", "samples", "iterations", "horizon", "replan_every", "budget", "threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} must be 1 or more, got {value}")
    if not 0 <= args.record <= MAX_RECORDED:
        raise UserError(f"--record must be from 0 to {MAX_RECORDED}, got {args.record}")
    config, agent, run = load_run(args.run, args.device, args.threads)
    if not 0 <= args.seed < 2**63:
        raise UserError(f"--seed must be from 0 to 2^63 - 1, got {args.seed}")
    truth = "a simulator" if args.dynamics == "oracle" else "the true cost" if args.cost == "true" else ""
    if truth and (args.planner or config.configurator.planner) == "gradient":
        raise UserError(f"--planner gradient needs gradients, which {truth} has not: use cem or mppi")
    if args.mode == 1 and not bool(agent.actor.trained):
        raise UserError(f"{args.run} has no policy yet: train it to the end, or evaluate with --mode 2")
    simulator = simulator_of(config)
    budget = args.budget or config.max_steps
    changes = {k: v for k in SETTINGS if (v := getattr(args, k)) is not None}
    kept, _ = evaluation.task_list(simulator, min(args.record, args.tasks))
    recorder = None
    if len(kept):
        recorder = thoughts.Recorder(agent, simulator, kept, imagination.probe_of(agent, config, simulator, args.seed))
    with Progress() as progress:
        result, _ = evaluation.evaluate(
            agent, simulator, budget, args.tasks, changes, args.dynamics, args.seed, progress, args.cost, recorder
        )
    summary = _summary(run)
    result |= {k: summary.get(k) for k in ("env_steps", "train_wall_seconds", "train_cpu_seconds", "peak_memory_mb")}
    result |= {"run": str(args.run), "train_seed": config.seed}
    rows = [
        {"controller": f"agent, mode {result['mode']}", "success": f"{100 * result['success']:.1f} %"},
        *(
            {"controller": f"{'ceiling' if k == 'oracle' else 'floor'}: {k}", "success": f"{100 * v:.1f} %"}
            for k, v in result["floors"].items()
        ),
    ]
    rows[0] |= {
        "95 % interval": f"{100 * result['ci_low']:.1f} - {100 * result['ci_high']:.1f} %",
        "at the last step": f"{100 * result['success_final']:.1f} %",
        "steps (median)": f"{result['steps_median']}",
        "ms per decision": f"{result['plan_ms_median']:.1f}",
    }
    table(f"{config.env}: {args.tasks} unseen tasks, {result['budget']} steps each", rows)
    tell(f"task list {result['task_list_sha256'][:16]}, {result['dynamics']} dynamics, training seed {config.seed}")
    judged = "" if args.cost == "latent" else f"-{args.cost}-cost"
    name = f"mode{result['mode']}-{result['planner']}-{result['dynamics']}{judged}"
    run.write_json(f"evaluation-{name}.json", result)
    if recorder is not None:
        run.write_bytes(f"thoughts-{name}.json", to_json(recorder.recording(result["task_steps"]), indent=None))
    else:  # those of another evaluation would be taken for this one's
        (run.folder / f"thoughts-{name}.json").unlink(missing_ok=True)
    _finish(result, as_json)
    return 0


@dataclass(frozen=True)
class ImagineArguments:
    """Pictures of what the agent imagines."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder."""
    episodes: int = 4
    """Episodes shown."""
    horizon: int = 16
    """Imagined steps, in action blocks."""
    seed: int = 0
    """Seed of the exploration and of the tasks that are shown."""
    device: str = "auto"
    """auto (a GPU when there is one), cpu, cuda, cuda:1."""


def imagine(arguments: list[str], command_line: list[str]) -> int:
    """run_agent.py imagine RUN."""
    arguments, as_json = _json_flag(arguments)
    args = _parse(ImagineArguments, arguments, "run_agent.py imagine", ImagineArguments.__doc__ or "")
    if not 0 <= args.seed < 2**63:
        raise UserError(f"--seed must be from 0 to 2^63 - 1, got {args.seed}")
    config, agent, run = load_run(args.run, args.device, 1)
    simulator = simulator_of(config)
    result = imagination.imagine(agent, config, simulator, run, args.episodes, args.horizon, args.seed)
    for name in result["files"]:
        tell(f"  {args.run / name}")
    _finish(result, as_json)
    return 0


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
    sham: tuple[str, ...] = ()
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
    from agent import ablate as ablation
    from agent.comparison import floors, in_words
    from agent.variants import FULL, variants

    arguments, as_json = _json_flag(arguments)
    for flag in ("--without", "--against", "--vary", "--sham", "--set"):
        if sum(a == flag or a.startswith(f"{flag}=") for a in arguments) > 1:
            raise UserError(f"{flag} is given twice: give all its values after one {flag}")
    args = _parse(AblateArguments, arguments, "run_agent.py ablate", AblateArguments.__doc__ or "")
    for name in ("seeds", "tasks"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} must be 1 or more, got {getattr(args, name)}")
    chosen = variants(args.preset, args.without, args.against, args.vary, args.sham, args.set, args.diagnose)
    if len(chosen) == 1:
        warn("no change was asked for: --without, --sham, --against, --vary or --diagnose say what to compare")
    common = [*command_line[:1], "ablate", args.preset, *(("--set", *args.set) if args.set else ())]
    common += ["--seeds", str(args.seeds), "--tasks", str(args.tasks)]
    out = args.out or Path(f"runs/ablate_{args.preset}")
    common += ["--out", str(out), *(("--runs", str(args.runs)) if args.runs else ())]
    simulator_of(chosen[FULL].config)  # a world without tasks is found out before training for hours
    launch = ablation.locally
    if args.launcher == "ray":
        from agent import cluster

        launch = cluster.launcher()
    comparison = ablation.compare(
        chosen, args.seeds, args.tasks, out, train_run, command_line, args.runs, common, launch
    )
    rows = comparison["variants"]
    table(f"{args.preset}: {args.seeds} seeds, {args.tasks} tasks each", [in_words(row) for row in rows])
    tell(floors(comparison))
    for name in ("comparison.json", "comparison.png", "table.md"):
        if (out / name).exists():
            tell(f"  {out / name}")
    _finish(comparison, as_json)
    return 1 if any(row["failed"] for row in rows if row["variant"] in chosen) else 0


@dataclass(frozen=True)
class ReportArguments:
    """One page, offline, with what a run learned and imagines, or with the table of a comparison."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder of a run or of a comparison."""


def report(arguments: list[str], command_line: list[str]) -> int:
    """run_agent.py report RUN_OR_COMPARISON."""
    from agent import report as reporting

    arguments, as_json = _json_flag(arguments)
    args = _parse(ReportArguments, arguments, "run_agent.py report", ReportArguments.__doc__ or "")
    page, missing = reporting.write(args.folder)
    for text in missing:
        warn(f"missing: {text}")
    tell(f"  {page}")
    _finish({"report": str(page), "missing": missing}, as_json)
    return 0


def check(arguments: list[str], command_line: list[str]) -> int:
    """run_agent.py check ENV_ID."""
    from agent import check as checking

    arguments, as_json = _json_flag(arguments)
    return checking.command(arguments, as_json, _parse, _finish)


def simulator_of(config: Config) -> Simulator:
    """The simulator of a run's world, which tasks and pictures need."""
    simulator = open_world(config.env, options_of(config)).simulator
    if simulator is None:
        raise UserError(
            f"{config.env} offers no tasks and no map: write it as a Simulator (see docs/worlds.md) to evaluate in it "
            "and to see what is imagined. What was trained can be used from Python: Agent.load(run)"
        )
    return simulator


def load_run(folder: Path, device: str, threads: int) -> tuple[Config, Agent, Run]:
    """A run that was trained: its configuration, its agent, and the open folder."""
    setup(threads)
    run = Run.open(folder)
    agent = Agent.load(folder, device)
    if "train_wall_seconds" not in _summary(run):
        warn(f"{folder} has not been trained to its end: this is its newest checkpoint")
    return from_dict(Config, run.config), agent, run


def _summary(run: Run) -> dict[str, Any]:
    try:
        return json.loads((run.folder / "summary.json").read_text())
    except (OSError, ValueError):
        return {}


def _json_flag(arguments: list[str]) -> tuple[list[str], bool]:
    as_json = "--json" in arguments
    set_quiet(as_json)
    return [a for a in arguments if a != "--json"], as_json


def _take_value(arguments: list[str], flag: str) -> tuple[str | None, list[str]]:
    """The value of a flag that is not part of the configuration, and the other arguments."""
    value, rest = None, []
    it = iter(arguments)
    for a in it:
        if a == flag:
            value = next(it, None)
            if value is None or value.startswith("--"):
                raise UserError(f"{flag} needs a value: {flag} runs/my_run")
        elif a.startswith(f"{flag}="):
            value = a.split("=", 1)[1]
        else:
            rest.append(a)
    return value, rest


def _parse(kind: Callable[..., T], arguments: list[str], prog: str, description: str, default: Any = None) -> T:
    extra = {} if default is None else {"default": default}
    return tyro.cli(kind, prog=prog, args=arguments, description=description, **extra)


def _finish(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(result, default=float) + "\n")
