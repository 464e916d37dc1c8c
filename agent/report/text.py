"""A comparison in words."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any


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


def reference(comparison: Mapping[str, Any]) -> str:
    """What anybody reaches on the same tasks, as a sentence; "" when it is not known yet."""
    names = {
        "random": "random actions",
        "greedy": "the straight line to the goal",
        "expert": "the expert",
    }
    reached = [f"{names.get(k, k)} {100 * v:.0f} %" for k, v in comparison.get("reference", {}).items()]
    return f"On the same tasks: {', '.join(reached)}." if reached else ""


def as_typed(words: Sequence[str]) -> str:
    """A command line for a shell: `python` before a script, nothing before a program."""
    return shlex.join(["python", *words] if words and words[0].endswith(".py") else words)
