"""`check` accepts sound environments, and refuses each kind of faulty one with the reason and what to do."""

import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import tyro
from gymnasium import spaces

import run_agent
from agent.cli import check as commands
from agent.config import Config
from agent.config import check as check_config
from agent.console import set_quiet
from agent.derive import derive
from agent.errors import UserError
from agent.inspection.check import CheckArguments, check, look
from agent.inspection.check_exploration import shorter_sequences
from agent.inspection.check_speed import speed_finding
from agent.inspection.finding import Finding
from agent.inspection.offers import COMMANDS, offered
from agent.interaction.environment import make_one, open_environment
from agent.presets import PRESETS
from envs import SIMULATORS, PointMaze, TwoRooms, register
from envs.api import Tasks
from modules import cost
from tests.helpers import tiny_maze, train_tiny

BOX = spaces.Box(-1, 1, (2,), np.float32)


class Drift(gym.Env):
    """A small world that is sound: a point on a line with speed. Subclasses break one thing each."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.action_space: spaces.Space = spaces.Box(-1, 1, (2,), np.float32)
        self.observation_space: spaces.Space = spaces.Box(-10, 10, (2,), np.float32)
        self.limit = 120

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.place, self.time = self.np_random.uniform(-1, 1, 2), 0
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.place, self.time = np.clip(self.place + self.move(action), -10, 10), self.time + 1
        return self.observe(), 0.0, False, self.time >= self.limit, {}

    def move(self, action: Any) -> Any:
        return 0.3 * action + 0.01 * self.np_random.normal(size=2)

    def observe(self) -> Any:
        return self.place.astype(np.float32)

    def render(self) -> Any:
        return np.zeros((8, 8, 3), np.uint8)


def with_spaces(action: spaces.Space | None = None, observation: spaces.Space | None = None) -> type[Drift]:
    class Spaced(Drift):
        def __init__(self, render_mode: str | None = None) -> None:
            super().__init__(render_mode)
            self.action_space = action or self.action_space
            self.observation_space = observation or self.observation_space

        def observe(self) -> Any:
            return super().observe() if observation is None else self.observation_space.sample()

    return Spaced


class NoSeed(Drift):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.place = np.random.default_rng().uniform(-1, 1, 2)
        return self.observe(), {}


class DeafSecond(Drift):
    def move(self, action: Any) -> Any:
        return 0.3 * np.array([action[0], action[0]]) + 0.01 * self.np_random.normal(size=2)


class Deaf(Drift):
    def move(self, action: Any) -> Any:
        return 0.1 * self.np_random.normal(size=2)


class Frozen(Drift):
    def move(self, action: Any) -> Any:
        return 0.0


class Stuck(Drift):
    def observe(self) -> Any:
        return np.array([self.place[0], 7.0], np.float32)


class Faint(Drift):
    def observe(self) -> Any:
        return np.array([self.place[0], 1e-3 * self.place[1]], np.float32)


class Outside(Drift):
    def observe(self) -> Any:
        return np.array([self.place[0], 8 + 4 * self.place[1]], np.float32)


class Hurt(Drift):
    def observe(self) -> Any:
        late = getattr(self, "time", 0) > 20
        return np.array([self.place[0], np.nan if late else 0.0], np.float32)


class Short(Drift):
    """Cut off before a piece of training is whole."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.limit = 8


class Falls(Drift):
    """Over soon, for a reason."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        return *super().step(action)[:2], self.time >= 5, False, {}


class Rarely(Drift):
    """Fails in one of 30 episodes, all of which are short."""

    episodes = 0

    def reset(self, **given: Any) -> tuple[Any, dict]:
        self.limit, Rarely.episodes = 12, Rarely.episodes + 1
        return super().reset(**given)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        if Rarely.episodes % 30 == 7:
            raise RuntimeError("a cable is loose")
        return super().step(action)


class Crash(Drift):
    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        raise RuntimeError("the motor\nis on fire")


class OldStep(Drift):
    def step(self, action: Any) -> Any:
        return super().step(action)[:4]


class NoDriver(Drift):
    def render(self) -> Any:
        raise RuntimeError("Cannot initialize a EGL device display")


class Camera(Drift):
    """Pixels from a camera that never sees anything move."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.observation_space = spaces.Box(0, 255, (3, 16, 16), np.uint8)

    def observe(self) -> Any:
        return np.zeros((3, 16, 16), np.uint8)


class BlindCamera(Camera):
    def observe(self) -> Any:
        raise ImportError("Unable to load EGL library")


class Buttons(Drift):
    """A choice of three places to push to."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.action_space = spaces.Discrete(3, start=-1)

    def move(self, action: Any) -> Any:
        assert action in self.action_space
        return np.array([0.3 * action, 0.1])


class DeafButtons(Buttons):
    def move(self, action: Any) -> Any:
        return np.array([0.1, 0.2])


class TwoLevers(Buttons):
    """Two choices at once, of which the second does nothing."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.action_space = spaces.MultiDiscrete([2, 4])

    def move(self, action: Any) -> Any:
        assert action in self.action_space
        return np.array([0.2 * action[0] - 0.1, 0.1])


@pytest.fixture
def named():
    """Registers a class for a test; gives its id."""
    names: list[str] = []

    def register(kind: Any, **more: Any) -> str:
        names.append(f"Tested{len(names)}-v0")
        gym.register(names[-1], entry_point=kind, **more)
        return names[-1]

    yield register
    for name in names:
        gym.registry.pop(name)


@pytest.fixture
def world(named):
    """Registers a class for a test and gives its findings."""

    def findings(kind: Any, **more: Any) -> dict[str, Finding]:
        return {f.check: f for f in check(CheckArguments(named(kind), **more))}

    return findings


def run(*arguments: str) -> int:
    set_quiet("--json" in arguments)
    return commands.run(commands.parse(list(arguments), "check"), [])


@pytest.fixture(autouse=True)
def loud_again():
    yield
    set_quiet(False)


def test_a_sound_world_has_no_finding_but_ok(world):
    found = world(Drift)
    assert [f for f in found.values() if f.result != "ok"] == []
    assert {
        "api",
        "action space",
        "observation space",
        "settings",
        "change",
        "determinism",
        "actions matter",
        "episodes",
        "speed",
    } <= set(found)


TOO_BIG = spaces.Box(-np.inf, np.inf, (2,), np.float32)
MISSION = spaces.Dict({"mission": spaces.Text(5), "place": spaces.Box(-1, 1, (2,))})
BAD: list[tuple[Any, str, str, str]] = [
    (with_spaces(spaces.Dict({"a": spaces.Discrete(3)})), "action space", "failed", "has actions Dict"),
    (with_spaces(TOO_BIG), "action space", "failed", "without bounds"),
    (with_spaces(None, spaces.Text(5)), "observation space", "failed", "nothing can be perceived"),
    (with_spaces(None, MISSION), "observation space", "warning", "does not perceive mission"),
    (NoSeed, "determinism", "warning", "after another reset"),
    (NoSeed, "api", "warning", "non-deterministic"),
    (DeafSecond, "actions matter", "warning", "dimensions [1]"),
    (Deaf, "actions matter", "failed", "dimensions [0, 1]"),
    (DeafButtons, "actions matter", "failed", "the choices do not change"),
    (TwoLevers, "actions matter", "warning", "choices [1] do not change"),
    (Frozen, "change", "failed", "in 0 % of steps"),
    (Stuck, "sensors", "warning", "obs[1] never change"),
    (Outside, "faults", "failed", "out of space: observation['sensors'][1]"),
    (Hurt, "faults", "failed", "not finite"),
    (Short, "episodes", "failed", "were truncated (median of 8 steps)"),
    (Crash, "faults", "failed", "raised RuntimeError: the motor is on fire (test_check.py:"),
    (Rarely, "faults", "warning", "episodes failed, and training drops them: raised RuntimeError: a cable"),
    (OldStep, "faults", "failed", "raised ValueError"),
    (NoDriver, "rendering", "warning", "EGL"),
    (Camera, "pixels", "failed", "every frame is the same"),
    (BlindCamera, "first reset", "failed", "EGL"),
]


@pytest.mark.parametrize(("kind", "which", "result", "found"), BAD, ids=[f"{i}-{b[1]}" for i, b in enumerate(BAD)])
def test_each_fault_is_found_and_comes_with_advice(world, kind: Any, which: str, result: str, found: str):
    finding = world(kind)[which]
    assert (finding.result, found in finding.found) == (result, True), finding
    assert len(finding.advice) > 10 and "\n" not in finding.found


def test_one_fault_is_not_taken_for_another(world):
    """What is sound in a world with a fault stays ok."""
    for kind, allowed in (
        (Stuck, {"sensors", "actions matter"}),  # the second action moves what the stuck sensor should show
        (Short, {"episodes"}),
        (DeafSecond, {"actions matter"}),
        (TwoLevers, {"actions matter"}),
        (NoDriver, {"rendering"}),
        (NoSeed, {"api", "determinism", "actions matter"}),
    ):
        assert {f.check for f in world(kind).values() if f.result != "ok"} <= allowed, kind.__name__


CAR = spaces.Box(0, 255, (96, 96, 3), np.uint8)
TREE = spaces.Dict({"arm": spaces.Tuple([spaces.Discrete(3), BOX]), "lamps": spaces.MultiBinary(2)})
FORMS: list[tuple[spaces.Space | None, spaces.Space | None, str, str]] = [
    (None, CAR, "2 dimensions", "pixels (3, 96, 96)"),
    (None, spaces.Box(0, 255, (99, 120, 3), np.uint8), "2 dimensions", "(3, 50, 60), reduced from (99, 120, 3)"),
    (None, spaces.Box(0, 255, (16, 16), np.uint8), "2 dimensions", "pixels (1, 16, 16)"),
    (None, spaces.Box(0, 255, (4, 84, 84), np.uint8), "2 dimensions", "pixels (4, 84, 84)"),
    (None, spaces.Discrete(5), "2 dimensions", "5 sensors"),
    (None, TREE, "2 dimensions", "7 sensors"),
    (None, spaces.Dict({"image": CAR, "speed": BOX}), "2 dimensions", "pixels (3, 96, 96) and 2 sensors"),
    (spaces.Discrete(7), None, "a choice of 7", "2 sensors"),
    (spaces.MultiDiscrete([3, 2]), None, "choices of 3, 2", "2 sensors"),
    (spaces.MultiBinary(2), None, "choices of 2, 2", "2 sensors"),
    (spaces.Box(-1, 1, (2, 2), np.float32), None, "4 dimensions in [-1, 1]", "2 sensors"),
]


@pytest.mark.parametrize(("action", "seen", "acts", "perceives"), FORMS, ids=[str(i) for i in range(len(FORMS))])
def test_every_form_that_the_agent_takes_is_explored_and_builds_an_agent(world, action, seen, acts, perceives):
    class Formed(with_spaces(action, seen)):
        def move(self, action: Any) -> Any:
            assert action in self.action_space, f"{action!r} is not in {self.action_space}"
            return 0.3 * (np.resize(action, (2, 2)).sum(0) - 0.5)

    found = world(Formed, steps=100)
    assert acts in found["action space"].found and perceives in found["observation space"].found
    for name in ("action space", "observation space", "settings", "change", "episodes"):
        assert found[name].result == "ok", found[name]
    assert "faults" not in found
    if seen is None:
        assert found["actions matter"].result == "ok", found["actions matter"]


def test_sensors_without_limits_are_told_to_be_scaled_by_data(world):
    wide = spaces.Box(np.array([-np.inf, -10], np.float32), np.array([np.inf, 10], np.float32))

    class Unbounded(Drift):
        def __init__(self, render_mode: str | None = None) -> None:
            super().__init__(render_mode)
            self.observation_space = wide

    assert "1 without bounds" in (found := world(Unbounded)["sensors"]).found and found.result == "ok"
    faint = world(Faint)["sensors"]
    assert faint.result == "ok" and "1 that use little of theirs: scaled by what exploration sees" in faint.found


def test_episodes_that_terminate_before_a_piece_is_whole_are_fine(world):
    finding = world(Falls)["episodes"]
    assert finding.result == "ok" and "terminated (median of 5 steps)" in finding.found and "filled up" in finding.found


def test_the_settings_are_those_that_training_derives(named):
    env_id = named(Buttons, max_episode_steps=40)
    found = look(CheckArguments(env_id))
    config, reasons = derive(Config(env=env_id), open_environment(env_id, {}))
    assert found.config == config and found.reasons == reasons and config.collect.length == 12
    told = look(CheckArguments(env_id, length=3, block=2)).config
    assert told is not None and (told.collect.length, told.world_model.action_block) == (3, 2)
    maze = look(CheckArguments("PointMaze-v0", steps=50)).config
    assert maze == PRESETS["point_maze"](), "where there is a preset, it is taken"


def test_a_configuration_that_does_not_build_is_a_failure(world, monkeypatch):
    """What is said to be trainable can be trained."""
    monkeypatch.setattr("agent.derive.CELLS", 0.001)  # strides wider than the picture
    finding = world(with_spaces(None, CAR))["settings"]
    assert finding.result == "failed"


def test_actions_that_matter_are_seen_in_a_world_that_never_repeats(world):
    """The difference that an action makes is held against the difference that chance makes."""

    class Restless(Drift):
        def move(self, action: Any) -> Any:
            return 0.3 * np.array([action[0], 0.0]) + 0.02 * np.random.default_rng().normal(size=2)

    for seed in range(5):
        finding = world(Restless, seed=seed)["actions matter"]
        assert "dimensions [1]" in finding.found and finding.result == "warning"
    assert world(NoSeed)["actions matter"].result != "failed"


def test_missing_driver_names_what_to_install(world):
    for kind, which in ((NoDriver, "rendering"), (BlindCamera, "first reset")):
        advice = world(kind)[which].advice
        assert "libegl1" in advice and "libosmesa6" in advice and "MUJOCO_GL=osmesa" in advice


def flags(advice: str) -> dict[str, int]:
    """The training flags that an advice names."""
    return {name: int(value) for name, value in re.findall(r"--([a-z.-]+) (\d+)", advice)}


def trained_as_advised(advice: str, env_id: str, folder: Path) -> dict:
    """A tiny training with the flags of an advice, given the way a user gives them."""
    own = look(CheckArguments(env_id, steps=4)).config
    assert own is not None
    tiny = tiny_maze(env=env_id, env_options=())
    base = replace(
        tiny,
        collect=replace(tiny.collect, length=own.collect.length),
        learn=replace(tiny.learn, window=own.learn.window),
        world_model=replace(tiny.world_model, action_block=own.world_model.action_block),
    )
    arguments = [f"--{name}={value}" for name, value in flags(advice).items()]
    return train_tiny(tyro.cli(Config, args=arguments, default=base), folder)


class Limited(Drift):
    """Cut off by itself, which its spec does not say."""

    last = 3

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.limit = Limited.last


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 8, 11])
def test_advice_on_short_episodes_is_accepted_by_train(named, limit: int, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(Limited, "last", limit)
    env_id = named(Limited)
    finding = {f.check: f for f in check(CheckArguments(env_id))}["episodes"]
    length = flags(finding.advice)["collect.length"]
    assert finding.result == "failed" and length <= limit
    again = {f.check: f for f in check(CheckArguments(env_id, length=length))}["episodes"]
    assert again.result == "ok", again
    assert trained_as_advised(finding.advice, env_id, tmp_path / "run")["env_steps"] > 0


def test_advice_on_a_time_limit_is_accepted_by_config(named):
    """Training derives pieces that fit into the limit that the environment declares; longer ones are refused."""
    env_id = named(Drift, max_episode_steps=9)
    assert {f.check: f for f in check(CheckArguments(env_id, steps=4))}["episodes"].result == "ok"
    finding = {f.check: f for f in check(CheckArguments(env_id, steps=4, length=6, block=4))}["episodes"]
    assert finding.result == "failed"
    assert flags(finding.advice) == {"collect.length": 6, "world-model.action-block": 1}


@pytest.mark.parametrize("steps", range(1, 100))
def test_every_advised_length_passes_the_checks_of_config(steps: int):
    advised = flags(shorter_sequences(steps, Config()))
    config = tyro.cli(Config, args=[f"--{k}={v}" for k, v in advised.items()], default=Config())
    check_config(config)
    assert config.collect.length * config.world_model.action_block <= steps


def test_a_simulator_with_a_small_budget_can_be_trained_in():
    """Training steps a Simulator as arrays and never truncates it, whatever max_steps says."""
    register("Tested-v0", PointMaze, max_steps=50)
    try:
        findings = {f.check: f for f in check(CheckArguments("Tested-v0", steps=200))}
    finally:
        gym.registry.pop("Tested-v0")
        SIMULATORS.pop("Tested-v0")
    assert findings["episodes"].result == "ok"


class Slow(Drift):
    """Stepping costs little, rendering most."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        time.sleep(0.0002)
        return super().step(action)

    def observe(self) -> Any:
        time.sleep(0.002)
        return super().observe()


def test_speed_says_what_takes_the_time_and_how_long_exploration_takes(world):
    finding = world(Slow, steps=100)["speed"]
    rate, stepping, observing, minutes = map(
        float,
        re.search(
            r"(\d+) environment steps/s .*\((\d+) % stepping, (\d+) % observing.*takes ([\d.]+) minutes", finding.found
        ).groups(),  # type: ignore[union-attr]
    )
    assert rate < 450 and observing > 60 and stepping + observing == pytest.approx(100, abs=1)
    assert minutes == pytest.approx(20_000 / rate / 60, rel=0.08) and finding.result == "ok"
    own, steps = Config(), Config(collect=replace(Config().collect, steps=20_000))
    slow = speed_finding(10, 0.9, "in one environment", own)
    assert slow.result == "warning" and "frames" in slow.advice and flags(slow.advice) == {"collect.episodes": 375}
    assert "make step() faster" in speed_finding(10, 0.1, "in one environment", own).advice
    assert flags(speed_finding(2, 0.1, "in one environment", steps).advice) == {"steps": 7200}


def test_speed_of_a_simulator_is_that_of_its_arrays():
    found = {f.check: f for f in check(CheckArguments("TwoRooms-v0", steps=100))}["speed"].found
    assert "in batches of 256" in found and "% stepping" in found and "minutes" in found


class SharedContext(gym.Wrapper):
    """Renders the way OpenGL does: into the context that was made last, and not at all once that one is closed."""

    current: object = None

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(Drift(render_mode))
        self.observation_space = spaces.Box(0, 255, (3, 16, 16), np.uint8)
        self.context = object()
        SharedContext.current = self.context

    def reset(self, **arguments: Any) -> tuple[Any, dict]:
        return self.frame(self.env.reset(**arguments)[0]), {}

    def step(self, action: Any) -> Any:
        place, *rest = self.env.step(action)
        return self.frame(place), *rest

    def frame(self, place: Any) -> Any:
        if SharedContext.current is None:
            return np.zeros((3, 16, 16), np.uint8)
        return np.broadcast_to(np.round(128 + 12 * np.resize(place, 16)).astype(np.uint8), (3, 16, 16)).copy()

    def close(self) -> None:
        if SharedContext.current is self.context:
            SharedContext.current = None
        super().close()


def test_frames_stay_right_when_all_copies_share_one_rendering_context(world):
    found = world(SharedContext)
    assert {name: found[name].result for name in ("change", "pixels", "determinism", "actions matter")} == {
        "change": "ok",
        "pixels": "ok",
        "determinism": "ok",
        "actions matter": "ok",
    }


class OneBuffer(Drift):
    """Returns the same array from every step."""

    def observe(self) -> Any:
        self.buffer = getattr(self, "buffer", np.zeros(2, np.float32))
        self.buffer[:] = self.place
        return self.buffer


def test_an_observation_that_is_overwritten_in_place_still_changes(world):
    found = world(OneBuffer)
    assert found["change"].result == found["actions matter"].result == "ok"


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "CartPole-v1", "Acrobot-v1", "MountainCar-v0"])
def test_worlds_of_gymnasium_can_be_checked(env_id: str):
    found = {f.check: f for f in check(CheckArguments(env_id, steps=200))}
    assert all(f.result == "ok" for name, f in found.items() if name != "rendering")


def drawn(env_id: str) -> Callable[..., gym.Env]:
    """MuJoCo seen through its camera, small."""

    def make(render_mode: str | None = None) -> gym.Env:
        env = gym.make(env_id, render_mode="rgb_array", width=96, height=96)
        return gym.wrappers.AddRenderObservation(env, render_only=True)

    return make


@pytest.fixture
def opengl(tmp_path, monkeypatch):
    """Skipped where nothing can be rendered."""
    monkeypatch.chdir(tmp_path)
    if sys.platform == "linux":
        monkeypatch.setenv("MUJOCO_GL", "egl")
    try:
        drawn("InvertedPendulum-v5")().close()
    except Exception as error:
        pytest.skip(f"nothing can be rendered here: {error}")


@pytest.mark.parametrize("env_id", ["InvertedPendulum-v5", "Reacher-v5"])
def test_mujoco_through_a_camera_is_seen_to_move(world, opengl, env_id: str):
    found = world(drawn(env_id), steps=30)
    assert {name: found[name].result for name in ("observation space", "change", "pixels", "actions matter")} == {
        "observation space": "ok",
        "change": "ok",
        "pixels": "ok",
        "actions matter": "ok",
    }
    assert all(f.result != "failed" for f in found.values())


@pytest.mark.parametrize("env_id", ["InvertedPendulum-v5", "Reacher-v5"])
def test_a_copy_of_mujoco_that_is_closed_takes_no_frames_from_another(named, opengl, env_id: str):
    """Each copy draws in its own context, as training needs it: several copies, of which one may be made anew."""
    first, second = (make_one(named(drawn(env_id)), {}) for _ in range(2))
    push = np.full(first.action_space.shape, 0.5, np.float32)

    def frames() -> np.ndarray:
        seen = [first.reset(seed=5)[0], *(first.step(push)[0] for _ in range(2))]
        return np.stack([one["pixels"] for one in seen])

    before = frames()
    second.reset(seed=6)
    second.close()
    assert np.array_equal(frames(), before) and before.std() > 0
    first.close()


class Unfair(TwoRooms):
    def sample_tasks(self, rng: np.random.Generator, n: int) -> Tasks:
        tasks = super().sample_tasks(rng, n)
        return Tasks(tasks.start, np.where(np.arange(n)[:, None] < 3, tasks.start, tasks.goal))


class Lost(TwoRooms):
    def expert_action(self, states: Any, goals: Any) -> Any:
        return self.greedy_action(states, goals)


class Forgetful(PointMaze):
    """Keeps something of its own beside the state."""

    steps = 0

    def step(self, states: Any, actions: Any, rng: Any) -> Any:
        self.steps += 1
        return super().step(states, actions * (1 + 1e-9 * self.steps), rng)


@pytest.mark.parametrize(
    ("kind", "which", "found"),
    [
        (Unfair, "tasks", "3 of 50 are solved before"),
        (Lost, "tasks", "expert"),
        (Forgetful, "exact states", "does not continue"),
    ],
)
def test_faults_of_worlds_of_this_project(kind: Any, which: str, found: str):
    register("Tested-v0", kind)
    try:
        findings = check(CheckArguments("Tested-v0"))
    finally:
        gym.registry.pop("Tested-v0")
    assert [f for f in findings if f.check == which and f.result in ("failed", "warning") and found in f.found]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["TwoRoom-v0"], "did you mean 'TwoRooms-v0'"),
        (["PointMaze-v1"], "did you mean 'PointMaze-v0'"),
        (["zzz"], "TwoRooms-v0, TwoRoomsRandom-v0, PointMaze-v0"),
        (["no_such_module:Mine-v0"], "'no_such_module'"),
        (["PointMaze-v0", "--env-options", "layout=medum"], "did you mean 'medium'"),
        (["PointMaze-v0", "--env-options", "lay_out=medium"], "lay_out"),
        (["TwoRooms-v0", "--steps", "0"], "--steps"),
        (["TwoRooms-v0", "--seed", "-1"], "--seed"),
        (["TwoRooms-v0", "--length", "0"], "--length"),
        (["CartPole-v1", "--wrappers", "gymnasium.wrappers:FlatenObservation"], "did you mean 'FlattenObservation'"),
    ],
)
def test_mistakes_are_one_message(arguments: list[str], message: str):
    with pytest.raises(UserError) as caught:
        run(*arguments)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_module_is_imported_for_its_worlds(tmp_path, monkeypatch):
    (tmp_path / "worlds_of_mine.py").write_text(
        "import envs\nenvs.register('MineToo-v0', envs.PointMaze, max_steps=150)\n"
    )
    (tmp_path / "broken_worlds.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        assert run("worlds_of_mine:MineToo-v0", "--steps", "200") == 0
    finally:
        gym.registry.pop("MineToo-v0")
        sys.modules.pop("worlds_of_mine")
    with pytest.raises(UserError, match=r"ZeroDivisionError.*broken_worlds\.py:1"):
        run("broken_worlds:MineToo-v0")


def test_missing_packages_and_drivers_are_named_when_a_world_cannot_be_made(world, monkeypatch):
    for error, advice in (
        (ModuleNotFoundError("No module named 'imageio'", name="imageio"), "pip install imageio"),
        (RuntimeError("gladLoadGL error"), "libegl1"),
    ):

        def broken(error: Exception = error, **_: Any) -> gym.Env:
            raise error

        with pytest.raises(UserError, match=advice):
            world(broken)


def test_output_for_people(capfd):
    assert run("TwoRooms-v0", "--steps", "100") == 0
    out, err = capfd.readouterr()
    assert "actions matter" in out and "The agent can be trained in TwoRooms-v0" in out and "Traceback" not in out + err


def test_output_for_people_of_a_bad_world(named, capfd):
    env_id = named(with_spaces(TOO_BIG))
    assert run(env_id) == 1
    out, err = capfd.readouterr()
    assert f"The agent cannot be trained in {env_id}" in out and "Traceback" not in out + err
    assert "TransformAction" in out and "what to do: a wrapper can offer another form" in out


@pytest.mark.parametrize(("env_id", "ok"), [("TwoRooms-v0", True), ("CartPole-v1", True), ("Tested0-v0", False)])
def test_json_is_the_last_line(capfd, named, env_id: str, ok: bool):
    named(Deaf)
    assert run(env_id, "--steps", "100", "--json") == (0 if ok else 1)
    out = capfd.readouterr().out
    assert out.count("\n") == 1, "nothing but the JSON on standard output"
    result = json.loads(out)
    assert result["env"] == env_id and result["ok"] is ok and len(result["findings"]) >= 4
    assert all(set(f) == {"check", "result", "found", "advice"} for f in result["findings"])
    assert ok == all(f["result"] != "failed" for f in result["findings"])
    assert result["commands"] == (list(COMMANDS) if ok else []) and bool(result["offers"]) == ok


def offers(env_id: str, *arguments: str) -> dict:
    """What `check --json` says that an environment offers."""
    found = look(commands.parse([env_id, "--steps", "60", *arguments], "check"))
    assert found.environment is not None and found.config is not None
    return offered(found.environment, found.config, found.reasons, found.walk)


def test_what_the_commands_will_be_able_to_do_is_said():
    pole = offers("CartPole-v1")
    assert pole["tasks"] == ["cartpole-balance", "cartpole-left", "cartpole-right", "reward"]
    assert pole["evaluate"]["by"] == "return" and "1 at every step" in pole["evaluate"]["why"]
    assert pole["imagine"] in ("body", "curves") and "cartpole-balance" in pole["train"]
    assert pole["sensors"] == ["position", "velocity", "angle", "angular_velocity"]
    config, _ = derive(Config(env="CartPole-v1"), open_environment("CartPole-v1", {}))
    assert pole["settings"] == {
        "action_block": config.world_model.action_block,
        "horizon": config.configurator.horizon_without_critic,
        "length": config.collect.length,
        "steps": config.collect.steps,
        "drives": list(config.cost.drives),
        "derived": True,
    }
    rooms = offers("TwoRooms-v0")
    assert rooms["evaluate"]["by"] == "success" and rooms["imagine"] == "map" and rooms["settings"]["derived"] is False
    assert rooms["tasks"] == ["goal", "reward"] and rooms["sensors"] == []


def test_a_wrapper_changes_what_is_offered():
    """It may have changed what the numbers mean: no known task reads them any more."""
    flat = offers("CartPole-v1", "--wrappers", "gymnasium.wrappers:FlattenObservation")
    assert flat["tasks"] == ["reward"] and flat["imagine"] == "curves" and "reward" in flat["train"]


class Told(Drift):
    """Says whether it went well."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        return *super().step(action)[:4], {"is_success": False}


class Aims(Drift):
    """A goal environment by Gymnasium-Robotics' convention, without a word about success."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        place = spaces.Box(-10, 10, (2,), np.float32)
        self.observation_space = spaces.Dict(observation=place, achieved_goal=place, desired_goal=place)

    def observe(self) -> Any:
        place = super().observe()
        return {"observation": place, "achieved_goal": place, "desired_goal": np.ones(2, np.float32)}


def test_what_success_is_measured_by_is_said_with_its_reason(named):
    assert offers(named(Told))["evaluate"] == {"by": "success", "why": "its info tells success"}
    aims = offers(named(Aims))
    assert aims["evaluate"]["by"] == "success" and "scales of achieved_goal[0]" in aims["evaluate"]["why"]
    assert aims["tasks"] == ["goal", "reward"] and aims["settings"]["drives"] == ["goal"]


def test_the_last_lines_say_what_works(named, capfd):
    env_id = named(Drift)
    assert run(env_id, "--steps", "100", "--env-options", "render_mode=rgb_array") == 0
    last = capfd.readouterr().out.splitlines()[-6:]
    assert last[0].startswith("  train     wanted is the environment's own reward")
    assert last[1].startswith("  evaluate  by return") and last[2].startswith("  imagine   curves")
    assert last[3] == "  sensors   obs[0], obs[1]"
    assert last[4].endswith(f"train --env {env_id} --env-options render_mode=rgb_array --explain")
    assert last[5] == "Commands that work: train, evaluate, imagine, ablate, report, collect"


def test_a_simulator_without_tasks_supports_fewer_commands(capfd):
    class Aimless(PointMaze):
        sample_tasks = None

    register("Tested-v0", Aimless)
    try:
        assert run("Tested-v0", "--steps", "100") == 0
        assert capfd.readouterr().out.splitlines()[-1] == "Commands that work: train, report, collect"
    finally:
        gym.registry.pop("Tested-v0")
        SIMULATORS.pop("Tested-v0")


def test_a_foreign_environment_supports_the_commands_that_are_named(named, tmp_path, capfd, monkeypatch):
    env_id = named(Buttons)
    assert run(env_id, "--steps", "100", "--json") == 0
    assert json.loads(capfd.readouterr().out)["commands"] == list(COMMANDS)
    folder = tmp_path / "run"
    config = tiny_maze(env=env_id, env_options=(), cost=cost.Config(drives=("effort",)))
    train_tiny(config, folder)
    assert run_agent.main(["evaluate", str(folder), "--episodes", "2", "--budget", "8"]) == 0
    assert run_agent.main(["report", str(folder)]) == 0
    assert run_agent.main(["collect", "--env", env_id, "--episodes", "1", "--out", str(tmp_path / "data")]) == 0


def test_memory_that_a_training_needs_is_asked_for_before(capfd, monkeypatch):
    monkeypatch.setattr("agent.cli.limits.machine_memory", lambda: 2**20)
    assert run("CartPole-v1", "--steps", "100", "--json") == 1
    found = {f["check"]: f for f in json.loads(capfd.readouterr().out)["findings"]}
    assert found["memory"]["result"] == "failed" and "lower --" in found["memory"]["found"]


def test_same_seed_same_findings():
    def findings(seed: int) -> list[Finding]:
        found = check(CheckArguments("TwoRooms-v0", seed=seed, steps=100))
        return [f for f in found if f.check != "speed"]

    assert findings(1) == findings(1)
