"""The report in a real browser, headless, from file://. Skipped where there is no Chromium or no playwright."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import run_agent
from agent.report import page as report

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
    page.get_by_role("button", name="Step on").click()
    assert where(page) == f"1 of {last}"
    page.locator("#moment").fill("5")
    assert where(page) == f"5 of {last}"
    page.get_by_role("button", name="Greatest surprise").click()
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
            assert cell.inner_text() == f"{value:.3f}"
    assert page.locator("td[data-energy]").inner_text() == f"{path['energy']:.3f}"


def test_another_plan_can_be_picked_and_compared(page, recording):
    before = {name: pixels(page, name) for name in ("#map", "#imagined", "#strip")}
    page.locator("#plans input").nth(2).check()
    path = recording["episodes"][0]["plans"][0]["paths"][2]
    assert page.locator('td[data-energy="2"]').inner_text() == f"{path['energy']:.3f}"
    cell = page.locator('td[data-plan="2"][data-term="critic"][data-step="2"]')
    assert cell.inner_text() == f"{path['critic'][1]:.3f}"
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


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (360, "dark"), (1200, "dark")])
def test_it_fits_a_phone_and_the_dark(browser, run, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.goto((run / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper, ink = (
        sum(map(int, page.evaluate(f"getComputedStyle(document.body).{name}")[4:-1].split(",")))
        for name in ("backgroundColor", "color")
    )
    assert (paper < 150 and ink > 600) if scheme == "dark" else (paper > 600 and ink < 150)
    page.close()


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
