"""Replay: pieces of episodes side by side, which exploration leaves and learning reads. It can grow.

Frames are kept once per action block, all primitive actions are kept. Action block t leads from observation t to t + 1,
and no piece crosses a reset.

Shapes: M pieces, T blocks, K primitive actions a block, A action, S sensors, P numbers of a physical state, E
environments.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from agent.interaction.driver import Transition
from agent.interaction.faults import faults
from agent.spec import named
from modules.types import Observation


class Replay:
    """Pieces of T blocks. Data for learning are tensors; what only probes and pictures may read are arrays."""

    def __init__(self, reserve: int = 0, capacity: int | None = None) -> None:
        """reserve: pieces to make room for at once. capacity: the oldest piece is overwritten beyond that many."""
        self.capacity = capacity
        self.size = self.version = 0
        """version: grows with each append, for those who cache what they computed from the data."""
        self.steps = 0
        """Primitive actions that were taken for it, those of dropped pieces included."""
        self.faults: dict[str, Any] = {}
        """Episodes that were dropped because the environment failed, by kind (`faults.Faults.summary`)."""
        self._head = 0
        self._reserve = reserve if capacity is None else capacity
        self._store: dict[str, Any] = {}

    # Reading

    def __len__(self) -> int:
        return self.size

    @property
    def episodes(self) -> int:
        """M."""
        return self.size

    @property
    def length(self) -> int:
        """T."""
        return self._store["actions"].shape[1]

    @property
    def actions(self) -> Tensor:
        """(M, T, K, A) float32."""
        return self._store["actions"][: self.size]

    @property
    def pixels(self) -> Tensor | None:
        """(M, T+1, C, H, W) uint8."""
        return self._get("pixels")

    @property
    def sensors(self) -> Tensor | None:
        """(M, T+1, S) float32."""
        return self._get("sensors")

    @property
    def rewards(self) -> Tensor | None:
        """(M, T) the environment's own reward, summed over each block; only where it was asked for."""
        return self._get("rewards")

    @property
    def scene(self) -> NDArray[np.int64]:
        """(M,) pieces with the same number share a scene, between whose states one can travel."""
        return self._store["scene"][: self.size]

    @property
    def states(self) -> NDArray | None:
        """(M, T+1, P) physical states, for probes and pictures; never used in training."""
        return self._get("states")

    @property
    def positions(self) -> NDArray | None:
        """(M, T+1, 2) likewise."""
        return self._get("positions")

    @property
    def factors(self) -> dict[str, NDArray] | None:
        """Name -> (M, T+1) factors of variation, likewise."""
        names = [name for name in self._store if name.startswith("factors.")]
        return {name.removeprefix("factors."): self._get(name) for name in names} or None

    def observe(self, episode: Tensor, time: Tensor | slice) -> Observation:
        """Observations at (episode, time), whatever shape the two index to."""
        pixels, sensors = self.pixels, self.sensors
        return Observation(
            None if pixels is None else pixels[episode, time], None if sensors is None else sensors[episode, time]
        )

    def draw(self, batch: int, window: int, generator: Generator) -> tuple[Tensor, int]:
        """Pieces (B,) drawn with replacement, and the moment at which a window of T' states begins in all of them."""
        episode = torch.randint(self.size, (batch,), generator=generator)
        return episode, int(torch.randint(self.length + 2 - window, (1,), generator=generator))

    # Writing

    def append(self, pieces: dict[str, Any]) -> None:
        """Add pieces: `actions` (M, T, K, A) and whatever else there is, each with M rows; they are copied."""
        count = len(pieces["actions"])
        if self._store and set(pieces) != set(self._store):
            raise ValueError(f"pieces have {sorted(pieces)}, this replay holds {sorted(self._store)}")
        if self.capacity is not None and count > self.capacity:
            pieces, count = {name: x[-self.capacity :] for name, x in pieces.items()}, self.capacity
        room = len(self._store["actions"]) if self._store else 0
        if self.size + count > room and (self.capacity is None or room < self.capacity):
            self._grow(pieces, max(self._reserve, self.size + count, 2 * self.size))
            room = len(self._store["actions"])
        first = min(count, room - self._head)
        for name, x in pieces.items():
            self._store[name][self._head : self._head + first] = x[:first]
            self._store[name][: count - first] = x[first:]
        self._head = (self._head + count) % room if self.capacity is not None else self._head + count
        self.size = min(self.size + count, room)
        self.version += 1

    def state_dict(self) -> dict[str, Any]:
        """Everything held, as flat tensors, arrays and numbers."""
        held = {name: x[: self.size] for name, x in self._store.items()}
        return {**held, "size": self.size, "head": self._head, "version": self.version}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`, in a replay of the same capacity."""
        held = {k: v for k, v in state.items() if k not in ("size", "head", "version")}
        self._store, self.size = {}, 0
        if held:
            self._grow(held, max(self._reserve, len(held["actions"])))
            for name, x in held.items():
                self._store[name][: len(x)] = x
        self.size, self._head, self.version = int(state["size"]), int(state["head"]), int(state["version"])

    def _get(self, name: str) -> Any:
        return self._store[name][: self.size] if name in self._store else None

    def _grow(self, like: dict[str, Any], rows: int) -> None:
        """Room for so many pieces."""
        for name, x in like.items():
            shape = (rows, *x.shape[1:])
            larger = x.new_empty(shape) if isinstance(x, Tensor) else np.empty(shape, x.dtype)
            if name in self._store:
                larger[: self.size] = self._store[name][: self.size]
            self._store[name] = larger


class Pieces:
    """A listener that cuts what happens in E environments into pieces of T blocks, each inside one episode.

    A piece that an episode's end interrupts is dropped; a piece that is full is finished, and the next one begins.
    A faulty episode (`faults.faults`) is dropped whole: its finished pieces are taken back, while it is under way.
    """

    def __init__(
        self, length: int, block: int, pad: bool = False, rest: NDArray | None = None, rewards: bool = False
    ) -> None:
        """Cut pieces.

        Args:
            length: T.
            block: K.
            pad: whether a piece in which the episode terminates is kept. Its last state is absorbing: the last
                observation is repeated, with actions `rest` and no rewards. A block in which the episode terminates
                ends with the last observation. A truncated episode did not end, so its piece is dropped as ever.
            rest: (A,) the action in what is padded; zeros by default.
            rewards: whether to keep `rewards` (n, T) float32, summed over each block.
        """
        self.length, self.block, self.pad, self.rest = length, block, pad, rest
        self.finished: list[dict[str, NDArray]] = []
        """Pieces in the order in which they were finished, (n, ...) each; to be read only."""
        self._episodes: list[NDArray[np.int64]] = []
        """Beside each of `finished`: the numbers of its episodes, (n,)."""
        self._episode = np.zeros(0, np.int64)
        """(E,) the number of the episode under way, of no other episode of any environment."""
        self._frames: dict[str, NDArray] = {}
        self._actions = np.empty(0, np.float32)
        self._rewards: NDArray[np.float32] | None = np.empty(0, np.float32) if rewards else None
        self._cursor = np.zeros(0, np.int64)

    @property
    def count(self) -> int:
        """Pieces finished so far."""
        return sum(len(part["actions"]) for part in self.finished)

    def add(self, step: Transition) -> None:
        """One step of E environments."""
        if not len(self._cursor):
            self._begin(step)
        first = step.moment.is_first
        if first.any():  # DISABLED and SAME_STEP resets: the moment itself is the first observation
            self._write(step.moment.observation, step.moment.info, first, np.zeros(int(first.sum()), np.int64))
            self._cursor[first] = 0
        real, ended = step.real, step.ended
        failed = [*faults(step)]
        if failed:
            self._drop(self._episode[failed])
            real = real.copy()
            real[failed] = False
        rows = np.flatnonzero(real)
        self._actions[rows, self._cursor[rows]] = step.action[rows]
        if self._rewards is not None:
            at, begins = self._cursor[rows] // self.block, self._cursor[rows] % self.block == 0
            self._rewards[rows, at] = np.where(begins, 0, self._rewards[rows, at]) + step.reward[rows]
        self._cursor[real] += 1
        boundary = real & (self._cursor % self.block == 0)
        if boundary.any():
            self._write(step.observation, step.info, boundary, self._cursor[boundary] // self.block)
        if self.pad:
            self._fill(step.terminated & real, step)
        full = real & (self._cursor == self.length * self.block)
        if full.any():
            self._finish(full, step)
        self._cursor[ended] = 0
        self._episode[ended] += len(ended)

    def _begin(self, step: Transition) -> None:
        count, size = step.action.shape
        self._cursor = np.zeros(count, np.int64)
        self._episode = np.arange(count)
        self._actions = np.zeros((count, self.length * self.block, size), np.float32)
        if self._rewards is not None:
            self._rewards = np.zeros((count, self.length), np.float32)
        for name, x in _named(step.moment.observation, step.moment.info).items():
            self._frames[name] = np.zeros((count, self.length + 1, *x.shape[1:]), x.dtype)

    def _write(self, observation: Any, info: dict[str, Any], rows: NDArray, at: NDArray) -> None:
        for name, x in _named(observation, info).items():
            if name in self._frames:  # an info need not hold at every step what it held at the first one
                self._frames[name][np.flatnonzero(rows), at] = x[rows]

    def _fill(self, over: NDArray[np.bool_], step: Transition) -> None:
        """Fill what is left of the pieces in which the episode terminates, (E,)."""
        for row in np.flatnonzero(over):
            done = int(self._cursor[row])
            self._actions[row, done:] = 0 if self.rest is None else self.rest
            blocks = -(-done // self.block)  # the one that is interrupted counts as whole
            if self._rewards is not None:
                self._rewards[row, blocks:] = 0
            only = np.arange(len(over)) == row
            self._write(step.observation, step.info, only, np.arange(blocks, self.length + 1))
            self._cursor[row] = self.length * self.block

    def _finish(self, full: NDArray[np.bool_], step: Transition) -> None:
        rewards = self._rewards
        if full.all():  # the usual case of simulators: hand over the buffers, the next piece gets new ones
            whole, actions = dict(self._frames), self._actions
            self._frames = {name: np.zeros_like(x) for name, x in whole.items()}
            self._actions = np.zeros_like(actions)
            self._rewards = None if rewards is None else np.zeros_like(rewards)
        else:
            whole, actions = {name: x[full] for name, x in self._frames.items()}, self._actions[full]
            rewards = None if rewards is None else rewards[full]
        whole["actions"] = actions.reshape(len(actions), self.length, self.block, -1)
        if rewards is not None:
            whole["rewards"] = rewards
        self.finished.append(whole)
        self._episodes.append(self._episode[full])
        self._cursor[full] = 0
        self._write(step.observation, step.info, full, np.zeros(int(full.sum()), np.int64))

    def _drop(self, episodes: NDArray[np.int64]) -> None:
        """Take back the finished pieces of these episodes. Faults are rare, so all pieces are looked through."""
        parts, numbers = self.finished.copy(), self._episodes
        self._episodes = []
        self.finished.clear()
        for part, number in zip(parts, numbers, strict=True):
            kept = ~np.isin(number, episodes)
            if kept.all():
                self.finished.append(part)
                self._episodes.append(number)
            elif kept.any():
                self.finished.append({name: x[kept] for name, x in part.items()})
                self._episodes.append(number[kept])

    def joined(self, count: int) -> dict[str, Any]:
        """The first `count` pieces: tensors for learning, arrays for what is privileged."""
        parts = self.finished
        whole = {
            name: (parts[0][name] if len(parts) == 1 else np.concatenate([part[name] for part in parts]))[:count]
            for name in parts[0]
        }
        return {name: torch.from_numpy(x) if name != "states" else x for name, x in whole.items()}


def _named(observation: Any, info: dict[str, Any]) -> dict[str, NDArray]:
    """What is kept of E environments, by name: pixels, sensors, and physical states where `info` has them."""
    kept = named(observation)
    if "sensors" in kept:
        kept["sensors"] = kept["sensors"].astype(np.float32, copy=False)
    if isinstance(info.get("state"), np.ndarray):
        kept["states"] = info["state"]
    if isinstance(info.get("scene"), np.ndarray):
        kept["scene"] = np.asarray(info["scene"], np.int64)
    return kept
