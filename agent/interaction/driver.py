"""The one loop that steps environments: exploring, evaluating and online learning differ in who acts and who listens.

    drive(envs, explorer, steps(96), [pieces.add])               exploration
    drive(envs, agent_acts, steps(60), [score, recorder])        evaluation
    drive(envs, agent_acts, steps(1000), [pieces.add, learn])    online learning

Environments may end at different moments; autoreset is handled here and nowhere else.

Shapes: E environments, A action.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray


@dataclass(frozen=True)
class Moment:
    """What there is to decide on."""

    observation: Any
    """Of E environments, in Gymnasium's form."""
    is_first: NDArray[np.bool_]
    """(E,) environments that have just been reset."""
    info: dict[str, Any]


@dataclass(frozen=True)
class Transition:
    """One step of E environments: `action` leads from `moment` to `observation`."""

    moment: Moment
    action: NDArray
    """(E, A) as the agent knows it (`types.Actions`), whatever the environment's `step` takes."""
    decision: Any
    """Whatever who acted has to tell beside the action; a Decision when it was the agent."""
    observation: Any
    """The next one. Of an episode that ends now it is its last observation, whatever the autoreset mode."""
    reward: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    info: dict[str, Any]
    real: NDArray[np.bool_]
    """(E,) False where this step only reset the environment and ignored the action."""

    @property
    def ended(self) -> NDArray[np.bool_]:
        """(E,) episodes that end with this step."""
        return (self.terminated | self.truncated) & self.real


Act = Callable[[Moment], tuple[NDArray, Any]]
"""Moment -> action (E, A) as the agent knows it, and anything to tell beside it."""
Listener = Callable[[Transition], object]


def drive(
    envs: VectorEnv,
    act: Act,
    stop: Callable[[Transition], bool],
    listeners: Iterable[Listener] = (),
    seed: int | list[int | None] | None = None,
    options: dict[str, Any] | None = None,
    to_env: Callable[[NDArray], NDArray] = lambda action: action,
) -> None:
    """Step E environments until told to stop.

    Args:
        envs: any Gymnasium vector environment, in any autoreset mode.
        act: decides.
        stop: asked after every step.
        listeners: see every step, in order, before `stop` does.
        seed: of the first reset; a list has one for each environment.
        options: of the first reset.
        to_env: from an action (E, A) to what the environments' `step` takes (`types.Actions.to_env`).
    """
    mode = envs.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
    own = getattr(envs, "copy", False)  # whether every observation is an array of its own
    observation, info = envs.reset(seed=seed, options=options)  # pyright: ignore[reportArgumentType]
    first, done = np.ones(envs.num_envs, bool), np.zeros(envs.num_envs, bool)
    listeners = list(listeners)
    while True:
        if mode == AutoresetMode.DISABLED and done.any():
            observation, info = envs.reset(options={"reset_mask": done})
            first, done = done, np.zeros_like(done)
        moment = Moment(observation if own else copy.deepcopy(observation), first, info)
        action, decision = act(moment)
        observation, reward, terminated, truncated, info = envs.step(to_env(action))
        resets = done if mode == AutoresetMode.NEXT_STEP else np.zeros_like(done)
        done = (terminated | truncated) & ~resets
        last = _with_final(observation, info, done) if mode == AutoresetMode.SAME_STEP and done.any() else observation
        step = Transition(moment, action, decision, last, reward, terminated, truncated, info, ~resets)
        for listener in listeners:
            listener(step)
        if stop(step):
            return
        first = done if mode == AutoresetMode.SAME_STEP else resets


def steps(count: int) -> Callable[[Transition], bool]:
    """Stop after so many steps of all environments."""
    taken = 0

    def stop(_: Transition) -> bool:
        nonlocal taken
        taken += 1
        return taken >= count

    return stop


def _with_final(observation: Any, info: dict[str, Any], ended: NDArray[np.bool_]) -> Any:
    """The batch of observations, with the last one of episodes that ended and were reset in the same step."""
    if isinstance(observation, dict):
        parts = {k: v.copy() for k, v in observation.items()}
        for i in np.flatnonzero(ended):
            for name, array in parts.items():
                array[i] = info["final_obs"][i][name]
        return parts
    out = observation.copy()
    for i in np.flatnonzero(ended):
        out[i] = info["final_obs"][i]
    return out
