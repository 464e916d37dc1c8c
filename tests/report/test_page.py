"""The report: whole runs, runs with something missing, and nothing from outside of the folder."""

from __future__ import annotations

import html
import json
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import run_agent
from agent.errors import UserError
from agent.experiments.cells import compare
from agent.experiments.variants import variants
from agent.learning.train import train_run
from agent.presets import PRESETS
from agent.report import folder as reading
from agent.report import page as report
from agent.report.folder import Folder
from tests.helpers import tiny
from tests.report.helpers import without_map

ROOT = Path(__file__).resolve().parents[2]


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


@pytest.fixture
def undrawn(monkeypatch) -> None:
    """Charts are made and not drawn, which takes most of the time, where a test is about everything else."""
    monkeypatch.setattr("agent.drawing.rendering.svg", lambda figure, name, description: "<svg></svg>")


def text_of(page: Path) -> str:
    return html.unescape(page.read_text())


def test_a_whole_run_has_every_part_and_nothing_is_missing(run):
    page, missing = report.write(run)
    assert missing == [] and page == run / "report.html"
    text = text_of(page)
    for part in (
        "Episode player",
        "Success rate on held-out tasks",
        "Imagination (open loop)",
        "Training",
        "Reproduction",
    ):
        assert part in text
    charts = ("Losses: world model", "Effective rank", "Latent map", "Latent prediction error against horizon")
    for chart in (*charts, "Success rate against distance"):
        assert chart in text
    assert json.loads((run / "config.json").read_text())["env"] in text and "torch" in text
    assert page.stat().st_size < report.LARGEST


def test_the_page_needs_no_network_and_no_other_file(run):
    text = report.write(run)[0].read_text()
    addresses = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert addresses and all(a.startswith(("data:", "#")) for a in addresses)
    assert "Content-Security-Policy" in text and not re.search(r"@import|url\((?!#)|fetch\(|XMLHttp|import\(", text)


def test_it_is_imported_without_torch_gymnasium_or_matplotlib():
    """In a fresh interpreter: the report is for machines that train nothing."""
    heavy = ("torch", "gymnasium", "matplotlib", "mujoco", "modules", "envs")
    code = f"import sys, agent.report; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_it_is_written_without_torch(run):
    code = f"import sys, pathlib, agent.report as r; r.write(pathlib.Path({str(run)!r})); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "False"


def test_the_player_comes_first_and_remarks_come_last(run, undrawn):
    (run / "versions.json").unlink()
    text = report.write(run)[0].read_text()
    order = [text.index(f) for f in ('class="tiles"', 'id="player"', "Success rate on held-out", 'id="missing"')]
    assert order == sorted(order) and 'href="#missing"' in text, "and the title leads to the remarks"


def test_latency_says_whether_it_is_of_one_episode_or_of_a_batch(run, undrawn):
    file = run / "evaluation-mode2-cem-learned.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "plan_ms_median": 32.0, "plan_ms_batch": 71.5}))
    text = text_of(report.write(run)[0])
    assert "decision latency, one episode, one thread; 71.5 ms for a batch of 5" in text
    assert "latency, one episode" in text and "latency, batch" in text


def test_there_are_four_tiles_however_many_evaluations(run, undrawn):
    for name in ("mode1-cem-learned", "mode2-mppi-learned", "mode2-cem-oracle"):
        shutil.copy(run / "evaluation-mode2-cem-learned.json", run / f"evaluation-{name}.json")
    text = report.write(run)[0].read_text()
    tiles = re.search(r'<ul class="tiles">(.*?)</ul>', text)
    assert tiles and tiles[1].count("<li>") == 4, "more would push the player down"


def test_the_axes_of_the_latent_map_are_explained(run):
    text = text_of(report.write(run)[0])
    assert "The axes have no unit" in text and "Isomap dimension 1" in text


@pytest.mark.parametrize("bad", ["null", "NaN", "Infinity"])
def test_values_that_are_not_finite_are_named(run, bad):
    """Training writes null for them; other writers may leave Python's words."""
    with open(run / "metrics.jsonl", "a") as log:
        log.write(f'{{"phase": "critic", "step": 99, "losses/critic": {bad}}}\n')
    file = run / "imagination" / "numbers.json"
    numbers = json.loads(file.read_text())
    numbers["latent_mse"]["learned"][1] = "HERE"
    file.write_text(json.dumps(numbers).replace('"HERE"', bad))
    page, missing = report.write(run)
    assert "Training curves: metrics.jsonl holds values that are not finite: critic, losses/critic (1)." in missing
    assert "Imagination: imagination/numbers.json holds values that are not finite: latent_mse.learned (1)." in missing
    text = text_of(page)
    assert all(line in text for line in missing) and "Latent prediction error against horizon" in text
    assert not re.search(r'd="[^"]*nan', text)


@pytest.mark.parametrize(
    ("name", "said"),
    [("config.json", "Configuration"), ("metrics.jsonl", "Training curves"), ("imagination/plans.png", "Plans")],
)
def test_a_file_that_is_too_large_is_named_and_not_read(run, name, said, undrawn):
    with open(run / name, "r+b") as file:
        file.truncate(500 * 2**20)  # sparse: it takes no room on the disk
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    page, missing = report.write(run)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert any(line.startswith(said) and f"{name} is larger than 50 MB" in line for line in missing)
    assert "Reproduction" in text_of(page) and grown < 200 * 1024, "KB"


def test_what_a_page_has_no_room_for_is_named_and_each_recording_has_its_share(run):
    second = run / "recording-mode2-mppi-learned.json"
    shutil.copy(run / "recording-mode2-cem-learned.json", second)
    one = len(json.dumps(json.loads(second.read_text())["episodes"][0]))
    folder = Folder(run)
    kept = reading.recordings(folder, int(2.5 * one))
    assert [(r["name"], len(r["episodes"])) for r in kept] == [("mode2-cem-learned", 1), ("mode2-mppi-learned", 1)]
    assert len(folder.missing) == 2 and "1 of mode2-cem-learned are left out" in folder.missing[0]


def test_an_environment_without_a_map_has_a_player(run, monkeypatch):
    """The format says what may be null; here only the report is asked."""
    monkeypatch.setattr(reading, "check", lambda recording: None)
    file = run / "recording-mode2-cem-learned.json"
    file.write_text(json.dumps(without_map(json.loads(file.read_text()))))
    page, missing = report.write(run)
    assert missing == [] and "Episode player" in text_of(page)


def test_pictures_have_text_alternatives(run):
    text = report.write(run)[0].read_text()
    assert all(re.search(r'alt="[^"]{10,}"', tag) for tag in re.findall(r"<img[^>]*>", text))
    assert all('role="img"' in tag and 'aria-label="' in tag for tag in re.findall(r"<svg[^>]*>", text))


@pytest.mark.parametrize(
    ("name", "said", "kept"),
    [
        ("config.json", "Configuration", "Episode player"),
        ("summary.json", "Training summary", "Losses: world model"),
        ("metrics.jsonl", "Training curves", "Imagination"),
        ("versions.json", "Versions", "Losses: world model"),
        ("command.txt", "Command", "Losses: world model"),
        ("evaluation-mode2-cem-learned.json", "Evaluation", "Episode player"),
        ("recording-mode2-cem-learned.json", "there is no recording", "held-out tasks"),
        ("imagination/numbers.json", "Imagination", "held-out tasks"),
        ("imagination/rollout.png", "Observed and imagined frames", "Latent map"),
    ],
)
def test_what_is_absent_is_named_and_the_rest_is_shown(run, name, said, kept, undrawn):
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
def test_what_is_damaged_or_from_another_version_never_stops_the_report(run, name, damage, undrawn):
    (run / name).write_bytes(damage)
    page, missing = report.write(run)
    assert "Reproduction" in text_of(page)
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
    assert "Reproduction" in text_of(report.write(run)[0])


@pytest.mark.parametrize("error", [ZeroDivisionError, RecursionError, KeyError, OSError])
def test_whatever_a_part_of_the_page_meets_the_rest_is_shown(tmp_path, error):
    def make() -> str:
        raise error("odd")

    folder = Folder(tmp_path)
    assert folder.part("Curves", make) == "" and folder.missing[0].startswith("Curves: ")


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("name", ["recording-mode2-cem-learned.json", "imagination/rollout.png", "config.json"])
def test_half_of_a_file_is_a_damaged_file(run, name, cut, undrawn):
    data = (run / name).read_bytes()
    (run / name).write_bytes(data[: int(cut * len(data))])
    page, missing = report.write(run)
    assert missing and "Losses: world model" in text_of(page)


def test_lines_of_the_log_that_are_damaged_are_left_out(run, undrawn):
    with open(run / "metrics.jsonl", "ab") as log:
        log.write(b'{"phase": "world_mo')
    page, missing = report.write(run)
    assert any("1 of" in line and "metrics.jsonl" in line for line in missing)
    assert "Losses: world model" in text_of(page)


def test_an_evaluation_of_an_older_version_is_shown_without_what_it_lacks(run, undrawn):
    file = run / "evaluation-mode2-cem-learned.json"
    old = json.loads(file.read_text())
    for name in ("task_steps", "task_distance", "cost"):
        old.pop(name, None)
    file.write_text(json.dumps(old))
    text = text_of(report.write(run)[0])
    assert "does not hold the outcome of each task" in text and "Success rate on held-out tasks" in text


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


def test_links_that_lead_out_are_not_followed(run, tmp_path, undrawn):
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


def test_it_can_be_written_elsewhere(run, tmp_path, undrawn):
    page, _ = report.write(run, tmp_path / "new" / "folder")
    assert page == tmp_path / "new" / "folder" / "report.html" and page.exists()
    assert not (run / "report.html").exists()


def test_the_command_says_what_is_missing(run, capsys, undrawn):
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
        assert missing and "Missing, damaged or left out" in text_of(page)
