"""The format of a recording of episodes, and its checks."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

from PIL import Image

VERSION = 1


def check(recording: Any) -> None:
    """ValueError, KeyError or the like for anything that a Recorder did not return, or returned in another version."""
    json.dumps(recording, allow_nan=False)  # what a browser cannot read is an error here
    if recording["version"] != VERSION:
        raise ValueError(f"version {recording['version']}, this program reads {VERSION}")
    if not int(recording["block"]) > 0:
        raise ValueError("block must be 1 or more")
    if not recording["episodes"]:
        raise ValueError("no episodes")
    for episode in recording["episodes"]:
        if not episode["moments"]:
            raise ValueError("an episode without moments")
        _pair(episode["goal"])
        _sheets(episode["map"], episode["frames"])
        _numeric(episode["reach"], episode["task"], episode["steps"])
        if episode["frames"] is not None or any(plan["frames"] is not None for plan in episode["plans"]):
            _pair(episode["frame_size"])
        for plan in episode["plans"]:
            _check_plan(plan)
        for moment in episode["moments"]:
            _pair(moment["at"])
            _numeric(moment["mode"], moment["milliseconds"], moment["critic"], moment["surprise"] or 0)
            _numeric(*moment["drives"].values())
            if moment["plan"] is not None and moment["plan"] not in range(len(episode["plans"])):
                raise ValueError(f"there is no plan {moment['plan']}")
            recalled = moment["recalled"] or {"at": [], "unlike": []}
            _numeric(*recalled["unlike"])
            for place in recalled["at"]:
                _pair(place)


def _check_plan(plan: Any) -> None:
    _numeric(plan["moment"], plan["proposal_energy"], plan["samples"], plan["iterations"])
    if not isinstance(plan["planner"], str):
        raise ValueError("a plan without the name of its planner")
    _sheets(plan["frames"])
    steps = len(plan["paths"][0]["critic"])
    for path in plan["paths"]:
        _numeric(path["energy"])
        for place in path["at"]:
            _pair(place)
        for values in (path["critic"], *path["drives"].values()):
            _numeric(*values)
            if len(values) != steps:
                raise ValueError("costs of another length than the plan")
        if len(path["at"]) != steps + 1:
            raise ValueError("places of another length than the plan")


def _pair(place: Any) -> None:
    _numeric(*place)
    if len(place) != 2:
        raise ValueError(f"{place!r} is no place")


def _numeric(*values: Any) -> None:
    for value in values:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError(f"{value!r} is no number")


def _sheets(*sheets: Any) -> None:
    for one in sheets:
        if one is not None:
            with Image.open(io.BytesIO(base64.b64decode(one, validate=True)), formats=("PNG",)) as picture:
                picture.verify()
