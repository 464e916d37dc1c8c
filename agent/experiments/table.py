"""The table of a comparison: one row per variant, as numbers and as text."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agent.console import warn
from agent.errors import DamagedFile
from agent.evaluation.statistics import estimate, probability_of_improvement
from agent.experiments.reuse import shared
from agent.experiments.variants import FULL, Variant, changes
from agent.report.text import as_typed, in_words, reference
from agent.storage.files import read_json


def summarise(
    variants: dict[str, Variant], results: dict[str, list[dict[str, Any]]], base_command: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """One row per variant: success rate, difference to the full agent on the seeds that both have, times."""
    good = {name: {r["config"]["seed"]: r for r in rows if "error" not in r} for name, rows in results.items()}
    full, out = variants[FULL].config, []
    for name, variant in variants.items():
        mine, rows = good[name], results[name]
        row: dict[str, Any] = {
            "variant": name,
            "changes": changes(variants[FULL], variant),
            "flags": shlex.join(variant.flags),
            "command": as_typed([*base_command, *variant.flags]),
            "n_seeds": len(mine),
            "failed": {r["config"]["seed"]: r["error"] for r in rows if "error" in r},
            "runs": [r["runs"][-1] for r in rows],
            "weights": "its own" if name == FULL else shared(variant.config, full),
        }
        if mine:
            outcomes = np.array([r["outcomes"] for r in mine.values()])
            row |= {
                "iqm": dataclasses.asdict(estimate(outcomes)),
                "measure": next(iter(mine.values())).get("measure", "success"),
                **_mean_of("success_final", mine.values()),
                **_mean_of("return_mean", mine.values()),
                "plan_ms": float(np.median([r["plan_ms"] for r in mine.values()])),
                **_mean_of("reader_error", mine.values()),
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
    """The table for a page: the command of the full agent, and the flags of each row."""
    rows = [{**in_words(row), "flags": f"`{row['flags']}`" if row["flags"] else ""} for row in comparison["variants"]]
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, ["---"] * len(names), *([row.get(name, "").replace("|", "\\|") for name in names] for row in rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    command = f"`{comparison['base_command']}` and the flags of the row; {comparison['tasks']} tasks a seed."
    return f"{command} {reference(comparison)}".strip() + f"\n\n{table}\n"


def earlier(out: Path, key: dict[str, Any], variants: dict[str, Variant]) -> list[dict[str, Any]]:
    """Rows of other variants, which earlier commands have written into the folder's table.

    They stay in the table when their seeds, tasks and full agent are the present ones; their cells stay in any case.
    """
    try:
        before = read_json(out / "comparison.json")
        rows = [row for row in before["variants"] if not (isinstance(row, dict) and row.get("variant") in variants)]
        same = all(before.get(k) == v for k, v in key.items())
    except (OSError, DamagedFile, AttributeError, KeyError, TypeError):
        return []
    kept = [row for row in rows if same and _is_row(row)]
    if dropped := [str(row.get("variant")) for row in rows if isinstance(row, dict) and row not in kept]:
        warn(
            f"the table of {out} loses the rows {', '.join(dropped)}: they were computed with other seeds, tasks or "
            "another full agent. Their cells are kept; name these variants in the same command to see them again"
        )
    return kept


def _is_row(row: Any) -> bool:
    try:
        return bool(in_words(row))
    except (AttributeError, KeyError, TypeError, ValueError):
        return False


def _mean_of(name: str, results: Iterable[dict[str, Any]]) -> dict[str, float]:
    """The mean over the cells that have it: at the last step, of the return, of the reader of true states."""
    values = [r[name] for r in results if name in r]
    return {name: float(np.mean(values))} if values else {}
