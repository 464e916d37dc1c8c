"""Exploration: from environments to the episodes of self-supervised learning.

The explorer knows nothing of the environment but its action space: a direction that wanders, a strength that varies,
held for a block more often than not, since held actions are what a planner will propose. Where an action is a choice,
each is as likely as any other. Several episodes share one scene (the same walls) so that the critic can ask for goals
that another episode has seen.

Shapes: M episodes, E environments, T blocks, K primitive actions a block, A action.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agent.config import ExploreConfig
from agent.errors import NonFinite, UserError
from agent.interaction.driver import Moment, Transition, drive, steps
from agent.interaction.environment import Environment
from agent.interaction.faults import Faults
from agent.interaction.replay import Pieces, Replay
from envs import SimVectorEnv
from modules.actions import DiscreteActions
from modules.types import Actions

SHARD = 1000  # episodes explored together; every shard draws from a random stream of its own
COPIES = 8  # of an environment that is not ours
TRIES = 200  # episodes without a whole piece after which nothing is expected of more

MapFn = Callable[..., Iterable[Any]]
"""map, or something that calls a function on several arguments elsewhere and gives the results in order."""


def explore(
    config: ExploreConfig,
    environment: Environment,
    block: int,
    seed: int,
    map_fn: MapFn = map,
    rewards: bool = False,
) -> Replay:
    """Explore an environment, shard by shard; what comes out depends on config and seed, not on `map_fn`.

    rewards: keep the environment's rewards beside the observations, for who asks for them by name.

    Raises:
        UserError: its episodes are shorter than the pieces that are asked for.
        NonFinite: it gave observations that are not finite.
    """
    if config.steps and environment.truth is not None:
        config = replace(config, episodes=max(1, config.steps // (config.length * block)), steps=0)
    size = max(1, config.per_scene) * max(1, SHARD // max(1, config.per_scene))
    if config.steps:  # all at once: how many pieces there will be is not known
        size = config.episodes
    counts = [min(size, config.episodes - first) for first in range(0, config.episodes, size)]
    streams = np.random.SeedSequence([seed, 1]).spawn(len(counts))
    shards = [
        (replace(config, episodes=n), environment, block, stream, rewards)
        for n, stream in zip(counts, streams, strict=True)
    ]
    replay, scenes = Replay(reserve=0 if config.steps else config.episodes), 0
    for pieces in map_fn(explore_shard, shards):
        replay.steps += pieces.pop("taken", len(pieces["actions"]) * config.length * block)
        replay.faults = added(replay.faults, pieces.pop("faults", {}))
        if environment.has_scenes:
            pieces["scene"] = pieces["scene"] + scenes
            scenes = int(pieces["scene"][-1]) + 1
        replay.append(pieces)
    sensors = replay.sensors
    if sensors is not None and not bool(torch.isfinite(sensors).all()):
        episode, moment, sensor = (~torch.isfinite(sensors)).nonzero()[0].tolist()
        raise NonFinite(
            f"observations: sensor {sensor} is {float(sensors[episode, moment, sensor])} in episode {episode}, after "
            f"{moment * block} actions; fix the environment before training on it"
        )
    return replay


def added(faults: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Two summaries of faults as one."""
    if not faults or not more:
        return faults or more
    kinds = {**more["kinds"], **faults["kinds"]}
    for kind in faults["kinds"].keys() & more["kinds"].keys():
        kinds[kind] = {**kinds[kind], "count": faults["kinds"][kind]["count"] + more["kinds"][kind]["count"]}
    counts = {name: faults[name] + more[name] for name in ("episodes", "faulty", "resets")}
    return {**counts, "kinds": kinds}


def explore_shard(shard: tuple[ExploreConfig, Environment, int, np.random.SeedSequence, bool]) -> dict[str, Any]:
    """One shard of an exploration: (settings, environment, K, random stream, rewards) -> pieces (`Replay.append`)."""
    config, environment, block, stream, rewards = shard
    rng = np.random.default_rng(stream)
    if environment.truth is not None:
        return explore_simulator(config, environment, block, rng)
    envs = environment.make(COPIES, processes=True) if config.processes else environment.make(COPIES)
    try:
        return explore_vector(config, envs, block, rng, environment.spec.actions, rewards)
    finally:
        envs.close()


def explore_simulator(
    config: ExploreConfig, environment: Environment, block: int, rng: np.random.Generator
) -> dict[str, Any]:
    """M episodes of T blocks in copies of a simulator, all stepped at once and never truncated."""
    count, simulator = config.episodes, environment.truth
    assert simulator is not None
    scene, states = np.arange(count) // max(1, config.per_scene), simulator.reset(rng, count)
    if environment.scenes is not None:
        states = environment.scenes.reset_within_scene(rng, states[scene * max(1, config.per_scene)])
    envs = SimVectorEnv(simulator, count, config.length * block + 1)  # no piece is truncated
    envs.observe_every = block
    envs.np_random = rng  # one stream for the explorer and the noise of the environment
    pieces = Pieces(config.length, block)
    explorer = Explorer(config, environment.spec.actions, count, block, rng)
    options, to_env = {"state": states, "goal": states}, environment.spec.actions.to_env
    drive(envs, explorer, steps(config.length * block), [pieces.add], options=options, to_env=to_env)
    found = pieces.joined(count)
    flat = found["states"].reshape(-1, found["states"].shape[-1])
    shape = found["states"].shape[:2]
    if environment.view is not None:
        found["positions"] = environment.view.positions(flat).reshape(*shape, 2)
    if environment.factors is not None:
        named = environment.factors.factors(flat)
        found |= {f"factors.{name}": x.reshape(shape) for name, x in named.items()}
    found["scene"] = scene if environment.has_scenes else np.zeros(count, np.int64)
    return found


def explore_vector(
    config: ExploreConfig, envs: Any, block: int, rng: np.random.Generator, actions: Actions, rewards: bool = False
) -> dict[str, Any]:
    """Pieces of T blocks from any Gymnasium vector environment, whose episodes end when they end.

    An episode that terminates is padded to whole pieces, as a state that stays; one that is truncated is cut off after
    its last whole piece. Faulty episodes are dropped.

    Raises:
        UserError: episodes are truncated before a piece is whole, or too many are faulty.
    """
    rest = actions.rest(torch.zeros(actions.size)).numpy()
    pieces, faults = Pieces(config.length, block, pad=True, rest=rest, rewards=rewards), Faults()
    explorer = Explorer(config, actions, envs.num_envs, block, rng)
    taken = ended = 0

    def stop(step: Transition) -> bool:
        nonlocal taken, ended
        taken += int(step.real.sum())
        ended += int(step.ended.sum())
        if ended >= TRIES and not pieces.count:
            raise UserError(
                f"none of {ended} episodes is as long as --collect.length {config.length} blocks of {block} actions: "
                "give a smaller --collect.length"
            )
        return taken >= config.steps if config.steps else pieces.count >= config.episodes

    drive(envs, explorer, stop, [faults, pieces.add], seed=int(rng.integers(2**31)), to_env=actions.to_env)
    if not pieces.count:
        raise UserError(
            f"{taken} steps hold no piece of --collect.length {config.length} blocks of {block} actions: explore for "
            "longer (--steps), or give a smaller --collect.length"
        )
    found = pieces.joined(pieces.count if config.steps else config.episodes)
    # Without a word about scenes an environment has one, in which every state can be a goal for every other.
    told = found.pop("scene", None)
    scene = np.zeros(len(found["actions"]), np.int64) if told is None else told.numpy()[:, 0]
    return {**found, "scene": scene, "taken": taken, "faults": faults.summary()}


class Explorer:
    """Wandering, mostly held actions in E environments, each at its own place in a block (`driver.Act`)."""

    def __init__(
        self, config: ExploreConfig, actions: Actions, count: int, block: int, rng: np.random.Generator
    ) -> None:
        self.config, self.actions, self.block, self.rng = config, actions, block, rng
        self._direction: NDArray | None = None
        self._within = np.zeros(count, np.int64)
        self._block = np.zeros((count, block, actions.size), np.float32)
        self._begun = False

    def __call__(self, moment: Moment) -> tuple[NDArray, None]:
        """The next primitive action of each environment, (E, A)."""
        self._within[moment.is_first] = 0
        begins = self._within == 0
        if begins.any():
            fresh = self.next_block()
            self._block = np.where(begins[:, None, None], fresh, self._block) if self._begun else fresh
            self._begun = True
        action = self._block[np.arange(len(begins)), self._within]
        self._within = (self._within + 1) % self.block
        return action, None

    def next_block(self) -> NDArray:
        """Action blocks (E, K, A), in the environment's units."""
        if isinstance(self.actions, DiscreteActions):
            return self._choices(self.actions)
        config, rng, count = self.config, self.rng, len(self._within)
        fresh = self._turned(np.zeros((count, self.actions.size)), 1.0)
        if self._direction is None:
            self._direction = fresh
        redrawn = rng.random((count, 1)) < config.redraw
        self._direction = np.where(redrawn, fresh, self._turned(self._direction, config.wander))
        held = rng.random((count, 1, 1)) < config.held
        each = np.repeat(self._direction[:, None], self.block, 1)
        each = np.where(held, each, self._turned(each, config.jitter))
        strength = np.where(held, rng.standard_normal((count, 1, 1)), rng.standard_normal((count, self.block, 1)))
        strength = np.clip(config.strength + 0.3 * strength, 0.05, 1.0)
        farthest = self.actions.boundary(torch.from_numpy(each))
        return self.actions.scale(farthest * torch.from_numpy(strength)).numpy().astype(np.float32)

    def _choices(self, actions: DiscreteActions) -> NDArray:
        """Blocks (E, K, A) of choices that are all equally likely: one for a whole block, or one for each action."""
        count = len(self._within)
        held = self.rng.random((count, 1, 1)) < self.config.held
        one, each = actions.sample(self.rng, (count, 1)), actions.sample(self.rng, (count, self.block))
        return np.where(held, one, each)

    def _turned(self, direction: NDArray, by: float) -> NDArray:
        direction = direction + by * self.rng.standard_normal(direction.shape)
        return direction / np.maximum(np.linalg.norm(direction, axis=-1, keepdims=True), 1e-9)
