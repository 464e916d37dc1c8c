"""Imagination made visible: imagined beside real frames, plans, and latent prediction error against the horizon.

Everything comes from episodes and tasks that training never saw. The agent perceives SEEN observations; from then on
the world model predicts open loop, under the actions that were executed. Two baselines give the error a meaning:
persistence (the last state does not change) and shuffled (the same model under the actions of another episode).
`pictures` is the door for every environment; here are those with a map, `without_map.py` shows all others.

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
from agent.inspection.pictures import RATIO_AT, Pictures, averaged, guesses, predicted, ratios
from agent.inspection.plans import plans
from agent.inspection.probes import features, position_probe, read
from agent.inspection.without_map import Show
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
FPS = 4.0
ALL_FILES = {"rollout.gif", "rollout.png", "plans.png", "latent_error.png", "latent_map.png", "sensors.png"}


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
    files: dict[str, bytes] = {}
    if shown.film is not None:
        files["rollout.gif"] = encode_gif(shown.film, FPS)
    if shown.strip is not None:
        files["rollout.png"] = encode_png(shown.strip)
    files |= {f"{name}.png": encode_png(still) for name, still in shown.stills().items()}
    files["numbers.json"] = to_json(shown.numbers, indent=None)
    for name, content in files.items():
        run.write_bytes(f"imagination/{name}", content)
    for name in ALL_FILES - files.keys():  # a picture of an earlier call would be taken for one of this
        (run.out / "imagination" / name).unlink(missing_ok=True)
    return {"files": [f"imagination/{name}" for name in files], **shown.numbers}


def to_tensorboard(
    agent: Agent,
    config: Config,
    environment: Environment,
    run: Run,
    step: int,
    decoded: bool,
    show: Show | None = None,
) -> None:
    """Show the same pictures in TensorBoard. Leaves every random number of a training as it was.

    Args:
        agent: as far as it has learned.
        config: of the run.
        environment: of the run.
        run: where they go.
        step: of the training.
        decoded: whether the decoder has learned; without it there is no film of a world of pixels yet.
        show: what is shown of an environment without a map, kept from phase to phase.
    """
    shown = pictures(agent, config, environment) if show is None else show.pictures(agent, decoded)
    if shown.film is not None and (decoded or not agent.spec.observation.pixel_shape):
        run.gif("imagination/openloop", shown.film, step, FPS)
    for name, still in shown.stills().items():
        run.image(f"imagination/{name}", still, step)


@torch.no_grad()
def pictures(
    agent: Agent, config: Config, environment: Environment, episodes: int = 4, horizon: int = 16, seed: int = 0
) -> Pictures:
    """All pictures of `episodes` held-out episodes and TASKS tasks, imagined for `horizon` steps.

    Raises:
        UserError: more than can be shown, or a Simulator without tasks or map.
    """
    for name, value, limit in (("horizon", horizon, MAX_HORIZON), ("episodes", episodes, MAX_SHOWN)):
        if not 1 <= value <= limit:
            raise UserError(f"--{name} {value} cannot be shown: give --{name} from 1 to {limit}")
    if environment.truth is None:
        return Show(config, environment, episodes, horizon, seed).pictures(agent, bool(config.learn.decoder_steps))
    if environment.view is None or environment.goals is None:
        raise UserError(
            f"{environment.name} offers no tasks and no map: a Simulator needs Goals and View (see docs/worlds.md) for "
            "what is imagined to be seen"
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
    return Rollout(data, *predicted(agent, data), probe_of(agent, config, environment, seed))


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
    truth, horizon = state[:, SEEN:], rollout.imagined.latent.shape[1]
    guessed = guesses(state, rollout.imagined, rollout.shuffled)
    positions = torch.from_numpy(data.positions[:, SEEN:]).float().to(truth.latent.device)
    latent = {k: (s.latent - truth.latent).square().mean(-1) for k, s in guessed.items()}
    position = {k: (read(rollout.probe, features(s)) - positions).norm(dim=-1) for k, s in guessed.items()}
    position["probe"] = (read(rollout.probe, features(truth)) - positions).norm(dim=-1)
    at = min(RATIO_AT, horizon)
    out: dict[str, Any] = {"episodes": len(data.actions), "horizon": at, "horizons": list(range(1, horizon + 1))}
    for name, values in (("latent_mse", latent), ("position_error", position)):
        out |= averaged(name, values)
    return {**out, **ratios(out["latent_mse"], at)}


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
