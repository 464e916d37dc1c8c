"""Replay holds pieces of episodes and can grow; Pieces cuts them, and drops what a reset interrupts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from agent.interaction.driver import Moment, Transition, drive, steps
from agent.interaction.replay import Pieces, Replay
from tests.interaction.counter import SPACE, counters, failing

LENGTH, BLOCK = 3, 2
MODES = pytest.mark.parametrize("mode", list(AutoresetMode))


def pieces(*numbers: int, seed: int = 0) -> dict[str, Any]:
    """One piece for each number; everything in it is of that number."""
    generator = torch.Generator().manual_seed(seed)
    count = len(numbers)
    at = torch.tensor(numbers, dtype=torch.float32)
    return {
        "actions": torch.rand(count, LENGTH, BLOCK, 2, generator=generator) + at[:, None, None, None],
        "sensors": at[:, None, None].expand(count, LENGTH + 1, 5).clone(),
        "pixels": at[:, None, None, None, None].expand(count, LENGTH + 1, 1, 2, 2).byte(),
        "states": np.broadcast_to(np.array(numbers, float)[:, None, None], (count, LENGTH + 1, 4)).copy(),
        "factors.x": np.broadcast_to(np.array(numbers, float)[:, None], (count, LENGTH + 1)).copy(),
        "scene": np.array(numbers),
    }


def numbers(replay: Replay) -> list[int]:
    """Which pieces are held, by everything that is held of them."""
    found = replay.scene.tolist()
    assert replay.sensors is not None and replay.pixels is not None and replay.states is not None
    assert replay.factors is not None and set(replay.factors) == {"x"}
    assert replay.sensors[:, 1, 2].tolist() == replay.pixels[:, 2, 0, 1, 0].tolist() == found
    assert replay.states[:, 0, 3].tolist() == replay.factors["x"][:, 1].tolist() == found
    assert replay.actions.floor()[:, 0, 0, 0].tolist() == found
    assert len(replay) == replay.episodes == len(found)
    return found


@pytest.mark.parametrize("reserve", [0, 2, 50])
def test_it_grows_as_it_must(reserve: int):
    replay = Replay(reserve=reserve)
    assert len(replay) == 0 and replay.pixels is None and replay.factors is None
    for first in range(0, 12, 3):
        replay.append(pieces(first, first + 1, first + 2))
        assert numbers(replay) == [*range(first + 3)] and replay.version == first // 3 + 1
    assert replay.length == LENGTH and replay.actions.shape == (12, LENGTH, BLOCK, 2)


def test_what_is_appended_is_copied():
    replay, given = Replay(), pieces(1, 2)
    replay.append(given)
    for x in given.values():
        x[:] = 9
    assert numbers(replay) == [1, 2]


@pytest.mark.parametrize("sizes", [[1] * 9, [2, 2, 2], [3, 4], [5, 1, 5], [4, 9], [12]], ids=str)
def test_the_oldest_pieces_are_overwritten_beyond_the_capacity(sizes: list[int]):
    replay, first = Replay(capacity=5), 0
    for size in sizes:
        replay.append(pieces(*range(first, first + size)))
        first += size
        assert sorted(numbers(replay)) == [*range(max(0, first - 5), first)]


def test_pieces_of_another_kind_are_refused():
    replay = Replay()
    replay.append(pieces(1))
    with pytest.raises(ValueError, match=r"pieces have .*this replay holds .*pixels"):
        replay.append({k: v for k, v in pieces(2).items() if k != "pixels"})
    assert numbers(replay) == [1]


@pytest.mark.parametrize("capacity", [None, 5])
@pytest.mark.parametrize("count", [0, 3, 5, 8])
def test_a_state_dict_goes_on_bit_for_bit(capacity: int | None, count: int):
    """What was saved is what is loaded, and what is appended later goes to the same places."""
    one, other = Replay(capacity=capacity), Replay(capacity=capacity)
    other.append(pieces(77))
    for i in range(count):
        one.append(pieces(i, seed=i))
    other.load_state_dict(one.state_dict())
    for _ in range(3):
        assert same(one.state_dict(), other.state_dict())
        for replay in (one, other):
            replay.append(pieces(40, 41, seed=3))


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    if a.keys() != b.keys():
        return False
    for name, x in a.items():
        if isinstance(x, torch.Tensor) and not (x.dtype == b[name].dtype and torch.equal(x, b[name])):
            return False
        if not isinstance(x, torch.Tensor) and not np.array_equal(x, b[name]):
            return False
    return True


def test_a_draw_depends_on_its_generator_only_and_its_window_fits():
    replay = Replay(reserve=30)
    replay.append(pieces(*range(10)))
    draws = [replay.draw(6, 3, torch.Generator().manual_seed(seed)) for seed in (4, 4, *range(60))]
    assert torch.equal(draws[0][0], draws[1][0]) and draws[0][1] == draws[1][1]
    assert {begin for _, begin in draws} == {0, 1}, "three of four observations begin at the first or the second"
    assert set(torch.cat([episode for episode, _ in draws]).tolist()) == set(range(10)), "what is reserved is not drawn"
    loaded = Replay()
    loaded.load_state_dict(replay.state_dict())
    again = loaded.draw(6, 3, torch.Generator().manual_seed(4))
    assert torch.equal(again[0], draws[0][0]) and again[1] == draws[0][1]


def test_observations_are_picked_by_episode_and_moment():
    replay = Replay()
    replay.append(pieces(3, 4, 5))
    seen = replay.observe(torch.tensor([2, 0]), slice(1, 3))
    assert seen.pixels is not None and seen.sensors is not None
    assert seen.pixels[:, :, 0, 0, 0].tolist() == seen.sensors[:, :, 0].tolist() == [[5, 5], [3, 3]]


# Pieces


def cut(
    mode: AutoresetMode, lengths: list[int], count: int, envs: Any = None, listeners: Any = (), **options: Any
) -> Pieces:
    envs = envs or counters(mode, lengths)
    found, rng = Pieces(LENGTH, BLOCK, **options), np.random.default_rng(0)

    def act(moment: Moment) -> tuple[NDArray, None]:
        return rng.uniform(SPACE.low, SPACE.high, (len(lengths), 2)).astype(np.float32), None

    try:
        drive(envs, act, steps(count), [found.add, *listeners])
    finally:
        envs.close()
    return found


@MODES
def test_what_a_reset_interrupts_is_dropped_and_nothing_else(mode: AutoresetMode):
    """A piece takes six actions: an episode of 15 gives two, one of 6 gives one and ends with it, one of 5 none."""
    lengths = [15, 6, 5]
    found = cut(mode, lengths, 96)
    held = found.joined(found.count)["sensors"]
    copy, episode, time = (held[..., i].long() for i in range(3))
    assert (copy == copy[:, :1]).all() and (episode == episode[:, :1]).all()
    got = {(int(c), int(e), int(t)) for c, e, t in zip(copy[:, 0], episode[:, 0], time[:, 0], strict=True)}
    expected = set()
    for e, length in enumerate(lengths[:2]):
        period = length + (mode == AutoresetMode.NEXT_STEP)  # one step more only resets
        for begin in range(0, 96, period):
            starts = range(0, length - 5, 6)
            expected |= {(e, begin // period, t) for t in starts if begin + t + 6 <= 96}
    assert got == expected and found.count == len(expected)


@MODES
def test_actions_stand_between_the_observations_that_they_lead_to(mode: AutoresetMode):
    found = cut(mode, [15, 6, 8], 60)
    whole = found.joined(found.count)
    change = whole["sensors"][..., 3:].diff(dim=1)
    torch.testing.assert_close(change, whole["actions"].sum(2), rtol=0, atol=1e-4)


def test_pieces_that_were_finished_are_not_written_any_more():
    found = cut(AutoresetMode.NEXT_STEP, [60, 60], 6)
    kept = {k: v.copy() for k, v in found.finished[0].items()}
    again = cut(AutoresetMode.NEXT_STEP, [60, 60], 30)
    assert all(np.array_equal(again.finished[0][k], kept[k]) for k in kept) and again.count == 10


def test_the_first_pieces_are_joined_and_what_is_privileged_stays_an_array():
    found = cut(AutoresetMode.SAME_STEP, [15, 9], 40)
    some = found.joined(3)
    assert {k: type(v) for k, v in some.items()} == {"actions": torch.Tensor, "sensors": torch.Tensor}
    assert all(len(v) == 3 for v in some.values())
    replay = Replay()
    replay.append(some | {"scene": np.arange(3)})
    assert len(replay) == 3 and replay.states is None


def test_an_info_that_comes_and_goes_does_no_harm():
    """Foreign environments may report what they call `state`, at some steps."""
    found = Pieces(1, 1)
    for t in range(4):
        info = {"state": np.ones((2, 3))} if t % 2 else {}
        seen = np.full((2, 5), t, np.float32)
        moment = Moment(seen, np.array([t == 0] * 2), {})
        over = np.zeros(2, bool)
        action = np.zeros((2, 2), np.float32)
        found.add(Transition(moment, action, None, seen + 1, np.zeros(2), over, over, info, ~over))
    assert found.count == 8 and set(found.joined(8)) == {"actions", "sensors"}


# Episodes that terminate inside a piece

REST = np.array([0.25, -0.5], np.float32)


@MODES
def test_an_episode_that_terminates_is_padded_as_by_hand(mode: AutoresetMode):
    """Three blocks of two actions; the episode terminates with its third action."""
    acted: list[NDArray] = []
    envs = counters(mode, [3], reward=1.5)
    found = cut(mode, [3], 3, envs, [lambda step: acted.append(step.action[0])], pad=True, rest=REST, rewards=True)
    whole = found.joined(9)
    assert whole["sensors"][..., 2].tolist() == [[0, 2, 3, 3]]
    assert whole["sensors"][0, 2].equal(whole["sensors"][0, 3])
    np.testing.assert_array_equal(whole["actions"][0].reshape(6, 2), np.stack([*acted, REST, REST, REST]))
    assert whole["rewards"].dtype == torch.float32 and whole["rewards"].tolist() == [[3.0, 1.5, 0.0]]


def by_hand(episode: list[tuple], terminates: bool) -> list[dict[str, NDArray]]:
    """Pieces of one episode, given as (observation, action, reward, next observation) of each step."""
    found, span = [], LENGTH * BLOCK
    for begin in range(0, len(episode), span):
        part = episode[begin : begin + span]
        if len(part) < span and not terminates:
            continue
        rest = span - len(part)
        seen = [part[0][0]] + [part[min(t, len(part)) - 1][3] for t in range(BLOCK, span + 1, BLOCK)]
        paid = np.array([p[2] for p in part] + [0.0] * rest).reshape(LENGTH, BLOCK).sum(1)
        actions = np.stack([p[1] for p in part] + [REST] * rest).reshape(LENGTH, BLOCK, 2)
        found.append({"sensors": np.stack(seen), "actions": actions, "rewards": paid.astype(np.float32)})
    return found


@MODES
@pytest.mark.parametrize("lengths", [[15, 9, 5, 5, 6, 6], [1, 1, 12, 12, 2, 3], [7, 4]], ids=str)
def test_pieces_are_those_cut_by_hand(mode: AutoresetMode, lengths: list[int]):
    """Every other environment terminates; the others are truncated, and lose what is unfinished."""
    episodes: dict[tuple[int, int], list[tuple]] = {}
    over: set[tuple[int, int]] = set()

    def listen(step: Transition) -> None:
        for e in np.flatnonzero(step.real):
            before, after = step.moment.observation[e], step.observation[e]
            key = int(before[0]), int(before[1])
            episodes.setdefault(key, []).append((before, step.action[e], step.reward[e], after))
            if step.ended[e]:
                over.add(key)

    envs = counters(mode, lengths, reward=0.5)
    found = cut(mode, lengths, 60, envs, [listen], pad=True, rest=REST, rewards=True)
    whole = found.joined(found.count)
    got: dict[tuple[int, int], list[dict[str, NDArray]]] = {}
    for i in range(found.count):
        piece = {name: x[i].numpy() for name, x in whole.items()}
        got.setdefault((int(piece["sensors"][0, 0]), int(piece["sensors"][0, 1])), []).append(piece)
    cuts = {key: by_hand(steps, key in over and key[0] % 2 == 0) for key, steps in episodes.items()}
    assert got.keys() == {key for key, parts in cuts.items() if parts}
    for key, parts in got.items():
        for one, other in zip(parts, cuts[key], strict=True):
            assert one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one), key


def test_padding_is_still_by_default_and_only_where_asked_for():
    found = cut(AutoresetMode.NEXT_STEP, [3], 12, pad=True)
    assert found.count == 3 and (found.joined(3)["actions"].reshape(3, 6, 2)[:, 3:] == 0).all()
    assert cut(AutoresetMode.NEXT_STEP, [3], 12).finished == []
    assert "rewards" not in found.joined(3)


# Faulty episodes


@MODES
@pytest.mark.parametrize("at", [14, 13, 12, 2, 1], ids=str)
def test_a_faulty_episode_vanishes_whole(mode: AutoresetMode, at: int):
    """Every other episode of 15 steps fails in step `at`: up to two finished pieces of it are taken back."""
    envs = failing(mode, [15, 15, 9], at=at)
    found = cut(mode, [15, 15, 9], 200, envs, pad=True, rewards=True)
    whole = found.joined(found.count)
    copy, episode, time = (whole["sensors"][:, 0, i].long().tolist() for i in range(3))
    ended = [e for c, e in zip(copy, episode, strict=True) if c != 2]
    assert all(e % 2 == 0 for e in ended if e < max(ended)), "only an episode under way may be faulty yet"
    pieces = {
        (c, e): [t for a, b, t in zip(copy, episode, time, strict=True) if (a, b) == (c, e)]
        for c, e in zip(copy, episode, strict=True)
    }
    assert all(pieces[c, e] == ([0, 6, 12] if c == 0 else [0, 6]) for c in (0, 1) for e in range(0, max(ended) - 1, 2))
    assert all(pieces[2, e] == ([0, 6]) for e in range(0, 6, 2))
    assert {len(x) for x in whole.values()} == {found.count}


def test_a_fault_leaves_no_piece_of_its_own_step():
    """The last action of a piece fails: what it would end with was never observed."""
    found = cut(AutoresetMode.NEXT_STEP, [9], 6, failing(AutoresetMode.NEXT_STEP, [9], each=1, at=6), pad=True)
    assert found.count == 0


def test_full_buffers_are_handed_over_not_copied():
    """The way of simulators, whose environments all finish at once."""
    found, seen = Pieces(1, 1), np.zeros((2, 5), np.float32)
    over = np.zeros(2, bool)
    moment = Moment(seen, ~over, {})
    step = Transition(moment, np.zeros((2, 2), np.float32), None, seen + 1, np.zeros(2), over, over, {}, ~over)
    found.add(step)
    held = found._frames["sensors"], found._actions
    found.add(step)
    assert found.finished[1]["sensors"] is held[0] and np.shares_memory(found.finished[1]["actions"], held[1])
