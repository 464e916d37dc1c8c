"""What a run was for and what it learned from: drives, whether the reward was used, recorded data, faulty episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

REWARD = (
    "The environment's reward was used: a predictor of it was learned, and plans minimise its cost. This agent is not "
    "one that acts by intrinsic drives alone."
)


def notice(summary: Mapping[str, Any] | None) -> str:
    """The remark that stands above everything else where the environment's reward was used."""
    if not (summary or {}).get("reward_used"):
        return ""
    return f'<p class="reward" role="note">{escape(REWARD)}</p>'


def section(summary: Mapping[str, Any] | None, config: Mapping[str, Any]) -> str:
    """A list for a run in an environment of somebody else's; nothing for a task of this project's own environments."""
    told = summary or {}
    if not (told.get("reward_used") or "data" in told or "faults" in told):
        return ""
    rows = [["drives", ", ".join(map(str, told.get("drives", []))) or "none"]]
    if goal := config.get("goal"):
        rows.append(["goal", ", ".join(map(str, goal))])
    rows.append(
        [
            "the environment's reward",
            "used: a predictor of it was learned" if told.get("reward_used") else "not used to learn or act",
        ]
    )
    if faults := told.get("faults"):
        rows.append(["episodes left out", _faults(faults)])
    data = told.get("data")
    if not data:
        rows.append(["experience", "explored by the run itself, without the reward as a guide"])
    parts = [f"<section><h2>Purpose and experience</h2>{_listed(rows)}"]
    if data:
        told_of = [[str(name).replace("_", " "), _plain(value)] for name, value in data.items()]
        parts.append(f"<h3>Recorded episodes that it learned from</h3>{_listed(told_of)}")
    return "".join([*parts, "</section>"])


def _listed(rows: Sequence[Sequence[str]]) -> str:
    return f'<dl class="facts">{"".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in rows)}</dl>'


def _faults(faults: Mapping[str, Any]) -> str:
    if not faults["faulty"]:
        return "none"
    kinds = "; ".join(f"{kind['count']} x {kind['first']}" for kind in faults["kinds"].values())
    return f"{faults['faulty']} of {faults['episodes']} failed in the environment: {kinds}"


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
