"""The format of recorded episodes (recording-*.json), as the Recorder writes it and the report shows it.

Positions are (column, row) in pixels of the map; pictures are PNG in base64, several frames beside each other. What an
environment cannot give is None: one without a map has no positions, one without pixels has no frames.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dacite
from PIL import Image

VERSION = 1

Position = tuple[float, float]


@dataclass(frozen=True)
class Path:
    """One imagined plan: H action blocks, from the state at its decision."""

    energy: float
    at: list[Position] | None
    """H + 1 positions as a probe reads them, the present one first."""
    drives: dict[str, list[float]]
    """The intrinsic cost of each drive at each of the H steps."""
    critic: list[float]
    """The critic's cost at each of the H steps."""


@dataclass(frozen=True)
class Plan:
    """One search of Mode-2."""

    moment: int
    """The decision that it belongs to."""
    planner: str
    samples: int
    iterations: int
    proposal_energy: float
    """Energy of the plan from which the search began."""
    paths: list[Path]
    """The chosen plan first, then candidates of the last iteration, ascending by energy."""
    frames: str | None
    """What the decoder makes of the imagined states: a row for each path."""


@dataclass(frozen=True)
class Recalled:
    """The most similar states in memory."""

    unlike: list[float]
    """Root mean square difference to the present state, ascending."""
    at: list[Position] | None


@dataclass(frozen=True)
class Moment:
    """One decision, and the state in which it was made."""

    at: Position | None
    mode: int
    replanned: bool
    plan: int | None
    """Index among the plans of the episode; None in Mode-1."""
    milliseconds: float
    surprise: float | None
    """Error of what was predicted for this state; None where nothing was."""
    drives: dict[str, float]
    critic: float
    recalled: Recalled | None


@dataclass(frozen=True)
class Episode:
    """One task, until its goal is reached or its budget is spent."""

    task: int
    """Index in the task list."""
    steps: int
    """Primitive actions until the goal was reached; -1 where it was not."""
    goal: Position | None
    reach: float | None
    """Distance from the goal, in pixels of the map, that counts as reached."""
    map: str | None
    frames: str | None
    """What the agent saw, a frame for each moment, in rows."""
    frame_size: Position | None
    """Width and height of a frame."""
    moments: list[Moment]
    plans: list[Plan]
    goal_frame: str | None = None
    """What the agent would see at the goal."""


@dataclass(frozen=True)
class Recording:
    """Episodes of one evaluation."""

    version: int
    block: int
    """Primitive actions in an action block."""
    episodes: list[Episode]


def check(recording: Any) -> Recording:
    """The recording in decoded JSON.

    Raises:
        ValueError: it is of another version, or does not have this format; says where.
    """
    try:
        json.dumps(recording, allow_nan=False)  # what a browser cannot read is an error here
        version = recording["version"]
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"not a recording: {type(error).__name__} {error}") from error
    if version != VERSION:
        raise ValueError(f"version {version!r}, this program reads {VERSION}")
    hooks = {int: _no_bool, float: _no_bool}
    try:
        decoded = dacite.from_dict(Recording, recording, dacite.Config(type_hooks=hooks, cast=[tuple], strict=True))
    except (dacite.DaciteError, TypeError) as error:
        raise ValueError(str(error)) from error
    if problem := next(_problems(decoded), None):
        raise ValueError(problem)
    return decoded


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise dacite.WrongTypeError(float, value)
    return value


def _problems(recording: Recording) -> Iterator[str]:
    """What the types do not say."""
    if recording.block < 1:
        yield "block must be 1 or more"
    if not recording.episodes:
        yield "no episodes"
    for number, episode in enumerate(recording.episodes):
        where = f"episodes {number}"
        if not episode.moments:
            yield f"{where}: no moments"
        if any(moment.plan not in (None, *range(len(episode.plans))) for moment in episode.moments):
            yield f"{where}: a moment names a plan that is not there"
        sheets = [episode.frames, episode.goal_frame, *(plan.frames for plan in episode.plans)]
        if any(sheets) and episode.frame_size is None:
            yield f"{where}: frames without frame_size"
        if not all(_is_png(sheet) for sheet in (episode.map, *sheets) if sheet is not None):
            yield f"{where}: a picture is not a PNG in base64"
        for index, plan in enumerate(episode.plans):
            lengths = {len(costs) for path in plan.paths for costs in (path.critic, *path.drives.values())}
            lengths |= {len(path.at) - 1 for path in plan.paths if path.at is not None}
            if len(lengths) != 1:
                yield f"{where}, plan {index}: no paths, or costs and positions of different lengths"


def _is_png(sheet: str) -> bool:
    try:
        with Image.open(io.BytesIO(base64.b64decode(sheet, validate=True)), formats=("PNG",)) as picture:
            picture.verify()
        return True
    except Exception:  # Pillow has many ways to say that bytes are no picture
        return False
