"""Decisions of whole episodes of any Gymnasium environment, recorded for people: what `report` shows in its player.

There is no map. What was perceived and imagined is shown as pixels, as the body in the pose of its readings, or as
curves of readings alone (`sight.Sight`). A page has to stay small, so long episodes are kept in part, see the constants
below; what is kept is that of the evaluation itself, and recording changes nothing of it.

Shapes: E episodes, R of them that plan now, P plans kept of a decision, H imagined steps, S sensors.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from agent.agent import Agent
from agent.console import Progress
from agent.drawing.colours import Picture
from agent.evaluation.episodes import EpisodeScore, goal_percepts
from agent.inspection.recorder import Futures, futures, moment, past_of, recalled, sheet, short
from agent.inspection.sight import Sight
from agent.interaction.driver import Listener, Transition
from agent.interaction.environment import Environment
from agent.spec import named
from agent.storage.recording import RELEVANT, VERSION
from envs.opengl import draft
from modules.cost import REWARD
from modules.types import Decision, State

MOMENTS = 300
"""Decisions kept of an episode, from its start."""
DETAILED = 100
"""Decisions of an episode whose plans are kept with candidates that lost; later ones are the chosen plan alone."""
ALTERNATIVES = 3
"""Such candidates of a plan."""
PAINTED, ROWS, COLUMNS = 2, 3, 4
"""Imagined frames: episodes that have them, paths of a plan (the chosen one and candidates), steps of a path."""
SENSORS = 64
"""Sensors whose readings are kept."""
SIDE = 96
"""Longest side of a picture of a body."""
COLOURS = 32
"""Of a sheet of frames, where there are more."""
EVERY = 10
"""Decisions between those at which the drives are asked which readings they depend on."""


def sight_of(environment: Environment) -> Sight:
    """How the environment is shown in a recording: small pictures, which a page has room for."""
    one = environment.one
    if one is None:
        return Sight(environment)
    return Sight(replace(environment, one=lambda **options: draft(one(**options), 2 * SIDE)))


class EpisodeRecorder:
    """Keeps the decisions of the first episodes of an evaluation, each until it ends."""

    def __init__(
        self, environment: Environment, sight: Sight, count: int, seeds: Sequence[int] = (), decoded: bool = True
    ) -> None:
        """
        Args:
            environment: of Gymnasium.
            sight: of it; pictures of bodies are drawn with it at the end, by `recording`.
            count: episodes to keep, those of the first batch at most.
            seeds: of their resets.
            decoded: whether a decoder of pixels has learned.
        """
        self.environment, self.sight, self.seeds, self.decoded = environment, sight, seeds, decoded
        self.episodes: list[dict[str, Any]] = [{"moments": [], "plans": []} for _ in range(count)]
        self.names = sight.names
        self.readings: list[list[NDArray[np.float32]]] = [[] for _ in range(count)]
        """(S,) of each moment."""
        self.futures: list[list[NDArray[np.float32]]] = [[] for _ in range(count)]
        """(P, H, S) of each plan."""
        self.frames: list[list[Picture]] = [[] for _ in range(count)]
        self.felt = np.zeros(len(self.names))
        """(S,) how much the drives depend on each reading, summed over what was asked."""
        self.goal: dict[str, NDArray[Any]] | None = None
        self.score: EpisodeScore | None = None
        self.taken = 0
        self.rewarded = False

    def attach(self, agent: Agent) -> Listener:
        """The listener that records what this agent decides."""
        self.agent, self.past = agent, past_of(agent)
        self.environment = replace(self.environment, spec=agent.spec)  # with the scales that were fitted
        return self.add

    @torch.no_grad()
    def add(self, step: Transition) -> None:
        """One step of all episodes that act together, those that are kept first."""
        decision = step.decision
        assert isinstance(decision, Decision)
        if self.score is None:
            self.goal = goal_percepts(step.moment, self.environment)
            goal = None if self.goal is None else self.goal.get("sensors")
            self.score = EpisodeScore(len(step.real), self.environment, goal)
        here = [e for e in range(len(self.episodes)) if not self.score.done[e] and step.real[e]]
        self.score.add(step)
        if here and self.taken < MOMENTS:
            self._keep(step, decision, here)
            self.taken += 1

    def _keep(self, step: Transition, decision: Decision, here: list[int]) -> None:
        """This decision in the episodes that go on."""
        seen = named(step.moment.observation)
        sent = self.agent.spec.actions.to_env(decision.action.cpu().numpy())
        memories = recalled(self.past, decision.state)
        if decision.rows is not None:
            if self.taken % EVERY == 0:
                self._feel(decision)
            self._plan(decision, here)
        for e in here:
            episode = self.episodes[e]
            unlike = None if memories is None else [short(x) for x in memories[0][e]]
            episode["moments"].append(
                {
                    "at": None,
                    **moment(decision, e, len(episode["plans"]) - 1),
                    "recalled": None if unlike is None else {"unlike": unlike, "at": None},
                    "action": [_round(x) for x in np.ravel(sent[e])],
                    "reward": _round(step.reward[e]),
                }
            )
            self.readings[e].append(np.array(seen["sensors"][e][:-1], np.float32))
            if self.sight.kind == "pixels":
                picture = self.sight.perceived({name: x[e] for name, x in seen.items()})
                assert picture is not None
                self.frames[e].append(picture)

    def _plan(self, decision: Decision, here: list[int]) -> None:
        """The plans that begin now in episodes that go on."""
        assert decision.rows is not None
        rows = [r for r, e in enumerate(decision.rows.tolist()) if e in here]
        if not rows:
            return
        detailed = self.taken < DETAILED
        found = futures(self.agent, decision, rows, ALTERNATIVES if detailed else 0)
        imagined = self.sight.readings(self.agent, found.imagined.states)
        weights = decision.directive.critic_weights
        self.rewarded = bool(weights.get(REWARD)) and getattr(self.agent.level.cost, "reward", None) is not None
        for r, row in enumerate(rows):
            e = int(decision.rows[row])
            plan = {"moment": self.taken, **found.plan(decision, r), "frames": None}
            if detailed and e < PAINTED:
                plan |= self._painted(found, r)
            self.episodes[e]["plans"].append(plan)
            self.futures[e].append(imagined[r, : found.counts[r]])

    def _painted(self, found: Futures, r: int) -> dict[str, Any]:
        """Which imagined states of row r have frames, and those that are decoded; bodies are drawn at the end."""
        if self.sight.kind == "curves" or (self.sight.kind == "pixels" and not self.decoded):
            return {}
        horizon, framed = found.cost.critic.shape[-1], min(ROWS, found.counts[r])
        steps = _spaced(horizon)
        out: dict[str, Any] = {"framed": framed, "frame_steps": steps}
        if self.sight.kind == "pixels":
            some = found.imagined.states[r, :framed][:, [step - 1 for step in steps]]
            pictures = self.sight.imagined(self.agent, some.map(lambda x: x.flatten(0, 1)))
            assert pictures is not None
            out["frames"] = palette_png(_grid(pictures, len(steps)))
        return out

    def _feel(self, decision: Decision) -> None:
        """Ask the drives which readings they depend on: their gradient, in units of the sensors' scales."""
        with torch.enable_grad():
            proprio = decision.state.proprio.detach().clone().requires_grad_()
            cost = self.agent.level.cost.state(State(decision.state.latent, proprio), decision.directive)
            total = torch.stack([x.sum() for x in cost.drives.values()]).sum() if cost.drives else proprio.sum() * 0
            gradient = torch.autograd.grad(total, proprio, allow_unused=True)[0] if total.requires_grad else None
        if gradient is not None:
            size = gradient.abs().nan_to_num(0, 0, 0).mean(0).double().cpu().numpy()
            self.felt += size[:-1]

    # What it comes to

    def recording(self, progress: Progress | None = None) -> dict[str, Any]:
        """All of it, as plain data (`agent.storage.recording.Recording`). Draws bodies, so call it before sight closes.

        progress: is told how far the drawing has come.
        """
        kept, relevant = self._chosen()
        drawn = self.sight.kind != "curves"
        if progress is not None and self.sight.kind == "body":
            progress.start("draw", len(self.episodes), unit="episodes")
        episodes = []
        for e in range(len(self.episodes)):
            episodes.append(self._episode(e, kept, relevant))
            if progress is not None and self.sight.kind == "body":
                progress.update(e + 1)
        return {
            "version": VERSION,
            "kind": "frames" if drawn else "curves",
            "posed": self.sight.kind == "body",
            "block": self.agent.world_model.action_block,
            "sensors": [self.names[i] for i in kept],
            "relevant": [kept.index(i) for i in relevant],
            "rewarded": self.rewarded,
            "episodes": episodes,
        }

    def _episode(self, e: int, kept: list[int], relevant: list[int]) -> dict[str, Any]:
        score, episode = self.score, self.episodes[e]
        assert score is not None
        seed = self.seeds[e] if e < len(self.seeds) else None
        if seed is not None:
            self.sight.begin(seed)
        for one, values in zip(episode["moments"], self.readings[e], strict=True):
            one["readings"] = [_round(x) for x in values[kept]]
        for plan, values in zip(episode["plans"], self.futures[e], strict=True):
            for path, rows in zip(plan["paths"], values, strict=True):
                path["readings"] = [[_round(x, 3) if np.isfinite(x) else None for x in row[relevant]] for row in rows]
            if self.sight.kind == "body" and plan.get("framed"):
                some = values[: plan["framed"], [step - 1 for step in plan["frame_steps"]]]
                plan["frames"] = palette_png(
                    _grid([self._posed(x) for x in some.reshape(-1, some.shape[-1])], some.shape[1])
                )
        frames = [self._posed(x) for x in self.readings[e]] if self.sight.kind == "body" else self.frames[e]
        return {
            "task": e,
            "seed": seed,
            "steps": int(score.steps[e]),
            "success": bool(score.success[e]) if score.known[e] else None,
            "episode_return": _round(score.returns[e], 6),
            "length": int(score.lengths[e]),
            "end": _end(score, e),
            "goal": None,
            "reach": None,
            "map": None,
            "frames": palette_png(sheet(frames)) if frames else None,
            "frame_size": [frames[0].shape[1], frames[0].shape[0]] if frames else None,
            "goal_frame": self._goal_frame(e),
            "goal_readings": self._goal_readings(e, kept),
            **episode,
        }

    def _posed(self, readings: NDArray[np.float32]) -> Picture:
        picture = self.sight.posed(np.nan_to_num(readings, posinf=0, neginf=0), SIDE)
        assert picture is not None
        return picture

    def _goal_frame(self, e: int) -> str | None:
        if self.goal is None or "pixels" not in self.goal or self.environment.wanted:
            return None
        picture = self.sight.perceived({name: x[e] for name, x in self.goal.items()})
        return None if picture is None else palette_png(picture)

    def _goal_readings(self, e: int, kept: list[int]) -> dict[str, float] | None:
        """The goal by sensor: where a goal is given in some readings, those alone."""
        if self.goal is None or "sensors" not in self.goal:
            return None
        given = {i for i in self._goal_index() if i in kept}
        return {self.names[i]: _round(self.goal["sensors"][e][i]) for i in sorted(given)} or None

    def _goal_index(self) -> list[int]:
        """The sensors in which goals are given."""
        if self.goal is None:
            return []
        if self.environment.wanted:
            return [self.names.index(name) for name in self.environment.wanted]
        seen = self.environment.spec.observation
        if seen.pixel_shape is not None:
            return []
        return list(seen.goal_proprio) or list(range(len(self.names)))

    def _chosen(self) -> tuple[list[int], list[int]]:
        """Places of the sensors that are kept, in their own order, and of those that are imagined, by importance.

        Important is a reading of the goal, then what the drives depend on, then what changes.
        """
        scale = np.array(self.environment.spec.observation.proprio_scale)[: len(self.names)]
        seen = np.concatenate([np.array(x).reshape(len(x), len(self.names)) for x in self.readings])
        changes = (seen.std(0) if len(seen) else np.zeros(len(self.names))) / scale
        wanted = np.isin(np.arange(len(self.names)), self._goal_index())
        felt = np.where(self.felt > 1e-3 * self.felt.max(initial=0), self.felt, 0)
        order = np.lexsort((-changes, -felt, ~wanted)).tolist()
        return sorted(order[:SENSORS]), order[:RELEVANT]


def palette_png(picture: Picture) -> str:
    """A picture in base64, in at most COLOURS colours if it has more than 256: a quarter of the size."""
    image = Image.fromarray(picture)
    few = image.getcolors(256)
    colours = image.quantize(len(few) if few else COLOURS, dither=Image.Dither.NONE)
    file = io.BytesIO()
    colours.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def _spaced(horizon: int) -> list[int]:
    """At most COLUMNS of the steps 1 to horizon, evenly, first and last included."""
    return sorted({int(x) for x in np.linspace(1, horizon, min(COLUMNS, horizon)).round()})


def _grid(pictures: list[Picture], columns: int) -> Picture:
    """Pictures in rows of so many."""
    return np.vstack([np.hstack(pictures[i : i + columns]) for i in range(0, len(pictures), columns)])


def _end(score: EpisodeScore, e: int) -> str:
    if score.faulty[e]:
        return "fault"
    if not score.done[e]:
        return "limit"
    return "terminated" if score.terminated[e] else "truncated"


def _round(x: Any, digits: int = 4) -> float:
    return float(f"{float(x):.{digits}g}")
