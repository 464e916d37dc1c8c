"""Tasks from the user: `--tasks` takes a number of tasks of the frozen list, or a file with tasks of one's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from agent.errors import UserError
from agent.storage.files import read_json
from envs import Simulator
from envs.api import Tasks

FORMAT = '{"start": [[...], ...], "goal": [[...], ...]}, a physical state of the environment for every task'


def chosen_tasks(text: str, simulator: Simulator) -> int | Tasks:
    """What --tasks asks for: how many of the frozen list, or the tasks of a JSON file.

    Raises:
        UserError: a number below 1, no such file, or a file that holds no tasks of this environment.
    """
    try:
        count = int(text)
    except ValueError:
        return read_tasks(Path(text), simulator)
    if count < 1:
        raise UserError(f"--tasks must be 1 or more, got {count}")
    return count


def read_tasks(path: Path, simulator: Simulator) -> Tasks:
    """The tasks of a JSON file: {"start": [[...], ...], "goal": [[...], ...]}, physical states (N, P) each."""
    if not path.is_file():
        raise UserError(f"--tasks {path} is neither a number of tasks nor a file")
    held = read_json(path)
    if set(held) != {"start", "goal"}:
        raise UserError(f"--tasks {path} holds something else than {FORMAT}")
    try:
        start, goal = (np.array(held[name], np.float64) for name in ("start", "goal"))
    except (TypeError, ValueError) as error:
        raise UserError(f"--tasks {path}: {error}; expected {FORMAT}") from error
    size = simulator.reset(np.random.default_rng(0), 1).shape[1]
    for name, states in (("start", start), ("goal", goal)):
        if states.ndim != 2 or not len(states) or states.shape[1] != size or len(states) != len(start):
            raise UserError(
                f"--tasks {path}: {name} has shape {states.shape}; expected ({len(start)}, {size}), a physical state "
                f"of {size} numbers for every task"
            )
        if not np.isfinite(states).all():
            raise UserError(f"--tasks {path}: {name} holds numbers that are not finite")
    for name, states in (("start", start), ("goal", goal)):
        try:
            simulator.observe(states)
        except ValueError as error:
            raise UserError(f"--tasks {path}: {name} holds a state that cannot be: {error}") from error
    return Tasks(start, goal)
