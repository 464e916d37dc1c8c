"""How fast an environment is, and whether stepping or observing takes the time."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any

import gymnasium as gym

from agent.config import Config
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


def observing_share(env: gym.Env, seed: int, actions: Sequence[Any]) -> float | None:
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


def speed_finding(rate: float, share: float | None, how: str, config: Config) -> Finding:
    """How fast the environment is, where its time goes, and how long exploration would take.

    Args:
        rate: environment steps (primitive actions) in a second.
        share: of the time, that goes into observing or rendering; None when it is unknown.
        how: how it was measured, to complete "... environment steps/s".
        config: of the training.

    Returns:
        A warning when exploration would take longer than SLOW minutes.
    """
    collect = config.collect
    steps = collect.steps or collect.episodes * collect.length * config.world_model.action_block
    minutes = steps / rate / 60
    parts = "time not split: step() has no separate function for observations"
    if share is not None:
        parts = f"{100 * (1 - share):.0f} % stepping, {100 * share:.0f} % observing or rendering"
    amount = f"{steps} steps" if collect.steps else f"{collect.episodes} episodes of {collect.length} blocks"
    found = f"{rate:.0f} environment steps/s {how} ({parts}); exploring {amount} takes {minutes:.1f} minutes or more"
    if minutes <= SLOW:
        return Finding("speed", "ok", found)
    cheaper = "render smaller or simpler frames" if share is not None and share > 0.5 else "make step() faster"
    fewer = f"--steps {max(1, int(steps * SLOW / minutes))}"
    if not collect.steps:
        fewer = f"--collect.episodes {max(1, int(collect.episodes * SLOW / minutes))}"
    return Finding("speed", "warning", found, f"{cheaper}, or train with {fewer} for {SLOW} minutes of exploration")
