"""The table of a comparison: one row per variant, as numbers and in words."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agent.console import warn
from agent.evaluation.statistics import estimate, probability_of_improvement
from agent.experiments.reuse import shared
from agent.experiments.variants import FULL, Variant, changes
from agent.report.text import as_typed, in_words, reference


def summarise(
    variants: dict[str, Variant], results: dict[str, list[dict[str, Any]]], common: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """One row per variant: success, difference to the full agent on the seeds that both have, cost in time."""
    good = {name: {r["config"]["seed"]: r for r in rows if "error" not in r} for name, rows in results.items()}
    full, out = variants[FULL].config, []
    for name, variant in variants.items():
        mine, rows = good[name], results[name]
        row: dict[str, Any] = {
            "variant": name,
            "changes": changes(variants[FULL], variant),
            "flags": shlex.join(variant.flags),
            "command": as_typed([*common, *variant.flags]),
            "n_seeds": len(mine),
            "failed": {r["config"]["seed"]: r["error"] for r in rows if "error" in r},
            "runs": [r["runs"][-1] for r in rows],
            "weights": "its own" if name == FULL else shared(variant.config, full),
        }
        if mine:
            outcomes = np.array([r["outcomes"] for r in mine.values()])
            row |= {
                "iqm": dataclasses.asdict(estimate(outcomes)),
                "success_final": float(np.mean([r["success_final"] for r in mine.values()])),
                "plan_ms": float(np.median([r["plan_ms"] for r in mine.values()])),
                "train_seconds": float(np.median([r["train_seconds"] for r in mine.values()])),
                "task_list_sha256": next(iter(mine.values()))["task_list_sha256"],
            }
            shared_seeds = sorted(set(mine) & set(good[FULL]))
            if name != FULL and shared_seeds:
                ours, theirs = (
                    np.array([good[who][seed]["outcomes"] for seed in shared_seeds]) for who in (name, FULL)
                )
                row["difference"] = dataclasses.asdict(estimate(ours, theirs))
                row["probability_of_improvement"] = probability_of_improvement(ours, theirs)
        out.append(row)
    return out


def markdown(comparison: dict[str, Any]) -> str:
    """The table for a page: the command of the full agent, and the flags that make each row of it."""
    rows = [{**in_words(row), "flags": f"`{row['flags']}`" if row["flags"] else ""} for row in comparison["variants"]]
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, ["---"] * len(names), *([row.get(name, "").replace("|", "\\|") for name in names] for row in rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    asked = f"`{comparison['common']}` and the flags of the row; {comparison['tasks']} tasks a seed."
    return f"{asked} {reference(comparison)}".strip() + f"\n\n{table}\n"


def earlier(out: Path, asked: dict[str, Any], variants: dict[str, Variant]) -> list[dict[str, Any]]:
    """Rows of other variants that earlier commands have left in the folder's table.

    They stay in it when their seeds, tasks and full agent are those of now; their cells stay in any case.
    """
    try:
        before = json.loads((out / "comparison.json").read_text())
        rows = [row for row in before["variants"] if not (isinstance(row, dict) and row.get("variant") in variants)]
        same = all(before.get(k) == v for k, v in asked.items())
    except (OSError, AttributeError, KeyError, TypeError, ValueError):
        return []
    kept = [row for row in rows if same and _is_row(row)]
    if dropped := [str(row.get("variant")) for row in rows if isinstance(row, dict) and row not in kept]:
        warn(
            f"{', '.join(dropped)} leave the table of {out}: they were computed with other seeds or tasks, or beside "
            "another agent. Their cells are kept; ask for them in the same command to have them back."
        )
    return kept


def _is_row(row: Any) -> bool:
    try:
        return bool(in_words(row))
    except (AttributeError, KeyError, TypeError, ValueError):
        return False
