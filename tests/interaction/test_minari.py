"""Minari datasets: what is exported comes back bit for bit, and reading those of others runs none of their code."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from agent.config import Config
from agent.errors import DamagedFile, UserError
from agent.interaction.driver import drive
from agent.interaction.environment import Environment, open_environment
from agent.interaction.episodes import Episodes, recorded
from agent.interaction.recorded import replay_from
from agent.spec import EnvSpec
from agent.storage.dataset import Dataset, DatasetWriter, RecordedEpisode
from envs.senses import Senses
from modules.actions import BoxActions
from modules.types import ObservationSpec

minari = pytest.importorskip("minari", reason="needs the extra minari")
pytest.importorskip("h5py")

from minari.data_collector.episode_buffer import EpisodeBuffer  # noqa: E402

from agent.interaction import minari_data  # noqa: E402
from agent.interaction.minari_data import from_minari, to_minari  # noqa: E402


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the Minari datasets of these tests lie."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


class Screen(gym.Env):
    """Pixels of 40 x 32, which Minari would compress with loss; sensors too, if asked for."""

    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, both: bool) -> None:
        self.both = both
        pixels, sensors = spaces.Box(0, 255, (40, 32, 3), np.uint8), spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.observation_space = spaces.Dict({"pixels": pixels, "sensors": sensors}) if both else pixels

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.time = 0
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict]:
        self.time += 1
        terminated = self.time > 2 and self.np_random.random() < 0.4
        return self._observe(), self.np_random.standard_normal(), terminated, self.time >= 7, {}

    def _observe(self) -> Any:
        pixels = self.np_random.integers(0, 256, (40, 32, 3), np.uint8)
        return {"pixels": pixels, "sensors": self.np_random.standard_normal(2)} if self.both else pixels


def screen(both: bool) -> Environment:
    numbers = ((-np.inf,) * 2, (np.inf,) * 2) if both else ((), ())
    spec = EnvSpec(ObservationSpec((40, 32, 3), *numbers), BoxActions((-1.0,) * 2, (1.0,) * 2))
    return Environment(
        "Screen-v0", spec, lambda n: SyncVectorEnv([lambda: Screen(both)] * n, autoreset_mode=AutoresetMode.NEXT_STEP)
    )


WORLDS = {
    "sensors": lambda: open_environment("Pendulum-v1", {"max_episode_steps": 9}),
    "pixels": lambda: screen(False),
    "both": lambda: screen(True),
}
OPTIONS = {"sensors": {"max_episode_steps": 9}}


def collected(environment: Environment, folder: Path, options: dict, count: int = 6) -> Dataset:
    spec, rng = environment.spec, np.random.default_rng(0)
    envs, size = environment.make(2), environment.spec.actions.size
    with DatasetWriter(folder, environment.name, options, spec.to_json(), {"actor": "noise", "seed": 5}) as writer:
        episodes = Episodes(writer.append, count, seeds=[5, 6])
        act = lambda _: (rng.uniform(-1, 1, (2, size)).astype(np.float32), None)  # noqa: E731
        drive(envs, act, lambda _: episodes.complete, [episodes.add], seed=5)
    envs.close()
    return Dataset.open(folder)


def same(a: RecordedEpisode, b: RecordedEpisode) -> bool:
    x, y = a.arrays(), b.arrays()
    equal = all(x[k].dtype == y[k].dtype and x[k].shape == y[k].shape and x[k].tobytes() == y[k].tobytes() for k in x)
    return x.keys() == y.keys() and equal and a.seed == b.seed


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> tuple[Environment, dict]:
    return WORLDS[request.param](), OPTIONS.get(request.param, {})


# Round trips


def test_what_is_exported_comes_back_bit_for_bit(world, tmp_path):
    environment, options = world
    dataset = collected(environment, tmp_path / "data", options)
    to_minari(dataset, "test/mine-v0")
    found = recorded("minari:test/mine-v0", environment, options)
    for _ in range(2):
        assert all(same(a, b) for a, b in zip(dataset, found.episodes, strict=True))
    assert {e.seed for e in found.episodes} == {5, 6, -1}


def test_provenance_comes_back(world, tmp_path):
    environment, options = world
    dataset = collected(environment, tmp_path / "data", options)
    to_minari(dataset, "test/mine-v0")
    about = recorded("minari:test/mine-v0", environment, options).about
    assert about["data"] == "minari:test/mine-v0" and about["jpeg"] is False and len(about["sha256"]) == 64
    for key in ("actor", "seed", "env", "env_options", "episodes", "steps", "terminated", "faults", "versions"):
        assert about[key] == dataset.describe()[key]
    assert all(isinstance(v, str | int | float) for v in about.values())


def test_minari_itself_reads_what_is_exported(tmp_path):
    dataset = collected(WORLDS["sensors"](), tmp_path / "data", OPTIONS["sensors"])
    to_minari(dataset, "mine-v3")
    found = minari.load_dataset("mine-v3")
    assert (found.total_episodes, found.total_steps) == (len(dataset), dataset.steps)
    env = found.recover_environment()
    assert env.spec.max_episode_steps == 9
    perceived = Senses(env).observation_space
    assert isinstance(perceived, spaces.Dict) and perceived["sensors"] == found.observation_space
    env.close()
    for mine, theirs in zip(dataset, found, strict=True):
        np.testing.assert_array_equal(mine.sensors, theirs.observations)
        np.testing.assert_array_equal(mine.truncated, theirs.truncations)
    assert set(minari.list_local_datasets()) == {"mine-v3"}


def test_environments_of_this_project_are_exported_too(tmp_path):
    environment = open_environment("PointMaze-v0", {"layout": "u"})
    dataset = collected(environment, tmp_path / "data", {"layout": "u"}, 2)
    to_minari(dataset, "maze-v0")
    found = recorded("minari:maze-v0", environment, {"layout": "u"})
    assert all(same(a, b) for a, b in zip(dataset, found.episodes, strict=True))
    with pytest.raises(UserError, match=r'other --env-options .*- layout: "u"; \+ layout: "medium"'):
        recorded("minari:maze-v0", environment, {"layout": "medium"})


def test_actions_of_another_form_go_out_and_come_back(tmp_path):
    """One of two things to do, which the agent has as two numbers."""
    dataset = collected(screen(False), tmp_path / "data", {}, 2)
    to_minari(dataset, "things-v0", spaces.Discrete(2), lambda a: a.argmax(-1))
    assert minari.load_dataset("things-v0")[0].actions.dtype == np.int64
    with pytest.raises(UserError, match=r"has actions Discrete\(2\)"):
        from_minari("things-v0")
    for mine, theirs in zip(dataset, from_minari("things-v0", action_of=lambda a: np.eye(2)[a]), strict=True):
        np.testing.assert_array_equal(theirs.actions, np.eye(2)[mine.actions.argmax(-1)])


# Datasets of others


def theirs(observations: Any, space: spaces.Space, actions: Any = None, name: str = "theirs-v0", **options: Any) -> str:
    """One episode of three steps as somebody else writes it."""
    acts = spaces.Box(-2, 2, (1,), np.float32)
    three = EpisodeBuffer(
        observations=observations,
        actions=np.zeros((3, 1), np.float32) if actions is None else actions,
        rewards=np.array([0.1, 0.2, 0.3]),
        terminations=np.array([False, False, True]),
        truncations=np.zeros(3, bool),
        infos={},
    )
    with pytest.warns(UserWarning):  # of authors and permalinks
        minari.create_dataset_from_buffers(
            name, [three, three], observation_space=space, action_space=acts, algorithm_name="SAC", **options
        )
    return name


def test_numbers_of_double_precision_are_rounded_to_those_that_the_agent_perceives(tmp_path):
    exact = np.random.default_rng(0).standard_normal((4, 3))
    name = theirs(exact, spaces.Box(-np.inf, np.inf, (3,), np.float64), env="Pendulum-v1")
    for episode in from_minari(name):
        np.testing.assert_array_equal(episode.sensors, exact.astype(np.float32))
        assert episode.rewards.tolist() == [0.1, 0.2, 0.3] and episode.seed == -1


def test_episodes_of_others_are_learned_from_as_the_agent_perceives_them():
    """The environment's own numbers, and that the episode has ended, which nobody else records."""
    exact = np.random.default_rng(0).standard_normal((4, 3))
    name = theirs(exact, spaces.Box(-np.inf, np.inf, (3,), np.float64), env="Pendulum-v1")
    base = Config(env="Pendulum-v1", data=f"minari:{name}")
    config = replace(
        base, collect=replace(base.collect, length=3), world_model=replace(base.world_model, action_block=1)
    )
    replay, about = replay_from(config, open_environment("Pendulum-v1", {}), rewards=True)
    assert replay.sensors is not None and replay.rewards is not None
    for sensors, rewards in zip(replay.sensors.numpy(), replay.rewards.tolist(), strict=True):
        np.testing.assert_array_equal(sensors[:, :3], exact.astype(np.float32))
        assert sensors[:, 3].tolist() == [0, 0, 0, 1] and rewards == pytest.approx([0.1, 0.2, 0.3])
    assert len(replay) == 2 and replay.actions.shape == (2, 3, 1, 1) and replay.steps == 6
    assert about["actor"] == "SAC" and about["env"] == "Pendulum-v1"


def test_observations_of_another_form_are_read_by_a_function():
    raw = {"achieved": np.arange(4.0)[:, None], "image": np.zeros((4, 8, 6, 3), np.uint8)}
    space = spaces.Dict(
        {"achieved": spaces.Box(-9, 9, (1,), np.float64), "image": spaces.Box(0, 255, (8, 6, 3), np.uint8)}
    )
    name = theirs(raw, space)
    with pytest.raises(UserError, match="perceives pixels and sensors"):
        from_minari(name)
    found = from_minari(name, lambda x: {"sensors": x["achieved"], "pixels": np.moveaxis(x["image"], -1, 1)})
    first = next(iter(found))
    assert first.sensors[:, 0].tolist() == [0, 1, 2, 3] and first.pixels.shape == (4, 3, 8, 6)


def test_pictures_that_were_compressed_are_told_in_the_provenance():
    space = spaces.Box(0, 255, (40, 32, 3), np.uint8)
    assert from_minari(theirs(np.zeros((4, 40, 32, 3), np.uint8), space)).about["jpeg"] is True


@pytest.mark.parametrize(("bad", "said"), [(np.nan, "nan"), (1e300, "inf")])
def test_numbers_that_are_not_finite_are_refused_with_their_episode(bad, said):
    numbers = np.zeros((4, 3))
    numbers[2, 1] = bad
    name = theirs(numbers, spaces.Box(-np.inf, np.inf, (3,), np.float64))
    with pytest.raises(UserError, match=f"{name}, episode 0: sensors hold {said} at step 2"):
        list(from_minari(name))


def test_another_environment_is_refused_in_one_line():
    name = theirs(np.zeros((4, 3)), spaces.Box(-1, 1, (3,), np.float64), env="Pendulum-v1")
    maze = open_environment("PointMaze-v0", {})
    with pytest.raises(UserError, match="of Pendulum-v1, not of PointMaze-v0") as error:
        recorded(f"minari:{name}", maze, {})
    assert "\n" not in str(error.value)
    nameless = theirs(np.zeros((4, 3)), spaces.Box(-1, 1, (3,), np.float64), name="nameless-v0")
    with pytest.raises(UserError, match=r"holds actions \(1,\), sensors \(3,\); PointMaze-v0 has actions") as error:
        recorded(f"minari:{nameless}", maze, {})
    assert "\n" not in str(error.value)


# What is refused


def test_a_dataset_that_would_run_code_is_refused(folder, tmp_path):
    """Without spaces Minari makes the environment that the file names."""
    name = theirs(np.zeros((4, 3)), spaces.Box(-1, 1, (3,), np.float64), env="Pendulum-v1")
    path = folder / name / "data" / "metadata.json"
    metadata = json.loads(path.read_text())
    (tmp_path / "trap_module.py").write_text(f"from pathlib import Path; Path({str(tmp_path / 'ran')!r}).touch()")
    spec = {**json.loads(metadata["env_spec"]), "entry_point": "trap_module:Trap"}
    path.write_text(json.dumps({**metadata, "env_spec": json.dumps(spec)}))
    assert len(list(from_minari(name))) == 2, "the name alone does no harm"
    del metadata["observation_space"]
    path.write_text(json.dumps({**metadata, "env_spec": json.dumps(spec)}))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError, match="runs code"):
        patch.syspath_prepend(tmp_path)
        from_minari(name)
    assert not (tmp_path / "ran").exists() and "trap_module" not in sys.modules


def test_a_dataset_that_is_not_here_is_named_with_the_nearest(tmp_path):
    theirs(np.zeros((4, 3)), spaces.Box(-1, 1, (3,), np.float64))
    with pytest.raises(UserError, match=r"did you mean 'theirs-v0'.*minari download their-v0"):
        from_minari("their-v0")
    for name in ("theirs", "../theirs-v0", "a b-v0"):
        with pytest.raises(UserError, match="no id of a Minari dataset"):
            from_minari(name)


def test_a_dataset_that_is_damaged_is_refused(folder):
    name = theirs(np.zeros((4, 3)), spaces.Box(-1, 1, (3,), np.float64))
    path = folder / name / "data" / "main_data.hdf5"
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(DamagedFile, match="is damaged"):
        list(from_minari(name))
    metadata = folder / name / "data" / "metadata.json"
    metadata.write_text(metadata.read_text()[:-9])
    with pytest.raises(DamagedFile, match="is damaged"):
        from_minari(name)


def test_an_existing_dataset_is_not_overwritten(tmp_path, folder):
    dataset = collected(WORLDS["sensors"](), tmp_path / "data", OPTIONS["sensors"], 2)
    to_minari(dataset, "mine-v0")
    before = (folder / "mine-v0" / "data" / "main_data.hdf5").read_bytes()
    with pytest.raises(UserError, match="another version"):
        to_minari(dataset, "mine-v0")
    assert (folder / "mine-v0" / "data" / "main_data.hdf5").read_bytes() == before


def test_an_export_that_fails_leaves_nothing(tmp_path, folder):
    dataset = collected(WORLDS["sensors"](), tmp_path / "data", OPTIONS["sensors"], 2)

    def broken(_: np.ndarray) -> np.ndarray:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        to_minari(dataset, "mine-v0", spaces.Discrete(2), broken)
    assert not (folder / "mine-v0").exists()


@pytest.mark.parametrize("missing", ["minari", "h5py"])
def test_without_the_package_the_extra_is_named(monkeypatch, missing):
    for name in [m for m in sys.modules if m.split(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    for use in (lambda: from_minari("mine-v0"), lambda: minari_data.check_new("mine-v0")):
        with pytest.raises(UserError, match=r"pip install -e '\.\[minari\]'"):
            use()
