"""What episodes that act together carry from one decision to the next.

Shapes: E episodes acting at once, H steps of a plan, K primitive actions a block, A action.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from modules.types import Directive, Plan, State


@dataclass
class Episode:
    """What E episodes carry from one decision to the next. Each field has one row per episode; they may end apart."""

    number: NDArray[np.int64]
    """(E,) which no other episode of this agent has."""
    time: NDArray[np.int64]
    """(E,) primitive actions since each episode began."""
    carry: Any = None
    """Of perception, as it was when the current block of executed actions began."""
    plan: Plan | None = None
    """Actions (E, H, K, A) under way and what they were expected to cost."""
    offset: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """(E,) primitive actions of the plan already executed."""
    planned: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    """(E,) whether the episode has a plan under way."""
    reference: State | None = None
    """(E, ...) the state from which the current block of executed actions began."""
    executed: Tensor | None = None
    """(E, K, A) primitive actions executed since."""
    since: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """(E,) how many they are."""
    directive: Directive | None = None
    """Of the decision before."""

    @property
    def size(self) -> int:
        """E."""
        return len(self.number)
