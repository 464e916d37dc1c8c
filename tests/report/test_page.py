"""The report: whole runs, runs with something missing, and nothing from outside of the folder."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path

import pytest

import run_agent
from agent.errors import UserError
from agent.experiments.cells import compare
from agent.experiments.variants import variants
from agent.learning.train import train_run
from agent.presets import PRESETS
from agent.report import charts
from agent.report import page as report
from agent.report.charts import Series
from agent.report.folder import Folder
from tests.helpers import tiny


@pytest.fixture(scope="module")
def whole_run(trained_run, tmp_path_factory) -> Path:
    """A run that was evaluated and imagined; read it, never write into it."""
    run = tmp_path_factory.mktemp("report") / "run"
    shutil.copytree(trained_run, run)
    assert run_agent.main(["evaluate", str(run), "--tasks", "5", "--record", "2", "--json"]) == 0
    assert run_agent.main(["imagine", str(run), "--horizon", "3", "--episodes", "1", "--json"]) == 0
    return run


@pytest.fixture
def run(whole_run, tmp_path) -> Path:
    """The same, to damage."""
    return Path(shutil.copytree(whole_run, tmp_path / "run"))


def text_of(page: Path) -> str:
    return html.unescape(page.read_text())


def test_a_whole_run_has_every_part_and_nothing_is_missing(run):
    page, missing = report.write(run)
    assert missing == [] and page == run / "report.html"
    text = text_of(page)
    for part in (
        "decision by decision",
        "Success on tasks never seen",
        "Imagination",
        "Learning",
        "Where this comes from",
    ):
        assert part in text
    for chart in ("Losses: world model", "Effective rank", "Map of the latent space", "against the distance"):
        assert chart in text
    assert json.loads((run / "config.json").read_text())["env"] in text and "torch" in text
    assert page.stat().st_size < report.LARGEST


def test_the_page_needs_no_network_and_no_other_file(run):
    text = report.write(run)[0].read_text()
    addresses = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert addresses and all(a.startswith("data:") for a in addresses)
    assert "Content-Security-Policy" in text and not re.search(r"@import|url\(|fetch\(|XMLHttp|import\(", text)


def test_pictures_have_text_alternatives(run):
    text = report.write(run)[0].read_text()
    assert all(re.search(r'alt="[^"]{10,}"', tag) for tag in re.findall(r"<img[^>]*>", text))
    assert all('role="img"' in tag and 'aria-label="' in tag for tag in re.findall(r"<svg[^>]*>", text))


@pytest.mark.parametrize(
    ("name", "said", "kept"),
    [
        ("config.json", "Configuration", "decision by decision"),
        ("summary.json", "Training summary", "Learning"),
        ("metrics.jsonl", "Learning curves", "Imagination"),
        ("versions.json", "Versions", "Learning"),
        ("command.txt", "Command", "Learning"),
        ("evaluation-mode2-cem-learned.json", "Evaluation", "decision by decision"),
        ("recording-mode2-cem-learned.json", "no Decisions were recorded", "Success on tasks"),
        ("imagination/numbers.json", "Imagination", "Success on tasks"),
        ("imagination/rollout.png", "Seen, then imagined", "Map of the latent space"),
    ],
)
def test_what_is_absent_is_named_and_the_rest_is_shown(run, name, said, kept):
    (run / name).unlink()
    page, missing = report.write(run)
    assert any(said in line for line in missing)
    text = text_of(page)
    assert kept in text and all(line in text for line in missing)


@pytest.mark.parametrize("damage", [b"", b"{", b"[1, 2]", b"\xff\xfe\x00", b'{"version": 0}', b"null", b"{}"])
@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "summary.json",
        "metrics.jsonl",
        "versions.json",
        "evaluation-mode2-cem-learned.json",
        "recording-mode2-cem-learned.json",
        "imagination/numbers.json",
        "imagination/plans.png",
        "command.txt",
    ],
)
def test_what_is_damaged_or_from_another_version_never_stops_the_report(run, name, damage):
    (run / name).write_bytes(damage)
    page, missing = report.write(run)
    assert "Where this comes from" in text_of(page)
    harmless = {"command.txt": True, "config.json": damage in (b"{}", b'{"version": 0}')}
    harmless |= {"versions.json": damage in (b"{}", b'{"version": 0}'), "metrics.jsonl": damage == b""}
    assert missing or harmless.get(name), "it is said"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metrics.jsonl", '{"phase":"a","step":1e17,"losses/total":1.0}'),
        ("metrics.jsonl", '{"phase":"world_model","step":1,"gauges/std":-1e17}'),
        ("config.json", '{"a":' * 990 + "1" + "}" * 990),
    ],
)
def test_numbers_and_depths_that_no_run_has_never_stop_the_report(run, name, text):
    (run / name).write_text(text)
    assert "Where this comes from" in text_of(report.write(run)[0])


@pytest.mark.parametrize("error", [ZeroDivisionError, RecursionError, KeyError, OSError])
def test_whatever_a_part_of_the_page_meets_the_rest_is_shown(tmp_path, error):
    def make() -> str:
        raise error("odd")

    folder = Folder(tmp_path)
    assert folder.part("Curves", make) == "" and folder.missing[0].startswith("Curves: ")


@pytest.mark.parametrize(("x", "y"), [(1e17, 1.0), (1.0, -1e17), (0.0, 0.0)])
def test_one_value_of_any_size_is_a_chart(x, y):
    drawn = charts.lines([Series("a", [x], [y])], "one value", "step")
    assert "<circle" in drawn and "nan" not in drawn


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("name", ["recording-mode2-cem-learned.json", "imagination/rollout.png", "config.json"])
def test_half_of_a_file_is_a_damaged_file(run, name, cut):
    data = (run / name).read_bytes()
    (run / name).write_bytes(data[: int(cut * len(data))])
    page, missing = report.write(run)
    assert missing and "Learning" in text_of(page)


def test_lines_of_the_log_that_are_damaged_are_left_out(run):
    with open(run / "metrics.jsonl", "ab") as log:
        log.write(b'{"phase": "world_mo')
    page, missing = report.write(run)
    assert any("1 of" in line and "metrics.jsonl" in line for line in missing)
    assert "Losses: world model" in text_of(page)


def test_an_evaluation_of_an_older_version_is_shown_without_what_it_lacks(run):
    file = run / "evaluation-mode2-cem-learned.json"
    old = json.loads(file.read_text())
    for name in ("task_steps", "task_distance", "cost"):
        old.pop(name, None)
    file.write_text(json.dumps(old))
    text = text_of(report.write(run)[0])
    assert "from an older version" in text and "Success on tasks never seen" in text


def test_a_run_that_is_under_way_has_a_report(trained_run, tmp_path):
    half = tmp_path / "half"
    half.mkdir()
    for name in ("config.json", "metrics.jsonl", "command.txt", "versions.json"):
        shutil.copy(trained_run / name, half / name)
    page, missing = report.write(half)
    assert "Losses: world model" in text_of(page)
    assert {line.split(":")[0] for line in missing} == {"Training summary", "Evaluation", "Episodes", "Imagination"}


EVIL = '<script>alert("x")</script>'


def test_names_from_the_folder_are_text(run):
    for name in ("config.json", "versions.json"):
        values = json.loads((run / name).read_text())
        values[EVIL] = EVIL
        (run / name).write_text(json.dumps(values))
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "env": EVIL, "seed": EVIL}))
    (run / "command.txt").write_text(EVIL)
    file = run / "recording-mode2-cem-learned.json"
    recording = json.loads(file.read_text())
    recording["episodes"][0]["plans"][0]["planner"] = EVIL
    file.rename(run / f"recording-{EVIL.replace('/', '')}.json").write_text(json.dumps(recording))
    with open(run / "metrics.jsonl", "a") as log:
        log.write(json.dumps({"phase": EVIL, "step": 1, "losses/" + EVIL: 1.0, "probe/" + EVIL: 0.5}) + "\n")
    page, _ = report.write(run)
    assert EVIL not in page.read_text() and "alert" in page.read_text()
    assert page.read_text().count("<script") == 2, "the page's own"


def test_links_that_lead_out_are_not_followed(run, tmp_path):
    secret = tmp_path / "secret.json"
    secret.write_text('{"secret": "treasure"}')
    (run / "versions.json").unlink()
    (run / "versions.json").symlink_to(secret)
    (run / "report.html").symlink_to(secret)
    page, missing = report.write(run)
    assert any("leads out" in line for line in missing) and "treasure" not in page.read_text()
    assert secret.read_text() == '{"secret": "treasure"}' and not page.is_symlink(), "nor written through"


@pytest.mark.parametrize(
    ("name", "text"), [("runn", "did you mean 'run'"), ("run/tb", "neither a run nor"), ("", "run")]
)
def test_what_is_no_run_is_refused(run, name, text):
    with pytest.raises(UserError, match=text):
        report.write(run.parent / name if name else run.parent)


def test_the_command_says_what_is_missing(run, capsys):
    (run / "summary.json").unlink()
    assert run_agent.main(["report", str(run)]) == 0
    out = capsys.readouterr()
    assert "summary.json" in out.err and "report.html" in out.out


# Comparisons


@pytest.fixture(scope="module")
def comparison(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("comparison") / EVIL.replace("/", "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "small", tiny)

        def train(config, folder, command, resume_from):
            if not config.losses.multi_step:
                raise UserError(EVIL)
            return train_run(config, folder, command, resume_from=resume_from)

        compare(variants("small", ["critic", "multi-step"]), 1, 3, folder, train, ["me", EVIL], base_command=["me"])
    return folder


def test_a_comparison_has_its_table_its_plot_and_the_command_of_each_row(comparison):
    page, missing = report.write(comparison)
    assert missing == []
    text = text_of(page)
    for part in ("without critic", "me --without critic", "- learn.critic_steps: 11", "P(better)", "failed", "seed 0"):
        assert part in text
    assert EVIL not in page.read_text(), "names, errors and commands are text"


def test_a_comparison_that_is_damaged_says_so(comparison, tmp_path):
    for content in ("{", "{}", '{"variants": [{}], "command": [], "tasks": 1}', '{"variants": 3}'):
        folder = tmp_path / str(abs(hash(content)))
        folder.mkdir()
        (folder / "comparison.json").write_text(content)
        page, missing = report.write(folder)
        assert missing and "Missing" in text_of(page)


# Charts


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3, 17), (0, 1e-9), (5, 5e7), (0.2, 0.21)])
def test_ticks_are_round_and_inside(low, high):
    found = charts.ticks(low, high)
    assert 3 <= len(found) <= 8 and all(low - 1e-9 * high <= x <= high * (1 + 1e-9) for x in found)


def test_a_line_goes_through_its_points():
    chart = charts.lines([Series("a", [0, 1, 2], [0.0, 10.0, 5.0])], "a line", "x")
    points = re.search(r'polyline class="line c0" points="([^"]*)"', chart)
    assert points is not None
    rows = [float(p.split(",")[1]) for p in points.group(1).split()]
    assert rows[0] == charts.HEIGHT - charts.BOTTOM and rows[1] < rows[2] < rows[0]


def test_a_logarithmic_axis_leaves_out_what_is_nothing():
    chart = charts.lines([Series("a", [0, 1], [1.0, 1e-12])], "a line", "x", log=True)
    assert "1e-12" not in chart and "1e-05" in chart


def test_gaps_and_values_that_are_not_finite_are_left_out():
    chart = charts.lines([Series("a", [0, 1, 2], [1.0, None, float("nan")])], "a line", "x")
    assert "nan" not in chart and "circle" in chart
    assert "no values" in charts.lines([Series("a", [], [])], "nothing", "x")
