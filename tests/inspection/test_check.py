"""`check` says yes to worlds that can be learned from, and to each kind of bad world no, why, and what to do."""

import json
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from agent.cli import check as commands
from agent.console import set_quiet
from agent.errors import UserError
from agent.inspection.check import CheckArguments, Finding, check
from envs import PointMaze, TwoRooms, register
from envs.api import Tasks


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
    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.limit = 40


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


@pytest.fixture
def world(request: pytest.FixtureRequest):
    """Registers a class for a test and gives its findings."""
    names: list[str] = []

    def findings(kind: Any, **more: Any) -> dict[str, Finding]:
        names.append(f"Tested{len(names)}-v0")
        gym.register(names[-1], entry_point=kind)
        return {f.check: f for f in check(CheckArguments(names[-1], **more))}

    yield findings
    for name in names:
        gym.registry.pop(name)


def run(*arguments: str) -> int:
    return commands.check(list(arguments), ["run_agent.py"])


@pytest.fixture(autouse=True)
def loud_again():
    yield
    set_quiet(False)


def test_a_sound_world_has_no_finding_but_ok(world):
    found = world(Drift)
    assert [f for f in found.values() if f.result != "ok"] == []
    assert {"api", "actions", "senses", "change", "determinism", "actions matter", "episodes", "speed"} <= set(found)


TOO_BIG = spaces.Box(-np.inf, np.inf, (2,), np.float32)
LAST = spaces.Box(0, 255, (16, 16, 3), np.uint8)
GOALS = spaces.Dict({"observation": spaces.Box(-1, 1, (2,)), "desired_goal": spaces.Box(-1, 1, (2,))})
EXTRA = spaces.Dict({"sensors": spaces.Box(-1, 1, (2,)), "clock": spaces.Box(-1, 1, (2,))})
BAD: list[tuple[Any, str, str, str]] = [
    (with_spaces(spaces.Discrete(3)), "actions", "failed", "Discrete"),
    (with_spaces(TOO_BIG), "actions", "failed", "not a bounded range"),
    (with_spaces(spaces.Box(-1, 1, (2, 2), np.float32)), "actions", "failed", "(2, 2)"),
    (with_spaces(None, LAST), "senses", "failed", "channels last"),
    (with_spaces(None, spaces.MultiDiscrete([3, 3])), "senses", "failed", "MultiDiscrete"),
    (with_spaces(None, GOALS), "senses", "failed", "desired_goal"),
    (with_spaces(None, EXTRA), "senses", "warning", "clock will not be seen"),
    (NoSeed, "determinism", "warning", "after another reset"),
    (NoSeed, "api", "failed", "non-deterministic"),
    (DeafSecond, "actions matter", "warning", "numbers [1]"),
    (Deaf, "actions matter", "failed", "numbers [0, 1]"),
    (Frozen, "change", "failed", "0 % of steps"),
    (Stuck, "sensors", "warning", "[1] never change"),
    (Faint, "sensors", "warning", "least moving uses"),
    (Outside, "observations", "warning", "outside their space"),
    (Hurt, "observations", "failed", "NaN"),
    (Short, "episodes", "failed", "40 steps"),
    (Crash, "exploration", "failed", "RuntimeError: the motor is on fire (test_check.py:"),
    (OldStep, "exploration", "failed", "not enough values"),
    (NoDriver, "pictures", "warning", "EGL"),
    (Camera, "pixels", "failed", "always the same picture"),
    (BlindCamera, "exploration", "failed", "EGL"),
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
        (Faint, {"sensors"}),
        (Short, {"episodes"}),
        (DeafSecond, {"actions matter"}),
        (NoDriver, {"pictures"}),
        (NoSeed, {"api", "determinism", "episodes", "actions matter"}),
    ):
        assert {f.check for f in world(kind).values() if f.result != "ok"} <= allowed, kind.__name__


def test_actions_that_matter_are_seen_in_a_world_that_never_repeats(world):
    """The difference that an action makes is held against the difference that chance makes."""

    class Restless(Drift):
        def move(self, action: Any) -> Any:
            return 0.3 * np.array([action[0], 0.0]) + 0.02 * np.random.default_rng().normal(size=2)

    for seed in range(5):
        finding = world(Restless, seed=seed)["actions matter"]
        assert "numbers [1]" in finding.found and finding.result == "warning"
    assert world(NoSeed)["actions matter"].result != "failed"


def test_missing_driver_names_what_to_install(world):
    for kind, which in ((NoDriver, "pictures"), (BlindCamera, "exploration")):
        advice = world(kind)[which].advice
        assert "libegl1" in advice and "libosmesa6" in advice and "MUJOCO_GL=osmesa" in advice


def test_advice_on_short_episodes_works(world):
    advice = world(Short)["episodes"].advice
    length = int(advice.split("--collect.length ")[1].split()[0])
    assert world(Short, length=length)["episodes"].result == "ok"


def test_worlds_of_gymnasium_can_be_checked():
    found = {f.check: f for f in check(CheckArguments("Pendulum-v1", steps=200))}
    assert all(f.result == "ok" for name, f in found.items() if name != "pictures")


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
    assert "actions matter" in out and "TwoRooms-v0 can be learned from" in out and "Traceback" not in out + err


def test_output_for_people_of_a_bad_world(capfd):
    assert run("CartPole-v1") == 1
    out, err = capfd.readouterr()
    assert "CartPole-v1 cannot be learned from" in out and "Traceback" not in out + err
    assert "what to do: planning needs continuous actions" in out


@pytest.mark.parametrize(("env_id", "ok"), [("TwoRooms-v0", True), ("CartPole-v1", False)])
def test_json_is_the_last_line(capfd, env_id: str, ok: bool):
    assert run(env_id, "--steps", "100", "--json") == (0 if ok else 1)
    out = capfd.readouterr().out
    assert out.count("\n") == 1, "nothing but the JSON on standard output"
    result = json.loads(out)
    assert result["env"] == env_id and result["ok"] is ok and len(result["findings"]) >= 4
    assert all(set(f) == {"check", "result", "found", "advice"} for f in result["findings"])
    assert ok == all(f["result"] != "failed" for f in result["findings"])


def test_same_seed_same_findings():
    def findings(seed: int) -> list[Finding]:
        timed = ("speed", "batched speed")
        return [f for f in check(CheckArguments("TwoRooms-v0", seed=seed, steps=100)) if f.check not in timed]

    assert findings(1) == findings(1)
