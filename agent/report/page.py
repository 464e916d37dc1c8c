"""One offline page for a run or an ablation: what was learned, what is imagined, what each variant reaches.

The page is a single HTML file without server or network. It is made of the files of one folder and computes nothing
anew, so it can be made anywhere and at any time. What is absent, damaged or from another version is named on the page,
and the rest is shown. Text from the folder is escaped; nothing outside of the folder is read or written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from agent.drawing.colours import SERIES, TONES
from agent.errors import UserError, nearest
from agent.report import ablation, purpose, sections
from agent.report.folder import Folder, evaluations, metrics, numbers, recordings
from agent.storage.files import disk_errors, write_durable

STATIC = Path(__file__).parent / "static"


LARGEST = 15 * 2**20


RESERVED = 3 * 2**20  # of it, for everything but episodes


POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def write(folder: Path, out: Path | None = None) -> tuple[Path, list[str]]:
    """Write report.html about a run or an ablation.

    Args:
        folder: of a training (it has config.json, metrics.jsonl or checkpoints) or an ablation (comparison.json).
        out: the folder that the page is written into, created if absent; `folder` by default.

    Returns:
        The path of the page, and one remark for each file that is missing, damaged or left out.

    Raises:
        UserError: there is no such folder, it is neither a run nor an ablation, or the disk refuses.
    """
    if not folder.is_dir():
        beside = [p.name for p in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise UserError(f"there is no run or ablation {folder}{nearest(folder.name, beside)}.")
    if (folder / "comparison.json").exists():
        page, missing = ablation_page(folder)
    elif any((folder / name).exists() for name in ("config.json", "metrics.jsonl", "checkpoints")):
        page, missing = run_page(folder)
    else:
        inside = sorted(p.parent.name for n in ("config.json", "comparison.json") for p in folder.glob(f"*/{n}"))
        hint = f"; it contains {', '.join(inside[:5])}" if inside else ""
        raise UserError(f"{folder} is neither a run nor an ablation: it has no config.json or comparison.json{hint}.")
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
    summary = folder.json("summary.json", "Training summary", "Training writes it at its end.")
    folder.heed(config)
    log, evaluated, errors = metrics(folder), evaluations(folder), numbers(folder)
    recorded = recordings(folder, LARGEST - RESERVED)
    player = (STATIC / "player.html").read_text() if recorded else ""
    parts = [
        folder.part("Purpose", lambda: purpose.notice(summary)),
        folder.part("Summary", lambda: sections.tiles(summary, evaluated)),
        player,
        folder.part("Evaluation", lambda: sections.evaluation(evaluated)),
        folder.part("Purpose", lambda: purpose.section(summary, config)),
        folder.part("Imagination", lambda: sections.imagination(folder, errors)),
        folder.part("Training curves", lambda: sections.training(log)),
        folder.part("Reproduction", lambda: sections.reproduction(folder, config)),
    ]
    seed = f", training seed {config['seed']}" if "seed" in config else ""
    remark = f"{config.get('env', 'unknown environment')}{seed}"
    return page(path.resolve().name, remark, parts, folder.missing, recorded), folder.missing


def ablation_page(path: Path) -> tuple[str, list[str]]:
    """The page of an ablation."""
    folder = Folder(path)
    comparison = folder.json("comparison.json", "Ablation") or {}
    parts = [folder.part("Ablation", lambda: ablation.success(folder, comparison))]
    remark = "success rate of the full agent and of its variants, on the same seeds and tasks"
    return page(f"Ablation {path.resolve().name}", remark, parts, folder.missing, []), folder.missing


def page(
    title: str, remark: str, parts: Sequence[str], missing: Sequence[str], recorded: Sequence[Mapping[str, Any]]
) -> str:
    """The whole document."""
    css, script = ((STATIC / name).read_text() for name in ("report.css", "report.js"))
    body = "".join(parts)
    notice = ""
    if missing:
        notice = f'<a class="notice" href="#missing">{len(missing)} missing, damaged or left out</a>'
        remarks = "".join(f'<p class="missing">{escape(text)}</p>' for text in missing)
        body += f'<section id="missing"><h2>Missing, damaged or left out</h2>{remarks}</section>'
    player = ""
    if recorded:
        data = _embedded({"colours": _light(), "recordings": recorded})
        player = f'<script type="application/json" id="data">{data}</script><script>{script}</script>'
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><link rel="icon" href="data:,"><style>{_tones()}{css}</style></head><body>'
        f'<header><h1>{escape(title)}</h1><p class="soft">{escape(remark)}</p>{notice}</header><main>{body}</main>'
        '<footer><p class="soft">AMI simulator. This page is one file and needs no network.</p></footer>'
        f"{player}</body></html>\n"
    )


def _light() -> dict[str, str]:
    """The colours that the player draws with on maps, which are light on any page."""
    return {name: light for name, (light, _) in TONES.items()}


def _tones() -> str:
    """The colours of all charts as CSS variables, for a light and for a dark page."""
    light, dark = ("".join(f"--{name}:{tones[i]};" for name, tones in TONES.items()) for i in (0, 1))
    series = "".join(f".c{i}{{--c:var(--{name})}}" for i, name in enumerate(SERIES))
    return f":root{{{light}}}@media (prefers-color-scheme: dark){{:root{{{dark}}}}}{series}\n"


def _embedded(value: Any) -> str:
    """JSON that can stand inside of a script element, whatever the strings in it are."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
