"""What cannot be opened is told in one line that says what is wrong and what helps; never with a traceback."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from agent.errors import UserError
from agent.interaction.environment import find_senses, make_one, open_environment
from envs import packages
from modules.actions import DiscreteActions

BOX = spaces.Box(-1, 1, (2,), np.float32)


class Plain(gym.Env):
    """An environment of any spaces, which has nothing to do."""

    metadata = {"render_modes": ["human"]}

    def __init__(
        self, action: spaces.Space = BOX, observation: spaces.Space = BOX, render_mode: str | None = None
    ) -> None:
        self.action_space, self.observation_space, self.render_mode = action, observation, render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        assert action in self.action_space, f"{action!r} is not in {self.action_space}"
        return self.observation_space.sample(), 0.0, False, False, {}


class BrokenReset(Plain):
    def reset(self, **_: Any) -> Any:
        raise KeyError("no such\nroom")


class BrokenWrapper(gym.Wrapper):
    def __init__(self, env: gym.Env) -> None:
        raise AssertionError


def no_environment(env: gym.Env) -> Any:
    return "me"


def fails(**_: Any) -> gym.Env:
    raise RuntimeError("the motor\nis on fire")


def lacks(**_: Any) -> gym.Env:
    raise ModuleNotFoundError("No module named 'Box2D'", name="Box2D")


def no_driver(**_: Any) -> gym.Env:
    raise RuntimeError("gladLoadGL error")


@pytest.fixture
def registered():
    """Registers an environment for a test; gives its id."""
    names: list[str] = []

    def register(entry_point: Any) -> str:
        names.append(f"Opened{len(names)}-v0")
        gym.register(names[-1], entry_point=entry_point)
        return names[-1]

    yield register
    for name in names:
        gym.registry.pop(name)


def refusal(env_id: str, options: dict | None = None, wrappers: tuple[str, ...] = (), **more: Any) -> str:
    """The one line with which it is refused."""
    with pytest.raises(UserError) as caught:
        if more:
            make_one(env_id, options or {}, wrappers, **more)
        else:
            open_environment(env_id, options or {}, wrappers)
    told = str(caught.value)
    assert "\n" not in told and len(told) > 20, told
    return told


@pytest.mark.parametrize(
    ("env_id", "words"),
    [
        ("CartPol-v1", "did you mean 'CartPole-v1'"),
        ("CartPole-v7", "did you mean 'CartPole-v1'"),
        ("TwoRoms-v0", "did you mean 'TwoRooms-v0'"),
        ("Zzz-v0", "this project's own are TwoRooms-v0"),
        ("no_such_module:Zzz-v0", "module 'no_such_module' of 'no_such_module:Zzz-v0' cannot be imported"),
    ],
)
def test_an_unknown_id_is_told_the_nearest(env_id: str, words: str):
    assert words in refusal(env_id)


def test_a_module_that_fails_is_named_with_its_line(tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("import math\n1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "ZeroDivisionError: division by zero (broken_module.py:2)" in refusal("broken_module:Mine-v0")


def test_a_package_that_is_not_installed_is_named_with_the_command(registered, monkeypatch):
    assert "pip install 'gymnasium[box2d]'" in refusal(registered(lacks))
    monkeypatch.setattr(packages, "PROVIDERS", (packages.Package("none_of_this", "none-of-this", None, ("Nothing",)),))
    told = refusal("Nothing/Here-v0")
    assert told.count("pip install none-of-this") == 1 and "'none_of_this' is not installed" in told


@pytest.mark.parametrize(
    ("entry_point", "words"),
    [
        (fails, "cannot be made: RuntimeError: the motor is on fire (test_opening.py:"),
        (no_driver, "apt install libegl1"),
        (BrokenReset, "fails in its first reset: KeyError: 'no such\\nroom' (test_opening.py:"),
    ],
)
def test_an_environment_that_raises_is_told_with_the_place(registered, entry_point: Any, words: str):
    assert words in refusal(registered(entry_point))


def test_an_assertion_without_words_is_told_with_its_source(tmp_path, monkeypatch):
    """As environments of packages raise it where their versions do not fit together."""
    lines = ["import gymnasium", "def make(**_):", "    assert 1 > 2", "gymnasium.register('Asserts-v0', make)"]
    (tmp_path / "asserting.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    try:
        assert "cannot be made: AssertionError: assert 1 > 2 (asserting.py:3)" in refusal("asserting:Asserts-v0")
    finally:
        gym.registry.pop("Asserts-v0", None)


def test_options_that_were_given_are_part_of_the_message():
    assert "with options {'colour': 3}: TypeError: " in refusal("CartPole-v1", {"colour": 3})


def test_a_render_mode_that_is_not_offered_is_refused(registered, recwarn):
    assert "offers no render_mode 'rgb_array': it offers human" in refusal(registered(Plain), render_mode="rgb_array")
    assert "it offers human, rgb_array" in refusal("CartPole-v1", {"render_mode": "ansi"})
    assert not [w for w in recwarn if "render" in str(w.message)], "said once is enough"
    make_one("CartPole-v1", {"render_mode": "human"}, render_mode="rgb_array").close()


ENDLESS = spaces.Box(-np.inf, np.inf, (2,), np.float32)
STILL = spaces.Box(np.zeros(2, np.float32), np.array([0, 1], np.float32))


@pytest.mark.filterwarnings("ignore:.*minimum values are equal")
@pytest.mark.parametrize(
    ("action", "words"),
    [
        (ENDLESS, ["without bounds", "gymnasium.wrappers.TransformAction"]),
        (spaces.Dict(left=spaces.Discrete(2)), ["has actions Dict('left': Discrete(2))", "TransformAction"]),
        (spaces.Tuple([spaces.Discrete(2), BOX]), ["has actions Tuple(", "TransformAction"]),
        (spaces.Box(0, 3, (2,), np.int64), ["has actions Box(0, 3", "TransformAction"]),
        (STILL, ["the numbers [0] cannot vary", "TransformAction"]),
    ],
)
def test_actions_that_cannot_be_taken_are_refused_with_what_helps(registered, action: spaces.Space, words: list[str]):
    told = refusal(registered(lambda **_: Plain(action)))
    assert all(word in told for word in words), told


@pytest.mark.parametrize(
    "observation",
    [
        spaces.Text(5),
        spaces.Sequence(BOX),
        spaces.Graph(BOX, None),
        spaces.Dict(mission=spaces.Text(5), list=spaces.Sequence(BOX)),
    ],
    ids=lambda space: type(space).__name__,
)
def test_observations_of_which_nothing_can_be_perceived_are_refused(registered, observation: spaces.Space):
    told = refusal(registered(lambda **_: Plain(observation=observation)))
    assert "of which nothing can be perceived" in told and "Discrete" in told


def test_what_cannot_be_perceived_beside_what_can_is_left_out(registered):
    seen = spaces.Dict(mission=spaces.Text(5), place=BOX)
    environment = open_environment(registered(lambda **_: Plain(observation=seen)), {})
    assert environment.spec.observation.sensor_names == ("place[0]", "place[1]", "ended")
    assert environment.one is not None
    assert find_senses(environment.one()).ignored == ["mission"]


@pytest.mark.parametrize(
    ("wrapper", "words"),
    [
        ("FlattenObservation", "--wrappers takes module:Class, such as gymnasium.wrappers:FlattenObservation"),
        ("no_such_module:Mine", "module 'no_such_module' cannot be imported: ModuleNotFoundError"),
        ("gymnasium.wrappers:FlatenObservation", "did you mean 'FlattenObservation'"),
        ("gymnasium.wrappers:TransformAction", "It is given the environment alone"),
        ("tests.interaction.test_opening:BrokenWrapper", "fails: AssertionError (test_opening.py:"),
        ("tests.interaction.test_opening:no_environment", "makes a str, not an environment"),
    ],
)
def test_a_wrapper_that_cannot_be_used_is_named(wrapper: str, words: str):
    assert words in refusal("CartPole-v1", wrappers=(wrapper,))


class Looks(gym.Wrapper):
    """Resets the environment when it is made, and shows that first observation for good."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.first = env.reset()[0]

    def step(self, action: Any) -> Any:
        return self.first, *self.env.step(action)[1:]


def test_a_wrapper_that_looks_at_the_environment_sees_the_same_in_every_copy():
    both = [make_one("CartPole-v1", {}, ("tests.interaction.test_opening:Looks",)) for _ in range(2)]
    for env in both:
        env.reset(seed=3)
    first, second = (env.step(np.int64(0))[0]["sensors"] for env in both)
    assert np.array_equal(first, second)


def test_what_several_choices_begin_with_is_kept(registered):
    """Actions and observations, both MultiDiscrete with a start."""
    space = spaces.MultiDiscrete([2, 3], start=[5, -1])
    environment = open_environment(registered(lambda **_: Plain(space, space)), {})
    actions = environment.spec.actions
    assert isinstance(actions, DiscreteActions) and actions.start == (5, -1) and environment.one is not None
    env = environment.one()
    env.reset(seed=0)
    chosen = actions.to_env(np.array([[0, 1, 1, 0, 0]], np.float32))
    assert chosen.tolist() == [[6, -1]] and env.step(chosen[0])[0]["sensors"].sum() == 2
