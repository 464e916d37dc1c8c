"""Plans at the beginning of episodes of any Gymnasium environment, as they are imagined and as they are executed.

Shapes: E plans, N candidates, R of them shown, H imagined steps, K primitive actions a step, A action, S sensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agent.agent import Agent
from agent.evaluation.episodes import goal_percepts
from agent.inspection.plans import REJECTED, TASKS, spread
from agent.inspection.rollouts import copied, rounded
from agent.inspection.sight import Sight
from agent.interaction.driver import Moment
from agent.interaction.environment import Environment
from agent.planning import imagine
from modules.drives import IntrinsicDrive, Readings
from modules.types import Actions, Imagined, State


@dataclass(frozen=True)
class EpisodePlan:
    """What was planned at the first moment of an episode."""

    seed: int
    """Of the reset."""
    chosen: State
    """(H + 1, ...) from here on, imagined."""
    candidates: State
    """(R, H + 1, ...) of the last iteration, those of higher energy, likewise."""
    actions: Tensor
    """(H, K, A) of the chosen plan."""
    executed: dict[str, NDArray]
    """(H + 1, ...) pixels and sensors where the chosen plan leads, fewer if the episode ends."""
    goal: dict[str, NDArray] | None
    """Pixels and sensors as they should be."""
    energy: float
    first: float
    """Energy of the first proposal, before the search."""
    energies: list[float]
    """(R,)."""


@torch.no_grad()
def plans(agent: Agent, environment: Environment, sight: Sight, seed: int, count: int = TASKS) -> list[EpisodePlan]:
    """Mode-2 plans from `count` reset seeds that training never used. The agent and its random numbers stay as they
    were.

    environment: with the spec of the agent.
    """
    assert environment.one is not None
    seeds = [int(s) for s in np.random.default_rng(np.random.SeedSequence([seed, 4])).integers(2**31, size=count)]
    env = sight.env or environment.one()
    try:
        begun = [first(env, one) for one in seeds]
        told = [info.get("goal_percept") for _, info in begun]
        info = {"goal_percept": stacked([one for one in told if one is not None])} if None not in told else {}
        moment = Moment(stacked([seen for seen, _ in begun]), np.ones(count, bool), info)
        goal = goal_percepts(moment, environment)
        player = agent.acting({"mode": 2}, seed=seed)
        player.set_goal(goal)
        _, decision = player.act(moment.observation, moment.is_first)
        assert decision.plan is not None and decision.candidates is not None
        assert decision.imagined is not None and decision.proposal_energy is not None
        out: list[EpisodePlan] = []
        for e, one in enumerate(seeds):
            actions, energies = decision.candidates.actions[e], decision.candidates.energy[e]
            some = spread(energies, float(decision.plan.energy[e]), REJECTED)
            here = decision.state[e : e + 1]
            others = imagine(agent.level.world_model, here, actions[None, some]).states[0]
            begins = here[torch.zeros_like(some)].map(lambda x: x[:, None])
            out.append(
                EpisodePlan(
                    seed=one,
                    chosen=State.cat([here, decision.imagined.states[e]]),
                    candidates=State.cat([begins, others], 1),
                    actions=decision.plan.actions[e],
                    executed=execute(env, one, decision.plan.actions[e], environment.spec.actions),
                    goal=None if goal is None else {name: x[e] for name, x in goal.items()},
                    energy=float(decision.plan.energy[e]),
                    first=float(decision.proposal_energy[e]),
                    energies=energies[some].double().tolist(),
                )
            )
    finally:
        if sight.env is None:
            env.close()
    return out


def first(env: gym.Env, seed: int) -> tuple[dict[str, NDArray], dict[str, Any]]:
    """The first observation of an episode, and the info."""
    observation, info = env.reset(seed=seed)
    return copied(observation), info


def stacked(observations: Sequence[Mapping[str, NDArray]]) -> dict[str, NDArray]:
    """Observations as a batch of them."""
    return {name: np.stack([one[name] for one in observations]) for name in observations[0]}


def execute(env: gym.Env, seed: int, plan: Tensor, actions: Actions) -> dict[str, NDArray]:
    """What is observed at the ends of blocks while a plan (H, K, A) is executed from a reset on, until the end."""
    block, seen = plan.shape[1], [first(env, seed)[0]]
    for k, action in enumerate(plan.flatten(0, 1).cpu().numpy(), 1):
        observation, _, terminated, truncated, _ = env.step(actions.to_env(action[None])[0])
        over = terminated or truncated
        if over or k % block == 0:
            seen.append(copied(observation))
        if over:
            break
    return stacked(seen)


def as_numbers(agent: Agent, environment: Environment, sight: Sight, plan: EpisodePlan, names: Sequence[str]) -> Any:
    """A plan as plain data: energies, and some readings as `figures.sensor_plans` takes them."""
    out: dict[str, Any] = {
        "seed": plan.seed,
        "energy": plan.energy,
        "first_proposal": plan.first,
        "rejected": plan.energies,
    }
    if not names:
        return out
    which = [sight.names.index(name) for name in names]
    goal: dict[str, float] = {}
    if plan.goal is not None and "sensors" in plan.goal:
        every = environment.spec.observation.sensor_names
        goal = {every[i]: float(plan.goal["sensors"][i]) for i in environment.spec.observation.goal_proprio}
    return {
        **out,
        "chosen": rounded(sight.readings(agent, plan.chosen)[:, which]),
        "executed": rounded(plan.executed["sensors"][:, which]),
        "candidates": rounded(sight.readings(agent, plan.candidates)[..., which]),
        "goal": {name: value for name, value in goal.items() if name in names},
    }


def wanted_names(agent: Agent, environment: Environment) -> list[str]:
    """The sensors that matter for what is wanted: those of the goal, then those that the cost of a task reads."""
    seen = environment.spec.observation
    names = [seen.sensor_names[i] for i in seen.goal_proprio]
    for drive in agent.cost.drives.values():
        if not isinstance(drive, IntrinsicDrive) or not hasattr(drive.measure, "__wrapped__"):
            continue  # not the cost of a task
        proprio = torch.zeros(1, 1, len(seen.proprio_names))
        noted = _Noted(Imagined(State(torch.zeros(1, 1, 1), proprio), None), drive.body)
        try:
            drive.measure.__wrapped__(noted)  # pyright: ignore[reportFunctionMemberAccess]
        except Exception:  # a cost of the user's own that wants more than zeros: nothing is lost but an order
            continue
        names += noted.names
    return list(dict.fromkeys(names))


class _Noted(Readings):
    """Readings that note which of them are asked for."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.names: list[str] = []

    def __getitem__(self, name: str) -> Tensor:
        self.names.append(name)
        return super().__getitem__(name)
