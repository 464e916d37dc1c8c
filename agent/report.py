"""One offline page per run or comparison: what was learned, what was imagined, what a part is worth.

The page is a single HTML file without server or network. It is made of the files of one folder and computes nothing
anew, so it can be made anywhere and at any time; what is absent, from another version or damaged is named on the page,
and the rest is shown. Text from the folder is escaped, and nothing outside of the folder is read or written.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from agent import charts, thoughts
from agent.charts import Series
from agent.errors import UserError, nearest
from agent.evaluate import wilson
from agent.files import write_durable

PAGE = Path(__file__).parent / "page"
LARGEST = 15 * 2**20
POINTS = 300  # of a curve
RECORDINGS = 3
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@dataclass
class Folder:
    """The files of a run or comparison, and what was missing when they were asked for."""

    path: Path
    missing: list[str] = field(default_factory=list)

    def names(self, pattern: str) -> list[str]:
        """Names of files in it, in order."""
        return sorted(p.name for p in self.path.glob(pattern))

    def read(self, name: str, what: str, remedy: str = "") -> bytes | None:
        """The content of a file; None, and a remark, when it is not there or leads out of the folder."""
        path = self.path / name
        try:
            if not path.resolve().is_relative_to(self.path.resolve()):
                self.missing.append(f"{what}: {name} is a link that leads out of the folder, and is not read.")
                return None
            return path.read_bytes()
        except FileNotFoundError:
            self.missing.append(f"{what}: there is no {name}.{' ' if remedy else ''}{remedy}")
        except OSError as error:
            self.missing.append(f"{what}: {name} cannot be read: {error.strerror or error}.")
        return None

    def json(self, name: str, what: str, remedy: str = "", kind: type = dict) -> Any:
        """A JSON file; None, and a remark, when it is absent or damaged."""
        data = self.read(name, what, remedy)
        if data is None:
            return None
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            self.missing.append(f"{what}: {name} is damaged: {error}.")
            return None
        if not isinstance(value, kind):
            self.missing.append(f"{what}: {name} holds a {type(value).__name__}, not a {kind.__name__}.")
            return None
        return value

    def picture(self, name: str, what: str, remedy: str) -> str | None:
        """A PNG or GIF as a data address; None, and a remark, when it is absent or damaged."""
        data = self.read(name, what, remedy)
        if data is None:
            return None
        try:
            with Image.open(io.BytesIO(data), formats=("PNG", "GIF")) as image:
                image.load()
                kind = str(image.format).lower()
        except Exception as error:  # Pillow has many ways to say that a file is no picture
            self.missing.append(f"{what}: {name} is damaged: {error}.")
            return None
        return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"

    def lines(self, name: str, what: str) -> list[dict[str, Any]]:
        """The objects of a file of JSON lines; lines that are none are counted and left out."""
        data = self.read(name, what, "A training writes it.")
        out, bad = [], 0
        for line in (data or b"").splitlines():
            try:
                value = json.loads(line)
                if not isinstance(value, dict):
                    raise ValueError("not an object")
                out.append(value)
            except (ValueError, RecursionError):
                bad += 1
        if bad:
            self.missing.append(f"{what}: {bad} of {bad + len(out)} lines of {name} are damaged and left out.")
        return out

    def part(self, what: str, make: Callable[[], str]) -> str:
        """A part of the page; a remark in its place when the files do not hold what this version expects."""
        try:
            return make()
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
            self.missing.append(
                f"{what}: the files hold something else than expected ({type(error).__name__}: {error}); "
                "they may be from another version."
            )
            return ""


def write(folder: Path) -> tuple[Path, list[str]]:
    """Write report.html into the folder of a run or comparison; returns its path and what is missing in it.

    Raises:
        UserError: there is no such folder, it is neither a run nor a comparison, or the disk refuses.
    """
    if not folder.is_dir():
        beside = [p.name for p in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise UserError(f"there is no run or comparison {folder}{nearest(folder.name, beside)}.")
    if (folder / "comparison.json").exists():
        page, missing = comparison_page(folder)
    elif any((folder / name).exists() for name in ("config.json", "metrics.jsonl", "checkpoints")):
        page, missing = run_page(folder)
    else:
        inside = sorted(p.parent.name for n in ("config.json", "comparison.json") for p in folder.glob(f"*/{n}"))
        hint = f"; it contains {', '.join(inside[:5])}" if inside else ""
        raise UserError(f"{folder} is neither a run nor a comparison: it has no config.json or comparison.json{hint}.")
    content = page.encode()
    if len(content) > LARGEST:
        raise UserError(
            f"the report of {folder} would have {len(content) / 2**20:.0f} MB, more than {LARGEST // 2**20}: "
            "evaluate again with a smaller --record"
        )
    out = folder / "report.html"
    write_durable(out, content)
    return out, missing


def run_page(path: Path) -> tuple[str, list[str]]:
    """The page of a run."""
    folder = Folder(path)
    config = folder.json("config.json", "Configuration") or {}
    summary = folder.json("summary.json", "Training summary", "It is written when a training has come to its end.")
    metrics = folder.lines("metrics.jsonl", "Learning curves")
    evaluations = [
        (name, value)
        for name in planning_first(folder.names("evaluation-*.json")) or ["evaluation-mode2-cem-learned.json"]
        if (value := folder.json(name, "Evaluation", f"Make it: python run_agent.py evaluate {path.name}")) is not None
    ]
    recordings = [r for name in recorded(folder) if (r := recording(folder, name)) is not None]
    numbers = folder.json(
        "imagination/numbers.json", "Imagination", f"Make it: python run_agent.py imagine {path.name}"
    )
    sections = [
        folder.part("Summary", lambda: tiles(summary, evaluations)),
        player(recordings),
        folder.part("Evaluation", lambda: success(evaluations)),
        folder.part("Imagination", lambda: imagination(folder, numbers)),
        folder.part("Learning curves", lambda: curves(metrics)),
        folder.part("Origin", lambda: origin(folder, config)),
    ]
    title = path.resolve().name
    seed = f", training seed {config['seed']}" if "seed" in config else ""
    remark = f"What the agent learned in {config.get('env', 'its world')}{seed}, and what it imagines."
    return page(title, remark, sections, folder.missing, recordings), folder.missing


def comparison_page(path: Path) -> tuple[str, list[str]]:
    """The page of a comparison."""
    folder = Folder(path)
    comparison = folder.json("comparison.json", "Comparison") or {}
    sections = [folder.part("Comparison", lambda: table_of(comparison))]
    title = f"{path.resolve().name}: what is a part worth?"
    remark = "The same agent without a part, on common seeds and tasks"
    return page(title, remark, sections, folder.missing, []), folder.missing


def page(
    title: str, remark: str, sections: Sequence[str], missing: Sequence[str], recordings: Sequence[Mapping[str, Any]]
) -> str:
    """The whole document."""
    style, script = ((PAGE / name).read_text() for name in ("report.css", "report.js"))
    data = f'<script type="application/json" id="thoughts">{embedded(recordings)}</script><script>{script}</script>'
    absent = "".join(f'<p class="missing">{escape(text)}</p>' for text in missing)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><link rel="icon" href="data:,"><style>{style}</style></head><body>'
        f'<header><h1>{escape(title)}</h1><p class="soft">{escape(remark)}</p></header><main>'
        f"{'<section><h2>Missing</h2>' + absent + '</section>' if absent else ''}{''.join(sections)}</main>"
        f"<footer><p class='soft'>One file, no network. AMI simulator.</p></footer>{data if recordings else ''}"
        "</body></html>\n"
    )


def embedded(value: Any) -> str:
    """JSON that can stand inside of a script element, whatever the strings in it are."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


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


def recorded(folder: Folder) -> list[str]:
    """Names of the recordings, planning first."""
    names = folder.names("thoughts-*.json")
    if not names:
        folder.missing.append(
            f"Episodes: no Thoughts were recorded. Make them: python run_agent.py evaluate {folder.path.name}"
        )
    return planning_first(names)[:RECORDINGS]


def planning_first(names: Sequence[str]) -> list[str]:
    """Files of evaluations and recordings: Mode-2, then Mode-1, then what oracles did."""
    return sorted(names, key=lambda n: ("oracle" in n or "true" in n, "mode2" not in n, n))


def recording(folder: Folder, name: str) -> dict[str, Any] | None:
    """One recording, when it is whole."""
    value = folder.json(name, "Episodes")
    if value is None:
        return None
    try:
        thoughts.check(value)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        folder.missing.append(f"Episodes: {name} is damaged or from another version ({error}).")
        return None
    return {"name": name.removeprefix("thoughts-").removesuffix(".json"), **value}


def player(recordings: Sequence[Mapping[str, Any]]) -> str:
    """The elements that report.js fills."""
    if not any(r["episodes"] for r in recordings):
        return ""
    return (PAGE / "player.html").read_text()


def success(evaluations: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Success beside its floors, and against the distance of the goal."""
    if not evaluations:
        return ""
    rows, plots = [], []
    for name, e in evaluations:
        row = [
            f"mode {e['mode']}, {e['planner']}, {e['dynamics']} dynamics, {e.get('cost', 'latent')} cost",
            f"{100 * e['success']:.1f} % ({100 * e['ci_low']:.1f} - {100 * e['ci_high']:.1f})",
            f"{100 * e['success_final']:.1f} %",
            str(e["n_tasks"]),
            *(f"{100 * e['floors'][k]:.1f} %" for k in ("random", "greedy", "oracle")),
            f"{e['samples']} x {e['iterations']}, horizon {e['horizon']}, every {e['replan_every']}",
            str(e["task_list_sha256"])[:12],
        ]
        rows.append(row)
        if "task_steps" in e:
            plots.append(f"<figure><h3>{escape(row[0])}</h3>{against_distance(e)}</figure>")
        else:
            plots.append(f'<p class="missing">{escape(name)} is from an older version: no outcome of each task.</p>')
    head = ["controller", "success (95 %)", "at the last step", "tasks", "random", "straight line", "oracle"]
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
    remedy = f"Make it: python run_agent.py imagine {folder.path.name}"
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
        parts.append(f"<h3>Command</h3><pre>{escape(command.decode(errors='replace').strip())}</pre>")
    if versions:
        parts.append(table(["package", "version"], [[str(k), str(v)] for k, v in versions.items()]))
    if config:
        text = escape(json.dumps(config, indent=1))
        parts.append(f"<details><summary>Configuration</summary><pre>{text}</pre></details>")
    return "".join([*parts, "</section>"])


# Parts of a comparison


def table_of(comparison: Mapping[str, Any]) -> str:
    """Table and plot of a comparison, with the exact command of each row."""
    rows = comparison["variants"]

    def interval(estimate: Mapping[str, float] | None) -> str:
        if not estimate:
            return ""
        value, low, high = (100 * estimate[k] for k in ("value", "low", "high"))
        return f"{value:.1f} ({low:.1f} to {high:.1f})"

    cells, details = [], []
    for row in rows:
        better = row.get("probability_of_improvement")
        failed = "; ".join(f"seed {seed}: {error}" for seed, error in row["failed"].items())
        cells.append(
            [
                str(row["variant"]),
                interval(row.get("iqm")) or "failed",
                interval(row.get("difference")),
                "" if better is None else f"{better:.2f}",
                f"{100 * row['success_final']:.1f}" if "success_final" in row else "",
                f"{row['plan_ms']:.1f}" if "plan_ms" in row else "",
                f"{row['train_seconds']:.0f}" if "train_seconds" in row else "",
                f"{row['n_seeds']} x {comparison['tasks']}",
                str(row["weights"]),
                failed,
            ]
        )
        details.append(
            f"<h3>{escape(str(row['variant']))}</h3><pre>{escape(str(row['command']))}</pre>"
            + (f"<pre>{escape(str(row['changes']))}</pre>" if row["changes"] else "")
        )
    head = ["variant", "success in % (95 %)", "difference to full", "P(better)", "at the last step"]
    head += ["ms a decision", "training s", "seeds x tasks", "weights", "failed"]
    if not any(cell[-1] for cell in cells):
        head, cells = head[:-1], [cell[:-1] for cell in cells]
    described = "Success of every variant with its 95 % interval; the table has the numbers"
    return (
        f"<section><h2>Success of every variant</h2>{charts.intervals(rows, described)}{table(head, cells)}"
        f'<p class="soft">{METHOD}</p></section>'
        f"<section><h2>Commands and changes</h2><pre>{escape(command_of(comparison))}</pre>"
        f"<details><summary>The exact command of each row, and what it changes</summary>{''.join(details)}</details>"
        "</section>"
    )


METHOD = (
    "Interquartile mean over seeds of the success over tasks; stratified bootstrap over seeds, then tasks; differences "
    "are taken in the same replicates. P(better): a seed of the variant does better than one of the full agent."
)


def command_of(comparison: Mapping[str, Any]) -> str:
    """The command line of the whole comparison."""
    return " ".join(str(word) for word in comparison["command"])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls by itself when the page is narrow."""
    first = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{first}</tr></thead><tbody>{body}</tbody></table></div>'
