"""Recordings that the tests of the report share."""

from __future__ import annotations

import copy
from typing import Any


def without_map(recording: dict[str, Any], frames: bool = True) -> dict[str, Any]:
    """What a recorder leaves of an environment that has no map and no positions, and no frames either if asked."""
    out = copy.deepcopy(recording)
    for episode in out["episodes"]:
        episode.update(map=None, goal=None, reach=None, goal_frame=None)
        for moment in episode["moments"]:
            moment["at"] = None
            if moment["recalled"]:
                moment["recalled"]["at"] = None
        for plan in episode["plans"]:
            for path in plan["paths"]:
                path["at"] = None
        if not frames:
            episode.update(frames=None, frame_size=None)
            for plan in episode["plans"]:
                plan["frames"] = None
    return out
