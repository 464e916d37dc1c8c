"""Tasks to evaluate on: a frozen, hashed list that training never sees, and reference controllers for it."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from agent.interaction.driver import Act, Moment
from agent.interaction.environment import Environment
from envs.api import Goals, Tasks

TASK_SEED = 1_000_003  # of the frozen list; training seeds never meet it, because they go through SeedSequence
LISTED = 1000  # tasks in the list; a longer one is another list


def task_list(goals: Goals, count: int) -> tuple[Tasks, str]:
    """The first `count` tasks of the environment's frozen list, and their SHA-256."""
    whole = goals.sample_tasks(np.random.default_rng(TASK_SEED), max(LISTED, count))
    tasks = Tasks(whole.start[:count], whole.goal[:count])
    return tasks, task_hash(tasks)


def task_hash(tasks: Tasks) -> str:
    """SHA-256 of starts and goals: results on lists with the same hash can be compared."""
    start, goal = (np.asarray(states, np.float64) for states in (tasks.start, tasks.goal))
    return hashlib.sha256(start.tobytes() + goal.tobytes()).hexdigest()


def reference_controllers(environment: Environment, seed: int) -> dict[str, Act]:
    """Controllers that learn nothing: random actions and, where the environment has an expert, greedy and expert."""
    rng = np.random.default_rng([seed, 7])
    controllers: dict[str, Act] = {}
    if environment.truth is not None:
        low, high = environment.truth.action_low, environment.truth.action_high

        def at_random(moment: Moment) -> tuple[NDArray, None]:
            return rng.uniform(low, high, (len(moment.is_first), len(low))), None

        controllers["random"] = at_random
    expert = environment.expert
    if expert is not None:
        controllers["greedy"] = lambda m: (expert.greedy_action(m.info["state"], m.info["goal"]), None)
        controllers["expert"] = lambda m: (expert.expert_action(m.info["state"], m.info["goal"]), None)
    return controllers
