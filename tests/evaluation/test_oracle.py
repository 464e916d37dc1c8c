"""Oracles in place of what is learned: the true cost is the way that is really left."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agent.evaluation.evaluate import evaluate, settings
from agent.evaluation.oracle import LANDMARKS, TrueCost, perceive
from modules.types import Cost, State
from tests.helpers import born, tiny, tiny_maze


@pytest.mark.parametrize("make", [tiny, tiny_maze])
def test_the_true_cost_is_the_way_that_the_oracle_controller_still_needs(make):
    config = make()
    agent, simulator = born(config)
    block = config.world_model.action_block
    tasks = simulator.sample_tasks(np.random.default_rng(0), 2)
    cost = TrueCost(simulator, agent.perception, block, limit=config.max_steps * 20)
    assert isinstance(cost, Cost)
    cost.survey(tasks.goal)
    assert cost.steps.shape == (2, LANDMARKS) and (cost.steps[:, 0] == 0).all(), "the goal is a landmark"
    # Read back at the landmarks themselves, the way is what a walk of the oracle controller takes.
    left = cost.remaining(cost.landmarks)
    twins = (left * block - cost.steps).abs() > 0
    assert twins.float().mean() < 0.02, "but for landmarks that look alike"
    start = simulator.reset_within_scene(np.random.default_rng(0), np.repeat(tasks.goal, LANDMARKS, 0))[7:8]
    states, steps = start, 0
    while not simulator.success(states, tasks.goal[:1])[0]:
        states = simulator.step(states, simulator.expert_action(states, tasks.goal[:1]), None)
        steps += 1
    assert cost.steps[0, 7] == steps


def test_the_energy_of_a_path_adds_up_to_the_discounted_way():
    config = tiny()
    agent, simulator = born(config)
    tasks = simulator.sample_tasks(np.random.default_rng(0), 1)
    cost = TrueCost(simulator, agent.perception, 4, limit=100)
    cost.survey(tasks.goal)
    directive = agent.configurator.configure(agent.task, None, agent.statuses())
    far = int(cost.steps[0].argmax())
    path = State.cat([cost.landmarks[:, far : far + 1], cost.landmarks[:, far : far + 1], cost.landmarks[:, :1]], 1)
    found = cost.path(path, torch.empty(0), directive)
    assert found.drives["goal"].tolist() == [[1.0, 1.0, 0.0]] and found.energy.tolist() == [2.0]
    ends_far = path[:, [0, 2, 1]]
    gamma, blocks = directive.discount, float(cost.steps[0, far]) / 4
    expected = 1 + gamma**3 * (1 - gamma**blocks) / (1 - gamma)
    assert cost.path(ends_far, torch.empty(0), directive).energy.item() == pytest.approx(expected, rel=1e-5)


def test_oracles_leave_when_they_were_asked_for_no_longer():
    config = tiny()
    agent, simulator = born(config)
    with settings(agent, simulator, 8, {"samples": 5}, "oracle", "true", 0):
        assert agent.dynamics is not agent.world_model and agent.judge is not agent.cost
        assert agent.configurator.config.samples == 5
    assert agent.dynamics is agent.world_model and agent.judge is agent.cost
    assert agent.configurator.config.samples == config.configurator.samples


def test_an_agent_that_has_learned_nothing_succeeds_with_the_truth():
    """What is left of the agent then is its search: if this fails, the search is at fault."""
    config = tiny()
    agent, simulator = born(config)
    blind, _ = evaluate(agent, simulator, 40, 10)
    told, _ = evaluate(agent, simulator, 40, 10, {"samples": 32, "horizon": 3}, "oracle", cost="true")
    assert told["success"] >= 0.8 > blind["success"]


def test_perceiving_is_what_the_agent_does():
    agent, simulator = born(tiny())
    states = simulator.reset(np.random.default_rng(0), 3)
    seen = torch.from_numpy(simulator.observe(states)["pixels"])
    from modules.types import Observation

    assert torch.equal(
        perceive(agent.perception, simulator, states).latent, agent.perception.encode(Observation(seen, None)).latent
    )
