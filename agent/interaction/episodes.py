"""Recorded episodes: gathered from a loop that steps environments, and cut into the pieces that learning reads.

    episodes = Episodes(writer.append, wanted=100)
    drive(envs, explorer, lambda _: episodes.complete, [episodes.add])      collect

    data = recorded("runs/data", environment, options)                      learn from what was collected
    replay = replay_of(data.episodes, length, block, rest)

Shapes: E environments, L steps of an episode, M pieces, T blocks, K primitive actions a block, A action, S sensors.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agent.errors import UserError
from agent.interaction.driver import Transition
from agent.interaction.environment import Environment
from agent.interaction.faults import faults
from agent.interaction.replay import Replay
from agent.spec import named
from agent.storage.dataset import Dataset, RecordedEpisode, matches

LONGEST = 100_000
"""Steps after which an episode is taken for one that never ends."""
TOGETHER = 64
"""Episodes that are cut at a time."""
MINARI = "minari:"


@dataclass
class _Open:
    """An episode that is not over yet."""

    seed: int
    observations: dict[str, list[NDArray[Any]]]
    actions: list[NDArray[Any]] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    terminated: bool = False
    truncated: bool = False
    fault: str = ""

    def finished(self) -> RecordedEpisode:
        """It as a whole; only its last step ends it."""
        last = np.arange(1, len(self.actions) + 1) == len(self.actions)
        return RecordedEpisode(
            actions=np.stack(self.actions),
            rewards=np.array(self.rewards, np.float64),
            terminated=last & self.terminated,
            truncated=last & self.truncated,
            seed=self.seed,
            **{name: np.stack(rows) for name, rows in self.observations.items()},
        )


class Episodes:
    """A listener that gathers whole episodes of E environments and hands each one on when it is over.

    The first episodes to begin are gathered, not the first to end, which would be the short ones. An episode in which
    the environment failed (`info["fault"]`) is dropped and counted, and another one takes its place.
    """

    def __init__(
        self,
        finished: Callable[[RecordedEpisode], object],
        wanted: int | None = None,
        seeds: Sequence[int] | None = None,
    ) -> None:
        """Prepare.

        Args:
            finished: called with each episode when it is over.
            wanted: so many episodes are gathered; None: all that come.
            seeds: (E,) of the first reset of each environment, where each has one of its own.
        """
        self.finished, self.wanted = finished, wanted
        self.count = self.steps = self.dropped = 0
        """Episodes handed on, their steps, and episodes dropped."""
        self.fault = ""
        """Why the last one was dropped."""
        self._seeds = list(seeds or ())
        self._open: dict[int, _Open] = {}

    @property
    def complete(self) -> bool:
        """Whether as many as wanted were handed on."""
        return self.wanted is not None and self.count >= self.wanted

    def add(self, step: Transition) -> None:
        """One step of E environments."""
        first = np.flatnonzero(step.moment.is_first)
        if first.size:
            self._begin(first, step)
        if not self._open:
            return
        seen, failed = named(step.observation), faults(step)
        for e, episode in list(self._open.items()):
            if not step.real[e]:
                continue
            _look(episode.observations, seen, e)
            episode.actions.append(np.array(step.action[e], np.float32))
            episode.rewards.append(float(step.reward[e]))
            episode.fault = failed.get(e, "")
            if step.ended[e]:
                episode.terminated, episode.truncated = bool(step.terminated[e]), bool(step.truncated[e])
                self._end(self._open.pop(e))
            elif len(episode.actions) >= LONGEST:
                raise UserError(
                    f"an episode is not over after {LONGEST} steps: an environment of which episodes are recorded "
                    "needs a limit of time, such as --env-options max_episode_steps=1000"
                )

    def _begin(self, first: NDArray[np.int64], step: Transition) -> None:
        seen = named(step.moment.observation)
        for e in first.tolist():
            seed = self._seeds[e] if e < len(self._seeds) else -1
            if self.wanted is None or self.count + len(self._open) < self.wanted:
                self._open[e] = _Open(seed, {name: [] for name in seen})
                _look(self._open[e].observations, seen, e)
            if e < len(self._seeds):
                self._seeds[e] = -1  # later resets go on with the same generator

    def _end(self, episode: _Open) -> None:
        if episode.fault:
            self.dropped, self.fault = self.dropped + 1, episode.fault
            return
        whole = episode.finished()
        self.count, self.steps = self.count + 1, self.steps + whole.length
        self.finished(whole)


def _look(kept: dict[str, list[NDArray[Any]]], seen: Mapping[str, NDArray[Any]], e: int) -> None:
    """Keep a copy of what environment `e` shows; it may write its next observation into the same array."""
    for name, rows in kept.items():
        rows.append(np.array(seen[name][e], np.float32 if name == "sensors" else None))


# Cutting


def pieces_of(
    episodes: Iterable[RecordedEpisode], length: int, block: int, rest: NDArray[Any], rewards: bool = False
) -> dict[str, Any]:
    """Episodes cut into pieces of T blocks, as `Replay.append` takes them.

    The end of an episode in the middle of a piece is of two kinds. After a termination nothing happens any more: the
    piece is filled up with rest, the last observation and reward 0, an absorbing state. Where an episode was only
    truncated, what would have come is not known, and the piece is dropped.

    Args:
        episodes: whole ones; their pieces follow each other in order.
        length: T.
        block: K.
        rest: (A,) the action that stands after a termination.
        rewards: whether to give the rewards too.

    Returns:
        actions (M, T, K, A) float32; pixels (M, T + 1, C, H, W) uint8 and/or sensors (M, T + 1, S) float32, at the ends
        of blocks; if asked for, rewards (M, T) float32, summed within each block; scene (M,), each piece its own.

    Raises:
        UserError: there is no episode.
    """
    cut = [_cut(episode, length, block, rest, rewards) for episode in episodes]
    if not cut:
        raise UserError("there are no recorded episodes to learn from: collect some")
    pieces: dict[str, Any] = {name: torch.from_numpy(np.concatenate([c[name] for c in cut])) for name in cut[0]}
    return {**pieces, "scene": np.arange(len(pieces["actions"]))}


def _cut(
    episode: RecordedEpisode, length: int, block: int, rest: NDArray[Any], rewards: bool
) -> dict[str, NDArray[Any]]:
    """The pieces of one episode, (m, ...) each."""
    steps, span = episode.length, length * block
    count = -(-steps // span) if episode.terminated[-1] else steps // span
    kept, blank = min(steps, count * span), count * span - steps
    actions = episode.actions[:kept]
    if blank > 0:
        actions = np.concatenate([actions, np.broadcast_to(np.asarray(rest, np.float32), (blank, actions.shape[1]))])
    pieces = {"actions": actions.reshape(count, length, block, actions.shape[1])}
    starts = np.arange(count)[:, None] * span
    moments = np.minimum(starts + block * np.arange(length + 1), steps)
    for name in ("pixels", "sensors"):
        if (seen := getattr(episode, name)) is not None:
            pieces[name] = seen[moments]
    if rewards:
        earned = np.concatenate([episode.rewards[:kept], np.zeros(max(blank, 0))])
        pieces["rewards"] = earned.reshape(count, length, block).sum(-1).astype(np.float32)
    return pieces


def replay_of(
    episodes: Iterable[RecordedEpisode], length: int, block: int, rest: NDArray[Any], rewards: bool = False
) -> Replay:
    """A replay of recorded episodes (see `pieces_of`), filled some episodes at a time.

    Raises:
        UserError: none of them is long enough for a piece.
    """
    replay, found = Replay(), 0
    remaining: Iterator[RecordedEpisode] = iter(episodes)
    while some := list(itertools.islice(remaining, TOGETHER)):
        found += len(some)
        pieces = pieces_of(some, length, block, rest, rewards)
        pieces["scene"] = pieces["scene"] + len(replay)
        if len(pieces["scene"]):
            replay.append(pieces)
    if not len(replay):
        raise UserError(
            f"none of the {found} recorded episodes has the {length * block} steps of --collect.length {length} blocks "
            f"of {block} actions: give a smaller --collect.length, or record longer episodes"
        )
    return replay


# Reading


@dataclass(frozen=True)
class Recorded:
    """Episodes to learn from, and where they come from."""

    episodes: Iterable[RecordedEpisode]
    """Can be iterated over as often as asked."""
    about: dict[str, Any]
    """Provenance in one flat dictionary, for summaries and reports."""


def recorded(
    source: str,
    environment: Environment,
    options: Mapping[str, Any],
    observation_of: Callable[[Any], Mapping[str, NDArray[Any]]] = named,
    action_of: Callable[[NDArray[Any]], NDArray[Any]] | None = None,
) -> Recorded:
    """The episodes that --data names, checked to be of this environment.

    Args:
        source: a folder that collect wrote, or minari:ID of a Minari dataset on this machine.
        environment: which is learned.
        options: of its constructor.
        observation_of: for Minari: observations of a whole episode in the environment's own form (L + 1, ...) ->
            pixels (L + 1, C, H, W) and/or sensors (L + 1, S).
        action_of: for Minari: actions in the environment's own form (L, ...) -> (L, A); needed where they are no Box.

    Raises:
        UserError: there are none; they are of another environment; or, for a folder, they are damaged or not finite.
            A Minari dataset is read, and refused, while it is iterated over.
    """
    spec = environment.spec
    if not source.startswith(MINARI):
        dataset = Dataset.open(Path(source))
        matches(dataset, spec.to_json(), environment.name, options)
        return Recorded(dataset, dataset.describe())
    from agent.interaction.minari_data import from_minari  # the package is optional

    found = from_minari(source.removeprefix(MINARI), observation_of, action_of)
    found.check(environment.name, spec, options)
    return Recorded(found, found.about)
