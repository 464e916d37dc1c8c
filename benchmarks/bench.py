"""What is fast, as one JSON line per measurement: name, value, unit, baseline, ratio.

    python -m benchmarks.bench [RUN]

Times drift from machine to machine and from minute to minute, so everything that has a baseline is measured beside it
in the same process, turn by turn, and the ratio is what to look at. RUN is a trained run; without it an untrained agent
with the default preset's sizes is timed, which takes the same time to think.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agent.agent import Agent
from agent.build import build, load
from agent.evaluation.evaluate import capable
from agent.interaction.environment import Environment, open_environment
from agent.interaction.explore import explore
from agent.learning.schedules import optimiser_of, take_step
from agent.learning.updates import step_generator
from agent.learning.world_model import WorldModelUpdate
from agent.presets import two_rooms
from envs import SIMULATORS
from envs.gym_env import SimVectorEnv, as_observation

EB_JEPA_STEPS = 930.0  # rendered steps/s of EB-JEPA's own environment on one core, measured on a 2.5 GHz Xeon
EB_JEPA_PLAN_MS = 37_000.0  # one plan of EB-JEPA with its published settings on the same core

DECISIONS: dict[str, dict[str, Any]] = {
    "CEM": {},
    "MPPI": {"planner": "mppi"},
    "gradient descent": {"planner": "gradient"},
    "one random plan": {"planner": "random"},
    **{f"CEM with {n} candidates": {"samples": n} for n in (8, 16, 64, 128)},
    "CEM without critic": {"critic_weights": {}, "horizon": 10},
    "Mode-1": {"mode": 1},
}
"""What is timed -> what it changes in the configurator's settings."""


def report(name: str, value: float, unit: str, baseline: float | None = None) -> None:
    """Print one measurement. The ratio is value / baseline."""
    ratio = None if baseline is None else round(value / baseline, 4)
    print(json.dumps({"name": name, "value": round(value, 4), "unit": unit, "baseline": baseline, "ratio": ratio}))


def seconds(turns: int, *functions: Callable[[], object]) -> list[float]:
    """Median seconds of each function, called in turn."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(turns + 2):
        for f, kept in zip(functions, times, strict=True):
            began = time.perf_counter()
            f()
            kept.append(time.perf_counter() - began)
    return [float(np.median(kept[2:])) for kept in times]


def worlds() -> None:
    """Steps per second of every world, 256 at once, and of one world alone."""
    for env_id, make in SIMULATORS.items():
        simulator = make()
        many, one = SimVectorEnv(simulator, 256, 10_000), SimVectorEnv(simulator, 1, 10_000)
        rng = np.random.default_rng(0)
        actions = rng.uniform(simulator.action_low, simulator.action_high, (256, len(simulator.action_low)))
        many.reset(seed=0)
        one.reset(seed=0)
        batch, single = seconds(20, lambda w=many, a=actions: w.step(a), lambda w=one, a=actions: w.step(a[:1]))
        rooms = env_id.startswith("TwoRooms")
        report(f"{env_id}: steps/s, 256 worlds", 256 / batch, "steps/s", EB_JEPA_STEPS if rooms else None)
        report(f"{env_id}: 256 worlds against one", 256 / batch, "steps/s", round(1 / single, 1))


def thinking(agent: Agent, environment: Environment) -> None:
    """One decision of one episode on one thread: ways of planning, and the policy alone, against the preset's own."""
    simulator, goals = capable(environment)
    tasks = goals.sample_tasks(np.random.default_rng(0), 1)
    seen = as_observation(simulator.observe(tasks.start), 0)
    goal = as_observation(simulator.observe(tasks.goal), 0)
    agent.cost.trained.fill_(True)
    agent.actor.trained.fill_(True)

    def decide(changes: dict[str, Any]) -> Callable[[], object]:
        acting = agent.acting({"replan_every": 1, **changes})
        acting.set_goal(goal)
        return lambda: acting.act(seen)

    milliseconds = [x * 1e3 for x in seconds(20, *map(decide, DECISIONS.values()))]
    own = milliseconds[0]
    report("decision by CEM", own, "ms", EB_JEPA_PLAN_MS)
    for name, value in zip([*DECISIONS][1:], milliseconds[1:], strict=True):
        report(f"{name} against CEM", value, "ms", round(own, 3))


def learning(agent: Agent, environment: Environment) -> None:
    """One update of the world model on one thread."""
    config = two_rooms()
    replay = explore(replace(config.collect, episodes=64), environment, config.world_model.action_block, 0)
    update = WorldModelUpdate(agent.perception, agent.world_model, agent.inverse, replay, config.losses, config.learn)
    optimiser = optimiser_of(update, config.learn)
    (second,) = seconds(10, lambda: take_step(update, optimiser, step_generator(0, 0, 0), config.learn.clip, 0))
    report("world model update", 1e3 * second, "ms")


def main() -> None:
    """All measurements."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    worlds()
    environment = open_environment("TwoRooms-v0", {})
    agent = load(Path(sys.argv[1])) if len(sys.argv) > 1 else build(two_rooms(), environment.spec)
    thinking(agent, environment)
    learning(agent, environment)


if __name__ == "__main__":
    main()
