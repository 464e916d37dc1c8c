# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""What an action is: a box of numbers, with or without a ball inside it, or one of so many choices (`types.Actions`).

Shapes: A numbers of one primitive action, N actions, G groups of choices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
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

    def to_env(self, actions: NDArray[Any]) -> NDArray[Any]:
        """(..., A) as the environment takes them: unchanged."""
        return actions

    def from_env(self, actions: NDArray[Any]) -> NDArray[Any]:
        """The inverse of `to_env`, of N actions: (N, ...) -> (N, A)."""
        return actions.reshape(len(actions), -1)

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Mean squared difference in half ranges: (..., A), (..., A) -> scalar."""
        return ((a - b) / _limits(self, a.dtype, a.device)[3]).square().mean()


@lru_cache(maxsize=64)
def _limits(space: BoxActions, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """low, high, centre and half range, (A,) each."""
    low, high = (torch.tensor(x, dtype=dtype, device=device) for x in (space.low, space.high))
    return low, high, (low + high) / 2, (high - low) / 2


MOST_PRIMITIVES = 64
"""Beyond that many combinations of several choices, primitives change one choice at a time."""


@dataclass(frozen=True)
class DiscreteActions:
    """One choice, or several at once: Gymnasium's Discrete(n, start) and MultiDiscrete([n1, n2, ...], start).

    An action is one vector that is 1 at what is chosen and 0 elsewhere for every group of choices, all in a row. So
    A = sum(counts), and an average of actions holds the share of every choice.
    """

    counts: tuple[int, ...]
    """Choices of each group."""
    start: tuple[int, ...] = ()
    """What the environment calls the first choice of each group; () for 0."""
    kind: Literal["discrete", "multi"] = "discrete"
    """Whether the environment takes a number or a vector of G numbers."""

    def __post_init__(self) -> None:
        if not self.counts or min(self.counts) < 1 or len(self.start) not in (0, len(self.counts)):
            raise ValueError(f"each group of choices needs at least one of them, and a start or none: {self}")
        if self.kind not in ("discrete", "multi") or (self.kind == "discrete" and len(self.counts) > 1):
            raise ValueError(f"expected kind 'discrete' with one group of choices, or 'multi' with any: {self}")

    @property
    def size(self) -> int:
        """A."""
        return sum(self.counts)

    def project(self, actions: Tensor) -> Tensor:
        """(..., A) -> the largest number of every group becomes 1, the others 0. The first of several equal ones."""
        groups = actions.split(self.counts, -1)
        chosen = [torch.zeros_like(x).scatter_(-1, x.argmax(-1, keepdim=True), 1) for x in groups]
        return chosen[0] if len(chosen) == 1 else torch.cat(chosen, -1)

    def rest(self, like: Tensor) -> Tensor:
        """The first choice of every group, (A,): no choice is known to do nothing."""
        return self.project(like.new_zeros(self.size))

    def unit(self, like: Tensor) -> Tensor:
        """All ones, (A,): from not chosen to chosen."""
        return like.new_ones(self.size)

    def features(self, actions: Tensor) -> Tensor:
        """(..., A) -> (..., A) with mean 0 and variance 1 if all choices are equally frequent."""
        mean, width = _shares(self.counts, actions.dtype, actions.device)
        return (actions - mean) / width

    def scale(self, features: Tensor) -> Tensor:
        """The inverse of `features`: (..., A) -> (..., A), not projected."""
        mean, width = _shares(self.counts, features.dtype, features.device)
        return mean + width * features

    def from_features(self, features: Tensor) -> Tensor:
        """The choices with the largest features: (..., A) -> (..., A).

        The gradient is that of softmax (straight through), because a choice itself has none; a policy learns by it.
        """
        chosen = self.project(features)
        if not features.requires_grad:
            return chosen
        soft = torch.cat([x.softmax(-1) for x in features.split(self.counts, -1)], -1)
        return chosen + (soft - soft.detach())

    def boundary(self, direction: Tensor) -> Tensor:
        """Unit vectors (..., A) -> features of the action that lies most in that direction, (..., A)."""
        return self.features(self.project(direction))

    def primitives(self) -> Tensor:
        """All actions, rest first: (N, A). If there are too many, rest and all that differ from it in one choice."""
        if math.prod(self.counts) <= MOST_PRIMITIVES:
            index = torch.cartesian_prod(*(torch.arange(n) for n in self.counts)).view(-1, len(self.counts))
        else:
            index = torch.zeros(1 + self.size - len(self.counts), len(self.counts), dtype=torch.int64)
            row = 1
            for group, n in enumerate(self.counts):
                index[row : row + n - 1, group] = torch.arange(1, n)
                row += n - 1
        return torch.cat([torch.eye(n)[i] for n, i in zip(self.counts, index.unbind(-1), strict=True)], -1)

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Actions, each as likely as any other: (*shape, A)."""
        return np.concatenate([np.eye(n, dtype=np.float32)[rng.integers(n, size=shape)] for n in self.counts], -1)

    def to_env(self, actions: NDArray[Any]) -> NDArray[Any]:
        """(..., A) -> numbers of the choices, int64: (...) of a Discrete space, (..., G) of a MultiDiscrete one."""
        groups = np.split(actions, np.cumsum(self.counts)[:-1], -1)
        chosen = np.stack([x.argmax(-1) for x in groups], -1) + np.array(self.start or [0] * len(groups), np.int64)
        return chosen if self.kind == "multi" else np.asarray(chosen[..., 0])

    def from_env(self, actions: NDArray[Any]) -> NDArray[Any]:
        """The inverse of `to_env`, of N actions: (N,) or (N, G) -> (N, A)."""
        chosen = actions.reshape(len(actions), -1) - np.array(self.start or [0] * len(self.counts))
        return np.concatenate([np.eye(n, dtype=np.float32)[chosen[:, g]] for g, n in enumerate(self.counts)], 1)

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Mean squared difference: (..., A), (..., A) -> scalar."""
        return (a - b).square().mean()


@lru_cache(maxsize=64)
def _shares(counts: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every number if all choices are equally frequent, (A,) each."""
    mean = torch.tensor([1 / n for n in counts for _ in range(n)], dtype=dtype, device=device)
    width = (mean * (1 - mean)).sqrt()
    return mean, width.masked_fill(width == 0, 1.0)  # of a group with one choice nothing ever varies
