"""One offline page per run or comparison: what was learned, what was imagined, what a part is worth.

The page is a single HTML file without server or network. It is made of the files of one folder and computes nothing
anew, so it can be made anywhere and at any time; what is absent, from another version or damaged is named on the page,
and the rest is shown. Text from the folder is escaped, and nothing outside of the folder is read or written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from agent.errors import UserError, nearest
from agent.report import sections
from agent.report.folder import Folder, planning_first, recorded, recording
from agent.report.sections import PAGE
from agent.storage.files import disk_errors, write_durable

LARGEST = 15 * 2**20


RESERVED = 3 * 2**20  # of it, for everything but episodes


POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def write(folder: Path, out: Path | None = None) -> tuple[Path, list[str]]:
    """Write report.html about a run or comparison; returns its path and what is missing in it.

    out: the folder that it is written into, created if absent; the run's or comparison's own by default.

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
    # A lone surrogate, which JSON can hold and a page cannot, is shown by its number.
    content = page.encode(errors="backslashreplace")
    path = (out or folder) / "report.html"
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_durable(path, content)
    return path, missing


def run_page(path: Path) -> tuple[str, list[str]]:
    """The page of a run."""
    folder = Folder(path)
    config = folder.json("config.json", "Configuration") or {}
    summary = folder.json("summary.json", "Training summary", "It is written when a training has come to its end.")
    metrics = folder.lines("metrics.jsonl", "Learning curves")
    evaluations = []
    for name in planning_first(folder.names("evaluation-*.json")) or ["evaluation-mode2-cem-learned.json"]:
        value = folder.json(name, "Evaluation", folder.command("evaluate"))
        # Each is tried alone, so that one that is damaged does not hide the others.
        one = [] if value is None else [(name, value)]
        if folder.part(f"Evaluation {name}", lambda one=one: sections.tiles(None, one) and sections.success(one)):
            evaluations += one
    recordings = fitting(folder, [r for name in recorded(folder) if (r := recording(folder, name)) is not None])
    numbers = folder.json("imagination/numbers.json", "Imagination", folder.command("imagine"))
    parts = [
        folder.part("Summary", lambda: sections.tiles(summary, evaluations)),
        sections.player(recordings),
        folder.part("Evaluation", lambda: sections.success(evaluations)),
        folder.part("Imagination", lambda: sections.imagination(folder, numbers)),
        folder.part("Learning curves", lambda: sections.curves(metrics)),
        folder.part("Origin", lambda: sections.origin(folder, config)),
    ]
    title = path.resolve().name
    seed = f", training seed {config['seed']}" if "seed" in config else ""
    remark = f"What the agent learned in {config.get('env', 'its world')}{seed}, and what it imagines."
    return page(title, remark, parts, folder.missing, recordings), folder.missing


def fitting(folder: Folder, recordings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As many of the recorded episodes as a page has room for; the rest is named as missing."""
    room, kept = LARGEST - RESERVED, []
    for one in recordings:
        some = []
        for episode in one["episodes"]:
            room -= len(embedded(episode))
            if room > 0:
                some.append(episode)
        if len(some) < len(one["episodes"]):
            left = len(one["episodes"]) - len(some)
            folder.missing.append(f"Episodes: {left} of {one['name']} are left out, the page would become too large.")
        kept += [{**one, "episodes": some}] if some else []
    return kept


def comparison_page(path: Path) -> tuple[str, list[str]]:
    """The page of a comparison."""
    folder = Folder(path)
    comparison = folder.json("comparison.json", "Comparison") or {}
    parts = [folder.part("Comparison", lambda: sections.table_of(folder, comparison))]
    title = f"{path.resolve().name}: what is a part worth?"
    remark = "The same agent without a part, on common seeds and tasks"
    return page(title, remark, parts, folder.missing, []), folder.missing


def page(
    title: str, remark: str, parts: Sequence[str], missing: Sequence[str], recordings: Sequence[Mapping[str, Any]]
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
        f"{'<section><h2>Missing</h2>' + absent + '</section>' if absent else ''}{''.join(parts)}</main>"
        f"<footer><p class='soft'>One file, no network. AMI simulator.</p></footer>{data if recordings else ''}"
        "</body></html>\n"
    )


def embedded(value: Any) -> str:
    """JSON that can stand inside of a script element, whatever the strings in it are."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
