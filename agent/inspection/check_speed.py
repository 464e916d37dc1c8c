"""How fast an environment is, and whether stepping or observing takes the time."""

from __future__ import annotations

import re
import sys
import time
from types import FrameType
from typing import Any

import gymnasium as gym
from numpy.typing import NDArray

from agent import config
from agent.inspection.finding import Finding

SLOW = 60  # minutes of exploration above which the speed is a warning
OBSERVING = re.compile(r"_*(get_)?(render\w*|observation|observe|obs|image|pixels|frame)")


class _ObservingClock:
    """A profile function that adds up the time inside functions named like rendering or observing."""

    def __init__(self) -> None:
        self.seconds, self.calls = 0.0, 0
        self._outermost: FrameType | None = None
        self._began = 0.0

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and self._outermost is None and OBSERVING.fullmatch(frame.f_code.co_name):
            self._outermost, self._began = frame, time.perf_counter()
        elif event == "return" and frame is self._outermost:
            self.seconds += time.perf_counter() - self._began
            self.calls += 1
            self._outermost = None


def observing_share(env: gym.Env, seed: int, actions: NDArray) -> float | None:
    """Share of the time of step() that goes into observing or rendering; None when no function is named like that."""
    clock, total, before = _ObservingClock(), 0.0, sys.getprofile()
    env.reset(seed=seed)
    for action in actions:
        began = time.perf_counter()
        sys.setprofile(clock)
        try:
            _, _, terminated, truncated, _ = env.step(action)
        finally:
            sys.setprofile(before)
        total += time.perf_counter() - began
        if terminated or truncated:
            env.reset()
    return clock.seconds / total if clock.calls else None


def speed_finding(rate: float, share: float | None, how: str, length: int, block: int) -> Finding:
    """How fast the environment is, where its time goes, and how long exploration would take.

    Args:
        rate: environment steps (primitive actions) in a second.
        share: of the time, that goes into observing or rendering; None when it is unknown.
        how: how it was measured, to complete "... environment steps/s".
        length: blocks in a training episode.
        block: primitive actions in a block.

    Returns:
        A warning when exploration would take longer than SLOW minutes.
    """
    episodes = config.ExploreConfig.episodes
    minutes = episodes * length * block / rate / 60
    parts = "time not split: step() has no separate function for observations"
    if share is not None:
        parts = f"{100 * (1 - share):.0f} % stepping, {100 * share:.0f} % observing or rendering"
    found = (
        f"{rate:.0f} environment steps/s {how} ({parts}); "
        f"exploring {episodes} episodes of {length} blocks takes {minutes:.1f} minutes or more"
    )
    if minutes <= SLOW:
        return Finding("speed", "ok", found)
    cheaper = "render smaller or simpler frames" if share is not None and share > 0.5 else "make step() faster"
    fewer = max(1, int(episodes * SLOW / minutes))
    advice = f"{cheaper}, or train with --collect.episodes {fewer} for {SLOW} minutes of exploration"
    return Finding("speed", "warning", found, advice)
