"""A replay from recorded episodes: a folder of `collect`, or a Minari dataset in the environment's own form.

Shapes: L steps of an episode, S sensors, A action.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agent.config import Config, options_of
from agent.interaction.environment import Environment, find_senses
from agent.interaction.episodes import recorded, replay_of
from agent.interaction.replay import Replay
from agent.spec import NAMES, named
from agent.storage.dataset import RecordedEpisode
from envs.senses import Senses


def replay_from(config: Config, environment: Environment, rewards: bool = False) -> tuple[Replay, dict[str, Any]]:
    """The recorded episodes of `config.data` as a replay, and where they come from.

    Raises:
        UserError: there are none, or not of this environment, or they are damaged or too short.
    """
    options, actions = options_of(config), environment.spec.actions
    rest = actions.rest(torch.zeros(actions.size)).numpy()
    length, block = config.collect.length, config.world_model.action_block
    if environment.one is None:
        found = recorded(config.data, environment, options)
        return _counted(replay_of(found.episodes, length, block, rest, rewards), found.about), found.about
    with closing(environment.one()) as env:
        senses = find_senses(env)

        def observation_of(raw: Any) -> dict[str, NDArray[Any]]:
            return _perceived(senses, raw)

        found = recorded(config.data, environment, options, observation_of, actions.from_env)
        replay = replay_of(_ended(found.episodes), length, block, rest, rewards)
    if not environment.tells_scene:
        replay.scene[:] = 0  # as when exploring
    return _counted(replay, found.about), found.about


def _counted(replay: Replay, about: dict[str, Any]) -> Replay:
    replay.steps = int(about.get("steps", 0))
    return replay


def _perceived(senses: Senses, raw: Any) -> dict[str, NDArray[Any]]:
    """Observations of an episode, (L + 1, ...) in the environment's own form or already perceived."""
    if isinstance(raw, dict) and {*raw} <= {*NAMES}:
        sensors = raw.get("sensors")
        if sensors is not None and sensors.shape[-1] == len(senses.sensor_names):
            return named(raw)
    first = raw
    while isinstance(first, dict | tuple):
        first = next(iter(first.values())) if isinstance(first, dict) else first[0]
    seen = [senses.perceive(_moment(raw, t)) for t in range(len(first))]
    return {name: np.stack([one[name] for one in seen]) for name in seen[0]}


def _moment(raw: Any, t: int) -> Any:
    if isinstance(raw, dict):
        return {name: _moment(part, t) for name, part in raw.items()}
    if isinstance(raw, tuple):
        return tuple(_moment(part, t) for part in raw)
    return raw[t]


def _ended(episodes: Iterable[RecordedEpisode]) -> Iterator[RecordedEpisode]:
    """The episodes, the sensor `ended` set where they terminated: what was recorded elsewhere does not have it."""
    for episode in episodes:
        if episode.sensors is not None and len(episode.terminated) and episode.terminated[-1]:
            episode.sensors[-1, -1] = 1.0
        yield episode
