"""Where the numbers of a run come from: versions of the program and its packages, and what differs between two runs."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from typing import Any

import torch

from agent import __version__

PACKAGES = ("torch", "gymnasium", "mujoco", "numpy")


def versions() -> dict[str, Any]:
    """What the numbers of a run may depend on besides its configuration."""
    found: dict[str, Any] = {"ami": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return {**found, "threads": torch.get_num_threads()}


def config_diff(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The difference of two nested JSON objects as lines of dotted keys, "- a.b: 1" and "+ a.b: 2"; "" if none."""
    before, after = _dotted(old), _dotted(new)
    lines = []
    for key in sorted(before.keys() | after.keys()):
        # As text, because a NaN is not equal to itself and True is equal to 1.
        there, here = (json.dumps(side[key], sort_keys=True) if key in side else None for side in (before, after))
        if there != here:
            lines += [f"{sign} {key}: {text}" for sign, text in (("-", there), ("+", here)) if text is not None]
    return "\n".join(lines)


def _dotted(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        nested = isinstance(item, Mapping) and len(item) > 0
        flat.update(_dotted(item, f"{prefix}{key}.") if nested else {f"{prefix}{key}": item})
    return flat
