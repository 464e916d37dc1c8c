"""Errors meant for the person at the keyboard: one message, no traceback.

The command line prints a UserError and exits with status 2; every other exception is a fault of the program and keeps
its traceback. Torch is not imported here: the command line can name these classes before it loads anything slow.
"""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class UserError(Exception):
    """What was given, what was expected and what to do, in words for the user."""


class DamagedFile(UserError):
    """A file of ours is truncated, altered, missing or of an unknown version."""


class NonFinite(UserError):
    """A NaN or an infinity appeared where a finite number has to be."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a mistyped `name`: " (did you mean 'x'?)", or "" when nothing known is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""


def told(error: BaseException) -> str:
    """Kind, message and place of an exception in one line: what to say of code that is not ours."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    text = str(error)
    if not text and frames and (frames[-1].line or "").startswith("assert "):
        text = frames[-1].line or ""
    text = " ".join(text.split())
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}{f': {text}' if text else ''}{place}"


def check_finite(tensors: Mapping[str, Tensor], step: int, where: str) -> None:
    """Stop at the first step with a NaN or an infinity, with the evidence.

    Args:
        tensors: name -> tensor of any shape and dtype; integers and booleans are always finite.
        step: the step they belong to, for the message.
        where: what was being computed, for the message ("world model loss").

    Raises:
        NonFinite: names each offending tensor, how many of its elements are bad, and the step.
    """
    found = not_finite(tensors)
    if found:
        raise NonFinite(
            f"{where}, step {step}: not finite: {'; '.join(found)}. Nothing of this step was saved. The usual causes "
            "are a learning rate that is too large and observations that are not finite themselves."
        )


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """For each tensor with a NaN or an infinity: its name, its shape, and how many of its elements are bad."""
    found = []
    for name, tensor in tensors.items():
        finite = tensor.detach().isfinite()
        if not bool(finite.all()):
            nans = int(tensor.detach().isnan().sum())
            infinities = int((~finite).sum()) - nans
            found.append(f"{name} {tuple(tensor.shape)}: {nans} NaN and {infinities} infinite of {tensor.numel()}")
    return found
