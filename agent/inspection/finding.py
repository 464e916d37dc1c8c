"""The result of one check, for people and for JSON."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    check: str
    result: str
    """ok, warning or failed."""
    found: str
    advice: str = ""
