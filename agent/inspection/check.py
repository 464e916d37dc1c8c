"""`run_agent.py check ENV_ID`: can the agent be trained in this environment? Answered before hours are spent on it.

Each check steps the environment as training does, with the settings that training would have, and returns findings:
what was found and, unless it is fine, what to do about it. Nothing is learned here.

Only one copy of the environment is open at a time. Many environments render into the OpenGL context that was made last:
closing a second copy would leave the first without one, and its frames would stay black from then on. (Those of MuJoCo
are told apart, `envs.opengl`.)
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
import tyro
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from agent.build import build
from agent.config import Config, options_of
from agent.config import check as check_config
from agent.derive import Reason, settings
from agent.errors import UserError, told
from agent.inspection import check_exploration, check_simulator
from agent.inspection.check_exploration import Walk
from agent.inspection.finding import Finding
from agent.interaction.environment import Environment, gl_advice, make_one, make_plain, open_environment
from envs import SimEnv, packages
from envs.body import frame
from envs.senses import ENDED, Senses, Unperceivable
from modules.actions import BoxActions, DiscreteActions
from modules.types import Actions


@dataclass(frozen=True)
class CheckArguments:
    """Can the agent be trained in this environment, and what will the commands be able to do there?

    Exit code 0: yes, perhaps with warnings. 1: no. 2: the environment does not exist or cannot be made.
    """

    env: Annotated[str, tyro.conf.Positional]
    """Environment: a Gymnasium id, or module:Id-v0 where importing the module registers it."""
    env_options: tuple[str, ...] = ()
    """Options of the environment's constructor: layout=medium pixels=true."""
    wrappers: tuple[str, ...] = ()
    """Wrappers around the environment, module:Class each, from the inside outwards; none: not even the one that a
    known environment comes with."""
    steps: int = 400
    """Primitive actions to explore for."""
    seed: int = 0
    """Seed of the environment and of the actions."""
    length: int | None = None
    """Action blocks in a training episode (--collect.length); by default what training would take."""
    block: int | None = None
    """Primitive actions in a block (--world-model.action-block); by default what training would take."""


@dataclass
class Checked:
    """Everything that was found out. What could not be is None."""

    findings: list[Finding] = field(default_factory=list)
    environment: Environment | None = None
    config: Config | None = None
    """With which the agent would be trained."""
    reasons: list[Reason] = field(default_factory=list)
    """Why its settings are what they are; none where there is a preset."""
    walk: Walk | None = None

    @property
    def ok(self) -> bool:
        """Whether the agent can be trained there."""
        return all(f.result != "failed" for f in self.findings)


def check(args: CheckArguments) -> list[Finding]:
    """Run every check.

    Args:
        args: the environment and how long to explore it.

    Returns:
        Findings in the order of the checks. The environment can be trained in when none of them is `failed`.

    Raises:
        UserError: the environment does not exist or cannot be made.
    """
    return look(args).findings


def look(args: CheckArguments) -> Checked:
    """As `check`, with what it was found out by."""
    out = Checked()
    base = Config(env=args.env, env_options=args.env_options, wrappers=args.wrappers, seed=args.seed)
    options = options_of(base)
    plain, one = (partial(make, args.env, options, args.wrappers) for make in (make_plain, make_one))
    with closing(plain()) as env:
        simulated = isinstance(env.unwrapped, SimEnv) and not args.wrappers
        parts = [] if simulated else _attempt("first reset", _perceived, env)
        out.findings = [*_attempt("api", _api, env), *parts]
    if all(f.result != "failed" for f in parts):  # otherwise no other check could run
        out.findings += _attempt("settings", _settings, out, args, base)
    if out.environment is not None and out.config is not None:
        walks: list[Walk] = []
        explored = check_exploration.explore(out.environment, one, out.config, args.steps, args.seed, walks)
        out.findings += _attempt("exploration", lambda: explored)
        out.walk = next(iter(walks), None)
        if simulated:
            with closing(plain()) as env:
                out.findings += _attempt("exact states", check_simulator.states, env.unwrapped, args.seed)
                out.findings += _attempt("tasks", check_simulator.tasks, env.unwrapped, args.seed)
                out.findings += _attempt("speed", check_simulator.speed, env.unwrapped, args.seed, out.config)
    out.findings += _attempt("rendering", _rendering, plain, args.seed)
    return out


def _attempt(name: str, run: Callable[..., Iterator[Finding]], *arguments: Any) -> list[Finding]:
    """The findings of a check. An exception is a finding too: the environment's author may be the one who reads it."""
    findings: list[Finding] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            findings.extend(run(*arguments))
    except UserError as error:
        findings.append(Finding(name, "failed", str(error), "the message says what helps"))
    except Exception as error:
        advice = _install(error) or "fix the environment so that it no longer raises this"
        findings.append(Finding(name, "failed", told(error), advice))
    return findings


def _install(error: Exception) -> str:
    """What to install, when the exception says that something is missing."""
    if isinstance(error, ModuleNotFoundError | gym.error.DependencyNotInstalled):
        return packages.install_hint(error)
    return gl_advice(error)


def _api(env: gym.Env) -> Iterator[Finding]:
    """Gymnasium's own checker on the unwrapped environment; the checks below cover the ranges it warns about.

    What it refuses is a warning here: many environments of packages do not pass, and can be trained in.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            check_env(env.unwrapped, skip_render_check=True, skip_close_check=True)  # no other copy
            refused = []
        except Exception as error:
            refused = [told(error)]
    said = dict.fromkeys(re.sub(r"\x1b\[\d+m(WARN: )?", "", str(w.message)) for w in caught)
    said = [*refused, *(s for s in said if "infinity" not in s and "symmetric and normalized" not in s)]
    advice = "see gymnasium.utils.env_checker in Gymnasium's documentation" if said else ""
    found = " ".join("; ".join(said).split()) or "passes Gymnasium's check_env"
    yield Finding("api", "warning" if said else "ok", found, advice)


def _perceived(env: gym.Env) -> Iterator[Finding]:
    """How the agent acts and what it perceives there; one finding that says why, where it cannot."""
    try:
        senses = Senses(env)
    except Unperceivable as error:
        yield Finding(error.which, "failed", f"it {error}", "a wrapper can offer another form: --wrappers module:Class")
        return
    yield Finding("action space", "ok", _acts(env.action_space))
    shown = []
    assert isinstance(senses.observation_space, spaces.Dict)
    if (pixels := senses.observation_space.spaces.get("pixels")) is not None:
        given = [space.shape for space in _boxes(env.observation_space) if space.dtype == np.uint8]
        reduced = bool(given) and max(max(shape or (0,)) for shape in given) > max(pixels.shape or (0,))
        shown.append(f"pixels {pixels.shape}{f', reduced from {given[0]}' if reduced else ''}")
    names = [name for name in senses.sensor_names if name != ENDED]
    shown += [f"{len(names)} sensors" if len(names) > 1 else "one sensor"] if names else []
    yield Finding("observation space", "ok", " and ".join(shown))
    if senses.ignored:
        unseen = ", ".join(senses.ignored)
        advice = "move what matters in it into numbers or pictures: the agent reads no text, sequences or graphs"
        yield Finding("observation space", "warning", f"the agent does not perceive {unseen}", advice)


def _boxes(space: spaces.Space) -> Iterator[spaces.Box]:
    """The boxes in an observation space."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        for inner in space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces:
            yield from _boxes(inner)
    elif isinstance(space, spaces.Box):
        yield space


def _acts(space: spaces.Space) -> str:
    if isinstance(space, spaces.Discrete):
        return f"a choice of {space.n}"
    if isinstance(space, spaces.MultiDiscrete):
        return f"choices of {', '.join(map(str, space.nvec.ravel().tolist()))}"
    if isinstance(space, spaces.MultiBinary):
        return f"choices of {', '.join(['2'] * int(np.prod(space.shape)))}"
    if isinstance(space, spaces.Box):
        return f"{space.low.size} dimensions in [{space.low.min():g}, {space.high.max():g}]"
    return str(space)


def _settings(out: Checked, args: CheckArguments, base: Config) -> Iterator[Finding]:
    """The configuration that `train --env` would have, and whether it builds an agent."""
    environment = open_environment(args.env, options_of(base), args.wrappers)
    if environment.truth is not None:
        yield Finding("action space", "ok", _box(environment.spec.actions))
        seen = environment.spec.observation
        shown = [f"pixels {seen.pixel_shape}"] if seen.pixel_shape else []
        shown += [f"{len(seen.sensor_low)} sensors"] if seen.sensor_low else []
        yield Finding("observation space", "ok", " and ".join(shown))
    config, out.reasons = settings(base, environment)
    length, block = args.length or config.collect.length, args.block or config.world_model.action_block
    config = replace(
        config,
        collect=replace(config.collect, length=length),
        world_model=replace(config.world_model, action_block=block),
        learn=replace(config.learn, window=min(config.learn.window, length + 1)),
    )
    check_config(config)
    agent = build(config, environment.spec)
    out.environment, out.config = environment, config
    weights = sum(p.numel() for module in agent.modules().values() for p in module.parameters())
    source = "derived from the environment" if out.reasons else "of the preset for it"
    yield Finding("settings", "ok", f"{source}; they build an agent of {weights} weights")


def _box(actions: Actions) -> str:
    if isinstance(actions, BoxActions):
        return f"{actions.size} dimensions in [{min(actions.low):g}, {max(actions.high):g}]"
    return f"choices of {actions.counts}" if isinstance(actions, DiscreteActions) else str(actions)


def _rendering(plain: Callable[..., gym.Env], seed: int) -> Iterator[Finding]:
    """Videos and reports render the environment. Training does not, so a fault here is a warning."""
    try:
        with closing(plain()) as env:
            modes = env.metadata.get("render_modes") or ()
        if "rgb_array" not in modes:
            advice = "add rgb_array to metadata['render_modes'] and return (H, W, 3) uint8 from render()"
            yield Finding("rendering", "warning", "the environment cannot be rendered as an array", advice)
            return
        with closing(plain(render_mode="rgb_array")) as env:
            env.reset(seed=seed)
            picture = frame(env)
    except Exception as error:
        advice = _install(error) or "training does not need render(); videos and reports do"
        yield Finding("rendering", "warning", told(error), advice)
        return
    good = picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == np.uint8
    advice = "" if good else "return (H, W, 3) uint8 from render()"
    yield Finding("rendering", "ok" if good else "warning", f"{picture.dtype} {picture.shape}", advice)
