"""The part of `check` for environments that are a Simulator of this project: exact states, tasks, speed as arrays.

Shapes: A action dimensions, K primitive actions in a block.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from agent.config import Config
from agent.evaluation import evaluate
from agent.inspection.check_speed import speed_finding
from agent.inspection.finding import Finding
from agent.interaction.environment import of_simulator
from envs.gym_env import SimEnv, SimVectorEnv

TASKS, BATCH, STEPS = 50, 256, 20


def states(env: SimEnv, seed: int) -> Iterator[Finding]:
    """After set_state the same actions lead to the same future twice, noise included."""
    for kind, copy in (("one environment", env), ("a batch of four", SimVectorEnv(env.simulator, 4, env.max_steps))):
        copy.action_space.seed(seed)
        copy.reset(seed=seed)
        actions = [copy.action_space.sample() for _ in range(25)]
        for action in actions[:5]:
            copy.step(action)
        kept, futures = copy.get_state(), []
        for _ in range(2):
            copy.set_state(kept)
            futures.append([copy.step(action)[4]["state"] for action in actions[5:]])
        if np.array_equal(*futures):
            yield Finding("exact states", "ok", f"{kind}: set_state continues bit for bit")
        else:
            advice = "keep everything that decides the future in the state array, and draw noise from `rng` only"
            yield Finding("exact states", "failed", f"{kind}: set_state does not continue exactly", advice)


def tasks(env: SimEnv, seed: int) -> Iterator[Finding]:
    """No task is solved at its start, the expert solves them, and random actions do not."""
    environment, budget = of_simulator(type(env.simulator).__name__, env.simulator), env.max_steps
    if environment.goals is None or environment.expert is None:
        missing = "sample_tasks, success, success_radius, expert_action and greedy_action"
        yield Finding("tasks", "warning", "no tasks or no expert", f"write {missing} to evaluate success in it")
        return
    sampled = environment.goals.sample_tasks(np.random.default_rng(seed), TASKS)
    solved = int(environment.goals.success(sampled.start, sampled.goal).sum())
    if solved:
        advice = "let sample_tasks place every goal farther than success_radius from its start"
        yield Finding("tasks", "failed", f"{solved} of {TASKS} are solved before the first step", advice)
    reference = evaluate.reference(environment, sampled, budget, seed)
    rates = ", ".join(f"{name} {100 * share:.0f} %" for name, share in reference.items())
    found = f"success rate within {budget} steps: {rates}"
    if reference["expert"] < 0.95:
        advice = "look at the tasks that expert_action fails: are they solvable, and within the budget of steps?"
        yield Finding("tasks", "failed" if reference["expert"] < 0.5 else "warning", found, advice)
    elif reference["random"] > 0.5:
        yield Finding("tasks", "warning", found, "random actions solve most tasks: make the tasks harder")
    else:
        yield Finding("tasks", "ok", found)


def speed(env: SimEnv, seed: int, config: Config) -> Iterator[Finding]:
    """Steps of a batch as arrays, the way training explores a Simulator."""
    simulator, rng, block = env.simulator, np.random.default_rng(seed), config.world_model.action_block
    batch = simulator.reset(rng, BATCH)
    actions = rng.uniform(simulator.action_low, simulator.action_high, (STEPS, BATCH, len(simulator.action_low)))
    stepping = observing = 0.0
    for i, action in enumerate(actions):
        began = time.perf_counter()
        batch = simulator.step(batch, action, rng)
        stepping += time.perf_counter() - began
        if i % block == 0:
            began = time.perf_counter()
            simulator.observe(batch)
            observing += time.perf_counter() - began
    observing *= STEPS / block / -(-STEPS // block)  # what STEPS steps would need if block divided them
    rate = STEPS * BATCH / (stepping + observing)
    yield speed_finding(rate, observing / (stepping + observing), f"in batches of {BATCH} on one core", config)
