"""The format of recorded episodes (recording-*.json), as recorders write it and the report shows it.

Pictures are PNG in base64, several frames beside each other. There are three kinds. `map`: tasks of an environment with
a map; positions are (column, row) in its pixels. `frames`: whole episodes of another environment, in frames that the
agent saw, or of the body in the pose of its readings. `curves`: the same without frames. The last two have readings of
named sensors. What an environment cannot give is None.

Shapes: H imagined steps, S sensors that are kept, R of them that are imagined.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import dacite
from PIL import Image

VERSION = 1
RELEVANT = 6
"""Most sensors of which imagined readings are kept."""
SHEET = 16
"""Frames in a row of an episode's sheet."""

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
    """The critic's cost at each of the H steps, with that of a predicted reward where one is used."""
    readings: list[list[float | None]] | None = None
    """(H, R) imagined readings in the environment's units; None where a number is not finite."""


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
    """What imagined states look like: a row for each path, or for the first `framed`."""
    framed: int | None = None
    """How many of the paths have a row of frames; None: all."""
    frame_steps: list[int] | None = None
    """Which of the H steps, from 1, have a frame; None: all."""


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
    readings: list[float] | None = None
    """(S,) in the environment's units."""
    action: list[float] | None = None
    """As the environment got it."""
    reward: float | None = None
    """That this action brought. The agent does not see it."""


@dataclass(frozen=True)
class Episode:
    """One task, until its goal is reached or its budget is spent; or one whole episode."""

    task: int
    """Index in the task list, or in the list of reset seeds."""
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
    goal_readings: dict[str, float] | None = None
    """The goal by sensor, as far as it is given in readings."""
    seed: int | None = None
    """Of the reset."""
    success: bool | None = None
    """Whether the goal was reached at some moment; None where nothing says what success is."""
    episode_return: float | None = None
    """Sum of the environment's rewards over the whole episode."""
    length: int | None = None
    """Primitive actions of the whole episode; only the first ones are kept of a long one."""
    end: Literal["terminated", "truncated", "limit", "fault"] | None = None
    """Why it ended. limit: the evaluation's own. fault: the environment failed, and the episode does not count."""


@dataclass(frozen=True)
class Recording:
    """Episodes of one evaluation."""

    version: int
    block: int
    """Primitive actions in an action block."""
    episodes: list[Episode]
    kind: Literal["map", "frames", "curves"] = "map"
    posed: bool = False
    """Whether frames show the body in the pose of readings, rather than pixels."""
    sensors: list[str] | None = None
    """(S,) names."""
    relevant: list[int] | None = None
    """(R,) places among the sensors of those that are imagined, the most important first."""
    rewarded: bool = False
    """Whether plans minimise the cost of a predicted reward, which is a part of the critic's."""


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
        if recording.kind != "map":
            yield from (f"{where}{problem}" for problem in _of_episode(recording, episode))
    if recording.kind != "map":
        yield from _of_sensors(recording)


def _of_sensors(recording: Recording) -> Iterator[str]:
    sensors, relevant = recording.sensors, recording.relevant
    if sensors is None or relevant is None:
        yield f"a recording of kind {recording.kind} without sensors"
        return
    if len(set(sensors)) != len(sensors):
        yield "two sensors of one name"
    if len(set(relevant)) != len(relevant) or not {*relevant} <= {*range(len(sensors))} or len(relevant) > RELEVANT:
        yield f"relevant must name at most {RELEVANT} of the sensors by place, once each"


def _of_episode(recording: Recording, episode: Episode) -> Iterator[str]:
    """What is wrong with an episode that has no map."""
    size, count = len(recording.sensors or ()), len(recording.relevant or ())
    if (episode.frames is not None) != (recording.kind == "frames"):
        yield f": frames do not fit a recording of kind {recording.kind}"
    if any(len(moment.readings or ()) != size for moment in episode.moments):
        yield f": a moment does not have {size} readings"
    if not {*(episode.goal_readings or ())} <= {*(recording.sensors or ())}:
        yield ": the goal names a sensor that is not there"
    if episode.frames is not None and episode.frame_size is not None:
        columns = min(SHEET, len(episode.moments))
        if _size(episode.frames) != _sheet(episode, columns, -(-len(episode.moments) // columns)):
            yield ": its sheet does not hold a frame for each moment"
    for index, plan in enumerate(episode.plans):
        steps = len(plan.paths[0].critic)
        if not 0 <= plan.moment < len(episode.moments):
            yield f", plan {index}: its moment is not there"
        imagined = [[[]] * steps if path.readings is None else path.readings for path in plan.paths]
        if any(len(path) != steps or any(len(row) != count for row in path) for path in imagined):
            yield f", plan {index}: imagined readings are not {steps} steps of {count} sensors"
        shown, framed = plan.frame_steps or list(range(1, steps + 1)), plan.framed or len(plan.paths)
        if shown != sorted({*shown}) or not {*shown} <= {*range(1, steps + 1)} or not 1 <= framed <= len(plan.paths):
            yield f", plan {index}: frames of steps or paths that are not there"
        elif plan.frames is not None and _size(plan.frames) != _sheet(episode, len(shown), framed):
            yield f", plan {index}: its sheet does not hold {framed} rows of {len(shown)} frames"


def _sheet(episode: Episode, columns: int, rows: int) -> Position:
    width, height = episode.frame_size or (0, 0)
    return columns * width, rows * height


def _is_png(sheet: str) -> bool:
    try:
        with _opened(sheet) as picture:
            picture.verify()
        return True
    except Exception:  # Pillow has many ways to say that bytes are no picture
        return False


def _size(sheet: str) -> Position:
    with _opened(sheet) as picture:
        return picture.size


def _opened(sheet: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(sheet, validate=True)), formats=("PNG",))
