"""`run_agent.py check ENV_ID`: can this world be learned from? Answered before hours are spent on training.

Each check explores the world as training would, and ends in findings: what was found and, unless it is fine, what to do
about it. Nothing here learns, and no reward is read.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
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
from agent.console import table, tell
from agent.errors import UserError, nearest
from agent.evaluation import evaluate
from agent.inspection import check_exploration
from agent.inspection.check_exploration import Finding
from agent.interaction.environment import of_simulator
from envs import SIMULATORS
from envs.gym_env import SimEnv, SimVectorEnv

TASKS, BATCH = 50, 256


GL_ADVICE = "install a GL driver: apt install libegl1, or libosmesa6 with MUJOCO_GL=osmesa in the environment"


SENSES = "observe a Box, or a Dict of `pixels` (C, H, W) uint8 and/or `sensors` (S,) float32"


@dataclass(frozen=True)
class CheckArguments:
    """Can this world be learned from? Exit code 0: yes, perhaps with warnings; 1: no; 2: there is no such world."""

    env: Annotated[str, tyro.conf.Positional]
    """World: an id that Gymnasium knows, or module:Id-v0 where importing the module registers it."""
    env_options: tuple[str, ...] = ()
    """Options of the world's constructor: layout=medium pixels=true."""
    steps: int = 400
    """Primitive actions of exploration."""
    seed: int = 0
    """Of the world and of the actions."""
    length: int = config.ExploreConfig.length
    """Action blocks in an episode of training (--collect.length)."""
    block: int = 4
    """Primitive actions in a block (--world-model.action-block)."""


def command(arguments: list[str], as_json: bool, parse: Callable[..., Any], finish: Callable[..., None]) -> int:
    """Check one world and print what was found; 0 when it can be learned from, else 1."""
    args = cast(CheckArguments, parse(CheckArguments, arguments, "run_agent.py check", CheckArguments.__doc__))
    if min(args.steps, args.length, args.block) < 1 or args.seed < 0:
        raise UserError("--steps, --length and --block must be 1 or more, and --seed 0 or more")
    findings = check(args)
    ok = all(f.result != "failed" for f in findings)
    table(args.env, [{k: v for k, v in dataclasses.asdict(f).items() if k != "advice"} for f in findings])
    for f in findings:
        if f.advice:
            tell(f"\n{f.result}: {f.check}: {f.found}\n  what to do: {f.advice}")
    tell(f"\n{args.env} {'can' if ok else 'cannot'} be learned from")
    finish({"env": args.env, "ok": ok, "findings": [dataclasses.asdict(f) for f in findings]}, as_json)
    return 0 if ok else 1


def check(args: CheckArguments) -> list[Finding]:
    """All findings. UserError when there is no such world, or it cannot be made."""
    env = make(args)
    try:
        findings = [*_attempt("api", _api, env), *_attempt("actions", _actions, env), *_attempt("senses", _senses, env)]
        if not any(f.result == "failed" for f in findings[1:]):  # else nothing below could run
            again = partial(make, args)
            findings += _attempt(
                "exploration", check_exploration.explore, env, again, args.steps, args.seed, args.length, args.block
            )
            if isinstance(env.unwrapped, SimEnv):
                findings += _attempt("exact states", _states, env.unwrapped, args.seed)
                findings += _attempt("tasks", _tasks, env.unwrapped, args.seed)
        return findings + _attempt("pictures", _pictures, env, args)
    finally:
        env.close()


def make(args: CheckArguments, **more: Any) -> gym.Env:
    """The world, or a UserError that says what is wrong with the id or the options."""
    module, _, name = args.env.rpartition(":")
    try:
        importlib.import_module(module or "envs")
    except Exception as error:
        raise UserError(f"module {module!r} of {args.env!r} cannot be imported: {_told(error)}") from error
    if name not in gym.registry:
        hint = nearest(name, gym.registry) or f"; this project's own are {', '.join(SIMULATORS)}"
        raise UserError(f"no world {name!r}{hint}. For a world of your own give module:Id-v0")
    options = options_of(replace(Config(), env_options=args.env_options))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return gym.make(name, disable_env_checker=True, **options, **more)
    except Exception as error:
        advice = _install(error)
        told = f"{_told(error)}; {advice}" if advice else _told(error)
        raise UserError(f"world {name} cannot be made with options {options}: {told}") from error


def _install(error: Exception) -> str:
    """What to install, when that is the trouble."""
    if isinstance(error, ModuleNotFoundError):
        return f"pip install {error.name}"
    gl = re.search(r"\begl|osmesa|glfw|opengl|glad|gl ?context|display", _told(error).lower())
    return GL_ADVICE if gl else ""


def _attempt(name: str, run: Callable[..., Iterator[Finding]], *arguments: Any) -> list[Finding]:
    """The findings of a check. What the world raises is a finding too: the person who reads it may have written it."""
    findings: list[Finding] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            findings.extend(run(*arguments))
    except Exception as error:
        advice = _install(error) or "mend the world, so that this no longer happens"
        findings.append(Finding(name, "failed", _told(error), advice))
    return findings


def _told(error: Exception) -> str:
    """Kind, message and place of an exception in one line."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {' '.join(str(error).split())} ({Path(last.filename).name}:{last.lineno})"


def _api(env: gym.Env) -> Iterator[Finding]:
    """Gymnasium's own checker, on the bare world; what it says of ranges is left to the checks below."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(env.unwrapped, skip_render_check=True)
    said = dict.fromkeys(re.sub(r"\x1b\[\d+m(WARN: )?", "", str(w.message)) for w in caught)
    said = [s for s in said if "infinity" not in s and "symmetric and normalized" not in s]
    advice = "see the page on gymnasium.utils.env_checker in Gymnasium's documentation" if said else ""
    yield Finding("api", "warning" if said else "ok", "; ".join(said) or "follows Gymnasium's", advice)


def _actions(env: gym.Env) -> Iterator[Finding]:
    space = env.action_space
    if not isinstance(space, spaces.Box) or len(space.shape) != 1 or space.dtype is None or space.dtype.kind != "f":
        advice = "planning needs continuous actions: a Box of shape (A,), float32; wrap the world"
        yield Finding("actions", "failed", f"the action space is {space}", advice)
    elif not (np.isfinite(space.low).all() and np.isfinite(space.high).all() and (space.low < space.high).all()):
        advice = "declare, for every number, a smallest and a larger largest action that make sense"
        yield Finding("actions", "failed", f"{space} is not a bounded range", advice)
    else:
        yield Finding("actions", "ok", f"{space.shape[0]} numbers in [{space.low.min():g}, {space.high.max():g}]")


def _senses(env: gym.Env) -> Iterator[Finding]:
    space = env.observation_space
    parts = dict(space.spaces) if isinstance(space, spaces.Dict) else {"": space}
    ours = {k: v for k, v in parts.items() if k in ("", "pixels", "sensors")}
    for name, part in ours.items():
        shape = cast(tuple[int, ...], part.shape if isinstance(part, spaces.Box) else ())
        picture = part.dtype == np.uint8 and len(shape) == 3 and name != "sensors"
        if picture and shape[2] <= 4 < shape[0]:
            advice = "put the channels first, (C, H, W), with gymnasium.wrappers.TransformObservation"
            yield Finding("senses", "failed", f"pixels {shape}, channels last", advice)
        elif picture or (len(shape) == 1 and name != "pixels"):
            yield Finding("senses", "ok", f"pixels {shape}" if picture else f"{shape[0]} sensors")
        else:
            yield Finding("senses", "failed", f"{name or 'the observation space'} is {part}", SENSES)
    if not ours:
        yield Finding("senses", "failed", f"a Dict of {', '.join(parts)}", SENSES)
    elif len(ours) < len(parts):
        unseen = ", ".join(sorted(set(parts) - set(ours)))
        yield Finding("senses", "warning", f"{unseen} will not be seen", "move what matters into `sensors`")


def _states(world: SimEnv, seed: int) -> Iterator[Finding]:
    """get_state and set_state: the same future, noise included, twice."""
    for kind, copy in (("one", world), ("four at once", SimVectorEnv(world.simulator, 4, world.max_steps))):
        copy.action_space.seed(seed)
        copy.reset(seed=seed)
        actions = [copy.action_space.sample() for _ in range(25)]
        for action in actions[:5]:
            copy.step(action)
        kept, futures = copy.get_state(), []
        for _ in range(2):
            copy.set_state(kept)
            futures.append([copy.step(action)[4]["state"] for action in actions[5:]])
        exact = np.array_equal(*futures)
        advice = "keep all that decides the future in the state array, and draw noise from `rng` only"
        found = f"{kind}: set_state {'continues bit for bit' if exact else 'does not continue exactly'}"
        yield Finding("exact states", "ok" if exact else "failed", found, "" if exact else advice)


def _tasks(world: SimEnv, seed: int) -> Iterator[Finding]:
    """Tasks begin unsolved and can be solved; how fast the batched form is."""
    simulator: Any = world.simulator
    rng = np.random.default_rng(seed)
    tasks, budget = simulator.sample_tasks(rng, TASKS), world.max_steps
    solved = int(simulator.success(tasks.start, tasks.goal).sum())
    if solved:
        advice = "let sample_tasks keep goals farther from their starts than success_radius"
        yield Finding("tasks", "failed", f"{solved} of {TASKS} are solved before the first step", advice)
    reference = evaluate.reference(of_simulator("", simulator), tasks, budget, seed)
    found = f"{budget} steps: " + ", ".join(f"{name} {100 * share:.0f} %" for name, share in reference.items())
    if reference["expert"] < 0.95:
        advice = "look at the tasks that expert_action fails: can they be solved at all, and in time?"
        yield Finding("tasks", "failed" if reference["expert"] < 0.5 else "warning", found, advice)
    elif reference["random"] > 0.5:
        yield Finding("tasks", "warning", found, "random actions solve most tasks: make them harder")
    else:
        yield Finding("tasks", "ok", found)
    states, began = simulator.reset(rng, BATCH), time.perf_counter()
    actions = rng.uniform(simulator.action_low, simulator.action_high, (20, BATCH, len(simulator.action_low)))
    for action in actions:
        states = simulator.step(states, action, rng)
        simulator.observe(states)
    rate = len(actions) * BATCH / (time.perf_counter() - began)
    yield Finding("batched speed", "ok", f"{rate:.0f} steps/s, {BATCH} worlds on one core")


def _pictures(env: gym.Env, args: CheckArguments) -> Iterator[Finding]:
    """People want to see the world; training does not, so trouble here is a warning."""
    if "rgb_array" not in env.metadata.get("render_modes", ()):
        advice = "add rgb_array to metadata['render_modes'] and return (H, W, 3) uint8 from render()"
        yield Finding("pictures", "warning", "the world cannot be rendered", advice)
        return
    try:
        shown = make(args, render_mode="rgb_array")
        try:
            shown.reset(seed=args.seed)
            picture = np.asarray(shown.render())
        finally:
            shown.close()
    except Exception as error:
        advice = _install(error) or "training does not need pictures; reports do"
        yield Finding("pictures", "warning", _told(error), advice)
        return
    good = picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == np.uint8
    advice = "" if good else "return (H, W, 3) uint8 from render()"
    yield Finding("pictures", "ok" if good else "warning", f"{picture.dtype} {picture.shape}", advice)
