"""Promise: the page of a run in any environment shows its episodes as they were recorded, and says what it was for."""

from __future__ import annotations

import copy
import dataclasses
import html
import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import run_agent
from agent.cli.task_file import load_task
from agent.config import Config
from agent.console import set_quiet
from agent.derive import derive
from agent.interaction.environment import environment_of
from agent.learning.train import train_run
from agent.report import page as report
from agent.report.folder import Folder
from tests.helpers import Gauges

RECORDED, EVALUATED = "recording-mode2-cem-learned.json", "evaluation-mode2-cem-learned.json"
EVIL = '<script>alert("x")</script>'


@pytest.fixture(scope="module", autouse=True)
def headless() -> Iterator[None]:
    """As run_agent.py."""
    with pytest.MonkeyPatch.context() as patch:
        if sys.platform == "linux":
            patch.setenv("MUJOCO_GL", "egl")
            patch.setenv("SDL_VIDEODRIVER", "dummy")
        yield


def trained(folder: Path, env: str, task: str = "") -> Path:
    config = Config(env=env, threads=1)
    environment = environment_of(config)
    load_task(task)
    config, _ = derive(config, environment, task)
    learn = {"world_model_steps": 3, "policy_steps": 0}
    config = dataclasses.replace(
        config,
        collect=dataclasses.replace(config.collect, steps=300),
        learn=dataclasses.replace(config.learn, **learn, batch=8, gauge_every=2),
        configurator=dataclasses.replace(config.configurator, samples=8, iterations=2, horizon_without_critic=6),
    )
    set_quiet(True)
    try:
        train_run(config, folder, ["run_agent.py", "train"], watcher=Gauges)
    finally:
        set_quiet(False)
    return folder


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory) -> Path:
    """A run in Pendulum that was evaluated; read it, never write into it."""
    folder = trained(tmp_path_factory.mktemp("whole") / "run", "Pendulum-v1")
    for planner, seeds, record in (("cem", "2", "2"), ("mppi", "1", "0")):
        command = ["evaluate", str(folder), "--episodes", "2", "--budget", "12", "--record", record, "--json"]
        assert run_agent.main([*command, "--planner", planner, "--planner-seeds", seeds]) == 0
    reacted = json.loads((folder / RECORDED).read_text())
    for episode in reacted["episodes"]:  # as the policy would leave it
        episode["plans"] = []
        for moment in episode["moments"]:
            moment |= {"mode": 1, "plan": None}
    (folder / "recording-mode1-cem-learned.json").write_text(json.dumps(reacted))
    return folder


@pytest.fixture
def run(whole_run, tmp_path) -> Path:
    """The same, to damage."""
    return Path(shutil.copytree(whole_run, tmp_path / "run"))


@pytest.fixture
def undrawn(monkeypatch) -> None:
    """Charts are made and not drawn, where a test is about everything else."""
    monkeypatch.setattr("agent.drawing.rendering.svg", lambda figure, name, description: "<svg></svg>")


def text_of(page: Path) -> str:
    return html.unescape(page.read_text())


def change(file: Path, how: Callable[[Any], object]) -> None:
    value = json.loads(file.read_text())
    how(value)
    file.write_text(json.dumps(value))


def put(new: Any, *path: Any) -> Callable[[Any], None]:
    def changed(value: Any) -> None:
        for name in path[:-1]:
            value = value[name]
        value[path[-1]] = new

    return changed


def only_imagination_is_missing(missing: list[str]) -> bool:
    return len(missing) == 1 and missing[0].startswith("Imagination: there is no imagination/numbers.json")


def test_an_evaluation_in_episodes_is_shown_beside_its_references(run):
    page, missing = report.write(run)
    assert only_imagination_is_missing(missing)
    text, value = text_of(page), json.loads((run / EVALUATED).read_text())
    for part in ("Episode player", "Whole episodes from frozen reset seeds", "Returns of single episodes"):
        assert part in text
    assert f"{value['return_mean']:.4g}" in text and f"{value['reference_return']['random']:.4g}" in text
    assert value["seed_list_sha256"][:12] in text and "by seed of the search: return" in text
    assert "success rate" not in text.lower(), "nothing says what success is in Pendulum"
    for absent in ("latent map", "does not hold the outcome"):
        assert absent not in text.lower()
    assert page.stat().st_size < report.LARGEST


def test_success_faults_and_what_the_agent_does_not_see_are_told(run, undrawn):
    def succeeded(value: dict[str, Any]) -> None:
        value |= {"success": 0.5, "success_final": 0.25, "ci_low": 0.1, "ci_high": 0.9, "faults": 1}
        value["reference"] = {"random": 0.125, "zero": 0.0}

    assert "which the agent does not see" in text_of(report.write(run)[0])
    change(run / EVALUATED, succeeded)
    change(run / EVALUATED, put(["reward"], "drives"))
    text = text_of(report.write(run)[0])
    assert "50.0\u00a0%" in text and "12.5\u00a0%" in text and "1 failed in the environment" in text
    assert "which the agent does not see" not in text


@pytest.mark.parametrize(
    "damage",
    [
        put(None, "return_mean"),
        put("much", "return_mean"),
        put(True, "survival"),
        put(None, "survival_ci95"),
        put(0.5, "success"),  # without an interval
        put({"random": None}, "reference_return"),
        put({}, "planner_seeds"),
        put(["a"], "episode_returns"),
        put(7, "planner"),
        lambda value: value.pop("prediction_error"),
        lambda value: value.pop("budget"),
    ],
)
def test_an_evaluation_that_is_damaged_is_named_and_the_rest_is_shown(run, damage, undrawn):
    change(run / EVALUATED, damage)
    page, missing = report.write(run)
    assert any(line.startswith(f"Evaluation: {EVALUATED} is damaged") for line in missing)
    assert "Episode player" in text_of(page) and "Mode-2 (mppi)" in text_of(page)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (put("curves", "kind"), "frames do not fit"),
        (put([0.0], "episodes", 0, "moments", 1, "readings"), "does not have 3 readings"),
        (put(9, "episodes", 0, "plans", 0, "framed"), "that are not there"),
        (lambda value: value["episodes"][0]["plans"][0]["paths"][0].pop("readings"), "imagined readings"),
    ],
)
def test_a_recording_that_is_damaged_is_named_and_the_rest_is_shown(run, damage, why, undrawn):
    change(run / RECORDED, damage)
    page, missing = report.write(run)
    assert any(line.startswith(f"Episodes: {RECORDED} is damaged") and why in line for line in missing)
    assert "Whole episodes from frozen reset seeds" in text_of(page)


def test_a_page_says_prominently_that_the_reward_was_used(run, undrawn):
    said = "The environment's reward was used"
    assert said not in text_of(report.write(run)[0])
    change(run / "summary.json", put(True, "reward_used"))
    text = text_of(report.write(run)[0])
    assert text.index(said) < text.index('class="tiles"') < text.index('id="player"')


def test_recorded_data_and_faults_are_told_as_text(run, undrawn):
    data = {"data": "data/pendulum", "actor": EVIL, "seed": 3, "episodes": 5, "sha256": "abc123", "versions": {"a": 1}}
    faults = {"episodes": 9, "faulty": 2, "resets": 0, "kinds": {"X": {"count": 2, "first": f"X: {EVIL}"}}}
    change(run / "summary.json", put(data, "data"))
    change(run / "summary.json", put(faults, "faults"))
    page, _ = report.write(run)
    assert EVIL not in page.read_text()
    text = text_of(page)
    for told in ("Recorded episodes that it learned from", "abc123", "pendulum-upright", "2 of 9 failed"):
        assert told in text


def test_imagination_without_a_map_has_no_remark_about_one(run, undrawn):
    errors = {"learned": [0.1, 0.2], "persistence": [0.3, 0.4], "shuffled": [0.3, 0.5]}
    numbers = {"episodes": 8, "horizon": 2, "horizons": [1, 2], "ratio_persistence": 0.5, "ratio_shuffled": 0.4}
    for name in ("latent_mse", "sensor_error"):
        numbers |= {name: errors, f"{name}_ci95": errors}
    folder = run / "imagination"
    folder.mkdir()
    (folder / "numbers.json").write_text(json.dumps(numbers))
    page, missing = report.write(run)
    text = text_of(page)
    assert missing == [] and "Error of the sensors' predicted readings" in text and "Position error" not in text
    from agent.drawing.media import encode_png

    (folder / "sensors.png").write_bytes(encode_png(np.zeros((4, 4, 3), np.uint8)))
    assert "Readings and imagined futures" in text_of(report.write(run)[0])


# Advice

OWN = """
import gymnasium as gym
import numpy as np

class Slide(gym.Env):
    observation_space = gym.spaces.Box(-2, 2, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return self.at, {}

    def step(self, action):
        self.at = np.clip(self.at + 0.1 * action, -2, 2).astype(np.float32)
        return self.at, 0.0, False, False, {}

def cost(x):
    return x["obs[0]"] ** 2

gym.register("Slide-v0", entry_point=Slide, max_episode_steps=8)
"""


def test_what_is_advised_is_not_refused(tmp_path, monkeypatch, undrawn):
    """Of a run in a module's environment, for a task in a file: neither is imported because config.json names it."""
    (tmp_path / "own_slide.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    run = trained(tmp_path / "a run", "own_slide:Slide-v0", f"{tmp_path / 'own_slide.py'}:cost")
    _, missing = report.write(run)
    advised = {c for line in missing for c in re.findall(r"Run: python run_agent.py (.*)", line)}
    assert {command.split()[0] for command in advised} == {"evaluate", "imagine"}
    from modules.drives import DRIVES

    for command in advised:
        sys.modules.pop("own_slide", None)
        gym.registry.pop("Slide-v0", None)
        for name in [name for name in DRIVES if name.endswith("own_slide.py:cost")]:
            DRIVES.pop(name)
        few = ["--episodes", "1", "--json", *(["--horizon", "2"] if command.startswith("imagine") else [])]
        assert run_agent.main([*shlex.split(command), *few]) == 0, command
    _, missing = report.write(run)
    assert missing == []


@pytest.mark.parametrize(
    ("config", "evaluate"),
    [
        ({}, ""),
        ({"env": "Pendulum-v1"}, ""),
        ({"env": "a b:C-v0"}, " --env 'a b:C-v0'"),
        ({"env": "C-v0", "cost": {"drives": ["goal", "f.py:cost"]}}, " --task f.py:cost"),
        ({"learn": {"policy_steps": 0}, "configurator": {"mode": 1}}, " --mode 2"),
        ({"learn": {"policy_steps": 5}, "configurator": {"mode": 1}}, ""),
        ({"env": 3, "cost": [1], "learn": 2, "configurator": None}, ""),
        ({"cost": {"drives": 5}}, ""),
    ],
)
def test_commands_have_the_flags_that_the_run_needs(tmp_path, config, evaluate):
    folder = Folder(tmp_path)
    folder.heed(config)
    assert "Run:" not in folder.command("evaluate"), "there is no checkpoint to evaluate"
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "00000001.safetensors").touch()
    assert folder.command("evaluate") == f"Run: python run_agent.py evaluate {tmp_path}{evaluate}"


def test_nothing_is_advised_that_a_simulator_without_a_map_cannot_do(trained_run, tmp_path, undrawn):
    run = Path(shutil.copytree(trained_run, tmp_path / "run"))
    assert run_agent.main(["evaluate", str(run), "--tasks", "2", "--record", "0", "--json"]) == 0
    assert len(report.write(run)[1]) == 2, "there is neither a recording nor imagination"
    change(run / EVALUATED, put([], "task_distance"))
    page, missing = report.write(run)
    assert missing == [] and "Success rate on held-out tasks" in text_of(page)


# In a browser

CHROMIUM = next((path for n in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(n))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser) -> Iterator[Callable[..., Any]]:
    """Opens the report of a folder; whatever the console or the network says is an error at the end."""
    said: list[str] = []
    pages: list[Any] = []

    def open_page(folder: Path, width: int = 1280, height: int = 900, scheme: str = "light") -> Any:
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else said.append(r.url))
        page.goto(report.write(folder)[0].as_uri())
        page.wait_for_timeout(150)  # until the pictures are decoded
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert said == []


@pytest.fixture(scope="module")
def recording(whole_run) -> dict[str, Any]:
    return json.loads((whole_run / RECORDED).read_text())


def drawn(page: Any, sensor: str, line: str) -> np.ndarray:
    """The corners of a line of a chart, (n, 2)."""
    path = page.locator(f'#readings path[data-sensor="{sensor}"][data-line="{line}"]').get_attribute("d")
    return np.array([[float(x) for x in pair.split()] for pair in re.split("[ML]", path)[1:]])


def is_a_picture_of(points: np.ndarray, values: np.ndarray, lines: tuple[np.ndarray, np.ndarray]) -> bool:
    """Whether heights are the values under the scale that another line of the same chart has."""
    slope, start = np.polyfit(lines[1], lines[0][:, 1], 1)
    return slope < 0 and len(points) == len(values) and np.abs(points[:, 1] - (slope * values + start)).max() < 0.1


@pytest.mark.parametrize("at", [0, 7])
def test_curves_are_the_recorded_numbers(opened, run, recording, at):
    page = opened(run)
    page.locator("#moment").fill(str(at))
    page.locator("#readings-details").evaluate("d => d.open = true")
    episode = recording["episodes"][0]
    plan = episode["plans"][episode["moments"][at]["plan"]]
    for place, index in enumerate(recording["relevant"]):
        name = recording["sensors"][index]
        observed = np.array([m["readings"][index] for m in episode["moments"]])
        imagined = np.array([row[place] for row in plan["paths"][0]["readings"]], float)
        later, chosen = drawn(page, name, "later"), drawn(page, name, "0")
        begin, scale = plan["moment"], (later, observed[at : at + len(later)])
        assert len(later) == len(observed) - at, "what came later is drawn to the end of the window"
        assert is_a_picture_of(later, observed[at:], scale)
        assert is_a_picture_of(drawn(page, name, "observed"), observed[: at + 1], scale)
        assert is_a_picture_of(chosen, np.concatenate([[observed[begin]], imagined]), scale)
        assert np.allclose(np.diff(chosen[:, 0]), np.diff(later[:2, 0]) * recording["block"], atol=0.02)
        assert page.locator(f'td[data-observed="{name}"]').inner_text() == f"{observed[at]:.3f}"
        for step in (1, len(imagined)):
            cell = page.locator(f'td[data-plan="0"][data-sensor="{name}"][data-step="{step}"]')
            assert cell.inner_text() == f"{imagined[step - 1]:.3f}"


def test_a_candidate_is_selected_with_the_keyboard(opened, run, recording):
    page = opened(run)
    name = recording["sensors"][recording["relevant"][0]]
    page.locator("#plans input").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    path = recording["episodes"][0]["plans"][0]["paths"][2]
    assert page.locator('td[data-energy="2"]').text_content() == f"{path['energy']:.3f}"
    cell = page.locator(f'td[data-plan="2"][data-sensor="{name}"][data-step="1"]')
    assert cell.text_content() == f"{path['readings'][0][0]:.3f}"
    blue = page.locator(f'#readings path[data-sensor="{name}"][data-line="2"]')
    assert (
        blue.get_attribute("stroke") == "var(--blue)" and "candidate 2" in page.locator("#imagined-text").inner_text()
    )
    page.keyboard.press("ArrowUp")
    assert page.locator("td[data-energy]").count() == 2 and page.locator('td[data-energy="1"]').count() == 1


def test_there_is_no_empty_map_and_frames_are_where_they_were_recorded(opened, run, recording):
    page = opened(run)
    assert page.locator("#map").is_hidden() and page.locator("#no-picture").is_hidden()
    assert page.locator("#real").is_visible() and page.locator("#imagined").is_visible()
    first = page.locator("#real").evaluate("c => c.toDataURL()")
    page.keyboard.press("End")
    page.wait_for_timeout(100)
    assert page.locator("#real").evaluate("c => c.toDataURL()") != first
    assert "reward" in page.locator("#facts").inner_text()
    options = page.locator("#episode option").all_inner_texts()
    earned = recording["episodes"][0]["episode_return"]
    assert f"return {float(f'{earned:.3g}'):g}" in options[0]
    page.locator("#episode").select_option("2")
    assert "Mode-1" in page.locator("#facts").inner_text() and page.locator("#readings path").count() > 0


def as_curves(value: dict[str, Any]) -> None:
    value |= {"kind": "curves", "posed": False, "rewarded": True}
    for episode in value["episodes"]:
        episode |= {"frames": None, "frame_size": None, "goal_readings": {"cos_angle": 1}, "end": "fault"}
        for plan in episode["plans"]:
            plan |= {"frames": None, "framed": None, "frame_steps": None}
            for path in plan["paths"]:
                path["readings"][1][0] = None  # a number that was not finite
                path["drives"]["pendulum-upright"][2] = -0.75
    value["episodes"][1]["plans"] = copy.deepcopy(value["episodes"][1]["plans"])


def test_without_frames_there_are_curves_a_goal_and_costs_below_nothing(opened, run):
    change(run / RECORDED, as_curves)
    page = opened(run)
    for absent in ("#map", "#real", "#imagined", "#strip", "#no-picture"):
        assert page.locator(absent).is_hidden()
    assert page.locator('#readings path[data-line="goal"]').count() == 1
    assert page.locator("#readings svg").count() == 3
    assert "predicted reward" in page.locator("#costs").inner_text()
    assert "not counted" in page.locator("#episode option").first.inner_text()
    bars = page.locator("#costs rect").evaluate_all("all => all.map(r => r.y.baseVal.value + r.height.baseVal.value)")
    zero = min(bars)
    assert max(bars) > zero + 5, "a cost below nothing stands below the line"
    page.keyboard.press("s")


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (390, "dark"), (768, "light"), (1280, "dark")])
@pytest.mark.parametrize("curves", [True, False])
def test_no_label_is_cut_or_lies_on_another_and_nothing_is_wider_than_the_page(opened, run, width, scheme, curves):
    if curves:
        change(run / RECORDED, as_curves)
    page = opened(run, width, scheme=scheme)
    page.locator("#plans input").nth(1).check()
    page.locator("details").evaluate_all("all => all.forEach(d => d.open = true)")
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    inside = """all => all.flatMap(svg => [...svg.querySelectorAll("text")].filter(text => {
        const a = text.getBoundingClientRect(), b = svg.getBoundingClientRect();
        return a.left < b.left - 1 || a.right > b.right + 1 || a.top < b.top - 1 || a.bottom > b.bottom + 1;
    }).map(text => text.textContent))"""
    assert page.locator("svg.chart").evaluate_all(inside) == []
    crossed = """all => all.flatMap(svg => {
        const boxes = [...svg.querySelectorAll("text")].map(t => [t.getBoundingClientRect(), t.textContent]);
        return boxes.flatMap(([a, x], i) => boxes.slice(i + 1).filter(([b]) => a.left < b.right - 1 &&
            b.left < a.right - 1 && a.top < b.bottom - 3 && b.top < a.bottom - 3).map(([, y]) => `${x} on ${y}`));
    })"""
    assert page.locator("#player svg.chart").evaluate_all(crossed) == []
    radios = page.locator("#plans label").evaluate_all("all => all.map(l => l.scrollWidth <= l.clientWidth + 1)")
    assert all(radios)


def test_the_player_is_above_the_fold(opened, run):
    page = opened(run)
    page.locator("#plans input").nth(1).check()
    box = page.locator("#strip-figure").bounding_box()
    assert page.locator("#player").bounding_box()["y"] < 200 and box["y"] + box["height"] <= 900
