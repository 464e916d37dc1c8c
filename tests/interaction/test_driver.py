"""The one loop that steps environments: no transition crosses a reset, in any of Gymnasium's autoreset modes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from agent.interaction.driver import Moment, Transition, drive, steps
from envs import PointMaze, SimVectorEnv
from modules.actions import DiscreteActions
from tests.interaction.counter import SPACE, counters

LENGTHS = [5, 9, 1, 3]
"""Of the episodes of each environment: one is over with its first step."""
MODES = pytest.mark.parametrize("mode", list(AutoresetMode))


class Drawn:
    """Random actions, each told together with its number."""

    def __init__(self, seed: int = 0) -> None:
        self.rng, self.moments = np.random.default_rng(seed), []

    def __call__(self, moment: Moment) -> tuple[NDArray, int]:
        self.moments.append(moment)
        count = len(moment.is_first)
        return self.rng.uniform(SPACE.low, SPACE.high, (count, 2)).astype(np.float32), len(self.moments)


def driven(mode: AutoresetMode, count: int = 60, form: str = "sensors", **options: Any) -> list[Transition]:
    envs, seen = counters(mode, LENGTHS, form, **options), []
    try:
        drive(envs, Drawn(), steps(count), [seen.append])
    finally:
        envs.close()
    return seen


def when(observation: NDArray) -> NDArray:
    """(E, 3) copy, episode, step."""
    return observation[:, :3]


@MODES
def test_no_transition_crosses_a_reset(mode: AutoresetMode):
    for step in driven(mode):
        before, after = step.moment.observation[step.real], step.observation[step.real]
        np.testing.assert_array_equal(after[:, :2], before[:, :2], "copy and episode")
        np.testing.assert_array_equal(after[:, 2], before[:, 2] + 1)
        np.testing.assert_allclose(after[:, 3:] - before[:, 3:], step.action[step.real], atol=1e-5)


@MODES
def test_the_last_observation_is_that_of_the_episode_which_ended(mode: AutoresetMode):
    ended = 0
    for step in driven(mode):
        over = step.observation[step.ended]
        np.testing.assert_array_equal(over[:, 2], np.array(LENGTHS)[step.ended])
        assert (step.terminated[step.ended] == (np.flatnonzero(step.ended) % 2 == 0)).all()
        assert (step.truncated[step.ended] == (np.flatnonzero(step.ended) % 2 == 1)).all()
        ended += int(step.ended.sum())
    assert ended > 50


@MODES
def test_every_step_of_every_episode_is_there_once_and_in_order(mode: AutoresetMode):
    seen = driven(mode)
    for e, length in enumerate(LENGTHS):
        stamps = [tuple(when(step.moment.observation)[e, 1:]) for step in seen if step.real[e]]
        assert stamps == [(n // length, n % length) for n in range(len(stamps))]


@MODES
def test_is_first_says_where_an_episode_begins(mode: AutoresetMode):
    for step in driven(mode):
        np.testing.assert_array_equal(step.moment.is_first, when(step.moment.observation)[:, 2] == 0)


@MODES
def test_a_step_that_only_resets_is_not_real(mode: AutoresetMode):
    seen = driven(mode)
    if mode != AutoresetMode.NEXT_STEP:
        assert all(step.real.all() for step in seen)
        return
    for before, step in pairwise(seen):
        np.testing.assert_array_equal(step.real, ~before.ended)
        assert not (step.ended & ~step.real).any()
    assert seen[0].real.all()


@MODES
@pytest.mark.parametrize("form", ["pixels", "both"])
def test_final_observations_of_pictures_and_dicts(mode: AutoresetMode, form: str):
    for step in driven(mode, form=form):
        both = [x["pixels"] if form == "both" else x for x in (step.moment.observation, step.observation)]
        before, after = (x[step.real][:, :, 0, 0].astype(int) for x in both)
        np.testing.assert_array_equal(after, before + np.array([1, 0, 0]), "one step on, in the same copy and episode")
        if form == "both":
            sensors = step.observation["sensors"][step.real][:, 2]
            np.testing.assert_array_equal(sensors, after[:, 0], "all parts of an observation are of one moment")


@MODES
def test_a_transition_keeps_its_values_where_environments_write_into_the_same_memory(mode: AutoresetMode):
    """Listeners look at both ends of the step, whatever becomes of the arrays later."""
    envs = counters(mode, LENGTHS, copy=False)
    checked = []

    def listen(step: Transition) -> None:
        before, after = step.moment.observation[step.real], step.observation[step.real]
        np.testing.assert_array_equal(after[:, 2], before[:, 2] + 1)
        checked.append(step)

    drive(envs, Drawn(), steps(20), [listen])
    envs.close()
    assert len(checked) == 20


def test_listeners_hear_in_order_before_the_loop_may_stop():
    envs, heard = counters(AutoresetMode.NEXT_STEP, LENGTHS), []
    drive(
        envs,
        Drawn(),
        lambda step: heard.append("stop") or step.decision == 2,
        [lambda _: heard.append("first"), lambda _: heard.append("second")],
    )
    envs.close()
    assert heard == ["first", "second", "stop"] * 2


@pytest.mark.parametrize("count", [1, 7])
def test_as_many_steps_as_asked_for(count: int):
    act = Drawn()
    envs = counters(AutoresetMode.SAME_STEP, LENGTHS)
    seen: list[Transition] = []
    drive(envs, act, steps(count), [seen.append])
    envs.close()
    assert len(seen) == len(act.moments) == count
    assert [step.decision for step in seen] == [*range(1, count + 1)], "what was decided stays beside the action"
    assert [step.moment for step in seen] == act.moments


def test_the_environment_gets_an_action_in_its_own_form():
    """Who listens sees it as it was decided on."""
    envs, seen, rng = counters(AutoresetMode.NEXT_STEP, [9, 9]), [], np.random.default_rng(0)
    wanted = DiscreteActions((3,))
    sent = np.array([[-1.0, 0.0], [0.0, 2.0], [1.0, 4.0]], np.float32)
    drive(
        envs,
        lambda _: (wanted.sample(rng, (2,)), None),
        steps(6),
        [seen.append],
        to_env=lambda action: sent[wanted.to_env(action)],
    )
    envs.close()
    for step in seen:
        assert step.action.shape == (2, 3) and (step.action.sum(-1) == 1).all()
        change = step.observation[:, 3:] - step.moment.observation[:, 3:]
        np.testing.assert_allclose(change, sent[step.action.argmax(-1)], atol=1e-5)
    assert len({*np.concatenate([step.action.argmax(-1) for step in seen])}) == 3


def test_what_is_observed_last_is_decided_on_next():
    envs, rng = SimVectorEnv(PointMaze(), 3, 50), np.random.default_rng(0)
    seen: list[Transition] = []
    drive(envs, lambda _: (rng.uniform(-1, 1, (3, 2)).astype(np.float32), None), steps(6), [seen.append], seed=3)
    for step, after in pairwise(seen):
        np.testing.assert_array_equal(step.observation, after.moment.observation)
        np.testing.assert_array_equal(step.info["state"], after.moment.info["state"])


def test_the_first_reset_gets_seed_and_options():
    maze = PointMaze()
    tasks = maze.sample_tasks(np.random.default_rng(0), 2)
    seen: list[Transition] = []
    envs = SimVectorEnv(maze, 2, 50)

    def still(_: Moment) -> tuple[NDArray, None]:
        return np.zeros((2, 2), np.float32), None

    drive(envs, still, steps(1), [seen.append], options={"state": tasks.start, "goal": tasks.goal})
    np.testing.assert_array_equal(seen[0].moment.info["state"], tasks.start)
    np.testing.assert_array_equal(seen[0].moment.info["goal"], tasks.goal)
    for seed in (5, 5, 6):
        drive(envs, still, steps(1), [seen.append], seed=seed)
    first, again, other = (step.moment.observation for step in seen[1:])
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_the_mode_that_an_environment_does_not_name_is_next_step():
    """As Gymnasium has it: an environment of older days says nothing."""
    envs, seen = counters(AutoresetMode.NEXT_STEP, LENGTHS), []
    envs.metadata = {k: v for k, v in envs.metadata.items() if k != "autoreset_mode"}
    drive(envs, Drawn(), steps(20), [seen.append])
    envs.close()
    assert any(not step.real.all() for step in seen)


def test_gymnasium_s_own_vector_environments_are_driven_too():
    envs = gym.make_vec("Pendulum-v1", 2, vectorization_mode="sync")
    seen: list[Transition] = []
    drive(envs, lambda _: (np.zeros((2, 1), np.float32), None), steps(3), [seen.append], seed=0)
    envs.close()
    assert seen[0].moment.is_first.all() and not seen[1].moment.is_first.any()
    assert seen[2].reward.shape == (2,)
