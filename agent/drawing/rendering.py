"""A matplotlib figure as pixels or as SVG for a page: both come from the same drawing.

The SVG is a part of an HTML page. Its text is text, black is the page's ink, the named colours of colours.py have the
page's light or dark tone, and the same figure gives the same bytes.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from agent.drawing.colours import TONES, Picture

_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


_ON_PAGE = {
    "#000000": "currentColor",
    "#ffffff": "var(--card)",
    **{light: f"var(--{name})" for name, (light, _) in TONES.items()},
}


def picture(figure: Figure) -> Picture:
    """The figure as pixels (rows, columns, 3)."""
    canvas = FigureCanvasAgg(figure)
    with _without_glyph_warnings():
        canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3].copy()


def svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an SVG element for an HTML page.

    Args:
        figure: what to draw.
        name: unique in the page, letters and digits; ids in the SVG begin with it.
        description: the text alternative.

    Returns:
        <svg>...</svg> without size, metadata, style sheet and background.
    """
    file = io.StringIO()
    for background in (figure, *figure.axes):
        background.patch.set_visible(False)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "ami"}), _without_glyph_warnings():
        _lay_out(figure)
        FigureCanvasSVG(figure).print_svg(file, metadata=_METADATA)
    document = re.search(r'<svg[^>]*(viewBox="[^"]*")[^>]*>(.*)</svg>', file.getvalue(), re.DOTALL)
    assert document is not None, "matplotlib writes one svg element with a viewBox"
    view, body = document.groups()
    # The style sheet would hold for the whole page: what it says stands as an attribute below.
    body = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r"<[^>]+>", lambda tag: _for_page(tag[0], name), body)
    return (
        f'<svg class="chart" {view} role="img" aria-label="{escape(description)}" fill="currentColor" '
        f'stroke-linejoin="round"><title>{escape(description)}</title>{_compact(body)}</svg>'
    )


def _for_page(tag: str, name: str) -> str:
    """A tag with ids of this figure only, the page's colours and font, and coordinates to a hundredth."""
    tag = tag.replace("xlink:href", "href")
    tag = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", tag)
    tag = re.sub(r"#[0-9a-f]{6}\b", lambda colour: _ON_PAGE.get(colour[0], colour[0]), tag)
    tag = re.sub(r"font: ([0-9.]+px) [^;\"]*", r"font-size: \1", tag)  # as some versions of matplotlib write it
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    return re.sub(r"(\d\.\d\d)\d+", r"\1", tag)


def _compact(body: str) -> str:
    """Without the ids that nothing refers to, and without blank lines."""
    used = set(re.findall(r'(?:href="#|url\(#)([^")]*)', body))
    body = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", body)
    return re.sub(r"\s*\n\s*", "\n", body)


def _lay_out(figure: Figure) -> None:
    """Place axes and legends once; `savefig` would draw the figure a second time for it."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")


@contextmanager
def _without_glyph_warnings() -> Iterator[None]:
    """Text from a file may hold characters that the font lacks: they are drawn as boxes, and that is enough."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield
