"""Promises of agent/agent.py: the order of the paper's episode, plans that belong to one episode, useful refusals."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from agent.agent import Agent
from agent.build import pick_device
from agent.errors import UserError
from envs.gym_env import as_observation
from tests.helpers import born, tiny, tiny_maze

SEARCH = ["simulate", "evaluate", "improve"]


def settings(config, **changes):
    return dataclasses.replace(config, configurator=dataclasses.replace(config.configurator, **changes))


def ready(agent: Agent) -> Agent:
    """As if critic and policy had learned."""
    agent.cost.trained.fill_(True)
    agent.actor.trained.fill_(True)
    return agent


def scene(simulator, n: int, seed: int = 0):
    """Observations and goals of n tasks."""
    tasks = simulator.sample_tasks(np.random.default_rng(seed), n)
    return as_observation(simulator.observe(tasks.start)), as_observation(simulator.observe(tasks.goal))


# Order


@pytest.mark.parametrize("planner", ["cem", "mppi", "gradient"])
@pytest.mark.parametrize("make", [tiny, tiny_maze])
def test_mode_2_runs_the_seven_steps_in_order(make, planner):
    agent, simulator = born(settings(make(), iterations=3, planner=planner))
    ready(agent)
    seen, goal = scene(simulator, 1)
    agent.set_goal(goal[0])
    action, decision = agent.act(seen[0])
    assert list(decision.steps) == [
        "perceive", "configure", "evaluate state", "propose", *SEARCH * 3, "act", "store",
    ]  # fmt: skip
    assert decision.mode == 2 and decision.replanned and action.shape == (2,)


def test_the_steps_are_really_taken_in_that_order(monkeypatch):
    """Calls as the modules see them, not as the decision tells."""
    agent, simulator = born(settings(tiny(), iterations=2))
    ready(agent)
    calls: list[str] = []

    def spy(owner, name, label):
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, **k: (calls.append(label), original(*a, **k))[1])

    for owner, name, label in (
        (agent.perception, "encode", "perceive"),
        (agent.configurator, "configure", "configure"),
        (agent.cost, "here", "evaluate state"),
        (agent.cost, "path", "cost"),
        (agent.actor, "propose", "propose"),
        (agent.world_model, "rollout", "simulate"),
        (agent.memory, "write", "store"),
    ):
        spy(owner, name, label)
    seen, goal = scene(simulator, 1)
    agent.set_goal(goal[0])
    agent.act(seen[0])
    search = ["simulate", "cost"]
    chosen = ["simulate", "cost"]
    assert calls == ["perceive", "perceive", "configure", "evaluate state", "propose", *search * 2, *chosen, "store"]


def test_mode_1_answers_without_search():
    agent, simulator = born(settings(tiny(), mode=1))
    ready(agent)
    seen, goal = scene(simulator, 3)
    agent.set_goal(goal)
    action, decision = agent.act(seen)
    assert list(decision.steps) == ["perceive", "configure", "evaluate state", "policy", "act", "store"]
    assert decision.mode == 1 and decision.plan is None and action.shape == (3, 2)
    state = agent.perception.encode(agent._sense(seen)[0])
    assert torch.allclose(agent.actor.policy(state, decision.directive.goal), decision.action, atol=1e-6)


def test_mode_1_without_a_policy_falls_back_to_planning():
    agent, simulator = born(settings(tiny(), mode=1))
    seen, goal = scene(simulator, 1)
    agent.set_goal(goal)
    decision = agent.act(seen)[1]
    assert decision.mode == 2 and decision.directive.critic_weight == 0
    assert decision.directive.horizon == agent.configurator.config.horizon_without_critic


# Replanning


@pytest.mark.parametrize(("every", "horizon"), [(1, 2), (3, 2), (8, 2), (99, 1)])
def test_a_new_plan_is_made_at_the_interval_or_when_the_old_one_ends(every, horizon):
    agent, simulator = born(settings(tiny(), replan_every=every, horizon=horizon, iterations=1))
    ready(agent)
    seen, goal = scene(simulator, 1)
    agent.set_goal(goal)
    interval = min(every, horizon * agent.world_model.action_block)
    plan = None
    for t in range(2 * interval + 2):
        decision = agent.act(seen)[1]
        assert decision.replanned == (t % interval == 0)
        if decision.replanned:
            plan = decision.plan
        else:
            assert "propose" not in decision.steps and "simulate" not in decision.steps
            assert "continue plan" in decision.steps and decision.plan is plan
        assert torch.equal(decision.action, plan.actions.flatten(1, 2)[:, t % interval]), "the plan is followed"


@pytest.mark.parametrize("warm", [True, False])
def test_a_warm_start_begins_at_the_shifted_last_plan(warm, monkeypatch):
    agent, simulator = born(settings(tiny(), replan_every=3, horizon=2, warm_start=warm))
    ready(agent)
    starts = []
    original = agent.actor.search

    def search(start, directive):
        starts.append(start.flatten(1, 2))
        return original(start, directive)

    monkeypatch.setattr(agent.actor, "search", search)
    seen, goal = scene(simulator, 2)
    agent.set_goal(goal)
    plan = agent.act(seen)[1].plan.actions.flatten(1, 2)
    for _ in range(3):
        agent.act(seen)
    assert plan.abs().sum() > 0
    expected = torch.cat([plan[:, 3:], torch.zeros(2, 3, 2)], 1) if warm else torch.zeros(2, 8, 2)
    assert torch.equal(starts[1], expected)


def test_a_new_goal_forgets_the_plan():
    agent, simulator = born(settings(tiny(), replan_every=99))
    seen, goal = scene(simulator, 1)
    agent.set_goal(goal)
    agent.act(seen)
    assert not agent.act(seen)[1].replanned
    agent.set_goal(goal)
    assert agent.act(seen)[1].replanned


def test_the_plan_is_never_worse_than_the_first_proposal():
    agent, simulator = born(settings(tiny(), iterations=3, samples=16))
    ready(agent)
    seen, goal = scene(simulator, 4)
    agent.set_goal(goal)
    decision = agent.act(seen)[1]
    assert (decision.plan.energy <= decision.proposal_energy).all()
    assert (decision.plan.energy < decision.proposal_energy).any()
    parts = sum(v.sum(-1) for v in decision.plan_cost.drives.values()) + decision.plan_cost.critic.sum(-1)
    assert torch.allclose(parts, decision.plan.energy, atol=1e-4), "the cost of the plan explains its energy"
    rolled = agent.world_model.rollout(decision.state, decision.plan.actions)
    assert torch.allclose(rolled.latent, decision.imagined.latent, atol=1e-5)


def test_random_subgoals_are_remembered_states_and_change_with_every_plan():
    agent, simulator = born(settings(tiny(), random_subgoals=True, replan_every=3, horizon=2, iterations=1))
    ready(agent)
    seen, goal = scene(simulator, 2)
    agent.set_goal(goal)
    first = agent.act(seen)[1].directive.goal
    assert torch.equal(first.latent, agent.perception.encode(agent._sense(goal)[0]).latent), "nothing to remember yet"
    for k in range(20):
        agent.memory.write(k, torch.arange(2), agent.perception.encode(agent._sense(scene(simulator, 2, k)[0])[0]),
                           torch.zeros(2, 4, 2), torch.zeros(2), torch.zeros(2), imagined=False)  # fmt: skip
    known = agent.memory.records().state.latent
    aims = []
    for _ in range(13):
        decision = agent.act(seen)[1]
        aim = decision.directive.goal.latent
        assert all((known == a).all(1).any() for a in aim)
        if decision.replanned:
            aims.append(aim)
        else:
            assert not aims or torch.equal(aim, aims[-1]), "a plan under way keeps its aim"
    assert len(aims) == 4 and not torch.equal(aims[0], aims[1])


# Batches


@pytest.mark.parametrize("planner", ["cem", "mppi", "gradient"])
@pytest.mark.parametrize("make", [tiny, tiny_maze])
def test_the_plan_of_an_episode_does_not_depend_on_its_companions(make, planner):
    agent, simulator = born(settings(make(), planner=planner, iterations=2))
    ready(agent)
    seen, goal = scene(simulator, 3)

    def acted(observation, goals):
        agent.actor.generator.manual_seed(7)
        agent.set_goal(goals)
        return agent.act(observation)

    together, decision = acted(seen, goal)
    for e in range(3):
        alone, own = acted(seen[e], goal[e])
        np.testing.assert_allclose(together[e], alone, atol=1e-3)
        assert torch.allclose(decision.plan.energy[e], own.plan.energy[0], atol=1e-4)


def test_one_observation_gives_one_action_and_a_batch_of_one_a_batch():
    agent, simulator = born(tiny())
    seen, goal = scene(simulator, 1)
    agent.set_goal(goal[0])
    assert agent.act(seen[0])[0].shape == (2,)
    agent.set_goal(goal)
    assert agent.act(seen)[0].shape == (1, 2)


def test_actions_stay_inside_the_action_space():
    agent, simulator = born(settings(tiny(), samples=32))
    seen, goal = scene(simulator, 8)
    agent.set_goal(goal)
    action = agent.act(seen)[0]
    assert (np.linalg.norm(action, axis=1) <= simulator.action_max_norm + 1e-4).all()


def test_what_the_caller_does_to_an_action_does_not_reach_the_plan():
    agent, simulator = born(tiny())
    seen, goal = scene(simulator, 1)
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
    agent, simulator = born(tiny_maze())
    seen, goal = scene(simulator, 2)
    agent.set_goal(goal)
    bad = seen.copy()
    bad[1, 0] = number
    with pytest.raises(ValueError, match="not finite"):
        agent.act(bad)
    assert agent.memory.size == 0, "nothing of it was remembered"
    agent.act(seen)


def test_sensors_of_another_length_are_refused():
    agent, simulator = born(tiny_maze())
    size = len(simulator.sensor_low)
    with pytest.raises(ValueError, match=rf"sensors of shape \({size},\)"):
        agent.act(np.zeros(size + 1, np.float32))


def test_another_number_of_episodes_than_goals_is_refused():
    agent, simulator = born(tiny())
    seen, goal = scene(simulator, 3)
    agent.set_goal(goal[:2])
    with pytest.raises(ValueError, match=r"2.*3|3.*2"):
        agent.act(seen)


def test_the_number_of_episodes_cannot_change_within_a_plan():
    agent, simulator = born(settings(tiny(), replan_every=99))
    seen, _ = scene(simulator, 3)
    agent.set_goal()
    agent.act(seen[:2])
    with pytest.raises(ValueError, match=r"2.*3|3.*2"):
        agent.act(seen)


# Memory


@pytest.mark.parametrize("make", [tiny, tiny_maze])
def test_every_action_is_remembered(make):
    agent, simulator = born(make())
    ready(agent)
    seen, goal = scene(simulator, 2)
    thoughts = []
    for _ in range(2):
        agent.set_goal(goal)
        for _t in range(3):
            thoughts.append(agent.act(seen)[1])
            assert agent.memory.size == 2 * len(thoughts)
    pieces = agent.memory.trajectories(1)
    assert len(pieces) == 4 and all(p.time.tolist() == [0, 1, 2] for p in pieces), "two lives of two episodes"
    records = agent.memory.records()
    for i, decision in enumerate(thoughts):
        mine = records[2 * i : 2 * i + 2]
        assert torch.equal(mine.state.latent, decision.state.latent) and not mine.imagined.any()
        assert torch.equal(mine.action[:, 0], decision.action)
        assert torch.allclose(mine.ic, sum(v[:, 0] for v in decision.cost.drives.values()))
        assert torch.allclose(mine.tc, decision.cost.critic[:, 0]) and (mine.tc > 0).all()


def test_without_a_goal_the_agent_still_acts():
    agent, simulator = born(tiny())
    seen, _ = scene(simulator, 2)
    agent.set_goal()
    action, decision = agent.act(seen)
    assert np.isfinite(action).all() and decision.directive.goal is None
    assert agent.act(seen)[0].shape == (2, 2)


def test_weights_of_a_task_reach_the_cost():
    agent, simulator = born(tiny())
    seen, goal = scene(simulator, 1)
    agent.set_goal(goal, {"goal": 0.0, "effort": 1.0})
    decision = agent.act(seen)[1]
    assert set(decision.plan_cost.drives) == {"effort"}
    assert decision.plan.energy.item() == 0 and not decision.plan.actions.any(), "standing still costs no effort"


# Weights


def test_a_loaded_agent_acts_bit_for_bit_the_same(trained_run: Path):
    agents = [Agent.load(trained_run, "cpu"), Agent.load(trained_run, "cpu")]
    third, simulator = born(tiny())
    third.load_tensors(agents[0].tensors())
    seen, goal = scene(simulator, 2)
    paths = []
    for agent in [*agents, third]:
        agent.set_goal(goal)
        paths.append(np.stack([agent.act(seen)[0] for _ in range(6)]))
    assert paths[0].tobytes() == paths[1].tobytes() == paths[2].tobytes()
    assert np.abs(paths[0]).sum() > 0 and bool(agents[0].cost.trained) and bool(agents[0].actor.trained)


def test_tensors_come_back(trained_run: Path):
    agent, other = Agent.load(trained_run, "cpu"), born(tiny(seed=9))[0]
    names = agent.tensors()
    assert any(not torch.equal(v, other.tensors()[k]) for k, v in names.items())
    other.load_tensors({**names, "optimiser.0.step": torch.zeros(1)})
    assert all(torch.equal(v, other.tensors()[k]) for k, v in names.items())


def test_weights_of_another_size_are_refused_with_the_module(trained_run: Path):
    config = tiny()
    other = born(dataclasses.replace(config, actor=dataclasses.replace(config.actor, hidden=5)))[0]
    with pytest.raises(UserError, match="configuration of actor"):
        other.load_tensors(Agent.load(trained_run, "cpu").tensors())


def test_the_seed_decides_the_weights():
    same, again, other = (born(tiny(seed=s))[0].tensors() for s in (1, 1, 2))
    assert all(torch.equal(same[k], again[k]) for k in same)
    assert any(not torch.equal(same[k], other[k]) for k in same)


def test_devices_that_do_not_exist_are_refused():
    assert pick_device("cpu") == torch.device("cpu")
    for name in ("cuda:77", "gpu"):
        with pytest.raises(UserError, match=f"{name}.*--device"):
            pick_device(name)


@pytest.mark.parametrize("make", [tiny, tiny_maze])
def test_surprise_compares_what_came_with_what_was_imagined_for_that_moment(make):
    agent, simulator = born(settings(make(), iterations=1, replan_every=4))
    ready(agent)
    block = agent.world_model.action_block
    agent.set_goal(scene(simulator, 2)[1])
    states, rng, thoughts = simulator.reset(np.random.default_rng(3), 2), np.random.default_rng(4), []
    for _ in range(2 * block + 1):
        action, decision = agent.act(as_observation(simulator.observe(states)))
        thoughts.append(decision)
        states = simulator.step(states, action, rng)
    assert [t.surprise is not None for t in thoughts] == [i in (block, 2 * block) for i in range(2 * block + 1)]
    imagined, seen = thoughts[0].imagined[:, 0], thoughts[block].state
    expected = (imagined.latent - seen.latent).square().mean(1)
    if seen.proprio.shape[1]:
        expected = expected + (imagined.proprio - seen.proprio).square().mean(1)
    assert torch.allclose(thoughts[block].surprise, expected)
    assert thoughts[block].statuses["world_model"]["surprise"] == pytest.approx(expected.mean().item())
    agent.set_goal(scene(simulator, 2)[1])
    assert agent.act(as_observation(simulator.observe(states)))[1].surprise is None, "another episode"
