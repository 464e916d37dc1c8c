"""A guard around one copy of a user's environment: its faults end an episode, never the training.

A fault is an exception, a step or reset that takes too long, an observation that is not finite or not in its space, or
a reward that is not finite. The episode is truncated at its last good observation, `info["fault"]` says what happened,
and the next reset makes the environment anew. Ctrl-C and SystemExit pass through.

The time limit is an alarm signal (SIGALRM), so it holds in the main thread of a Unix process only, which includes the
workers of AsyncVectorEnv; elsewhere there is none. It interrupts Python code and sleeping, not a loop inside C.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import math
import signal
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

TRIES = 3
"""Environments made anew in one reset before it gives up."""
TOLERANCE = 1e-3
"""How far beyond a bound a number may be, in parts of its range: many environments leave theirs by rounding."""
LONGEST = 300
"""Characters of a message."""


class Guarded(gym.Wrapper):
    """One copy of an environment that may fail, for use inside SyncVectorEnv and AsyncVectorEnv.

    `info["fault"]` is one line, KIND: DETAILS, at the step that ends a faulty episode and nowhere else. Where a reset
    needed a new environment, `info["reset_fault"]` of that reset says why; the episode that begins is sound.

    A broken environment is closed at once. In one process, closing an environment that renders with OpenGL may turn the
    pictures of others black (not those of MuJoCo, `envs.opengl`); AsyncVectorEnv avoids that.
    """

    def __init__(self, make: Callable[[], gym.Env], time_limit: float = 30.0, check_space: bool = True) -> None:
        """An exception of the first `make` passes through: nothing has worked yet.

        Args:
            make: makes the environment; called again after each fault.
            time_limit: seconds for a step, a reset or making it anew; infinity for no limit.
            check_space: whether an observation outside of its space is a fault. NaN and infinity always are.
        """
        super().__init__(make())
        self.observation_space, self.action_space = self.env.observation_space, self.env.action_space
        self._make, self._alarm = make, _Alarm(time_limit)
        self._checked = _checker(self.observation_space) if check_space else _finite
        self._is_open, self._is_running = True, False
        self._seed: int | None = None
        self._faults = 0
        self._last: Any = None
        self._picture: Any = None

    @property
    def spec(self) -> Any:
        """The environment's own."""
        return self.env.spec

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the environment's. A fault gives the last good observation, no reward, and truncates.

        Raises:
            gym.error.ResetNeeded: the last step was a fault, or there was no reset yet.
        """
        if not self._is_running:
            raise gym.error.ResetNeeded(
                "this environment has to be reset before its next step: it is new, or it failed"
            )
        try:
            observation, reward, terminated, truncated, info = self._limited(self.env.step, action)
            observation = self._checked(observation)
            _check_rest(reward, info)
        except (Exception, _Late) as error:
            return _copied(self._last), 0.0, False, True, {"fault": self._failed(error)}
        self._last = _copied(observation)  # the environment may write the next one into the same array
        return observation, reward, terminated, truncated, info

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the environment's. A new environment is seeded with the last seed given and the number of faults.

        Raises:
            RuntimeError: this environment failed, and so did three new ones.
        """
        if seed is not None:
            self._seed = int(seed)
        told, cause = "", None
        for trial in range(TRIES + 1):
            try:
                if not self._is_open:
                    self.env = self._limited(self._make)
                    self._is_open = True
                    if seed is None or trial:
                        seed = self._new_seed()
                observation, info = self._limited(self.env.reset, seed=seed, options=options)
                observation = self._checked(observation)
                _check_rest(0.0, info)
            except (Exception, _Late) as error:
                told, cause = self._failed(error), error
                continue
            self._is_running, self._last = True, _copied(observation)
            return observation, {**info, "reset_fault": told} if told else info
        raise RuntimeError(
            f"the environment cannot be reset: it was made anew {TRIES} times and failed each time, at last: {told}"
        ) from cause

    def render(self) -> Any:
        """As the environment's; the last picture while it is broken."""
        if self._is_open:
            self._picture = self.env.render()
        return self._picture

    def close(self) -> None:
        """Close the environment, unless a fault already did."""
        if self._is_open:
            self.env.close()

    def _limited(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        try:
            self._alarm.start()
            result = function(*arguments, **named)
        finally:
            self._alarm.stop()
        if self._alarm.has_rung:  # the environment caught it, in an `except:` of its own
            raise _Late
        return result

    def _failed(self, error: BaseException) -> str:
        """Close what is broken; what happened, in one line."""
        self._faults += 1
        self._is_running = False
        told = f"too slow: longer than {self._alarm.seconds:g} s" if isinstance(error, _Late) else _told(error)
        if self._is_open:
            self._is_open = False
            with contextlib.suppress(Exception, _Late):
                self._limited(self.env.close)
        return told

    def _new_seed(self) -> int | None:
        """Of an environment made anew. Without a seed at the beginning there is nothing to repeat."""
        if self._seed is None:
            return None
        return int(np.random.SeedSequence([self._seed, self._faults]).generate_state(1)[0] >> 1)  # 31 bits: some ask it


class _Late(BaseException):
    """The alarm rang. Not an Exception, so that an environment's own `except Exception` does not swallow it."""


class _Wrong(Exception):
    """What an environment returned is not usable; the message is KIND: DETAILS."""


class _Alarm:
    """Raises _Late in what runs between `start` and `stop`, once it takes too long. Other timers go on afterwards."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.has_rung = seconds, False
        # A handler that was not installed from Python cannot be put back: then there is no limit.
        known = hasattr(signal, "setitimer") and signal.getsignal(signal.SIGALRM) is not None
        self._works = known and 0 < seconds < math.inf
        self._is_set = False
        self._other: tuple[float, float] | None = None
        self._handler: Any = None
        self._since = 0.0

    def start(self) -> None:
        """Set the alarm, where there can be one and no other timer rings before it."""
        self.has_rung = False
        if not self._works or threading.current_thread() is not threading.main_thread():
            return
        self._since = time.monotonic()
        other = signal.setitimer(signal.ITIMER_REAL, self.seconds)
        if 0 < other[0] <= self.seconds:
            signal.setitimer(signal.ITIMER_REAL, *other)
            return
        self._other = other
        self._handler = _set_handler(_ALARM, self._ring)  # only now: up to here the other handler is in charge
        self._is_set = True

    def stop(self) -> None:
        """Take the alarm back, and put back what was there before."""
        self._is_set = False  # first of all: from here on a late ring must not raise
        if self._other is None:
            return
        (delay, interval), self._other = self._other, None
        signal.setitimer(signal.ITIMER_REAL, 0)
        _set_handler(_ALARM, self._handler)
        if delay:
            signal.setitimer(signal.ITIMER_REAL, max(delay - (time.monotonic() - self._since), 1e-6), interval)

    def _ring(self, *_: Any) -> None:
        if self._is_set:
            self._is_set, self.has_rung = False, True
            raise _Late


_ALARM = int(getattr(signal, "SIGALRM", 0))  # Windows has none
_set_handler: Callable[..., Any] = importlib.import_module("_signal").signal
"""The function behind signal.signal, which turns numbers into enumerations: twice of that takes as long as CartPole."""


def _told(error: BaseException) -> str:
    """What happened, in one line."""
    if isinstance(error, _Wrong):
        return str(error)[:LONGEST]
    last = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())[:LONGEST]
    return f"raised {type(error).__name__}: {text} ({Path(last.filename).name}:{last.lineno})"


def _check_rest(reward: Any, info: Any) -> None:
    """_Wrong unless the reward is a finite number and info a dict that does not use our own names."""
    try:
        finite = math.isfinite(reward)
    except TypeError:
        finite = False
    if not finite:
        raise _Wrong(f"wrong reward: it is {reward!r}")
    if not isinstance(info, dict):
        raise _Wrong(f"wrong info: it is a {type(info).__name__}, not a dict")
    if "fault" in info:  # the environment's own, which must not be taken for ours
        info["own_fault"] = info.pop("fault")


# Observations


def _copied(observation: Any) -> Any:
    if isinstance(observation, np.ndarray):
        return observation.copy()
    if isinstance(observation, dict):
        return {name: _copied(part) for name, part in observation.items()}
    return copy.deepcopy(observation)


def _finite(observation: Any, name: str = "observation") -> Any:
    """The same observation. _Wrong if there is a NaN or an infinity in it."""
    if isinstance(observation, dict):
        for key, part in observation.items():
            _finite(part, f"{name}[{key!r}]")
    elif isinstance(observation, tuple):
        for i, part in enumerate(observation):
            _finite(part, f"{name}[{i}]")
    elif np.asarray(observation).dtype.kind == "f" and not np.isfinite(observation).all():
        raise _Wrong(_not_finite(np.asarray(observation), name))
    return observation


def _not_finite(x: NDArray, name: str) -> str:
    nans = int(np.isnan(x).sum())
    return f"not finite: {name} has {nans} NaN and {int(np.isinf(x).sum())} infinite of {x.size}"


def _checker(space: gym.Space, name: str = "observation") -> Callable[[Any], Any]:
    """A function: an observation -> the same in the types of the space. It raises _Wrong for one that is not in it.

    Parts that a Dict does not have are left out: nobody could perceive them.
    """
    if isinstance(space, spaces.Box):
        return _box_checker(space, name)
    if isinstance(space, spaces.Dict):
        parts = {key: _checker(part, f"{name}[{key!r}]") for key, part in space.items()}

        def of_dict(observation: Any) -> Any:
            if not isinstance(observation, dict) or not parts.keys() <= observation.keys():
                got = sorted(observation) if isinstance(observation, dict) else type(observation).__name__
                raise _Wrong(f"out of space: {name} has to be a dict of {sorted(parts)}, got {got}")
            return {key: check(observation[key]) for key, check in parts.items()}

        return of_dict

    is_text = (
        space.dtype is not None and np.dtype(space.dtype).kind == "U"
    )  # MiniGrid's missions: which words it may have is nobody's concern here

    def other(observation: Any) -> Any:
        if not (isinstance(observation, str) if is_text else observation in space):
            raise _Wrong(f"out of space: {name} is {observation!r:.80}, not in {space!r:.80}")
        return observation

    return other


def _box_checker(space: spaces.Box, name: str) -> Callable[[Any], Any]:
    """`Box.contains` takes longer than a step of CartPole, and knows neither tolerance nor finiteness."""
    dtype: Any = np.dtype(space.dtype)
    shape = space.shape
    low, high = _bounds(space)
    whole = np.iinfo(dtype) if dtype.kind in "iu" else None
    is_full = whole is not None and bool((low == whole.min).all() and (high == whole.max).all())

    def check(observation: Any) -> Any:
        x = np.asarray(observation)
        if x.shape != shape:
            raise _Wrong(f"out of space: {name} has shape {x.shape}, not {shape}")
        if x.dtype != dtype:
            x = _cast(x, dtype, name)
        if is_full or ((x >= low) & (x <= high)).all():  # both are False for NaN
            return x
        if not np.isfinite(x).all():
            raise _Wrong(_not_finite(x, name))
        at = tuple(int(i) for i in np.argwhere((x < low) | (x > high))[0])
        where = f"{name}{[*at] if at else ''}"
        raise _Wrong(f"out of space: {where} is {x[at]:g}, not between {space.low[at]:g} and {space.high[at]:g}")

    return check


def _bounds(space: spaces.Box) -> tuple[NDArray, NDArray]:
    """Bounds in the space's own type, wider by the tolerance, and finite."""
    dtype: Any = np.dtype(space.dtype)
    if dtype.kind != "f":
        return space.low, space.high
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    largest = float(np.finfo(dtype).max)
    with np.errstate(over="ignore", invalid="ignore"):
        both = np.isfinite(low) & np.isfinite(high)
        # A number with one bound has no range: its tolerance is relative to the bound.
        low_slack, high_slack = (TOLERANCE * np.where(both, high - low, np.maximum(np.abs(x), 1)) for x in (low, high))
        low, high = low - low_slack, high + high_slack
    return np.clip(low, -largest, largest).astype(dtype), np.clip(high, -largest, largest).astype(dtype)


def _cast(x: NDArray, dtype: np.dtype, name: str) -> NDArray:
    """The same numbers in another type; _Wrong where that is not possible. Precision may be lost."""
    if x.dtype.kind not in "biuf":
        raise _Wrong(f"out of space: {name} has type {x.dtype}, not {dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        y = x.astype(dtype)
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise _Wrong(_not_finite(x, name))
    if dtype.kind != "f" and (y != x).any():
        raise _Wrong(f"out of space: {name} has values that are not {dtype}, such as {x[y != x][0]:g}")
    return y
