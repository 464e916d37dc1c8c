"""Promises of agent/agent.py: the order of the paper's episode, replanning, memory, tasks, useful refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from agent.agent import Agent
from agent.build import build
from agent.spec import EnvSpec
from modules.actions import DiscreteActions
from modules.types import ObservationSpec
from tests.agent.scenes import PLANNERS, both, drives, encoded, ready, scene, settings
from tests.helpers import born, tiny, tiny_maze

# Order


def spied(agent: Agent, monkeypatch) -> list[str]:
    """Calls as the modules see them."""
    calls: list[str] = []

    def spy(owner, name, label):
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, **k: (calls.append(label), original(*a, **k))[1])

    for owner, name, label in (
        (agent.perception, "encode", "perceive"),
        (agent.configurator, "configure", "configure"),
        (agent.cost, "state", "evaluate state"),
        (agent.cost, "trajectory", "evaluate"),
        (agent.actor, "act", "policy"),
        (agent.actor, "propose", "propose"),
        (agent.world_model, "rollout", "simulate"),
        (agent.memory, "write", "store"),
    ):
        spy(owner, name, label)
    search = agent.actor.search

    def searched(*arguments):
        planner = search(*arguments)
        spy(planner, "tell", "improve")
        return planner

    monkeypatch.setattr(agent.actor, "search", searched)
    return calls


@pytest.mark.parametrize("planner", PLANNERS)
@both
def test_mode_2_takes_the_seven_steps_in_order(make, planner, monkeypatch):
    agent, environment = ready(settings(make(), iterations=3, planner=planner, replan_every=4))
    calls = spied(agent, monkeypatch)
    seen, goal = scene(environment, 1)
    agent.set_goal(goal[0])
    assert calls == ["perceive"], "the goal"
    calls.clear()
    action, decision = agent.act(seen[0])
    search, chosen = ["simulate", "evaluate", "improve"], ["simulate", "evaluate"]
    assert calls == ["perceive", "configure", "evaluate state", "propose", *search * 3, *chosen]
    assert decision.mode == 2 and decision.replanned and action.shape == (2,)
    calls.clear()
    agent.remember(decision)
    agent.act(seen[0])
    assert calls == ["store", "perceive", "configure", "evaluate state"], "and then the plan goes on"


def test_mode_1_answers_without_search(monkeypatch):
    agent, environment = ready(settings(tiny(), mode=1))
    seen, goal = scene(environment, 3)
    agent.set_goal(goal)
    calls = spied(agent, monkeypatch)
    action, decision = agent.act(seen)
    assert calls == ["perceive", "configure", "evaluate state", "policy"]
    assert decision.mode == 1 and decision.plan is None and decision.imagined is None and action.shape == (3, 2)
    assert torch.allclose(agent.actor.policy(encoded(agent, seen), decision.directive.goal), decision.action, atol=1e-6)


def test_mode_1_without_a_policy_falls_back_to_planning():
    agent, environment = born(settings(tiny(), mode=1))
    seen, goal = scene(environment, 1)
    agent.set_goal(goal)
    decision = agent.act(seen)[1]
    assert decision.mode == 2 and not any(decision.directive.critic_weights.values())
    assert decision.directive.horizon == tiny().configurator.horizon_without_critic


def watched(monkeypatch, agent, context):
    """What `observe` was given: carry, block, who begins. The carry counts the moments from 1."""
    asked: list[tuple[Any, Any, list[bool]]] = []
    observe = agent.perception.observe

    def observed(carry, observation, last_block, is_first):
        asked.append((carry, last_block, is_first.tolist()))
        return torch.full((2,), len(asked)), observe(None, observation, last_block, is_first)[1]

    monkeypatch.setattr(agent.perception, "context", context)
    monkeypatch.setattr(agent.perception, "observe", observed)
    monkeypatch.setattr(agent.perception, "initial", lambda episodes: torch.zeros(episodes, dtype=torch.long))
    return asked


def test_perception_gets_its_carry_the_executed_block_and_who_begins(monkeypatch):
    agent, environment = ready(settings(tiny(), iterations=1))
    seen, goal = scene(environment, 2)
    asked = watched(monkeypatch, agent, 1)
    agent.set_goal(goal)
    begins = {0: [True, True], 2: [False, True]}
    decisions = [agent.act(seen, np.array(begins.get(t, [False, False])))[1] for t in range(7)]
    assert [first for _, _, first in asked] == [begins.get(t, [False, False]) for t in range(7)]
    # Blocks have four actions: the first row advances at 0 and 4, the second one at 0, 2 and 6.
    carries = [[0, 0], [1, 1], [1, 1], [1, 3], [1, 3], [5, 3], [5, 3]]
    assert [carry.tolist() for carry, _, _ in asked] == carries
    assert asked[0][1] is None and agent.episode.carry.tolist() == [5, 7]
    for t in range(1, 7):
        for row, since in ((0, 4 * ((t - 1) // 4)), (1, 0 if t < 2 else 2)):
            done = [d.action[row] for d in decisions[since:t]]
            rest = [agent.actor.actions.rest(done[0] if done else torch.zeros(2))] * (4 - len(done))
            assert asked[t][2][row] or torch.equal(asked[t][1][row], torch.stack([*done, *rest])), (t, row)


def test_a_perception_without_a_carry_is_not_given_blocks(monkeypatch):
    agent, environment = ready(settings(tiny(), iterations=1))
    seen, goal = scene(environment, 2)
    asked = watched(monkeypatch, agent, 0)
    agent.set_goal(goal)
    for _ in range(6):
        agent.act(seen)
    assert all(block is None and carry.tolist() == [0, 0] for carry, block, _ in asked)


# Replanning


@pytest.mark.parametrize(("every", "horizon"), [(1, 2), (3, 2), (8, 2), (99, 1)])
def test_a_new_plan_is_made_at_the_interval_or_when_the_old_one_ends(every, horizon):
    agent, environment = ready(settings(tiny(), replan_every=every, horizon=horizon, iterations=1))
    seen, goal = scene(environment, 1)
    agent.set_goal(goal)
    interval = min(every, horizon * agent.world_model.action_block)
    plan = None
    for t in range(2 * interval + 2):
        decision = agent.act(seen)[1]
        assert decision.replanned == (t % interval == 0) == (decision.imagined is not None)
        if decision.replanned:
            plan = decision.plan
        else:
            assert decision.plan is plan and decision.candidates is None and decision.proposal_energy is None
        assert torch.equal(decision.action, plan.actions.flatten(1, 2)[:, t % interval]), "the plan is followed"
        assert decision.time.tolist() == [t]


@pytest.mark.parametrize("warm", [True, False])
def test_a_warm_start_begins_at_the_shifted_last_plan(warm, monkeypatch):
    agent, environment = ready(settings(tiny(), replan_every=3, horizon=2, warm_start=warm))
    starts = []
    original = agent.actor.search

    def search(start, directive, generator):
        starts.append(start.flatten(1, 2))
        return original(start, directive, generator)

    monkeypatch.setattr(agent.actor, "search", search)
    seen, goal = scene(environment, 2)
    agent.set_goal(goal)
    plan = agent.act(seen)[1].plan.actions.flatten(1, 2)
    for _ in range(3):
        agent.act(seen)
    assert plan.abs().sum() > 0
    expected = torch.cat([plan[:, 3:], torch.zeros(2, 3, 2)], 1) if warm else torch.zeros(2, 8, 2)
    assert torch.equal(starts[1], expected)


def test_a_new_goal_forgets_the_plan():
    agent, environment = born(settings(tiny(), replan_every=99))
    seen, goal = scene(environment, 1)
    agent.set_goal(goal)
    agent.act(seen)
    assert not agent.act(seen)[1].replanned
    agent.set_goal(goal)
    assert agent.act(seen)[1].replanned


def test_the_plan_is_never_worse_than_the_first_proposal():
    agent, environment = ready(settings(tiny(), iterations=3, samples=16))
    seen, goal = scene(environment, 4)
    agent.set_goal(goal)
    decision = agent.act(seen)[1]
    assert (decision.plan.energy <= decision.proposal_energy).all()
    assert (decision.plan.energy < decision.proposal_energy).any()
    parts = sum(v.sum(-1) for v in decision.plan_cost.drives.values()) + decision.plan_cost.critic.sum(-1)
    assert torch.allclose(parts, decision.plan.energy, atol=1e-4), "the cost of the plan explains its energy"
    rolled = agent.world_model.rollout(decision.state, decision.plan.actions).states
    assert torch.allclose(rolled.latent, decision.imagined.states.latent, atol=1e-5)


def test_random_subgoals_are_remembered_states_and_change_with_every_plan():
    agent, environment = ready(settings(tiny(), random_subgoals=True, replan_every=3, horizon=2, iterations=1))
    seen, goal = scene(environment, 2)
    agent.set_goal(goal)
    first = agent.act(seen)[1].directive.goal
    assert torch.equal(first.state.latent, encoded(agent, goal).latent), "nothing to remember yet"
    for k in range(20):
        state = encoded(agent, scene(environment, 2, k)[0])
        agent.memory.write(k, torch.arange(2), state, torch.zeros(2, 4, 2), imagined=False)
    agent.set_goal(goal)
    known = agent.memory.records().state.latent
    subgoals = []
    for _ in range(13):
        decision = agent.act(seen)[1]
        subgoal = decision.directive.goal.state.latent
        assert all((known == s).all(1).any() for s in subgoal)
        if decision.replanned:
            subgoals.append(subgoal)
        else:
            assert torch.equal(subgoal, subgoals[-1]), "a plan under way keeps its subgoal"
    assert len(subgoals) == 5 and not torch.equal(subgoals[0], subgoals[1])


# Memory


@both
def test_every_action_can_be_remembered_and_none_is_unasked(make):
    agent, environment = ready(make())
    seen, goal = scene(environment, 2)
    decisions = []
    for _ in range(2):
        agent.set_goal(goal)
        for _t in range(3):
            held = agent.memory.size
            decisions.append(agent.act(seen)[1])
            assert agent.memory.size == held, "acting writes nothing"
            agent.remember(decisions[-1])
            assert agent.memory.size == 2 * len(decisions)
    pieces = agent.memory.trajectories(1)
    assert len(pieces) == 4 and all(p.time.tolist() == [0, 1, 2] for p in pieces), "twice two episodes"
    records = agent.memory.records()
    for i, decision in enumerate(decisions):
        mine = records[2 * i : 2 * i + 2]
        assert torch.equal(mine.state.latent, decision.state.latent) and not mine.imagined.any()
        assert torch.equal(mine.action, decision.action[:, None].expand(-1, agent.world_model.action_block, -1))
        assert torch.equal(mine.episode, decision.episode) and torch.equal(mine.time, decision.time)


def test_decisions_are_remembered_as_they_were_also_later():
    """The agent goes on counting; a decision keeps its own moment."""
    agent, environment = ready(tiny())
    seen, goal = scene(environment, 2)
    agent.set_goal(goal)
    decisions = [agent.act(seen, np.array([False, t == 2]))[1] for t in range(4)]
    for decision in decisions:
        agent.remember(decision)
    found = sorted((p.episode[0].item(), p.time.tolist()) for p in agent.memory.trajectories(1))
    assert found == [(0, [0, 1, 2, 3]), (1, [0, 1]), (2, [0, 1])]


# Tasks


def test_without_a_goal_the_agent_still_acts():
    agent, environment = born(tiny())
    seen, _ = scene(environment, 2)
    agent.set_goal()
    action, decision = agent.act(seen)
    assert np.isfinite(action).all() and decision.directive.goal is None
    assert agent.act(seen)[0].shape == (2, 2)


def test_weights_of_a_task_reach_the_cost():
    agent, environment = born(drives(tiny(), "goal", "effort"))
    seen, goal = scene(environment, 1)
    agent.set_goal(goal, {"goal": 0.0, "effort": 1.0})
    decision = agent.act(seen)[1]
    assert set(decision.plan_cost.drives) == {"effort"}
    assert decision.plan.energy.item() == 0 and not decision.plan.actions.any(), "standing still costs no effort"


def test_a_task_cannot_undercut_a_floor():
    agent, environment = born(drives(tiny(), "goal", "effort", floors={"effort": 0.5}))
    seen, goal = scene(environment, 1)
    for asked, got in ((0.0, 0.5), (-1.0, 0.5), (0.7, 0.7)):
        agent.set_goal(goal, {"effort": asked})
        decision = agent.act(seen)[1]
        assert decision.directive.weights == {"goal": 1.0, "effort": got}
        effort = agent.actor.actions.features(decision.plan.actions).square().mean((-1, -2))
        assert torch.allclose(decision.plan_cost.drives["effort"], got * effort)


def test_a_task_that_reweights_a_drive_scales_its_head():
    agent, environment = ready(drives(tiny(), "goal", "effort"))
    seen, goal = scene(environment, 2)
    agent.set_goal(goal)
    plain = agent.act(seen)[1]
    agent.set_goal(goal, {"effort": 3.0})
    asked = agent.act(seen)[1]
    critic = agent.cost.critic
    with torch.no_grad():
        heads = critic(plain.state, critic.goal(encoded(agent, goal))).mean(-1)
    assert heads.shape == (2, 2)
    assert torch.allclose(plain.cost.critic[:, 0], heads.sum(1), atol=1e-5)
    assert torch.allclose(asked.cost.critic[:, 0], heads[:, 0] + 3 * heads[:, 1], atol=1e-5)


# Refusals


@pytest.mark.parametrize("shape", [(65, 65), (2, 64, 65), (3, 65, 65), (1, 1, 2, 65, 65), (2,)])
def test_pictures_of_another_shape_are_refused(shape):
    agent, _ = born(tiny())
    with pytest.raises(ValueError, match=r"pixels of shape \(2, 65, 65\).*(given|none)"):
        agent.act(np.zeros(shape, np.uint8))


def test_pictures_of_floats_are_refused():
    """In a dict nothing else tells them from bytes; scaled to 0..1 they would all look black."""
    agent, _ = born(tiny())
    picture = np.ones((2, 65, 65), np.float32)
    with pytest.raises(ValueError, match="uint8"):
        agent.act({"pixels": picture})
    assert (picture == 1).all(), "and they are left as they are"


def test_an_observation_without_the_sense_is_refused():
    agent, _ = born(tiny())
    with pytest.raises(ValueError, match=r"pixels.*float32"):
        agent.act({"sensors": np.zeros(3)})
    with pytest.raises(ValueError, match="pixels"):
        agent.set_goal({"sensors": np.zeros(3)})


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_sensors_that_are_not_finite_are_refused(number):
    agent, environment = born(tiny_maze())
    seen, goal = scene(environment, 2)
    agent.set_goal(goal)
    bad = seen.copy()
    bad[1, 0] = number
    with pytest.raises(ValueError, match="not finite"):
        agent.act(bad)
    assert agent.episode is None, "no episode has begun with it"
    assert agent.act(seen)[1].time.tolist() == [0, 0]


def test_sensors_of_another_length_are_refused():
    agent, environment = born(tiny_maze())
    size = len(environment.truth.sensor_low)
    with pytest.raises(ValueError, match=rf"sensors of shape \({size},\)"):
        agent.act(np.zeros(size + 1, np.float32))


def test_another_number_of_episodes_than_goals_is_refused():
    agent, environment = born(tiny())
    seen, goal = scene(environment, 3)
    agent.set_goal(goal[:2])
    with pytest.raises(ValueError, match=r"2.*3|3.*2"):
        agent.act(seen)


def test_the_number_of_episodes_cannot_change_within_a_plan():
    agent, environment = born(settings(tiny(), replan_every=99))
    seen, _ = scene(environment, 3)
    agent.set_goal()
    agent.act(seen[:2])
    with pytest.raises(ValueError, match=r"2.*3|3.*2"):
        agent.act(seen)


def test_who_begins_has_to_be_said_for_each_episode():
    agent, environment = born(tiny())
    seen, _ = scene(environment, 3)
    with pytest.raises(ValueError, match=r"is_first must have shape \(3,\), got \(2,\)"):
        agent.act(seen, np.array([True, False]))


def test_an_unknown_planner_and_an_unknown_drive_are_named():
    agent, environment = born(tiny())
    seen, goal = scene(environment, 1)
    with pytest.raises(ValueError, match=r"unknown planner 'cemm'.*cem, mppi, gradient"):
        agent.acting({"planner": "cemm"}).act(seen)
    agent.set_goal(goal, {"gaol": 1.0})
    with pytest.raises(ValueError, match=r"unknown drive 'gaol'.*goal"):
        agent.act(seen)


# Choices


@pytest.mark.parametrize("how", [{"planner": "cem"}, {"planner": "beam"}, {"mode": 1}], ids=str)
@pytest.mark.parametrize(("space", "actions"), [
    (spaces.Discrete(3, start=-1), DiscreteActions((3,), (-1,))),
    (spaces.MultiDiscrete([2, 2]), DiscreteActions((2, 2), kind="multi")),
], ids=["one", "two"])  # fmt: skip
def test_choices_are_numbers_to_the_environment_and_vectors_inside(how, space, actions):
    agent = build(tiny_maze(), EnvSpec(ObservationSpec(None, (-9.0,), (9.0,)), actions)).acting(how)
    agent.set_goal(np.ones((4, 1), np.float32))
    for _ in range(3):
        sent, decision = agent.act(np.zeros((4, 1), np.float32))
        assert all(action in space for action in sent) and decision.action.shape == (4, actions.size)
        assert (actions.to_env(decision.action.numpy()) == sent).all()
        assert torch.equal(actions.project(decision.action), decision.action)
    agent.set_goal(np.ones(1, np.float32))
    assert agent.act(np.zeros(1, np.float32))[0] in space, "one episode without a batch axis"
