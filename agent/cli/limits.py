"""Estimates of memory, so that a command which cannot fit is refused before it starts.

All estimates are from below: they count the arrays that grow with a setting, not everything else. The factors were
measured as the growth of a process, and real needs are up to twice as large.

Shapes: E episodes, N candidate plans, H imagined steps, D numbers of a state, B windows, T states of a window.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from agent.errors import UserError

SHARE = 0.75
"""Share of the machine's memory that a command may use."""


FLOAT = 4
"""Bytes of a float32."""


@dataclass(frozen=True)
class Need:
    """Memory that one part of a command needs."""

    what: str
    bytes: int
    flags: str
    """What the user has to change to need less."""


def planning(episodes: int, samples: int, horizon: int, state: int, flags: str, gradient: bool = False) -> Need:
    """Candidate plans of all episodes that act together: E N H states of D numbers.

    The rollout, the stacked copy and the cost's differences are alive at once; a planner that differentiates keeps the
    activations of every step as well.
    """
    copies = 20 if gradient else 3
    return Need(
        f"{episodes} episodes x {samples} candidates x {horizon} imagined steps x {state} numbers",
        copies * FLOAT * episodes * samples * horizon * state,
        flags,
    )


def paths(tasks: int, budget: int) -> Need:
    """Where the agent and three reference controllers are after each step of each task: two float64 each."""
    return Need(f"{tasks} tasks x {budget} steps", 4 * 2 * 8 * tasks * (budget + 1), "--tasks or --budget")


def window_batch(batch: int, window: int, pixels: int, state: int, hidden: int) -> Need:
    """A batch of the world model with its gradients: B T frames of pixels as floats, states and hidden units."""
    return Need(
        f"{batch} windows x {window} states",
        FLOAT * batch * window * (3 * (pixels + state) + 6 * hidden),
        "--learn.batch or --learn.window",
    )


def exploration(episodes: int, length: int, observation_bytes: int) -> Need:
    """All observations of an exploration, which are kept in memory."""
    return Need(
        f"{episodes} episodes x {length + 1} observations",
        episodes * (length + 1) * observation_bytes,
        "--collect.episodes or --collect.length",
    )


def check_memory(needs: Iterable[Need], available: int | None = None) -> None:
    """UserError for the first need that is larger than SHARE of the memory, with the flags to change.

    available: bytes; those of this machine by default.
    """
    limit = SHARE * (machine_memory() if available is None else available)
    for need in needs:
        if need.bytes > limit:
            raise UserError(
                f"{need.what} need at least {need.bytes / 2**30:.1f} GiB of memory, more than {100 * SHARE:.0f} % of "
                f"this machine's ({limit / 2**30:.1f} GiB): lower {need.flags}"
            )


def machine_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or its control group's where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            total = min(total, int((Path("/sys/fs/cgroup") / name).read_text()))
        except (OSError, ValueError):  # no control groups here, or one without a limit
            continue
    return total
