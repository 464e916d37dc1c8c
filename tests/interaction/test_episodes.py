"""Whole episodes are gathered from any environment, in any autoreset mode, and cut into pieces."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st

import agent.interaction.episodes as module
from agent.errors import UserError
from agent.interaction.driver import Moment, Transition, drive, steps
from agent.interaction.environment import Environment, open_environment
from agent.interaction.episodes import Episodes, pieces_of, recorded, replay_of
from agent.storage.dataset import DatasetWriter, RecordedEpisode, check_episode
from tests.interaction.counter import SPACE, counters, failing

LENGTHS = [5, 9, 1, 3]
MODES = pytest.mark.parametrize("mode", list(AutoresetMode))


def acts(seed: int = 0):
    rng = np.random.default_rng(seed)
    return lambda moment: (rng.uniform(SPACE.low, SPACE.high, (len(moment.is_first), 2)).astype(np.float32), None)


def gathered(mode: AutoresetMode, count: int = 60, form: str = "sensors", listener=None, **options: Any) -> list[Any]:
    found: list[RecordedEpisode] = []
    episodes = Episodes(found.append, **options)
    envs = counters(mode, LENGTHS, form, reward=0.5, copy=False)
    try:
        drive(envs, acts(), steps(count), [listener or episodes.add], seed=4)
    finally:
        envs.close()
    return found


def place(episode: RecordedEpisode) -> tuple[int, int]:
    """Which environment and which of its episodes."""
    assert episode.sensors is not None
    return int(episode.sensors[0, 0]), int(episode.sensors[0, 1])


# Gathering


@MODES
def test_every_episode_that_is_over_is_there_once_and_whole(mode):
    found = gathered(mode)
    expected = {}
    for e, length in enumerate(LENGTHS):
        period = length + (mode == AutoresetMode.NEXT_STEP)  # one step more only resets
        expected |= {(e, n): length for n in range(60) if n * period + length <= 60}
    assert {place(episode): episode.length for episode in found} == expected and len(found) == len(expected)
    for number, episode in enumerate(found):
        check_episode(episode, number, "here")
        seen = episode.sensors
        assert (seen[:, :2] == seen[0, :2]).all(), "one environment, one episode"
        assert seen[:, 2].tolist() == [*range(episode.length + 1)], "from the reset to the last observation"
        np.testing.assert_allclose(np.diff(seen[:, 3:], axis=0), episode.actions, atol=1e-5)
        assert (episode.rewards == 0.5).all()
        even = place(episode)[0] % 2 == 0
        assert (episode.terminated[-1], episode.truncated[-1]) == (even, not even)


@MODES
def test_pictures_and_dicts_are_gathered_without_what_the_agent_does_not_perceive(mode):
    for form in ("pixels", "both"):
        found = gathered(mode, form=form)
        assert len(found) > 20
        for episode in found:
            assert episode.pixels.dtype == np.uint8 and episode.pixels[:, 0, 0, 0].tolist() == [
                *range(episode.length + 1)
            ]
            assert (episode.sensors is None) == (form == "pixels")


@MODES
def test_the_first_that_begin_are_gathered_not_the_first_that_end(mode):
    """Else short episodes would be there too often."""
    found = gathered(mode, wanted=6)
    assert sorted(place(episode) for episode in found) == [(0, 0), (1, 0), (2, 0), (2, 1), (2, 2), (3, 0)]
    assert (1, 0) in {place(episode) for episode in found}, "the longest one is waited for"


@MODES
def test_seeds_are_those_of_the_first_reset(mode):
    for episode in gathered(mode, seeds=[4, 5, 6, 7]):
        copy, number = place(episode)
        assert episode.seed == (4 + copy if number == 0 else -1)


def test_an_episode_that_never_ends_is_named(monkeypatch):
    monkeypatch.setattr(module, "LONGEST", 7)
    with pytest.raises(UserError, match="max_episode_steps"):
        gathered(AutoresetMode.NEXT_STEP)


# Episodes in which the environment failed


def gathered_beside_faults(mode: AutoresetMode, **options: Any) -> tuple[Episodes, list[Any]]:
    """Episodes of guarded copies, of which every other episode fails in its third step."""
    found: list[RecordedEpisode] = []
    episodes = Episodes(found.append, **options)
    envs = failing(mode, LENGTHS)
    try:
        drive(envs, acts(), steps(60), [episodes.add], seed=4)
    finally:
        envs.close()
    return episodes, found


@MODES
def test_an_episode_with_a_fault_is_dropped_and_counted(mode):
    episodes, found = gathered_beside_faults(mode)
    for episode in found:
        copy, number = place(episode)
        assert number % 2 == 0 or LENGTHS[copy] < 3, "every other one failed, where it has three steps"
        assert episode.length == LENGTHS[copy]
    assert episodes.dropped > 10 and episodes.count == len(found) > 20
    assert episodes.fault.startswith("raised ") and episodes.steps == sum(episode.length for episode in found)


@MODES
def test_another_episode_takes_the_place_of_a_dropped_one(mode):
    episodes, found = gathered_beside_faults(mode, wanted=20)
    assert len(found) == 20 and episodes.complete and episodes.dropped


def fake(observation: list[float], is_first: bool, before: dict, after: dict, ended: bool, real: bool = True):
    none, yes = np.zeros(2, bool), np.ones(2, bool)
    moment = Moment(np.array([[x] for x in observation], np.float32), yes if is_first else none, before)
    seen = moment.observation + 1
    over = yes if ended else none
    return Transition(moment, np.zeros((2, 1)), None, seen, np.zeros(2), none, over, after, yes if real else none)


def test_what_the_mask_hides_is_no_fault():
    """Gymnasium fills the places of those who wrote nothing, with whatever fits the type."""
    hidden = {"fault": np.array(["left over", "left over"]), "_fault": np.zeros(2, bool)}
    found: list[RecordedEpisode] = []
    Episodes(found.append).add(fake([0, 10], True, {}, hidden, ended=True))
    assert len(found) == 2


# Cutting


def episode(length: int, terminated: bool = False, number: int = 0) -> RecordedEpisode:
    """Observation t shows t, action t is 100 + t, reward t is t + 1."""
    last = np.arange(length) == length - 1
    seen = 1000 * number + np.arange(length + 1)
    return RecordedEpisode(
        actions=100 + np.arange(length, dtype=np.float32)[:, None],
        rewards=1.0 + np.arange(length),
        terminated=last & terminated,
        truncated=last & (not terminated),
        pixels=np.broadcast_to((seen % 256).astype(np.uint8)[:, None, None, None], (length + 1, 1, 1, 2)).copy(),
        sensors=seen.astype(np.float32)[:, None],
    )


REST = np.array([-7.0], np.float32)


def test_an_episode_that_terminates_inside_a_piece_is_filled_up_as_by_hand():
    """Seven steps in pieces of two blocks of three: the second piece begins at step 6, and one step of it is real."""
    found = pieces_of([episode(7, terminated=True)], 2, 3, REST, rewards=True)
    assert found["sensors"][..., 0].tolist() == [[0, 3, 6], [6, 7, 7]]
    assert found["pixels"][:, :, 0, 0, 0].tolist() == [[0, 3, 6], [6, 7, 7]]
    assert found["actions"][..., 0].tolist() == [
        [[100, 101, 102], [103, 104, 105]],
        [[106, -7, -7], [-7, -7, -7]],
    ]
    assert found["rewards"].tolist() == [[1 + 2 + 3, 4 + 5 + 6], [7, 0]]
    assert found["scene"].tolist() == [0, 1]
    assert {k: v.dtype for k, v in found.items() if k != "scene"} == {
        "actions": torch.float32, "pixels": torch.uint8, "sensors": torch.float32, "rewards": torch.float32
    }  # fmt: skip


def test_a_piece_that_truncation_interrupts_is_dropped():
    found = pieces_of([episode(7)], 2, 3, REST)
    assert found["sensors"][..., 0].tolist() == [[0, 3, 6]] and "rewards" not in found
    assert len(pieces_of([episode(5)], 2, 3, REST)["actions"]) == 0
    both = dataclasses.replace(episode(7, terminated=True), truncated=episode(7).truncated)
    assert len(pieces_of([both], 2, 3, REST)["actions"]) == 2, "what has terminated is over, whoever else says so"


@pytest.mark.parametrize("terminated", [True, False])
def test_an_end_between_two_pieces_leaves_nothing_to_fill_up(terminated):
    found = pieces_of([episode(12, terminated)], 2, 3, REST, rewards=True)
    assert found["sensors"][..., 0].tolist() == [[0, 3, 6], [6, 9, 12]]
    assert float(found["rewards"].sum()) == sum(range(1, 13)) and not (found["actions"] == -7).any()


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 30), st.booleans()), min_size=1, max_size=6),
    length=st.integers(1, 4),
    block=st.integers(1, 4),
)
def test_pieces_follow_each_other_and_lose_nothing_but_what_truncation_interrupts(lengths, length, block):
    span = length * block
    given_ = [episode(n, over, i) for i, (n, over) in enumerate(lengths)]
    found = pieces_of(given_, length, block, REST, rewards=True)
    at = 0
    for i, (n, over) in enumerate(lengths):
        count = -(-n // span) if over else n // span
        mine = {k: v[at : at + count] for k, v in found.items()}
        at += count
        kept = n if over else count * span
        acted = mine["actions"].reshape(-1)
        assert acted[:kept].tolist() == [100 + t for t in range(kept)] and (acted[kept:] == -7).all()
        for p in range(count):
            ends = [min(p * span + k * block, n) for k in range(length + 1)]
            assert mine["sensors"][p, :, 0].tolist() == [1000 * i + t for t in ends]
        assert float(mine["rewards"].sum()) == kept * (kept + 1) / 2
    assert len(found["actions"]) == at and found["actions"].shape[1:] == (length, block, 1)


def test_a_replay_holds_the_pieces_of_all_episodes_each_in_a_scene_of_its_own(monkeypatch):
    given_ = [episode(n, n % 2 == 0, n) for n in range(1, 40)]
    at_once = pieces_of(given_, 2, 3, REST, rewards=True)
    monkeypatch.setattr(module, "TOGETHER", 3)
    replay = replay_of(given_, 2, 3, REST, rewards=True)
    assert replay.scene.tolist() == at_once["scene"].tolist() == [*range(len(replay))]
    assert torch.equal(replay.actions, at_once["actions"]) and torch.equal(replay.sensors, at_once["sensors"])
    assert torch.equal(replay.state_dict()["rewards"], at_once["rewards"])


def test_episodes_that_are_too_short_are_named():
    with pytest.raises(UserError, match=r"none of the 3 recorded .* 8 steps of --collect.length 2 blocks of 4"):
        replay_of([episode(7)] * 3, 2, 4, REST)
    with pytest.raises(UserError, match="no recorded episodes"):
        pieces_of([], 2, 4, REST)


# What --data names


def pendulum() -> Environment:
    return open_environment("Pendulum-v1", {})


def data(folder: Path, options: dict | None = None, spec: dict | None = None) -> str:
    size = RecordedEpisode(
        actions=np.zeros((6, 1), np.float32),
        rewards=np.zeros(6),
        terminated=np.zeros(6, bool),
        truncated=np.arange(6) == 5,
        sensors=np.zeros((7, 3), np.float32),
    )
    with DatasetWriter(folder, "Pendulum-v1", options or {}, spec or pendulum().spec.to_json(), {"actor": "me"}) as out:
        out.append(size)
    return str(folder)


def test_a_folder_of_the_environment_is_opened_with_its_provenance(tmp_path):
    found = recorded(data(tmp_path / "data"), pendulum(), {})
    assert [len(list(found.episodes)) for _ in range(2)] == [1, 1]
    assert found.about["actor"] == "me" and found.about["steps"] == 6
    assert len(replay_of(found.episodes, 3, 2, REST)) == 1


def test_a_folder_of_another_environment_is_refused(tmp_path):
    source = data(tmp_path / "data")
    with pytest.raises(UserError, match="of Pendulum-v1, not of PointMaze-v0"):
        recorded(source, open_environment("PointMaze-v0", {}), {})
    with pytest.raises(UserError, match=r"\+ g: 5"):
        recorded(source, pendulum(), {"g": 5})


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="there is no dataset"):
        recorded(str(tmp_path / "nothing"), pendulum(), {})


def test_what_is_gathered_is_not_changed_by_an_environment_that_writes_into_the_same_array():
    found: list[RecordedEpisode] = []
    episodes, seen = Episodes(found.append), np.zeros((1, 2), np.float64)
    none, yes = np.zeros(1, bool), np.ones(1, bool)
    action = np.zeros((1, 1))
    for t in range(3):
        moment = Moment(seen.copy(), yes if t == 0 else none, {})
        seen += 1
        action += 10
        episodes.add(Transition(moment, action, None, seen, np.zeros(1), none, yes if t == 2 else none, {}, yes))
    (whole,) = found
    assert whole.sensors.dtype == np.float32 and whole.sensors[:, 0].tolist() == [0, 1, 2, 3]
    assert whole.actions[:, 0].tolist() == [10, 20, 30]
