"""What the agent imagines, made visible: imagined beside real, chosen plans beside rejected ones, error over time.

Everything is drawn from episodes and tasks that training never saw. The agent looks at SEEN observations, then closes
its eyes: the world model alone goes on, under the actions that were really taken. Two baselines give the error a
meaning: persistence (nothing changes any more) and shuffled (the same model under the actions of another episode).

Shapes: M episodes, N of them shown, T = SEEN + H moments, H imagined steps (one action block each), E tasks, R rejected
plans shown, D latent, I slots; pictures are (rows, columns, 3) uint8.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from agent import collect
from agent.collect import Dataset
from agent.drawing import (
    RED,
    SEEN,
    SIDE,
    Picture,
    PlanView,
    curves,
    difference,
    film,
    latent_map,
    plan_map,
    strip,
    to_rgb,
)
from agent.errors import UserError
from agent.gauges import encode_some, features, position_probe, read
from agent.metrics import encode_gif, encode_png, to_json
from agent.oracle import perceive
from envs import Simulator
from envs.simulator import Array
from modules.types import State, Task

if TYPE_CHECKING:
    from agent.agent import Agent
    from agent.presets import Config
    from agent.run import Run

EPISODES = 128  # behind the curves, more than are shown
PROBE_EPISODES = 256  # others again, to fit the probe that reads positions out of states
MAX_HORIZON, MAX_SHOWN = 128, 16
RATIO_AT = 16  # imagined steps after which the error is compared with its baselines
TASKS, REJECTED = 4, 12  # in the picture of plans
MAPPED, NEIGHBOURS = 500, 8  # states in the map of the latent, and how many of them each is joined to
FPS = 4.0


@dataclass(frozen=True)
class Rollout:
    """Held-out episodes, perceived and imagined from moment SEEN - 1 on."""

    data: Dataset
    state: State
    """(M, T, ...) perceived at every moment."""
    imagined: State
    """(M, H, ...) open loop under the actions that were taken."""
    shuffled: State
    """(M, H, ...) open loop under the actions of another episode."""
    probe: Tensor
    """(D + I + 1, 2) linear, from states to positions."""


@dataclass(frozen=True)
class Pictures:
    """Everything there is to look at, and the numbers behind it."""

    film: list[Picture]
    """One frame per moment."""
    strip: Picture
    plans: Picture
    latent_error: Picture
    latent_map: Picture
    numbers: dict[str, Any]


def imagine(
    agent: Agent, config: Config, simulator: Simulator, run: Run, episodes: int = 4, horizon: int = 16, seed: int = 0
) -> dict[str, Any]:
    """Write the pictures of a run into its folder `imagination`; returns the file names and the numbers.

    Raises:
        UserError: more imagined steps or episodes than can be shown, or less than one.
    """
    shown = pictures(agent, config, simulator, episodes, horizon, seed)
    files = {
        "imagination/rollout.gif": encode_gif(shown.film, FPS),
        "imagination/rollout.png": encode_png(shown.strip),
        "imagination/plans.png": encode_png(shown.plans),
        "imagination/latent_error.png": encode_png(shown.latent_error),
        "imagination/latent_map.png": encode_png(shown.latent_map),
        "imagination/numbers.json": to_json(shown.numbers, indent=None),
    }
    for name, content in files.items():
        run.write_bytes(name, content)
    return {"files": list(files), **shown.numbers}


def to_tensorboard(agent: Agent, config: Config, simulator: Simulator, run: Run, step: int, decoded: bool) -> None:
    """Show the same pictures in TensorBoard. Leaves every random number of a training as it was.

    decoded: whether the decoder has learned; without it there is no film of a world of pixels yet.
    """
    shown = pictures(agent, config, simulator)
    if decoded or not agent.perception.senses.pixel_shape:
        run.gif("imagination/openloop", shown.film, step, FPS)
    run.image("imagination/plans", shown.plans, step)
    run.image("imagination/latent_error", shown.latent_error, step)
    run.image("imagination/latent_map", shown.latent_map, step)


@torch.no_grad()
def pictures(
    agent: Agent, config: Config, simulator: Simulator, episodes: int = 4, horizon: int = 16, seed: int = 0
) -> Pictures:
    """All pictures of `episodes` held-out episodes and TASKS tasks, imagined for `horizon` steps."""
    for name, value, limit in (("horizon", horizon, MAX_HORIZON), ("episodes", episodes, MAX_SHOWN)):
        if not 1 <= value <= limit:
            raise UserError(f"--{name} {value} cannot be shown: give --{name} from 1 to {limit}")
    rollout = roll(agent, config, simulator, horizon, seed)
    real, imagined = frames(agent, simulator, rollout, episodes)
    error = difference(real, imagined)
    numbers = errors(rollout)
    views, plan_numbers = plans(agent, simulator, rollout.probe, seed)
    projection = project(rollout, simulator, episodes)
    return Pictures(
        film=film(real, imagined, error),
        strip=strip(real, imagined, error, f"{config.env}, one step is {config.world_model.block} actions"),
        plans=plan_map(views, f"Plans for unseen tasks of {config.env}"),
        latent_error=curves(numbers, simulator.success_radius),
        latent_map=latent_map(projection),
        numbers={**numbers, "plans": plan_numbers, "latent_map": projection},
    )


# What is imagined


def held_out(config: Config, simulator: Simulator, episodes: int, length: int, stream: tuple[int, int]) -> Dataset:
    """Exploration as in training, but from a random stream that training never uses (its own is (seed, 1))."""
    rng = np.random.default_rng(np.random.SeedSequence(stream))
    explore = replace(config.collect, episodes=episodes, length=length, per_scene=1)
    return collect.collect(explore, simulator, config.world_model.block, rng)


def roll(agent: Agent, config: Config, simulator: Simulator, horizon: int, seed: int) -> Rollout:
    """Held-out episodes, and what the world model makes of them with its eyes closed."""
    data = held_out(config, simulator, EPISODES, SEEN - 1 + horizon, (seed, 2))
    moments = data.length + 1
    index = torch.arange(EPISODES).repeat_interleave(moments), torch.arange(moments).repeat(EPISODES)
    state = encode_some(agent, data, *index).map(lambda x: x.unflatten(0, (EPISODES, moments)))
    actions = data.actions[:, SEEN - 1 :].to(agent.device)
    model, last = agent.world_model, state[:, SEEN - 1]
    probe = probe_of(agent, config, simulator, seed)
    return Rollout(data, state, model.rollout(last, actions), model.rollout(last, actions.flip(0)), probe)


def probe_of(agent: Agent, config: Config, simulator: Simulator, seed: int) -> Tensor:
    """The linear probe that reads positions out of states (D + I + 1, 2), from episodes that training never saw."""
    return position_probe(agent, held_out(config, simulator, PROBE_EPISODES, 16, (seed, 3)), seed)


def errors(rollout: Rollout) -> dict[str, Any]:
    """Mean errors at each imagined step: of the latent (mean square), and of the position that the probe reads in it.

    `probe` is the position error of states that were perceived: what the reading itself adds. The ratios compare the
    learned model's latent error with its baselines' after RATIO_AT steps, or the last step there is.
    """
    data, state = rollout.data, rollout.state
    assert data.positions is not None
    last = state[:, SEEN - 1 : SEEN]
    truth, horizon = state[:, SEEN:], rollout.imagined.latent.shape[1]
    guesses = {
        "learned": rollout.imagined,
        "persistence": last.map(lambda x: x.expand_as(truth.latent if x is last.latent else truth.slots)),
        "shuffled": rollout.shuffled,
    }
    positions = torch.from_numpy(data.positions[:, SEEN:]).float().to(truth.latent.device)
    latent = {k: (s.latent - truth.latent).square().mean(-1) for k, s in guesses.items()}
    position = {k: (read(rollout.probe, features(s)) - positions).norm(dim=-1) for k, s in guesses.items()}
    position["probe"] = (read(rollout.probe, features(truth)) - positions).norm(dim=-1)
    at = min(RATIO_AT, horizon)
    out: dict[str, Any] = {"episodes": len(data.actions), "horizon": at, "horizons": list(range(1, horizon + 1))}
    for name, values in (("latent_mse", latent), ("position_error", position)):
        out[name] = {k: v.mean(0).tolist() for k, v in values.items()}
        sem = {k: v.std(0) / len(v) ** 0.5 for k, v in values.items()}
        out[f"{name}_ci95"] = {k: (1.96 * v).tolist() for k, v in sem.items()}
    for baseline in ("persistence", "shuffled"):
        out[f"ratio_{baseline}"] = out["latent_mse"]["learned"][at - 1] / max(
            out["latent_mse"][baseline][at - 1], 1e-12
        )
    return out


def project(rollout: Rollout, simulator: Simulator, paths: int) -> dict[str, Any]:
    """A map of the latent space in two dimensions, with imagined paths beside the perceived ones.

    Isomap (Tenenbaum, de Silva and Langford, Science 2000): what counts is the way from one state to another through
    states in between, so a sheet that is rolled up in many dimensions is laid out flat.

    Returns:
        {"points": [[u, v], ...], "places": [[x, y], ...] of the same states on the map, each from 0 to 1, "explained":
        shares of the distances along u and v, "paths": [{"perceived": [[u, v], ...], "imagined": [[u, v], ...]}, ...]}.
    """
    assert rollout.data.positions is not None
    latent = rollout.state.latent
    every = latent.flatten(0, 1)
    some = np.random.default_rng(0).permutation(len(every))[:MAPPED]
    known = every[torch.from_numpy(some)].double().cpu()
    direct = torch.cdist(known, known)
    far = direct.kthvalue(min(NEIGHBOURS + 1, len(known)), 1).values
    way = torch.where((direct <= far[:, None]) | (direct <= far), direct, torch.inf)
    for i in range(len(way)):  # all shortest ways (Floyd and Warshall)
        way = torch.minimum(way, way[:, i : i + 1] + way[i])
    way = torch.where(way.isfinite(), way, 1.5 * way[way.isfinite()].max())  # between pieces that nothing joins
    squared = way.square()
    centred = -0.5 * (squared - squared.mean(0) - squared.mean(1, keepdim=True) + squared.mean())
    values, axes = torch.linalg.eigh(centred)
    values, axes = values.clamp(min=1e-9).flip(0), axes.flip(1)[:, :2]
    roots, explained = values[:2].sqrt(), values[:2] / values.sum()

    def seen(x: Tensor) -> list[list[float]]:
        """States (N, D) by their ways to the known ones (landmark scaling, de Silva and Tenenbaum 2004)."""
        step, near = torch.cdist(x.double().cpu(), known).topk(min(NEIGHBOURS, len(known)), largest=False)
        ways = (step[..., None] + way[near]).amin(1)
        at = -0.5 * (ways.square() - squared.mean(0)) @ (axes / roots)
        return [[float(f"{float(u):.4g}"), float(f"{float(v):.4g}")] for u, v in at]

    places = simulator.to_map(rollout.data.positions.reshape(-1, 2))
    low, high = places.min(0), places.max(0)
    start = latent[:, SEEN - 1 : SEEN]
    imagined = torch.cat([start, rollout.imagined.latent], 1)
    return {
        "points": seen(known),
        "places": [[round(float(x), 3) for x in p] for p in (places[some] - low) / np.maximum(high - low, 1e-9)],
        "explained": [round(float(x), 4) for x in explained],
        "paths": [{"perceived": seen(latent[e, SEEN - 1 :]), "imagined": seen(imagined[e])} for e in range(paths)],
    }


# Frames


def frames(agent: Agent, simulator: Simulator, rollout: Rollout, count: int) -> tuple[Picture, Picture]:
    """Real and imagined frames (N, T, h, w, 3) of the first `count` episodes.

    Where the agent still sees, `imagined` is what it makes of what it sees. A world without pixels is shown as its map,
    with the agent where the world has it and where the probe reads it.
    """
    data = rollout.data
    assert data.positions is not None and data.states is not None
    shown = State.cat([rollout.state[:count, :SEEN], rollout.imagined[:count]], 1)
    if data.pixels is not None:
        decoded = agent.decoder.picture(shown.map(lambda x: x.flatten(0, 1))).pixels
        assert decoded is not None
        return to_rgb(data.pixels[:count]), to_rgb(decoded.cpu().unflatten(0, (count, -1)))
    guess = read(rollout.probe, features(shown)).double().cpu().numpy()
    both = []
    for positions in (data.positions[:count], guess):
        each = [
            [_on_map(simulator, s, p) for p in path] for s, path in zip(data.states[:count, 0], positions, strict=True)
        ]
        both.append(np.array(each))
    return both[0], both[1]


def _on_map(simulator: Simulator, state: Array, position: Array) -> Picture:
    """The map of a state with a dot at a position, no larger than two frames."""
    picture = Image.fromarray(simulator.draw_map(state))
    (x, y), radius = simulator.to_map(position[None])[0], max(picture.size) / 28
    x, y = np.clip([x, y], 0, np.array(picture.size) - 1)  # what flies out of the map is held at its edge
    ImageDraw.Draw(picture).ellipse((x - radius, y - radius, x + radius, y + radius), fill=RED)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.array(picture)


# Plans


def plans(agent: Agent, simulator: Simulator, probe: Tensor, seed: int) -> tuple[list[PlanView], list[dict[str, Any]]]:
    """Mode-2 plans for TASKS tasks of the world: what to draw, and the energies."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 4]))
    tasks = simulator.sample_tasks(rng, TASKS)
    state, goal = (perceive(agent.perception, simulator, s) for s in (tasks.start, tasks.goal))
    directive = agent.configurator.configure(Task(None), goal, agent.digests())
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
            scene=simulator.draw_map(tasks.start[e]),
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
