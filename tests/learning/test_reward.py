"""Promise: the environment's reward is learned only where it is asked for, and then ranks imagined futures."""

from __future__ import annotations

from dataclasses import replace

import torch

from agent.build import build, tensors
from agent.config import Config
from agent.derive import derive
from agent.interaction.environment import Environment, environment_of
from agent.interaction.explore import explore
from agent.interaction.replay import Replay
from agent.interaction.scaling import fitted
from agent.learning.reward import RewardUpdate
from agent.learning.schedules import offline
from agent.learning.trainer import updates_of
from modules.critic import RewardPredictor
from modules.types import Imagined, Situation, State, Task


def rewarded(steps: int = 1500, task: str = "reward") -> tuple[Config, Environment, Replay]:
    base = Config(env="Pendulum-v1", threads=1)
    environment = environment_of(base)
    config, _ = derive(base, environment, task)
    learn = replace(config.learn, world_model_steps=1, reward_steps=300, batch=16)
    config = replace(config, learn=learn, collect=replace(config.collect, steps=steps))
    return config, environment, explore(config.collect, environment, 1, 0, rewards=task == "reward")


def test_rewards_are_summed_over_blocks_and_kept_only_on_demand():
    _, _, replay = rewarded(200)
    assert replay.rewards is not None and replay.rewards.shape == (replay.episodes, replay.length)
    assert bool((replay.rewards <= 0).all()) and float(replay.rewards.min()) < -1, "Pendulum's own"
    assert rewarded(200, "pendulum-upright")[2].rewards is None


def test_a_learned_reward_ranks_states_as_the_environment_does():
    config, environment, replay = rewarded()
    agent = build(config, fitted(environment.spec, replay))
    reward = agent.cost.reward
    assert isinstance(reward, RewardPredictor) and not agent.cost.status()["reward_trained"]
    offline([u for u in updates_of(agent, replay, config) if isinstance(u, RewardUpdate)], replay, config)
    assert agent.cost.status()["reward_trained"] == 1
    states = agent.perception.encode_window(replay.observe(torch.arange(60), slice(1, None)))
    imagined = Imagined(states, replay.actions[:60])
    situation = Situation(states[:, 0], Task(), None, agent.status())
    directive = agent.configurator.configure(situation)
    with torch.no_grad():
        cost = agent.cost.trajectory(imagined, directive).critic
    assert replay.rewards is not None
    pairs = torch.stack([cost.flatten(), -replay.rewards[:60].flatten()])
    assert float(torch.corrcoef(pairs)[0, 1]) > 0.9


def test_neither_perception_nor_world_model_sees_a_reward():
    """The same weights with the reward asked for, and without."""
    weights = []
    for task in ("reward", "pendulum-upright"):
        config, environment, replay = rewarded(200, task)
        agent = build(config, fitted(environment.spec, replay))
        offline([u for u in updates_of(agent, replay, config) if u.name == "world_model"], replay, config)
        weights.append({k: v for k, v in tensors(agent).items() if k.startswith(("perception", "world_model"))})
    assert all(torch.equal(v, weights[1][k]) for k, v in weights[0].items())


def test_the_cost_of_a_reward_runs_from_the_best_to_the_worst_that_was_seen():
    predictor = RewardPredictor(2, 1, 1)
    predictor.best.fill_(3.0)
    predictor.worst.fill_(-1.0)
    assert predictor.cost(torch.tensor([3.0, 1.0, -1.0])).tolist() == [0.0, 0.5, 1.0]
    state = State(torch.zeros(4, 5, 2), torch.zeros(4, 5, 1))
    assert predictor(state, torch.zeros(4, 5, 1)).shape == (4, 5)
