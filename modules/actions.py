"""What an action is: a box of numbers, and where the environment says so, a ball inside it (Protocol `types.Actions`).

Shapes: A numbers of one primitive action, N actions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class BoxActions:
    """Numbers between low and high, whose Euclidean norm is at most max_norm."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    max_norm: float | None = None
    """Largest Euclidean norm of one primitive action, or None."""

    def __post_init__(self) -> None:
        if self.max_norm is not None and any(a > 0 or b < 0 for a, b in zip(self.low, self.high, strict=True)):
            raise ValueError(
                f"max_norm={self.max_norm} bounds a ball around 0, which {self.low} to {self.high} excludes"
            )

    @property
    def size(self) -> int:
        """A."""
        return len(self.low)

    def project(self, actions: Tensor) -> Tensor:
        """(..., A) into the box, then into the ball. Differentiable almost everywhere."""
        if len(set(self.low)) == 1 and len(set(self.high)) == 1:  # the usual case, and half the time of the other
            actions = actions.clamp(self.low[0], self.high[0])
        else:
            low, high, _, _ = _limits(self, actions.dtype, actions.device)
            actions = torch.maximum(torch.minimum(actions, high), low)
        if self.max_norm is None:
            return actions
        norm = torch.linalg.vector_norm(actions, dim=-1, keepdim=True)
        return actions * (self.max_norm / norm.clamp(min=self.max_norm))

    def rest(self, like: Tensor) -> Tensor:
        """The middle of the box, or where the ball excludes it the nearest to it in its direction, (A,)."""
        return self.project(_limits(self, like.dtype, like.device)[2])

    def unit(self, like: Tensor) -> Tensor:
        """Half the range of every number, (A,); the ball may be the tighter bound, or the only one."""
        half = _limits(self, like.dtype, like.device)[3]
        return half if self.max_norm is None else half.clamp(max=self.max_norm)

    def features(self, actions: Tensor) -> Tensor:
        """(..., A) -> (..., A) in [-1, 1]."""
        _, _, centre, half = _limits(self, actions.dtype, actions.device)
        return (actions - centre) / half

    def scale(self, features: Tensor) -> Tensor:
        """The inverse of `features`: (..., A) -> (..., A), not projected."""
        _, _, centre, half = _limits(self, features.dtype, features.device)
        return centre + half * features

    def from_features(self, features: Tensor) -> Tensor:
        """The inverse of `features`, projected: (..., A) -> (..., A)."""
        _, _, centre, half = _limits(self, features.dtype, features.device)
        return self.project(torch.addcmul(centre, half, features))

    def boundary(self, direction: Tensor) -> Tensor:
        """Unit vectors (..., A) -> features of the farthest action in that direction that can be executed, (..., A).

        Explorers and gauges scale from here, so that they cover all that a planner may use: the corners of a box too.
        """
        _, _, _, half = _limits(self, direction.dtype, direction.device)
        if self.max_norm is not None and all(math.isclose(h, self.max_norm, rel_tol=1e-6) for h in half.tolist()):
            return direction  # the usual case: a ball that touches its box
        length = 1 / direction.abs().amax(-1, keepdim=True).clamp(min=1e-9)
        if self.max_norm is not None:
            norm = torch.linalg.vector_norm(half * direction, dim=-1, keepdim=True)
            length = torch.minimum(length, self.max_norm / norm.clamp(min=1e-9))
        return direction * length

    def primitives(self) -> Tensor:
        """Rest, then full strength in all directions, then half strength: (N, A).

        Half strength matters where a full step would jump past what it has to meet, such as a door. Two numbers have
        eight directions, more numbers have one along each axis and against it.
        """
        _, _, centre, half = _limits(self, torch.float32, torch.device("cpu"))
        if self.size == 2:
            angle = torch.arange(8) * (math.pi / 4)
            direction = torch.stack([angle.cos(), angle.sin()], 1)
        else:
            eye = torch.eye(self.size)
            direction = torch.cat([eye, -eye])
        rest, full = self.project(centre), self.project(centre + half * self.boundary(direction))
        return torch.cat([rest[None], full, (full + rest) / 2])

    def to_env(self, actions: NDArray) -> NDArray:
        """(..., A) as the environment takes them: unchanged."""
        return actions

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Mean squared difference in half ranges: (..., A), (..., A) -> scalar."""
        return ((a - b) / _limits(self, a.dtype, a.device)[3]).square().mean()


@lru_cache(maxsize=64)
def _limits(space: BoxActions, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """low, high, centre and half range, (A,) each."""
    low, high = (torch.tensor(x, dtype=dtype, device=device) for x in (space.low, space.high))
    return low, high, (low + high) / 2, (high - low) / 2
