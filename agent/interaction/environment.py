"""Environments as the agent meets them: a spec, copies to step, and whatever else this environment can do.

Only `spec` and `make` are required. Each consumer names the capability that it needs and degrades without it: without
goals there are no tasks to evaluate, without truth no oracles, without a view no map.
"""

from __future__ import annotations

import importlib
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import gymnasium as gym
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from agent.config import Config, options_of
from agent.errors import UserError, nearest, told
from agent.spec import EnvSpec, aimed, goal_of
from envs import SIMULATORS, SimEnv, Simulator, SimVectorEnv, adapters, packages
from envs.api import Expert, Factors, Goals, Scenes, View
from envs.guard import Guarded
from envs.senses import Senses, Unperceivable
from modules.actions import BoxActions, DiscreteActions
from modules.types import Actions, ObservationSpec


@dataclass(frozen=True)
class Environment:
    """An environment and its capabilities."""

    name: str
    spec: EnvSpec
    make: Callable[..., VectorEnv]
    """N copies: ours are stepped as arrays, others by Gymnasium, with processes=True each in a process of its own."""
    truth: Simulator | None = None
    """The laws themselves, over arrays of physical states: for oracles and diagnosis."""
    goals: Goals | None = None
    """Tasks and their success test."""
    scenes: Scenes | None = None
    """Different scenes, and a reset that stays in one."""
    expert: Expert | None = None
    """Reference controllers."""
    view: View | None = None
    """A map; without it there are only observations to look at."""
    factors: Factors | None = None
    """Labels for probes."""
    one: Callable[..., gym.Env] | None = None
    """A single guarded copy, with `render_mode` where it is asked for; an environment of Gymnasium's."""
    max_steps: int | None = None
    """Primitive actions after which it truncates an episode, where it does."""
    asks: bool = False
    """Whether every episode comes with a goal of its own (`desired_goal`, or `goal_observation` in its info)."""
    wanted: Mapping[str, float] = field(default_factory=dict)
    """The goal that a configuration names, in readings of the body; the same in every episode."""
    tells_scene: bool = False
    """Whether `info["scene"]` numbers what changes from episode to episode, such as walls; else there is one scene."""
    seconds: float | None = None
    """That one primitive action takes, where the environment says so."""
    tile: int | None = None
    """Pixels of a side of the tiles that its pictures are made of, which patches should not cross."""

    @property
    def has_scenes(self) -> bool:
        """Whether resets draw different scenes."""
        return self.scenes is not None and self.scenes.has_scenes


def environment_of(config: Config) -> Environment:
    """The environment of a configuration: its id, options and wrappers, and the readings that a goal is given in."""
    environment = open_environment(config.env, options_of(config), config.wrappers)
    if not config.goal:
        return environment
    wanted = goal_of(config.goal, environment.spec.observation)
    return replace(environment, spec=aimed(environment.spec, config.goal), wanted=wanted)


def open_environment(env_id: str, options: Mapping[str, Any], wrappers: Sequence[str] = ()) -> Environment:
    """An environment of this project, one registered by `envs.register`, or any Gymnasium id.

    Args:
        env_id: `Id-v0`, or `module:Id-v0` where importing the module registers it.
        options: of its constructor.
        wrappers: around it, from the inside outwards, each `module:Class` of an installed package.

    Raises:
        UserError: there is no such environment, it cannot be made, or the agent cannot perceive it or act in it.
    """
    if env_id in SIMULATORS and not wrappers:
        return of_simulator(env_id, make_simulator(env_id, options))
    bare = partial(make_one, env_id, dict(options), tuple(wrappers))
    env, one = bare(), partial(_guarded, bare)
    try:
        if isinstance(env.unwrapped, SimEnv) and not wrappers:
            return of_simulator(env_id, env.unwrapped.simulator)
        senses = find_senses(env)
        limit = env.spec.max_episode_steps if env.spec is not None else None
        return Environment(
            env_id,
            spec_of(senses),
            partial(_make_vector, one),
            one=one,
            max_steps=limit or getattr(env.unwrapped, "max_steps", None),
            asks=senses.asks,
            tells_scene=senses.tells_scene,
            seconds=_seconds(env),
            tile=adapters.tile_of(env),
        )
    finally:
        env.close()


def make_one(env_id: str, options: Mapping[str, Any], wrappers: Sequence[str] = (), **more: Any) -> gym.Env:
    """One copy of a Gymnasium environment, as the agent perceives it (`envs.senses.Senses`).

    Args:
        env_id: as for `open_environment`, as are options and wrappers.
        more: `render_mode`.

    Raises:
        UserError: it cannot be made, or not with what is asked.
    """
    env = make_plain(env_id, options, wrappers, **more)
    if isinstance(env.unwrapped, SimEnv) and not wrappers:
        return env
    try:
        return Senses(env)
    except Exception as error:  # the first reset runs the user's own code, which may raise anything
        _close(env)
        if isinstance(error, Unperceivable):
            raise UserError(f"environment {env_id} {error}") from error
        raise UserError(f"environment {env_id} fails in its first reset: {because_of(error)}") from error


def make_plain(env_id: str, options: Mapping[str, Any], wrappers: Sequence[str] = (), **more: Any) -> gym.Env:
    """One copy of a Gymnasium environment in its wrappers, as it is: arguments and errors as of `make_one`."""
    name = _imported(env_id)
    given = {**options, **more}
    try:
        with warnings.catch_warnings():  # it is an error here, below
            warnings.filterwarnings("ignore", message=".*not in the possible render_modes")
            env = packages.make(env_id, disable_env_checker=True, **given)  # the guard watches, and check checks
    except gym.error.UnregisteredEnv as error:
        known = [*SIMULATORS, *gym.registry]
        hint = nearest(name, known) or f"; this project's own are {', '.join(SIMULATORS)}"
        raise UserError(f"no environment {name!r}{hint}. For an environment of your own give module:Id-v0") from error
    except Exception as error:  # the user's own code may raise anything, and packages raise AssertionError
        asked = f" with options {given}" if given else ""
        raise UserError(f"environment {env_id} cannot be made{asked}: {because_of(error)}") from error
    try:
        mode, offered = given.get("render_mode"), env.metadata.get("render_modes") or ()
        if mode is not None and mode not in offered:
            has = f"it offers {', '.join(map(str, offered))}" if offered else "it declares none in its metadata"
            raise UserError(f"environment {env_id} offers no render_mode {mode!r}: {has}")
        if not wrappers:
            return adapters.adapted(env)
        try:
            # Some look at it when they are made, as AddRenderObservation does: let every copy look the same then.
            env.reset(seed=0)
        except Exception as error:
            raise UserError(f"environment {env_id} fails in its first reset: {because_of(error)}") from error
        return _wrapped(env, wrappers)
    except BaseException:
        _close(env)
        raise


def _imported(env_id: str) -> str:
    """The id without its module, which is imported. UserError where that fails."""
    module, colon, name = env_id.rpartition(":")
    try:
        if colon:
            importlib.import_module(module)
    except Exception as error:  # it is the user's code
        raise UserError(
            f"module {module!r} of {env_id!r} cannot be imported: {told(error)}. Start in its folder with PYTHONPATH=."
        ) from error
    return name


def because_of(error: Exception) -> str:
    """What went wrong in code that is not ours, in one line, and what to install if that is it."""
    if isinstance(error, gym.error.DependencyNotInstalled | ModuleNotFoundError):
        return " ".join(packages.install_hint(error).split())
    advice = gl_advice(error)
    return f"{told(error)}; {advice}" if advice else told(error)


GL_ADVICE = (
    "install an OpenGL driver: apt install libegl1 and set MUJOCO_GL=egl, or apt install libosmesa6 and set "
    "MUJOCO_GL=osmesa"
)


def gl_advice(error: Exception) -> str:
    """What to install, when an exception says that there is no OpenGL."""
    return GL_ADVICE if re.search(r"\begl|osmesa|glfw|opengl|glad|gl ?context|display", told(error).lower()) else ""


def _wrapped(env: gym.Env, wrappers: Sequence[str]) -> gym.Env:
    """The environment in wrappers named `module:Class`, or `none` for no wrapper at all."""
    for wrapper in wrappers:
        if wrapper == "none":
            continue
        module, colon, name = wrapper.partition(":")
        if not colon:
            raise UserError(
                f"--wrappers takes module:Class, such as gymnasium.wrappers:FlattenObservation, got {wrapper!r}"
            )
        try:
            found = importlib.import_module(module)
        except Exception as error:  # it is the user's code
            raise UserError(
                f"--wrappers {wrapper}: module {module!r} cannot be imported: {told(error)}. For a module of your own "
                "start in its folder with PYTHONPATH=."
            ) from error
        made = getattr(found, name, None)
        if not callable(made):
            known = [n for n, x in vars(found).items() if isinstance(x, type) and issubclass(x, gym.Wrapper)]
            raise UserError(f"--wrappers {wrapper}: module {module!r} has no {name!r}{nearest(name, known)}")
        try:
            outer = made(env)
        except Exception as error:
            needs = "It is given the environment alone: one that needs more is written as a class of your own"
            raise UserError(f"--wrappers {wrapper} fails: {told(error)}. {needs}") from error
        if not isinstance(outer, gym.Env):
            raise UserError(f"--wrappers {wrapper} makes a {type(outer).__name__}, not an environment")
        env = outer
    return env


def _close(env: gym.Env) -> None:
    with suppress(Exception):  # what went wrong before is what matters
        env.close()


def find_senses(env: gym.Env) -> Senses:
    """The wrapper that perceives."""
    while not isinstance(env, Senses):
        env = cast(gym.Wrapper, env).env
    return env


def make_simulator(env_id: str, options: Mapping[str, Any]) -> Simulator:
    """The simulator behind an environment of this project."""
    if env_id not in SIMULATORS:
        known = ", ".join(SIMULATORS)
        raise UserError(f"no environment {env_id!r}{nearest(env_id, SIMULATORS)}; this project's own are {known}")
    try:
        return SIMULATORS[env_id](**options)
    except (TypeError, ValueError) as error:
        raise UserError(f"environment {env_id} cannot be made with options {options}: {error}") from error


def of_simulator(name: str, simulator: Simulator) -> Environment:
    """A simulator with all capabilities that it has."""
    return Environment(
        name,
        EnvSpec(_observation_of(simulator), _actions_of(simulator)),
        partial(SimVectorEnv, simulator),
        truth=simulator,
        goals=simulator if isinstance(simulator, Goals) else None,
        scenes=simulator if isinstance(simulator, Scenes) else None,
        expert=simulator if isinstance(simulator, Expert) else None,
        view=simulator if isinstance(simulator, View) else None,
        factors=simulator if isinstance(simulator, Factors) else None,
    )


def spec_of(senses: Senses) -> EnvSpec:
    """The spec of a Gymnasium environment: every sensor is proprio, by name, scaled by its declared range."""
    space = senses.observation_space
    assert isinstance(space, gym.spaces.Dict)
    box, pixels, names = space["sensors"], space.spaces.get("pixels"), senses.sensor_names
    assert isinstance(box, gym.spaces.Box)
    shape: Any = None if pixels is None else pixels.shape
    low, high = (tuple(float(x) for x in limit) for limit in (box.low, box.high))
    seen = ObservationSpec(
        pixel_shape=None if shape is None else tuple(shape),
        sensor_low=low,
        sensor_high=high,
        proprio_names=names,
        proprio_index=tuple(range(len(names))),
        goal_proprio=tuple(i for i, name in enumerate(names) if name.startswith("achieved_")),
        sensor_names=names,
        unseen=(len(names) - 1,),
    )
    return EnvSpec(scaled(seen), _actions_in(senses.action_space))


def scaled(seen: ObservationSpec) -> ObservationSpec:
    """Every sensor as proprio, scaled by its limits; one without limits, and one that is not encoded, as it is."""
    offset, scale = [0.0] * len(seen.sensor_low), [1.0] * len(seen.sensor_low)
    for i, (low, high) in enumerate(zip(seen.sensor_low, seen.sensor_high, strict=True)):
        if i not in seen.unseen and math.isfinite(high - low) and high > low:
            offset[i], scale[i] = (low + high) / 2, (high - low) / 2
    return replace(seen, proprio_offset=tuple(offset), proprio_scale=tuple(scale))


def _actions_in(space: gym.Space) -> Actions:
    if isinstance(space, gym.spaces.Discrete):
        return DiscreteActions((int(space.n),), (int(space.start),))
    if isinstance(space, gym.spaces.MultiDiscrete):
        start = tuple(int(n) for n in space.start)
        return DiscreteActions(tuple(int(n) for n in space.nvec), start if any(start) else (), kind="multi")
    assert isinstance(space, gym.spaces.Box)
    return BoxActions(tuple(float(x) for x in space.low), tuple(float(x) for x in space.high))


def _seconds(env: gym.Env) -> float | None:
    """How long an action takes: MuJoCo's and Pendulum's dt, CartPole's tau."""
    for name in ("dt", "tau"):
        seconds = getattr(env.unwrapped, name, None)
        if isinstance(seconds, float) and seconds > 0:
            return seconds
    return None


def _guarded(make: Callable[..., gym.Env], **more: Any) -> gym.Env:
    return Guarded(partial(make, **more))


def _make_vector(one: Callable[..., gym.Env], count: int, processes: bool = False) -> VectorEnv:
    kind = AsyncVectorEnv if processes else SyncVectorEnv
    return kind([one] * count, autoreset_mode=AutoresetMode.NEXT_STEP)


def _observation_of(simulator: Simulator) -> ObservationSpec:
    low, high = simulator.sensor_low, simulator.sensor_high
    proprio = getattr(simulator, "proprio", ())
    return ObservationSpec(
        pixel_shape=simulator.pixel_shape,
        sensor_low=() if low is None else tuple(float(x) for x in low),
        sensor_high=() if high is None else tuple(float(x) for x in high),
        proprio_names=tuple(p.name for p in proprio),
        proprio_index=tuple(p.index for p in proprio),
        proprio_offset=tuple(p.offset for p in proprio),
        proprio_scale=tuple(p.scale for p in proprio),
        goal_proprio=tuple(i for i, p in enumerate(proprio) if p.is_goal),
    )


def _actions_of(simulator: Simulator) -> BoxActions:
    low, high = (tuple(float(x) for x in a) for a in (simulator.action_low, simulator.action_high))
    return BoxActions(low, high, getattr(simulator, "action_max_norm", None))
