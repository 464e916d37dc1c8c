"""Opening a run for a command that reads it: its configuration, its environment, its agent, and where to write."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from pathlib import Path

import gymnasium as gym

from agent.agent import Agent
from agent.build import load, setup
from agent.cli.task_file import load_task, with_drives
from agent.config import Config, from_dict
from agent.console import warn
from agent.derive import purpose
from agent.errors import UserError
from agent.interaction import environment as environments
from agent.interaction.environment import Environment
from agent.storage.run import Run, config_diff
from envs import SIMULATORS
from envs.packages import provider
from modules.drives import DRIVES

INSTALLED = ("gymnasium", "gymnasium_robotics", "minigrid", "shimmy")
"""Packages whose wrappers a run may name: this project's extras install them."""


def open_run(folder: Path, out: Path | None) -> tuple[Config, Run]:
    """A run: its configuration, and its folder, open for reading.

    out: where new files go, which is checked to be writable; the run's own folder by default.
    """
    run = Run.open(folder, out=out)
    try:
        config = from_dict(Config, run.config)
    except (TypeError, ValueError) as error:
        raise UserError(f"{folder / 'config.json'} is from another version: {error}") from error
    run.check_writable()
    if "train_wall_seconds" not in (run.summary() or {}):
        warn(f"the training of {folder} is not finished: its newest checkpoint is used")
    return config, run


def load_agent(run: Run, device: str, threads: int, config: Config | None = None, retasked: bool = False) -> Agent:
    """The agent of a run, ready to act. Open its environment first, so that a refusal comes before the work.

    config, retasked: see `build.load`.
    """
    setup(threads)
    return load(run.folder, device, config, retasked)


def retasked(config: Config, task: str, goal: tuple[str, ...], named: str | None = None) -> Config:
    """A run's configuration with another purpose, where one is asked for.

    A task in a file is not imported because config.json names it, only because the user does.

    Raises:
        UserError: a task or goal that this environment cannot have, or a task in a file that has to be named again.
    """
    if goal:
        config = dataclasses.replace(config, goal=goal)
        task = task or "goal"
    if task:
        environment = open_environment(config, named)
        load_task(task)
        drives, _ = purpose(environment, task, config.goal)
        return with_drives(config, drives, environment)
    for drive in config.cost.drives:
        if ":" in drive and drive not in DRIVES:
            raise UserError(
                f"this run was trained for the task {drive}, a function in a file. A command runs no file that only "
                f"config.json names. If you trust it, add --task {drive}"
            )
    return config


def without_files(config: Config, environment: Environment) -> Config:
    """A run's configuration without tasks in files that were not imported: looking inside needs no task.

    What is planned is then planned for the drives that are left, if any.
    """
    unknown = [drive for drive in config.cost.drives if ":" in drive and drive not in DRIVES]
    if not unknown:
        return config
    left = tuple(drive for drive in config.cost.drives if drive not in unknown)
    warn(
        f"the task {', '.join(unknown)} is a function in a file, which is not run because config.json names it: "
        + (f"plans are for {', '.join(left)} alone" if left else "there are no plans")
    )
    return with_drives(config, left, environment)


def open_environment(config: Config, named: str | None = None) -> Environment:
    """The environment that a run was trained in.

    Importing a module runs its code, so a module is imported only when the user names it, never because config.json
    does.

    Args:
        config: the run's.
        named: what the user has given as --env, MODULE:ID, if anything.

    Raises:
        UserError: `named` is another environment than the run's; its module cannot be imported; or the environment
            is not known in this process, and what --env would make it known.
    """
    module, _, name = config.env.rpartition(":")
    if named is not None:
        _import_named(named, config.env)
    elif module and module not in sys.modules:
        raise UserError(
            f"this run was trained in {config.env}, as its config.json says. Opening that environment would import the "
            f"Python module {module!r}, which runs its code, and a command imports no module that only a file names. "
            f"If you trust the module, add --env {config.env}"
        )
    if name not in SIMULATORS and name not in gym.registry and provider(config.env) is None:
        raise UserError(
            f"the environment {name!r} of this run is not registered in this process. Add --env MODULE:{name}, with "
            "the module whose import registers it, or run the script that registers it in place of run_agent.py"
        )
    for wrapper in config.wrappers:
        package = wrapper.partition(":")[0]
        if wrapper != "none" and package.partition(".")[0] not in INSTALLED and package not in sys.modules:
            raise UserError(
                f"this run's environment is wrapped in {wrapper}, as its config.json says, and a command imports no "
                f"module that only a file names. If you trust it, import {package} in a script that calls run_agent"
            )
    return environments.environment_of(dataclasses.replace(config, env=name if name in SIMULATORS else config.env))


def _import_named(named: str, trained_in: str) -> None:
    """Import the module of --env MODULE:ID, which has to be the run's own environment."""
    module, colon, name = named.rpartition(":")
    own_module, _, own = trained_in.rpartition(":")
    if name != own or (module and own_module and module != own_module):
        raise UserError(
            f"--env {named} is another environment than {trained_in}, in which this run was trained. "
            "--env-options evaluates it in a variant of its own"
        )
    if not colon:
        return
    try:
        importlib.import_module(module)
    except Exception as error:  # it is the user's code, which can raise anything
        raise UserError(
            f"--env {named}: the module {module!r} cannot be imported ({type(error).__name__}: {error}). "
            "Start the program in the module's folder with PYTHONPATH=."
        ) from error


def open_variant(config: Config, own: Environment, options: tuple[str, ...]) -> Environment:
    """The same environment with other options.

    Raises:
        UserError: an agent of this run could not act in it, because observations or actions differ.
    """
    variant = environments.environment_of(dataclasses.replace(config, env=own.name, env_options=options))
    before, after = own.spec.to_json(), variant.spec.to_json()
    if difference := config_diff(before, after):
        raise UserError(
            f"--env-options {' '.join(options)} gives {config.env} other observations or actions than the run was "
            f"trained with (- there, + here):\n{difference}\nGive options that keep them."
        )
    return variant
