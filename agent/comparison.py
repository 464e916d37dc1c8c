"""The table of a comparison: one row per variant, as numbers and in words."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agent.console import warn
from agent.statistics import estimate, probability_of_improvement
from agent.variants import FULL, Variant, changes, shared


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


def in_words(row: dict[str, Any]) -> dict[str, str]:
    """A row of the table as text."""

    def interval(estimate: dict[str, float] | None) -> str:
        if estimate is None:
            return ""
        value, low, high = (100 * estimate[k] for k in ("value", "low", "high"))
        return f"{value:.1f} ({low:.1f} to {high:.1f})"

    better = row.get("probability_of_improvement")
    failed = "; ".join(f"seed {seed}: {' '.join(error.split())}" for seed, error in row["failed"].items())
    return {
        "variant": row["variant"],
        "success %": interval(row.get("iqm")) or ("failed" if row["failed"] else "not yet"),
        "difference": interval(row.get("difference")),
        "P(better)": "" if better is None else f"{better:.2f}",
        "at the last step %": f"{100 * row['success_final']:.1f}" if "success_final" in row else "",
        "ms per decision": f"{row['plan_ms']:.1f}" if "plan_ms" in row else "",
        "training s": f"{row['train_seconds']:.0f}" if "train_seconds" in row else "",
        "seeds": str(row["n_seeds"]),
        "weights": row["weights"],
        **({"failed": failed} if failed else {}),
    }


def markdown(comparison: dict[str, Any]) -> str:
    """The table for a page: the command of the full agent, and the flags that make each row of it."""
    rows = [{**in_words(row), "flags": f"`{row['flags']}`" if row["flags"] else ""} for row in comparison["variants"]]
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, ["---"] * len(names), *([row.get(name, "").replace("|", "\\|") for name in names] for row in rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    asked = f"`{comparison['common']}` and the flags of the row; {comparison['tasks']} tasks a seed."
    return f"{asked} {floors(comparison)}".strip() + f"\n\n{table}\n"


def floors(comparison: Mapping[str, Any]) -> str:
    """What anybody reaches on the same tasks, as a sentence; "" when it is not known yet."""
    names = {"random": "random actions", "greedy": "the straight line to the goal", "oracle": "who knows the world"}
    reached = [f"{names.get(k, k)} {100 * v:.0f} %" for k, v in comparison.get("floors", {}).items()]
    return f"On the same tasks: {', '.join(reached)}." if reached else ""


def as_typed(words: Sequence[str]) -> str:
    """A command line for a shell: `python` before a script, nothing before a program."""
    return shlex.join(["python", *words] if words and words[0].endswith(".py") else words)


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
