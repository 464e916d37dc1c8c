"""What an exploration shows of a world: does it repeat, do its senses tell anything, do actions matter?

The part of `agent/check.py` that steps the world, with the explorer that training uses.

Shapes: T steps, A action numbers, K primitive actions a block, S sensors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from agent import config
from agent.interaction.explore import Explorer
from envs.gym_env import SimEnv
from modules.actions import BoxActions

TWINS = 8  # pairs of futures per action number


PREFIX = 16  # steps before they part, at most


@dataclass(frozen=True)
class Finding:
    """What one check came to."""

    check: str
    result: str
    """ok, warning or failed."""
    found: str
    advice: str = ""


@dataclass(frozen=True)
class _Walk:
    seen: list[dict[str, NDArray]]
    starts: list[bool]
    """Whether an episode begins with this observation."""
    lengths: list[int]
    """Steps of each episode that ended."""
    outside: int
    """Observations that are not in the observation space."""
    seconds: float


def _walk(env: gym.Env, seed: int, actions: NDArray, stop: bool = False) -> _Walk:
    """Take the actions (T, A), episode after episode; stop: only as far as the first one goes."""
    began, outside, lengths, steps = time.perf_counter(), 0, [], 0
    observation, _ = env.reset(seed=seed)
    seen, starts = [_named(observation)], [True]
    for action in actions:
        observation, _, terminated, truncated, _ = env.step(action)
        outside += observation not in env.observation_space
        seen.append(_named(observation))
        starts.append(False)
        steps += 1
        if terminated or truncated:
            lengths.append(steps)
            if stop:
                break
            observation, steps = env.reset()[0], 0
            seen.append(_named(observation))
            starts.append(True)
    return _Walk(seen, starts, lengths, outside, time.perf_counter() - began)


def _named(observation: Any) -> dict[str, NDArray]:
    """Copies of what will be seen, by name."""
    if isinstance(observation, dict):
        return {k: np.array(v) for k, v in observation.items() if k in ("pixels", "sensors")}
    array = np.array(observation)
    return {"pixels" if array.dtype == np.uint8 and array.ndim == 3 else "sensors": array}


def _gap(a: dict[str, NDArray], b: dict[str, NDArray]) -> float:
    """The largest difference between two observations."""
    return max(float(np.abs(a[k].astype(np.float64) - b[k]).max(initial=0)) for k in a)


def explore(
    env: gym.Env, again: Callable[[], gym.Env], steps: int, seed: int, length: int, block: int
) -> Iterator[Finding]:
    """All findings of `steps` primitive actions; again() makes the same world anew."""
    space = cast(spaces.Box, env.action_space)
    rng = np.random.default_rng(seed)
    actions_of = BoxActions(tuple(space.low.tolist()), tuple(space.high.tolist()))
    explorer = Explorer(config.ExploreConfig(), actions_of, 1, block, rng)
    actions = np.concatenate([explorer.next_block()[0] for _ in range(-(-steps // block))])
    walk = _walk(env, seed, actions)
    findings = list(_observations(walk, env.observation_space))
    yield from findings
    if any(f.check == "observations" and f.result == "failed" for f in findings):
        return  # NaN equals nothing, so the rest would mislead
    yield _repeats(env, again, seed, actions[:100], walk)
    yield _effect(env, seed, actions, block, rng)
    yield _episodes(env, walk, length, block)
    rate = len(actions) / walk.seconds
    minutes = config.ExploreConfig.episodes * length * block / rate / 60
    slow = minutes > 60 and not isinstance(env.unwrapped, SimEnv)  # ours are explored as arrays
    advice = f"exploration with the default --collect.episodes would take {minutes:.0f} minutes: give fewer"
    yield Finding("speed", "warning" if slow else "ok", f"{rate:.0f} steps/s, one world", advice if slow else "")


def _observations(walk: _Walk, space: spaces.Space) -> Iterator[Finding]:
    """Finite, inside their space, and they change."""
    bad = sum(not all(np.isfinite(v).all() for v in seen.values()) for seen in walk.seen)
    if bad:
        yield Finding("observations", "failed", f"{bad} of {len(walk.seen)} hold NaN or infinity", "mend the world")
        return
    if walk.outside:
        found, advice = (
            f"{walk.outside} of {len(walk.seen)} are outside their space",
            "declare the range they really have",
        )
        yield Finding("observations", "warning", found, f"{advice}, dtype and shape included: it scales the sensors")
    pairs = [(a, b) for a, b, first in zip(walk.seen, walk.seen[1:], walk.starts[1:], strict=False) if not first]
    moved = float(np.mean([_gap(a, b) > 0 for a, b in pairs]))
    advice = "" if moved > 0.5 else "there is nothing to predict: do observations show what actions change?"
    result = "ok" if moved > 0.5 else "warning" if moved > 0.01 else "failed"
    yield Finding("change", result, f"{100 * moved:.0f} % of steps change what is seen", advice)
    parts = space.spaces if isinstance(space, spaces.Dict) else {next(iter(walk.seen[0])): space}
    for name in walk.seen[0]:
        values = np.stack([seen[name] for seen in walk.seen])
        yield _sensors(values, cast(spaces.Box, parts[name])) if name == "sensors" else _pixels(values)


def _sensors(values: NDArray, space: spaces.Box) -> Finding:
    """Which of the sensors (T, S) never change, and how much of their declared range they use."""
    low, high = values.min(0).astype(np.float64), values.max(0).astype(np.float64)
    bounded = np.isfinite(space.low) & np.isfinite(space.high)
    width = np.where(bounded, space.high.astype(np.float64) - space.low, 1.0)
    used = (high - low)[bounded] / np.maximum(width[bounded], 1e-12)
    found = f"{len(low)} sensors, {int((~bounded).sum())} without bounds"
    if len(used):
        found += f"; the least moving uses {100 * used.min():.0f} % of its range"
    dead = np.flatnonzero(high == low).tolist()
    if len(dead) == len(low):
        return Finding("sensors", "failed", f"{found}; none of them ever changes", "give sensors that the state moves")
    if dead:
        return Finding("sensors", "warning", f"{found}; {dead} never change", "leave constant sensors out")
    if len(used) and used.min() < 0.02:
        tight = np.flatnonzero(bounded)[used < 0.02].tolist()
        advice = f"declare a tighter range for {tight}: sensors are scaled by it, and these would hardly count"
        return Finding("sensors", "warning", found, advice)
    return Finding("sensors", "ok", found)


def _pixels(values: NDArray) -> Finding:
    """How much of the pixels (T, C, H, W) ever changes, and how much is black or white."""
    moving = float((values.max(0) != values.min(0)).mean())
    saturated = float(((values == 0) | (values == 255)).mean())
    found = f"{100 * moving:.1f} % of pixels ever change, {100 * saturated:.0f} % are 0 or 255"
    if moving == 0:
        return Finding(
            "pixels", "failed", f"{found}: always the same picture", "is the camera on the scene, the light on?"
        )
    return Finding("pixels", "ok", found)


def _repeats(env: gym.Env, again: Callable[[], gym.Env], seed: int, actions: NDArray, walk: _Walk) -> Finding:
    """Same seed, same actions: the same observations, in this instance and in a new one."""
    other = again()
    try:
        same_again, same_anew = (
            all(_gap(a, b) == 0 for a, b in zip(_walk(e, seed, actions).seen, walk.seen, strict=False))
            for e in (env, other)
        )
    finally:
        other.close()
    if same_again and same_anew:
        return Finding("determinism", "ok", f"same seed, same observations: {len(actions)} steps, three times")
    where = "in a new instance" if same_again else "after another reset"
    advice = "draw every random number from self.np_random, and let reset(seed=...) restore everything"
    return Finding("determinism", "warning", f"same seed and actions, other observations {where}", advice)


def _effect(env: gym.Env, seed: int, actions: NDArray, block: int, rng: np.random.Generator) -> Finding:
    """Two futures that part in one action number, its largest against its smallest, must look different.

    Where the world itself does not repeat, they must differ by more than two futures of equal actions do.
    """
    space = cast(spaces.Box, env.action_space)
    size, gaps = len(space.low), np.full((TWINS, len(space.low) + 1), np.nan)
    for i in range(TWINS):
        prefix = int(rng.integers(min(PREFIX, len(actions))))
        for j in range(size + 1):  # the last pair has equal actions
            ends = []
            for value in (space.low, space.high):
                last = np.repeat(actions[prefix : prefix + 1], block, 0)
                if j < size:
                    last[:, j] = value[j]
                ends.append(_walk(env, seed + i, np.concatenate([actions[:prefix], last]), stop=True).seen)
            shorter = min(map(len, ends))
            if shorter > prefix + 1:  # otherwise the episode was over before they parted
                gaps[i, j] = _gap(*(end[shorter - 1] for end in ends))
    if np.isnan(gaps).all():
        return Finding("actions matter", "warning", "episodes are too short to tell", "let episodes last longer")
    noise = float(np.nanmax(gaps[:, -1]))  # 0 where the world repeats
    shares = np.nanmean(gaps[:, :-1] > 3 * noise, axis=0)
    dead = np.flatnonzero(shares == 0).tolist()
    if not dead:
        found = f"each of {size} numbers changes what is seen, in at least {100 * shares.min():.0f} % of states"
        return Finding("actions matter", "ok", found)
    if noise > 0:
        found = f"numbers {dead} of the action change what is seen no more than chance does"
        return Finding("actions matter", "warning", found, "let reset(seed=...) repeat the world, to be sure")
    advice = "does step() use them, and do observations show what they do within a block?"
    result = "failed" if len(dead) == size else "warning"
    return Finding("actions matter", result, f"numbers {dead} of the action change nothing that is seen", advice)


def _episodes(env: gym.Env, walk: _Walk, length: int, block: int) -> Finding:
    """Training keeps pieces of `length` blocks that lie inside one episode."""
    need, limit = (
        length * block,
        getattr(env.unwrapped, "max_steps", None) or getattr(env.spec, "max_episode_steps", None),
    )
    if not walk.lengths:
        advice = f"--collect.length {limit // block}" if limit is not None and limit < need else ""
        found = f"none ended in {len(walk.seen) - 1} steps, the limit is {limit}, training wants pieces of {need}"
        return Finding("episodes", "failed" if advice else "ok", found, advice)
    median = int(np.median(walk.lengths))
    found = f"{median} steps (median of {len(walk.lengths)}), training wants pieces of {need}"
    if min(walk.lengths) >= need:
        return Finding("episodes", "ok", found)
    advice = (
        f"--collect.length {max(1, median // block // 2)}"
        + f" --world-model.action-block {max(1, median // 2)}" * (median < 2 * block)
    )
    result = "failed" if max(walk.lengths) < need else "warning"
    return Finding("episodes", result, found, f"pieces that a reset interrupts are dropped: {advice}")
