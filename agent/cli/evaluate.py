"""`run_agent.py evaluate`: success on a frozen list of tasks that training never saw."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from agent.cli.common import _finish, _json_flag, _parse, _summary, environment_of, load_run
from agent.console import Progress, table, tell
from agent.errors import UserError
from agent.evaluation import evaluate as evaluation
from agent.evaluation import tasks
from agent.inspection import imagination
from agent.inspection import recorder as thoughts
from agent.storage.files import to_json

SETTINGS = ("planner", "mode", "samples", "iterations", "horizon", "replan_every")  # of the directive, for evaluate


MAX_RECORDED = evaluation.BATCH  # a recorder looks on at the episodes that act first


@dataclass(frozen=True)
class EvaluateArguments:
    """Success of a run on a frozen list of tasks that training never saw."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder."""
    tasks: int = 200
    """How many tasks of the list."""
    planner: str | None = None
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
    """Episodes whose Decisions are kept for the report, the first tasks of the list; with 0 none are left there."""
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
    environment = environment_of(config)
    _, goals = evaluation.capable(environment)
    budget = args.budget or config.max_steps
    changes = {k: v for k in SETTINGS if (v := getattr(args, k)) is not None}
    kept, _ = tasks.task_list(goals, min(args.record, args.tasks))
    recorder = None
    if len(kept) and environment.view is not None:  # without a map there is nothing to show them on
        recorder = thoughts.Recorder(environment, kept, imagination.probe_of(agent, config, environment, args.seed))
    with Progress() as progress:
        result, _ = evaluation.evaluate(
            agent,
            environment,
            budget,
            args.tasks,
            changes,
            args.dynamics,
            args.seed,
            progress,
            args.cost,
            recorder and recorder.attach,
        )
    summary = _summary(run)
    result |= {k: summary.get(k) for k in ("env_steps", "train_wall_seconds", "train_cpu_seconds", "peak_memory_mb")}
    result |= {"run": str(args.run), "train_seed": config.seed}
    rows = [
        {"controller": f"agent, mode {result['mode']}", "success": f"{100 * result['success']:.1f} %"},
        *({"controller": f"reference: {k}", "success": f"{100 * v:.1f} %"} for k, v in result["reference"].items()),
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
        run.write_bytes(f"recording-{name}.json", to_json(recorder.recording(result["task_steps"]), indent=None))
    else:  # those of another evaluation would be taken for this one's
        (run.folder / f"recording-{name}.json").unlink(missing_ok=True)
    _finish(result, as_json)
    return 0
