"""Every file of examples/ runs, with settings that take seconds."""

from __future__ import annotations

import importlib.util
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch

import run_agent
from agent import build
from agent.cli.task_file import load_task, with_drives
from agent.inspection.check import CheckArguments, check
from agent.interaction.environment import open_environment
from agent.presets import PRESETS
from envs import SIMULATORS, Simulator
from modules.actions import BoxActions
from modules.drives import DRIVES
from modules.planners import PLANNERS, Config
from modules.types import Imagined, State
from tests.helpers import tiny, tiny_maze, train_tiny

FOLDER = Path(__file__).resolve().parents[2] / "examples"


def load(name: str) -> ModuleType:
    """An example as a module, without its command."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Registers as they were before the example."""
    known = [SIMULATORS, PLANNERS, PRESETS, DRIVES, gym.registry]
    before = [dict(register) for register in known]
    yield
    for register, old in zip(known, before, strict=True):
        register.clear()
        register.update(old)


def test_every_example_has_a_test():
    text = Path(__file__).read_text()
    examples = sorted(path.stem for path in FOLDER.glob("*.py"))
    assert examples == ["minimal_agent", "own_drive", "own_environment", "own_planner", "own_world"]
    assert all(f'load("{name}")' in text for name in examples)


def test_own_environment(tmp_path: Path, restored: None, monkeypatch: pytest.MonkeyPatch):
    """It can be trained in, its task reads sensors that it has, and an agent learns to predict it."""
    monkeypatch.setitem(sys.modules, "own_environment", load("own_environment"))  # as --env imports it
    assert [f for f in check(CheckArguments("Cart-v0")) if f.result != "ok"] == []
    environment, task = open_environment("Cart-v0", {}), f"{FOLDER / 'own_environment.py'}:hold_right"
    load_task(task)
    assert environment.spec.observation.sensor_names == ("position", "speed", "ended") and environment.seconds == 0.1
    config = with_drives(tiny_maze(env="Cart-v0", env_options=()), (task,), environment)
    assert train_tiny(config, tmp_path / "run")["drives"] == [task]


def test_minimal_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    example = load("minimal_agent")
    monkeypatch.setattr(example, "debug", tiny)
    assert example.main(tmp_path / "run") in (True, False)
    out = capsys.readouterr().out
    assert "goal reached:" in out and "mode 2" in out
    assert len((FOLDER / "minimal_agent.py").read_text().splitlines()) <= 40


def test_own_world_is_sound(restored: None):
    box = load("own_world").Box()
    assert isinstance(box, Simulator)
    assert [f for f in check(CheckArguments("Box-v0")) if f.result != "ok"] == []


def test_own_world_is_trained_in_and_evaluated(restored: None, tmp_path: Path, capfd: pytest.CaptureFixture):
    preset = load("own_world") and PRESETS["box"]()
    assert (preset.env, preset.env_options) == ("Box-v0", ())
    train_tiny(tiny_maze(env=preset.env, env_options=()), tmp_path / "run")
    assert run_agent.main(["evaluate", str(tmp_path / "run"), "--tasks", "4", "--json"]) == 0
    assert json.loads(capfd.readouterr().out.splitlines()[-1])["n_tasks"] == 4


def test_own_planner_searches(restored: None):
    """It finds the minimum of a bowl, one for each episode, inside the action space."""
    load("own_planner")
    space = BoxActions((-1.0, -2.0), (1.0, 2.0))
    target = torch.tensor([[0.4, -1.0], [-0.7, 1.5]])[:, None, None, None]
    search = PLANNERS["halving"](Config(), space, torch.zeros(2, 1, 4, 2), 200, 6, torch.Generator().manual_seed(0))
    energies = []
    for _ in range(6):
        candidates = search.ask()
        assert bool((space.project(candidates) == candidates).all())
        search.tell(candidates, (candidates - target).square().flatten(2).sum(2))
        energies.append(search.best().energy)
    assert all(bool((b <= a).all()) for a, b in itertools.pairwise(energies))
    assert torch.allclose(search.best().actions, target[:, 0].expand(2, 1, 4, 2), atol=0.05)


def test_own_planner_plans_for_an_agent(restored: None, tmp_path: Path):
    train_tiny(load("own_planner").halving(tiny()), tmp_path / "run")
    agent, env = build.load(tmp_path / "run"), gym.make("TwoRooms-v0")
    observation, _ = env.reset(seed=0)
    agent.set_goal(env.unwrapped.goal_observation())  # type: ignore[attr-defined]
    assert agent.act(observation)[1].directive.planner == "halving"


def test_own_drive_measures_changes_of_action(restored: None):
    smoothness = load("own_drive").smoothness
    body = SimpleNamespace(actions=BoxActions((-2.0, -2.0), (2.0, 2.0)))
    held = torch.ones(1, 5, 3, 4, 2)
    jerk = held * torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None]
    states = State(torch.zeros(1, 5, 3, 8), torch.zeros(1, 5, 3, 0))
    cost = [smoothness(Imagined(states, a), None, body) for a in (held, jerk, None)]
    assert all(c.shape == (1, 5, 3) for c in cost)
    assert not cost[0].any() and not cost[2].any() and np.isclose(float(cost[1][0, 0, 1]), 1.0)


def test_own_drive_is_part_of_the_energy(restored: None, tmp_path: Path):
    train_tiny(load("own_drive").smooth(tiny()), tmp_path / "run")
    agent, env = build.load(tmp_path / "run"), gym.make("TwoRooms-v0")
    observation, _ = env.reset(seed=0)
    agent.set_goal(env.unwrapped.goal_observation(), weights={"smoothness": 0.0})  # type: ignore[attr-defined]
    decision = agent.act(observation)[1]
    assert decision.directive.weights["smoothness"] == pytest.approx(0.2), "the floor holds"
    assert decision.plan_cost is not None and "smoothness" in decision.plan_cost.drives
