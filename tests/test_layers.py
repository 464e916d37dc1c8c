"""Promise: the import graph is the paper's diagram. Read from syntax trees, so nothing has to be imported."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = {"agent", "envs", "modules", "run_agent", "tests"}
MODULES = sorted((ROOT / "modules").glob("*.py"))


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


def roots(source: str) -> set[str]:
    return {name.split(".")[0] for name in imported(source)}


def strangers(source: str) -> set[str]:
    """What a module imports that it must not: all but modules.types, torch, jaxtyping and the standard library."""
    return {
        name
        for name in imported(source)
        if not (
            name.split(".")[0] in sys.stdlib_module_names | {"torch", "jaxtyping"}
            or (name == "modules" and "modules.types" in imported(source))
            or name.startswith("modules.types")
        )
    }


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.name)
def test_a_module_imports_types_and_torch_only(path: Path):
    assert strangers(path.read_text()) == set()


def test_types_imports_no_other_module():
    assert not roots((ROOT / "modules" / "types.py").read_text()) & OURS


@pytest.mark.parametrize("path", sorted((ROOT / "envs").glob("*.py")), ids=lambda p: p.name)
def test_envs_know_neither_agent_nor_modules(path: Path):
    assert not roots(path.read_text()) & OURS - {"envs"}


@pytest.mark.parametrize("path", sorted((ROOT / "agent").rglob("*.py")), ids=lambda p: p.name)
def test_agent_does_not_import_the_command_line(path: Path):
    assert not roots(path.read_text()) & {"run_agent", "tests"}


def test_run_agent_imports_agent_only():
    found = roots((ROOT / "run_agent.py").read_text()) - sys.stdlib_module_names - {"__future__"}
    assert found == {"agent"}


@pytest.mark.parametrize(
    "line", ["from modules.cost import Costs", "import modules.cost", "import numpy", "from agent import run"]
)
def test_the_check_itself_sees_a_stranger(line: str):
    assert strangers(f"from modules.types import State\ndef f():\n    {line}\n")


def graph() -> dict[str, set[str]]:
    """Every file of the product by dotted name, and the files that it imports, wherever in it."""
    files = {
        ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p
        for folder in ("agent", "envs", "modules")
        for p in (ROOT / folder).rglob("*.py")
    }
    found = {}
    for name, path in files.items():
        seen = imported(path.read_text())
        found[name] = {n for n in seen if n in files and not any(m.startswith(f"{n}.") for m in seen)} - {name}
    return found


def test_there_is_no_circle_of_imports():
    """TYPE_CHECKING imports count: a circle of types is a circle of responsibilities."""
    left = graph()
    while free := [name for name, imports in left.items() if not imports & left.keys()]:
        for name in free:
            del left[name]
    assert not left, f"these files import each other: {sorted(left)}"
