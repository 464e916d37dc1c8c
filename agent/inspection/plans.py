"""Plans for tasks never seen, as they are imagined and as they are executed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from agent.drawing.figures import PlanView
from agent.evaluation.oracle import perceive
from agent.inspection.probes import features, read
from envs import Simulator
from envs.api import Array
from modules.types import State, Task

if TYPE_CHECKING:
    from agent.agent import Agent


TASKS, REJECTED = 4, 12  # in the picture of plans


# Plans


def plans(agent: Agent, simulator: Simulator, probe: Tensor, seed: int) -> tuple[list[PlanView], list[dict[str, Any]]]:
    """Mode-2 plans for TASKS tasks of the world: what to draw, and the energies."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 4]))
    tasks = simulator.sample_tasks(rng, TASKS)
    state, goal = (perceive(agent.perception, simulator, s) for s in (tasks.start, tasks.goal))
    directive = agent.configurator.configure(Task(None), goal, agent.statuses())
    kept = agent.actor.generator.get_state()
    agent.actor.generator.manual_seed(seed)
    try:
        plan, imagined, extra = agent.plan(state, directive)
    finally:
        agent.actor.generator.set_state(kept)
    views, numbers = [], []
    for e in range(TASKS):
        candidates, energies, chosen = (
            extra["candidates"].actions[e],
            extra["candidates"].energy[e],
            float(plan.energy[e]),
        )
        some = spread(energies, chosen, REJECTED)
        here = state[e : e + 1]
        others = agent.imagine(here, candidates[None, some])[0]
        goal_position = simulator.positions(tasks.goal[e : e + 1])[0]
        rim = goal_position + np.array([simulator.success_radius, 0.0])
        centre, rim = simulator.to_map(np.stack([goal_position, rim]))
        view = PlanView(
            scene=simulator.render_map(tasks.start[e]),
            start=simulator.to_map(simulator.positions(tasks.start[e : e + 1]))[0],
            goal=centre,
            reach=float(np.linalg.norm(rim - centre)),
            chosen=_path(simulator, probe, State.cat([here, imagined[e]])),
            true=execute(simulator, tasks.start[e], plan.actions[e]),
            rejected=np.array([_path(simulator, probe, State.cat([here, others[r]])) for r in range(len(some))]),
            energies=energies[some].double().cpu().numpy(),
            energy=chosen,
            first=float(extra["proposal_energy"][e]),
        )
        views.append(view)
        numbers.append({"energy": view.energy, "first_proposal": view.first, "rejected": view.energies.tolist()})
    return views, numbers


def spread(energies: Tensor, chosen: float, limit: int) -> Tensor:
    """Which of the energies (N,) to show: at most limit, evenly over their ranks, without the chosen plan's own."""
    order = energies.argsort()
    order = order[(energies[order] > chosen) & energies[order].isfinite()]
    ranks = torch.linspace(0, len(order) - 1, min(limit, len(order))).round().long()
    return order[ranks.to(order.device)]


def execute(simulator: Simulator, start: Array, actions: Tensor) -> Array:
    """Where actions (H, K, A) really lead from a physical state (S,), on the map: (H * K + 1, 2)."""
    states = [start[None]]
    for action in actions.flatten(0, 1).cpu().numpy():
        states.append(simulator.step(states[-1], action[None], None))
    return simulator.to_map(simulator.positions(np.concatenate(states)))


def _path(simulator: Simulator, probe: Tensor, states: State) -> Array:
    """Where the probe reads states (H + 1, ...), on the map: (H + 1, 2)."""
    return simulator.to_map(read(probe, features(states)).double().cpu().numpy())
