"""What the commands share: parsing, loading a run, and the last JSON line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import tyro

from agent.agent import Agent
from agent.build import load, setup
from agent.config import Config, from_dict, options_of
from agent.console import set_quiet, warn
from agent.errors import UserError
from agent.interaction.environment import Environment, open_environment
from agent.storage.run import Run

T = TypeVar("T")


def environment_of(config: Config) -> Environment:
    """The environment of a run."""
    return open_environment(config.env, options_of(config))


def load_run(folder: Path, device: str, threads: int) -> tuple[Config, Agent, Run]:
    """A run that was trained: its configuration, its agent, and the open folder."""
    setup(threads)
    run = Run.open(folder)
    agent = load(folder, device)
    if "train_wall_seconds" not in _summary(run):
        warn(f"{folder} has not been trained to its end: this is its newest checkpoint")
    return from_dict(Config, run.config), agent, run


def _summary(run: Run) -> dict[str, Any]:
    try:
        return json.loads((run.folder / "summary.json").read_text())
    except (OSError, ValueError):
        return {}


def _json_flag(arguments: list[str]) -> tuple[list[str], bool]:
    as_json = "--json" in arguments
    set_quiet(as_json)
    return [a for a in arguments if a != "--json"], as_json


def _take_value(arguments: list[str], flag: str) -> tuple[str | None, list[str]]:
    """The value of a flag that is not part of the configuration, and the other arguments."""
    value, rest = None, []
    it = iter(arguments)
    for a in it:
        if a == flag:
            value = next(it, None)
            if value is None or value.startswith("--"):
                raise UserError(f"{flag} needs a value: {flag} runs/my_run")
        elif a.startswith(f"{flag}="):
            value = a.split("=", 1)[1]
        else:
            rest.append(a)
    return value, rest


def _parse(kind: Callable[..., T], arguments: list[str], prog: str, description: str, default: Any = None) -> T:
    extra = {} if default is None else {"default": default}
    return tyro.cli(kind, prog=prog, args=arguments, description=description, **extra)


def _finish(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(result, default=float) + "\n")
