"""From worlds to episodes: how the data of self-supervised learning come about.

Exploration knows nothing of the world but its action limits: a direction that wanders, a strength that varies, held for
a block more often than not, since held actions are what a planner will propose. Several episodes share one scene (the
same walls) so that the critic can ask for goals that another episode has seen.

Frames are kept once per action block, all primitive actions are kept. Action block t leads from observation t to t + 1,
and no transition crosses a reset.

Shapes: M episodes, T blocks, K primitive actions a block, A action, S sensors, P physical state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from agent.config import ExploreConfig as Config
from agent.errors import NonFinite, UserError
from agent.interaction.environment import OpenWorld, actions_of, as_tensors
from agent.interaction.replay import Dataset, _joined
from envs import Simulator
from modules.types import ActionSpace

SHARD = 1000  # episodes explored together; every shard draws from a random stream of its own


Spread = Callable[..., Iterable[Any]]
"""map, or something that calls a function on several arguments elsewhere and gives the results in order."""


def explore(config: Config, world: OpenWorld, block: int, seed: int, spread: Spread = map) -> Dataset:
    """Explore whatever world it is, shard by shard; what comes out depends on config and seed, not on `spread`."""
    size = max(1, config.per_scene) * max(1, SHARD // max(1, config.per_scene))
    counts = [min(size, config.episodes - first) for first in range(0, config.episodes, size)]
    streams = np.random.SeedSequence([seed, 1]).spawn(len(counts))
    shards = [(replace(config, episodes=n), world, block, stream) for n, stream in zip(counts, streams, strict=True)]
    data = _joined(spread(explore_shard, shards), counts)
    if data.sensors is not None and not bool(torch.isfinite(data.sensors).all()):
        episode, moment, sensor = (~torch.isfinite(data.sensors)).nonzero()[0].tolist()
        raise NonFinite(
            f"observations: sensor {sensor} is {float(data.sensors[episode, moment, sensor])} in episode {episode}, "
            f"after {moment * block} actions; this world cannot be learned from until that is mended"
        )
    return data


def explore_shard(shard: tuple[Config, OpenWorld, int, np.random.SeedSequence]) -> Dataset:
    """One shard of an exploration: (settings, world, K, random stream)."""
    config, world, block, stream = shard
    rng = np.random.default_rng(stream)
    if world.simulator is not None:
        return collect(config, world.simulator, block, rng)
    assert world.make is not None
    mode = gym.vector.AutoresetMode.NEXT_STEP
    envs = gym.vector.SyncVectorEnv([world.make] * 8, autoreset_mode=mode)
    try:
        return collect_gymnasium(config, envs, block, rng, world.actions)
    finally:
        envs.close()


def explorer(config: Config, space: ActionSpace, n: int, block: int) -> Callable[[np.random.Generator], NDArray]:
    """A function that gives the next action block (n, K, A) of n independent explorers."""
    high = np.asarray(space.high)
    low = np.asarray(space.low)
    centre, half = (high + low) / 2, (high - low) / 2
    direction: NDArray | None = None

    def turned(d: NDArray, by: float, rng: np.random.Generator) -> NDArray:
        d = d + by * rng.standard_normal(d.shape)
        return d / np.maximum(np.linalg.norm(d, axis=-1, keepdims=True), 1e-9)

    def block_of(rng: np.random.Generator) -> NDArray:
        nonlocal direction
        fresh = turned(np.zeros((n, space.size)), 1.0, rng)
        if direction is None:
            direction = fresh
        direction = np.where(rng.random((n, 1)) < config.redraw, fresh, turned(direction, config.wander, rng))
        held = rng.random((n, 1, 1)) < config.held
        each = np.repeat(direction[:, None], block, 1)
        each = np.where(held, each, turned(each, config.jitter, rng))
        strength = np.where(held, rng.standard_normal((n, 1, 1)), rng.standard_normal((n, block, 1)))
        strength = np.clip(config.strength + 0.3 * strength, 0.05, 1.0)
        return (centre + half * each * strength).astype(np.float32)

    return block_of


def collect(config: Config, simulator: Simulator, block: int, rng: np.random.Generator) -> Dataset:
    """Explore the world of a simulator: M episodes of T blocks, all stepped at once."""
    n, space = config.episodes, actions_of(simulator)
    scene = np.arange(n) // max(1, config.per_scene)
    states = simulator.reset(rng, n)
    states = simulator.reset_within_scene(rng, states[scene * max(1, config.per_scene)])
    explore = explorer(config, space, n, block)
    frames, actions, trace = [simulator.observe(states)], [], [states]
    for _ in range(config.length):
        chunk = explore(rng)
        for k in range(block):
            states = simulator.step(states, chunk[:, k], rng)
        frames.append(simulator.observe(states))
        actions.append(chunk)
        trace.append(states)
    stacked = {name: torch.from_numpy(np.stack([f[name] for f in frames], 1)) for name in frames[0]}
    factors = [simulator.factors(s) for s in trace]
    return Dataset(
        pixels=stacked.get("pixels"),
        sensors=stacked.get("sensors"),
        actions=torch.from_numpy(np.stack(actions, 1)),
        scene=scene if simulator.has_scenes else np.zeros(n, np.int64),
        factors={k: np.stack([f[k] for f in factors], 1) for k in factors[0]},
        positions=np.stack([simulator.positions(s) for s in trace], 1),
        states=np.stack(trace, 1),
        simulator=simulator,
    )


def collect_gymnasium(
    config: Config, envs: gym.vector.VectorEnv, block: int, rng: np.random.Generator, space: ActionSpace
) -> Dataset:
    """Explore any Gymnasium vector environment, through its own autoreset.

    Pieces of T blocks that lie inside one episode are kept; whatever a reset interrupts is dropped. Reward is not read.
    """
    modes = gym.vector.AutoresetMode
    mode = envs.metadata.get("autoreset_mode", modes.NEXT_STEP)
    n, length = envs.num_envs, config.length * block
    explore = explorer(config, space, n, block)
    observation, _ = envs.reset(seed=int(rng.integers(2**31)))
    streams: list[tuple[list, list]] = [([_one(observation, i)], []) for i in range(n)]
    finished: list[tuple[list, list]] = []
    done = np.zeros(n, bool)
    chunk, within = explore(rng), np.zeros(n, np.int64)  # every world is somewhere in a block of its own
    for step in range(100 * config.episodes * length):
        if step and (within == 0).any():
            chunk = np.where((within == 0)[:, None, None], explore(rng), chunk)
        action = chunk[np.arange(n), within]
        resets = done & (mode == modes.NEXT_STEP)  # this step ignores their action and only resets them
        if mode == modes.DISABLED and done.any():
            observation, _ = envs.reset(options={"reset_mask": done})
            for i in np.flatnonzero(done).tolist():
                streams[i], within[i] = ([_one(observation, i)], []), 0
                action[i] = chunk[i, 0]
        observation, _, terminated, truncated, info = envs.step(action)
        done = (terminated | truncated) & ~resets
        for i in range(n):
            if resets[i]:
                streams[i], within[i] = ([_one(observation, i)], []), 0
                continue
            frames, actions = streams[i]
            ended_within = done[i] and mode == modes.SAME_STEP  # the observation is already the next episode's
            frames.append(_one(info["final_obs"][i]) if ended_within else _one(observation, i))
            actions.append(action[i])
            within[i] = (within[i] + 1) % block
            if len(actions) == length:
                finished.append((frames[::block], actions))
            if len(actions) == length or done[i]:
                streams[i], within[i] = ([_one(observation, i)], []), 0
        if len(finished) >= config.episodes:
            break
    else:
        raise UserError(
            f"episodes of this world are shorter than --collect.length {config.length} blocks of {block} actions: "
            "give a smaller --collect.length"
        )
    finished = finished[: config.episodes]
    both = [as_tensors({k: np.stack([f[k] for f in frames]) for k in frames[0]}) for frames, _ in finished]
    first = both[0]
    return Dataset(
        pixels=None if first.pixels is None else torch.stack([b.pixels for b in both if b.pixels is not None]),
        sensors=None if first.sensors is None else torch.stack([b.sensors for b in both if b.sensors is not None]),
        actions=torch.from_numpy(np.stack([np.stack(a).reshape(config.length, block, -1) for _, a in finished])),
        scene=np.arange(len(finished)),
        factors=None,
        positions=None,
    )


def _one(observation: Any, index: int | None = None) -> dict[str, NDArray]:
    """One world's observation by sense, out of a batch when index is given."""
    named = observation if isinstance(observation, dict) else {"": observation}
    picked = {k: np.array(v if index is None else v[index]) for k, v in named.items()}
    if "" in picked:
        array = picked.pop("")
        picked["pixels" if array.dtype == np.uint8 and array.ndim == 3 else "sensors"] = array
    return {k: v for k, v in picked.items() if k in ("pixels", "sensors")}
