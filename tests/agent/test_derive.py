"""Promise: an environment without a preset gets settings that fit, each with a reason, and a purpose said plainly."""

from __future__ import annotations

import dataclasses

import pytest

from agent.build import build
from agent.config import Config, check
from agent.derive import derive, explained, purpose
from agent.errors import UserError
from agent.interaction.environment import environment_of

ENVS = ("Pendulum-v1", "CartPole-v1", "HalfCheetah-v5", "InvertedPendulum-v5", "MountainCar-v0")


@pytest.mark.parametrize("env", ENVS)
def test_what_is_derived_can_be_built_and_is_explained(env: str):
    base = Config(env=env, seed=3, threads=1)
    environment = environment_of(base)
    config, reasons = derive(base, environment)
    check(config)
    build(config, environment.spec)
    assert (config.env, config.seed, config.threads) == (env, 3, 1)
    assert config.collect.length * config.world_model.action_block <= (environment.max_steps or 10**9)
    rows = explained(config, reasons)
    assert all(row["why"] and row["value"] for row in rows) and len({row["setting"] for row in rows}) == len(rows)
    assert derive(base, environment)[0] == config, "the same settings every time"


def test_an_imagined_step_takes_about_as_long_everywhere():
    found = {}
    for env in ("Pendulum-v1", "CartPole-v1", "Reacher-v5"):
        environment = environment_of(Config(env=env))
        found[env] = derive(Config(env=env), environment)[0].world_model.action_block
    assert found == {"Pendulum-v1": 1, "CartPole-v1": 1, "Reacher-v5": 2}


@pytest.mark.parametrize(
    ("env", "task", "goal", "drives", "says"),
    [
        ("Pendulum-v1", "", (), ("pendulum-upright", "survive"), "known task"),
        ("MountainCar-v0", "", (), ("mountain-car-flag",), "known task"),  # its end is what is wanted
        ("Pendulum-v1", "reward", (), ("reward",), "reward"),
        ("CartPole-v1", "cartpole-left", (), ("cartpole-left", "survive"), "cartpole-left"),
        ("CartPole-v1", "", ("position=1",), ("goal",), "position=1"),
        ("TwoRooms-v0", "", (), ("goal",), "own goal"),
    ],
)
def test_what_is_wanted(env: str, task: str, goal: tuple[str, ...], drives: tuple[str, ...], says: str):
    config = Config(env=env, goal=goal)
    found, told = purpose(environment_of(config), task, goal)
    assert found == drives and says in told


@pytest.mark.parametrize(
    ("task", "goal", "says"),
    [
        ("pendulum-uprigth", (), "did you mean 'pendulum-upright'"),
        ("goal", (), "gives no goal of its own"),
        ("pendulum-upright", ("cos_angle=1",), "ask for different things"),
    ],
)
def test_a_purpose_that_cannot_be_is_refused(task: str, goal: tuple[str, ...], says: str):
    environment = environment_of(Config(env="Pendulum-v1"))
    with pytest.raises(UserError, match=says):
        purpose(environment, task, goal)


def test_a_goal_in_readings_aims_the_spec():
    environment = environment_of(Config(env="CartPole-v1", goal=("angle=0.1", "position=0.5")))
    assert environment.wanted == {"angle": 0.1, "position": 0.5}
    names = environment.spec.observation.proprio_names
    assert [names[i] for i in environment.spec.observation.goal_proprio] == ["angle", "position"]
    with pytest.raises(UserError, match="did you mean 'angle'"):
        environment_of(Config(env="CartPole-v1", goal=("agle=1",)))
    with pytest.raises(UserError, match="name=value"):
        environment_of(Config(env="CartPole-v1", goal=("angle",)))
    with pytest.raises(UserError, match="name=value"):
        environment_of(Config(env="CartPole-v1", goal=("angle=nan",)))


def test_goals_get_a_critic_and_costs_a_longer_plan():
    cost, goal = (
        derive(config, environment_of(config))[0]
        for config in (Config(env="CartPole-v1"), Config(env="CartPole-v1", goal=("position=1",)))
    )
    assert not cost.critic.enabled and cost.learn.policy_steps == 0 and cost.configurator.horizon_without_critic >= 15
    assert goal.critic.enabled and goal.learn.policy_steps > 0
    assert dataclasses.replace(cost, env="x") != dataclasses.replace(goal, env="x")
