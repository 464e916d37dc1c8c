"""Evaluation: success of an agent on tasks that training never sees, beside reference controllers.

Shapes: E episodes that act together, n tasks, S numbers of a physical state, A action.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agent.agent import Agent
from agent.console import Progress
from agent.errors import UserError
from agent.evaluation.oracle import OracleDynamics, TrueCost, fit_reader
from agent.evaluation.statistics import mean_interval, wilson
from agent.evaluation.tasks import TASK_SEED, reference_controllers, task_hash, task_list
from agent.interaction.driver import Act, Listener, Moment, Transition, drive, steps
from agent.interaction.environment import Environment
from envs import SimVectorEnv
from envs.api import Array, Goals, Simulator, Tasks
from envs.gym_env import as_observation
from modules.types import Decision

BATCH = 20  # episodes that act together


@dataclass(frozen=True)
class Result:
    """How a controller did on a list of tasks."""

    success: float
    """Share of tasks solved at some moment within the budget."""
    success_final: float
    """Share of tasks solved at the last step of the budget."""
    steps: NDArray[np.int64]
    """(n,) primitive actions to the goal, -1 where it was not reached."""
    milliseconds: list[float]
    """Decision latency of each decision that planned (or asked the policy), for a whole batch of episodes."""
    returns: NDArray[np.float64]
    """(n,) sums of the environment's reward, a yardstick that no part of the agent reads."""
    cost: NDArray[np.float64]
    """(n,) the agent's own intrinsic cost, mean over the steps; NaN for a controller that has none."""


class Score:
    """A listener that notes when each goal is reached."""

    def __init__(self, count: int) -> None:
        self.steps = np.full(count, -1)
        self.final = np.zeros(count, bool)
        self.milliseconds: list[float] = []
        self.returns, self.cost = np.zeros(count), np.zeros(count)
        self._taken = self._judged = 0

    def add(self, step: Transition) -> None:
        """One step of all episodes."""
        self._taken += 1
        self.final = step.info["success"]
        self.steps[(self.steps < 0) & self.final] = self._taken
        self.returns += step.reward
        if isinstance(step.decision, Decision):
            own = step.decision.cost
            self.cost += (own.energy - own.critic.sum(-1)).double().cpu().numpy()
            self._judged += 1
            if step.decision.replanned:
                self.milliseconds.append(step.decision.milliseconds)

    def result(self) -> Result:
        """What it came to."""
        cost = self.cost / self._judged if self._judged else np.full(len(self.cost), np.nan)
        success, final = float((self.steps > 0).mean()), float(self.final.mean())
        return Result(success, final, self.steps, self.milliseconds, self.returns, cost)


def run(
    environment: Environment, tasks: Tasks, budget: int, act: Act, seed: int, listeners: Sequence[Listener] = ()
) -> Result:
    """Let a controller work on all tasks at once, for `budget` primitive actions."""
    simulator, _ = capable(environment)
    envs = SimVectorEnv(simulator, len(tasks), budget + 1)
    envs.np_random = np.random.default_rng([seed, TASK_SEED])
    score = Score(len(tasks))
    options = {"state": tasks.start, "goal": tasks.goal}
    to_env = environment.spec.actions.to_env
    drive(envs, act, steps(budget), [score.add, *listeners], options=options, to_env=to_env)
    return score.result()


def capable(environment: Environment) -> tuple[Simulator, Goals]:
    """The simulator and its goals. UserError for an environment that offers no tasks."""
    if environment.truth is None or environment.goals is None:
        raise UserError(
            f"{environment.name} offers no tasks: write it as a Simulator (see docs/worlds.md) to evaluate in it. What "
            "was trained can be used from Python: agent.build.load(run)"
        )
    return environment.truth, environment.goals


class AgentActs:
    """An agent as a controller (`driver.Act`); an oracle in it is told the true states."""

    def __init__(self, agent: Agent, environment: Environment) -> None:
        self.agent, self.environment = agent, environment

    def set_goals(self, goals: Array) -> None:
        """New episodes with these goal states (E, S)."""
        assert self.environment.truth is not None
        self.agent.set_goal(as_observation(self.environment.truth.observe(goals)))
        if isinstance(self.agent.level.cost, TrueCost):
            self.agent.level.cost.goals = goals

    def __call__(self, moment: Moment) -> tuple[NDArray, Decision]:
        """One decision of E episodes."""
        if isinstance(self.agent.level.world_model, OracleDynamics):
            self.agent.level.world_model.states = moment.info["state"]
        _, decision = self.agent.act(moment.observation, moment.is_first)
        return decision.action.cpu().numpy().copy(), decision  # the plan goes on with its own


def run_agent(
    acts: AgentActs,
    tasks: Tasks,
    budget: int,
    seed: int,
    progress: Progress | None = None,
    listener: Listener | None = None,
) -> Result:
    """The agent on all tasks, in batches of episodes; listener: sees the first batch."""
    parts: list[Result] = []
    if progress is not None:
        progress.start("evaluate", len(tasks), unit="tasks")
    for first in range(0, len(tasks), BATCH):
        some = Tasks(tasks.start[first : first + BATCH], tasks.goal[first : first + BATCH])
        acts.set_goals(some.goal)
        listeners = [listener] if listener is not None and first == 0 else []
        parts.append(run(acts.environment, some, budget, acts, seed + first, listeners))
        if progress is not None:
            progress.update(min(first + BATCH, len(tasks)), f"success {np.mean([p.success for p in parts]):.3f}")
    weights = [len(p.steps) for p in parts]
    return Result(
        float(np.average([p.success for p in parts], weights=weights)),
        float(np.average([p.success_final for p in parts], weights=weights)),
        np.concatenate([p.steps for p in parts]),
        [m for p in parts for m in p.milliseconds],
        np.concatenate([p.returns for p in parts]),
        np.concatenate([p.cost for p in parts]),
    )


def reference(environment: Environment, tasks: Tasks, budget: int, seed: int) -> dict[str, float]:
    """Success of the reference controllers: random, greedy (straight line to the goal), expert (knows the world)."""
    controllers = reference_controllers(environment, seed)
    return {name: run(environment, tasks, budget, act, seed).success for name, act in controllers.items()}


def decision_times(acts: AgentActs, tasks: Tasks, decisions: int = 30, warmup: int = 5) -> list[float]:
    """Milliseconds of single decisions of one episode on one thread, without those of the warm-up."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        acts.set_goals(tasks.goal[:1])
        score, taken = Score(1), 0
        simulator, _ = capable(acts.environment)
        envs = SimVectorEnv(simulator, 1, 100 * decisions + 1)
        envs.np_random = np.random.default_rng(0)

        def stop(_: Transition) -> bool:
            nonlocal taken
            taken += 1
            return len(score.milliseconds) == decisions + warmup or taken == 100 * decisions

        options, to_env = {"state": tasks.start[:1], "goal": tasks.goal[:1]}, acts.environment.spec.actions.to_env
        drive(envs, acts, stop, [score.add], options=options, to_env=to_env)
        return score.milliseconds[warmup:]
    finally:
        torch.set_num_threads(threads)


def acting(
    agent: Agent,
    environment: Environment,
    budget: int,
    changes: Mapping[str, Any] | None = None,
    dynamics: str = "learned",
    cost: str = "latent",
    seed: int = 0,
) -> tuple[AgentActs, float | None]:
    """The agent under other settings, and the error of the reader of true states where one was fitted.

    Args:
        agent: shares its weights, and is not changed.
        environment: with truth, where oracles are asked for.
        budget: primitive actions after which a goal counts as out of reach.
        changes: fields of the directive other than the run's own: planner, mode, samples, ...
        dynamics: `oracle` imagines by simulating.
        cost: `true` takes the number of steps that the expert still needs as the cost of an imagined state.
        seed: of the search.

    Raises:
        UserError: an oracle is asked for that the environment cannot give.
    """
    block = agent.world_model.action_block
    oracle = true_cost = error = None
    if dynamics == "oracle":
        oracle = OracleDynamics(capable(environment)[0], agent.perception, block)
    if cost == "true":
        capable(environment)
        if environment.expert is None:
            raise UserError(
                f"--cost true needs an expert, whose remaining steps are the true cost, and {environment.name} has "
                "none: write expert_action and greedy_action (see docs/worlds.md), or use --cost latent"
            )
        reader = None
        if oracle is None:
            reader, error = fit_reader(agent.perception, environment)
        true_cost = TrueCost(environment, block, budget, oracle, reader)
    return AgentActs(agent.acting(changes, oracle, true_cost, seed), environment), error


def evaluate(
    agent: Agent,
    environment: Environment,
    budget: int,
    tasks: int | Tasks = 200,
    changes: Mapping[str, Any] | None = None,
    dynamics: str = "learned",
    seed: int = 0,
    progress: Progress | None = None,
    cost: str = "latent",
    watch: Callable[[Agent], Listener] | None = None,
) -> tuple[dict[str, Any], Result]:
    """Success, intervals, reference controllers and decision latency as one flat dictionary, and the raw result.

    Args:
        agent: is not changed.
        environment: with tasks.
        budget: primitive actions for each task.
        tasks: how many of the frozen list, or a list of one's own.
        changes: settings of acting (see `acting`), as are dynamics and cost.
        dynamics: learned or oracle.
        seed: of the environment's noise and of the search.
        progress: is told how far it has come.
        cost: latent or true.
        watch: given the agent that acts, a listener that sees the first BATCH episodes (`Recorder.attach`).

    Raises:
        UserError: the environment offers no tasks, or not the oracle that is asked for.
    """
    _, goals = capable(environment)
    chosen = task_list(goals, tasks)[0] if isinstance(tasks, int) else tasks
    count = len(chosen)
    acts, reader_error = acting(agent, environment, budget, changes, dynamics, cost, seed)
    began = time.monotonic()
    result = run_agent(acts, chosen, budget, seed, progress, watch and watch(acts.agent))
    seconds = time.monotonic() - began
    single = decision_times(acts, chosen)
    assert acts.agent.episode is not None and acts.agent.episode.directive is not None
    directive = acts.agent.episode.directive
    low, high = wilson(result.success, count)
    return_low, return_high = mean_interval(result.returns)
    reached = result.steps[result.steps > 0]
    out = {
        "success": result.success,
        "success_final": result.success_final,
        "ci_low": low,
        "ci_high": high,
        "measure": "success",
        "return_mean": float(result.returns.mean()),
        "return_ci_low": return_low,
        "return_ci_high": return_high,
        "cost_mean": float(result.cost.mean()),
        "length_mean": float(budget),
        "episodes": count,
        "seed_list_sha256": task_hash(chosen),
        "n_tasks": count,
        "task_list_sha256": task_hash(chosen),
        "budget": budget,
        "reference": reference(environment, chosen, budget, seed),
        "steps_median": float(np.median(reached)) if len(reached) else None,
        "steps_p95": float(np.quantile(reached, 0.95)) if len(reached) else None,
        "plan_ms_median": float(np.median(single)),
        "plan_ms_p95": float(np.quantile(single, 0.95)),
        "plan_ms_batch": float(np.median(result.milliseconds)),
        "plan_batch": min(BATCH, count),
        "seconds": seconds,
        "task_steps": result.steps.tolist(),
        "task_distance": _distances(environment, chosen),
        "mode": directive.mode,
        "planner": directive.planner,
        "dynamics": dynamics,
        "cost": cost,
        "samples": directive.samples,
        "iterations": directive.iterations,
        "horizon": directive.horizon,
        "replan_every": directive.replan_every,
        "seed": seed,
    }
    return out | ({} if reader_error is None else {"reader_error": reader_error}), result


def _distances(environment: Environment, tasks: Tasks) -> list[float]:
    """Of each goal from its start, on the map; nothing without one."""
    if environment.view is None:
        return []
    between = environment.view.positions(tasks.goal) - environment.view.positions(tasks.start)
    return np.linalg.norm(between, axis=1).tolist()
