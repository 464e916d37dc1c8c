"""Oracles in place of what is learned: the true cost is the way that is really left, read out of imagined states."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

import envs
from agent.agent import Agent
from agent.evaluation.evaluate import acting, evaluate, run
from agent.evaluation.oracle import OracleDynamics, StateReader, TrueCost, fit_reader, perceive
from agent.evaluation.tasks import reference_controllers, task_list
from agent.interaction.environment import Environment, open_environment
from envs import SIMULATORS, TwoRooms
from envs.api import Array, Percepts, Tasks
from modules import perception
from modules.types import Cost, Imagined, Observation, State
from tests.helpers import born, directive_for, tiny, tiny_maze

BLOCK = 4


class SensedRooms(TwoRooms):
    """Two Rooms for a perfect perception: the physical state itself is what is sensed."""

    pixel_shape = None
    sensor_low = np.array([4, 4, 20, 10], np.float32)
    sensor_high = np.array([60, 60, 45, 55], np.float32)

    def observe(self, states: Array) -> Percepts:
        return {"sensors": states.astype(np.float32)}


def sensed(random_wall: bool):
    """A configuration whose latent is the raw state."""
    name = f"SensedRooms{'Random' * random_wall}-v0"
    return dataclasses.replace(tiny_maze(), env=name, env_options=(), perception=perception.Config(latent="raw"))


@pytest.fixture(scope="module", params=[False, True], ids=["one scene", "many scenes"])
def rooms(request) -> Iterator[tuple[Agent, Environment, StateReader, float]]:
    """An agent that perceives perfectly, its environment, and a reader fitted to it."""
    config = sensed(request.param)
    envs.register(config.env, lambda: SensedRooms(request.param))
    agent, environment = born(config)
    yield agent, environment, *fit_reader(agent.perception, environment)
    gym.registry.pop(config.env)
    SIMULATORS.pop(config.env)


def expert_steps(environment: Environment, state: Array, goal: Array, limit: int = 200) -> int:
    """Primitive actions of the expert from one state to one goal, (S,) each."""
    at, steps = state[None], 0
    while steps < limit and not environment.goals.success(at, goal[None])[0]:
        at = environment.truth.step(at, environment.expert.expert_action(at, goal[None]), None)
        steps += 1
    return steps


def expected_energy(reached: list[bool], left: int, gamma: float) -> float:
    """1 for each step but the last that does not end at the goal, then the discounted blocks that are left."""
    blocks = left / BLOCK
    return float(sum(not r for r in reached[:-1]) + gamma ** len(reached) * (1 - gamma**blocks) / (1 - gamma))


# The reader


def test_states_are_read_to_within_two_pixels_where_perception_is_perfect(rooms):
    agent, environment, reader, error = rooms
    assert error < 2.0
    states = environment.truth.reset(np.random.default_rng(77), 500)
    read = reader.read(perceive(agent.perception, environment.truth, states))
    distance = np.linalg.norm(read[:, :2] - states[:, :2], axis=1)
    assert distance.mean() == pytest.approx(error, rel=0.5) and np.quantile(distance, 0.99) < 2.0


def test_the_error_is_of_states_that_the_reader_was_not_fitted_on():
    """A perception that sees nothing is read as the mean, whatever it was fitted on."""
    agent, environment = born(tiny())
    for p in agent.perception.parameters():
        torch.nn.init.zeros_(p)
    _, error = fit_reader(agent.perception, environment)
    assert 15 < error < 30


def test_the_error_is_in_the_result(monkeypatch):
    agent, environment = born(tiny_maze())
    told, _ = evaluate(agent, environment, 2, 2, cost="true")
    assert 0 < told["reader_error"] < 1.0, "in units of the maze"
    exact, _ = evaluate(agent, environment, 2, 2, dynamics="oracle", cost="true")
    assert "reader_error" not in exact, "where the simulator imagines nothing has to be read"


def test_the_reader_depends_on_its_seed_only_and_leaves_the_random_numbers_of_others(monkeypatch):
    monkeypatch.setattr("agent.evaluation.oracle.READER_STATES", 600)
    monkeypatch.setattr("agent.evaluation.oracle.READER_STEPS", 20)
    agent, environment = born(tiny_maze())
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = fit_reader(agent.perception, environment, 0)[1]
    assert torch.equal(torch.rand(3), expected)
    again, other = (fit_reader(agent.perception, environment, seed)[1] for seed in (0, 1))
    assert first == again != other


# The true cost


@pytest.mark.parametrize("make", [tiny, tiny_maze])
def test_the_true_cost_is_the_way_that_the_expert_still_needs(make):
    agent, environment = born(make())
    tasks = environment.goals.sample_tasks(np.random.default_rng(0), 3)
    oracle = OracleDynamics(environment.truth, agent.perception, BLOCK)
    cost = TrueCost(environment, BLOCK, 200, oracle)
    assert isinstance(cost, Cost)
    oracle.states, cost.goals = tasks.start, tasks.goal
    state = perceive(agent.perception, environment.truth, tasks.start)
    directive = directive_for(agent, None)
    found = cost.state(state, directive)
    for e in range(3):
        steps = expert_steps(environment, tasks.start[e], tasks.goal[e])
        assert found.energy[e].item() == pytest.approx(expected_energy([False], steps, directive.discount), rel=1e-5)
    candidates = torch.from_numpy(np.random.default_rng(1).uniform(-1, 1, (3, 2, 3, BLOCK, 2)).astype(np.float32))
    states = oracle.rollout(state.map(lambda x: x.repeat_interleave(2, 0)), candidates.flatten(0, 1))
    found = cost.trajectory(states.map(lambda x: x.unflatten(0, (3, 2))), directive)
    assert found.energy.shape == (3, 2)
    for e, n in np.ndindex(3, 2):
        path = oracle.visited[2 * e + n]
        reached = environment.goals.success(path, np.repeat(tasks.goal[e : e + 1], 3, 0)).tolist()
        steps = expert_steps(environment, path[-1], tasks.goal[e])
        expected = expected_energy(reached, steps, directive.discount)
        assert found.energy[e, n].item() == pytest.approx(expected, rel=1e-5)
        assert found.drives["goal"][e, n].tolist() == [float(not r) for r in reached[:-1]] + [0.0]


def test_the_expert_walks_from_the_states_that_were_read(rooms):
    """Not from landmarks that look like them: each imagined state is judged where the reader puts it."""
    agent, environment, reader, _ = rooms
    tasks = environment.goals.sample_tasks(np.random.default_rng(3), 4)
    cost = TrueCost(environment, BLOCK, 200, reader=reader)
    cost.goals = tasks.goal
    rng, directive = np.random.default_rng(5), directive_for(agent, None)
    true = environment.truth.reset_within_scene(rng, np.repeat(tasks.goal, 6, 0))
    states = perceive(agent.perception, environment.truth, true).map(lambda x: x.view(4, 2, 3, -1))
    found = cost.trajectory(Imagined(states, None), directive)
    read = reader.read(states)
    read[..., 2:] = tasks.goal[:, None, None, 2:]  # the scene of an episode is known
    for e, n in np.ndindex(4, 2):
        reached = environment.goals.success(read[e, n], np.repeat(tasks.goal[e : e + 1], 3, 0)).tolist()
        steps = expert_steps(environment, read[e, n, -1], tasks.goal[e])
        assert found.energy[e, n].item() == pytest.approx(expected_energy(reached, steps, directive.discount), rel=1e-4)


def test_a_wall_between_two_near_places_is_not_read_over(rooms):
    """Landmarks were a few pixels apart, so that a state beside the wall could be read as one behind it."""
    agent, environment, reader, _ = rooms
    goal = environment.goals.sample_tasks(np.random.default_rng(3), 1).goal
    cost = TrueCost(environment, BLOCK, 200, reader=reader)
    cost.goals = goal
    wall, rng = goal[0, 2], np.random.default_rng(6)
    side, height = np.tile([-3.0, 3.0], 30), np.repeat(rng.uniform(8, 56, 30), 2)
    true = np.stack([wall + side, height, np.full(60, wall), np.full(60, goal[0, 3])], 1)
    states = perceive(agent.perception, environment.truth, true)
    read = cost._true(states.map(lambda x: x[None]), None)
    assert (np.sign(read[:, 0] - wall) == np.sign(side)).all()
    left = cost._walk(read, np.repeat(goal, 60, 0))
    exact = np.array([expert_steps(environment, s, goal[0]) for s in true])
    assert np.abs(left - exact).mean() < 1.5 and np.abs(left - exact).max() <= 6


# The four cells


def with_perfect_model(agent: Agent, simulator: TwoRooms) -> None:
    """Give the agent a world model without error, which is not the oracle: it knows nothing but the latent."""

    def predict(state: State, actions: Tensor, z: Tensor | None = None, context: object = None) -> State:
        see = agent.perception
        states = (state.latent * see.sensor_scale + see.sensor_offset).double().numpy()
        for k in range(actions.shape[1]):
            states = simulator.step(states, actions[:, k].numpy(), None)
        return see.encode(Observation(None, torch.from_numpy(states).float()))

    def rollout(state: State, actions: Tensor, z: Tensor | None = None, context: object = None) -> Imagined:
        path = []
        for h in range(actions.shape[1]):
            state = predict(state, actions[:, h])
            path.append(state)
        return Imagined(State.stack(path, 1), actions)

    agent.world_model.predict, agent.world_model.rollout = predict, rollout  # pyright: ignore


def test_a_perfect_perception_reaches_what_the_expert_s_cost_says(rooms):
    """In the cell {learned, true}: with no error in perception and dynamics, reading states costs no success."""
    agent, environment, *_ = rooms
    with_perfect_model(agent, environment.truth)
    tasks, _ = task_list(environment.goals, 20)
    search = {"samples": 32, "horizon": 3}
    read, _ = evaluate(agent, environment, 60, tasks, search, "learned", cost="true")
    exact, _ = evaluate(agent, environment, 60, tasks, search, "oracle", cost="true")
    expert = run(environment, tasks, 60, reference_controllers(environment, 0)["expert"], 0).success
    assert read["dynamics"] == "learned" and read["reader_error"] < 2.0
    assert exact["success"] >= 0.9 * expert > 0.8
    assert read["success"] >= exact["success"] - 0.05


def test_an_agent_that_has_learned_nothing_succeeds_with_the_truth():
    """What is left of the agent then is its search: if this fails, the search is at fault."""
    agent, environment = born(tiny())
    blind, _ = evaluate(agent, environment, 40, 10)
    told, _ = evaluate(agent, environment, 40, 10, {"samples": 32, "horizon": 3}, "oracle", cost="true")
    assert told["success"] >= 0.8 > blind["success"]


def test_oracles_stand_in_a_copy_of_the_agent():
    config = tiny()
    agent, environment = born(config)
    acts, _ = acting(agent, environment, 8, {"samples": 5}, "oracle", "true")
    assert isinstance(acts.agent.level.world_model, OracleDynamics) and isinstance(acts.agent.level.cost, TrueCost)
    assert agent.level.world_model is agent.world_model and agent.level.cost is agent.cost
    assert agent.configurator.config.samples == config.configurator.samples


def test_a_task_of_another_scene_is_judged_in_that_scene(rooms):
    agent, environment, reader, _ = rooms
    tasks: Tasks = environment.goals.sample_tasks(np.random.default_rng(9), 3)
    cost = TrueCost(environment, BLOCK, 50, reader=reader)
    cost.goals = tasks.goal
    read = cost._true(perceive(agent.perception, environment.truth, tasks.start).map(lambda x: x[:, None]), None)
    np.testing.assert_array_equal(read[:, 2:], tasks.start[:, 2:])
    assert (read[:, :2] != tasks.goal[:, :2]).all(), "only what all states of a scene share is known"


def test_perceiving_is_what_the_agent_does():
    agent, environment = born(tiny())
    states = environment.truth.reset(np.random.default_rng(0), 3)
    seen = torch.from_numpy(environment.truth.observe(states)["pixels"])
    state = perceive(agent.perception, environment.truth, states)
    assert torch.equal(state.latent, agent.perception.encode(Observation(seen, None)).latent)


def test_the_sensed_rooms_are_opened_like_any_other(rooms):
    environment = open_environment(rooms[1].name, {})
    assert environment.spec.observation.pixel_shape is None and environment.expert is not None
