"""Promise: the imports go downwards only. Read from syntax trees, so nothing has to be imported.

TYPE_CHECKING imports count: a circle of types is a circle of responsibilities.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

WORDS = {"modules.types", "modules.actions", "modules.blocks"}
LEAVES = {"agent.errors", "agent.console", "agent.drawing", "agent.storage", "agent.evaluation.statistics"}
MIND = {"modules", "modules.drives", *WORDS}
WORLDS = {"envs", "envs.tasks"}
LAYERS: dict[str, set[str]] = {
    # The mind: one file per box of the paper's diagram; the boxes share words and nothing else.
    "modules.types": set(),
    "modules.actions": {"modules.types"},
    "modules.blocks": set(),
    "modules.drives": {"modules.types"},
    "modules": WORDS,
    # Worlds know nothing of the agent; the costs of known tasks are written in the words of the drives.
    "envs": set(),
    "envs.tasks": {"modules.drives"},
    # Leaves.
    "agent.errors": set(),
    "agent.console": {"agent.errors"},
    "agent.drawing": {"agent.errors"},
    "agent.storage": {"agent", "agent.errors", "agent.console", "agent.drawing"},
    "agent.evaluation.statistics": set(),
    # The life, from the bottom up.
    "agent.config": {"agent.errors", *MIND},
    "agent.presets": {"agent.config", "agent.errors", *MIND},
    "agent.spec": {"agent.errors", *MIND},
    "agent.planning": MIND,
    "agent.episode": MIND,
    "agent.agent": {"agent.episode", "agent.planning", "agent.spec", *MIND},
    "agent.build": {"agent.agent", "agent.config", "agent.spec", "envs.tasks", *LEAVES, *MIND},
    "agent.interaction": {"agent", "agent.config", "agent.spec", "agent.errors", "agent.storage", *WORLDS, *MIND},
}
LAYERS["agent.derive"] = {"agent.config", "agent.errors", "agent.interaction", "agent.presets", *WORLDS, *MIND}
LAYERS["agent.learning"] = {*LAYERS["agent.build"], "agent.build", "agent.planning", "agent.interaction", *WORLDS}
LAYERS["agent.evaluation"] = {*LAYERS["agent.learning"]}
LAYERS["agent.inspection"] = {*LAYERS["agent.evaluation"], "agent.derive", "agent.learning", "agent.evaluation"}
LAYERS["agent.report"] = {*LEAVES}
LAYERS["agent.experiments"] = {*LAYERS["agent.inspection"], "agent.inspection", "agent.report", "agent.presets"}
LAYERS["agent.cli"] = {*LAYERS["agent.experiments"], "agent.experiments", "agent.derive", "agent"}
LAYERS["agent"] = {"agent.agent", "agent.build"}
"""Room -> rooms that it may import, beside itself. A room is a folder or a file; the longest name that fits counts."""

OUTSIDE = {
    "modules": {"torch", "numpy", "jaxtyping"},
    "envs": {"numpy", "gymnasium", "mujoco", "PIL"},
    "envs.tasks": {"torch"},
    "agent.errors": {"torch"},
    "agent.presets": set(),
    "agent.evaluation.statistics": {"numpy"},
}
"""Packages that a room may import; others are not restricted."""


def imported(source: str) -> set[str]:
    """Dotted names of all modules that a source imports, wherever in it; `from a import b` gives a and a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where a name comes from"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@cache
def files() -> dict[str, Path]:
    """Every file of the product by dotted name."""
    return {
        ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p
        for folder in ("agent", "envs", "modules")
        for p in (ROOT / folder).rglob("*.py")
    }


@cache
def graph() -> dict[str, set[str]]:
    """The files of the product that each of them imports."""
    known = files()
    found: dict[str, set[str]] = {}
    for name, path in known.items():
        seen = imported(path.read_text())
        found[name] = {n for n in seen if n in known and not any(m.startswith(f"{n}.") for m in seen)} - {name}
    return found


def room(name: str) -> str:
    """The room of a file: the longest name of the table that it begins with."""
    return max((r for r in LAYERS if name == r or name.startswith(f"{r}.")), key=len)


def wrong(name: str, imports: set[str]) -> set[str]:
    """What a file imports from rooms that are not below its own."""
    mine = room(name)
    allowed = LAYERS[mine] | ({mine} if mine not in ("modules", "agent") else set())
    return {other for other in imports if room(other) not in allowed and not other == "modules"}


@pytest.mark.parametrize("name", sorted(files()))
def test_imports_go_downwards(name: str):
    assert wrong(name, graph()[name]) == set(), f"{name} is in {room(name)}"


def test_there_is_no_circle_of_imports():
    left = graph()
    while free := [name for name, imports in left.items() if not imports & left.keys()]:
        for name in free:
            del left[name]
    assert not left, f"these files import each other: {sorted(left)}"


def test_the_table_has_no_circle():
    left = dict(LAYERS)
    while free := [r for r, below in left.items() if not (below - {"agent", "modules"}) & left.keys() - {r}]:
        for r in free:
            del left[r]
    assert not left


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("modules.cost", "from modules.critic import Critic"),
        ("modules.planners", "from agent.errors import UserError"),
        ("agent.planning", "from agent.storage.run import Run"),
        ("agent.report.page", "from agent.inspection import gauges"),
        ("agent.learning.trainer", "from agent.inspection import watch"),
        ("envs.two_rooms", "import modules.types"),
        ("envs.names", "from modules.drives import Readings"),
        ("envs.tasks", "from modules.cost import Cost"),
    ],
)
def test_the_check_itself_sees_a_stranger(name: str, line: str):
    known = files()
    seen = {n for n in imported(f"def f():\n    {line}\n") if n in known}
    seen = {n for n in seen if not any(m.startswith(f"{n}.") for m in seen)}
    assert wrong(name, seen)


@pytest.mark.parametrize("name", sorted(files()))
def test_rooms_with_few_packages_have_no_more(name: str):
    allowed = OUTSIDE.get(room(name), OUTSIDE.get(room(name).split(".")[0]) if not name.startswith("agent") else None)
    if allowed is None:
        return
    roots = {n.split(".")[0] for n in imported(files()[name].read_text())}
    assert roots - sys.stdlib_module_names - {"agent", "envs", "modules"} <= allowed


def test_run_agent_imports_the_command_line_only():
    found = {
        n for n in imported((ROOT / "run_agent.py").read_text()) if n.split(".")[0] in ("agent", "envs", "modules")
    }
    assert all(
        n == "agent" or n.startswith(("agent.cli", "agent.console", "agent.errors", "agent.learning")) for n in found
    )


def loaded_by(statement: str) -> set[str]:
    """Modules in memory after a statement in a fresh interpreter."""
    code = f"import sys; {statement}; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_report_opens_without_what_made_the_numbers():
    assert not {"torch", "gymnasium", "matplotlib", "modules", "envs"} & loaded_by("import agent.report")


def test_naming_a_preset_loads_nothing_else_of_the_agent():
    loaded = {n for n in loaded_by("from agent.presets import two_rooms; two_rooms()") if n.startswith("agent.")}
    assert loaded == {"agent.config", "agent.presets", "agent.errors"}
