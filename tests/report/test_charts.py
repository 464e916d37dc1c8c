"""Charts: pixels and SVG come from one figure, and the SVG is part of a page."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from agent.drawing import figures
from agent.drawing.colours import TONES
from agent.drawing.figures import Series
from agent.drawing.rendering import picture, svg
from agent.report import ablation, sections
from agent.report.folder import Folder

ROOT = Path(__file__).resolve().parents[2]
ABLATION = json.loads((ROOT / "docs" / "ablations" / "two_rooms_acting" / "comparison.json").read_text())


def line(*values: float, name: str = "a") -> Series:
    return Series(name, [float(i) for i in range(len(values))], list(values))


def drawn(*series: Series, log: bool = False) -> str:
    return svg(figures.lines(series, "update", log=log), "one", "a chart")


def labels(chart: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", chart)


def test_frames_and_colours_need_neither_torch_nor_matplotlib():
    code = "import sys, agent.drawing.frames; print([m for m in ('torch', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_pixels_and_svg_are_of_the_same_figure():
    figure = figures.comparison(ABLATION["variants"])
    pixels, chart = picture(figure), svg(figure, "one", "success")
    assert pixels.dtype == np.uint8 and pixels.shape[2] == 3 and len(np.unique(pixels)) > 10
    for row in ABLATION["variants"]:
        assert row["variant"] in labels(chart)


def test_an_svg_follows_the_page():
    chart = drawn(line(1, 2), line(3, 4, name="b"))
    assert "currentColor" in chart and "var(--blue)" in chart and "var(--orange)" in chart
    assert not any(light in chart for light, _ in TONES.values()), "all of them have another tone in the dark"
    assert "#000000" not in chart and "#ffffff" not in chart
    assert re.match(r'<svg class="chart" viewBox="0 0 \S+ \S+" role="img" aria-label="a chart"', chart)
    assert "<title>a chart</title>" in chart
    for stranger in ("<style", "<metadata", "<!--", "<?xml", "Matplotlib", "xlink", "font-family"):
        assert stranger not in chart
    assert "var(--card)" not in chart, "no background: the page's own is seen"


def test_the_same_figure_gives_the_same_bytes():
    assert drawn(line(1, 2, 5), log=True) == drawn(line(1, 2, 5), log=True)


def test_ids_are_unique_in_a_page_and_lead_somewhere():
    page = "".join(svg(figures.lines([line(1, 2)], "update"), name, "a chart") for name in ("first", "second"))
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids)) > 0
    assert {*re.findall(r'href="#([^"]*)"', page), *re.findall(r"url\(#([^)]*)\)", page)} == set(ids)


@pytest.mark.parametrize(
    "name", ["<script>", "$x^$", "_hidden", "\U0001f600", "a\nb", "\ud800", 'id="x" #d62728', "x" * 500]
)
def test_any_name_is_drawn_as_text(name):
    chart = drawn(line(1, 2, name=name), line(1, 3, name="b"))
    assert "<script>" not in chart and "b" in labels(chart)
    if name in ("$x^$", "_hidden"):
        assert name in [text.strip() for text in labels(chart)]
    if "#" in name:
        assert name in [text.replace("&quot;", '"') for text in labels(chart)], "text is not for the page's colours"


def test_tick_labels_are_whole_numbers_with_their_thousands():
    chart = svg(figures.lines([Series("a", [0.0, 1500.0], [0.0, 2000.0])], "update"), "one", "a chart")
    assert {"500", "1,000", "1,500"} <= set(labels(chart))


@pytest.mark.parametrize(("x", "y"), [(1e17, 1.0), (1.0, -1e17), (0.0, 0.0), (1.0, 1e-300), (1.0, 1e300)])
@pytest.mark.parametrize("log", [True, False])
def test_one_value_of_any_size_is_a_chart(x, y, log):
    chart = svg(figures.lines([Series("a", [x], [y])], "step", log=log), "one", "a chart")
    assert "<use" in chart and "nan" not in chart


def test_a_logarithmic_axis_leaves_out_what_is_negligible():
    found = labels(drawn(line(1.0, 1e-12), log=True))
    assert "1e-12" not in found and "0.001" in found


@pytest.mark.parametrize("values", [(1.0, 1.5), (1.0, 3.0), (1.0, 30.0), (1.0, 1e4), (0.021, 0.024), (5.0, 5.0)])
def test_a_logarithmic_axis_has_numbers(values):
    assert len(labels(drawn(line(*values), log=True))) >= 5, "of both axes, and the name of one"


def test_gaps_and_values_that_are_not_finite_are_left_out():
    chart = drawn(line(1.0, float("nan"), 2.0))
    assert "nan" not in chart
    found = sections.curve([{"step": 1, "a/b": 1.0}, {"step": 2, "a/b": None}, {"step": 3, "a/b": float("nan")}], "a/b")
    assert (found.name, found.x, found.y) == ("b", [1.0], [1.0])


def test_a_total_does_not_hide_its_only_part():
    total, same, other = line(1, 2, name="total"), line(1, 2.0001, name="critic"), line(0.5, 1, name="prediction")
    assert [s.name for s in sections.losses([total, same])] == ["critic (= total)"]
    assert [s.name for s in sections.losses([total, other])] == ["total", "prediction"]
    assert [s.name for s in sections.losses([total])] == ["total"]


def test_curves_of_a_log_do_not_draw_the_total_over_its_only_part():
    log = [{"phase": "critic", "step": i, "losses/total": 1.0 / i, "losses/critic": 1.0 / i} for i in (1, 2, 3)]
    found = labels(sections.training(log))
    assert "critic (= total)" in found and "total" not in found


def test_errors_of_imagination_are_one_chart_for_each_and_one_picture():
    numbers = {
        "horizons": [1, 2],
        "horizon": 16,
        "episodes": 128,
        "success_radius": 0.5,
        "ratio_persistence": 138.52,
        "ratio_shuffled": 0.5,
        "latent_mse": {"learned": [1.0, None], "persistence": [2.0, 3.0]},
        "latent_mse_ci95": {"learned": [0.1, None], "persistence": [0.1, 0.1]},
        "position_error": {"learned": [1.0, 2.0], "probe": [0.1, 0.1]},
        "position_error_ci95": {"learned": [0.1, 0.1], "probe": [0.1, 0.1]},
    }
    whole = figures.curves(numbers)
    pixels = picture(whole)
    assert (pixels[:, [0, -1]] == 255).all() and (pixels[[0, -1]] == 255).all(), "nothing is cut at the edges"
    for name in figures.ERRORS:
        found = labels(svg(figures.error_curve(numbers, name), "one", name))
        assert "world model" in found and ("success radius" in found) == (name == "position_error")
        assert "nan" not in svg(figures.error_curve(numbers, name), "one", name)


def test_a_variant_that_failed_or_is_not_computed_yet_is_named(tmp_path):
    rows = [dict(row) for row in ABLATION["variants"]]
    for number, failed in ((1, {"0": "out of memory"}), (2, {})):
        rows[number].pop("iqm")
        rows[number].update(failed=failed, n_seeds=0)
    folder = Folder(tmp_path)
    page = ablation.success(folder, {**ABLATION, "variants": rows})
    assert {"failed", "not computed yet"} <= set(labels(page))
    assert any("is not computed yet for 3 seeds" in line for line in folder.missing)
    rows[3]["iqm"] = {"value": float("nan"), "low": 0.0, "high": 1.0}
    ablation.success(folder, {**ABLATION, "variants": rows})
    assert any("Row 4" in line and "not finite" in line for line in folder.missing)
