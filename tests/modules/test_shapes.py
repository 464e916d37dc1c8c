"""The shapes in annotations are checked where the import hook is installed, and cost nothing elsewhere."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
import torch
from jaxtyping import TypeCheckError, install_import_hook

from modules.actions import BoxActions
from tests.shapes import CHECKER

Load = Callable[[str], ModuleType]


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Loads a second copy of a module, with its annotations enforced."""

    def load(name: str) -> ModuleType:
        package, _, short = name.rpartition(".")
        monkeypatch.setattr(sys.modules[package], short, sys.modules[name])
        monkeypatch.delitem(sys.modules, name)
        return importlib.import_module(name)

    with install_import_hook(["modules.losses", "modules.planners"], CHECKER):
        yield load


def test_a_missing_axis_is_refused(checked: Load):
    losses = checked("modules.losses")
    assert losses.temporal(torch.zeros(2, 3, 4)).shape == ()
    with pytest.raises(TypeCheckError, match="temporal"):
        losses.temporal(torch.zeros(3, 4))


def test_integers_are_refused_where_floats_are_declared(checked: Load):
    with pytest.raises(TypeCheckError):
        checked("modules.losses").variance(torch.zeros(4, 3, dtype=torch.int64))


def test_axes_of_one_name_must_agree(checked: Load):
    planners = checked("modules.planners")
    space = BoxActions((-1.0,), (1.0,))
    start = torch.zeros(2, 3, 4, 1)
    search = planners.PLANNERS["cem"](planners.Config(), space, start, 8, 2, torch.Generator().manual_seed(0))
    candidates = search.ask()
    search.tell(candidates, torch.rand(2, 8))
    with pytest.raises(TypeCheckError):
        search.tell(candidates, torch.rand(2, 7))
    with pytest.raises(TypeCheckError):
        search.tell(candidates, torch.rand(8))


def test_a_wrong_result_is_refused(checked: Load):
    """The shape of what a function returns is checked as well."""
    planners = checked("modules.planners")
    start = torch.zeros(2, 3, 4, 1)
    search = planners.PLANNERS["random"](
        planners.Config(), BoxActions((-1.0,), (1.0,)), start, 1, 1, torch.Generator().manual_seed(0)
    )
    assert search.ask().shape == (2, 1, 3, 4, 1)
    search.candidates = start
    with pytest.raises(TypeCheckError, match="return"):
        search.ask()


def test_modules_need_no_jaxtyping(monkeypatch: pytest.MonkeyPatch):
    """It is a package for tests: without it the annotations are never looked at."""
    for name in ("modules.types", "modules.losses", "modules.planners"):
        monkeypatch.setattr(sys.modules["modules"], name.rpartition(".")[2], sys.modules[name])
        monkeypatch.delitem(sys.modules, name)
    hooks = [finder for finder in sys.meta_path if type(finder).__module__.startswith("jaxtyping")]
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if finder not in hooks])
    monkeypatch.setitem(sys.modules, "jaxtyping", None)
    losses = importlib.import_module("modules.losses")
    importlib.import_module("modules.planners")
    assert losses.temporal(torch.zeros(2, 3, 4)).shape == ()
