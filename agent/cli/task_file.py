"""A task of one's own: `--task FILE:FUNCTION`, a cost over the readings of the body."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import cast

import torch

from agent.config import Config
from agent.errors import UserError, nearest, told
from agent.interaction.environment import Environment
from agent.spec import EnvSpec
from envs.tasks import TASKS
from modules.drives import DRIVES, Readings, TaskCost, task_cost
from modules.types import BodySpec, Imagined, State

FORM = 'def cost(x: Readings) -> Tensor, with x["name"] and the cost of shape (..., H) as each reading has'


def load_task(task: str) -> None:
    """Make FILE:FUNCTION known as a drive. This runs the file, so only a name that the user has given comes here.

    Raises:
        UserError: there is no such file or function, or the file fails.
    """
    file, colon, name = task.rpartition(":")
    if not colon:
        return
    path = Path(file)
    if not path.is_file():
        raise UserError(f"--task {task}: there is no file {file}")
    module = _imported(path) or _run(task, path)
    cost = getattr(module, name, None)
    if not callable(cost):
        known = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        raise UserError(f"--task {task}: {file} has no function {name!r}{nearest(name, known)}")
    DRIVES[task] = task_cost(cast(TaskCost, cost))


def _imported(path: Path) -> ModuleType | None:
    """The module of a file that is imported already, such as the one that registers the environment."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file is not None and Path(file).resolve() == path.resolve():
            return module
    return None


def _run(task: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"task_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"--task {task}: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # it is the user's code, which can raise anything
        raise UserError(f"--task {task}: {path} fails: {told(error)}") from error
    return module


def with_drives(config: Config, drives: tuple[str, ...], environment: Environment) -> Config:
    """The configuration with other drives. UserError for a task that this environment cannot have."""
    for drive in drives:
        check_task(drive, environment.spec)
    weights, floors = (
        {name: x for name, x in given.items() if name in drives} for given in (config.cost.weights, config.cost.floors)
    )
    wanted = dataclasses.replace(config.cost, drives=drives, weights=weights, floors=floors)
    # A critic has a head for each drive and is asked about goals, so it stays where the drives do.
    kept = drives == config.cost.drives
    critic = config.critic if kept else dataclasses.replace(config.critic, enabled=False)
    return dataclasses.replace(config, cost=wanted, critic=critic)


def check_task(task: str, spec: EnvSpec) -> None:
    """UserError for a task that names sensors which are not there, or a function that is no cost."""
    if task not in TASKS and ":" not in task:
        return
    seen, steps = spec.observation, 5
    body = BodySpec(
        spec.actions,
        proprio_names=seen.proprio_names,
        proprio_offset=seen.proprio_offset,
        proprio_scale=seen.proprio_scale,
        goal_proprio=seen.goal_proprio,
    )
    generator = torch.Generator().manual_seed(0)
    proprio = torch.rand(2, 3, steps, len(seen.proprio_names), generator=generator) * 1.8 - 0.9
    actions = spec.actions.rest(proprio).expand(2, 3, steps, 1, -1).clone()
    proprio.requires_grad_()
    actions.requires_grad_()
    imagined = Imagined(State(torch.zeros(2, 3, steps, 1), proprio), actions)
    cost: TaskCost = DRIVES[task].__wrapped__  # pyright: ignore[reportFunctionMemberAccess]
    try:
        value: object = cost(Readings(imagined, body))
    except KeyError as error:
        raise UserError(f"--task {task} asks for what this environment does not have: {error.args[0]}") from error
    except Exception as error:  # it is the user's code, which can raise anything
        raise UserError(f"--task {task} fails: {told(error)}. Expected {FORM}") from error
    if not isinstance(value, torch.Tensor) or value.shape != proprio.shape[:-1]:
        got = tuple(value.shape) if isinstance(value, torch.Tensor) else repr(value)
        raise UserError(
            f"--task {task} returns {got} for readings of shape {tuple(proprio.shape[:-1])}: expected {FORM}"
        )
    if not bool(value.isfinite().all()):
        raise UserError(f"--task {task} returns numbers that are not finite for readings inside their range")
    given = torch.autograd.grad(value.sum(), (proprio, actions), allow_unused=True) if value.requires_grad else ()
    given = [gradient for gradient in given if gradient is not None]
    if not all(bool(g.isfinite().all()) for g in given):
        raise UserError(f"--task {task} has gradients that are not finite for readings inside their range")
    if not any(bool(g.abs().sum() > 0) for g in given):
        raise UserError(
            f"--task {task} is not differentiable: its gradient by readings and action is nothing or zero. "
            "Use functions of torch, and no comparison or rounding alone"
        )
