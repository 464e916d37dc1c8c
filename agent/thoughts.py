"""Thoughts of whole episodes, kept in the run folder for people to look at: what `report` shows in its player.

A recording is plain JSON (see `Recorder.recording`); pictures in it are PNG sheets in base64, one frame beside the
other. Positions are in pixels of the map, columns first; where a state is imagined, a linear probe reads its position.

Shapes: E episodes, H imagined steps, K primitive actions a step, A action, P plans kept of a decision.
"""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from agent.agent import Agent
from agent.drawing import Picture, to_rgb
from agent.gauges import features, read
from agent.imagine import spread
from agent.metrics import encode_png
from envs import Simulator
from envs.simulator import Array, Tasks
from envs.world import as_observation
from modules.types import State, Thought

ALTERNATIVES, RECALLED = 8, 3
SHEET = 16  # frames in a row of a sheet of an episode
VERSION = 1


class Recorder:
    """Keeps the Thoughts of the first episodes of an evaluation, each until its goal is reached."""

    def __init__(self, agent: Agent, simulator: Simulator, tasks: Tasks, probe: Tensor) -> None:
        """tasks: those to keep. probe: (D + I + 1, 2) linear, from states to positions."""
        self.agent, self.simulator, self.tasks, self.probe = agent, simulator, tasks, probe
        self.past = _past(agent)
        self.solved = np.zeros(len(tasks), bool)
        self.episodes = [_episode(agent, simulator, tasks, e) for e in range(len(tasks))]
        self.frames: list[list[Picture]] = [[] for _ in self.episodes]

    @torch.no_grad()
    def __call__(self, states: Array, thought: Thought) -> None:
        """One decision, in the states of all episodes that act together, those that are kept first."""
        count = len(self.tasks)
        states = states[:count]
        kept = _plans(self.agent, self.simulator, thought, self.probe, count)
        recalled = _recalled(self.past, self.simulator, thought.state[:count], self.probe)
        where = self.simulator.to_map(self.simulator.positions(states))
        percepts = as_observation(self.simulator.observe(states))
        begun = bool(self.episodes[0]["moments"])
        for e in np.flatnonzero(~self.solved):
            episode = self.episodes[e]
            if kept is not None:
                episode["plans"].append({"moment": len(episode["moments"]), **kept[e]})
            plan = len(episode["plans"]) - 1
            episode["moments"].append(_moment(thought, int(e), where[e], plan, recalled[e]))
            if self.agent.perception.senses.pixel_shape:
                self.frames[e].append(_frame(percepts, int(e)))
        if begun:
            self.solved |= self.simulator.success(states, self.tasks.goal)

    def recording(self, steps: list[int]) -> dict[str, Any]:
        """All of it, as plain data. steps: primitive actions to each goal, -1 where it was not reached.

        Returns:
            {"version", "block", "episodes": [{"task", "steps", "goal", "reach", "map", "frames", "frame_size",
            "moments": [...], "plans": [...]}]}. The first of a plan's "paths" is the chosen one, the others are
            candidates of the search's last round from cheap to dear.
        """
        for e, episode in enumerate(self.episodes):
            episode["steps"] = int(steps[e])
            if self.frames[e]:
                episode["frames"] = _png(sheet(self.frames[e]))
        return {"version": VERSION, "block": self.agent.world_model.block, "episodes": self.episodes}


def _episode(agent: Agent, simulator: Simulator, tasks: Tasks, e: int) -> dict[str, Any]:
    at = simulator.positions(tasks.goal[e : e + 1])
    goal, rim = simulator.to_map(np.concatenate([at, at + np.array([simulator.success_radius, 0.0])]))
    shape = agent.perception.senses.pixel_shape
    return {
        "task": e,
        "goal": _numbers(goal),
        "reach": round(float(np.linalg.norm(rim - goal)), 2),
        "map": _png(simulator.draw_map(tasks.start[e])),
        "frames": None,
        "frame_size": [shape[2], shape[1]] if shape else None,
        "moments": [],
        "plans": [],
    }


def _moment(thought: Thought, e: int, at: Array, plan: int, recalled: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "at": _numbers(at),
        "mode": thought.mode,
        "replanned": thought.replanned,
        "plan": plan if thought.mode == 2 else None,
        "milliseconds": round(thought.milliseconds, 2),
        "surprise": None if thought.surprise is None else _short(thought.surprise[e]),
        "drives": {k: _short(v[e, 0]) for k, v in thought.cost.drives.items()},
        "critic": _short(thought.cost.critic[e, 0]),
        "recalled": recalled,
    }


def _past(agent: Agent) -> State | None:
    """What memory holds of before, as a copy: acting overwrites the oldest."""
    if not agent.memory.size:
        return None
    held = agent.memory.records()
    return held.state[~held.imagined].map(Tensor.clone)


def _recalled(past: State | None, simulator: Simulator, state: State, probe: Tensor) -> list[dict[str, Any] | None]:
    """The remembered states that are most like each state (E, ...): how unlike (root mean square), and where."""
    if past is None:
        return [None] * len(state.latent)
    found = torch.cdist(state.latent, past.latent).topk(min(RECALLED, len(past.latent)), largest=False)
    at = read(probe, features(past[found.indices])).double().cpu().numpy()
    unlike = found.values / state.latent.shape[-1] ** 0.5
    return [
        {"unlike": [_short(x) for x in unlike[e]], "at": [_numbers(p) for p in simulator.to_map(at[e])]}
        for e in range(len(at))
    ]


def _plans(
    agent: Agent, simulator: Simulator, thought: Thought, probe: Tensor, count: int
) -> list[dict[str, Any]] | None:
    """For each episode the chosen plan and some that lost: imagined, judged, painted. None when nothing was planned.

    All E episodes are imagined, as an oracle knows only of all of them; the first `count` are kept.
    """
    if not thought.replanned or thought.plan is None or thought.candidates is None or thought.proposal_energy is None:
        return None
    chosen, candidates = thought.plan, thought.candidates
    picked = [spread(candidates.energy[e], float(chosen.energy[e]), ALTERNATIVES) for e in range(len(chosen.energy))]
    most = max(len(p) for p in picked)
    index = torch.stack([torch.cat([p, p.new_zeros(most - len(p))]) for p in picked])
    rows = torch.arange(len(picked), device=index.device)[:, None]
    actions = torch.cat([chosen.actions[:, None], candidates.actions[rows, index]], 1)  # E P H K A
    imagined = agent.imagine(thought.state, actions)
    cost = agent.judge.path(imagined, actions, thought.directive)
    here = thought.state.map(lambda x: x[:, None, None].expand(-1, actions.shape[1], 1, -1))
    at = read(probe, features(State.cat([here, imagined], 2))).double().cpu().numpy()
    painted = agent.decoder.picture(imagined[:count].map(lambda x: x.flatten(0, 2))).pixels
    pictures = None if painted is None else to_rgb(painted.cpu().unflatten(0, (count, *actions.shape[1:3])))
    out = []
    for e, some in enumerate(picked[:count]):
        plans = range(1 + len(some))
        out.append(
            {
                "planner": thought.directive.planner,
                "samples": thought.directive.samples,
                "iterations": thought.directive.iterations,
                "proposal_energy": _short(thought.proposal_energy[e]),
                "paths": [
                    {
                        "energy": _short(cost.energy[e, p]),
                        "at": [_numbers(x) for x in simulator.to_map(at[e, p])],
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


def check(recording: Any) -> None:
    """ValueError, KeyError or the like for anything that a Recorder did not return, or returned in another version."""
    json.dumps(recording, allow_nan=False)  # what a browser cannot read is an error here
    if recording["version"] != VERSION:
        raise ValueError(f"version {recording['version']}, this program reads {VERSION}")
    if not int(recording["block"]) > 0:
        raise ValueError("block must be 1 or more")
    if not recording["episodes"]:
        raise ValueError("no episodes")
    for episode in recording["episodes"]:
        if not episode["moments"]:
            raise ValueError("an episode without moments")
        _pair(episode["goal"])
        _sheets(episode["map"], episode["frames"])
        _numeric(episode["reach"], episode["task"], episode["steps"])
        if episode["frames"] is not None or any(plan["frames"] is not None for plan in episode["plans"]):
            _pair(episode["frame_size"])
        for plan in episode["plans"]:
            _check_plan(plan)
        for moment in episode["moments"]:
            _pair(moment["at"])
            _numeric(moment["mode"], moment["milliseconds"], moment["critic"], moment["surprise"] or 0)
            _numeric(*moment["drives"].values())
            if moment["plan"] is not None and moment["plan"] not in range(len(episode["plans"])):
                raise ValueError(f"there is no plan {moment['plan']}")
            recalled = moment["recalled"] or {"at": [], "unlike": []}
            _numeric(*recalled["unlike"])
            for place in recalled["at"]:
                _pair(place)


def _check_plan(plan: Any) -> None:
    _numeric(plan["moment"], plan["proposal_energy"], plan["samples"], plan["iterations"])
    if not isinstance(plan["planner"], str):
        raise ValueError("a plan without the name of its planner")
    _sheets(plan["frames"])
    steps = len(plan["paths"][0]["critic"])
    for path in plan["paths"]:
        _numeric(path["energy"])
        for place in path["at"]:
            _pair(place)
        for values in (path["critic"], *path["drives"].values()):
            _numeric(*values)
            if len(values) != steps:
                raise ValueError("costs of another length than the plan")
        if len(path["at"]) != steps + 1:
            raise ValueError("places of another length than the plan")


def _pair(place: Any) -> None:
    _numeric(*place)
    if len(place) != 2:
        raise ValueError(f"{place!r} is no place")


def _numeric(*values: Any) -> None:
    for value in values:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError(f"{value!r} is no number")


def _sheets(*sheets: Any) -> None:
    for one in sheets:
        if one is not None:
            with Image.open(io.BytesIO(base64.b64decode(one, validate=True)), formats=("PNG",)) as picture:
                picture.verify()


def sheet(frames: list[Picture]) -> Picture:
    """Frames (h, w, 3) beside each other, SHEET in a row; the rest of the last row is white."""
    blank = np.full_like(frames[0], 255)
    columns = min(SHEET, len(frames))
    padded = frames + [blank] * (-len(frames) % columns)
    return np.vstack([np.hstack(padded[i : i + columns]) for i in range(0, len(padded), columns)])


def _frame(percepts: Any, e: int) -> Picture:
    pixels = percepts["pixels"] if isinstance(percepts, dict) else percepts
    return to_rgb(torch.from_numpy(np.ascontiguousarray(pixels[e])))


def _png(picture: Picture) -> str:
    return base64.b64encode(encode_png(picture)).decode()


def _numbers(x: Array) -> list[float]:
    return [round(float(v), 2) for v in x]


def _short(x: Tensor) -> float:
    return float(f"{float(x):.5g}")
