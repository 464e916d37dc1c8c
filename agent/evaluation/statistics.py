"""Statistics of comparisons: interquartile means, stratified bootstrap intervals, probability of improvement.

What is compared is a table of outcomes per variant, one row per training seed and one column per task. Seeds and tasks
are the same for all variants, so differences are taken cell by cell (R. Agarwal et al., "Deep Reinforcement Learning at
the Edge of the Statistical Precipice", arXiv 2108.13264).

Shapes: S seeds, N tasks, R bootstrap replicates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

REPLICATES = 2000


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


def iqm(scores: NDArray) -> NDArray:
    """Mean of the middle half along the last axis (S,); a score that is cut by a quartile counts in proportion."""
    ordered, n = np.sort(scores, -1), scores.shape[-1]
    edges = np.arange(n + 1) / n
    weight = np.clip(np.minimum(edges[1:], 0.75) - np.maximum(edges[:-1], 0.25), 0, None)
    return (ordered * weight).sum(-1) / weight.sum()


def resample(seeds: int, tasks: int, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
    """Indices of R replicates: seeds drawn with replacement (R, S), and tasks (R, N), the same for all seeds.

    The tasks are common to the seeds, so their luck is too: drawn anew for every seed it would average out, and the
    interval would be too narrow.
    """
    return rng.integers(seeds, size=(REPLICATES, seeds)), rng.integers(tasks, size=(REPLICATES, tasks))


def estimate(outcomes: NDArray, other: NDArray | None = None, seed: int = 0) -> Estimate:
    """IQM over seeds of the success over tasks (S, N); minus that of `other` in the same replicates when given.

    Raises:
        ValueError: the tables are empty or of different shapes.
    """
    if outcomes.ndim != 2 or not outcomes.size or (other is not None and other.shape != outcomes.shape):
        shapes = [x.shape for x in (outcomes, other) if x is not None]
        raise ValueError(f"outcomes must be tables (seeds, tasks) of one shape, got {shapes}")
    which, drawn = resample(outcomes.shape[0], outcomes.shape[1], np.random.default_rng(seed))

    def of(table: NDArray) -> tuple[float, NDArray]:
        replicated = table[which[:, :, None], drawn[:, None]].mean(-1)
        return float(iqm(table.mean(1))), iqm(replicated)

    value, spread = of(outcomes.astype(np.float64))
    if other is not None:
        base, base_spread = of(other.astype(np.float64))
        value, spread = value - base, spread - base_spread
    low, high = np.quantile(spread, [0.025, 0.975])
    return Estimate(value, float(low), float(high))


def probability_of_improvement(outcomes: NDArray, other: NDArray) -> float:
    """P(a seed of the first does better than a seed of the second), ties counting half: (S, N), (S', N)."""
    mine, theirs = outcomes.mean(1)[:, None], other.mean(1)[None]
    return float(((mine > theirs) + 0.5 * (mine == theirs)).mean())


def mean_interval(values: NDArray, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean of values (N,), by the bootstrap over them."""
    drawn = np.random.default_rng(seed).integers(len(values), size=(REPLICATES, len(values)))
    low, high = np.quantile(values[drawn].mean(1), [0.025, 0.975])
    return float(low), float(high)


def wilson(success: float, n: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson score)."""
    z = 1.959964
    centre = (success + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(success * (1 - success) / n + z * z / (4 * n * n))
    return (max(0.0, centre - half) if success > 0 else 0.0), (min(1.0, centre + half) if success < 1 else 1.0)
