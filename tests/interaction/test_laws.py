"""What an environment must offer is its laws: reset, step, observe. Everything else is an optional capability."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import envs
import run_agent
from agent.build import build, load
from agent.errors import UserError
from agent.evaluation.evaluate import evaluate
from agent.evaluation.tasks import reference_controllers
from agent.inspection import gauges, imagination
from agent.interaction.environment import of_simulator, open_environment
from agent.interaction.explore import explore
from agent.storage.run import Run
from envs import SIMULATORS, PointMaze, Simulator, TwoRooms
from envs.api import Array, Expert, Factors, Goals, Percepts, Scenes, Tasks, View
from tests.helpers import tiny_maze, train_tiny

NAME = "Laws-v0"


class Laws:
    """A dot on a ring that is pushed; only the laws, and no more."""

    action_low = np.array([-1.0], np.float32)
    action_high = np.array([1.0], np.float32)
    pixel_shape = None
    sensor_low = np.array([-1.0, -1.0], np.float32)
    sensor_high = np.array([1.0, 1.0], np.float32)

    def reset(self, rng: np.random.Generator, n: int) -> Array:
        return rng.uniform(-np.pi, np.pi, (n, 1))

    def step(self, states: Array, actions: NDArray, rng: np.random.Generator | None) -> Array:
        return states + 0.2 * np.asarray(actions, np.float64)

    def observe(self, states: Array) -> Percepts:
        return {"sensors": np.concatenate([np.cos(states), np.sin(states)], 1).astype(np.float32)}


@pytest.fixture
def laws():
    envs.register(NAME, Laws)
    yield open_environment(NAME, {})
    gym.registry.pop(NAME)
    SIMULATORS.pop(NAME)


def config():
    return dataclasses.replace(tiny_maze(), env=NAME, env_options=())


def test_the_laws_are_enough_to_open_it(laws):
    assert isinstance(laws.truth, Simulator)
    assert not isinstance(laws.truth, Goals | Scenes | Expert | View | Factors)
    assert laws.goals is laws.scenes is laws.expert is laws.view is laws.factors is None and not laws.has_scenes
    assert laws.spec.observation.sensor_low == (-1.0, -1.0) and laws.spec.observation.proprio_names == ()
    assert laws.spec.actions.size == 1
    for env in (gym.make(NAME), gym.make_vec(NAME, 2, vectorization_mode="vector_entry_point")):
        env.reset(seed=0)
        info = env.step(env.action_space.sample())[-1]
        assert not np.any(info["success"]), "an environment without goals has none that is reached"


def test_the_laws_are_enough_to_explore(laws):
    replay = explore(config().collect, laws, 4, seed=0)
    assert replay.sensors is not None and replay.states is not None
    assert replay.positions is None and replay.factors is None and replay.pixels is None
    assert (replay.scene == 0).all(), "without scenes every state may lead to every other"
    now = replay.states[:, 0]
    for k in range(4):
        now = Laws().step(now, replay.actions[:, 0, k].numpy(), None)
    np.testing.assert_array_equal(now, replay.states[:, 1])


def test_the_laws_are_enough_to_train(laws, tmp_path: Path):
    summary = train_tiny(config(), tmp_path / "run")
    assert summary["env"] == NAME
    agent = load(tmp_path / "run", "cpu")
    agent.set_goal(np.array([1.0, 0.0], np.float32))
    action, decision = agent.act(np.array([0.0, 1.0], np.float32))
    assert action.shape == (1,) and decision.mode == 2 and torch.isfinite(decision.cost.energy).all()
    found = gauges.measure(agent, explore(config().collect, laws, 4, seed=1), laws, count=40)
    assert np.isfinite([*found.values()]).all() and not any("position" in k or "probe/" in k for k in found)


def test_evaluation_is_refused_with_one_clear_message(laws, tmp_path: Path):
    train_tiny(config(), tmp_path / "run")
    agent = load(tmp_path / "run", "cpu")
    with pytest.raises(UserError, match=r"^Laws-v0 offers no tasks: .*as a Simulator .*agent\.build\.load\(run\)$"):
        evaluate(agent, laws, 4, 5)
    with pytest.raises(UserError, match=r"^Laws-v0 is a Simulator without tasks or without a map: .*Goals and View"):
        imagination.imagine(agent, config(), laws, Run.open(tmp_path / "run"))


class WithGoals(Laws):
    """Tasks, but neither a map nor an expert."""

    success_radius = 0.3

    def sample_tasks(self, rng: np.random.Generator, n: int) -> Tasks:
        start = self.reset(rng, n)
        return Tasks(start, start + 2)

    def success(self, states: Array, goals: Array) -> NDArray[np.bool_]:
        return np.abs(np.sin((states - goals) / 2))[:, 0] < np.sin(self.success_radius / 2)


@pytest.fixture
def goals_only():
    envs.register("Goals-v0", WithGoals)
    yield open_environment("Goals-v0", {})
    gym.registry.pop("Goals-v0")
    SIMULATORS.pop("Goals-v0")


def test_goals_alone_are_enough_to_evaluate(goals_only, tmp_path: Path, capsys):
    """Without a view there is no recording and no distance, without an expert no upper bound."""
    train_tiny(dataclasses.replace(config(), env="Goals-v0"), tmp_path / "run")
    command = ["evaluate", str(tmp_path / "run"), "--tasks", "3", "--budget", "8", "--json"]
    assert run_agent.main(command) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(result["reference"]) == {"random"} and result["task_distance"] == [] and result["n_tasks"] == 3
    assert not [*(tmp_path / "run").glob("recording-*")]


@pytest.mark.parametrize("dynamics", ["learned", "oracle"])
def test_the_true_cost_without_an_expert_is_refused(goals_only, dynamics):
    agent = build(dataclasses.replace(config(), env="Goals-v0"), goals_only.spec)
    with pytest.raises(UserError, match=r"needs an expert.*Goals-v0 has none: write expert_action"):
        evaluate(agent, goals_only, 4, 2, dynamics=dynamics, cost="true")
    evaluate(agent, goals_only, 4, 2, dynamics="oracle")


def test_without_an_expert_random_is_the_only_reference(laws):
    assert set(reference_controllers(laws, 0)) == {"random"}
    maze = of_simulator("PointMaze-v0", PointMaze())
    assert set(reference_controllers(maze, 0)) == {"random", "greedy", "expert"}


@pytest.mark.parametrize("simulator", [TwoRooms(), PointMaze()], ids=lambda s: type(s).__name__)
def test_environments_of_this_project_have_all_capabilities(simulator):
    environment = of_simulator("Mine-v0", simulator)
    for capability in ("truth", "goals", "scenes", "expert", "view", "factors"):
        assert getattr(environment, capability) is simulator
    assert environment.make(3).num_envs == 3


def test_the_wrong_option_and_the_wrong_name_are_named():
    with pytest.raises(UserError, match=r"PointMaze-v0 cannot be made with options .*layuot"):
        open_environment("PointMaze-v0", {"layuot": "u"})
    with pytest.raises(UserError, match=r"PointMaz-v0.*PointMaze-v0"):
        open_environment("PointMaz-v0", {})
