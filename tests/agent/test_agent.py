"""Promises of agent/agent.py: the order of the paper's episode, plans that belong to one episode, useful refusals."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from agent.agent import Agent
from agent.config import Config
from agent.interaction.environment import Environment
from envs.gym_env import as_observation
from modules.types import Decision, Imagined
from modules.world_model import prediction_error
from tests.helpers import born, tiny, tiny_maze

PLANNERS = ["cem", "mppi", "gradient"]
both = pytest.mark.parametrize("make", [tiny, tiny_maze])


def settings(config: Config, **changes: Any) -> Config:
    """With other settings of the configurator."""
    return dataclasses.replace(config, configurator=dataclasses.replace(config.configurator, **changes))


def drives(config: Config, *names: str, **changes: Any) -> Config:
    """With other intrinsic drives."""
    return dataclasses.replace(config, cost=dataclasses.replace(config.cost, drives=names, **changes))


def ready(config: Config) -> tuple[Agent, Environment]:
    """As if critic and policy had learned."""
    agent, environment = born(config)
    agent.cost.trained.fill_(True)
    agent.actor.trained.fill_(True)
    return agent, environment


def scene(environment: Environment, n: int, seed: int = 0) -> tuple[NDArray, NDArray]:
    """Observations and goals of n tasks."""
    assert environment.goals is not None and environment.truth is not None
    tasks = environment.goals.sample_tasks(np.random.default_rng(seed), n)
    return tuple(as_observation(environment.truth.observe(s)) for s in (tasks.start, tasks.goal))


def encoded(agent: Agent, observation: NDArray):
    return agent.perception.encode(agent.sense(observation)[0])


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


def test_perception_gets_its_carry_the_last_action_and_who_begins(monkeypatch):
    agent, environment = ready(settings(tiny(), iterations=1))
    seen, goal = scene(environment, 2)
    asked: list[tuple[Any, Any, list[bool]]] = []
    observe = agent.perception.observe

    def observed(carry, observation, last_action, is_first):
        asked.append((carry, last_action, is_first.tolist()))
        return len(asked), observe(None, observation, last_action, is_first)[1]

    monkeypatch.setattr(agent.perception, "observe", observed)
    monkeypatch.setattr(agent.perception, "initial", lambda episodes: f"empty for {episodes}")
    agent.set_goal(goal)
    begins = [None, None, np.array([False, True])]
    decisions = [agent.act(seen, first)[1] for first in begins]
    assert [carry for carry, _, _ in asked] == ["empty for 2", 1, 2]
    assert [first for _, _, first in asked] == [[True, True], [False, False], [False, True]]
    assert asked[0][1] is None
    assert all(torch.equal(asked[t + 1][1], decisions[t].action) for t in range(2))


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
