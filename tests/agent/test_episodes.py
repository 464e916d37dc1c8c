"""Promises of agent/agent.py: episodes acted together are each as if alone, also where they begin apart; surprise."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from agent.agent import Agent
from agent.interaction.environment import Environment
from modules.types import Decision, Imagined
from modules.world_model import prediction_error
from tests.agent.scenes import PLANNERS, both, encoded, ready, scene, settings
from tests.helpers import born, tiny

# Batches


@pytest.mark.parametrize("planner", PLANNERS)
@both
def test_the_plan_of_an_episode_does_not_depend_on_its_companions(make, planner):
    agent, environment = ready(settings(make(), planner=planner, iterations=2))
    seen, goal = scene(environment, 3)

    def acted(observation, goals):
        agent.generator.manual_seed(7)
        agent.set_goal(goals)
        return agent.act(observation)

    together, decision = acted(seen, goal)
    for e in range(3):
        alone, own = acted(seen[e], goal[e])
        np.testing.assert_allclose(together[e], alone, atol=1e-3)
        assert torch.allclose(decision.plan.energy[e], own.plan.energy[0], atol=1e-4)


BEGINS = {0: [0], 1: [0, 4], 2: [0, 1, 7]}
"""The moments at which the episodes of each row begin."""
MOMENTS = 11


def apart(agent: Agent, environment: Environment, moments: int = MOMENTS) -> tuple[NDArray, NDArray, list[Decision]]:
    """Three rows whose episodes begin at different moments: observations (T, E, ...), goals, decisions.

    The generator begins anew before every decision, so that each plan is searched with the same noise.
    """
    seen = np.stack([scene(environment, 3, t)[0] for t in range(moments)])
    goal = scene(environment, 3, 99)[1]
    agent.set_goal(goal)
    decisions = []
    for t in range(moments):
        agent.generator.manual_seed(7)
        decisions.append(agent.act(seen[t], np.array([t in BEGINS[e] for e in range(3)]))[1])
    return seen, goal, decisions


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, atol=1e-3, equal_nan=True)


@pytest.mark.parametrize("how", [{"planner": "cem"}, {"planner": "mppi"}, {"planner": "gradient"}, {"mode": 1}],
                         ids=[*PLANNERS, "Mode-1"])  # fmt: skip
@both
def test_episodes_that_begin_apart_are_each_as_if_acted_alone(make, how):
    config = settings(make(), replan_every=3, horizon=2, iterations=2, **how)
    each_action = dataclasses.replace(config.planner, action_repeat=1)
    agent, environment = ready(dataclasses.replace(config, planner=each_action))
    seen, goal, together = apart(agent, environment)
    assert all((torch.stack([d.action for d in together])[:, row].abs().sum(-1) > 0).sum() > 3 for row in BEGINS)
    numbers = set()
    for row, begins in BEGINS.items():
        for first, end in zip(begins, [*begins[1:], MOMENTS], strict=True):
            agent.set_goal(goal[row])
            own_numbers = {int(together[t].episode[row]) for t in range(first, end)}
            assert len(own_numbers) == 1 and not own_numbers & numbers, "a number of its own"
            numbers |= own_numbers
            for t in range(first, end):
                agent.generator.manual_seed(7)
                action, own = agent.act(seen[t, row])
                whole = together[t]
                assert whole.time[row] == own.time[0] == t - first
                assert close(whole.action[row], own.action[0]) and close(whole.action[row], torch.from_numpy(action))
                assert close(whole.cost.energy[row], own.cost.energy[0])
                if own.plan is not None:
                    assert close(whole.plan.actions[row], own.plan.actions[0])
                    assert close(whole.plan.energy[row], own.plan.energy[0])
                    assert whole.replanned or not own.replanned
                if own.surprise is not None:
                    assert whole.surprise is not None and close(whole.surprise[row], own.surprise[0])
                elif whole.surprise is not None:
                    assert whole.surprise[row].isnan()


def test_random_subgoals_of_an_episode_are_kept_when_another_begins():
    agent, environment = ready(settings(tiny(), random_subgoals=True, replan_every=6, horizon=2, iterations=1))
    for k in range(20):
        state = encoded(agent, scene(environment, 2, k)[0])
        agent.memory.write(k, torch.arange(2), state, torch.zeros(2, 4, 2), imagined=False)
    _, _, decisions = apart(agent, environment)
    goals = [d.directive.goal.state.latent for d in decisions]
    for row, begins in BEGINS.items():
        for t in range(1, MOMENTS):
            due = any(t >= b and (t - b) % 6 == 0 for b in [max(b for b in begins if b <= t)])
            assert due or torch.equal(goals[t][row], goals[t - 1][row])


def test_one_observation_gives_one_action_and_a_batch_of_one_a_batch():
    agent, environment = born(tiny())
    seen, goal = scene(environment, 1)
    agent.set_goal(goal[0])
    assert agent.act(seen[0])[0].shape == (2,)
    agent.set_goal(goal)
    assert agent.act(seen)[0].shape == (1, 2)


def test_actions_stay_inside_the_action_space():
    agent, environment = born(settings(tiny(), samples=32))
    seen, goal = scene(environment, 8)
    agent.set_goal(goal)
    action = agent.act(seen)[0]
    assert (np.linalg.norm(action, axis=1) <= environment.truth.action_max_norm + 1e-4).all()


def test_what_the_caller_does_to_an_action_does_not_reach_the_plan():
    agent, environment = born(tiny())
    seen, goal = scene(environment, 1)
    agent.set_goal(goal[0])
    action, decision = agent.act(seen[0])
    kept = decision.action.clone()
    action += 100
    assert torch.equal(decision.action, kept) and torch.equal(decision.plan.actions[:, 0, 0], kept)


# Surprise


@pytest.mark.parametrize("how", [{"replan_every": 1}, {"replan_every": 4}, {"replan_every": 7}, {"mode": 1}], ids=str)
@both
def test_surprise_is_the_prediction_error_of_the_actions_really_executed(make, how):
    agent, environment = ready(settings(make(), iterations=2, horizon=2, samples=16, **how))
    _, _, decisions = apart(agent, environment)
    block, model = agent.world_model.action_block, agent.world_model
    blocks_ended = 0
    for t, decision in enumerate(decisions):
        expected = np.full(3, np.nan)
        for row, begins in BEGINS.items():
            age = t - max(b for b in begins if b <= t)
            if age == 0 or age % block:
                continue
            done = torch.stack([decisions[i].action[row] for i in range(t - block, t)])[None]
            with torch.no_grad():
                after = model.predict(decisions[t - block].state[row : row + 1], done)
            now = decision.state[row : row + 1]
            error = np.square((after.latent - now.latent).numpy()).mean()
            if now.proprio.shape[1]:
                error += np.square((after.proprio - now.proprio).numpy()).mean()
            expected[row] = error
        if np.isnan(expected).all():
            assert decision.surprise is None
            continue
        blocks_ended += int((~np.isnan(expected)).sum())
        np.testing.assert_allclose(decision.surprise.numpy(), expected, rtol=1e-4)
        assert decision.status["world_model"]["surprise"] == pytest.approx(np.nanmean(expected), rel=1e-4)
    assert blocks_ended == 2 + 1 + 1, "where an episode ends together with a block, another scene comes next"
    assert all(decisions[t].action.abs().sum() > 0 for t in (0, MOMENTS - 1))
    agent.set_goal(scene(environment, 3)[1])
    assert agent.act(scene(environment, 3)[0])[1].surprise is None, "another episode"


def test_surprise_is_of_the_learned_model_also_when_an_oracle_plans():
    agent, environment = ready(settings(tiny(), iterations=1))

    class Still:
        """Nothing ever changes."""

        action_block, z_size = agent.world_model.action_block, 0

        def rollout(self, state, actions, z=None, context=None):
            return Imagined(state.map(lambda x: x[:, None].expand(-1, actions.shape[1], -1)), actions)

        def predict(self, state, actions, z=None, context=None):
            return state

        def status(self):
            return {}

    oracle = agent.acting(world_model=Still())
    seen, goal = scene(environment, 2)
    oracle.set_goal(goal)
    decisions = [oracle.act(seen)[1] for _ in range(5)]
    done = torch.stack([d.action for d in decisions[:4]], 1)
    with torch.no_grad():
        expected = prediction_error(agent.world_model.predict(decisions[0].state, done), decisions[4].state)
    assert torch.allclose(decisions[4].surprise, expected) and (expected > 0).all()
