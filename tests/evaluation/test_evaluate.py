"""Promises of agent/evaluate.py: frozen tasks, honest intervals, reference, and an oracle that tells the truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agent.agent import Agent
from agent.evaluation import evaluate, statistics
from agent.evaluation.tasks import task_list
from agent.interaction.environment import as_tensors, make_simulator
from envs.api import Tasks
from envs.gym_env import as_observation
from envs.two_rooms import FIXED_LAYOUT
from tests.helpers import born, tiny, tiny_maze

FROZEN = {
    "TwoRooms-v0": "e3ce5b1ed1bf8884059760fb964fe990513d6d14e1b82ee49af97b23cca6f2ce",
    "TwoRoomsRandom-v0": "2a49f5bdf708f41f573cfdd19097da4179947b278506abaaff3c5899b7c33aee",
}
"""Whoever changes these makes every published number incomparable."""

KEYS = {
    "success", "success_final", "ci_low", "ci_high", "n_tasks", "task_list_sha256", "reference", "plan_ms_median",
    "seed",
}  # fmt: skip


@pytest.mark.parametrize("env", FROZEN)
def test_the_task_list_is_frozen(env):
    tasks, digest = task_list(make_simulator(env, {}), 200)
    assert len(tasks) == 200 and digest == FROZEN[env]
    assert task_list(make_simulator(env, {}), 200)[1] == digest


@pytest.mark.parametrize("env", ["TwoRooms-v0", "TwoRoomsRandom-v0", "PointMaze-v0"])
def test_a_shorter_list_is_the_beginning_of_a_longer_one(env):
    simulator = make_simulator(env, {})
    long, short = (task_list(simulator, n)[0] for n in (40, 7))
    np.testing.assert_array_equal(long.start[:7], short.start)
    np.testing.assert_array_equal(long.goal[:7], short.goal)


def test_no_task_has_a_layout_of_training():
    simulator = make_simulator("TwoRoomsRandom-v0", {})
    tasks, _ = task_list(simulator, 500)
    trained = simulator.reset(np.random.default_rng(0), 20_000)
    seen = {tuple(layout) for layout in trained[:, 2:]}
    asked = {tuple(layout) for layout in tasks.start[:, 2:]}
    assert len(seen) > 700 and len(asked) > 100 and not seen & asked
    np.testing.assert_array_equal(tasks.start[:, 2:], tasks.goal[:, 2:])


def test_the_fixed_world_has_tasks_in_its_only_layout():
    tasks, _ = task_list(make_simulator("TwoRooms-v0", {}), 50)
    assert {tuple(x) for x in tasks.start[:, 2:]} == {tuple(map(float, FIXED_LAYOUT))}
    assert ((tasks.start[:, 0] < FIXED_LAYOUT[0]) != (tasks.goal[:, 0] < FIXED_LAYOUT[0])).all(), "in different rooms"


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        (5, 10, 0.2366, 0.7634),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (194, 200, 0.9361, 0.9862),
        (1, 1, 0.2065, 1.0),
    ],
)  # fmt: skip
def test_wilson_against_published_values(k, n, low, high):
    assert statistics.wilson(k / n, n) == pytest.approx((low, high), abs=1e-4)


def test_wilson_contains_the_share_and_stays_in_bounds():
    for n in (1, 7, 200):
        for k in range(n + 1):
            low, high = statistics.wilson(k / n, n)
            assert 0 <= low <= k / n <= high + 1e-12 and high <= 1


@pytest.mark.parametrize("make", [tiny, tiny_maze])
def test_oracle_dynamics_are_the_perceived_truth(make):
    agent, simulator = born(make())
    block, rng = agent.world_model.action_block, np.random.default_rng(0)
    states = simulator.reset(rng, 3)
    oracle = evaluate.OracleDynamics(simulator, agent.perception, block)
    oracle.states = states
    start = agent.perception.encode(as_tensors(as_observation(simulator.observe(states))))
    candidates = torch.from_numpy(rng.uniform(-1, 1, (3, 2, 3, block, 2)).astype(np.float32))
    found = oracle.rollout(start.map(lambda x: x.repeat_interleave(2, 0)), candidates.flatten(0, 1))
    for e in range(3):
        for n in range(2):
            now = states[e : e + 1]
            for h in range(3):
                for k in range(block):
                    now = simulator.step(now, candidates[e, n, h, k : k + 1].numpy(), None)
                seen = agent.perception.encode(as_tensors(as_observation(simulator.observe(now))))
                assert torch.allclose(found.latent[2 * e + n, h], seen.latent[0], atol=1e-5)
                assert torch.allclose(found.proprio[2 * e + n, h], seen.proprio[0], atol=1e-6)
    assert np.array_equal(oracle.states, states), "imagining does not move the world"
    one = oracle.predict(start, candidates[:, 0, 0])
    assert torch.allclose(one.latent, found.latent[::2, 0], atol=1e-5)


def test_the_oracle_takes_the_place_of_the_model_and_gives_it_back(trained_run, monkeypatch):
    agent = Agent.load(trained_run, "cpu")
    simulator = make_simulator("TwoRooms-v0", {})
    monkeypatch.setattr(evaluate, "decision_times", lambda *_: [1.0])
    monkeypatch.setattr(agent.world_model, "rollout", lambda *_: pytest.fail("the learned model was asked"))
    monkeypatch.setattr(agent.world_model, "predict", lambda *_: pytest.fail("the learned model was asked"))
    result, _ = evaluate.evaluate(agent, simulator, 2, 3, dynamics="oracle")
    assert result["dynamics"] == "oracle" and agent.dynamics is agent.world_model


def test_floors_are_ordered_and_reproducible():
    simulator = make_simulator("TwoRooms-v0", {})
    tasks, _ = task_list(simulator, 60)
    found = evaluate.reference(simulator, tasks, 60, 0)
    assert set(found) == {"random", "greedy", "expert"}
    assert found["random"] < 0.1 and found["greedy"] < 0.5 and found["expert"] > 0.95
    assert evaluate.reference(simulator, tasks, 60, 0) == found


def test_roll_counts_steps_and_positions():
    simulator = make_simulator("TwoRooms-v0", {})
    start = np.array([[10.0, 30, 32, 18], [10.0, 30, 32, 18]])
    goal = np.array([[20.0, 30, 32, 18], [28.0, 50, 32, 18]])
    right = np.array([[2.0, 0.0]] * 2)
    result = evaluate.roll(simulator, Tasks(start, goal), 9, lambda s, g, t: right, 0)
    # 10 px ahead, within 4.5 from x > 15.5 on: three moves of 2 px; gone again from x >= 24.5 on: after nine.
    assert result.steps.tolist() == [3, -1] and result.success == 0.5
    assert result.success_final == 0.0, "it went on, past the goal"
    assert result.path.shape == (2, 10, 2) and result.path[0, :, 0].tolist() == [10.0 + 2 * t for t in range(10)]


def test_evaluation_reports_and_restores(trained_run):
    agent = Agent.load(trained_run, "cpu")
    simulator = make_simulator("TwoRooms-v0", {})
    settings = agent.configurator.config
    result, raw = evaluate.evaluate(agent, simulator, 4, 5, {"planner": "mppi"}, seed=3)
    assert set(result) >= KEYS and result["planner"] == "mppi" and result["n_tasks"] == 5 and result["mode"] == 2
    assert agent.configurator.config is settings
    assert (result["ci_low"], result["ci_high"]) == statistics.wilson(result["success"], 5)
    assert result["success"] == (raw.steps > 0).mean() and raw.path.shape == (5, 5, 2)
    assert result["plan_ms_median"] > 0 and len(raw.milliseconds) > 0
    again, other = evaluate.evaluate(agent, simulator, 4, 5, {"planner": "mppi"}, seed=3)
    np.testing.assert_array_equal(raw.path, other.path)
    assert again["task_list_sha256"] == result["task_list_sha256"]


def test_mode_1_is_reported_as_such(trained_run):
    agent = Agent.load(trained_run, "cpu")
    result, _ = evaluate.evaluate(agent, make_simulator("TwoRooms-v0", {}), 3, 2, {"mode": 1})
    assert result["mode"] == 1 and agent.configurator.config.mode == 2


def test_the_horizon_that_is_reported_is_the_one_that_was_used(monkeypatch):
    """Without a critic plans look further: see the configurator."""
    config = tiny()
    agent, simulator = born(config)
    monkeypatch.setattr(evaluate, "decision_times", lambda *_: [1.0])
    used = []
    original = agent.actor.search
    monkeypatch.setattr(agent.actor, "search", lambda s, d: (used.append(d.horizon), original(s, d))[1])
    result, _ = evaluate.evaluate(agent, simulator, 1, 2)
    assert set(used) == {result["horizon"]} == {config.configurator.horizon_without_critic}


def test_tasks_are_done_in_batches_and_none_is_lost(monkeypatch):
    agent, simulator = born(tiny())
    tasks, _ = task_list(simulator, 4)
    seen = []
    original = Agent.act
    monkeypatch.setattr(Agent, "act", lambda self, o: (seen.append(len(o)), original(self, o))[1])
    monkeypatch.setattr(evaluate, "BATCH", 3)
    result = evaluate.run_agent(agent, simulator, tasks, 2, 0)
    assert seen == [3, 3, 1, 1] and len(result.steps) == 4 and result.path.shape == (4, 3, 2)
