"""Elements that all pages are made of: charts, tables, numbers with units."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONG = 30  # letters of a cell that may be broken into lines


def percent(share: float) -> str:
    """A share as text that is not broken before its unit."""
    return f"{100 * share:.1f}\u00a0%"


def chart(figure: Figure, name: str, description: str) -> str:
    """A figure as SVG with a text alternative; name: unique in the page."""
    from agent.drawing.rendering import svg

    return svg(figure, name, description)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table. On a narrow page the rows of a wide one become cards: a line for each cell, with its column's name."""
    first = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(f"<tr>{''.join(map(_cell, head, cells))}</tr>" for cells in rows)
    style = ' class="cards"' if len(head) > 3 else ""
    return (
        f'<div class="scroll" tabindex="0"><table{style}>'
        f"<thead><tr>{first}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(name: str, text: str) -> str:
    style = ' class="long"' if len(text) > LONG else ""
    return f'<td{style} data-label="{escape(name)}">{escape(text)}</td>'
