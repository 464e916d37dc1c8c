"""Episodes side by side: what exploration leaves and learning reads.

Frames are kept once per action block, all primitive actions are kept. Action block t leads from observation t to t + 1,
and no transition crosses a reset.

Shapes: M episodes, T blocks, K primitive actions a block, A action, S sensors, P physical state.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from envs import Simulator
from modules.types import Observation


@dataclass(frozen=True)
class Dataset:
    """Episodes side by side."""

    pixels: Tensor | None
    """(M, T+1, C, H, W) uint8."""
    sensors: Tensor | None
    """(M, T+1, S) float32."""
    actions: Tensor
    """(M, T, K, A) float32."""
    scene: NDArray[np.int64]
    """(M,) episodes with the same number share a scene."""
    factors: dict[str, NDArray] | None
    """Name -> (M, T+1) factors of variation for probes and pictures; never used in training."""
    positions: NDArray | None
    """(M, T+1, 2) likewise."""
    states: NDArray | None = None
    """(M, T+1, P) full physical states, likewise."""
    simulator: Simulator | None = None
    """The world they came from, when it is a simulator."""

    @property
    def episodes(self) -> int:
        """M."""
        return self.actions.shape[0]

    @property
    def length(self) -> int:
        """T."""
        return self.actions.shape[1]

    def observe(self, episode: Tensor, time: Tensor | slice) -> Observation:
        """Observations at (episode, time), whatever shape the two index to."""
        return Observation(
            None if self.pixels is None else self.pixels[episode, time],
            None if self.sensors is None else self.sensors[episode, time],
        )


def _joined(parts: Iterable[Dataset], counts: list[int]) -> Dataset:
    """One dataset of several. Parts are copied as they come, so that no two are held beside the whole."""
    whole: dict[str, Any] = {}
    scenes, first = 0, 0

    def place(name: str, x: Any) -> None:
        if name not in whole:
            shape = (sum(counts), *x.shape[1:])
            whole[name] = x.new_empty(shape) if isinstance(x, Tensor) else np.empty(shape, x.dtype)
        whole[name][first : first + len(x)] = x

    part = None
    for part in parts:
        for name in ("pixels", "sensors", "actions", "positions", "states"):
            if getattr(part, name) is not None:
                place(name, getattr(part, name))
        for name, x in (part.factors or {}).items():
            place(f"factors.{name}", x)
        place("scene", part.scene + scenes)
        scenes += int(part.scene[-1]) + 1 if part.simulator is None or part.simulator.has_scenes else 0
        first += part.episodes
    assert part is not None
    factors = {k.removeprefix("factors."): whole.pop(k) for k in [k for k in whole if k.startswith("factors.")]}
    for name in ("pixels", "sensors", "positions"):
        whole.setdefault(name, None)
    return Dataset(**whole, factors=factors or None, simulator=part.simulator)
