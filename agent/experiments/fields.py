"""Dotted fields of a configuration: reading, replacing, and changes that are functions of it."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import Any

from agent.config import Config
from agent.errors import UserError
from agent.presets import PRESETS

Change = Callable[[Config], Config]


def where(applies: Callable[[Config], bool], change: Change) -> Change:
    """A change that is made only to configurations to which it applies."""
    return lambda config: change(config) if applies(config) else config


def setting(path: str, value: Any) -> Change:
    """Config -> Config with one dotted field changed. UserError for a field that does not exist."""

    def change(config: Config) -> Config:
        leaf(config, path)
        return replaced(config, path, value)

    return change


def field(config: Any, path: str) -> Any:
    """The value of a dotted field. UserError for a field that does not exist."""
    for name in path.split("."):
        if isinstance(config, Mapping):  # weights of drives: 1 where nothing is said
            config = config.get(name, 1.0)
            continue
        if not dataclasses.is_dataclass(config):
            raise UserError(f"{path!r} is not one field of the configuration: .{name} has no parent with fields")
        known = [f.name for f in dataclasses.fields(config)]
        if name not in known:
            raise UserError(f"there is no field {path!r}{_meant(path)}; the fields here are {', '.join(known)}")
        config = getattr(config, name)
    return config


def leaf(config: Any, path: str) -> Any:
    """The value of a dotted field that is not a group of fields. UserError for a group, or no such field."""
    value = field(config, path)
    if dataclasses.is_dataclass(value):
        raise UserError(
            f"{path!r} is not one field of the configuration: give a full path, such as configurator.samples"
        )
    return value


def _meant(path: str) -> str:
    """A hint for a mistyped path, or for a field that is in another group."""
    paths: dict[str, str] = {}  # last word of the path -> path
    for group in dataclasses.fields(Config):
        inner = getattr(PRESETS["debug"](), group.name)
        for f in dataclasses.fields(inner) if dataclasses.is_dataclass(inner) else ():
            paths[f.name] = f"{group.name}.{f.name}"
        paths.setdefault(group.name, group.name)
    close = difflib.get_close_matches(path.rpartition(".")[2], paths, n=1)
    return f" (did you mean {paths[close[0]]!r}?)" if close else ""


def replaced(config: Any, path: str, value: Any) -> Any:
    """The configuration with another value, or another group, at a dotted path."""
    name, _, rest = path.partition(".")
    if isinstance(config, Mapping):
        return {**config, name: value}
    return dataclasses.replace(config, **{name: replaced(getattr(config, name), rest, value) if rest else value})


def together(*changes: Change) -> Change:
    """One change that makes several, in order."""

    def change(config: Config) -> Config:
        for one in changes:
            config = one(config)
        return config

    return change
