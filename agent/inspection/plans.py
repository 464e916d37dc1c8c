"""Plans for unseen tasks, as they are imagined and as they are executed.

Shapes: N candidates, H imagined steps, K primitive actions a step, A action, S numbers of a physical state.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from agent.agent import Agent
from agent.drawing.figures import PlanView
from agent.evaluation.evaluate import capable
from agent.evaluation.oracle import perceive
from agent.inspection.probes import features, read
from agent.interaction.environment import Environment
from agent.planning import imagine, plan
from envs.api import Array, Simulator, View
from modules.types import Goal, Situation, State, Task

TASKS, REJECTED = 4, 12  # in the picture of plans


@torch.no_grad()
def plans(
    agent: Agent, environment: Environment, probe: Tensor, seed: int
) -> tuple[list[PlanView], list[dict[str, Any]]]:
    """Mode-2 plans for TASKS tasks: what to draw, and the energies. The agent's random numbers stay as they were."""
    simulator, goals = capable(environment)
    view = environment.view
    assert view is not None
    rng = np.random.default_rng(np.random.SeedSequence([seed, 4]))
    tasks = goals.sample_tasks(rng, TASKS)
    state, goal = (perceive(agent.perception, simulator, s) for s in (tasks.start, tasks.goal))
    generator = Generator().manual_seed(seed)
    situation = Situation(state, Task(), Goal(goal), agent.status(), agent.memory, generator=generator)
    planned = plan(agent.level, state, agent.configurator.configure(situation), generator)
    views: list[PlanView] = []
    numbers: list[dict[str, Any]] = []
    for e in range(TASKS):
        candidates, energies = planned.candidates.actions[e], planned.candidates.energy[e]
        chosen = float(planned.plan.energy[e])
        some = spread(energies, chosen, REJECTED)
        here = state[e : e + 1]
        others = imagine(agent.level.world_model, here, candidates[None, some]).states[0]
        at = view.positions(tasks.goal[e : e + 1])[0]
        centre, rim = view.to_map(np.stack([at, at + np.array([goals.success_radius, 0.0])]))
        shown = PlanView(
            scene=view.render_map(tasks.start[e]),
            start=view.to_map(view.positions(tasks.start[e : e + 1]))[0],
            goal=centre,
            reach=float(np.linalg.norm(rim - centre)),
            chosen=_path(view, probe, State.cat([here, planned.imagined.states[e]])),
            true=execute(simulator, view, tasks.start[e], planned.plan.actions[e]),
            rejected=np.array([_path(view, probe, State.cat([here, others[r]])) for r in range(len(some))]),
            energies=energies[some].double().cpu().numpy(),
            energy=chosen,
            first=float(planned.proposal_energy[e]),
        )
        views.append(shown)
        numbers.append({"energy": shown.energy, "first_proposal": shown.first, "rejected": shown.energies.tolist()})
    return views, numbers


def spread(energies: Tensor, chosen: float, limit: int) -> Tensor:
    """Which of the energies (N,) to show: at most limit, evenly over their ranks, without the chosen plan's own."""
    order = energies.argsort()
    order = order[(energies[order] > chosen) & energies[order].isfinite()]
    ranks = torch.linspace(0, len(order) - 1, min(limit, len(order))).round().long()
    return order[ranks.to(order.device)]


def execute(simulator: Simulator, view: View, start: Array, actions: Tensor) -> Array:
    """Where actions (H, K, A) really lead from a physical state (S,), on the map: (H * K + 1, 2)."""
    states = [start[None]]
    for action in actions.flatten(0, 1).cpu().numpy():
        states.append(simulator.step(states[-1], action[None], None))
    return view.to_map(view.positions(np.concatenate(states)))


def _path(view: View, probe: Tensor, states: State) -> Array:
    """Where the probe reads states (H + 1, ...), on the map: (H + 1, 2)."""
    return view.to_map(read(probe, features(states)).double().cpu().numpy())
