"""What is held out of any Gymnasium environment, and how far imagination is from it.

Pieces are explored as in training, from random streams that training never uses. Whole episodes, from their reset on,
are explored beside them in one copy that renders. Of an episode that terminates the last state stays, as in training.

Shapes: M pieces, T blocks, K primitive actions a block, A action, H imagined steps, S sensors (without the last one,
`ended`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agent.agent import Agent
from agent.config import Config, ExploreConfig
from agent.drawing.colours import Picture
from agent.drawing.frames import SEEN
from agent.errors import UserError
from agent.inspection.pictures import RATIO_AT, averaged, guesses, predicted, ratios
from agent.inspection.probes import encode_some
from agent.inspection.sight import Sight
from agent.interaction.environment import Environment
from agent.interaction.explore import COPIES, Explorer, explore_vector
from agent.interaction.replay import Replay
from agent.spec import EnvSpec, named
from modules.types import State

EVERY = 4  # blocks between the moments from which futures of the sensors are imagined
LONG = 48  # blocks of the episode whose sensors are drawn
SENSORS = 6  # drawn at most


@dataclass(frozen=True)
class Episode:
    """One episode under exploration, from its reset on."""

    observations: dict[str, NDArray]
    """(T + 1, ...) pixels and sensors at the ends of blocks."""
    actions: NDArray[np.float32]
    """(T, K, A) as the agent knows them; rest after the end."""
    frames: list[Picture]
    """As rendered at the first so many moments."""
    length: int
    """Blocks until it ended; T if it did not."""
    seed: int
    """Of its reset."""


@dataclass(frozen=True)
class Rollout:
    """Held-out pieces, perceived and imagined from moment SEEN - 1 on."""

    state: State
    """(M, T + 1, ...) perceived at every moment."""
    imagined: State
    """(M, H, ...) open loop under the actions that were taken."""
    shuffled: State
    """(M, H, ...) open loop under the actions of another piece."""


# Data


def possible(environment: Environment, block: int) -> int | None:
    """The most blocks that can be imagined before an episode is over; None where that is not known.

    Raises:
        UserError: episodes are over before anything could be imagined.
    """
    if environment.max_steps is None:
        return None
    most = environment.max_steps // block - (SEEN - 1)
    if most < 1:
        raise UserError(
            f"episodes of {environment.name} have at most {environment.max_steps} actions, too few to imagine "
            f"anything: {SEEN} observations come first, with {block} actions from one to the next"
        )
    return most


def pieces(config: Config, environment: Environment, count: int, length: int, stream: tuple[int, ...]) -> Replay:
    """Pieces of `length` blocks from a random stream that training never uses (its own is (seed, 1)).

    Where episodes turn out to be shorter, pieces are as long as those of training.

    Raises:
        UserError: episodes are shorter than these too.
    """
    own = min(length, config.collect.length)
    for size in (length, own):
        settings = replace(config.collect, episodes=count, length=size, steps=0)
        rng = np.random.default_rng(np.random.SeedSequence(stream))
        envs = environment.make(COPIES)
        try:
            block = config.world_model.action_block
            found = explore_vector(settings, envs, block, rng, environment.spec.actions)
        except UserError:
            if size == own:
                raise
            continue
        finally:
            envs.close()
        replay = Replay(reserve=count)
        replay.append({k: v for k, v in found.items() if k not in ("taken", "faults")})
        return replay
    raise AssertionError("the loop has returned or raised")


def episode(
    env: gym.Env,
    settings: ExploreConfig,
    spec: EnvSpec,
    block: int,
    stream: Sequence[int],
    blocks: int,
    frame: Callable[[], Picture | None],
    framed: int,
) -> Episode:
    """Explore one episode.

    Args:
        env: one copy.
        settings: how to explore.
        spec: of the environment.
        block: K.
        stream: of random numbers.
        blocks: T.
        frame: what `env` looks like now, where it can be rendered.
        framed: at how many moments that is asked for.
    """
    rng = np.random.default_rng(np.random.SeedSequence(stream))
    seed = int(rng.integers(2**31))
    explorer = Explorer(settings, spec.actions, 1, block, rng)
    rest = spec.actions.rest(torch.zeros(spec.actions.size)).numpy()
    actions = np.tile(rest.astype(np.float32), (blocks, block, 1))
    observation, _ = env.reset(seed=seed)
    seen, length, frames = [copied(observation)], blocks, [frame()] if framed else []
    ended = broken = False
    for t in range(blocks):
        chosen = explorer.next_block()[0]
        for k in range(0 if ended else block):
            actions[t, k] = chosen[k]
            observation, _, terminated, truncated, info = env.step(spec.actions.to_env(chosen[k : k + 1])[0])
            if terminated or truncated:
                ended, length, broken = True, t + 1, "fault" in info
                break
        seen.append(copied(observation))
        if len(frames) < framed:
            frames.append(frames[-1] if broken or t >= length else frame())
    whole = {name: np.stack([one[name] for one in seen]) for name in seen[0]}
    return Episode(whole, actions, [f for f in frames if f is not None], length, seed)


def copied(observation: Any) -> dict[str, NDArray]:
    """Pixels and sensors of one observation, as arrays of their own."""
    return {name: np.array(x) for name, x in named(observation).items()}


def watch(
    config: Config,
    environment: Environment,
    sight: Sight,
    count: int,
    blocks: int,
    seed: int,
    renders: bool,
    seconds: float | None = None,
) -> list[Episode]:
    """Whole episodes of an exploration that training never sees.

    Args:
        config: of the run.
        environment: of the run.
        sight: with a copy to step.
        count: of episodes.
        blocks: of each that are shown; they have LONG of them, for the curves, where an episode can be as long.
        seed: of all of them.
        renders: whether the copy can be rendered.
        seconds: no further episode is begun that would end later than this; None: rendering may take any time.
    """
    block = config.world_model.action_block
    longest = max(blocks, LONG if environment.max_steps is None else min(LONG, environment.max_steps // block))
    env, own = sight.env, None
    if env is None:
        assert environment.one is not None
        env = own = environment.one()
    began, out = time.monotonic(), []
    framed = 0  # pixels that are perceived are shown as they are
    if renders and sight.kind != "pixels":
        framed = 1 + (blocks if sight.kind == "body" else longest)
    try:
        for n in range(count):
            stream = (seed, 5, n)
            out.append(episode(env, config.collect, environment.spec, block, stream, longest, sight.rendered, framed))
            taken = time.monotonic() - began
            if seconds is not None and taken + taken / (n + 1) > seconds:
                break
    finally:
        if own is not None:
            own.close()
    return out


def as_replay(episodes: Sequence[Episode], blocks: int) -> Replay:
    """The first `blocks` blocks of episodes, as pieces."""
    whole: dict[str, Any] = {
        name: torch.from_numpy(np.stack([one.observations[name][: blocks + 1] for one in episodes]))
        for name in episodes[0].observations
    }
    whole["actions"] = torch.from_numpy(np.stack([one.actions[:blocks] for one in episodes]))
    replay = Replay(reserve=len(episodes))
    replay.append({**whole, "scene": np.arange(len(episodes))})
    return replay


# What is imagined


def roll(agent: Agent, data: Replay) -> Rollout:
    """What the world model predicts of pieces open loop."""
    return Rollout(*predicted(agent, data))


def errors(rollout: Rollout, names: Sequence[str]) -> dict[str, Any]:
    """Mean errors at each imagined step, of the latent (mean square) and of the S sensors (in units of their scale).

    Returns:
        As `imagination.errors` for latents; "sensor_error" likewise, the mean over sensors of each one's root mean
        square error, with intervals; "sensor_error_by_name", the learned model's at the last step.
    """
    truth, horizon = rollout.state[:, SEEN:], rollout.imagined.latent.shape[1]
    guessed = guesses(rollout.state, rollout.imagined, rollout.shuffled)
    at = min(RATIO_AT, horizon)
    out: dict[str, Any] = {
        "episodes": len(truth.latent),
        "horizon": at,
        "horizons": list(range(1, horizon + 1)),
        **averaged("latent_mse", {k: (s.latent - truth.latent).square().mean(-1) for k, s in guessed.items()}),
    }
    out |= ratios(out["latent_mse"], at)
    if names:
        apart = {k: (s.proprio - truth.proprio)[..., : len(names)] for k, s in guessed.items()}
        found = {k: root_mean_square(x) for k, x in apart.items()}
        out["sensor_error"] = {k: mean.tolist() for k, (mean, _) in found.items()}
        out["sensor_error_ci95"] = {k: half.tolist() for k, (_, half) in found.items()}
        out |= {f"sensor_{k}": v for k, v in ratios(out["sensor_error"], at).items()}
        last = apart["learned"][:, -1].square().mean(0).sqrt().tolist()
        out["sensor_error_by_name"] = dict(zip(names, last, strict=True))
    return out


def root_mean_square(apart: Tensor) -> tuple[Tensor, Tensor]:
    """Errors (M, H, S) -> each sensor's root mean square over pieces, averaged over sensors, and 95 % half width, (H,).

    The half width is that of a smooth function of means (the delta method): d sqrt(m) = dm / (2 sqrt(m)).
    """
    square = apart.double().square()
    root = square.mean(0).sqrt()
    influence = (square / (2 * root.clamp(min=1e-12))).mean(-1)
    return root.mean(-1), 1.96 * influence.std(0) / len(apart) ** 0.5


def fan(agent: Agent, one: Episode, sight: Sight, names: Sequence[str], horizon: int) -> dict[str, Any]:
    """Futures of some sensors, imagined open loop from every EVERY-th moment of an episode on (`figures.sensor_fan`).

    Returns:
        {"names", "real": [T + 1][S], "futures": [{"from": t, "values": [1 + H][S]}, ...]}, in the environment's units;
        the first value of a future is the reading at t.
    """
    data = as_replay([one], one.length)
    moments = torch.arange(one.length + 1)
    state = encode_some(agent.perception, data, torch.zeros_like(moments), moments)
    which = [sight.names.index(name) for name in names]
    futures: list[dict[str, Any]] = []
    for t in range(SEEN - 1, one.length, EVERY):
        actions = data.actions[:, t : t + horizon].to(agent.device)
        imagined = agent.world_model.rollout(state[t : t + 1], actions).states[0]
        readings = sight.readings(agent, State.cat([state[t : t + 1], imagined]))[:, which]
        futures.append({"from": t, "values": rounded(readings)})
    real = one.observations["sensors"][: one.length + 1, which]
    return {"names": list(names), "real": rounded(real), "futures": futures}


def telling(data: Replay, spec: EnvSpec, first: Sequence[str], names: Sequence[str], most: int = SENSORS) -> list[str]:
    """The names of up to `most` sensors to look at: `first`, then those that vary most in units of their scale.

    One that always reads the same as another one (an achieved goal that is a position) is left out.
    """
    assert data.sensors is not None
    values = data.sensors.double().flatten(0, 1).numpy()
    every = spec.observation.sensor_names
    varies = dict(zip(every, values.std(0) / np.array(spec.observation.proprio_scale), strict=True))
    others = sorted(names, key=lambda name: -varies[name])
    out: list[str] = []
    told: set[bytes] = set()
    for name in dict.fromkeys([*(n for n in first if n in names), *others]):
        read = values[:, every.index(name)].tobytes()
        if read not in told and len(out) < most:
            out.append(name)
            told.add(read)
    return out


def rounded(x: NDArray | Tensor) -> Any:
    """Numbers with five digits, as lists."""
    values = np.asarray(x, np.float64)
    return np.array([float(f"{v:.5g}") for v in values.ravel()]).reshape(values.shape).tolist()
