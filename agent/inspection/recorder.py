"""Decisions of whole episodes, recorded for people: what `report` shows in its player.

A recording is plain JSON (see `Recorder.recording`); pictures in it are PNG sheets in base64, one frame beside the
other. Positions are in pixels of the map, columns first; where a state is imagined, a linear probe reads its position.

Shapes: E episodes, R of them that plan now, H imagined steps, K primitive actions a step, A action, P plans kept of a
decision.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
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
from agent.storage.recording import SHEET, VERSION
from envs.api import Array, Tasks, View
from envs.gym_env import as_observation
from modules.types import Decision, Imagined, State, TrajectoryCost

ALTERNATIVES, RECALLED = 8, 3


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
        self.agent, self.past = agent, past_of(agent)
        self.episodes = [self._episode(e) for e in range(len(self.tasks))]
        return self.add

    @torch.no_grad()
    def add(self, step: Transition) -> None:
        """One step of all episodes that act together, those that are kept first."""
        decision, count = step.decision, len(self.tasks)
        assert isinstance(decision, Decision)
        states = step.moment.info["state"][:count]
        plans = _plans(self.agent, self.view, decision, self.probe, count)
        memories = _recalled(self.past, self.view, decision.state[:count], self.probe)
        where = self.view.to_map(self.view.positions(states))
        begun = bool(self.episodes[0]["moments"])
        for e in np.flatnonzero(~self.solved):
            episode = self.episodes[e]
            if plans is not None:
                episode["plans"].append({"moment": len(episode["moments"]), **plans[e]})
            plan = len(episode["plans"]) - 1
            placed = {"at": numbers(where[e]), "recalled": memories[e]}
            episode["moments"].append({**moment(decision, int(e), plan), **placed})
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
                episode["frames"] = png(sheet(self.frames[e]))
        return {"version": VERSION, "block": self.agent.world_model.action_block, "episodes": self.episodes}

    def _episode(self, e: int) -> dict[str, Any]:
        simulator, goals = capable(self.environment)
        at = self.view.positions(self.tasks.goal[e : e + 1])
        goal, rim = self.view.to_map(np.concatenate([at, at + np.array([goals.success_radius, 0.0])]))
        shape = self.agent.spec.observation.pixel_shape
        picture = None
        if shape:
            picture = png(_frame(as_observation(simulator.observe(self.tasks.goal[e : e + 1])), 0))
        return {
            "task": e,
            "goal": numbers(goal),
            "reach": round(float(np.linalg.norm(rim - goal)), 2),
            "map": png(self.view.render_map(self.tasks.start[e])),
            "frames": None,
            "frame_size": [shape[2], shape[1]] if shape else None,
            "goal_frame": picture,
            "moments": [],
            "plans": [],
        }


def _recalled(past: State | None, view: View, state: State, probe: Tensor) -> list[dict[str, Any] | None]:
    """The remembered states that are most like each state (E, ...): how unlike, and where."""
    found = recalled(past, state)
    if past is None or found is None:
        return [None] * len(state.latent)
    unlike, index = found
    at = read(probe, features(past[index])).double().cpu().numpy()
    return [
        {"unlike": [short(x) for x in unlike[e]], "at": [numbers(p) for p in view.to_map(at[e])]}
        for e in range(len(at))
    ]


def _plans(agent: Agent, view: View, decision: Decision, probe: Tensor, count: int) -> list[dict[str, Any]] | None:
    """For each episode the chosen plan and some that lost: imagined, judged, painted. None when nothing was planned.

    All E episodes are imagined, as an oracle knows only of all of them; the first `count` are kept.
    """
    if not decision.replanned or decision.rows is None or decision.plan is None:
        return None
    assert len(decision.rows) == len(decision.plan.energy), "all episodes plan at once"
    found = futures(agent, decision, list(range(len(decision.rows))), ALTERNATIVES)
    imagined = found.imagined
    here = decision.state.map(lambda x: x[:, None, None].expand(-1, found.most, 1, -1))
    at = read(probe, features(State.cat([here, imagined.states], 2))).double().cpu().numpy()
    painted = agent.decoder.picture(imagined.states[:count].map(lambda x: x.flatten(0, 2))).pixels
    shape = (count, *imagined.states.batch_shape[1:])
    pictures = None if painted is None else to_rgb(painted.cpu().unflatten(0, shape).numpy())
    out = []
    for e, paths in enumerate(found.counts[:count]):
        kept = found.plan(decision, e)
        for p, path in enumerate(kept["paths"]):
            path["at"] = [numbers(x) for x in view.to_map(at[e, p])]
        shown = None if pictures is None else png(np.concatenate([np.hstack(pictures[e, p]) for p in range(paths)]))
        out.append({**kept, "frames": shown})
    return out


# What recorders of all environments keep


@dataclass(frozen=True)
class Futures:
    """Of R episodes that plan now: the chosen plan and candidates that lost, P paths, imagined and judged."""

    rows: list[int]
    """(R,) which of the episodes that planned they are."""
    imagined: Imagined
    """(R, P, H, ...) the chosen plan first, then candidates of the search's last round from low to high energy."""
    cost: TrajectoryCost
    """(R, P, H) by term, (R, P) in all."""
    counts: list[int]
    """(R,) how many of the P paths each has; what follows repeats one of them."""

    @property
    def most(self) -> int:
        """P."""
        return self.cost.energy.shape[1]

    def plan(self, decision: Decision, r: int) -> dict[str, Any]:
        """Row r as plain data, without what only some environments have."""
        assert decision.proposal_energy is not None
        return {
            "planner": decision.directive.planner,
            "samples": decision.directive.samples,
            "iterations": decision.directive.iterations,
            "proposal_energy": short(decision.proposal_energy[self.rows[r]]),
            "paths": [
                {
                    "energy": short(self.cost.energy[r, p]),
                    "drives": {k: [short(x) for x in v[r, p]] for k, v in self.cost.drives.items()},
                    "critic": [short(x) for x in self.cost.critic[r, p]],
                }
                for p in range(self.counts[r])
            ],
        }


def futures(agent: Agent, decision: Decision, rows: list[int], alternatives: int) -> Futures:
    """What some of the episodes that plan now chose, and at most so many alternatives that lost.

    Args:
        agent: that decided.
        decision: with a plan.
        rows: (R,) which of `decision.rows`.
        alternatives: candidates of each, evenly over the ranks of their energies.
    """
    assert decision.rows is not None and decision.plan is not None and decision.candidates is not None
    which = decision.rows[rows]
    chosen, energy, state = decision.plan.actions[which], decision.plan.energy[which], decision.state[which]
    goal = decision.directive.goal
    directive = decision.directive.but(goal=None if goal is None else goal[which])
    candidates, energies = decision.candidates.actions[rows], decision.candidates.energy[rows]
    picked = [spread(energies[r], float(energy[r]), alternatives) for r in range(len(rows))]
    most = max(len(p) for p in picked)
    index = torch.stack([torch.cat([p, p.new_zeros(most - len(p))]) for p in picked])
    each = torch.arange(len(picked), device=index.device)[:, None]
    actions = torch.cat([chosen[:, None], candidates[each, index]], 1)  # R P H K A
    read = getattr(agent.level.world_model, "read", None)
    context = None if read is None else read(agent.memory, state)
    imagined = imagine(agent.level.world_model, state, actions, None, context)
    cost = agent.level.cost.trajectory(imagined, directive)
    return Futures(rows, imagined, cost, [1 + len(p) for p in picked])


def past_of(agent: Agent) -> State | None:
    """What memory holds of before, as a copy: acting overwrites the oldest."""
    if not agent.memory.size:
        return None
    held = agent.memory.records()
    return held.state[~held.imagined].map(Tensor.clone)


def recalled(past: State | None, state: State) -> tuple[Tensor, Tensor] | None:
    """The remembered states most like each state (E, ...): how unlike (root mean square), and which, (E, RECALLED)."""
    if past is None:
        return None
    found = torch.cdist(state.latent, past.latent).topk(min(RECALLED, len(past.latent)), largest=False)
    return found.values / state.latent.shape[-1] ** 0.5, found.indices


def moment(decision: Decision, e: int, plan: int) -> dict[str, Any]:
    """What is kept of one decision in episode e, in every environment. plan: that is under way in Mode-2."""
    return {
        "mode": decision.mode,
        "replanned": decision.replanned,
        "plan": plan if decision.mode == 2 else None,
        "milliseconds": round(decision.milliseconds, 2),
        "surprise": _finite(decision.surprise, e),
        "drives": {k: short(v[e, 0]) for k, v in decision.cost.drives.items()},
        "critic": short(decision.cost.critic[e, 0]),
    }


def sheet(frames: list[Picture]) -> Picture:
    """Frames (h, w, 3) beside each other, SHEET in a row; the rest of the last row is white."""
    blank = np.full_like(frames[0], 255)
    columns = min(SHEET, len(frames))
    padded = frames + [blank] * (-len(frames) % columns)
    return np.vstack([np.hstack(padded[i : i + columns]) for i in range(0, len(padded), columns)])


def _frame(percepts: Any, e: int) -> Picture:
    pixels = percepts["pixels"] if isinstance(percepts, dict) else percepts
    return to_rgb(np.asarray(pixels[e]))


def png(picture: Picture) -> str:
    """A picture in base64."""
    return base64.b64encode(encode_png(picture)).decode()


def numbers(x: Array) -> list[float]:
    """A position, to hundredths of a pixel."""
    return [round(float(v), 2) for v in x]


def _finite(surprise: Tensor | None, e: int) -> float | None:
    """The surprise of one episode, where a block of its actions ended."""
    return None if surprise is None or not bool(surprise[e].isfinite()) else short(surprise[e])


def short(x: Tensor) -> float:
    """A number with five digits."""
    return float(f"{float(x):.5g}")
