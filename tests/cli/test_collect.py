"""`collect`: episodes in a folder, who acted, and what an interruption leaves."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import signal
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch

from agent.build import build
from agent.cli import collect
from agent.interaction.environment import open_environment
from agent.interaction.episodes import recorded
from agent.interaction.scaling import fitted
from agent.spec import as_tensors
from agent.storage.dataset import Dataset, DatasetWriter, describe
from agent.storage.run import Run
from tests.helpers import born, tiny_maze

PENDULUM = ("collect", "--env", "Pendulum-v1", "--env-options", "max_episode_steps=7")
QUICK = (*PENDULUM, "--episodes", 3)


def one_line(code: int, out: str, err: str) -> str:
    assert code == 2 and not out and err.startswith("error: ") and err.count("\n") == 1, (code, out, err)
    return err


# What is recorded


def test_as_many_episodes_as_asked_for_with_their_provenance(call, tmp_path):
    code, out, err = call(*PENDULUM, "--episodes", 19, "--seed", 4, "--out", tmp_path / "data", "--json")
    assert code == 0, err
    told, dataset = json.loads(out), Dataset.open(tmp_path / "data")
    assert told == describe(tmp_path / "data") == dataset.describe()
    assert [e.length for e in dataset] == [7] * 19 and told["steps"] == 133
    assert told["actor"] == "random explorer" and told["seed"] == 4 and told["env"] == "Pendulum-v1"
    assert told["interrupted"] is False and told["env_options"] == "max_episode_steps=7"
    assert len({tuple(e.sensors[0]) for e in dataset}) == 19


def test_people_are_shown_the_provenance(call, tmp_path):
    code, out, _ = call(*QUICK, "--out", tmp_path / "data")
    for word in ("random explorer", "Pendulum-v1", "episodes", describe(tmp_path / "data")["sha256"], "numpy"):
        assert code == 0 and word in out


def test_what_is_recorded_follows_from_the_seed(call, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert call(*QUICK, "--seed", seed, "--out", tmp_path / name)[0] == 0
    one, same, other = (describe(tmp_path / name)["sha256"] for name in "abc")
    assert one == same != other


def test_a_seed_of_an_episode_is_that_of_its_reset(call, tmp_path):
    assert call(*PENDULUM, "--episodes", 10, "--out", tmp_path / "data")[0] == 0
    dataset, env = Dataset.open(tmp_path / "data"), gym.make("Pendulum-v1", max_episode_steps=7)
    seeds = [e.seed for e in dataset]
    assert seeds == [*range(seeds[0], seeds[0] + 8), -1, -1]
    for episode in list(dataset)[:8]:
        np.testing.assert_array_equal(env.reset(seed=episode.seed)[0], episode.sensors[0, :3])
        for t, action in enumerate(episode.actions):
            seen, reward, *_ = env.step(action)
            np.testing.assert_array_equal(seen, episode.sensors[t + 1, :3])
            assert reward == episode.rewards[t]
        assert not episode.sensors[:, 3].any(), "it was cut off, and did not end"
    env.close()


@pytest.mark.parametrize("env", ["TwoRooms-v0", "PointMaze-v0"])
def test_environments_of_this_project_are_recorded(call, tmp_path, env):
    assert call("collect", "--env", env, "--episodes", 2, "--out", tmp_path / "data")[0] == 0
    environment = open_environment(env, {})
    found = recorded(str(tmp_path / "data"), environment, {})
    assert environment.truth is not None
    assert [(e.length, e.seed) for e in found.episodes] == [(environment.make(1).max_steps, -1)] * 2


# Who acts


def scaled_by_data(spec):
    """The spec as an exploration scales it."""
    values = torch.rand(50, 3, len(spec.observation.sensor_low), generator=torch.Generator().manual_seed(0))
    return fitted(spec, SimpleNamespace(sensors=values))


def run_of(folder, spec=None, **changes):
    """A run whose agent has learned nothing; its folder is as training leaves it."""
    config = tiny_maze(**changes)
    agent = born(config)[0] if spec is None else build(config, spec)
    weights = {f"{m}.{k}": v for m, module in agent.modules().items() for k, v in module.state_dict().items()}
    with Run.create_or_resume(folder, dataclasses.asdict(config), ["train"]) as run:
        run.resume()
        run.save_checkpoint(1, weights, {"spec": agent.spec.to_json()})
    return folder


def test_the_agent_of_a_run_acts(call, tmp_path):
    run = run_of(tmp_path / "run", env="Pendulum-v1", env_options=())
    code, out, err = call(*QUICK, "--actor", run, "--out", tmp_path / "data", "--json")
    assert code == 0, err
    assert json.loads(out)["actor"] == f"agent of {run}"
    assert call(*QUICK, "--out", tmp_path / "other")[0] == 0
    mine, others = Dataset.open(tmp_path / "data"), Dataset.open(tmp_path / "other")
    for a, b in zip(mine, others, strict=True):
        assert np.array_equal(a.sensors[0], b.sensors[0]) and not np.array_equal(a.actions, b.actions)


def test_an_agent_of_another_environment_is_refused(call, tmp_path):
    run = run_of(tmp_path / "run")
    said = one_line(*call(*QUICK, "--actor", run, "--out", tmp_path / "data"))
    assert "cannot act in Pendulum-v1" in said and "--env-options" in said and not (tmp_path / "data").exists()


def test_an_agent_that_scaled_its_sensors_by_what_it_saw_acts_in_its_environment(call, tmp_path):
    """CartPole declares no limits of its speeds, so training has taken them from the data."""
    spec = open_environment("CartPole-v1", {}).spec
    assert np.isinf(spec.observation.sensor_high[1])
    run = run_of(tmp_path / "run", scaled_by_data(spec), env="CartPole-v1", env_options=())
    arguments = ("collect", "--env", "CartPole-v1", "--episodes", 2, "--actor", run, "--out", tmp_path / "data")
    code, _, err = call(*arguments)
    assert code == 0, err
    assert len(list(Dataset.open(tmp_path / "data"))) == 2


@pytest.mark.parametrize("acts", ["random", "agent"])
def test_choices_are_recorded_as_the_agent_knows_them(call, tmp_path, acts):
    actor = "random" if acts == "random" else run_of(tmp_path / "run", env="CartPole-v1", env_options=())
    arguments = ("collect", "--env", "CartPole-v1", "--episodes", 3, "--actor", actor, "--out", tmp_path / "data")
    assert call(*arguments)[0] == 0
    env = gym.make("CartPole-v1")
    for episode in Dataset.open(tmp_path / "data"):
        assert episode.actions.shape == (episode.length, 2) and (episode.actions.sum(1) == 1).all()
        assert episode.sensors[:, 4].tolist() == [0.0] * episode.length + [1.0], "it fell, and the agent is told"
        np.testing.assert_array_equal(env.reset(seed=episode.seed)[0], episode.sensors[0, :4])
        for t, action in enumerate(episode.actions.argmax(1)):
            np.testing.assert_array_equal(env.step(action)[0], episode.sensors[t + 1, :4])
    env.close()


def test_what_is_recorded_is_what_the_wrappers_show(call, tmp_path):
    arguments = (*QUICK, "--wrappers", "gymnasium.wrappers:FlattenObservation", "--out", tmp_path / "data")
    assert call(*arguments)[0] == 0
    names = Dataset.open(tmp_path / "data").spec["observation"]["sensor_names"]
    assert list(names) == ["obs[0]", "obs[1]", "obs[2]", "ended"], "a wrapper may have changed what the numbers mean"


def test_an_agent_is_given_the_goals_of_its_episodes(call, tmp_path, monkeypatch):
    """So that what it does has a purpose, and the rewards are those of its goal."""
    maze, goals, firsts = open_environment("PointMaze-v0", {}), [], []

    def act(observation, is_first):
        firsts.append(is_first.copy())
        return None, SimpleNamespace(action=torch.zeros(len(is_first), 2))

    fake = SimpleNamespace(
        spec=maze.spec, world_model=SimpleNamespace(action_block=4), set_goal=lambda g: goals.append(g), act=act
    )
    monkeypatch.setattr(collect, "load", lambda *_: fake)
    assert call("collect", "--env", "PointMaze-v0", "--episodes", 3, "--actor", "x", "--out", tmp_path / "d")[0] == 0
    assert len(goals) == sum(f.all() for f in firsts) == 1
    assert as_tensors(goals[0]).sensors.shape == (3, len(maze.spec.observation.sensor_low))


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*PENDULUM, "--episodes", 0), "--episodes must be 1 or more"),
        ((*QUICK, "--seed", -1), "--seed must be"),
        ((*QUICK, "--actor", "runs/none"), "there is no run runs/none"),
        (("collect", "--env", "Pendulm-v1"), "did you mean 'Pendulum-v1'"),
        (("collect", "--env", "Pendulum-v1", "--env-options", "x"), "name=value"),
    ],
)
def test_a_mistake_costs_nothing(call, tmp_path, arguments, words):
    said = one_line(*call(*arguments, "--out", tmp_path / "data"))
    assert words in said and not (tmp_path / "data").exists()


def test_a_folder_that_holds_something_is_refused(call, tmp_path):
    assert call(*QUICK, "--out", tmp_path / "data")[0] == 0
    before = describe(tmp_path / "data")
    assert "not empty" in one_line(*call(*QUICK, "--out", tmp_path / "data"))
    assert describe(tmp_path / "data") == before


class Faulty(gym.Env):
    """Fails in the first step of as many episodes as it is told to, or forever."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    left = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.time += 1
        if self.time == 1 and Faulty.left:
            Faulty.left -= 1
            raise RuntimeError("the arm fell off")
        return np.zeros(1, np.float32), 0.0, False, self.time >= 3, {}


@pytest.fixture
def faulty():
    gym.register("Faulty-v0", Faulty)
    yield "Faulty-v0"
    gym.registry.pop("Faulty-v0")


def test_episodes_in_which_the_environment_failed_are_counted_and_replaced(call, tmp_path, faulty):
    Faulty.left = 5
    code, out, err = call("collect", "--env", faulty, "--episodes", 4, "--out", tmp_path / "data", "--json")
    assert code == 0, err
    assert (json.loads(out)["episodes"], json.loads(out)["faults"]) == (4, 5)
    assert [e.length for e in Dataset.open(tmp_path / "data")] == [3] * 4


def test_an_environment_that_always_fails_is_named(call, tmp_path, faulty):
    Faulty.left = -1
    code, _, err = call("collect", "--env", faulty, "--episodes", 4, "--out", tmp_path / "data")
    assert code == 2 and "the arm fell off" in err and "fix the environment" in err and "Traceback" not in err


# Ctrl-C


def interrupting(monkeypatch, after: int, times: int = 1) -> None:
    """Ctrl-C when so many episodes are written, or at the first step."""
    append, seen = DatasetWriter.append, []

    def then(self, episode):
        append(self, episode)
        seen.append(episode)
        if len(seen) == after:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(DatasetWriter, "append", then)


def test_an_interruption_keeps_the_episodes_that_are_over(call, tmp_path, monkeypatch):
    interrupting(monkeypatch, after=5)
    before = signal.getsignal(signal.SIGINT)
    code, out, err = call(*PENDULUM, "--episodes", 1000, "--out", tmp_path / "data", "--json")
    assert code == 130 and "of 1000 episodes that were over by then" in err and "Traceback" not in err
    told, kept = json.loads(out), list(Dataset.open(tmp_path / "data"))
    assert told["interrupted"] is True and told["episodes"] == len(kept) == 8, "those of the same step are over too"
    assert all(e.length == 7 for e in kept)
    assert signal.getsignal(signal.SIGINT) == before


def test_a_second_interruption_does_not_wait(call, tmp_path, monkeypatch):
    interrupting(monkeypatch, after=5, times=2)
    monkeypatch.setattr("agent.storage.dataset.FILE_BYTES", 1)
    code, _, err = call(*PENDULUM, "--episodes", 1000, "--out", tmp_path / "data")
    assert code == 130 and "Traceback" not in err
    assert "half-written" in one_line(*call(*QUICK, "--out", tmp_path / "data"))


def test_an_interruption_before_the_first_end_leaves_nothing_in_the_way(call, tmp_path, monkeypatch):
    step = gym.wrappers.TimeLimit.step

    def interrupted(self, action):
        os.kill(os.getpid(), signal.SIGINT)
        return step(self, action)

    with monkeypatch.context() as patch:
        patch.setattr(gym.wrappers.TimeLimit, "step", interrupted)
        patch.setattr(collect, "COPIES", 1)
        code, out, err = call(*QUICK, "--out", tmp_path / "data", "--json")
    assert code == 130 and not out and "interrupted" in err and not (tmp_path / "data" / "dataset.json").exists()
    assert call(*QUICK, "--out", tmp_path / "data")[0] == 0


# Minari


minari = pytest.mark.skipif(
    importlib.util.find_spec("minari") is None or importlib.util.find_spec("h5py") is None,
    reason="needs the extra minari",
)


@minari
def test_episodes_are_written_as_a_minari_dataset_too(call, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    arguments = (*QUICK, "--minari", "pendulum/random-v0", "--json")
    code, out, err = call(*arguments, "--out", tmp_path / "data")
    assert code == 0 and json.loads(out)["minari"] == "pendulum/random-v0", err
    options = {"max_episode_steps": 7}
    environment = open_environment("Pendulum-v1", options)
    found = recorded("minari:pendulum/random-v0", environment, options)
    for mine, theirs in zip(Dataset.open(tmp_path / "data"), found.episodes, strict=True):
        assert mine.seed == theirs.seed
        for name, x in mine.arrays().items():
            np.testing.assert_array_equal(theirs.arrays()[name], x)
    said = one_line(*call(*arguments, "--out", tmp_path / "again"))
    assert "another version" in said and not (tmp_path / "again").exists(), "found out before the work"
