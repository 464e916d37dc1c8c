"""The report in a real browser, headless, from file://. Skipped where there is no Chromium or no playwright."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import run_agent
from agent.drawing.media import encode_png
from agent.report import folder as reading
from agent.report import page as report
from tests.report.helpers import without_map

ROOT = Path(__file__).resolve().parents[2]

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def run(trained_run, tmp_path_factory) -> Path:
    """A run that was evaluated and imagined, with its report."""
    folder = tmp_path_factory.mktemp("browser") / "run"
    shutil.copytree(trained_run, folder)
    for mode in ("2", "1"):
        command = ["evaluate", str(folder), "--tasks", "4", "--record", "2", "--mode", mode, "--json"]
        assert run_agent.main(command) == 0
    assert run_agent.main(["imagine", str(folder), "--horizon", "3", "--episodes", "1", "--json"]) == 0
    report.write(folder)
    return folder


@pytest.fixture(scope="module")
def recording(run) -> dict[str, Any]:
    return json.loads((run / "recording-mode2-cem-learned.json").read_text())


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, run) -> Iterator[Any]:
    """The report, open; whatever the console or the network says is an error at the end."""
    opened = browser.new_page(viewport={"width": 1200, "height": 900})
    said: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else said.append(r.url))
    opened.goto((run / "report.html").as_uri())
    yield opened
    opened.close()
    assert said == []


def where(page) -> str:
    return page.locator("#where").inner_text()


def pixels(page, name: str) -> str:
    return page.locator(name).evaluate("canvas => canvas.toDataURL()")


def test_it_scrubs_steps_and_jumps(page, recording):
    last = len(recording["episodes"][0]["moments"]) - 1
    assert where(page) == f"0 of {last}"
    page.get_by_role("button", name="Next").click()
    assert where(page) == f"1 of {last}"
    page.locator("#moment").fill("5")
    assert where(page) == f"5 of {last}"
    page.get_by_role("button", name="Max surprise").click()
    surprise = [m["surprise"] or -1 for m in recording["episodes"][0]["moments"]]
    assert where(page) == f"{surprise.index(max(surprise))} of {last}"


def test_keys_do_what_buttons_do(page, recording):
    last = len(recording["episodes"][0]["moments"]) - 1
    for key, at in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", last), ("Home", 0)):
        page.keyboard.press(key)
        assert where(page) == f"{at} of {last}"
    page.keyboard.press(" ")
    for _ in range(100):
        if where(page).startswith("2 "):
            break
        page.wait_for_timeout(20)
    page.keyboard.press(" ")
    assert where(page) != f"0 of {last}"
    stopped = where(page)
    page.wait_for_timeout(500)
    assert where(page) == stopped


def test_every_control_is_reached_by_the_keyboard(page):
    reached = []
    for _ in range(9):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.name"))
    for control in ("episode", "play", "back", "forward", "surprise", "moment", "plan"):
        assert control in reached


@pytest.mark.parametrize("moment", [0, 3, 4, 7])
def test_the_costs_of_a_moment_are_those_of_the_recording(page, recording, moment):
    page.locator("#moment").fill(str(moment))
    episode = recording["episodes"][0]
    path = episode["plans"][episode["moments"][moment]["plan"]]["paths"][0]
    for term, values in {**path["drives"], "critic": path["critic"]}.items():
        for step, value in enumerate(values, 1):
            cell = page.locator(f'td[data-plan="0"][data-term="{term}"][data-step="{step}"]')
            assert cell.text_content() == f"{value:.3f}"
    assert page.locator("td[data-energy]").text_content() == f"{path['energy']:.3f}"


def test_another_plan_can_be_picked_and_compared(page, recording):
    before = {name: pixels(page, name) for name in ("#map", "#imagined", "#strip")}
    page.locator("#plans input").nth(2).check()
    path = recording["episodes"][0]["plans"][0]["paths"][2]
    assert page.locator('td[data-energy="2"]').text_content() == f"{path['energy']:.3f}"
    cell = page.locator('td[data-plan="2"][data-term="critic"][data-step="2"]')
    assert cell.text_content() == f"{path['critic'][1]:.3f}"
    assert all(pixels(page, name) != old for name, old in before.items()), "what is drawn is another future"
    assert page.locator('td[data-energy="0"]').count() == 1, "the chosen plan stays beside it"
    page.locator("#moment").fill("4")
    assert page.locator('td[data-energy="2"]').count() == 0, "another moment has other plans"


def test_the_real_frame_is_drawn_from_the_recording(page):
    first = pixels(page, "#real")
    page.keyboard.press("End")
    page.wait_for_timeout(100)
    assert len({first, pixels(page, "#real")}) == 2 or "0 of 0" in where(page)
    colours = page.locator("#real").evaluate(
        "c => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size"
    )
    assert colours > 10, "a picture, and not a blank"


def test_an_episode_of_mode_1_has_nothing_imagined(page):
    page.locator("#episode").select_option("2")
    assert "Mode-1" in page.locator("#imagined-text").inner_text()
    assert page.locator("#plans input").count() == 0 and page.locator("#cost-table td").count() == 0


@contextmanager
def opened(browser, path: Path, width: int, height: int = 844, scheme: str = "light") -> Iterator[Any]:
    """A page of that size; whatever the console says is an error at the end."""
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(path.as_uri())
    page.wait_for_timeout(100)  # until the pictures are decoded
    yield page
    page.close()
    assert said == []


def copied(run: Path, tmp_path: Path, change) -> Path:
    """The run with its recording of Mode-2 changed, and a report of it."""
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    file = folder / "recording-mode2-cem-learned.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    return report.write(folder)[0]


@pytest.fixture(scope="module")
def ablation(tmp_path_factory) -> Path:
    """The page of an ablation with long names and a failed variant."""
    folder = tmp_path_factory.mktemp("browser") / "ablation"
    shutil.copytree(ROOT / "docs" / "ablations" / "two_rooms_acting", folder)
    comparison = json.loads((folder / "comparison.json").read_text())
    row = comparison["variants"][-1]
    del row["iqm"]
    row.update(variant="configurator." + "long" * 30, failed={"0": "UserError: " + "/a/path" * 20}, n_seeds=2)
    (folder / "comparison.json").write_text(json.dumps(comparison))
    return report.write(folder)[0]


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (360, "dark"), (1200, "dark")])
def test_it_has_the_colours_of_the_reader(browser, run, width, scheme):
    with opened(browser, run / "report.html", width, scheme=scheme) as page:
        paper, ink, axis = (
            sum(map(int, page.evaluate(f"getComputedStyle(document.querySelector('{where}')).{name}")[4:-1].split(",")))
            for where, name in (("body", "backgroundColor"), ("body", "color"), ("svg.chart text:not(.axis)", "fill"))
        )
        light = (paper > 600, ink < 150, axis < 150)
        dark = (paper < 150, ink > 600, axis > 600)
        assert all(dark if scheme == "dark" else light)


def test_pictures_are_on_a_card_and_dimmed_in_the_dark(browser, run):
    style = "getComputedStyle(document.querySelector('img.large'))"
    with opened(browser, run / "report.html", 1280, scheme="dark") as page:
        assert page.evaluate(f"{style}.padding") == "8px" and "brightness(0.8" in page.evaluate(f"{style}.filter")


def test_the_player_is_above_the_fold(browser, run):
    with opened(browser, run / "report.html", 1280, 900) as page:
        assert page.locator("#player").bounding_box()["y"] < 200
        box = page.locator("#player").bounding_box()
        assert box["y"] + box["height"] <= 900
        page.locator("#plans input").nth(2).check()
        box = page.locator("#player").bounding_box()
        assert box["y"] + box["height"] <= 900, "nor is it pushed down by a candidate"


def test_the_player_is_seen_first_on_a_phone(browser, run):
    with opened(browser, run / "report.html", 390) as page:
        for part in (".tiles", "#play", "#moment", "#real", "#imagined"):
            box = page.locator(part).bounding_box()
            assert box["y"] + box["height"] <= 844 and box["width"] > 50, f"{part} is not visible at once"
        box = page.locator("#map").bounding_box()
        assert box["y"] < 844, "and the map begins"


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_nothing_is_wider_than_the_page(browser, run, ablation, width):
    for path in (run / "report.html", ablation):
        with opened(browser, path, width) as page:
            page.locator("details").evaluate_all("all => all.forEach(d => d.open = true)")
            assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")


def test_tables_become_cards_on_a_phone(browser, run, ablation):
    """Each cell is inside of the page, beside the name of its column: no table scrolls, none is cut."""
    for path in (run / "report.html", ablation):
        with opened(browser, path, 390) as page:
            for box in page.locator("table.cards td").evaluate_all("all => all.map(e => e.getBoundingClientRect())"):
                assert box["left"] >= 0 and box["right"] <= 390
            names = page.locator("table.cards td").evaluate_all(
                "all => all.map(e => getComputedStyle(e, '::before').content)"
            )
            assert len(names) > 8 and all(name not in ("none", "normal", '""') for name in names)
            assert page.locator("table.cards").evaluate_all("all => all.every(t => t.scrollWidth <= t.clientWidth)")


def test_pictures_keep_a_readable_scale_on_a_phone(browser, run):
    with opened(browser, run / "report.html", 390) as page:
        boxes = page.locator("img.large").evaluate_all("all => all.map(e => e.getBoundingClientRect().width)")
        assert len(boxes) == 2 and min(boxes) >= 1000, "they scroll inside of their own box"
        assert page.locator(".scroll:has(img.large)").evaluate_all("all => all.every(e => e.clientWidth < 390)")


@pytest.mark.parametrize("width", [390, 1280])
def test_no_label_of_a_chart_is_cut(browser, run, ablation, width):
    inside = """all => all.flatMap(svg => [...svg.querySelectorAll("text")].filter(text => {
        const a = text.getBoundingClientRect(), b = svg.getBoundingClientRect();
        return a.left < b.left - 1 || a.right > b.right + 1 || a.top < b.top - 1 || a.bottom > b.bottom + 1;
    }).map(text => text.textContent))"""
    for path in (run / "report.html", ablation):
        with opened(browser, path, width) as page:
            assert page.locator("svg.chart").count() > 0
            assert page.locator("svg.chart").evaluate_all(inside) == []


def test_a_long_training_has_its_last_tick(browser, run, tmp_path):
    """Of 1500 updates, "150(" was seen."""
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    lines = [{"phase": "critic", "step": s, "time": 0.0, "losses/critic": 1.0 / s} for s in range(100, 1501, 100)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with opened(browser, report.write(folder)[0], 390) as page:
        chart = page.locator("svg.chart[aria-label^='Losses: critic']")
        tick, box = chart.locator("text", has_text="1,500").bounding_box(), chart.bounding_box()
        assert tick["x"] + tick["width"] <= box["x"] + box["width"] + 1


def test_the_goal_is_shown_beside_the_current_frame(browser, run, tmp_path):
    def with_goal(recording):
        for episode in recording["episodes"]:
            size = episode["frame_size"]
            episode["goal_frame"] = base64.b64encode(encode_png(np.full((*size, 3), 40, np.uint8))).decode()
        return recording

    with opened(browser, copied(run, tmp_path, with_goal), 1280, 900) as page:
        goal, real = page.locator("#goal").bounding_box(), page.locator("#real").bounding_box()
        assert goal["y"] == real["y"] and goal["width"] == pytest.approx(real["width"], abs=1)
        shown = page.locator("#goal").evaluate("c => [...c.getContext('2d').getImageData(5, 5, 1, 1).data]")
        assert shown[:3] == [40, 40, 40]
        box = page.locator("#player").bounding_box()
        assert box["y"] + box["height"] <= 900


def test_without_a_goal_frame_there_is_no_place_for_it(browser, run, tmp_path):
    def without(recording):
        for episode in recording["episodes"]:
            episode["goal_frame"] = None
        return recording

    with opened(browser, copied(run, tmp_path, without), 1280, 900) as page:
        assert page.locator("#goal").is_hidden() and page.locator("#real").is_visible()


@pytest.mark.parametrize("frames", [True, False])
def test_an_environment_without_a_map_shows_frames_and_costs(browser, run, tmp_path, frames, monkeypatch):
    monkeypatch.setattr(reading, "check", lambda recording: None)  # the format says what may be null
    with opened(browser, copied(run, tmp_path, lambda r: without_map(r, frames)), 1280, 900) as page:
        assert page.locator("#map").is_hidden() and page.locator("#real").is_visible() == frames
        assert page.locator("#no-picture").is_visible() == (not frames)
        for key in ("ArrowRight", "End", "Home", "s"):
            page.keyboard.press(key)
        page.locator("#plans input").nth(1).check()
        assert page.locator("#costs rect").count() > 0
        assert page.locator('td[data-energy="1"]').count() == 1
        page.locator("#episode").select_option("2")


def test_a_long_plan_is_drawn(browser, run, tmp_path):
    """Forty imagined steps, and an alternative beside them."""
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    command = ["evaluate", str(folder), "--tasks", "1", "--record", "1", "--budget", "2", "--horizon", "40", "--json"]
    assert run_agent.main(command) == 0
    report.write(folder)
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto((folder / "report.html").as_uri())
    page.locator("#plans input").nth(1).check()
    widths = page.locator("#costs rect").evaluate_all("all => all.map(r => Number(r.getAttribute('width')))")
    page.close()
    assert said == [] and len(widths) >= 80 and min(widths) > 2


def test_everything_drawn_has_a_text_alternative(page):
    assert page.locator("canvas:not([aria-label]), svg:not([aria-label]), img:not([alt])").count() == 0
