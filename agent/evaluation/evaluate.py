"""Evaluation on a frozen, hashed list of tasks that training never sees, beside the reference that give it meaning."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agent.agent import Agent
from agent.console import Progress
from agent.evaluation.oracle import OracleDynamics, TrueCost
from agent.evaluation.statistics import wilson
from agent.evaluation.tasks import TASK_SEED, task_list
from envs import Simulator
from envs.api import Array, Tasks
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
    """Time of each decision that planned (or asked the policy), for a whole batch of episodes."""
    path: Array
    """(n, budget + 1, 2) positions."""


Watch = Callable[[Array, Decision], None]
"""(states (E, S), what was decision in them): looks on."""


def roll(
    simulator: Simulator, tasks: Tasks, budget: int, control: Callable[[Array, Array, int], NDArray], seed: int
) -> Result:
    """Let a controller work on all tasks at once: control(states, goals, step) -> actions (n, A)."""
    rng = np.random.default_rng([seed, TASK_SEED])
    states, n = tasks.start.copy(), len(tasks)
    steps = np.full(n, -1)
    path = [simulator.positions(states).copy()]
    for t in range(budget):
        states = simulator.step(states, control(states, tasks.goal, t), rng)
        reached = simulator.success(states, tasks.goal)
        steps[(steps < 0) & reached] = t + 1
        path.append(simulator.positions(states).copy())
    return Result(
        float((steps > 0).mean()), float(simulator.success(states, tasks.goal).mean()), steps, [], np.stack(path, 1)
    )


def set_goal(agent: Agent, simulator: Simulator, goals: Array) -> None:
    """Give the agent goals (E, S), and an oracle in it what it has to know of them."""
    agent.set_goal(as_observation(simulator.observe(goals)))
    if isinstance(agent.judge, TrueCost):
        agent.judge.survey(goals)


def act(agent: Agent, simulator: Simulator, states: Array) -> tuple[NDArray, Decision]:
    """One decision of E episodes in these states (E, S)."""
    if isinstance(agent.dynamics, OracleDynamics):
        agent.dynamics.states = states
    return agent.act(as_observation(simulator.observe(states)))


@contextmanager
def settings(
    agent: Agent, simulator: Simulator, budget: int, changes: Mapping[str, Any], dynamics: str, cost: str, seed: int
) -> Iterator[None]:
    """Inside, the agent acts as asked (see `evaluate`), with the search's random numbers from their beginning."""
    kept, asked = agent.configurator.config, dict(changes)
    if "horizon" in asked:
        asked["horizon_without_critic"] = asked["horizon"]
    agent.configurator.config = replace(kept, **asked)
    block = agent.world_model.action_block
    oracle = OracleDynamics(simulator, agent.perception, block) if dynamics == "oracle" else None
    agent.dynamics = oracle or agent.world_model
    if cost == "true":
        agent.judge = TrueCost(simulator, agent.perception, block, budget, oracle)
    agent.actor.generator.manual_seed(seed)
    try:
        yield
    finally:
        agent.configurator.config = kept
        agent.dynamics, agent.judge = agent.world_model, agent.cost


def run_agent(
    agent: Agent,
    simulator: Simulator,
    tasks: Tasks,
    budget: int,
    seed: int,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> Result:
    """The agent on all tasks, in batches of episodes; watch: looks on at the first batch."""
    parts: list[Result] = []
    if progress is not None:
        progress.start("evaluate", len(tasks), unit="tasks")
    for first in range(0, len(tasks), BATCH):
        some = Tasks(tasks.start[first : first + BATCH], tasks.goal[first : first + BATCH])
        set_goal(agent, simulator, some.goal)
        times: list[float] = []

        def control(states: Array, _: Array, __: int, times: list[float] = times, looks: bool = first == 0) -> NDArray:
            action, decision = act(agent, simulator, states)
            if watch is not None and looks:
                watch(states, decision)
            if decision.replanned:
                times.append(decision.milliseconds)
            return action

        result = roll(simulator, some, budget, control, seed + first)
        parts.append(replace(result, milliseconds=times))
        if progress is not None:
            progress.update(min(first + BATCH, len(tasks)), f"success {np.mean([p.success for p in parts]):.3f}")
    weights = [len(p.steps) for p in parts]
    return Result(
        float(np.average([p.success for p in parts], weights=weights)),
        float(np.average([p.success_final for p in parts], weights=weights)),
        np.concatenate([p.steps for p in parts]),
        [m for p in parts for m in p.milliseconds],
        np.concatenate([p.path for p in parts]),
    )


def reference(simulator: Simulator, tasks: Tasks, budget: int, seed: int) -> dict[str, float]:
    """Success of three controllers that learn nothing: random, greedy (straight line), oracle (knows the world)."""
    rng = np.random.default_rng([seed, 7])
    low, high = simulator.action_low, simulator.action_high
    controls: dict[str, Callable[[Array, Array, int], NDArray]] = {
        "random": lambda s, g, t: rng.uniform(low, high, (len(s), len(low))),
        "greedy": lambda s, g, t: simulator.greedy_action(s, g),
        "expert": lambda s, g, t: simulator.expert_action(s, g),
    }
    return {name: roll(simulator, tasks, budget, control, seed).success for name, control in controls.items()}


def decision_times(agent: Agent, simulator: Simulator, tasks: Tasks, decisions: int = 30) -> list[float]:
    """Milliseconds of single decisions of one episode on one thread, warm-up left out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = []
        set_goal(agent, simulator, tasks.goal[:1])
        states, rng = tasks.start[:1], np.random.default_rng(0)
        for _ in range(100 * decisions):
            action, decision = act(agent, simulator, states)
            if decision.replanned:
                times.append(decision.milliseconds)
            if len(times) == decisions + 5:
                break
            states = simulator.step(states, action, rng)
        return times[5:]
    finally:
        torch.set_num_threads(threads)


def evaluate(
    agent: Agent,
    simulator: Simulator,
    budget: int,
    tasks: int | Tasks = 200,
    changes: Mapping[str, Any] | None = None,
    dynamics: str = "learned",
    seed: int = 0,
    progress: Progress | None = None,
    cost: str = "latent",
    watch: Watch | None = None,
) -> tuple[dict[str, Any], Result]:
    """Success, intervals, reference and times as one flat dictionary, and the raw result.

    changes: settings of the configurator (planner, mode, samples, ...) other than the run's own. dynamics `oracle`
    imagines by simulating; cost `true` judges what is imagined by the oracle controller's way to the goal. watch: looks
    on at the first BATCH episodes.
    """
    chosen, digest = task_list(simulator, tasks)
    count = len(chosen)
    with settings(agent, simulator, budget, changes or {}, dynamics, cost, seed):
        began = time.monotonic()
        result = run_agent(agent, simulator, chosen, budget, seed, progress, watch)
        seconds = time.monotonic() - began
        single = decision_times(agent, simulator, chosen)
        directive = agent.configurator.configure(agent.task, None, agent.statuses())
    low, high = wilson(result.success, count)
    reached = result.steps[result.steps > 0]
    out = {
        "success": result.success,
        "success_final": result.success_final,
        "ci_low": low,
        "ci_high": high,
        "n_tasks": count,
        "task_list_sha256": digest,
        "budget": budget,
        "reference": reference(simulator, chosen, budget, seed),
        "steps_median": float(np.median(reached)) if len(reached) else None,
        "steps_p95": float(np.quantile(reached, 0.95)) if len(reached) else None,
        "plan_ms_median": float(np.median(single)),
        "plan_ms_p95": float(np.quantile(single, 0.95)),
        "plan_ms_batch": float(np.median(result.milliseconds)),
        "plan_batch": min(BATCH, count),
        "seconds": seconds,
        "task_steps": result.steps.tolist(),
        "task_distance": np.linalg.norm(
            simulator.positions(chosen.goal) - simulator.positions(chosen.start), axis=1
        ).tolist(),
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
    return out, result
