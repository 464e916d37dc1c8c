"""A user's environment may fail in any way: its episode ends there, the others go on, and nothing else happens."""

from __future__ import annotations

import gc
import re
import signal
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from envs.guard import Guarded

LIMIT = 0.2
BOTH = spaces.Dict({"sensors": spaces.Box(-1, 1, (3,)), "pixels": spaces.Box(0, 255, (3, 2, 2), np.uint8)})


class Failing(gym.Env):
    """Counts its steps in its observation, and does what `fault` says at its third step."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 7}
    action_space = spaces.Box(-1, 1, (1,))
    observation_space = spaces.Box(-1, 1, (3,))

    def __init__(self, fault: Callable[[Failing], Any] | None = None, at: int = 3) -> None:
        self.fault, self.at = fault, at
        self.render_mode = "rgb_array"
        self.seeds: list[int | None] = []
        self.closed = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.time, self.seen, self.reward = 0, np.zeros(3, np.float32), 0.5
        return self.seen, {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
        self.time += 1
        self.seen[0] = self.time / 100  # into the same array each time, as some environments do
        result: Any = self.seen
        if self.time == self.at and self.fault is not None:
            result = self.fault(self)
            result = self.seen if result is None else result
        return result, self.reward, False, False, {"time": self.time}

    def render(self) -> Any:
        return np.full((2, 2, 3), self.time, np.uint8)

    def close(self) -> None:
        self.closed += 1


def raises(_: Failing) -> None:
    raise ValueError("something\n  is wrong")


def hangs(_: Failing) -> None:
    time.sleep(5)


def hangs_deaf(_: Failing) -> None:
    try:
        time.sleep(5)
    except BaseException:
        pass


def nan(env: Failing) -> None:
    env.seen[1] = np.nan


def infinite(env: Failing) -> None:
    env.seen[2] = -np.inf


def outside(env: Failing) -> None:
    env.seen[2] = 1.1


def misshapen(_: Failing) -> Any:
    return np.zeros(4, np.float32)


def words(_: Failing) -> Any:
    return np.array(["a", "b", "c"])


def nan_reward(env: Failing) -> None:
    env.reward = float("nan")


def no_reward(env: Failing) -> None:
    env.reward = None  # type: ignore[assignment]


FAULTS = {
    raises: r"raised ValueError: something is wrong \(test_guard.py:\d+\)",
    hangs: "too slow: longer than 0.2 s",
    hangs_deaf: "too slow: longer than 0.2 s",
    nan: "not finite: observation has 1 NaN and 0 infinite of 3",
    infinite: "not finite: observation has 0 NaN and 1 infinite of 3",
    outside: r"out of space: observation\[2\] is 1.1, not between -1 and 1",
    misshapen: r"out of space: observation has shape \(4,\), not \(3,\)",
    words: "out of space: observation has type <U1, not float32",
    nan_reward: "wrong reward: it is nan",
    no_reward: "wrong reward: it is None",
}
EACH = pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.__name__)


def action() -> Any:
    return np.zeros(1, np.float32)


@EACH
def test_a_fault_truncates_at_the_last_good_observation(fault: Any):
    made: list[Failing] = []
    env = Guarded(lambda: made.append(Failing(fault)) or made[-1], LIMIT)
    env.reset(seed=3)
    before = [env.step(action()) for _ in range(2)]
    assert all(info == {"time": t} and reward == 0.5 for t, (_, reward, _, _, info) in enumerate(before, 1))
    seen, reward, terminated, truncated, info = env.step(action())
    assert seen.tolist() == pytest.approx([0.02, 0, 0]), "the array that it wrote into has become another one"
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert [*info] == ["fault"]
    assert re.fullmatch(FAULTS[fault], info["fault"])
    assert len(made) == 1 and made[0].closed == 1
    with pytest.raises(gym.error.ResetNeeded):
        env.step(action())
    env.reset()
    assert len(made) == 2 and env.unwrapped is made[1]
    assert env.step(action())[4] == {"time": 1}


@EACH
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_the_other_copies_go_on(fault: Any, mode: AutoresetMode):
    envs = SyncVectorEnv(
        [lambda: Guarded(Failing, LIMIT), lambda: Guarded(lambda: Failing(fault), LIMIT)], autoreset_mode=mode
    )
    envs.reset(seed=0)
    for t in range(1, 9):
        seen, _, _, truncated, info = envs.step(np.zeros((2, 1), np.float32))
        assert seen[0, 0] == pytest.approx(t / 100) and np.isfinite(seen).all()
        if t == 3:
            held = info["final_info"] if mode == AutoresetMode.SAME_STEP else info
            assert truncated.tolist() == [False, True] == held["_fault"].tolist()
            assert held["fault"][0] is None and isinstance(held["fault"][1], str)
            last = info["final_obs"][1] if mode == AutoresetMode.SAME_STEP else seen[1]
            assert last[0] == pytest.approx(0.02)
            break
    envs.close()


def test_copies_in_other_processes_are_guarded_too():
    envs = AsyncVectorEnv([lambda: Guarded(Failing, LIMIT), lambda: Guarded(lambda: Failing(hangs), LIMIT)])
    try:
        envs.reset(seed=0)
        for _ in range(2):
            envs.step(np.zeros((2, 1), np.float32))
        *_, truncated, info = envs.step(np.zeros((2, 1), np.float32))
        assert truncated.tolist() == [False, True] and "too slow" in info["fault"][1]
    finally:
        envs.close()


def test_new_environments_get_seeds_that_repeat():
    runs = []
    for seed in (5, 5, 6):
        made: list[Failing] = []
        env = Guarded(lambda made=made: made.append(Failing(raises)) or made[-1])
        env.reset(seed=seed)
        for _ in range(4):
            while not env.step(action())[3]:
                pass
            env.reset()
        runs.append([s for failing in made for s in failing.seeds])
    assert runs[0] == runs[1] and len({*runs[0], *runs[2]}) == 10, "each is another one"
    assert runs[0][0] == 5 and all(isinstance(s, int) and 0 <= s < 2**31 for s in runs[0])
    env.reset(seed=77)
    assert made[-1].seeds[-1] == 77, "a seed that is given is used"


class Stubborn(Failing):
    """Cannot be reset, as often as `times` says, whoever made it."""

    def __init__(self, times: list[int]) -> None:
        super().__init__()
        self.times = times

    def reset(self, **given: Any) -> tuple[Any, dict]:
        if self.times[0]:
            self.times[0] -= 1
            raise OSError("no connection")
        return super().reset(**given)


@pytest.mark.parametrize("times", [1, 3])
def test_a_failed_reset_is_tried_in_new_environments(times: int):
    env = Guarded(lambda left=[times]: Stubborn(left))
    seen, info = env.reset(seed=1)
    assert seen.tolist() == [0, 0, 0] and info["reset_fault"].startswith("raised OSError: no connection")
    assert env.step(action())[4] == {"time": 1}
    assert env.reset()[1] == {}


def test_what_cannot_be_reset_at_all_is_an_error():
    env = Guarded(lambda left=[99]: Stubborn(left))
    with pytest.raises(RuntimeError, match=r"made anew 3 times .*raised OSError: no connection"):
        env.reset(seed=1)


def test_an_environment_that_cannot_be_made_anew_is_an_error_of_reset():
    made: list[Failing] = []

    def make() -> Failing:
        if made:
            raise OSError("no licence")
        made.append(Failing(raises, at=1))
        return made[0]

    env = Guarded(make)
    env.reset()
    assert env.step(action())[3]
    with pytest.raises(RuntimeError, match="no licence"):
        env.reset()
    assert made[0].closed == 1, "closed once only"
    env.close()
    assert made[0].closed == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_ctrl_c_passes(error: type[BaseException]):
    def interrupted(_: Failing) -> None:
        raise error

    env = Guarded(lambda: Failing(interrupted, at=1), 30)
    env.reset()
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(error):
        env.step(action())
    assert signal.getsignal(signal.SIGALRM) is before


@pytest.fixture
def alarms():
    """SIGALRM for the test alone; pytest-timeout gets it back."""
    handler, timer = signal.getsignal(signal.SIGALRM), signal.setitimer(signal.ITIMER_REAL, 0)
    yield
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, *timer)


@pytest.mark.parametrize("fault", [None, raises, hangs], ids=["none", "raises", "hangs"])
def test_other_timers_go_on(alarms, fault: Any):
    def other(*_: Any) -> None:
        raise AssertionError

    signal.signal(signal.SIGALRM, other)
    signal.setitimer(signal.ITIMER_REAL, 40, 50)
    env = Guarded(lambda: Failing(fault, at=1), LIMIT)
    env.reset()
    env.step(action())
    assert signal.getsignal(signal.SIGALRM) is other
    delay, interval = signal.getitimer(signal.ITIMER_REAL)
    assert 38 < delay < (40 - LIMIT / 2 if fault is hangs else 40.0001) and interval == 50


def test_a_timer_that_rings_earlier_is_left_alone(alarms):
    class Other(BaseException):
        pass

    def other(*_: Any) -> None:
        raise Other

    signal.signal(signal.SIGALRM, other)
    env = Guarded(lambda: Failing(hangs, at=1), 4)
    env.reset()
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    with pytest.raises(Other):
        env.step(action())


def test_nothing_rings_after_a_step(alarms):
    rung = []
    signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    env = Guarded(Failing, 0.05)
    env.reset()
    env.step(action())
    time.sleep(0.1)
    assert not rung and signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_in_another_thread_there_is_no_limit():
    results: list[Any] = []

    def play() -> None:
        env = Guarded(lambda: Failing(lambda _: time.sleep(0.1), at=1), 0.02)
        env.reset()
        results.append(env.step(action()))

    thread = threading.Thread(target=play)
    thread.start()
    thread.join()
    assert results[0][4] == {"time": 1}


def check(space: gym.Space, observation: Any, **options: Any) -> tuple[Any, str | None]:
    """What the guard makes of an observation, and the fault."""

    class Showing(Failing):
        observation_space = space

        def reset(self, **_: Any) -> tuple[Any, dict]:
            return space.sample() if first is None else first, {}

        def step(self, action: Any) -> Any:
            return observation, 0.0, False, False, {}

    first = None
    if isinstance(space, spaces.Box):
        first = np.clip(np.zeros(space.shape, space.dtype), space.low, space.high)
    env = Guarded(Showing, **options)
    env.reset()
    seen, *_, info = env.step(action())
    return seen, info.get("fault")


@pytest.mark.parametrize(
    ("space", "observation"),
    [
        (spaces.Box(-1, 1, (2,)), np.array([0.5, -1.0])),  # float64
        (spaces.Box(-1, 1, (2,)), [0.5, 1]),
        (spaces.Box(-1, 1, (2,)), np.array([1, 0])),
        (spaces.Box(-1, 1, (2,)), np.array([1.0015, -1.0015], np.float32)),  # rounding
        (spaces.Box(0, np.inf, (1,)), np.array([1e30], np.float32)),
        (spaces.Box(0, 255, (2,), np.uint8), np.array([3.0, 255.0])),
        (spaces.Box(0, 1, (2,), np.int64), np.array([True, False])),
        (spaces.Box(-np.inf, np.inf, (), np.float64), np.float64(4)),
        (spaces.Discrete(4), np.int64(3)),
        (spaces.Text(3), "a sentence that is too long"),
        (spaces.Tuple([spaces.Discrete(2), spaces.Box(0, 1)]), (1, np.zeros(1, np.float32))),
    ],
    ids=str,
)
def test_what_keeps_its_value_is_in_the_space(space: Any, observation: Any):
    seen, fault = check(space, observation)
    assert fault is None
    if isinstance(space, spaces.Box):
        assert seen.dtype == space.dtype and seen.shape == space.shape
        np.testing.assert_allclose(seen, observation)


@pytest.mark.parametrize(
    ("space", "observation", "kind"),
    [
        (spaces.Box(-1, 1, (2,)), np.array([1.0025, 0.0], np.float32), "out of space"),
        (spaces.Box(0, np.inf, (1,)), np.array([np.inf], np.float32), "not finite"),
        (spaces.Box(0, np.inf, (1,)), np.array([-0.1], np.float32), "out of space"),
        (spaces.Box(-np.inf, np.inf, (1,)), np.array([1e300]), "not finite"),  # in float32 it is
        (spaces.Box(0, 255, (2,), np.uint8), np.array([3.5, 255.0]), "out of space"),
        (spaces.Box(0, 255, (2,), np.uint8), np.array([-1, 255]), "out of space"),
        (spaces.Box(0, 255, (1,), np.uint8), np.array([np.nan]), "not finite"),
        (spaces.Box(0, 9, (1,), np.uint8), np.array([10], np.uint8), "out of space"),
        (spaces.Box(-1, 1, (2,)), None, "out of space"),
        (spaces.Discrete(4), 4, "out of space"),
        (spaces.Text(3), 4, "out of space"),
        (BOTH, {"sensors": np.zeros(3)}, "out of space"),
        (BOTH, np.zeros(3), "out of space"),
    ],
    ids=str,
)
def test_what_is_not_in_the_space_is_a_fault(space: Any, observation: Any, kind: str):
    fault = check(space, observation)[1]
    assert fault is not None and fault.startswith(f"{kind}: observation")


def test_parts_of_a_dict_are_named_and_those_beyond_its_space_left_out():
    pixels = np.full((3, 2, 2), 7)
    seen, fault = check(BOTH, {"sensors": np.zeros(3), "pixels": pixels, "more": 1})
    assert fault is None and [*seen] == [*BOTH] and seen["pixels"].dtype == np.uint8
    fault = check(BOTH, {"sensors": np.array([0, 0, np.nan]), "pixels": pixels})[1]
    assert fault == "not finite: observation['sensors'] has 1 NaN and 0 infinite of 3"


def test_without_the_check_of_spaces_only_finiteness_counts():
    far = {"sensors": np.full(3, 9.0), "pixels": np.zeros(3)}
    assert check(BOTH, far, check_space=False) == (far, None)
    fault = check(BOTH, far | {"sensors": np.array([0.0, np.nan, 0.0])}, check_space=False)[1]
    assert fault == "not finite: observation['sensors'] has 1 NaN and 0 infinite of 3"


def test_what_the_environment_calls_a_fault_is_not_one():
    class Tells(Failing):
        def step(self, action: Any) -> Any:
            return *super().step(action)[:4], {"fault": "of a motor"}

    env = Guarded(Tells)
    env.reset()
    assert env.step(action())[3:] == (False, {"own_fault": "of a motor"})


def test_everything_else_of_the_environment_shows_through():
    env = Guarded(lambda: gym.make("CartPole-v1", render_mode="rgb_array"))
    assert env.spec is not None and env.spec.id == "CartPole-v1" and env.render_mode == "rgb_array"
    assert env.metadata["render_fps"] == 50 and env.get_wrapper_attr("gravity") == 9.8
    bare = gym.make("CartPole-v1")
    assert env.observation_space == bare.observation_space
    expected, got = [bare.reset(seed=1)], [env.reset(seed=1)]
    for _ in range(9):
        expected.append(bare.step(1))  # type: ignore[arg-type]
        got.append(env.step(1))  # type: ignore[arg-type]
    for one, other in zip(expected, got, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        assert one[1:] == other[1:]
    env.close()
    bare.close()


def test_a_broken_environment_shows_its_last_picture_and_is_let_go():
    env = Guarded(lambda: Failing(raises))
    env.reset()
    env.step(action())
    picture = env.render()
    for _ in range(2):
        env.step(action())
    assert env.render() is picture
    broken = weakref.ref(env.env)
    env.reset()
    gc.collect()
    assert broken() is None
