"""The sections of a run's page: HTML from what folder.py has read. Every text from a file is escaped here.

Functions that meet another structure than they expect raise; `Folder.part` makes a remark of it. Charts are imported
where they are drawn, because matplotlib loads slowly.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.evaluation.statistics import wilson
from agent.report import episodes
from agent.report.elements import chart, percent, table
from agent.report.folder import Folder
from agent.report.text import CONTROLLERS

if TYPE_CHECKING:
    from agent.drawing.figures import Series

POINTS = 300  # of a curve


def tiles(summary: Mapping[str, Any] | None, evaluated: Sequence[Mapping[str, Any]]) -> str:
    """The numbers that a reader looks for first; the table below has those of every evaluation."""
    shown: list[tuple[str, str]] = []
    for e in evaluated[:1]:
        if episodes.is_of_episodes(e):
            shown.append(episodes.headline(e, _how(e)))
            shown.append((f"{e['plan_ms_median']:.1f} ms", f"decision latency, one episode, one thread{_batch(e)}"))
            continue
        interval = f"95 % CI {100 * e['ci_low']:.1f} - {percent(e['ci_high'])}"
        shown.append((percent(e["success"]), f"success rate, {interval}, {e['n_tasks']} tasks, {_how(e)}"))
        shown.append((f"{e['plan_ms_median']:.1f} ms", f"decision latency, one episode, one thread{_batch(e)}"))
    if summary is not None:
        shown.append(
            (f"{summary['train_wall_seconds']:,.0f} s", f"training; {summary['env_steps']:,} environment steps")
        )
        shown.append((f"{summary['parameters']:,}", "parameters"))
    items = "".join(f"<li><b>{escape(value)}</b> {escape(text)}</li>" for value, text in shown)
    return f'<ul class="tiles">{items}</ul>'


def _how(evaluation: Mapping[str, Any]) -> str:
    """What acted: Mode-2 (cem), with the oracles named."""
    how = f"Mode-{evaluation['mode']}" + (f" ({evaluation['planner']})" if evaluation["mode"] == 2 else "")
    how += "" if evaluation["dynamics"] == "learned" else f", {evaluation['dynamics']} dynamics"
    return how + ("" if evaluation.get("cost", "latent") == "latent" else f", {evaluation['cost']} cost")


def _batch(evaluation: Mapping[str, Any]) -> str:
    """The latency of a batch, where it was measured: it is another number than that of one episode."""
    if evaluation.get("plan_ms_batch") is None or evaluation.get("plan_batch") is None:
        return ""
    return f"; {evaluation['plan_ms_batch']:.1f} ms for a batch of {evaluation['plan_batch']}"


def evaluation(evaluated: Sequence[Mapping[str, Any]]) -> str:
    """Evaluations on tasks, and those in whole episodes."""
    whole = [e for e in evaluated if episodes.is_of_episodes(e)]
    return _tasks([e for e in evaluated if e not in whole]) + episodes.section(
        whole, {e["file"]: _how(e) + _variant(e) for e in whole}
    )


def _variant(evaluation: Mapping[str, Any]) -> str:
    """What the file's name says beyond the way of acting: another task or another variant of the environment."""
    usual = f"evaluation-mode{evaluation['mode']}-{evaluation['planner']}-{evaluation['dynamics']}"
    more = evaluation["file"].removesuffix(".json").removeprefix(usual).strip("-")
    return f", {more}" if more and more != evaluation["file"].removesuffix(".json") else ""


def _tasks(evaluated: Sequence[Mapping[str, Any]]) -> str:
    """Success rates beside those of the reference controllers, and against the distance of the goal."""
    if not evaluated:
        return ""
    controllers = list(dict.fromkeys(k for e in evaluated for k in e["reference"]))
    rows, plots = [], []
    for number, e in enumerate(evaluated):
        how = _how(e)
        rows.append(
            [
                how,
                f"{percent(e['success'])} ({100 * e['ci_low']:.1f} - {100 * e['ci_high']:.1f})",
                percent(e["success_final"]),
                str(e["n_tasks"]),
                *(percent(e["reference"][k]) if k in e["reference"] else "-" for k in controllers),
                f"{e['plan_ms_median']:.1f} ms",
                f"{e['plan_ms_batch']:.1f} ms for {e['plan_batch']}" if _batch(e) else "-",
                f"{e['samples']} x {e['iterations']}, horizon {e['horizon']}, every {e['replan_every']} actions",
                e["task_list_sha256"][:12],
            ]
        )
        if e.get("task_distance") == []:  # there is no map to measure distances on
            continue
        if "task_steps" in e and "task_distance" in e:
            chart = by_distance(e, f"distance{number}")
            plots.append(f"<figure><h3>Success rate against distance: {escape(how)}</h3>{chart}</figure>")
        else:
            plots.append(f'<p class="missing">{escape(e["file"])} does not hold the outcome of each task.</p>')
    head = ["controller", "success rate (95 % CI)", "at the last step", "tasks"]
    head += [CONTROLLERS.get(k) or k for k in controllers]
    head += ["latency, one episode", "latency, batch", "planner settings", "task list"]
    return (
        f"<section><h2>Success rate on held-out tasks</h2>{table(head, rows)}"
        '<p class="soft">Decision latency is a median: of one episode on one thread, and of one call for a whole batch '
        f'of episodes.</p><div class="grid">{"".join(plots)}</div></section>'
    )


def by_distance(evaluation: Mapping[str, Any], name: str, bins: int = 6) -> str:
    """Success rate of tasks grouped by the straight distance from start to goal."""
    from agent.drawing import figures

    distance, solved = np.array(evaluation["task_distance"], float), np.array(evaluation["task_steps"]) > 0
    order = distance.argsort()
    rows = []
    for some in np.array_split(order, min(bins, len(order))):
        share = float(solved[some].mean())
        rows.append((float(distance[some].mean()), share, *wilson(share, len(some)), len(some)))
    if not np.isfinite(np.array(rows)).all():
        raise ValueError("a distance that is not finite")
    groups = ", ".join(f"{x:.3g}: {100 * share:.0f} % of {n}" for x, share, _, _, n in rows)
    return chart(figures.success_by_distance(rows), name, f"Success rate against the distance of the goal: {groups}")


def imagination(folder: Folder, numbers: Mapping[str, Any] | None) -> str:
    """How far imagination can be trusted."""
    parts = [] if numbers is None else [folder.part("Imagination", lambda: _errors(numbers))]
    if numbers is not None and "latent_map" in numbers:
        parts.append(folder.part("Latent map", lambda: _latent_map(numbers["latent_map"])))
    remedy, mapped = folder.command("imagine"), "position_error" in (numbers or {})
    for name, (title, alternative) in (PICTURES if mapped else PICTURES_WITHOUT_MAP).items():
        # Without a map there are only pictures of what the environment has: frames, sensors, plans.
        asked = numbers is not None and (mapped or (folder.path / "imagination" / name).exists())
        address = folder.picture(f"imagination/{name}", title, remedy) if asked else None
        if address:
            image = f'<div class="scroll" tabindex="0"><img class="large" src="{address}" alt="{alternative}"></div>'
            parts.append(f'<figure class="whole"><h3>{title}</h3>{image}</figure>')
    if not any(parts):
        return ""
    return f'<section><h2>Imagination (open loop)</h2><div class="grid">{"".join(parts)}</div></section>'


def _errors(numbers: Mapping[str, Any]) -> str:
    from agent.drawing import figures

    text = (
        f"After {numbers['horizon']} imagined steps the latent prediction error is "
        f"{numbers['ratio_persistence']:.2f} x that of persistence and {numbers['ratio_shuffled']:.2f} x that with "
        f"another episode's actions ({numbers['episodes']} held-out episodes; bands: 95 %)."
    )
    parts = [f'<p class="whole">{escape(text)}</p>']
    for key, (title, _) in figures.EVERY_ERROR.items():
        if key not in numbers:  # positions have only those with a map, sensors only the others
            continue
        drawn = chart(figures.error_curve(numbers, key), key.replace("_", ""), f"{title} against horizon")
        parts.append(f"<figure><h3>{title} against horizon</h3>{drawn}</figure>")
    return "".join(parts)


def _latent_map(numbers: Mapping[str, Any]) -> str:
    from agent.drawing import figures

    u, v = (100 * x for x in numbers["explained"])
    described = "Latent states of held-out episodes in two dimensions, coloured by the true position of the agent"
    drawn = chart(figures.latent_map(numbers, (5.2, 4.2)), "latentmap", described)
    return (
        f"<figure><h3>Latent map</h3>{drawn}<figcaption>Each point is the latent state of a held-out observation, laid "
        "out by Isomap: states that are near in the latent space are near here. The axes have no unit. They are the "
        f"two directions that keep most of the distances ({u:.0f} % and {v:.0f} %). Colour is the true position on the "
        "map. Solid lines are observed paths, dashed lines are the same paths imagined open loop."
        "</figcaption></figure>"
    )


PICTURES = {
    "rollout.png": (
        "Observed and imagined frames",
        "Rows of frames: what happened, what the world model imagines open loop, the difference",
    ),
    "plans.png": (
        "Plans for held-out tasks",
        "Maps of four tasks with start, goal, the imagined paths of the chosen plan and of rejected candidates",
    ),
}
PICTURES_WITHOUT_MAP = {
    "rollout.png": (
        "Observed and imagined frames",
        "What happened, and what the world model imagines open loop from the same actions",
    ),
    "sensors.png": (
        "Readings and imagined futures",
        "Sensors of a held-out episode over time, and the futures that are imagined from several of its moments",
    ),
    "plans.png": (
        "Plans in held-out episodes",
        "What the chosen plan and other candidates imagine, beside what the chosen plan led to",
    ),
}
"""The same in an environment without a map."""


GAUGES = {
    "collapse/feature_std": "Standard deviation per latent dimension",
    "collapse/effective_rank": "Effective rank of the latent",
    "collapse/within_episode_std": "Standard deviation within an episode",
    "collapse/inverse_r2": "Inverse dynamics: R2 of actions read from two states",
    "collapse/swapped_action": "Response to a swapped action, in true steps",
}


def training(metrics: Sequence[Mapping[str, Any]]) -> str:
    """Losses of each phase, gauges of collapse, probes."""
    if not metrics:
        return ""
    charts = []
    for phase in dict.fromkeys(m["phase"] for m in metrics):
        mine = [m for m in metrics if m["phase"] == phase]
        names = [n for n in _names(mine, "losses/") if not n.endswith(("_value", "_target"))]
        charts.append((f"Losses: {phase.replace('_', ' ')}", losses([curve(mine, n) for n in names]), True))
    for name, title in GAUGES.items():
        if any(name in m for m in metrics):
            charts.append((title, [curve(metrics, name)], False))
    if probes := _names(metrics, "probe/"):
        title = "Linear probes on held-out episodes, R2 (first value: untrained encoder)"
        charts.append((title, [curve(metrics, n) for n in probes], False))
    figures = "".join(_curves(f"curve{i}", *one) for i, one in enumerate(charts))
    return f'<section><h2>Training</h2><div class="grid">{figures}</div></section>'


def _names(metrics: Sequence[Mapping[str, Any]], prefix: str, most: int = 7) -> list[str]:
    return [n for n in dict.fromkeys(k for m in metrics for k in m) if n.startswith(prefix)][:most]


def curve(metrics: Sequence[Mapping[str, Any]], name: str) -> Series:
    """One value over the updates, means of neighbours where there are many; what is not finite is left out."""
    from agent.drawing.figures import Series

    points = [(float(m["step"]), float(m[name])) for m in metrics if m.get(name) is not None]
    points = [p for p in points if math.isfinite(p[1])]
    size = -(-len(points) // POINTS) or 1
    pieces = [np.mean(points[i : i + size], 0) for i in range(0, len(points), size)]
    label = name.partition("/")[2].removesuffix("_r2")
    return Series(label, [float(p[0]) for p in pieces], [float(p[1]) for p in pieces])


def losses(series: Sequence[Series]) -> list[Series]:
    """Without a total that has the values of its only part, which would hide one of the two."""
    total = next((s for s in series if s.name == "total"), None)
    if total is None:
        return list(series)

    def is_total(one: Series) -> bool:
        return one is not total and one.x == total.x and np.allclose(one.y, total.y, rtol=1e-3)

    if not any(map(is_total, series)):
        return list(series)
    return [replace(s, name=f"{s.name} (= total)") if is_total(s) else s for s in series if s is not total]


def _curves(name: str, title: str, series: Sequence[Series], log: bool) -> str:
    from agent.drawing import figures

    series = [s for s in series if s.x]
    drawn = '<p class="missing">There are no finite values.</p>'
    if series:
        legend = len(series) > 1 or log
        described = f"{title}: {', '.join(s.name for s in series)}"
        drawn = chart(figures.lines(series, "update", log=log, legend=legend), name, described)
    return f"<figure><h3>{escape(title)}</h3>{drawn}</figure>"


def reproduction(folder: Folder, config: Mapping[str, Any]) -> str:
    """What is needed to make this run again."""
    command = folder.read("command.txt", "Command")
    versions = folder.json("versions.json", "Versions")
    parts = ["<section><h2>Reproduction</h2>"]
    if command:
        parts.append(f"<h3>Command</h3><pre tabindex='0'>{escape(command.decode(errors='replace').strip())}</pre>")
    if versions:
        parts.append(table(["package", "version"], [[str(k), str(v)] for k, v in versions.items()]))
    if config:
        text = escape(json.dumps(config, indent=1))
        parts.append(f"<details><summary>Configuration</summary><pre tabindex='0'>{text}</pre></details>")
    return "".join([*parts, "</section>"])
