"""Reading the folder of a run or comparison for the report, whatever state it is in.

What is absent, damaged, from another version or leads out of the folder becomes a remark, never an error.
"""

from __future__ import annotations

import base64
import io
import json
import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from agent.storage import recording as thoughts

RECORDINGS = 3


@dataclass
class Folder:
    """The files of a run or comparison, and what was missing when they were asked for."""

    path: Path
    missing: list[str] = field(default_factory=list)

    def names(self, pattern: str) -> list[str]:
        """Names of files in it, in order."""
        return sorted(p.name for p in self.path.glob(pattern))

    def read(self, name: str, what: str, remedy: str = "") -> bytes | None:
        """The content of a file; None, and a remark, when it is not there or leads out of the folder."""
        path = self.path / name
        try:
            if not path.resolve().is_relative_to(self.path.resolve()):
                self.missing.append(f"{what}: {name} is a link that leads out of the folder, and is not read.")
                return None
            if path.exists() and not path.is_file():
                self.missing.append(f"{what}: {name} is no file.")
                return None
            return path.read_bytes()
        except FileNotFoundError:
            self.missing.append(f"{what}: there is no {name}.{' ' if remedy else ''}{remedy}")
        except OSError as error:
            self.missing.append(f"{what}: {name} cannot be read: {error.strerror or error}.")
        return None

    def json(self, name: str, what: str, remedy: str = "") -> dict[str, Any] | None:
        """An object from a JSON file; None, and a remark, when it is absent or damaged."""
        data = self.read(name, what, remedy)
        if data is None:
            return None
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            self.missing.append(f"{what}: {name} is damaged: {error}.")
            return None
        if not isinstance(value, dict):
            self.missing.append(f"{what}: {name} holds a {type(value).__name__}, not an object.")
            return None
        return value

    def picture(self, name: str, what: str, remedy: str) -> str | None:
        """A PNG or GIF as a data address; None, and a remark, when it is absent or damaged."""
        data = self.read(name, what, remedy)
        if data is None:
            return None
        try:
            with Image.open(io.BytesIO(data), formats=("PNG", "GIF")) as image:
                image.load()
                kind = str(image.format).lower()
        except Exception as error:  # Pillow has many ways to say that a file is no picture
            self.missing.append(f"{what}: {name} is damaged: {error}.")
            return None
        return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"

    def lines(self, name: str, what: str) -> list[dict[str, Any]]:
        """The objects of a file of JSON lines; lines that are none are counted and left out."""
        data = self.read(name, what, "A training writes it.")
        out, bad = [], 0
        for line in (data or b"").splitlines():
            try:
                value = json.loads(line)
                if not isinstance(value.get("phase"), str) or not math.isfinite(value["step"]):
                    raise ValueError("not a line of a log")
                out.append(value)
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
                bad += 1
        if bad:
            self.missing.append(f"{what}: {bad} of {bad + len(out)} lines of {name} are damaged and left out.")
        return out

    def command(self, name: str) -> str:
        """What a user can type to make what is missing here."""
        return f"Make it: python run_agent.py {name} {shlex.quote(str(self.path))}"

    def part(self, what: str, make: Callable[[], str]) -> str:
        """A part of the page; a remark in its place when the files do not hold what this version expects."""
        try:
            return make()
        except Exception as error:  # a damaged file has many ways to be something else, and the rest is still shown
            self.missing.append(
                f"{what}: the files hold something else than expected ({type(error).__name__}: {error}); "
                "they may be from another version."
            )
            return ""


def recorded(folder: Folder) -> list[str]:
    """Names of the recordings, planning first."""
    names = folder.names("recording-*.json")
    if not names:
        folder.missing.append(f"Episodes: no Decisions were recorded. {folder.command('evaluate')}")
    names = planning_first(names)
    for name in names[RECORDINGS:]:
        folder.missing.append(f"Episodes: {name} is left out, the page shows the first {RECORDINGS} recordings.")
    return names[:RECORDINGS]


def planning_first(names: Sequence[str]) -> list[str]:
    """Files of evaluations and recordings: Mode-2, then Mode-1, then what oracles did."""
    return sorted(names, key=lambda n: ("oracle" in n or "true" in n, "mode2" not in n, n))


def recording(folder: Folder, name: str) -> dict[str, Any] | None:
    """One recording, when it is whole."""
    value = folder.json(name, "Episodes")
    if value is None:
        return None
    try:
        thoughts.check(value)
    except Exception as error:  # Pillow has many ways to say that a file is no picture
        folder.missing.append(f"Episodes: {name} is damaged or from another version ({error}).")
        return None
    return {"name": name.removeprefix("recording-").removesuffix(".json"), **value}
