"""Imagination made visible: imagined beside real frames, plans, and latent prediction error against the horizon.

Everything comes from episodes and tasks that training never saw. The agent perceives SEEN observations; from then on
the world model predicts open loop, under the actions that were executed. Two baselines give the error a meaning:
persistence (the last state does not change) and shuffled (the same model under the actions of another episode).

Shapes: M episodes, N of them shown, T = SEEN + H moments, H imagined steps (one action block each), D latent,
I proprio; pictures are (rows, columns, 3) uint8.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from agent.agent import Agent
from agent.config import Config
from agent.drawing.colours import RED, Picture
from agent.drawing.figures import curves, latent_map, plan_map
from agent.drawing.frames import SEEN, SIDE, difference, film, strip, to_rgb
from agent.drawing.media import encode_gif, encode_png
from agent.drawing.rendering import picture
from agent.errors import UserError
from agent.inspection.latent_map import project
from agent.inspection.plans import plans
from agent.inspection.probes import encode_some, features, position_probe, read
from agent.interaction.environment import Environment
from agent.interaction.explore import explore_simulator
from agent.interaction.replay import Replay
from agent.storage.files import to_json
from agent.storage.run import Run
from envs.api import Array, View
from modules.types import State

EPISODES = 128  # behind the curves, more than are shown
PROBE_EPISODES = 256  # others again, to fit the probe that reads positions out of states
MAX_HORIZON, MAX_SHOWN = 128, 16
RATIO_AT = 16  # imagined steps after which the error is compared with its baselines
FPS = 4.0


@dataclass(frozen=True)
class Rollout:
    """Held-out episodes, perceived and imagined from moment SEEN - 1 on."""

    data: Replay
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
    agent: Agent,
    config: Config,
    environment: Environment,
    run: Run,
    episodes: int = 4,
    horizon: int = 16,
    seed: int = 0,
) -> dict[str, Any]:
    """Write the pictures of a run into its folder `imagination`; returns the file names and the numbers.

    Raises:
        UserError: more imagined steps or episodes than can be shown, or less than one.
    """
    shown = pictures(agent, config, environment, episodes, horizon, seed)
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


def to_tensorboard(agent: Agent, config: Config, environment: Environment, run: Run, step: int, decoded: bool) -> None:
    """Show the same pictures in TensorBoard. Leaves every random number of a training as it was.

    decoded: whether the decoder has learned; without it there is no film of a world of pixels yet.
    """
    shown = pictures(agent, config, environment)
    if decoded or not agent.spec.observation.pixel_shape:
        run.gif("imagination/openloop", shown.film, step, FPS)
    run.image("imagination/plans", shown.plans, step)
    run.image("imagination/latent_error", shown.latent_error, step)
    run.image("imagination/latent_map", shown.latent_map, step)


@torch.no_grad()
def pictures(
    agent: Agent, config: Config, environment: Environment, episodes: int = 4, horizon: int = 16, seed: int = 0
) -> Pictures:
    """All pictures of `episodes` held-out episodes and TASKS tasks, imagined for `horizon` steps.

    Raises:
        UserError: more than can be shown, or an environment without tasks or map.
    """
    for name, value, limit in (("horizon", horizon, MAX_HORIZON), ("episodes", episodes, MAX_SHOWN)):
        if not 1 <= value <= limit:
            raise UserError(f"--{name} {value} cannot be shown: give --{name} from 1 to {limit}")
    if environment.truth is None or environment.view is None or environment.goals is None:
        raise UserError(
            f"{environment.name} offers no tasks and no map: write it as a Simulator (see docs/worlds.md) to see what "
            "is imagined. What was trained can be used from Python: agent.build.load(run)"
        )
    view = environment.view
    rollout = roll(agent, config, environment, horizon, seed)
    real, imagined = frames(agent, view, rollout, episodes)
    error = difference(real, imagined)
    numbers = {**errors(rollout), "success_radius": float(environment.goals.success_radius)}
    views, plan_numbers = plans(agent, environment, rollout.probe, seed)
    assert rollout.data.positions is not None
    places = view.to_map(rollout.data.positions.reshape(-1, 2))
    projection = project(rollout.state.latent, rollout.imagined.latent, places, episodes)
    return Pictures(
        film=film(real, imagined, error),
        strip=strip(real, imagined, error, f"{config.env}, one step is {config.world_model.action_block} actions"),
        plans=picture(plan_map(views, f"Plans for unseen tasks of {config.env}")),
        latent_error=picture(curves(numbers)),
        latent_map=picture(latent_map(projection)),
        numbers={**numbers, "plans": plan_numbers, "latent_map": projection},
    )


# What is imagined


def held_out(config: Config, environment: Environment, episodes: int, length: int, stream: tuple[int, int]) -> Replay:
    """Exploration as in training, but from a random stream that training never uses (its own is (seed, 1))."""
    rng = np.random.default_rng(np.random.SeedSequence(stream))
    settings = replace(config.collect, episodes=episodes, length=length, per_scene=1)
    replay = Replay(reserve=episodes)
    replay.append(explore_simulator(settings, environment, config.world_model.action_block, rng))
    return replay


def roll(agent: Agent, config: Config, environment: Environment, horizon: int, seed: int) -> Rollout:
    """Held-out episodes, and what the world model predicts of them open loop."""
    data = held_out(config, environment, EPISODES, SEEN - 1 + horizon, (seed, 2))
    moments = data.length + 1
    index = torch.arange(EPISODES).repeat_interleave(moments), torch.arange(moments).repeat(EPISODES)
    state = encode_some(agent.perception, data, *index).map(lambda x: x.unflatten(0, (EPISODES, moments)))
    actions = data.actions[:, SEEN - 1 :].to(agent.device)
    model, last = agent.world_model, state[:, SEEN - 1]
    probe = probe_of(agent, config, environment, seed)
    shuffled = model.rollout(last, actions.flip(0)).states
    return Rollout(data, state, model.rollout(last, actions).states, shuffled, probe)


def probe_of(agent: Agent, config: Config, environment: Environment, seed: int) -> Tensor:
    """The linear probe that reads positions out of states (D + I + 1, 2), from episodes that training never saw."""
    return position_probe(agent.perception, held_out(config, environment, PROBE_EPISODES, 16, (seed, 3)), seed)


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
        "persistence": last.map(lambda x: x.expand_as(truth.latent if x is last.latent else truth.proprio)),
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


# Frames


def frames(agent: Agent, view: View, rollout: Rollout, count: int) -> tuple[Picture, Picture]:
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
        return to_rgb(data.pixels[:count].numpy()), to_rgb(decoded.cpu().unflatten(0, (count, -1)).numpy())
    guess = read(rollout.probe, features(shown)).double().cpu().numpy()
    both = []
    for positions in (data.positions[:count], guess):
        each = [[_on_map(view, s, p) for p in path] for s, path in zip(data.states[:count, 0], positions, strict=True)]
        both.append(np.array(each))
    return both[0], both[1]


def _on_map(view: View, state: Array, position: Array) -> Picture:
    """The map of a state with a dot at a position, no larger than two frames."""
    picture = Image.fromarray(view.render_map(state))
    (x, y), radius = view.to_map(position[None])[0], max(picture.size) / 28
    x, y = np.clip([x, y], 0, np.array(picture.size) - 1)  # what flies out of the map is held at its edge
    ImageDraw.Draw(picture).ellipse((x - radius, y - radius, x + radius, y + radius), fill=RED)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.array(picture)
