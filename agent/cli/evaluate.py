"""`run_agent.py evaluate`: success rate on a frozen list of tasks that training never saw."""

from __future__ import annotations

import re
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from agent.agent import Agent
from agent.cli import common, limits
from agent.cli.runs import load_agent, open_environment, open_run, open_variant, retasked
from agent.cli.tasks_file import chosen_tasks
from agent.config import Config
from agent.console import Progress, table, tell, warn
from agent.errors import UserError
from agent.evaluation import episodes, tasks
from agent.evaluation import evaluate as evaluation
from agent.inspection import imagination
from agent.inspection.episode_recorder import EpisodeRecorder, sight_of
from agent.inspection.recorder import Recorder
from agent.interaction.environment import Environment
from agent.storage.files import to_json
from agent.storage.run import Run
from envs.api import Tasks
from modules.planners import PLANNERS

SETTINGS = ("planner", "mode", "samples", "iterations", "horizon", "replan_every")
"""Flags that replace a setting of the configurator."""


MAX_RECORDED = evaluation.BATCH
"""Only the episodes of the first batch are recorded."""


@dataclass(frozen=True)
class EvaluateArguments:
    """Measure a run by success or return, in tasks or episodes that it never saw, beside reference controllers."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder."""
    tasks: str = "200"
    """How many tasks of the frozen list; or a JSON file {"start": [[...]], "goal": [[...]]} of physical states."""
    planner: str | None = None
    """Search method of Mode-2: cem, mppi, gradient or random; the run's own by default."""
    episodes: int | None = None
    """How many episodes, each from a reset seed of the frozen list; where tasks are states, how many tasks."""
    task: str = ""
    """Act for another task than the run's own, with the same weights: a known task, FILE:FUNCTION, reward, or goal."""
    goal: tuple[str, ...] = ()
    """Act for a goal in readings of the body, name=value each."""
    planner_seeds: int = 1
    """Repeat everything with so many seeds of the search, and report how far they are apart."""
    mode: Literal[1, 2] | None = None
    """1: the policy acts alone. 2: the agent plans. The run's own by default."""
    dynamics: Literal["learned", "oracle"] = "learned"
    """oracle: plan with the true dynamics instead of the world model."""
    cost: Literal["latent", "true"] = "latent"
    """true: score plans by the steps that the expert still needs, instead of the drives and the critic."""
    samples: int | None = None
    """Candidate plans per iteration; the run's own by default."""
    iterations: int | None = None
    """Iterations of the search; the run's own by default."""
    horizon: int | None = None
    """Planning horizon in action blocks; the run's own by default."""
    replan_every: int | None = None
    """Primitive actions between plans; the run's own by default."""
    budget: int | None = None
    """Primitive actions per task; the run's own by default."""
    seed: int = 0
    """Seed of the environment's noise and of the search."""
    record: int = 6
    """Record the decisions of this many episodes for the report, from the first on; 0 removes the recording."""
    env: str | None = None
    """MODULE:ID of the run's environment, where importing the module registers it. Importing runs its code."""
    env_options: tuple[str, ...] | None = None
    """Evaluate in a variant of the run's environment: name=value options of its constructor, instead of the run's."""
    threads: int = 1
    """CPU threads. Decision latency of one episode is always measured on one."""
    device: str = "auto"
    """auto (a GPU when there is one), cpu, cuda, cuda:1."""
    out: Path | None = None
    """Folder for the results; the run's own by default."""
    json: common.Flag = False
    """Print the result as one JSON object on standard output, and messages on standard error."""


def parse(arguments: list[str], program: str) -> EvaluateArguments:
    """The arguments of evaluate."""
    return common.parse(EvaluateArguments, arguments, program)


def run(args: EvaluateArguments, command_line: list[str]) -> int:
    """run_agent.py evaluate RUN."""
    _check(args)
    config, opened = open_run(args.run, args.out)
    trained_for, config = config, retasked(config, args.task, args.goal, args.env)
    _check_planner(args, config)
    environment = open_environment(config, args.env)
    if args.env_options is not None:
        environment = open_variant(config, environment, args.env_options)
    changes = {name: value for name in SETTINGS if (value := getattr(args, name)) is not None}
    wanted = _wanted(args, config, environment)
    agent = load_agent(opened, args.device, args.threads, config, config != trained_for)
    _check_policy(args, config, agent)
    if environment.truth is not None:
        result, recording = _tasks_of_a_simulator(args, config, agent, environment, wanted, changes)
    else:
        assert isinstance(wanted, int)
        result, recording = _episodes(args, config, agent, environment, wanted, changes)
    summary = opened.summary() or {}
    result |= {k: summary.get(k) for k in ("env_steps", "train_wall_seconds", "train_cpu_seconds", "peak_memory_mb")}
    result |= {
        "run": str(args.run),
        "env": config.env,
        "drives": list(config.cost.drives),
        "train_seed": config.seed,
        "env_options": list(args.env_options or config.env_options),
    }
    _write(opened, result, recording, _name(args, result))
    common.finish(result, args.json)
    return 0


def _wanted(args: EvaluateArguments, config: Config, environment: Environment) -> int | Tasks:
    """How many tasks or episodes, or the tasks of a file. UserError for what this environment does not have."""
    if environment.truth is not None:
        return chosen_tasks(str(args.episodes or args.tasks), evaluation.capable(environment)[0])
    if args.dynamics != "learned" or args.cost != "latent":
        raise UserError(
            f"{config.env} cannot be set to a state, so there are no oracles: leave --dynamics and --cost as they are"
        )
    count = args.episodes or (int(args.tasks) if args.tasks.isdecimal() else 0)
    if count < 1:
        raise UserError(f"{config.env} is evaluated in whole episodes: give their number, --episodes 100")
    return count


Evaluated = tuple[dict[str, Any], dict[str, Any] | None]
"""The result, and the recording if there is one."""


def _tasks_of_a_simulator(
    args: EvaluateArguments,
    config: Config,
    agent: Agent,
    environment: Environment,
    wanted: int | Tasks,
    changes: dict[str, Any],
) -> Evaluated:
    """Tasks of this project's own form: from states to goals that are states."""
    _, goals = evaluation.capable(environment)
    _check_memory(args, config, agent, wanted)
    kept = wanted if isinstance(wanted, Tasks) else tasks.task_list(goals, min(wanted, MAX_RECORDED))[0]
    recorder = _recorder(args, config, agent, environment, kept)
    budget = args.budget or config.max_steps
    with Progress() as progress:
        result, _ = evaluation.evaluate(
            agent,
            environment,
            budget,
            wanted,
            changes,
            args.dynamics,
            args.seed,
            progress,
            args.cost,
            recorder and recorder.attach,
        )
    _print(args, result, config)
    return result, None if recorder is None else recorder.recording(result["task_steps"])


def _episodes(
    args: EvaluateArguments,
    config: Config,
    agent: Agent,
    environment: Environment,
    count: int,
    changes: dict[str, Any],
) -> Evaluated:
    """Whole episodes of any other environment."""
    limit = args.budget or config.max_steps
    kept, recording = min(args.record, count), None
    with Progress() as progress, sight_of(environment) if kept else nullcontext() as sight:
        recorder = None
        if sight is not None:
            seeds = episodes.seed_list(count)[0]
            recorder = EpisodeRecorder(environment, sight, kept, seeds, bool(config.learn.decoder_steps))
        result, _ = episodes.evaluate_episodes(
            agent,
            environment,
            count,
            limit,
            changes,
            args.seed,
            args.planner_seeds,
            progress,
            recorder and recorder.attach,
        )
        if recorder is not None:
            recording = _drawn(recorder, progress)
    _print_episodes(args, result, config)
    return result, recording


# What is refused before the work


def _check(args: EvaluateArguments) -> None:
    common.check_positive(
        args, "samples", "iterations", "horizon", "replan_every", "budget", "threads", "episodes", "planner_seeds"
    )
    common.check_seed(args.seed)
    common.check_choice("planner", args.planner, PLANNERS)
    if not 0 <= args.record <= MAX_RECORDED:
        raise UserError(f"--record must be from 0 to {MAX_RECORDED}, got {args.record}")


def _check_planner(args: EvaluateArguments, config: Config) -> None:
    truth = "oracle dynamics" if args.dynamics == "oracle" else "the true cost" if args.cost == "true" else ""
    if truth and (args.planner or config.configurator.planner) == "gradient":
        raise UserError(f"--planner gradient needs gradients, and {truth} gives none: use cem or mppi")


def _check_policy(args: EvaluateArguments, config: Config, agent: Agent) -> None:
    if (args.mode or config.configurator.mode) == 2:
        return
    if "goal" not in config.cost.drives:
        wanted = config.cost.drives[0]
        raise UserError(f"Mode-1 is a policy for goals, and here the agent acts for {wanted}: use --mode 2")
    if bool(agent.actor.trained):
        return
    remedy = "train it to the end" if config.learn.policy_steps else "it was trained with --learn.policy-steps 0"
    raise UserError(f"{args.run} has no trained policy for Mode-1 ({remedy}): evaluate with --mode 2")


def _check_memory(args: EvaluateArguments, config: Config, agent: Agent, wanted: int | Tasks) -> None:
    count, own = wanted if isinstance(wanted, int) else len(wanted), config.configurator
    needs = [limits.paths(count, args.budget or config.max_steps)]
    if (args.mode or own.mode) == 2:
        planning = limits.planning(
            min(evaluation.BATCH, count),
            args.samples or own.samples,
            args.horizon or own.horizon,
            agent.perception.latent_size + agent.perception.proprio_size,
            "--horizon or --samples",
            (args.planner or own.planner) == "gradient",
        )
        needs.append(planning)
    limits.check_memory(needs)


# What is left afterwards


def _recorder(
    args: EvaluateArguments, config: Config, agent: Agent, environment: Environment, kept: Tasks
) -> Recorder | None:
    """A recorder of the first episodes; None where none are wanted, or there is no map to show them on."""
    if not args.record or environment.view is None:
        return None
    probe = imagination.probe_of(agent, config, environment, args.seed)
    return Recorder(environment, Tasks(kept.start[: args.record], kept.goal[: args.record]), probe)


def _drawn(recorder: EpisodeRecorder, progress: Progress) -> dict[str, Any] | None:
    """What was recorded. The evaluation is worth more than its pictures, which somebody else's code renders."""
    try:
        return recorder.recording(progress)
    except Exception as error:
        warn(f"there is no recording, because drawing failed: {type(error).__name__}: {error}")
        return None


def _name(args: EvaluateArguments, result: dict[str, Any]) -> str:
    """What the files of this way of evaluating are called."""
    parts = [f"mode{result['mode']}", result["planner"], result["dynamics"]]
    parts += [] if args.cost == "latent" else [f"{args.cost}-cost"]
    parts += [] if not args.task else [re.sub(r"[^A-Za-z0-9]+", "-", args.task).strip("-")]
    parts += [re.sub(r"[^A-Za-z0-9]+", "-", goal).strip("-") for goal in args.goal]
    parts += [] if args.tasks.isdecimal() else [f"tasks-{result['task_list_sha256'][:8]}"]
    parts += [re.sub(r"[^A-Za-z0-9]+", "-", option).strip("-") for option in args.env_options or ()]
    return "-".join(parts)


def _write(output: Run, result: dict[str, Any], recording: dict[str, Any] | None, name: str) -> None:
    output.write_json(f"evaluation-{name}.json", result)
    if recording is not None:
        output.write_bytes(f"recording-{name}.json", to_json(recording, indent=None))
    else:  # a recording of an earlier evaluation would be taken for one of this
        (output.out / f"recording-{name}.json").unlink(missing_ok=True)


def _print(args: EvaluateArguments, result: dict[str, Any], config: Config) -> None:
    agent = {
        "controller": f"agent, mode {result['mode']}",
        "success": f"{100 * result['success']:.1f} %",
        "95 % interval": f"{100 * result['ci_low']:.1f} - {100 * result['ci_high']:.1f} %",
        "at the last step": f"{100 * result['success_final']:.1f} %",
        "steps (median)": "-" if result["steps_median"] is None else f"{result['steps_median']:g}",
    }
    others = [
        {"controller": f"reference: {name}", "success": f"{100 * share:.1f} %"}
        for name, share in result["reference"].items()
    ]
    table(f"{config.env}: {_tasks(args, result['n_tasks'])}, {result['budget']} steps each", [agent, *others])
    tell(
        f"decision latency (median): {result['plan_ms_median']:.1f} ms for one episode on one thread, "
        f"{result['plan_ms_batch']:.1f} ms for a batch of {result['plan_batch']} episodes on {args.threads} "
        f"thread{'s' if args.threads > 1 else ''}"
    )
    tell(f"task list {result['task_list_sha256'][:16]}, {result['dynamics']} dynamics, training seed {config.seed}")


def _print_episodes(args: EvaluateArguments, result: dict[str, Any], config: Config) -> None:
    low, high = result["return_ci_low"], result["return_ci_high"]
    agent = {
        "controller": f"agent, mode {result['mode']}",
        "return": f"{result['return_mean']:.5g}",
        "95 % interval": f"{low:.5g} to {high:.5g}",
        "survived": f"{100 * result['survival']:.1f} %",
        "length": f"{result['length_mean']:.4g}",
    }
    if result["success"] is not None:
        agent["success"] = f"{100 * result['success']:.1f} %"
        agent["95 % of success"] = f"{100 * result['ci_low']:.1f} - {100 * result['ci_high']:.1f} %"
    if result["cost_mean"] is not None:
        agent["own cost"] = f"{result['cost_mean']:.4g}"
    if result["prediction_error"] is not None:
        agent["prediction error"] = f"{result['prediction_error']:.3g}"
    others = [
        {
            "controller": f"reference: {name}",
            "return": f"{value:.5g}",
            **({"success": f"{100 * result['reference'][name]:.1f} %"} if result["success"] is not None else {}),
        }
        for name, value in result["reference_return"].items()
    ]
    table(f"{config.env}: {result['episodes']} episodes of at most {result['budget']} steps", [agent, *others])
    spread = result["planner_seeds"]
    if len(spread["seeds"]) > 1:
        tell(f"return by seed of the search: {', '.join(f'{x:.5g}' for x in spread['return_mean'])}")
    if result["faults"]:
        tell(f"{result['faults']} episodes failed in the environment and are left out")
    if "reward" in config.cost.drives:
        tell("the environment's reward was used: the agent acts by a learned prediction of it")
    tell(
        f"decision latency (median): {result['plan_ms_median']:.1f} ms for one episode on one thread; reset seeds "
        f"{result['seed_list_sha256'][:16]}, training seed {config.seed}"
    )


def _tasks(args: EvaluateArguments, count: int) -> str:
    """The list of tasks in words."""
    own = not str(args.tasks).isdigit()
    return f"{count} task{'s' * (count != 1)} of {args.tasks}" if own else f"{count} unseen task{'s' * (count != 1)}"
