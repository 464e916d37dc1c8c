"""Promises of agent/build.py and agent/spec.py: an agent comes back from its run folder as it was, on any device."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from agent.build import build, load, load_memory, load_tensors, memory_tensors, pick_device, tensors
from agent.errors import UserError
from agent.spec import EnvSpec
from agent.storage.run import Run
from envs.gym_env import as_observation
from modules.memory import EpisodicMemory
from tests.helpers import born, tiny, tiny_maze

# Loading


def test_a_loaded_agent_acts_bit_for_bit_the_same(trained_run: Path):
    agents = [load(trained_run, "cpu"), load(trained_run, "cpu")]
    third, environment = born(tiny())
    load_tensors(third, tensors(agents[0]))
    tasks = environment.goals.sample_tasks(np.random.default_rng(0), 2)
    seen, goal = (as_observation(environment.truth.observe(s)) for s in (tasks.start, tasks.goal))
    actions = []
    for agent in [*agents, third]:
        agent.set_goal(goal)
        actions.append(np.stack([agent.act(seen)[0] for _ in range(6)]))
    assert actions[0].tobytes() == actions[1].tobytes() == actions[2].tobytes()
    assert np.abs(actions[0]).sum() > 0 and bool(agents[0].cost.trained) and bool(agents[0].actor.trained)


def test_loading_needs_no_environment(trained_run: Path, monkeypatch):
    expected = born(tiny())[1].spec
    monkeypatch.setattr("gymnasium.make", None)
    monkeypatch.setattr("agent.interaction.environment.open_environment", None)
    monkeypatch.setattr("envs.SIMULATORS", {})
    agent = load(trained_run, "cpu")
    assert agent.spec == expected and agent.actor.actions == expected.actions


def test_a_loaded_agent_may_act_under_another_configuration(trained_run: Path):
    config = tiny()
    other = dataclasses.replace(config, configurator=dataclasses.replace(config.configurator, planner="mppi"))
    agent = load(trained_run, "cpu", other)
    _, environment = born(config)
    seen = as_observation(environment.truth.observe(environment.truth.reset(np.random.default_rng(0), 1)))
    assert agent.act(seen)[1].directive.planner == "mppi"
    assert all(torch.equal(v, tensors(load(trained_run, "cpu"))[k]) for k, v in tensors(agent).items())


def test_a_loaded_agent_has_its_memory(trained_run: Path):
    agent = load(trained_run, "cpu")
    saved, _, _ = Run.open(trained_run).load_checkpoint()
    assert agent.memory.size == int(saved["memory.size"]) > 0
    assert torch.equal(agent.memory.records().state.latent, saved["memory.latent"][: agent.memory.size])


# Tensors


def test_tensors_come_back(trained_run: Path):
    agent, other = load(trained_run, "cpu"), born(tiny(seed=9))[0]
    names = tensors(agent)
    assert any(not torch.equal(v, tensors(other)[k]) for k, v in names.items())
    load_tensors(other, {**names, "optimiser.0.step": torch.zeros(1)})
    assert all(torch.equal(v, tensors(other)[k]) for k, v in names.items())


def test_weights_of_another_size_are_refused_with_the_module(trained_run: Path):
    config = tiny()
    other = born(dataclasses.replace(config, actor=dataclasses.replace(config.actor, hidden=5)))[0]
    with pytest.raises(UserError, match="configuration of actor"):
        load_tensors(other, tensors(load(trained_run, "cpu")))


def test_loaded_tensors_renew_the_goal(trained_run: Path):
    """Also in the middle of an episode."""
    agent, environment = born(tiny(seed=9))
    goal = as_observation(environment.truth.observe(environment.truth.reset(np.random.default_rng(0), 2)))
    agent.set_goal(goal)
    agent.act(goal)
    load_tensors(agent, tensors(load(trained_run, "cpu")))
    found = agent.act(goal)[1].directive.goal
    assert torch.equal(found.state.latent, agent.perception.encode(agent.sense(goal)[0]).latent)


def test_a_memory_comes_back(trained_run: Path):
    agent, other = load(trained_run, "cpu"), born(tiny())[0]
    load_memory(other, memory_tensors(agent))
    assert memory_tensors(agent).keys() == memory_tensors(other).keys()
    assert all(torch.equal(v, memory_tensors(other)[k]) for k, v in memory_tensors(agent).items())
    load_memory(other, tensors(agent))
    assert other.memory.size == agent.memory.size, "without a memory among the tensors nothing changes"


def test_an_empty_memory_fits_any_capacity():
    agent, other = born(tiny())[0], born(tiny())[0]
    other.memory = EpisodicMemory(dataclasses.replace(other.memory.config, capacity=3))
    load_memory(other, memory_tensors(agent))
    assert other.memory.size == 0


# Building


@pytest.mark.parametrize("make", [tiny, tiny_maze])
def test_the_seed_decides_the_weights_whatever_was_drawn_before(make):
    agents = []
    for seed in (1, 1, 2):
        torch.rand(3)
        agents.append(born(make(seed=seed))[0])
    same, again, other = (tensors(a) for a in agents)
    assert all(torch.equal(same[k], again[k]) for k in same)
    assert any(not torch.equal(same[k], other[k]) for k in same)
    states = [a.generator.get_state() for a in agents]
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


def test_without_a_critic_or_without_drives_the_agent_plans_by_what_there_is():
    config = tiny()
    without = dataclasses.replace(config, critic=dataclasses.replace(config.critic, enabled=False))
    nothing = dataclasses.replace(config, cost=dataclasses.replace(config.cost, drives=()))
    assert born(config)[0].cost.critic is not None
    for case, names in ((without, ["goal"]), (nothing, [])):
        agent, environment = born(case)
        seen = as_observation(environment.truth.observe(environment.truth.reset(np.random.default_rng(0), 2)))
        agent.set_goal(seen)
        decision = agent.act(seen)[1]
        assert agent.cost.critic is None and list(decision.plan_cost.drives) == names
        assert decision.plan.energy.isfinite().all()


def test_the_critic_has_a_head_for_each_drive_with_its_weight_and_floor():
    config = tiny_maze()
    chosen = dataclasses.replace(
        config.cost, drives=("goal", "effort"), weights={"effort": 0.3}, floors={"effort": 0.1}
    )
    critic = born(dataclasses.replace(config, cost=chosen))[0].cost.critic
    assert critic.names == ("goal", "effort")
    assert [(d.weight, d.floor) for d in critic.drives] == [(1.0, 0.0), (0.3, 0.1)]
    assert critic.drives[0].body.goal_scale == config.cost.goal_scale


def test_an_unknown_drive_is_named():
    config = tiny()
    with pytest.raises(ValueError, match=r"unknown drive 'gaol'.*goal, effort, contact"):
        born(dataclasses.replace(config, cost=dataclasses.replace(config.cost, drives=("gaol",))))


def test_devices_that_do_not_exist_are_refused():
    assert pick_device("cpu") == torch.device("cpu")
    for name in ("cuda:77", "gpu"):
        with pytest.raises(UserError, match=f"{name}.*--device"):
            pick_device(name)


def test_an_agent_is_born_on_its_device():
    config = tiny()
    agent = build(config, born(config)[1].spec, "meta")
    assert agent.device == torch.device("meta")
    assert {v.device.type for v in tensors(agent).values()} == {"meta"}


# The spec


@pytest.mark.parametrize("make", [tiny, tiny_maze])
def test_a_spec_comes_back_from_plain_data(make):
    spec = born(make())[1].spec
    assert EnvSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"observation": {}},
        {"observation": {}, "actions": {"kind": "words"}},
        {"observation": {"smell": 1}, "actions": {"kind": "box", "low": [], "high": []}},
    ],
)
def test_what_is_no_spec_is_refused(broken):
    with pytest.raises(ValueError, match=r"spec of an environment|unknown kind"):
        EnvSpec.from_json(broken)
