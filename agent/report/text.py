"""An ablation in words: the same ones in the report, in table.md and in the terminal."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

CONTROLLERS = {
    "random": "random actions",
    "zero": "the action of rest",
    "greedy": "straight line to the goal",
    "expert": "expert",
}
"""Reference controllers by their names in JSON."""


def in_words(row: Mapping[str, Any]) -> dict[str, str]:
    """A row of an ablation as text, by column."""

    shares = row.get("measure", "success") == "success"

    def interval(estimate: Mapping[str, float] | None) -> str:
        if estimate is None:
            return ""
        value, low, high = (estimate[k] for k in ("value", "low", "high"))
        if not shares:
            return f"{value:.5g} ({low:.5g} to {high:.5g})"
        return f"{100 * value:.1f} ({100 * low:.1f} to {100 * high:.1f})"

    better = row.get("probability_of_improvement")
    failed = "; ".join(f"seed {seed}: {' '.join(error.split())}" for seed, error in row["failed"].items())
    return {
        "variant": row["variant"],
        "success rate %" if shares else "return": interval(row.get("iqm"))
        or ("failed" if row["failed"] else "not computed yet"),
        "difference": interval(row.get("difference")),
        "P(better)": "" if better is None else f"{better:.2f}",
        **(
            {"at the last step %": f"{100 * row['success_final']:.1f}" if "success_final" in row else ""}
            if shares
            else {}
        ),
        "decision latency ms": f"{row['plan_ms']:.1f}" if "plan_ms" in row else "",
        "training s": f"{row['train_seconds']:.0f}" if "train_seconds" in row else "",
        "seeds": str(row["n_seeds"]),
        "weights": row["weights"],
        **({"reader error": f"{row['reader_error']:.2f}"} if "reader_error" in row else {}),
        **({"failed": failed} if failed else {}),
    }


def reference(comparison: Mapping[str, Any]) -> str:
    """Success rates of the reference controllers on the same tasks, as a sentence; "" when not known yet."""
    shares = all(row.get("measure", "success") == "success" for row in comparison.get("variants", []))
    reached = [
        f"{CONTROLLERS.get(k, k)} {f'{100 * v:.0f} %' if shares else f'{v:.4g}'}"
        for k, v in comparison.get("reference", {}).items()
    ]
    return f"On the same {'tasks' if shares else 'reset seeds'}: {', '.join(reached)}." if reached else ""


def as_typed(words: Sequence[str]) -> str:
    """A command line for a shell: `python` before a script, nothing before a program."""
    return shlex.join(["python", *words] if words and words[0].endswith(".py") else words)
