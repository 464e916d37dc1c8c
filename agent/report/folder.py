"""Reading the folder of a run or an ablation for the report, whatever state it is in.

What is absent, damaged, too large, from another version or leads out of the folder becomes a remark, never an error.
"""

from __future__ import annotations

import base64
import io
import json
import math
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from agent.report import episodes
from agent.storage.recording import check

RECORDINGS = 3


LARGEST_FILE = 50 * 2**20  # bytes; no run writes larger ones for the report


NAMED = 5  # of what is wrong in one file


@dataclass
class Folder:
    """The files of a run or an ablation, and a remark for each that was asked for and could not be used."""

    path: Path
    missing: list[str] = field(default_factory=list)
    flags: dict[str, str] = field(default_factory=dict)
    """What a command about this run needs besides, by command (see `heed`)."""
    unseen: bool = False
    """Whether it is a run in a Simulator without a map, where nothing can be recorded or drawn."""

    def names(self, pattern: str) -> list[str]:
        """Names of files in it, in order."""
        return sorted(p.name for p in self.path.glob(pattern))

    def read(self, name: str, what: str, remedy: str = "") -> bytes | None:
        """The content of a file; None, and a remark, when it is not there, too large or leads out of the folder."""
        path = self.path / name
        try:
            if not path.resolve().is_relative_to(self.path.resolve()):
                self.missing.append(f"{what}: {name} is a link that leads out of the folder. It is not read.")
                return None
            if path.exists() and not path.is_file():
                self.missing.append(f"{what}: {name} is not a regular file.")
                return None
            with open(path, "rb") as file:
                data = file.read(LARGEST_FILE + 1)
        except FileNotFoundError:
            self.missing.append(f"{what}: there is no {name}.{' ' if remedy else ''}{remedy}")
            return None
        except OSError as error:
            self.missing.append(f"{what}: {name} cannot be read: {error.strerror or error}.")
            return None
        if len(data) > LARGEST_FILE:
            limit = LARGEST_FILE // 2**20
            self.missing.append(f"{what}: {name} is larger than {limit} MB. It is not read.")
            return None
        return data

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
        """The objects of a file of JSON lines; damaged lines are counted and left out."""
        data = self.read(name, what, "Training writes it.")
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

    def heed(self, config: Mapping[str, Any]) -> None:
        """Note what commands about a run of this configuration need, so that none is advised that would be refused."""
        env, cost = config.get("env"), config.get("cost")
        named = f" --env {shlex.quote(env)}" if isinstance(env, str) and ":" in env else ""
        drives = cost.get("drives", []) if isinstance(cost, Mapping) else []
        files = [d for d in drives if isinstance(d, str) and ":" in d] if isinstance(drives, list) else []
        self.flags = {"evaluate": named + "".join(f" --task {shlex.quote(d)}" for d in files), "imagine": named}
        learn, acting = config.get("learn"), config.get("configurator")
        if isinstance(learn, Mapping) and isinstance(acting, Mapping):
            if acting.get("mode") == 1 and learn.get("policy_steps") == 0:
                self.flags["evaluate"] += " --mode 2"

    def command(self, name: str) -> str:
        """What a user can type to make what is missing here."""
        if not any((self.path / "checkpoints").glob("*.safetensors")):
            return "It can be made as soon as training has left a checkpoint."
        return f"Run: python run_agent.py {name} {shlex.quote(str(self.path))}{self.flags.get(name, '')}"

    def part(self, what: str, make: Callable[[], str]) -> str:
        """A part of the page; a remark in its place when the files do not hold what this version expects."""
        try:
            return make()
        except Exception as error:  # whatever a damaged file can cause, the rest of the page is shown
            self.missing.append(f"{what}: damaged or from another version ({type(error).__name__}: {error}).")
            return ""

    def not_finite(self, what: str, name: str, found: Counter[str]) -> None:
        """A remark on values that are not finite: found counts them by name."""
        if found:
            some = [f"{key} ({count})" for key, count in list(found.items())[:NAMED]]
            rest = f" and {len(found) - NAMED} others" if len(found) > NAMED else ""
            self.missing.append(f"{what}: {name} holds values that are not finite: {', '.join(some)}{rest}.")


# Runs


def metrics(folder: Folder) -> list[dict[str, Any]]:
    """The lines of the log. The log holds null where a value was not finite, and these are named."""
    lines = folder.lines("metrics.jsonl", "Training curves")
    bad = Counter(f"{m['phase']}, {key}" for m in lines for key, value in m.items() if not _finite(value))
    folder.not_finite("Training curves", "metrics.jsonl", bad)
    return lines


def numbers(folder: Folder) -> dict[str, Any] | None:
    """The errors of imagination, where they were measured."""
    if folder.unseen and not (folder.path / "imagination" / "numbers.json").exists():
        return None
    value = folder.json("imagination/numbers.json", "Imagination", folder.command("imagine"))
    bad = Counter(key for key, leaf in _leaves(value or {}) if not _finite(leaf))
    folder.not_finite("Imagination", "imagination/numbers.json", bad)
    return value


def _finite(value: Any) -> bool:
    return value is not None and (not isinstance(value, float) or math.isfinite(value))


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that holds no others, with the names that lead to it; places in lists have no name."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, name)
    else:
        yield name, value


def evaluations(folder: Folder) -> list[dict[str, Any]]:
    """The evaluations that are whole, planning first, each with its file's name as "file"."""
    out = []
    for name in planning_first(folder.names("evaluation-*.json")) or ["evaluation-mode2-cem-learned.json"]:
        value = folder.json(name, "Evaluation", folder.command("evaluate"))
        if value is None:
            continue
        try:
            _check_evaluation(value)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            folder.missing.append(f"Evaluation: {name} is damaged or from another version ({reason}).")
            continue
        out.append({**value, "file": name})
    folder.unseen = any(value.get("task_distance") == [] for value in out)  # distances are measured on the map
    return out


def _check_evaluation(value: dict[str, Any]) -> None:
    if episodes.is_of_episodes(value):
        episodes.check(value)
        return
    rates = [value[k] for k in ("success", "ci_low", "ci_high", "success_final")]
    counts = [value[k] for k in ("mode", "n_tasks", "samples", "iterations", "horizon", "replan_every")]
    for number in [*rates, *counts, value["plan_ms_median"], *value["reference"].values()]:
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise ValueError(f"expected a finite number, found {number!r}")
    for name in ("planner", "dynamics", "task_list_sha256"):
        if not isinstance(value[name], str):
            raise TypeError(f"{name} must be text, found {value[name]!r}")


# Recordings


def recordings(folder: Folder, room: int) -> list[dict[str, Any]]:
    """The recorded episodes that the page shows, as many as fit into `room` bytes; the rest is named as missing.

    The first episodes of all recordings come before the second ones, so that each recording has its share.
    """
    every = [one for name in _recorded(folder) if (one := _recording(folder, name)) is not None]
    kept: list[list[dict[str, Any]]] = [[] for _ in every]
    for episode in range(max((len(one["episodes"]) for one in every), default=0)):
        for one, some in zip(every, kept, strict=True):
            if episode < len(one["episodes"]):
                room -= len(json.dumps(one["episodes"][episode]))
                if room > 0:
                    some.append(one["episodes"][episode])
    for one, some in zip(every, kept, strict=True):
        if left := len(one["episodes"]) - len(some):
            folder.missing.append(f"Episodes: {left} of {one['name']} are left out: the page would be too large.")
    return [{**one, "episodes": some} for one, some in zip(every, kept, strict=True) if some]


def _recorded(folder: Folder) -> list[str]:
    names = folder.names("recording-*.json")
    if not names and not folder.unseen:
        folder.missing.append(f"Episodes: there is no recording. {folder.command('evaluate')}")
    names = planning_first(names)
    for name in names[RECORDINGS:]:
        folder.missing.append(f"Episodes: {name} is left out: the page shows the first {RECORDINGS} recordings.")
    return names[:RECORDINGS]


def planning_first(names: Sequence[str]) -> list[str]:
    """Files of evaluations and recordings: Mode-2, then Mode-1, then those with an oracle."""
    return sorted(names, key=lambda n: ("oracle" in n or "true" in n, "mode2" not in n, n))


def _recording(folder: Folder, name: str) -> dict[str, Any] | None:
    value = folder.json(name, "Episodes")
    if value is None:
        return None
    try:
        check(value)
    except Exception as error:  # Pillow has many ways to say that a file is no picture
        folder.missing.append(f"Episodes: {name} is damaged or from another version ({error}).")
        return None
    return {**value, "name": name.removeprefix("recording-").removesuffix(".json")}
