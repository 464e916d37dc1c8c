"""Faulty episodes are counted in every autoreset mode, and too many of them stop what drives the environment."""

from __future__ import annotations

import json
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from agent.errors import UserError
from agent.interaction.driver import Moment, Transition, drive, steps
from agent.interaction.faults import Faults, faults
from envs import PointMaze, SimVectorEnv
from envs.guard import Guarded
from tests.interaction.counter import SPACE, Counter, counters, failing

MODES = pytest.mark.parametrize("mode", list(AutoresetMode))


def act(moment: Moment) -> tuple[NDArray, None]:
    return np.tile(np.float32(SPACE.high), (len(moment.is_first), 1)), None


@MODES
def test_faulty_episodes_are_counted(mode: AutoresetMode):
    envs, seen = failing(mode, [5, 4]), Faults(share=1.0)
    found: list[tuple[int, int]] = []

    def listen(step: Transition) -> None:
        found.extend((i, int(step.observation[i, 1])) for i in faults(step))
        for i in faults(step):
            assert step.truncated[i] and step.observation[i, 2] == 2, "the last good observation"

    drive(envs, act, steps(30), [seen, listen])
    envs.close()
    counted = seen.summary()
    assert counted["faulty"] == len(found) and {episode % 2 for _, episode in found} == {1}
    assert {i for i, _ in found} == {0, 1}
    assert abs(counted["episodes"] - 2 * counted["faulty"]) <= 2
    kinds = counted["kinds"]
    assert [*kinds] == sorted(kinds, key=lambda k: -kinds[k]["count"]) and {*kinds} == {
        "raised ValueError",
        "raised KeyError",
    }
    assert sum(k["count"] for k in kinds.values()) == counted["faulty"]
    assert kinds["raised ValueError"]["first"].startswith("raised ValueError: episode 1 (counter.py:")
    assert json.loads(json.dumps(counted)) == counted


@MODES
def test_too_many_faults_stop_with_a_report(mode: AutoresetMode):
    seen = Faults(share=0.25, at_least=6)
    with pytest.raises(UserError) as caught:
        drive(failing(mode, [5, 4]), act, steps(1000), [seen])
    assert seen.episodes in (6, 7) and str(caught.value).startswith(
        f"the environment failed in {seen.faulty} of {seen.episodes} episodes, more than the 25% that are tolerated. "
        "Most frequent: "
    )
    assert "x raised ValueError: episode 1 (" in str(caught.value) and "run_agent.py check" in str(caught.value)


@pytest.mark.parametrize(("each", "stops"), [(11, False), (9, True)])
def test_a_small_share_is_tolerated(each: int, stops: bool):
    envs, seen = failing(AutoresetMode.SAME_STEP, [4], each), Faults()
    try:
        drive(envs, act, steps(200), [seen])
    except UserError:
        assert stops
    else:
        assert not stops and seen.faulty == 4


@MODES
def test_resets_that_needed_a_new_environment_are_told(mode: AutoresetMode):
    class Stubborn(Counter):
        def reset(self, **given: Any) -> tuple[Any, dict]:
            tries[0] += 1
            if tries[0] % 2:
                raise OSError("no connection")
            return super().reset(**given)

    tries = [0]
    copies = [lambda: Guarded(lambda: Stubborn(0, 3, True, "sensors", 0.0))]
    envs, seen = SyncVectorEnv(copies, autoreset_mode=mode), Faults()
    drive(envs, act, steps(10), [seen])
    envs.close()
    resets = seen.resets
    assert 2 <= resets == tries[0] // 2 - (mode == AutoresetMode.SAME_STEP and tries[0] // 2 > resets)
    assert seen.summary() == {
        "episodes": seen.episodes,
        "faulty": 0,
        "resets": resets,
        "kinds": {"raised OSError": {"count": resets, "first": seen.kinds["raised OSError"][1]}},
    }


@MODES
def test_where_nothing_fails_episodes_are_counted_only(mode: AutoresetMode):
    envs, seen = counters(mode, [5, 9, 1]), Faults(share=0.0, at_least=1)
    drive(envs, act, steps(20), [seen])
    envs.close()
    assert seen.episodes > 10 and seen.summary()["kinds"] == {}


def test_what_an_environment_without_a_guard_calls_a_fault_is_not_one():
    class Tells(Counter):
        def step(self, action: NDArray) -> Any:
            return *super().step(action)[:4], {"fault": 1.0}

    envs, seen = SyncVectorEnv([lambda: Tells(0, 2, True, "sensors", 0.0)]), Faults(share=0.0, at_least=1)
    drive(envs, act, steps(9), [seen])
    envs.close()
    assert seen.episodes == 3 and seen.faulty == 0


def test_environments_of_this_project_have_none():
    envs, seen = SimVectorEnv(PointMaze(), 3, 5), Faults(share=0.0, at_least=1)
    drive(envs, lambda _: (np.zeros((3, 2), np.float32), None), steps(12), [seen])
    assert seen.episodes == 6 and seen.faulty == 0


def test_the_same_faults_come_with_the_same_seed():
    """What a new environment is seeded with depends on the seed and the number of faults only."""

    class Random(gym.Env):
        observation_space, action_space = gym.spaces.Box(0, 1, (1,)), gym.spaces.Box(-1, 1, (1,))

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            super().reset(seed=seed)
            return self.np_random.random(1), {}

        def step(self, action: Any) -> Any:
            seen = self.np_random.random(1)
            return np.where(seen > 0.8, np.nan, seen), 0.0, False, False, {}

    def played(seed: int) -> list[NDArray]:
        envs, seen = SyncVectorEnv([lambda: Guarded(Random)] * 3), []
        drive(
            envs,
            lambda _: (np.zeros((3, 1), np.float32), None),
            steps(40),
            [lambda s: seen.append(s.observation)],
            seed,
        )
        envs.close()
        return seen

    one, again, other = (np.stack(played(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, again) and not np.array_equal(one, other)
    assert np.isfinite(one).all() and len(np.unique(one)) > 60
