"""The section about evaluations in whole episodes: returns, success, survival, cost; planner seeds; references.

What an evaluation did not measure is null in its file and has no place on the page. Every text is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from agent.report.elements import chart, percent, table
from agent.report.text import CONTROLLERS

NUMBERS = ("return_mean", "survival", "length_mean", "plan_ms_median")
OPTIONAL = ("success", "success_final", "ci_low", "ci_high", "cost_mean", "prediction_error", "return_ci_low")
COUNTS = ("mode", "episodes", "faults", "budget", "samples", "iterations", "horizon", "replan_every")


def is_of_episodes(value: Mapping[str, Any]) -> bool:
    """Whether an evaluation is one in whole episodes."""
    return "episodes" in value and "task_list_sha256" not in value


def check(value: Mapping[str, Any]) -> None:
    """KeyError, TypeError or ValueError for an evaluation in episodes that cannot be shown."""
    optional = [value[k] for k in (*OPTIONAL, "return_ci_high") if value[k] is not None]
    references = [*value["reference"].values(), *value["reference_return"].values()]
    seeds = [x for x in (*value["planner_seeds"]["return_mean"], *value["planner_seeds"]["success"]) if x is not None]
    single = value.get("episode_returns", [])
    every = [*(value[k] for k in (*NUMBERS, *COUNTS)), *value["survival_ci95"], *optional, *references, *seeds, *single]
    for number in every:
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise ValueError(f"expected a finite number, found {number!r}")
    if value["success"] is not None and None in (value["ci_low"], value["ci_high"], value["success_final"]):
        raise ValueError("a success rate without its interval")
    for name in ("planner", "dynamics", "seed_list_sha256"):
        if not isinstance(value[name], str):
            raise TypeError(f"{name} must be text, found {value[name]!r}")


def headline(evaluation: Mapping[str, Any], how: str) -> tuple[str, str]:
    """The first number of the page, and what it is."""
    mean, count = _number(evaluation["return_mean"]), evaluation["episodes"]
    if evaluation["success"] is None:
        return mean, f"mean return, {_interval(evaluation)}{count} episodes, {how}"
    low, high = evaluation["ci_low"], evaluation["ci_high"]
    said = f"success rate, 95 % CI {100 * low:.1f} - {percent(high)}, {count} episodes, {how}; mean return {mean}"
    return percent(evaluation["success"]), said


def section(evaluated: Sequence[Mapping[str, Any]], how: Mapping[str, str]) -> str:
    """Tables and a chart of all evaluations in episodes; how: by file, what acted."""
    if not evaluated:
        return ""
    rows, settings, seeds = [], [], []
    for e in evaluated:
        name = how[e["file"]]
        rows.append(_row(name, e))
        settings.append(_settings(name, e))
        seeds += _seeds(name, e)
    rows += _references(evaluated)
    head = ["controller", "return (95 % CI)", "success rate (95 % CI)", "at the last step", "survived (95 % CI)"]
    head += ["mean length", "own cost", "prediction error"]
    used = [i for i in range(len(head)) if any(row[i] not in ("", "-") for row in rows)]
    shown = table([head[i] for i in used], [[row[i] for i in used] for row in rows])
    names = ["controller", "episodes", "left out", "longest", "latency, one episode", "planner settings", "reset seeds"]
    drawn = _chart(evaluated, how)
    unseen = all("reward" not in e.get("drives", []) for e in evaluated)
    told = "the environment's rewards" + (", which the agent does not see: a yardstick" if unseen else "")
    terms = (
        f"Return: the sum of {told}. Survived: not terminated before the limit. Own cost: the intrinsic cost that the "
        "agent acts by, mean over steps. Prediction error: of one step, mean square in the latent."
    )
    lines = "<br>".join(escape(line) for line in [terms, *seeds])
    return (
        f'<section><h2>Whole episodes from frozen reset seeds</h2>{shown}<p class="soft">{lines}</p>'
        f'<div class="grid">{drawn}</div>{table(names, settings)}</section>'
    )


def _row(name: str, e: Mapping[str, Any]) -> list[str]:
    low, high = e["survival_ci95"]
    success = "-" if e["success"] is None else f"{percent(e['success'])} ({_shares(e['ci_low'], e['ci_high'])})"
    between = (
        "" if e["return_ci_low"] is None else f" ({_number(e['return_ci_low'])} to {_number(e['return_ci_high'])})"
    )
    return [
        name,
        _number(e["return_mean"]) + between,
        success,
        "-" if e["success_final"] is None else percent(e["success_final"]),
        f"{percent(e['survival'])} ({_shares(low, high)})",
        _number(e["length_mean"]),
        "-" if e["cost_mean"] is None else _number(e["cost_mean"]),
        "-" if e["prediction_error"] is None else _number(e["prediction_error"]),
    ]


def _settings(name: str, e: Mapping[str, Any]) -> list[str]:
    batch = e.get("plan_ms_batch")
    together = f" ({batch:.1f} ms for a batch of {e['plan_batch']})" if batch is not None and "plan_batch" in e else ""
    often = "step" if e["replan_every"] == 1 else f"{e['replan_every']} steps"
    return [
        name,
        str(e["episodes"]),
        f"{e['faults']} failed in the environment" if e["faults"] else "none",
        f"{e['budget']} steps",
        f"{e['plan_ms_median']:.1f} ms{together}",
        f"{e['samples']} x {e['iterations']}, horizon {e['horizon']}, a plan every {often}",
        e["seed_list_sha256"][:12],
    ]


def _references(evaluated: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Rows of the reference controllers, once for each list of seeds."""
    rows: list[list[str]] = []
    for e in evaluated:
        for name, value in e["reference_return"].items():
            success = percent(e["reference"][name]) if e["success"] is not None and name in e["reference"] else ""
            row = [CONTROLLERS.get(name) or name, _number(value), success, "", "", "", "", ""]
            if row not in rows:
                rows.append(row)
    return rows


def _seeds(name: str, e: Mapping[str, Any]) -> list[str]:
    """How far seeds of the search are apart, where there are several."""
    found = e["planner_seeds"]
    if len(found["seeds"]) < 2:
        return []
    returns = ", ".join(_number(x) for x in found["return_mean"])
    rates = [x for x in found["success"] if x is not None]
    success = f"; success rate {', '.join(percent(x) for x in rates)}" if rates else ""
    return [f"{name}, by seed of the search: return {returns}{success}."]


def _chart(evaluated: Sequence[Mapping[str, Any]], how: Mapping[str, str]) -> str:
    some = [e for e in evaluated if e.get("episode_returns")]
    if not some:
        return ""
    from agent.drawing.returns import Returns, strip

    rows = [
        Returns(
            how[e["file"]],
            e["episode_returns"],
            e["return_mean"],
            None if e["return_ci_low"] is None else (e["return_ci_low"], e["return_ci_high"]),
        )
        for e in some
    ]
    references = {CONTROLLERS.get(name) or name: value for name, value in some[0]["reference_return"].items()}
    spans = [f"{r.name}: {_number(min(r.values))} to {_number(max(r.values))}" for r in rows]
    described = f"Returns of single episodes. {'; '.join(spans)}"
    drawn = chart(strip(rows, references), "returns", described)
    return f"<figure><h3>Returns of single episodes</h3>{drawn}</figure>"


def _interval(e: Mapping[str, Any]) -> str:
    if e["return_ci_low"] is None:
        return ""
    return f"95 % CI {_number(e['return_ci_low'])} to {_number(e['return_ci_high'])}, "


def _shares(low: float, high: float) -> str:
    return f"{100 * low:.1f} - {100 * high:.1f}"


def _number(x: float) -> str:
    return f"{x:,.0f}" if 10_000 <= abs(x) < 1e9 else f"{x:.4g}"
