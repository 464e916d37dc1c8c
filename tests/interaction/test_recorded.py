"""Promise: what was recorded is learned from as what was explored, from a folder and from Minari."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import run_agent
from agent.config import Config
from agent.derive import derive
from agent.errors import UserError
from agent.interaction.environment import environment_of
from agent.interaction.recorded import replay_from


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few episodes of CartPole."""
    folder = tmp_path_factory.mktemp("data") / "cart"
    assert (
        run_agent.main(["collect", "--env", "CartPole-v1", "--episodes", "6", "--block", "1", "--out", str(folder)])
        == 0
    )
    return folder


def config_of(env: str, data: str) -> Config:
    base = Config(env=env, data=data)
    config, _ = derive(base, environment_of(base))
    return replace(config, data=data, collect=replace(config.collect, length=5))


def test_pieces_of_recorded_episodes_end_as_explored_ones_do(recorded: Path):
    config = config_of("CartPole-v1", str(recorded))
    environment = environment_of(config)
    replay, about = replay_from(config, environment, rewards=True)
    assert about["episodes"] == 6 and about["actor"] == "random explorer" and replay.steps == about["steps"]
    sensors, rewards = replay.sensors, replay.rewards
    assert sensors is not None and rewards is not None
    ended = sensors[..., -1]
    assert int((ended[:, -1] == 1).sum()) == 6, "each episode terminates once, and stays so in its last piece"
    assert bool((ended[:, 1:] >= ended[:, :-1]).all())
    assert float(rewards.sum()) == about["steps"], "a reward of 1 for each step, none in what is filled up"
    assert set(replay.scene.tolist()) == {0}
    assert bool((replay.actions.sum(-1) == 1).all()), "one choice each"


def test_another_environment_is_refused(recorded: Path):
    config = config_of("MountainCar-v0", str(recorded))
    with pytest.raises(UserError, match="CartPole-v1"):
        replay_from(config, environment_of(config))


@pytest.mark.skipif(importlib.util.find_spec("minari") is None, reason="needs the extra minari")
def test_minari_gives_the_same_pieces(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    line = ["collect", "--env", "CartPole-v1", "--episodes", "6", "--block", "1", "--out", str(tmp_path / "again")]
    assert run_agent.main([*line, "--minari", "cart/test-v0"]) == 0
    replays = []
    for data in (str(recorded), "minari:cart/test-v0"):
        config = config_of("CartPole-v1", data)
        replays.append(replay_from(config, environment_of(config), rewards=True)[0])
    one, other = replays
    assert torch.equal(one.sensors, other.sensors) and torch.equal(one.actions, other.actions)
    assert torch.equal(one.rewards, other.rewards) and np.array_equal(one.scene, other.scene)


def test_training_says_where_its_data_come_from(recorded: Path, tmp_path: Path):
    small = ["--learn.world-model-steps", "2", "--collect.length", "5", "--learn.window", "3", "--learn.batch", "8"]
    out = tmp_path / "run"
    line = ["train", "--env", "CartPole-v1", "--data", str(recorded), *small, "--threads", "1", "--out", str(out)]
    assert run_agent.main(line) == 0
    assert '"actor": "random explorer"' in (out / "summary.json").read_text()
