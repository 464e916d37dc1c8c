"""The documentation is true: its commands run, its code runs, and what it names exists."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import gymnasium as gym
import pytest
from gymnasium.utils.env_checker import check_env

import run_agent
from agent.config import Config
from agent.experiments.table import markdown
from agent.inspection import imagination as imagine
from agent.inspection.check import CheckArguments, check
from agent.presets import PRESETS, debug
from envs import SIMULATORS, Simulator
from tests.helpers import tiny

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
page = pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
RUN = "runs/two_rooms__seed0"  # where `make run` leaves its run, and the README looks for it


def blocks(path: Path, language: str) -> list[str]:
    """The fenced code of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.M | re.S)


def spans(path: Path) -> list[str]:
    """Inline code, outside fenced blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S))


def commands(path: Path) -> list[str]:
    """Every python command of a page: fenced ones first, in order, then inline ones."""
    lines = [line for block in blocks(path, "console") for line in block.splitlines()] + spans(path)
    return list(dict.fromkeys(line for line in lines if line.startswith("python ")))


def cells(path: Path, heading: str) -> list[str]:
    """The inline code in the first column of the first table under a heading."""
    text = path.read_text().split(f"{heading}\n", 1)[1]
    rows = re.search(r"(?:^\|.*\n)+", text, re.M)
    assert rows, f"no table under {heading}"
    return [name for row in rows[0].splitlines()[2:] for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


# What is run


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a run of the preset debug, evaluated and imagined."""
    folder = tmp_path_factory.mktemp("readme") / RUN
    for line in (
        f"train debug --out {folder}",
        f"evaluate {folder} --tasks 4",
        f"imagine {folder}",
        f"report {folder}",
    ):
        assert run_agent.main(shlex.split(line)) == 0
    return folder


@pytest.fixture
def workplace(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of its own with a copy of the run, where every preset trains in a second."""
    shutil.copytree(tiny_run, tmp_path / RUN)
    shutil.copytree(ROOT / "docs" / "ablations", tmp_path / "docs" / "ablations")
    monkeypatch.chdir(tmp_path)
    for preset in ("two_rooms", "two_rooms_random", "point_maze", "point_maze_medium"):
        monkeypatch.setitem(PRESETS, preset, tiny)
    monkeypatch.setattr(imagine, "EPISODES", 8)
    monkeypatch.setattr(imagine, "PROBE_EPISODES", 16)
    return tmp_path


@pytest.fixture
def box() -> Iterator[type]:
    """The README's own world, registered and, as its preset, small."""
    (code,) = (b for b in blocks(ROOT / "README.md", "python") if b.startswith("# box_world.py"))
    names: dict = {"__name__": "box_world"}
    try:
        exec(code, names)
        small = {k: getattr(debug(), k) for k in ("threads", "learn", "configurator")}
        small["collect"] = dataclasses.replace(debug().collect, per_scene=1)
        preset = dataclasses.replace(PRESETS["box"](), **small)
        PRESETS["box"] = lambda: preset
        yield names["Box"]
    finally:
        PRESETS.pop("box", None)
        SIMULATORS.pop("Box-v0", None)
        gym.registry.pop("Box-v0", None)


def test_the_two_commands_come_first():
    first = re.search(r"^```\w*\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    assert first and first[1] == "make run\nmake test\n"


def test_there_is_something_to_run():
    """Else the tests below would pass on nothing."""
    readme = ROOT / "README.md"
    run = {shlex.split(line)[2] for line in commands(readme)}
    assert run == {"train", "evaluate", "imagine", "ablate", "report", "check"} and len(blocks(readme, "python")) == 2


@page
def test_make_targets_and_variables_exist(path: Path):
    makefile = (ROOT / "Makefile").read_text()
    lines = [line for block in blocks(path, "console") for line in block.splitlines()] + spans(path)
    for line in lines:
        if re.match(r"make\b", line):
            for word in line.split()[1:]:
                name, equals, _ = word.partition("=")
                pattern = rf"^{name} \?=" if equals else rf"^{name}:"
                assert re.search(pattern, makefile, re.M), f"{path.name}: `{line}`, but the Makefile has no {name}"


@page
def test_commands_run(path: Path, workplace: Path, box: type):
    for line in commands(path):
        if "--launcher ray" in line:
            continue  # tests/test_cluster.py does this; here there may be no ray
        script, *arguments = shlex.split(line)[1:]
        assert script in ("run_agent.py", "box_world.py"), line
        if arguments[0] == "evaluate":
            arguments += ["--tasks", "4"]
        arguments = [a for a in arguments if not re.match(r"learn\.\w+_steps=", a)]  # as few as the preset's
        if "--out" in arguments and arguments[arguments.index("--out") + 1].startswith("docs/"):
            out = arguments.index("--out") + 1
            arguments[out] = arguments[out].replace("docs/", "elsewhere/")  # where no published table is in the way
        if arguments[0] == "ablate" and "--seeds" in arguments:
            arguments[arguments.index("--seeds") + 1] = "1"
            arguments += ["--tasks", "2"]
        assert run_agent.main(arguments) == 0, f"{path.name}: {line}"


@page
def test_python_runs(path: Path, workplace: Path, capsys: pytest.CaptureFixture):
    for code in blocks(path, "python"):
        if not code.startswith("# box_world.py"):
            exec(code, {"__name__": "__main__"})


def test_the_own_world_keeps_every_promise(box: type):
    assert isinstance(box(), Simulator)
    check_env(gym.make("Box-v0").unwrapped, skip_render_check=True)
    findings = check(CheckArguments("Box-v0"))
    assert [f for f in findings if f.result != "ok"] == []


# What is named


@cache
def defined(path: Path) -> set[str]:
    """Names at the top of a file, and Class.member."""
    names = set()
    for prefix, node in _nodes(ast.parse(path.read_text())):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names |= {prefix + t.id for t in targets if isinstance(t, ast.Name)}
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(prefix + node.name)
    return names


def _nodes(tree: ast.Module) -> Iterator[tuple[str, ast.stmt]]:
    for node in tree.body:
        yield "", node
        if isinstance(node, ast.ClassDef):
            yield from ((f"{node.name}.", member) for member in node.body)


@page
def test_files_and_functions_exist(path: Path):
    own = {"box_world.py"}
    for span in spans(path):
        named = re.fullmatch(r"([\w./-]+\.py)(?::([\w.]+))?", span)
        if named and named[1] not in own:
            file = ROOT / named[1]
            assert file.is_file(), f"{path.name} names {span}: there is no such file"
            assert not named[2] or named[2] in defined(file), f"{path.name} names {span}: there is no such thing in it"


@page
def test_flags_exist(path: Path):
    known = set()
    for group in dataclasses.fields(Config):
        value = getattr(debug(), group.name)
        for f in dataclasses.fields(value) if dataclasses.is_dataclass(value) else ():
            known |= {f"--{group.name}.{no}{f.name}".replace("_", "-") for no in ("", "no-")}
    for flag in re.findall(r"--[a-z-]+\.[a-z-]+", path.read_text()):
        assert flag in known, f"{path.name} names {flag}: there is no such flag"


@page
def test_links_lead_somewhere(path: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" not in target:
            file, _, anchor = target.partition("#")
            to = (path.parent / file) if file else path
            assert to.exists(), f"{path.name} links to {target}"
            headings = re.findall(r"^#+ (.+)$", to.read_text(), re.M) if anchor else []
            assert not anchor or anchor in {h.lower().replace(" ", "-") for h in headings}, target


def test_the_run_folder_is_as_described(tiny_run: Path):
    described = {name.strip("/") for name in cells(ROOT / "docs" / "architecture.md", "## The run folder")}
    assert described == {p.name for p in tiny_run.iterdir()}


def test_scalars_are_as_described(tiny_run: Path):
    logged = {k for line in (tiny_run / "metrics.jsonl").read_text().splitlines() for k in json.loads(line)}
    logged -= {"phase", "step", "time"}
    described = cells(ROOT / "docs" / "architecture.md", "### Scalars")
    patterns = {name: re.sub(r"<\w+>", r"\\w+", name).replace("hNN", r"h\d\d") for name in described}
    assert {k for k in logged if not any(re.fullmatch(p, k) for p in patterns.values())} == set()
    never = {name for name, p in patterns.items() if not any(re.fullmatch(p, k) for k in logged)}
    # Two Rooms has no proprio, and the presets leave these terms out.
    assert never == {f"losses/{term}" for term in ("proprio", "sigreg", "within_episode", "temporal")}


def test_the_tables_of_ablations_are_what_was_measured():
    """Each table of the page is the one in its folder, which follows from the numbers beside it."""
    page = (ROOT / "docs" / "ablations.md").read_text()
    folders = sorted(p.parent for p in (ROOT / "docs" / "ablations").glob("*/comparison.json"))
    assert folders
    for folder in folders:
        comparison = json.loads((folder / "comparison.json").read_text())
        assert (folder / "table.md").read_text() == markdown(comparison)
        assert markdown(comparison).strip() in page, f"{folder.name} is not on the page"
        for row in comparison["variants"]:
            assert row["iqm"]["low"] <= row["iqm"]["value"] <= row["iqm"]["high"] and row["n_seeds"] == 3


def test_the_licence_is_the_one_that_is_declared():
    licence = (ROOT / "LICENSE").read_text()
    assert "Apache License" in licence and "Version 2.0, January 2004" in licence
    assert 'text = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text()
