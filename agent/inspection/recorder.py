"""Decisions of whole episodes, recorded for people: what `report` shows in its player.

A recording is plain JSON (see `Recorder.recording`); pictures in it are PNG sheets in base64, one frame beside the
other. Positions are in pixels of the map, columns first; where a state is imagined, a linear probe reads its position.

Shapes: E episodes, H imagined steps, K primitive actions a step, A action, P plans kept of a decision.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agent.agent import Agent
from agent.drawing.colours import Picture
from agent.drawing.frames import to_rgb
from agent.drawing.media import encode_png
from agent.evaluation.evaluate import capable
from agent.inspection.plans import spread
from agent.inspection.probes import features, read
from agent.interaction.driver import Listener, Transition
from agent.interaction.environment import Environment
from agent.planning import imagine
from agent.storage.recording import VERSION
from envs.api import Array, Tasks, View
from envs.gym_env import as_observation
from modules.types import Decision, State

ALTERNATIVES, RECALLED = 8, 3
SHEET = 16  # frames in a row of a sheet of an episode


class Recorder:
    """Keeps the decisions of the first episodes of an evaluation, each until its goal is reached."""

    def __init__(self, environment: Environment, tasks: Tasks, probe: Tensor) -> None:
        """tasks: those to keep. probe: (D + I + 1, 2) linear, from states to positions."""
        assert environment.view is not None
        self.environment, self.tasks, self.probe, self.view = environment, tasks, probe, environment.view
        self.solved = np.zeros(len(tasks), bool)
        self.episodes: list[dict[str, Any]] = []
        self.frames: list[list[Picture]] = [[] for _ in range(len(tasks))]

    def attach(self, agent: Agent) -> Listener:
        """The listener that records what this agent decides."""
        self.agent, self.past = agent, _past(agent)
        self.episodes = [self._episode(e) for e in range(len(self.tasks))]
        return self.add

    @torch.no_grad()
    def add(self, step: Transition) -> None:
        """One step of all episodes that act together, those that are kept first."""
        decision, count = step.decision, len(self.tasks)
        assert isinstance(decision, Decision)
        states = step.moment.info["state"][:count]
        kept = _plans(self.agent, self.view, decision, self.probe, count)
        recalled = _recalled(self.past, self.view, decision.state[:count], self.probe)
        where = self.view.to_map(self.view.positions(states))
        begun = bool(self.episodes[0]["moments"])
        for e in np.flatnonzero(~self.solved):
            episode = self.episodes[e]
            if kept is not None:
                episode["plans"].append({"moment": len(episode["moments"]), **kept[e]})
            plan = len(episode["plans"]) - 1
            episode["moments"].append(_moment(decision, int(e), where[e], plan, recalled[e]))
            if self.agent.spec.observation.pixel_shape:
                self.frames[e].append(_frame(step.moment.observation, int(e)))
        if begun:
            self.solved |= step.moment.info["success"][:count]

    def recording(self, steps: list[int]) -> dict[str, Any]:
        """All of it, as plain data. steps: primitive actions to each goal, -1 where it was not reached.

        Returns:
            {"version", "block", "episodes": [{"task", "steps", "goal", "reach", "map", "frames", "frame_size",
            "goal_frame", "moments": [...], "plans": [...]}]}. The first of a plan's "paths" is the chosen one, the
            others are candidates of the search's last round from low to high energy.
        """
        for e, episode in enumerate(self.episodes):
            episode["steps"] = int(steps[e])
            if self.frames[e]:
                episode["frames"] = _png(sheet(self.frames[e]))
        return {"version": VERSION, "block": self.agent.world_model.action_block, "episodes": self.episodes}

    def _episode(self, e: int) -> dict[str, Any]:
        simulator, goals = capable(self.environment)
        at = self.view.positions(self.tasks.goal[e : e + 1])
        goal, rim = self.view.to_map(np.concatenate([at, at + np.array([goals.success_radius, 0.0])]))
        shape = self.agent.spec.observation.pixel_shape
        picture = None
        if shape:
            picture = _png(_frame(as_observation(simulator.observe(self.tasks.goal[e : e + 1])), 0))
        return {
            "task": e,
            "goal": _numbers(goal),
            "reach": round(float(np.linalg.norm(rim - goal)), 2),
            "map": _png(self.view.render_map(self.tasks.start[e])),
            "frames": None,
            "frame_size": [shape[2], shape[1]] if shape else None,
            "goal_frame": picture,
            "moments": [],
            "plans": [],
        }


def _moment(decision: Decision, e: int, at: Array, plan: int, recalled: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "at": _numbers(at),
        "mode": decision.mode,
        "replanned": decision.replanned,
        "plan": plan if decision.mode == 2 else None,
        "milliseconds": round(decision.milliseconds, 2),
        "surprise": _finite(decision.surprise, e),
        "drives": {k: _short(v[e, 0]) for k, v in decision.cost.drives.items()},
        "critic": _short(decision.cost.critic[e, 0]),
        "recalled": recalled,
    }


def _past(agent: Agent) -> State | None:
    """What memory holds of before, as a copy: acting overwrites the oldest."""
    if not agent.memory.size:
        return None
    held = agent.memory.records()
    return held.state[~held.imagined].map(Tensor.clone)


def _recalled(past: State | None, view: View, state: State, probe: Tensor) -> list[dict[str, Any] | None]:
    """The remembered states that are most like each state (E, ...): how unlike (root mean square), and where."""
    if past is None:
        return [None] * len(state.latent)
    found = torch.cdist(state.latent, past.latent).topk(min(RECALLED, len(past.latent)), largest=False)
    at = read(probe, features(past[found.indices])).double().cpu().numpy()
    unlike = found.values / state.latent.shape[-1] ** 0.5
    return [
        {"unlike": [_short(x) for x in unlike[e]], "at": [_numbers(p) for p in view.to_map(at[e])]}
        for e in range(len(at))
    ]


def _plans(agent: Agent, view: View, decision: Decision, probe: Tensor, count: int) -> list[dict[str, Any]] | None:
    """For each episode the chosen plan and some that lost: imagined, judged, painted. None when nothing was planned.

    All E episodes are imagined, as an oracle knows only of all of them; the first `count` are kept.
    """
    if (
        not decision.replanned
        or decision.plan is None
        or decision.candidates is None
        or decision.proposal_energy is None
    ):
        return None
    chosen, candidates = decision.plan, decision.candidates
    assert decision.rows is not None and len(decision.rows) == len(chosen.energy), "all episodes plan at once"
    picked = [spread(candidates.energy[e], float(chosen.energy[e]), ALTERNATIVES) for e in range(len(chosen.energy))]
    most = max(len(p) for p in picked)
    index = torch.stack([torch.cat([p, p.new_zeros(most - len(p))]) for p in picked])
    rows = torch.arange(len(picked), device=index.device)[:, None]
    actions = torch.cat([chosen.actions[:, None], candidates.actions[rows, index]], 1)  # E P H K A
    imagined = imagine(agent.level.world_model, decision.state, actions)
    cost = agent.level.cost.trajectory(imagined, decision.directive)
    here = decision.state.map(lambda x: x[:, None, None].expand(-1, actions.shape[1], 1, -1))
    at = read(probe, features(State.cat([here, imagined.states], 2))).double().cpu().numpy()
    painted = agent.decoder.picture(imagined.states[:count].map(lambda x: x.flatten(0, 2))).pixels
    pictures = None if painted is None else to_rgb(painted.cpu().unflatten(0, (count, *actions.shape[1:3])).numpy())
    out = []
    for e, some in enumerate(picked[:count]):
        plans = range(1 + len(some))
        out.append(
            {
                "planner": decision.directive.planner,
                "samples": decision.directive.samples,
                "iterations": decision.directive.iterations,
                "proposal_energy": _short(decision.proposal_energy[e]),
                "paths": [
                    {
                        "energy": _short(cost.energy[e, p]),
                        "at": [_numbers(x) for x in view.to_map(at[e, p])],
                        "drives": {k: [_short(x) for x in v[e, p]] for k, v in cost.drives.items()},
                        "critic": [_short(x) for x in cost.critic[e, p]],
                    }
                    for p in plans
                ],
                "frames": None
                if pictures is None
                else _png(np.concatenate([np.hstack(pictures[e, p]) for p in plans])),
            }
        )
    return out


def sheet(frames: list[Picture]) -> Picture:
    """Frames (h, w, 3) beside each other, SHEET in a row; the rest of the last row is white."""
    blank = np.full_like(frames[0], 255)
    columns = min(SHEET, len(frames))
    padded = frames + [blank] * (-len(frames) % columns)
    return np.vstack([np.hstack(padded[i : i + columns]) for i in range(0, len(padded), columns)])


def _frame(percepts: Any, e: int) -> Picture:
    pixels = percepts["pixels"] if isinstance(percepts, dict) else percepts
    return to_rgb(np.asarray(pixels[e]))


def _png(picture: Picture) -> str:
    return base64.b64encode(encode_png(picture)).decode()


def _numbers(x: Array) -> list[float]:
    return [round(float(v), 2) for v in x]


def _finite(surprise: Tensor | None, e: int) -> float | None:
    """The surprise of one episode, where a block of its actions ended."""
    return None if surprise is None or not bool(surprise[e].isfinite()) else _short(surprise[e])


def _short(x: Tensor) -> float:
    return float(f"{float(x):.5g}")
