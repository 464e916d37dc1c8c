"""Promises of agent/agent.py: acting under other settings leaves the agent alone; changed weights renew the goal."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.agent.scenes import encoded, ready, scene, settings
from tests.helpers import born, tiny

# Acting under other settings


@pytest.mark.parametrize("subgoals", [False, True])
def test_acting_under_other_settings_leaves_the_agent_as_it_is(subgoals):
    config = settings(tiny(), random_subgoals=subgoals, replan_every=2, iterations=1)
    pair = [ready(config) for _ in range(2)]
    seen, goal = scene(pair[0][1], 2)
    for agent, _ in pair:
        agent.set_goal(goal)
        for _t in range(3):
            agent.remember(agent.act(seen)[1])
    (agent, _), (twin, _) = pair
    before = agent.memory.state_dict()
    random, configurator, task, episode = agent.generator.get_state(), agent.configurator, agent.task, agent.episode
    weights = [p.clone() for m in agent.modules().values() for p in m.state_dict().values()]
    torch.manual_seed(3)
    anyone = torch.get_rng_state()

    other = agent.acting({"planner": "mppi", "samples": 5, "horizon": 1}, seed=4)
    assert other.episode is None and other.act(seen[:1])[1].directive.goal is None, "it begins without a task"
    other.set_goal(goal[:1])
    for _ in range(4):
        decision = other.act(seen[:1])[1]
        assert decision.directive.planner == "mppi" and decision.directive.samples == 5
    after = agent.memory.state_dict()
    assert set(after) == set(before)
    for name, value in before.items():
        assert torch.equal(value, after[name]) if isinstance(value, torch.Tensor) else value == after[name]
    assert torch.equal(agent.generator.get_state(), random) and torch.equal(torch.get_rng_state(), anyone)
    assert agent.configurator is configurator and agent.task is task and agent.episode is episode
    assert all(
        torch.equal(a, b)
        for a, b in zip(weights, [p for m in agent.modules().values() for p in m.state_dict().values()], strict=True)
    )
    for _ in range(3):
        (action, mine), (expected, theirs) = agent.act(seen), twin.act(seen)
        assert np.array_equal(action, expected), "the agent's own episode goes on as if nothing had happened"
        assert torch.equal(mine.time, theirs.time) and torch.equal(mine.episode, theirs.episode)
        assert mine.directive.planner == "cem"


def test_acting_shares_weights_and_memory_and_its_seed_decides_the_search():
    agent, environment = ready(settings(tiny(), iterations=3, samples=16))
    seen, goal = scene(environment, 2)
    same, again, other = (agent.acting(seed=s) for s in (1, 1, 2))
    actions = []
    for copy in (same, again, other):
        assert copy.memory is agent.memory and copy.perception is agent.perception
        copy.set_goal(goal)
        actions.append(copy.act(seen)[0])
    assert np.array_equal(actions[0], actions[1]) and not np.array_equal(actions[0], actions[2])


def test_oracles_stand_in_for_world_model_and_cost():
    agent, environment = ready(settings(tiny(), iterations=2))
    seen, goal = scene(environment, 2)
    asked: list[str] = []

    class Model:
        action_block, z_size = agent.world_model.action_block, 0

        def rollout(self, state, actions, z=None, context=None):
            asked.append("rollout")
            return agent.world_model.rollout(state, actions, z, context)

        def predict(self, state, actions, z=None, context=None):
            return self.rollout(state, actions[:, None]).states[:, 0]

        def status(self):
            return {"oracle": 1.0}

    class Cost:
        def trajectory(self, imagined, directive):
            asked.append("trajectory")
            return agent.cost.trajectory(imagined, directive)

        def state(self, state, directive):
            asked.append("state")
            return agent.cost.state(state, directive)

        def status(self):
            return {"critic_trained": 1.0}

    other = agent.acting(world_model=Model(), cost=Cost())
    plain = agent.acting()
    for each in (other, plain):
        each.set_goal(goal)
    (action, decision), (expected, _) = other.act(seen), plain.act(seen)
    assert np.array_equal(action, expected)
    assert asked == ["state", *["rollout", "trajectory"] * 3]
    assert decision.status["world_model"]["oracle"] == 1.0
    assert agent.level.world_model is agent.world_model and agent.level.cost is agent.cost


# Weights that change


def test_weights_changed_renews_what_was_encoded_and_embedded_of_the_goal():
    agent, environment = ready(settings(tiny(), iterations=1))
    seen, goal = scene(environment, 2)
    agent.set_goal(goal)
    before = agent.act(seen)[1].directive.goal
    critic = agent.cost.critic
    old = before.memo[critic.goal]
    with torch.no_grad():
        for module in (agent.perception, critic.goal):
            for parameter in module.parameters():
                parameter.mul_(1.5)
        new = encoded(agent, goal)
        embedded = critic.goal(new)
    stale = agent.act(seen)[1].directive.goal
    assert torch.equal(stale.state.latent, before.state.latent) and torch.equal(stale.memo[critic.goal], old)
    agent.weights_changed()
    decision = agent.act(seen)[1]
    fresh = decision.directive.goal
    assert torch.allclose(fresh.state.latent, new.latent, atol=1e-6) and not torch.allclose(
        new.latent, before.state.latent
    )
    assert torch.allclose(fresh.memo[critic.goal], embedded, atol=1e-5) and not torch.allclose(embedded, old)
    assert decision.time.tolist() == [2, 2], "the episodes go on"
    with torch.no_grad():
        value = critic(decision.state, embedded).mean(-1)[:, 0]
    assert torch.allclose(decision.cost.critic[:, 0], value, atol=1e-4)


def test_weights_changed_without_a_goal_is_no_trouble():
    agent, environment = born(tiny())
    agent.weights_changed()
    agent.act(scene(environment, 2)[0])
