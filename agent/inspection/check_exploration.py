"""What exploration shows of an environment: does it repeat, do observations change, do actions have an effect?

The part of `check` that steps the environment, with the explorer that training uses.

Shapes: T steps, A action dimensions, K primitive actions in a block, S sensors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, cast

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from agent import config
from agent.errors import UserError
from agent.inspection.check_speed import observing_share, speed_finding
from agent.inspection.finding import Finding
from agent.interaction.explore import Explorer
from agent.spec import named
from envs.gym_env import SimEnv
from modules.actions import BoxActions

TWINS = 8  # pairs of futures per action dimension
PREFIX = 16  # most steps before a pair parts
TIMED = 60  # steps whose time is split into stepping and observing


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
    """Time in the environment's own reset and step."""


def _walk(env: gym.Env, seed: int, actions: NDArray, stop: bool = False) -> _Walk:
    """Take the actions (T, A), episode after episode; stop: end with the first episode."""
    outside, lengths, steps = 0, [], 0
    began = time.perf_counter()
    observation, _ = env.reset(seed=seed)
    seconds = time.perf_counter() - began
    seen, starts = [_copied(observation)], [True]
    for action in actions:
        began = time.perf_counter()
        observation, _, terminated, truncated, _ = env.step(action)
        seconds += time.perf_counter() - began
        outside += observation not in env.observation_space
        seen.append(_copied(observation))
        starts.append(False)
        steps += 1
        if terminated or truncated:
            lengths.append(steps)
            if stop:
                break
            began = time.perf_counter()
            observation, steps = env.reset()[0], 0
            seconds += time.perf_counter() - began
            seen.append(_copied(observation))
            starts.append(True)
    return _Walk(seen, starts, lengths, outside, seconds)


def _copied(observation: Any) -> dict[str, NDArray]:
    """Copies of the parts that the agent perceives: environments may reuse their arrays."""
    return {name: array.copy() for name, array in named(observation).items()}


def _gap(a: dict[str, NDArray], b: dict[str, NDArray]) -> float:
    """The largest difference between two observations."""
    return max(float(np.abs(a[k].astype(np.float64) - b[k]).max(initial=0)) for k in a)


def explore(again: Callable[[], gym.Env], steps: int, seed: int, length: int, block: int) -> Iterator[Finding]:
    """The findings of an exploration.

    Args:
        again: makes the environment; never called while another copy is open.
        steps: primitive actions to explore for.
        seed: of the environment and of the actions.
        length: blocks in a training episode.
        block: primitive actions in a block.

    Yields:
        One finding per check. After an observation that is not finite the other checks are left out.
    """
    with closing(again()) as env:
        space = cast(spaces.Box, env.action_space)
        rng = np.random.default_rng(seed)
        limits = BoxActions(tuple(space.low.tolist()), tuple(space.high.tolist()))
        explorer = Explorer(config.ExploreConfig(), limits, 1, block, rng)
        actions = np.concatenate([explorer.next_block()[0] for _ in range(-(-steps // block))])
        walk = _walk(env, seed, actions)
        findings = list(_observations(walk, env.observation_space))
        yield from findings
        if any(f.check == "observations" and f.result == "failed" for f in findings):
            return  # NaN equals nothing, so the other comparisons would mislead
        again_same = _same(walk, _walk(env, seed, actions[:100]))
        yield _effect(env, seed, actions, block, rng)
        yield _episodes(env, walk, length, block)
        if not isinstance(env.unwrapped, SimEnv):  # a Simulator is timed as arrays, the way it is explored
            share = observing_share(env, seed, actions[:TIMED])
            yield speed_finding(len(actions) / walk.seconds, share, "in one environment", length, block)
    with closing(again()) as env:
        yield _determinism(again_same, _same(walk, _walk(env, seed, actions[:100])), len(actions[:100]))


def _same(walk: _Walk, other: _Walk) -> bool:
    """Whether the shorter walk saw exactly what the longer one saw at first."""
    return all(_gap(a, b) == 0 for a, b in zip(walk.seen, other.seen, strict=False))


def _observations(walk: _Walk, space: spaces.Space) -> Iterator[Finding]:
    """Finite, inside their space, and they change."""
    bad = sum(not all(np.isfinite(v).all() for v in seen.values()) for seen in walk.seen)
    if bad:
        advice = "fix the environment so that every observation is finite"
        yield Finding("observations", "failed", f"{bad} of {len(walk.seen)} hold NaN or infinity", advice)
        return
    if walk.outside:
        found = f"{walk.outside} of {len(walk.seen)} are outside the observation space"
        advice = "declare the true range, dtype and shape: sensors are scaled by the declared range"
        yield Finding("observations", "warning", found, advice)
    pairs = [(a, b) for a, b, first in zip(walk.seen, walk.seen[1:], walk.starts[1:], strict=False) if not first]
    moved = float(np.mean([_gap(a, b) > 0 for a, b in pairs]))
    advice = "" if moved > 0.5 else "observe what actions change: a world model learns from changes"
    result = "ok" if moved > 0.5 else "warning" if moved > 0.01 else "failed"
    yield Finding("change", result, f"the observation changes in {100 * moved:.0f} % of steps", advice)
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
        found += f"; the smallest movement uses {100 * used.min():.0f} % of its declared range"
    dead = np.flatnonzero(high == low).tolist()
    if len(dead) == len(low):
        return Finding(
            "sensors", "failed", f"{found}; none of them ever changes", "add sensors that depend on the state"
        )
    if dead:
        return Finding("sensors", "warning", f"{found}; sensors {dead} never change", "remove constant sensors")
    if len(used) and used.min() < 0.02:
        tight = np.flatnonzero(bounded)[used < 0.02].tolist()
        advice = f"declare a tighter range for sensors {tight}: scaled by the declared one, they would hardly count"
        return Finding("sensors", "warning", found, advice)
    return Finding("sensors", "ok", found)


def _pixels(values: NDArray) -> Finding:
    """How many of the pixels (T, C, H, W) ever change, and how many are black or white."""
    moving = float((values.max(0) != values.min(0)).mean())
    saturated = float(((values == 0) | (values == 255)).mean())
    found = f"{100 * moving:.1f} % of pixels ever change, {100 * saturated:.0f} % are 0 or 255"
    if moving == 0:
        advice = "check that the camera points at the scene, that there is light, and that each step renders anew"
        return Finding("pixels", "failed", f"{found}: every frame is the same", advice)
    return Finding("pixels", "ok", found)


def _determinism(same_instance: bool, new_instance: bool, steps: int) -> Finding:
    """Same seed, same actions: the same observations, in this instance and in a new one."""
    if same_instance and new_instance:
        found = f"same seed, same observations: {steps} steps, three times"
        return Finding("determinism", "ok", found)
    where = "in a new instance" if same_instance else "after another reset"
    advice = "draw every random number from self.np_random, and let reset(seed=...) restore everything"
    return Finding("determinism", "warning", f"same seed and actions, different observations {where}", advice)


def _effect(env: gym.Env, seed: int, actions: NDArray, block: int, rng: np.random.Generator) -> Finding:
    """Two futures that differ in one action dimension, its maximum against its minimum, must look different.

    In an environment that does not repeat itself they must differ by more than two futures of equal actions do.
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
            if shorter > prefix + 1:  # otherwise the episode ended before the two differed
                gaps[i, j] = _gap(*(end[shorter - 1] for end in ends))
    if np.isnan(gaps).all():
        return Finding("actions matter", "warning", "episodes are too short to tell", "make episodes longer")
    noise = float(np.nanmax(gaps[:, -1]))  # 0 where the environment repeats itself
    shares = np.nanmean(gaps[:, :-1] > 3 * noise, axis=0)
    dead = np.flatnonzero(shares == 0).tolist()
    if not dead:
        found = f"each of {size} dimensions changes the observation, in at least {100 * shares.min():.0f} % of states"
        return Finding("actions matter", "ok", found)
    if noise > 0:
        found = f"action dimensions {dead} change the observation no more than noise does"
        advice = "make reset(seed=...) repeatable, so that this check can tell an effect from noise"
        return Finding("actions matter", "warning", found, advice)
    advice = "check that step() uses them and that observations show their effect within one block"
    result = "failed" if len(dead) == size else "warning"
    return Finding("actions matter", result, f"action dimensions {dead} do not change the observation", advice)


def _episodes(env: gym.Env, walk: _Walk, length: int, block: int) -> Finding:
    """Training keeps sequences of `length` blocks from inside one episode; a Simulator is never truncated there."""
    need = length * block
    if isinstance(env.unwrapped, SimEnv):
        return Finding("episodes", "ok", f"{need} steps: training sets the length and does not truncate a Simulator")
    limit = getattr(env.spec, "max_episode_steps", None)
    if not walk.lengths:
        found = f"none ended in {len(walk.seen) - 1} steps, the limit is {limit}, training needs {need} in a row"
        if limit is None or limit >= need:
            return Finding("episodes", "ok", found)
        return Finding("episodes", "failed", found, f"train with {shorter_sequences(limit, block)}")
    median = int(np.median(walk.lengths))
    found = f"{median} steps (median of {len(walk.lengths)}), training needs {need} in a row"
    if min(walk.lengths) >= need:
        return Finding("episodes", "ok", found)
    result = "failed" if max(walk.lengths) < need else "warning"
    advice = (
        f"sequences that a reset interrupts are dropped: train with {shorter_sequences(max(1, median // 2), block)}"
    )
    return Finding("episodes", result, found, advice)


def shorter_sequences(steps: int, block: int) -> str:
    """Flags of `train` with which a training sequence takes at most `steps` primitive actions.

    Prefers settings that keep the default window, then the longest blocks; `train` accepts what is returned.
    """
    default = config.Config()
    full = default.learn.window - 1
    for fewer in sorted(range(min(block, steps), 0, -1), key=lambda b: -min(full, steps // b)):
        length = steps // fewer
        window = min(full, length) + 1
        advised = replace(
            default,
            collect=replace(default.collect, length=length),
            learn=replace(default.learn, window=window),
            world_model=replace(default.world_model, action_block=fewer),
        )
        try:
            config.check(advised)
        except UserError:
            continue
        flags = f"--collect.length {length}"
        flags += f" --world-model.action-block {fewer}" * (fewer != default.world_model.action_block)
        return flags + f" --learn.window {window}" * (window != default.learn.window)
    raise AssertionError(f"no training sequence fits into {steps} steps")
