"""`run_agent.py check ENV_ID`: can the agent be trained in this environment? Answered before hours are spent on it.

Each check steps the environment as training does and returns findings: what was found and, unless it is fine, what to
do about it. Nothing is learned here, and no reward is read.

Only one copy of the environment is open at a time. Many environments render into the OpenGL context that was made last:
closing a second copy would leave the first without one, and its frames would stay black from then on.
"""

from __future__ import annotations

import importlib
import re
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

import gymnasium as gym
import numpy as np
import tyro
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from agent import config
from agent.config import Config, options_of
from agent.errors import UserError, nearest
from agent.inspection import check_exploration, check_simulator
from agent.inspection.finding import Finding
from agent.spec import NAMES, is_picture
from envs import SIMULATORS, packages
from envs.gym_env import SimEnv

GL_ADVICE = "install an OpenGL driver: apt install libegl1, or apt install libosmesa6 and set MUJOCO_GL=osmesa"
SPACE_ADVICE = "observe a Box, or a Dict of `pixels` (C, H, W) uint8 and/or `sensors` (S,) float32"
SIMULATOR_OFFERS = frozenset({"tasks", "a map", "exact states"})
COMMANDS = {
    "train": frozenset(),
    "report": frozenset(),
    "evaluate": frozenset({"tasks"}),
    "imagine": frozenset({"tasks", "a map", "exact states"}),
    "ablate": frozenset({"tasks"}),
}
"""What an environment has to offer for each command beyond being trainable."""


@dataclass(frozen=True)
class CheckArguments:
    """Can the agent be trained in this environment?

    Exit code 0: yes, perhaps with warnings. 1: no. 2: the environment does not exist or cannot be made.
    """

    env: Annotated[str, tyro.conf.Positional]
    """Environment: a Gymnasium id, or module:Id-v0 where importing the module registers it."""
    env_options: tuple[str, ...] = ()
    """Options of the environment's constructor: layout=medium pixels=true."""
    steps: int = 400
    """Primitive actions to explore for."""
    seed: int = 0
    """Seed of the environment and of the actions."""
    length: int = config.ExploreConfig.length
    """Action blocks in a training episode (--collect.length)."""
    block: int = 4
    """Primitive actions in a block (--world-model.action-block)."""


def capabilities(args: CheckArguments) -> frozenset[str]:
    """What the environment offers beyond Gymnasium's interface."""
    with closing(make(args)) as env:
        return SIMULATOR_OFFERS if isinstance(env.unwrapped, SimEnv) else frozenset()


def commands_line(offers: frozenset[str]) -> str:
    """Which commands work in an environment with these capabilities, and what the others lack."""
    works = [name for name, needs in COMMANDS.items() if needs <= offers]
    line = f"Commands that work: {', '.join(works)}"
    if len(works) == len(COMMANDS):
        return f"{line} (a Simulator: it offers {', '.join(sorted(offers))})"
    lacks = sorted(set().union(*COMMANDS.values()) - offers)
    others = ", ".join(name for name in COMMANDS if name not in works)
    return f"{line}. The others ({others}) need {', '.join(lacks)}: write it as a Simulator (docs/worlds.md)"


def check(args: CheckArguments) -> list[Finding]:
    """Run every check.

    Args:
        args: the environment and how long to explore it.

    Returns:
        Findings in the order of the checks. The environment can be trained in when none of them is `failed`.

    Raises:
        UserError: the environment does not exist or cannot be made.
    """
    again = partial(make, args)
    with closing(again()) as env:
        simulated = isinstance(env.unwrapped, SimEnv)
        parts = [*_attempt("action space", _action_space, env), *_attempt("observation space", _observation_space, env)]
        findings = [*_attempt("api", _api, env), *parts]
    if not any(f.result == "failed" for f in parts):  # no other check could run
        explored = check_exploration.explore(again, args.steps, args.seed, args.length, args.block)
        findings += _attempt("exploration", lambda: explored)
        if simulated:
            with closing(again()) as env:
                findings += _attempt("exact states", check_simulator.states, env.unwrapped, args.seed)
                findings += _attempt("tasks", check_simulator.tasks, env.unwrapped, args.seed)
                findings += _attempt("speed", check_simulator.speed, env.unwrapped, args.seed, args.length, args.block)
    return findings + _attempt("rendering", _rendering, args)


def make(args: CheckArguments, **more: Any) -> gym.Env:
    """The environment, or a UserError that says what is wrong with the id or the options."""
    module, _, name = args.env.rpartition(":")
    try:
        importlib.import_module(module or "envs")
        packages.import_for(args.env)
    except packages.MissingPackage as error:
        raise UserError(f"environment {args.env!r} cannot be made: {packages.install_hint(error)}") from error
    except Exception as error:
        raise UserError(f"module {module!r} of {args.env!r} cannot be imported: {_told(error)}") from error
    if name not in gym.registry:
        hint = nearest(name, gym.registry) or f"; this project's own are {', '.join(SIMULATORS)}"
        raise UserError(f"no environment {name!r}{hint}. For an environment of your own give module:Id-v0")
    options = options_of(replace(Config(), env_options=args.env_options))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return packages.make(name, disable_env_checker=True, **options, **more)
    except Exception as error:
        advice = _install(error)
        told = f"{_told(error)}; {advice}" if advice else _told(error)
        raise UserError(f"environment {name} cannot be made with options {options}: {told}") from error


def _install(error: Exception) -> str:
    """What to install, when the exception says that something is missing."""
    if isinstance(error, ModuleNotFoundError | gym.error.DependencyNotInstalled):
        return packages.install_hint(error)
    gl = re.search(r"\begl|osmesa|glfw|opengl|glad|gl ?context|display", _told(error).lower())
    return GL_ADVICE if gl else ""


def _attempt(name: str, run: Callable[..., Iterator[Finding]], *arguments: Any) -> list[Finding]:
    """The findings of a check. An exception is a finding too: the environment's author may be the one who reads it."""
    findings: list[Finding] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            findings.extend(run(*arguments))
    except Exception as error:
        advice = _install(error) or "fix the environment so that it no longer raises this"
        findings.append(Finding(name, "failed", _told(error), advice))
    return findings


def _told(error: Exception) -> str:
    """Kind, message and place of an exception in one line."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {' '.join(str(error).split())} ({Path(last.filename).name}:{last.lineno})"


def _api(env: gym.Env) -> Iterator[Finding]:
    """Gymnasium's own checker on the unwrapped environment; the checks below cover the ranges it warns about."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(env.unwrapped, skip_render_check=True)
    said = dict.fromkeys(re.sub(r"\x1b\[\d+m(WARN: )?", "", str(w.message)) for w in caught)
    said = [s for s in said if "infinity" not in s and "symmetric and normalized" not in s]
    advice = "see gymnasium.utils.env_checker in Gymnasium's documentation" if said else ""
    yield Finding("api", "warning" if said else "ok", "; ".join(said) or "passes Gymnasium's check_env", advice)


def _action_space(env: gym.Env) -> Iterator[Finding]:
    space = env.action_space
    if not isinstance(space, spaces.Box) or len(space.shape) != 1 or space.dtype is None or space.dtype.kind != "f":
        advice = "planning needs continuous actions: wrap the environment so that it takes a Box of shape (A,), float32"
        yield Finding("action space", "failed", f"the action space is {space}", advice)
    elif not (np.isfinite(space.low).all() and np.isfinite(space.high).all() and (space.low < space.high).all()):
        advice = "declare finite bounds with low < high in every dimension"
        yield Finding("action space", "failed", f"{space} is not bounded", advice)
    else:
        found = f"{space.shape[0]} dimensions in [{space.low.min():g}, {space.high.max():g}]"
        yield Finding("action space", "ok", found)


def _observation_space(env: gym.Env) -> Iterator[Finding]:
    """Each part as pixels or sensors, and which parts the agent does not perceive."""
    check, space = "observation space", env.observation_space
    parts = dict(space.spaces) if isinstance(space, spaces.Dict) else {"": space}
    perceived = {k: v for k, v in parts.items() if k in ("", *NAMES)}
    for name, part in perceived.items():
        shape = cast(tuple[int, ...], part.shape if isinstance(part, spaces.Box) else ())
        picture = is_picture(part) and len(shape) == 3 and name != "sensors"
        if picture and shape[2] <= 4 < shape[0]:
            advice = "put the channels first, (C, H, W), with gymnasium.wrappers.TransformObservation"
            yield Finding(check, "failed", f"pixels {shape}: the channels come last", advice)
        elif picture or (len(shape) == 1 and name != "pixels"):
            yield Finding(check, "ok", f"pixels {shape}" if picture else f"{shape[0]} sensors")
        else:
            yield Finding(check, "failed", f"{name or 'the observation space'} is {part}", SPACE_ADVICE)
    if not perceived:
        yield Finding(check, "failed", f"a Dict of {', '.join(parts)}", SPACE_ADVICE)
    elif len(perceived) < len(parts):
        unseen = ", ".join(sorted(set(parts) - set(perceived)))
        yield Finding(check, "warning", f"the agent does not perceive {unseen}", "move what matters into `sensors`")


def _rendering(args: CheckArguments) -> Iterator[Finding]:
    """Videos and reports render the environment. Training does not, so a fault here is a warning."""
    try:
        with closing(make(args)) as env:
            modes = env.metadata.get("render_modes", ())
        if "rgb_array" not in modes:
            advice = "add rgb_array to metadata['render_modes'] and return (H, W, 3) uint8 from render()"
            yield Finding("rendering", "warning", "the environment cannot be rendered as an array", advice)
            return
        with closing(make(args, render_mode="rgb_array")) as env:
            env.reset(seed=args.seed)
            frame = np.asarray(env.render())
    except Exception as error:
        advice = _install(error) or "training does not need render(); videos and reports do"
        yield Finding("rendering", "warning", _told(error), advice)
        return
    good = frame.ndim == 3 and frame.shape[2] == 3 and frame.dtype == np.uint8
    advice = "" if good else "return (H, W, 3) uint8 from render()"
    yield Finding("rendering", "ok" if good else "warning", f"{frame.dtype} {frame.shape}", advice)
