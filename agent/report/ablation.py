"""The sections of an ablation's page: chart, table, the command of each row. Every text from a file is escaped here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import Any

from agent.report.elements import chart, table
from agent.report.folder import Folder
from agent.report.text import as_typed, in_words, reference


def success(folder: Folder, comparison: Mapping[str, Any]) -> str:
    """Chart and table of an ablation, with the exact command of each row."""
    from agent.drawing import figures

    rows, cells, details = [], [], []
    for number, row in enumerate(comparison["variants"]):
        made = folder.part(
            f"Row {number + 1} of the ablation", lambda row=row: _details(folder, row, comparison["seeds"])
        )
        if made:
            rows.append(row)
            cells.append(in_words(row))
            details.append(made)
    if not rows:
        return ""
    head = list(dict.fromkeys(name for cell in cells for name in cell))
    shown = table(head, [[cell.get(name, "") for name in head] for cell in cells])
    described = "Success rate of every variant with its 95 % interval; the table has the numbers"
    drawn = chart(figures.comparison(rows, narrow=True), "ablation", described)
    on_same = folder.part("Reference controllers", lambda: reference(comparison))
    return (
        f"<section><h2>Success rate of every variant</h2>{drawn}{shown}"
        f'<p class="soft">{METHOD} {escape(on_same)}</p></section>'
        f"<section><h2>Commands and changes</h2><pre tabindex='0'>{escape(command_of(comparison))}</pre>"
        f"<details><summary>Command and changed settings of each variant</summary>{''.join(details)}</details>"
        "</section>"
    )


def _details(folder: Folder, row: Mapping[str, Any], seeds: int) -> str:
    """The exact command of a row and what it changes; raises for a row that cannot be shown."""
    words = in_words(dict(row))
    if not all(isinstance(text, str) for text in words.values()):
        raise TypeError("a cell of the table is not text")
    estimates = [row[k] for k in ("iqm", "difference") if row.get(k) is not None]
    if not all(math.isfinite(value) for one in estimates for value in one.values()):
        raise ValueError("a success rate that is not finite")
    left = seeds - row["n_seeds"] - len(row["failed"])
    if left > 0:
        folder.missing.append(f"Ablation: {row['variant']} is not computed yet for {left} seeds.")
    changed = f"<pre tabindex='0'>{escape(str(row['changes']))}</pre>" if row["changes"] else ""
    return f"<h3>{escape(row['variant'])}</h3><pre tabindex='0'>{escape(str(row['command']))}</pre>{changed}"


METHOD = (
    "Success rate: interquartile mean over seeds of the share of tasks that are solved. Intervals: stratified "
    "bootstrap over seeds, then tasks; differences are taken in the same replicates. P(better): the probability that "
    "a seed of the variant reaches more than a seed of the full agent."
)


def command_of(comparison: Mapping[str, Any]) -> str:
    """The command line of the whole ablation."""
    return as_typed([str(word) for word in comparison["command"]])
