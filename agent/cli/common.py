"""What all commands share: parsing, checks of flags, and the last JSON line. Nothing here imports torch."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import tyro

from agent.errors import UserError, nearest

T = TypeVar("T")

Flag = tyro.conf.FlagCreatePairsOff[bool]
"""A flag that is off unless it is given: --json, without a --no-json."""


def parse(kind: Callable[..., T], arguments: list[str], program: str) -> T:
    """The arguments of a command as its dataclass, whose docstrings are its help. Exits on --help and on a mistake."""
    return tyro.cli(
        kind,
        prog=program,
        args=arguments,
        description=inspect.cleandoc(kind.__doc__ or ""),
        config=(tyro.conf.DisallowNone,),  # leaving a flag out says the same
    )


def finish(result: dict[str, Any], as_json: bool) -> None:
    """Print the result as one line of JSON when it was asked for."""
    if as_json:
        sys.stdout.write(json.dumps(result, default=float) + "\n")


def flag(name: str) -> str:
    """A field's name as it is typed."""
    return f"--{name.replace('_', '-')}"


def check_positive(arguments: Any, *names: str) -> None:
    """UserError when a whole number of the arguments is given and less than 1."""
    for name in names:
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UserError(f"{flag(name)} must be 1 or more, got {value}")


def check_seed(seed: int) -> None:
    """UserError for a seed that random generators refuse."""
    if not 0 <= seed < 2**63:
        raise UserError(f"--seed must be from 0 to 2^63 - 1, got {seed}")


def check_choice(name: str, value: str | None, known: Any) -> None:
    """UserError, with the nearest name, when a value is given and not known."""
    if value is not None and value not in known:
        raise UserError(f"{flag(name)} {value!r} is unknown{nearest(value, known)}; known: {', '.join(known)}")
