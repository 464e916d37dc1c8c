"""What exploration shows of an environment: does it repeat, do observations change, do actions have an effect?

The part of `check` that steps the environment as training does: through the wrapper that perceives, with the guard
around it, and with the explorer.

Shapes: T steps, A numbers of an action, K primitive actions in a block, S sensors.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from agent.config import Config, check
from agent.errors import UserError
from agent.inspection.check_speed import observing_share, speed_finding
from agent.inspection.finding import Finding
from agent.interaction.environment import Environment
from agent.interaction.explore import Explorer
from agent.interaction.faults import Faults
from agent.interaction.scaling import WIDER
from agent.spec import named
from envs.guard import Guarded
from modules.actions import BoxActions, DiscreteActions
from modules.types import Actions, ObservationSpec

TWINS = 8  # groups of futures per action dimension
PREFIX = 16  # most steps before they part
APART = 4  # fewest steps after that
CHOICES = 6  # most choices that are compared in one state
TIMED = 60  # steps whose time is split into stepping and observing
MOST_FAULTS = 20  # after which it is clear


@dataclass
class Walk:
    """What was seen on a walk, episode after episode."""

    seen: list[dict[str, NDArray]] = field(default_factory=list)
    starts: list[bool] = field(default_factory=list)
    """Whether an episode begins with this observation."""
    terminated: list[int] = field(default_factory=list)
    """Steps of each episode that terminated."""
    truncated: list[int] = field(default_factory=list)
    """Steps of each that was truncated."""
    faults: list[str] = field(default_factory=list)
    """What happened in each episode that failed."""
    outside: int = 0
    """Observations that are not in the observation space."""
    seconds: float = 0.0
    """Time in the environment's own reset and step."""
    rewards: tuple[float, float] | None = None
    """The smallest and the largest."""
    tells_success: bool = False
    """Whether `info` says what success is."""

    @property
    def lengths(self) -> list[int]:
        """Steps of each sound episode that ended."""
        return self.terminated + self.truncated


class Walker:
    """Takes walks in one copy of an environment."""

    def __init__(self, environment: Environment, make: Callable[[], gym.Env]) -> None:
        self.actions, self.hidden = environment.spec.actions, environment.spec.observation.unseen
        # Simulators are explored as arrays, without a guard.
        self.env = make() if environment.truth is not None else Guarded(make)

    def close(self) -> None:
        """Close the copy."""
        self.env.close()

    def act(self, action: NDArray) -> Any:
        """(A,) an action of the agent as the environment takes it."""
        return self.actions.to_env(action[None])[0]

    def walk(self, seed: int, actions: NDArray, stop: bool = False) -> Walk:
        """Take the actions (T, A), episode after episode; stop: end with the first episode."""
        out, steps = Walk(), 0
        self._reset(out, seed)
        for action in actions:
            began = time.perf_counter()
            observation, reward, terminated, truncated, info = self.env.step(self.act(action))
            out.seconds += time.perf_counter() - began
            steps += 1
            if "fault" in info:
                out.faults.append(info["fault"])
                if stop or len(out.faults) >= MOST_FAULTS:
                    break
            else:
                out.outside += observation not in self.env.observation_space
                out.seen.append(self._copied(observation))
                out.starts.append(False)
                gained = float(reward)
                low, high = out.rewards or (gained, gained)
                out.rewards = min(low, gained), max(high, gained)
                out.tells_success |= "success" in info
                if terminated or truncated:
                    (out.terminated if terminated else out.truncated).append(steps)
                    if stop:
                        break
            if terminated or truncated:
                self._reset(out)
                steps = 0
        return out

    def _reset(self, out: Walk, seed: int | None = None) -> None:
        began = time.perf_counter()
        observation = self.env.reset(seed=seed)[0]
        out.seconds += time.perf_counter() - began
        out.seen.append(self._copied(observation))
        out.starts.append(True)

    def _copied(self, observation: Any) -> dict[str, NDArray]:
        """Copies of what the agent encodes: environments may reuse their arrays."""
        seen = {name: array.copy() for name, array in named(observation).items()}
        if self.hidden and "sensors" in seen:
            seen["sensors"] = np.delete(seen["sensors"], self.hidden)
        return {name: array for name, array in seen.items() if array.size}


def _gap(a: dict[str, NDArray], b: dict[str, NDArray]) -> float:
    """The largest difference between two observations."""
    return max(float(np.abs(a[k].astype(np.float64) - b[k]).max(initial=0)) for k in a)


def explore(
    environment: Environment, make: Callable[[], gym.Env], config: Config, steps: int, seed: int, told: list[Walk]
) -> Iterator[Finding]:
    """The findings of an exploration.

    Args:
        environment: what is explored.
        make: one copy; never called while another one is open.
        config: with which the agent would be trained.
        steps: primitive actions to explore for.
        seed: of the environment and of the actions.
        told: the walk is appended, for who reads more off it.

    Yields:
        One finding per check. Where episodes fail, or observations are not finite, the other checks are left out.
    """
    block, rng = config.world_model.action_block, np.random.default_rng(seed)
    seen = environment.spec.observation
    with closing(Walker(environment, make)) as walker:
        explorer = Explorer(config.collect, walker.actions, 1, block, rng)
        actions = np.concatenate([explorer.next_block()[0] for _ in range(-(-steps // block))])
        walk = walker.walk(seed, actions)
        told.append(walk)
        findings = [*_faults(walk), *_observations(walk, seen, environment.truth is None)]
        yield from findings
        if any(f.check in ("faults", "observations") and f.result == "failed" for f in findings):
            return  # NaN equals nothing, so the other comparisons would mislead
        again_same = _same(walk, walker.walk(seed, actions[:100]))
        yield _effect(walker, walk, seed, actions, block, rng)
        yield _episodes(environment, walk, config)
        if environment.truth is None:  # a Simulator is timed as arrays, the way it is explored
            share = observing_share(walker.env, seed, [walker.act(action) for action in actions[:TIMED]])
            yield speed_finding(len(actions) / walk.seconds, share, "in one environment", config)
    with closing(Walker(environment, make)) as walker:
        yield _determinism(walk, again_same, walker.walk(seed, actions[:100]), len(actions[:100]))


def _same(walk: Walk, other: Walk) -> bool:
    """Whether the shorter walk saw exactly what the longer one saw at first."""
    return all(_gap(a, b) == 0 for a, b in zip(walk.seen, other.seen, strict=False))


FAULTS = {
    "not finite": "fix the environment so that every observation is finite",
    "out of space": "declare the true range, dtype and shape of what is observed: training drops what is outside",
    "too slow": "make step() and reset() faster: training waits for 30 seconds and no longer",
    "wrong reward": "return a finite number as the reward",
}
"""Kind of fault -> what to do about it."""


def _faults(walk: Walk) -> Iterator[Finding]:
    """Episodes that the guard of training would drop."""
    if not walk.faults:
        return
    kinds = Counter(fault.partition(":")[0] for fault in walk.faults)
    kind, _ = kinds.most_common(1)[0]
    first = next(fault for fault in walk.faults if fault.startswith(kind))
    episodes = len(walk.faults) + len(walk.lengths)
    found = f"{len(walk.faults)} of {episodes} episodes failed, and training drops them: {first}"
    advice = FAULTS.get(kind, "fix the environment so that it no longer raises this")
    share = Faults.share if episodes >= Faults.at_least else 0.5  # few episodes say little
    few = len(walk.faults) <= share * episodes
    more = "" if few else f"; above {Faults.share:.0%} training stops"
    yield Finding("faults", "warning" if few else "failed", found + more, advice)


def _observations(walk: Walk, seen: ObservationSpec, fitted: bool) -> Iterator[Finding]:
    """Finite, inside their space, and they change.

    fitted: whether training takes the scales of sensors from data where their declared range says little.
    """
    bad = sum(not all(np.isfinite(v).all() for v in one.values()) for one in walk.seen)
    if bad:
        advice = "fix the environment so that every observation is finite"
        yield Finding("observations", "failed", f"{bad} of {len(walk.seen)} hold NaN or infinity", advice)
        return
    if walk.outside:
        found = f"{walk.outside} of {len(walk.seen)} are outside the observation space"
        advice = "declare the true range, dtype and shape: sensors are scaled by the declared range"
        yield Finding("observations", "warning", found, advice)
    pairs = [(a, b) for a, b, first in zip(walk.seen, walk.seen[1:], walk.starts[1:], strict=False) if not first]
    if not pairs:
        return
    moved = float(np.mean([_gap(a, b) > 0 for a, b in pairs]))
    advice = "" if moved > 0.2 else "observe what actions change: a world model learns from changes"
    result = "ok" if moved > 0.2 else "warning" if moved > 0.01 else "failed"
    yield Finding("change", result, f"the observation changes in {100 * moved:.0f} % of steps", advice)
    for name in walk.seen[0]:
        values = np.stack([one[name] for one in walk.seen])
        if name == "sensors":
            yield _sensors(values, seen, fitted)
        else:
            yield _pixels(values)


def _sensors(values: NDArray, seen: ObservationSpec, fitted: bool) -> Finding:
    """Which of the sensors (T, S) never change, and by what they are scaled."""
    kept = [i for i in range(len(seen.sensor_low)) if i not in seen.unseen]
    names = [seen.sensor_names[i] if seen.sensor_names else f"[{i}]" for i in kept]
    low, high = values.min(0).astype(np.float64), values.max(0).astype(np.float64)
    least, most = (np.array([limits[i] for i in kept]) for limits in (seen.sensor_low, seen.sensor_high))
    bounded = np.isfinite(least) & np.isfinite(most)
    width = np.where(bounded, most - least, 1.0)
    used = (high - low) / np.maximum(width, 1e-12)
    wide = bounded & (used * WIDER < 1) & (high > low)
    found = f"{len(kept)} sensor{'s' * (len(kept) > 1)}"
    if fitted:
        counts = (int((~bounded).sum()), "without bounds"), (int(wide.sum()), "that use little of theirs")
        parts = " and ".join(f"{n} {how}" for n, how in counts if n)
        found += f", {parts}: scaled by what exploration sees" if parts else ""
    elif bounded.any():
        found += f"; the smallest movement uses {100 * used[bounded].min():.0f} % of its declared range"
    dead = [name for name, still in zip(names, high == low, strict=True) if still]
    if len(dead) == len(kept):
        result = "warning" if seen.pixel_shape else "failed"
        return Finding("sensors", result, f"{found}; none of them ever changes", "add sensors that depend on the state")
    dead = [name for name in dead if "=" not in name]  # a value that was not met yet, of a choice that changes
    if dead:
        return Finding("sensors", "warning", f"{found}; {_some(dead)} never change", "remove constant sensors")
    if not fitted and bounded.any() and used[bounded].min() < 0.02:
        tight = [name for name, share, ends in zip(names, used, bounded, strict=True) if ends and share < 0.02]
        advice = f"declare a tighter range for {_some(tight)}: scaled by the declared one, they would hardly count"
        return Finding("sensors", "warning", found, advice)
    return Finding("sensors", "ok", found)


def _some(names: Sequence[str]) -> str:
    """The first of many names."""
    more = f" and {len(names) - 5} more" if len(names) > 6 else ""
    return ", ".join(names[:5] if more else names) + more


def _pixels(values: NDArray) -> Finding:
    """How many of the pixels (T, C, H, W) ever change, and how many are black or white."""
    moving = float((values.max(0) != values.min(0)).mean())
    saturated = float(((values == 0) | (values == 255)).mean())
    found = f"{100 * moving:.1f} % of pixels ever change, {100 * saturated:.0f} % are 0 or 255"
    if moving == 0:
        advice = "check that the camera points at the scene, that there is light, and that each step renders anew"
        return Finding("pixels", "failed", f"{found}: every frame is the same", advice)
    return Finding("pixels", "ok", found)


def _determinism(walk: Walk, same_instance: bool, other: Walk, steps: int) -> Finding:
    """Same seed, same actions: the same observations, in this instance and in a new one."""
    new_instance = _same(walk, other)
    if same_instance and new_instance:
        found = f"same seed, same observations: {steps} steps, three times"
        return Finding("determinism", "ok", found)
    where = "in a new instance" if same_instance else "after another reset"
    advice = "draw every random number from self.np_random, and let reset(seed=...) restore everything"
    if same_instance and "pixels" in walk.seen[0]:
        advice += ". A free camera of MuJoCo stays where it looked in the first frame of its copy, before any seed"
    return Finding("determinism", "warning", f"same seed and actions, different observations {where}", advice)


def _alternatives(
    actions: Actions, action: NDArray, rng: np.random.Generator
) -> Iterator[tuple[str, list[NDArray[np.float32]]]]:
    """For each part of an action (A,): its name, and actions that differ from each other in that part alone.

    The extremes of a number, or several of many choices.
    """
    if isinstance(actions, DiscreteActions):
        ends = np.cumsum(actions.counts)
        for group, (end, count) in enumerate(zip(ends, actions.counts, strict=True)):
            several = []
            for choice in sorted(rng.permutation(count)[:CHOICES].tolist()):
                several.append(action.copy())
                several[-1][end - count : end] = np.eye(count, dtype=np.float32)[choice]
            yield str(group), several
        return
    assert isinstance(actions, BoxActions)
    for j, limits in enumerate(zip(actions.low, actions.high, strict=True)):
        both = []
        for limit in limits:
            extreme = action.astype(np.float32)
            extreme[j] = limit
            both.append(actions.project(torch.from_numpy(extreme)).numpy())
        yield str(j), both


def _effect(walker: Walker, walk: Walk, seed: int, actions: NDArray, block: int, rng: np.random.Generator) -> Finding:
    """Futures that differ in one part of the action alone must look different.

    In an environment that does not repeat itself they must differ by more than two futures of equal actions do.
    """
    long = min(PREFIX, len(actions), max(1, int(np.median(walk.lengths)) // 2) if walk.lengths else PREFIX)
    held = max(block, APART)
    kinds = [name for name, _ in _alternatives(walker.actions, actions[0], np.random.default_rng(0))]
    gaps = np.full((TWINS, len(kinds) + 1), np.nan)
    for i in range(TWINS):
        prefix = int(rng.integers(long))
        base = actions[prefix]
        groups = [several for _, several in _alternatives(walker.actions, base, rng)]
        for j, several in enumerate([*groups, [base, base]]):  # the last have equal actions
            ends = [
                walker.walk(seed + i, np.concatenate([actions[:prefix], np.repeat(one[None], held, 0)]), stop=True).seen
                for one in several
            ]
            for other in ends[1:]:
                shorter = min(len(ends[0]), len(other))
                if shorter > prefix + 1:  # otherwise the episode ended before they differed
                    gaps[i, j] = np.nanmax([gaps[i, j], _gap(ends[0][shorter - 1], other[shorter - 1])])
    several_choices = isinstance(walker.actions, DiscreteActions)
    what = "choices" if several_choices else "action dimensions"
    if np.isnan(gaps).all():
        return Finding("actions matter", "warning", "episodes are too short to tell", "make episodes longer")
    noise = float(np.nanmax(gaps[:, -1], initial=0.0))  # 0 where the environment repeats itself
    told = ~np.isnan(gaps[:, :-1])
    shares = ((gaps[:, :-1] > 3 * noise) & told).sum(0) / np.maximum(told.sum(0), 1)
    dead = np.flatnonzero(shares == 0).tolist()
    if not dead:
        each = f"each of {len(kinds)} {'groups of choices' if several_choices else 'dimensions'}"
        each = ("the choice" if several_choices else "its dimension") if len(kinds) == 1 else each
        found = f"{each} changes the observation, in at least {100 * shares.min():.0f} % of states"
        return Finding("actions matter", "ok", found)
    which = f"{what} {dead}" if len(kinds) > 1 or not several_choices else "the choices"
    if noise > 0:
        found = f"{which} change the observation no more than noise does"
        advice = "make reset(seed=...) repeatable, so that this check can tell an effect from noise"
        return Finding("actions matter", "warning", found, advice)
    advice = f"check that step() uses them and that observations show their effect within {held} steps"
    result = "failed" if len(dead) == len(kinds) else "warning"
    return Finding("actions matter", result, f"{which} do not change the observation", advice)


def _episodes(environment: Environment, walk: Walk, config: Config) -> Finding:
    """Training keeps pieces of `length` blocks from inside one episode; one that terminates is filled up.

    Where an episode is truncated, a piece that is not whole is dropped. A Simulator is never truncated.
    """
    length, block = config.collect.length, config.world_model.action_block
    need, limit = length * block, environment.max_steps
    wants = f"training takes {length} blocks of {block}, {need} steps in a row"
    if environment.truth is not None:
        return Finding("episodes", "ok", f"{need} steps: training sets the length and does not truncate a Simulator")
    if not walk.lengths:
        found = f"none ended in {len(walk.seen) - 1} steps, the limit is {limit}; {wants}"
        if limit is None or limit >= need:
            return Finding("episodes", "ok", found)
        return Finding("episodes", "failed", found, f"train with {shorter_sequences(limit, config)}")
    parts = [
        f"{len(some)} {how} (median of {np.median(some):.0f} steps)"
        for some, how in ((walk.terminated, "terminated"), (walk.truncated, "were truncated"))
        if some
    ]
    found = f"{len(walk.lengths)} episodes: {', '.join(parts)}; {wants}"
    lost = sum(n % need for n in walk.truncated) / sum(walk.lengths)
    if lost <= 0.5:
        filled = "; an episode that terminates is filled up" if walk.terminated else ""
        return Finding("episodes", "ok", found + filled)
    whole = walk.terminated or max(walk.truncated) >= need
    fitting = int(np.median(walk.truncated))
    advice = f"what is truncated before a piece is whole is dropped: train with {shorter_sequences(fitting, config)}"
    return Finding("episodes", "warning" if whole else "failed", f"{found}; {100 * lost:.0f} % are dropped", advice)


def shorter_sequences(steps: int, config: Config) -> str:
    """Flags of `train` with which a piece takes at most `steps` primitive actions.

    Prefers settings that keep the window, then the longest blocks; `train` accepts what is returned.
    """
    full, block = config.learn.window - 1, config.world_model.action_block
    for fewer in sorted(range(min(block, steps), 0, -1), key=lambda b: -min(full, steps // b)):
        length = min(config.collect.length, steps // fewer)
        window = min(full, length) + 1
        advised = replace(
            config,
            collect=replace(config.collect, length=length),
            learn=replace(config.learn, window=window),
            world_model=replace(config.world_model, action_block=fewer),
        )
        try:
            check(advised)
        except UserError:
            continue
        flags = f"--collect.length {length}"
        flags += f" --world-model.action-block {fewer}" * (fewer != block)
        return flags + f" --learn.window {window}" * (window != config.learn.window)
    raise AssertionError(f"no training sequence fits into {steps} steps")
