"""The sections of a report: HTML text from what `report_folder` has read. Every text from a file is escaped here.

Functions that meet another structure than they expect raise; `report_folder.Folder.part` makes a remark of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from agent.evaluation.statistics import wilson
from agent.report import charts
from agent.report.charts import Series
from agent.report.folder import Folder
from agent.report.text import as_typed, in_words, reference

PAGE = Path(__file__).parent / "static"


POINTS = 300  # of a curve


# Parts of a run


def tiles(summary: Mapping[str, Any] | None, evaluations: Sequence[Any]) -> str:
    """The numbers that one looks for first."""
    shown: list[tuple[str, str]] = []
    for _, e in evaluations:
        interval = f"{100 * e['ci_low']:.1f} - {100 * e['ci_high']:.1f} %"
        how = f"mode {e['mode']}" + ("" if e["dynamics"] == "learned" else ", oracle dynamics")
        how += "" if e.get("cost", "latent") == "latent" else ", true cost"
        shown.append((f"{100 * e['success']:.1f} %", f"success, {how}; {e['n_tasks']} tasks, 95 %: {interval}"))
        shown.append((f"{e['plan_ms_median']:.1f} ms", f"a decision, {how}, one thread"))
    if summary is not None:
        shown.append((f"{summary['train_wall_seconds']:.0f} s", f"training; {summary['env_steps']:,} steps explored"))
        shown.append((f"{summary['parameters']:,}", "parameters"))
    items = "".join(f"<li><b>{escape(value)}</b>{escape(text)}</li>" for value, text in shown)
    return f'<ul class="tiles">{items}</ul>'


def player(recordings: Sequence[Mapping[str, Any]]) -> str:
    """The elements that report.js fills."""
    return (PAGE / "player.html").read_text() if recordings else ""


def success(evaluations: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Success beside its reference, and against the distance of the goal."""
    if not evaluations:
        return ""
    rows, plots = [], []
    for name, e in evaluations:
        row = [
            f"mode {e['mode']}, {e['planner']}, {e['dynamics']} dynamics, {e.get('cost', 'latent')} cost",
            f"{100 * e['success']:.1f} % ({100 * e['ci_low']:.1f} - {100 * e['ci_high']:.1f})",
            f"{100 * e['success_final']:.1f} %",
            str(e["n_tasks"]),
            *(f"{100 * e['reference'][k]:.1f} %" for k in ("random", "greedy", "expert")),
            f"{e['samples']} x {e['iterations']}, horizon {e['horizon']}, every {e['replan_every']}",
            str(e["task_list_sha256"])[:12],
        ]
        rows.append(row)
        if "task_steps" in e:
            plots.append(f"<figure><h3>{escape(row[0])}</h3>{against_distance(e)}</figure>")
        else:
            plots.append(f'<p class="missing">{escape(name)} is from an older version: no outcome of each task.</p>')
    head = ["controller", "success (95 %)", "at the last step", "tasks", "random", "straight line", "expert"]
    return (
        f"<section><h2>Success on tasks never seen</h2>{table([*head, 'search', 'task list'], rows)}"
        f'<div class="grid2">{"".join(plots)}</div></section>'
    )


def against_distance(evaluation: Mapping[str, Any], bins: int = 6) -> str:
    """Success of tasks grouped by the straight distance from start to goal."""
    distance, solved = np.array(evaluation["task_distance"], float), np.array(evaluation["task_steps"]) > 0
    order = distance.argsort()
    rows = []
    for some in np.array_split(order, min(bins, len(order))):
        share = float(solved[some].mean())
        rows.append((float(distance[some].mean()), share, *wilson(share, len(some)), len(some)))
    return charts.shares(rows, "Success against the distance of the goal", "straight distance from start to goal")


def imagination(folder: Folder, numbers: Mapping[str, Any] | None) -> str:
    """How far imagination can be trusted."""
    if numbers is None:
        return ""
    names = {
        "learned": ("the world model", ""),
        "persistence": ("nothing changes", "7 3"),
        "shuffled": ("another episode's actions", "3 3"),
        "probe": ("the probe itself", "1 3"),
    }
    parts = []
    for key, title, unit in (
        ("latent_mse", "Latent error against the horizon", "mean squared error"),
        ("position_error", "Position error against the horizon", "distance in the world"),
    ):
        series = [
            Series(names[k][0], numbers["horizons"], values, numbers[f"{key}_ci95"][k], names[k][1])
            for k, values in numbers[key].items()
        ]
        parts.append(
            f"<figure><h3>{title}</h3>{charts.lines(series, title, 'imagined steps (action blocks)', unit)}</figure>"
        )
    at = numbers["horizon"]
    text = (
        f"After {at} imagined steps the latent error is {numbers['ratio_persistence']:.2f} of that of nothing changing "
        f"and {numbers['ratio_shuffled']:.2f} of that under another episode's actions "
        f"({numbers['episodes']} held-out episodes; bands: 95 %)."
    )
    if "latent_map" in numbers:
        u, v = (100 * x for x in numbers["latent_map"]["explained"])
        described = "Latents of held-out episodes laid out flat, coloured by where the agent is"
        parts.append(
            f"<figure><h3>Map of the latent space</h3>{charts.latent_map(numbers['latent_map'], described)}<figcaption>"
            f"Isomap of held-out states, coloured by true position; {u:.0f} % and {v:.0f} % of the distances. Solid: "
            "paths as perceived; dashed: as imagined, eyes closed.</figcaption></figure>"
        )
    remedy = folder.command("imagine")
    for name, title in (("rollout.png", "Seen, then imagined"), ("plans.png", "Plans for unseen tasks")):
        address = folder.picture(f"imagination/{name}", title, remedy)
        if address:
            picture = f'<img src="{address}" alt="{ALTERNATIVES[name]}">'
            parts.append(f'<figure class="whole"><h3>{title}</h3>{picture}</figure>')
    return f'<section><h2>Imagination</h2><p>{escape(text)}</p><div class="grid2">{"".join(parts)}</div></section>'


ALTERNATIVES = {
    "rollout.png": "Rows of frames: what happened, what the world model imagines of it without looking, the difference",
    "plans.png": "Maps of four tasks with start, goal, the imagined paths of the chosen plan and of rejected ones",
}


GAUGES = {
    "collapse/feature_std": "Standard deviation of a latent dimension",
    "collapse/effective_rank": "Effective rank of the latent",
    "collapse/within_episode_std": "Standard deviation within an episode",
    "collapse/inverse_r2": "Actions read from two states, R2",
    "collapse/swapped_action": "Answer to another action, in true steps",
}


def curves(metrics: Sequence[Mapping[str, Any]]) -> str:
    """Losses of each phase, gauges of collapse, probes."""
    if not metrics:
        return ""
    phases = list(dict.fromkeys(str(line["phase"]) for line in metrics))
    figures = []
    for phase in phases:
        mine = [line for line in metrics if str(line["phase"]) == phase]
        names = [n for n in dict.fromkeys(k for line in mine for k in line) if str(n).startswith("losses/")]
        names = [n for n in names if not n.endswith(("_value", "_target"))][:7]
        series = [drawn(mine, n, n.removeprefix("losses/")) for n in names]
        title = f"Losses: {phase.replace('_', ' ')}"
        figures.append(f"<figure><h3>{escape(title)}</h3>{charts.lines(series, title, 'update', log=True)}</figure>")
    for name, title in GAUGES.items():
        if any(name in line for line in metrics):
            chart = charts.lines([drawn(metrics, name, title)], title, "update")
            figures.append(f"<figure><h3>{escape(title)}</h3>{chart}</figure>")
    probes = [n for n in dict.fromkeys(k for line in metrics for k in line) if str(n).startswith("probe/")][:7]
    if probes:
        series = [drawn(metrics, n, n.removeprefix("probe/").removesuffix("_r2")) for n in probes]
        title = "Linear probes on held-out episodes, R2 (the first is the untrained encoder)"
        figures.append(f"<figure><h3>{title}</h3>{charts.lines(series, title, 'update')}</figure>")
    return f'<section><h2>Learning</h2><div class="grid2">{"".join(figures)}</div></section>'


def drawn(metrics: Sequence[Mapping[str, Any]], name: str, label: str) -> Series:
    """One value over the updates, means of neighbours where there are many."""
    points = [(float(m["step"]), float(m[name])) for m in metrics if m.get(name) is not None]
    size = -(-len(points) // POINTS) or 1
    pieces = [np.mean(points[i : i + size], 0) for i in range(0, len(points), size)]
    return Series(label, [float(p[0]) for p in pieces], [float(p[1]) for p in pieces])


def origin(folder: Folder, config: Mapping[str, Any]) -> str:
    """What one needs to make this run again."""
    command = folder.read("command.txt", "Command")
    versions = folder.json("versions.json", "Versions")
    parts = ["<section><h2>Where this comes from</h2>"]
    if command:
        parts.append(f"<h3>Command</h3><pre tabindex='0'>{escape(command.decode(errors='replace').strip())}</pre>")
    if versions:
        parts.append(table(["package", "version"], [[str(k), str(v)] for k, v in versions.items()]))
    if config:
        text = escape(json.dumps(config, indent=1))
        parts.append(f"<details><summary>Configuration</summary><pre>{text}</pre></details>")
    return "".join([*parts, "</section>"])


# Parts of a comparison


def _details(folder: Folder, row: dict[str, Any], seeds: int) -> str:
    """The exact command of a row and what it changes; raises for a row that cannot be shown."""
    charts.intervals([row], in_words(row)["variant"])
    left = seeds - row["n_seeds"] - len(row["failed"])
    if left > 0:
        folder.missing.append(f"Comparison: {row['variant']} is not computed yet for {left} seeds.")
    changed = f"<pre tabindex='0'>{escape(str(row['changes']))}</pre>" if row["changes"] else ""
    return f"<h3>{escape(str(row['variant']))}</h3><pre tabindex='0'>{escape(str(row['command']))}</pre>{changed}"


def table_of(folder: Folder, comparison: Mapping[str, Any]) -> str:
    """Table and plot of a comparison, with the exact command of each row."""
    rows, cells, details = [], [], []
    for number, row in enumerate(comparison["variants"]):
        made = folder.part(
            f"Row {number + 1} of the comparison", lambda row=row: _details(folder, row, comparison["seeds"])
        )
        if made:
            rows.append(row)
            cells.append(in_words(row))
            details.append(made)
    if not rows:
        return ""
    head = list(dict.fromkeys(name for cell in cells for name in cell))
    shown = table(head, [[str(cell.get(name, "")) for name in head] for cell in cells])
    described = "Success of every variant with its 95 % interval; the table has the numbers"
    return (
        f"<section><h2>Success of every variant</h2>{charts.intervals(rows, described)}{shown}"
        f'<p class="soft">{METHOD} {escape(folder.part("Floors", lambda: reference(comparison)))}</p></section>'
        f"<section><h2>Commands and changes</h2><pre tabindex='0'>{escape(command_of(comparison))}</pre>"
        f"<details><summary>The exact command of each row, and what it changes</summary>{''.join(details)}</details>"
        "</section>"
    )


METHOD = (
    "Interquartile mean over seeds of the success over tasks; stratified bootstrap over seeds, then tasks; differences "
    "are taken in the same replicates. P(better): a seed of the variant does better than one of the full agent."
)


def command_of(comparison: Mapping[str, Any]) -> str:
    """The command line of the whole comparison."""
    return as_typed([str(word) for word in comparison["command"]])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls by itself when the page is narrow."""
    first = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{first}</tr></thead><tbody>{body}</tbody></table></div>'
