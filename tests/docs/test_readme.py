"""The documentation is true: its commands run, its code runs, and what it names exists."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import json
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from gymnasium.utils.env_checker import check_env

import run_agent
from agent.config import Config
from agent.console import set_quiet
from agent.experiments.table import markdown
from agent.inspection import imagination
from agent.inspection.check import CheckArguments, check
from agent.presets import PRESETS, debug
from envs import SIMULATORS, Simulator
from tests.helpers import tiny, tiny_maze, train_tiny

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
page = pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
RUN = "runs/two_rooms__seed0"  # where `make run` writes its run, and the README reads it
OWN_WORLD, OWN_ENVIRONMENT = "examples/own_world.py", "examples/own_environment.py"
CART, CART_ID = "runs/cart", "Cart-v0"
QUICK = ["--steps", "300", "--learn.world-model-steps", "3", "--threads", "1"]
EXAMPLE = re.compile(r"# (examples/\w+\.py)\n")  # a block that docs/hooks.py replaces by the file


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


def programs(path: Path) -> list[str]:
    """Every block of Python that is written on the page itself; included examples have tests of their own."""
    return [code for code in blocks(path, "python") if not EXAMPLE.fullmatch(code)]


def cells(path: Path, heading: str) -> list[str]:
    """The inline code in the first column of the first table under a heading."""
    text = path.read_text().split(f"{heading}\n", 1)[1]
    rows = re.search(r"(?:^\|.*\n)+", text, re.M)
    assert rows, f"no table under {heading}"
    return [name for row in rows[0].splitlines()[2:] for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


# What is run


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the preset debug, evaluated, imagined and reported; pictures of the last phase only."""
    folder = tmp_path_factory.mktemp("readme") / RUN
    with pytest.MonkeyPatch.context() as patch:
        few_pictures(patch)
        for line in (
            f"train debug --out {folder}",
            f"evaluate {folder} --tasks 4",
            f"imagine {folder}",
            f"report {folder}",
        ):
            assert run_agent.main(shlex.split(line)) == 0
    return folder


def few_pictures(patch: pytest.MonkeyPatch) -> None:
    """No pictures for TensorBoard, and few episodes behind those of imagine."""
    patch.setattr(imagination, "to_tensorboard", lambda *_: None)
    patch.setattr(imagination, "EPISODES", 8)
    patch.setattr(imagination, "PROBE_EPISODES", 16)


@pytest.fixture
def own_world() -> Iterator[type]:
    """The environment of examples/own_world.py, registered; its preset is tiny."""
    registers: list[dict[str, Any]] = [SIMULATORS, PRESETS, gym.registry]
    before = [dict(register) for register in registers]
    try:
        box = runpy.run_path(str(ROOT / OWN_WORLD), run_name="own_world")["Box"]
        PRESETS["box"] = lambda: tiny_maze(env="Box-v0", env_options=())
        yield box
    finally:
        for register, old in zip(registers, before, strict=True):
            register.clear()
            register.update(old)
        sys.modules.pop(OWN_ENVIRONMENT.removesuffix(".py").replace("/", "."), None)  # to be registered again


@pytest.fixture
def workplace(tmp_path: Path, own_world: type, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, where every preset trains in a second."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    few_pictures(monkeypatch)
    for preset in ("two_rooms", "two_rooms_random", "point_maze", "point_maze_medium"):
        monkeypatch.setitem(PRESETS, preset, tiny)
    return tmp_path


def read_by(arguments: list[str], tiny_run: Path, workplace: Path) -> None:
    """Put the run or the comparison that a command reads where the command looks for it."""
    command, *rest = arguments
    if command not in ("evaluate", "imagine", "report"):
        return
    folder = workplace / rest[0]
    if rest[0].startswith("docs/"):
        shutil.copytree(ROOT / rest[0], folder)
    elif rest[0] == CART:
        set_quiet(True)
        words = [
            "train",
            "--env",
            f"examples.own_environment:{CART_ID}",
            "--task",
            f"{OWN_ENVIRONMENT}:hold_right",
            *QUICK,
        ]
        assert run_agent.main([*words, "--out", str(folder)]) == 0
    elif "box" in rest[0]:
        set_quiet(True)
        train_tiny(PRESETS["box"](), folder)
    elif command == "report" and rest[0] == "runs/ablation":
        shutil.copytree(ROOT / "docs" / "ablations" / "two_rooms_terms", folder)
    else:
        shutil.copytree(tiny_run, folder)


def test_the_two_commands_come_first():
    first = re.search(r"^```\w*\n(.*?)^```", README.read_text(), re.M | re.S)
    assert first and first[1] == "make run\nmake test\n"


def test_the_first_screen_has_picture_commands_and_results():
    """In this order, before anything else."""
    parts = re.findall(r"^(# |!\[|```|## \w+|\| what )", README.read_text(), re.M)
    assert parts[:6] == ["# ", "![", "```", "```", "## Results", "| what "]


def test_there_is_something_to_run():
    """Else the tests below would pass on nothing."""
    usage = ROOT / "docs" / "usage.md"
    run = {shlex.split(line)[2] for line in commands(usage)}
    assert run == {"train", "collect", "evaluate", "imagine", "ablate", "report", "check"}
    assert len(commands(README)) == 2
    assert {p.name: len(programs(p)) for p in PAGES if programs(p)} == {
        "extending.md": 2,
        "usage.md": 1,
        "worlds.md": 1,
    }


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


@pytest.mark.parametrize(
    ("path", "line"), [(p, line) for p in PAGES for line in commands(p)], ids=lambda x: getattr(x, "name", x)
)
def test_commands_run(path: Path, line: str, tiny_run: Path, workplace: Path):
    """Each command by itself, in a directory of its own that holds what it reads."""
    script, *arguments = shlex.split(line)[1:]
    assert script in ("run_agent.py", OWN_WORLD), line
    if "--launcher ray" in line:
        pytest.skip("tests/experiments/test_cluster.py runs this; here there may be no ray")
    if "minari" in line and importlib.util.find_spec("minari") is None:
        pytest.skip("needs the extra minari")
    read_by(arguments, tiny_run, workplace)
    if arguments[0] == "evaluate":
        arguments += ["--tasks", "4"] if "--episodes" not in arguments else ["--budget", "5"]
    if arguments[0] == "train" and "--env" in arguments:
        arguments += QUICK
    if CART_ID in line:  # as few as QUICK's
        arguments = ["learn.world_model_steps=3" if a.startswith("learn.") else a for a in arguments]
    else:
        arguments = [a for a in arguments if not re.match(r"learn\.\w+_steps=", a)]  # as few as the tiny preset's
    if arguments[0] == "ablate":
        arguments[arguments.index("--seeds") + 1] = "1"
        arguments += ["--tasks", "2"]
    assert run_agent.main(arguments) == 0, f"{path.name}: {line}"


@pytest.mark.parametrize(
    ("path", "code"), [(p, c) for p in PAGES for c in programs(p)], ids=lambda x: getattr(x, "name", "code")
)
def test_python_runs(path: Path, code: str, tiny_run: Path, workplace: Path, capsys: pytest.CaptureFixture):
    shutil.copytree(tiny_run, workplace / RUN)
    exec(compile(code, path.name, "exec"), {"__name__": "__main__"})


def test_the_own_world_keeps_every_promise(own_world: type):
    assert isinstance(own_world(), Simulator)
    check_env(gym.make("Box-v0").unwrapped, skip_render_check=True)
    assert [f for f in check(CheckArguments("Box-v0")) if f.result != "ok"] == []


# What is named


@cache
def defined(path: Path) -> set[str]:
    """Names at the top of a file, and Class.member of its classes: methods, fields and annotated attributes."""
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


def missing(span: str) -> str:
    """What does not exist of `path.py`, `path.py:function`, `path.py:Class.member` or `folder/`; "" if all does."""
    named = re.fullmatch(r"([\w./-]+\.py)(?::([\w.]+))?", span)
    if named is None:
        folder = re.fullmatch(r"((?:agent|modules|envs|tests|docs|examples)/[\w/]*)/", span)
        return "" if folder is None or (ROOT / folder[1]).is_dir() else "no such folder"
    file = ROOT / named[1]
    if not file.is_file():
        return "no such file"
    return "" if not named[2] or named[2] in defined(file) else f"no {named[2]} in it"


@page
def test_files_functions_and_methods_exist(path: Path):
    assert {span: found for span in spans(path) if (found := missing(span))} == {}


@pytest.mark.parametrize(
    "span",
    [
        "agent/nothing.py",
        "agent/nothing/",
        "agent/planning.py:nothing",
        "agent/agent.py:Agent.nothing",
        "agent/agent.py:act",
        "modules/types.py:Directive.but.changes",
    ],
)
def test_the_check_itself_finds_what_does_not_exist(span: str):
    assert missing(span)


def test_the_api_page_names_what_can_be_imported():
    for name in re.findall(r"^::: (.+)$", (ROOT / "docs" / "api.md").read_text(), re.M):
        module, _, last = name.rpartition(".")
        try:
            importlib.import_module(name)
        except ImportError:
            assert hasattr(importlib.import_module(module), last), name


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


def test_examples_are_included():
    included = {match[1] for path in PAGES for code in blocks(path, "python") if (match := EXAMPLE.fullmatch(code))}
    assert included == {"examples/own_drive.py", "examples/own_planner.py", OWN_WORLD, OWN_ENVIRONMENT}
    assert all((ROOT / file).is_file() for file in included)


def test_every_extension_point_is_described():
    """docs/extending.md names every test of tests/test_doors.py, and every Protocol of modules/types.py."""
    described = {span.partition(":")[2] for span in spans(ROOT / "docs" / "extending.md")}
    doors = {name for name in defined(ROOT / "tests" / "test_doors.py") if name.startswith("test_")}
    assert doors - described == {"test_every_door_test_is_short"}
    classes = [n for n in ast.parse((ROOT / "modules" / "types.py").read_text()).body if isinstance(n, ast.ClassDef)]
    protocols = {n.name for n in classes if any(isinstance(b, ast.Name) and b.id == "Protocol" for b in n.bases)}
    assert protocols - described == {"Embedding"}


def test_the_glossary_explains_each_word_once():
    rows = re.findall(r"^\| ([^|]+) \|.*\|$", (ROOT / "docs" / "glossary.md").read_text(), re.M)
    words = [word for row in rows if row not in ("word", "---") for word in row.split(", ")]
    assert len(words) == len(set(words)) > 60


def test_pages_are_in_the_navigation():
    listed = re.findall(r"^  - \w+: ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    assert sorted(listed) == sorted(p.name for p in (ROOT / "docs").glob("*.md"))


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
    # Two Rooms has no proprio, and the presets do not use these terms.
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
