"""Promises of evaluation: frozen tasks, honest intervals, reference controllers, an agent that is left as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agent.agent import Agent
from agent.build import load, memory_tensors, tensors
from agent.evaluation import evaluate, statistics
from agent.evaluation.oracle import OracleDynamics, perceive
from agent.evaluation.tasks import task_hash, task_list
from agent.interaction.driver import Transition
from agent.interaction.environment import make_simulator, open_environment
from envs.api import Tasks
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


class Path:
    """A listener that keeps where everybody was."""

    def __init__(self, environment) -> None:
        self.view, self.at = environment.view, []

    def __call__(self, step: Transition) -> None:
        if not self.at:
            self.at.append(self.view.positions(step.moment.info["state"]))
        self.at.append(self.view.positions(step.info["state"]))

    @property
    def path(self) -> np.ndarray:
        """(E, steps + 1, 2)."""
        return np.stack(self.at, 1)


ROOMS = open_environment("TwoRooms-v0", {})


@pytest.mark.parametrize("make", [tiny, tiny_maze])
def test_oracle_dynamics_are_the_perceived_truth(make):
    agent, environment = born(make())
    simulator, perception = environment.truth, agent.perception
    block, rng = agent.world_model.action_block, np.random.default_rng(0)
    states = simulator.reset(rng, 3)
    oracle = OracleDynamics(simulator, perception, block)
    oracle.states = states
    with torch.no_grad():
        start = perceive(perception, simulator, states)
        candidates = torch.from_numpy(rng.uniform(-1, 1, (3, 2, 3, block, 2)).astype(np.float32))
        imagined = oracle.rollout(start.map(lambda x: x.repeat_interleave(2, 0)), candidates.flatten(0, 1))
        assert imagined.actions is not None and torch.equal(imagined.actions, candidates.flatten(0, 1))
        found = imagined.states
        for e in range(3):
            for n in range(2):
                now = states[e : e + 1]
                for h in range(3):
                    for k in range(block):
                        now = simulator.step(now, candidates[e, n, h, k : k + 1].numpy(), None)
                    seen = perceive(perception, simulator, now)
                    assert torch.allclose(found.latent[2 * e + n, h], seen.latent[0], atol=1e-5)
                    assert torch.allclose(found.proprio[2 * e + n, h], seen.proprio[0], atol=1e-6)
                    np.testing.assert_array_equal(oracle.visited[2 * e + n, h], now[0])
        assert np.array_equal(oracle.states, states), "imagining does not move the environment"
        one = oracle.predict(start, candidates[:, 0, 0])
        assert torch.allclose(one.latent, found.latent[::2, 0], atol=1e-5)


def test_the_oracle_takes_the_place_of_the_model_where_the_agent_acts(trained_run, monkeypatch):
    agent = load(trained_run, "cpu")
    monkeypatch.setattr(evaluate, "decision_times", lambda *_: [1.0])
    monkeypatch.setattr(agent.world_model, "rollout", lambda *_: pytest.fail("the learned model was asked"))
    result, _ = evaluate.evaluate(agent, ROOMS, 2, 3, dynamics="oracle")
    assert result["dynamics"] == "oracle" and agent.level.world_model is agent.world_model


def test_reference_controllers_are_ordered_and_reproducible():
    tasks, _ = task_list(ROOMS.goals, 60)
    found = evaluate.reference(ROOMS, tasks, 60, 0)
    assert set(found) == {"random", "greedy", "expert"}
    assert found["random"] < 0.1 and found["greedy"] < 0.5 and found["expert"] > 0.95
    assert evaluate.reference(ROOMS, tasks, 60, 0) == found


def test_a_run_counts_steps_and_is_followed_by_listeners():
    start = np.array([[10.0, 30, 32, 18], [10.0, 30, 32, 18]])
    goal = np.array([[20.0, 30, 32, 18], [28.0, 50, 32, 18]])
    right = np.array([[2.0, 0.0]] * 2)
    seen = Path(ROOMS)
    result = evaluate.run(ROOMS, Tasks(start, goal), 9, lambda _: (right, None), 0, [seen])
    # 10 px ahead, within 4.5 from x > 15.5 on: three moves of 2 px; gone again from x >= 24.5 on: after nine.
    assert result.steps.tolist() == [3, -1] and result.success == 0.5
    assert result.success_final == 0.0, "it went on, past the goal"
    assert seen.path.shape == (2, 10, 2) and seen.path[0, :, 0].tolist() == [10.0 + 2 * t for t in range(10)]
    assert result.milliseconds == [], "who is no agent has no decision latency"


def test_evaluation_reports_what_it_was(trained_run):
    agent = load(trained_run, "cpu")
    found = []
    for _ in range(2):
        seen = Path(ROOMS)
        result, raw = evaluate.evaluate(
            agent, ROOMS, 4, 5, {"planner": "mppi"}, seed=3, watch=lambda _, seen=seen: seen
        )
        found.append((result, raw, seen.path))
    (result, raw, path), (again, other, same_path) = found
    assert set(result) >= KEYS and result["planner"] == "mppi" and result["n_tasks"] == 5 and result["mode"] == 2
    assert "reader_error" not in result, "nothing was read"
    assert (result["ci_low"], result["ci_high"]) == statistics.wilson(result["success"], 5)
    assert result["success"] == (raw.steps > 0).mean() and path.shape == (5, 5, 2)
    assert result["plan_ms_median"] > 0 and len(raw.milliseconds) > 0
    np.testing.assert_array_equal(path, same_path)
    assert again["task_steps"] == result["task_steps"] == other.steps.tolist()
    assert again["task_list_sha256"] == result["task_list_sha256"]


@pytest.mark.parametrize(
    "settings",
    [{}, {"changes": {"planner": "mppi", "samples": 5}}, {"changes": {"mode": 1}}, {"dynamics": "oracle"},
     {"cost": "true", "dynamics": "oracle"}],
    ids=str,
)  # fmt: skip
def test_evaluation_leaves_the_agent_as_it_was(trained_run, settings):
    """Its memory, generator, configurator, level, task and weights; and an episode under way goes on."""
    agent = load(trained_run, "cpu")
    observation = ROOMS.truth.observe(ROOMS.truth.reset(np.random.default_rng(0), 1))["pixels"][0]
    agent.set_goal(observation)
    agent.act(observation)
    parts = "configurator", "level", "generator", "memory", "task", "episode", "cost", "world_model", "actor"
    held = {name: getattr(agent, name) for name in parts}
    drawn, number = agent.generator.get_state(), agent.episode.number.copy()
    weights = {k: v.clone() for k, v in {**tensors(agent), **memory_tensors(agent)}.items()}
    moment = agent.episode.time.copy()
    evaluate.evaluate(agent, ROOMS, 3, 2, **settings)
    assert all(getattr(agent, name) is part for name, part in held.items())
    assert torch.equal(agent.generator.get_state(), drawn)
    after = {**tensors(agent), **memory_tensors(agent)}
    assert after.keys() == weights.keys() and [k for k in after if not torch.equal(after[k], weights[k])] == []
    assert agent.memory.size > 0
    np.testing.assert_array_equal(agent.episode.time, moment)
    np.testing.assert_array_equal(agent.episode.number, number)
    action, decision = agent.act(observation)
    other = load(trained_run, "cpu")
    other.set_goal(observation)
    other.act(observation)
    expected, _ = other.act(observation)
    np.testing.assert_array_equal(action, expected, "it goes on as if nothing had been")
    assert decision.time.tolist() == [1]


def test_acting_changes_what_was_asked_for_in_a_copy(trained_run):
    agent = load(trained_run, "cpu")
    acts, error = evaluate.acting(agent, ROOMS, 8, {"samples": 5, "planner": "mppi"}, seed=4)
    assert error is None and acts.agent is not agent
    acts.set_goals(task_list(ROOMS.goals, 1)[0].goal)
    observation = ROOMS.truth.observe(ROOMS.truth.reset(np.random.default_rng(0), 1))["pixels"]
    _, decision = acts.agent.act(observation)
    assert decision.directive.samples == 5 and decision.directive.planner == "mppi"
    agent.set_goal(observation)
    _, plain = agent.act(observation)
    assert plain.directive.samples == tiny().configurator.samples and plain.directive.planner != "mppi"
    assert acts.agent.memory is agent.memory and acts.agent.perception is agent.perception
    assert acts.agent.generator.initial_seed() == 4


def test_mode_1_is_reported_as_such(trained_run):
    agent = load(trained_run, "cpu")
    result, _ = evaluate.evaluate(agent, ROOMS, 3, 2, {"mode": 1})
    assert result["mode"] == 1 and agent.configurator.config.mode == 2


def test_the_horizon_that_is_reported_is_the_one_that_was_used(monkeypatch):
    """Without a critic plans look further: see the configurator."""
    config = tiny()
    agent, environment = born(config)
    monkeypatch.setattr(evaluate, "decision_times", lambda *_: [1.0])
    used = []
    original = agent.actor.search
    monkeypatch.setattr(agent.actor, "search", lambda s, d, g: (used.append(d.horizon), original(s, d, g))[1])
    result, _ = evaluate.evaluate(agent, environment, 1, 2)
    assert set(used) == {result["horizon"]} == {config.configurator.horizon_without_critic}


def test_tasks_are_done_in_batches_and_none_is_lost(monkeypatch):
    agent, environment = born(tiny())
    tasks, _ = task_list(environment.goals, 4)
    seen, looked = [], []
    original = Agent.act
    monkeypatch.setattr(Agent, "act", lambda self, o, first: (seen.append(len(o)), original(self, o, first))[1])
    monkeypatch.setattr(evaluate, "BATCH", 3)
    acts, _ = evaluate.acting(agent, environment, 2)
    result = evaluate.run_agent(acts, tasks, 2, 0, listener=lambda step: looked.append(len(step.action)))
    assert seen == [3, 3, 1, 1] and len(result.steps) == 4
    assert looked == [3, 3], "who looks on sees the first batch"


# Tasks of one's own


def test_tasks_of_ones_own_are_hashed_as_the_frozen_list_is():
    agent, environment = born(tiny_maze())
    listed, digest = task_list(environment.goals, 5)
    assert task_hash(listed) == digest == task_hash(Tasks(listed.start.copy(), listed.goal.copy()))
    by_number, raw = evaluate.evaluate(agent, environment, 3, 5)
    mine, same = evaluate.evaluate(agent, environment, 3, Tasks(listed.start, listed.goal))
    assert by_number["task_list_sha256"] == mine["task_list_sha256"] == digest
    assert by_number["task_steps"] == mine["task_steps"] and np.array_equal(raw.steps, same.steps)
    other = Tasks(listed.start[::-1].copy(), listed.goal[::-1].copy())
    changed, _ = evaluate.evaluate(agent, environment, 3, other)
    assert changed["task_list_sha256"] == task_hash(other) != digest and changed["n_tasks"] == 5


def test_a_hash_is_of_numbers_and_not_of_how_they_lie_in_memory():
    listed, digest = task_list(ROOMS.goals, 6)
    assert task_hash(Tasks(np.asfortranarray(listed.start), np.asfortranarray(listed.goal))) == digest
    assert task_hash(Tasks(listed.goal, listed.start)) != digest
    whole = Tasks(listed.start.round(), listed.goal.round())
    assert task_hash(Tasks(whole.start.astype(int), whole.goal.astype(int))) == task_hash(whole)
    moved = listed.goal.copy()
    moved[3, 1] = np.nextafter(moved[3, 1], np.inf)
    assert task_hash(Tasks(listed.start, moved)) != digest
