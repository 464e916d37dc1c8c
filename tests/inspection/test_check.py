"""`check` accepts sound environments, and refuses each kind of faulty one with the reason and what to do."""

import json
import re
import sys
import time
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
from agent.errors import UserError
from agent.inspection.check import CheckArguments, Finding, check
from agent.inspection.check_exploration import shorter_sequences
from agent.inspection.check_speed import speed_finding
from agent.presets import PRESETS
from envs import SIMULATORS, PointMaze, TwoRooms, register
from envs.api import Tasks
from tests.helpers import tiny_maze, train_tiny


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
        "change",
        "determinism",
        "actions matter",
        "episodes",
        "speed",
    } <= set(found)


TOO_BIG = spaces.Box(-np.inf, np.inf, (2,), np.float32)
LAST = spaces.Box(0, 255, (16, 16, 3), np.uint8)
GOALS = spaces.Dict({"observation": spaces.Box(-1, 1, (2,)), "desired_goal": spaces.Box(-1, 1, (2,))})
EXTRA = spaces.Dict({"sensors": spaces.Box(-1, 1, (2,)), "clock": spaces.Box(-1, 1, (2,))})
BAD: list[tuple[Any, str, str, str]] = [
    (with_spaces(spaces.Discrete(3)), "action space", "failed", "Discrete"),
    (with_spaces(TOO_BIG), "action space", "failed", "is not bounded"),
    (with_spaces(spaces.Box(-1, 1, (2, 2), np.float32)), "action space", "failed", "(2, 2)"),
    (with_spaces(None, LAST), "observation space", "failed", "channels come last"),
    (with_spaces(None, spaces.MultiDiscrete([3, 3])), "observation space", "failed", "MultiDiscrete"),
    (with_spaces(None, GOALS), "observation space", "failed", "desired_goal"),
    (with_spaces(None, EXTRA), "observation space", "warning", "does not perceive clock"),
    (NoSeed, "determinism", "warning", "after another reset"),
    (NoSeed, "api", "failed", "non-deterministic"),
    (DeafSecond, "actions matter", "warning", "dimensions [1]"),
    (Deaf, "actions matter", "failed", "dimensions [0, 1]"),
    (Frozen, "change", "failed", "in 0 % of steps"),
    (Stuck, "sensors", "warning", "[1] never change"),
    (Faint, "sensors", "warning", "smallest movement uses"),
    (Outside, "observations", "warning", "outside the observation space"),
    (Hurt, "observations", "failed", "NaN"),
    (Short, "episodes", "failed", "40 steps"),
    (Crash, "exploration", "failed", "RuntimeError: the motor is on fire (test_check.py:"),
    (OldStep, "exploration", "failed", "not enough values"),
    (NoDriver, "rendering", "warning", "EGL"),
    (Camera, "pixels", "failed", "every frame is the same"),
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
        (NoDriver, {"rendering"}),
        (NoSeed, {"api", "determinism", "actions matter"}),
    ):
        assert {f.check for f in world(kind).values() if f.result != "ok"} <= allowed, kind.__name__


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
    for kind, which in ((NoDriver, "rendering"), (BlindCamera, "exploration")):
        advice = world(kind)[which].advice
        assert "libegl1" in advice and "libosmesa6" in advice and "MUJOCO_GL=osmesa" in advice


def flags(advice: str) -> dict[str, int]:
    """The training flags that an advice names."""
    return {name: int(value) for name, value in re.findall(r"--([a-z.-]+) (\d+)", advice)}


def trained_as_advised(advice: str, env_id: str, folder: Path) -> dict:
    """A tiny training with the flags of an advice, given the way a user gives them."""
    changed = flags(advice)
    base = tiny_maze(env=env_id, env_options=())
    arguments = [f"--{name}={value}" for name, value in changed.items()]
    config = tyro.cli(Config, args=arguments, default=base)
    return train_tiny(config, folder)


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 8, 10, 16, 40])
def test_advice_on_short_episodes_is_accepted_by_train(world, limit: int, tmp_path: Path):
    class Limited(Drift):
        def __init__(self, render_mode: str | None = None) -> None:
            super().__init__(render_mode)
            self.limit = limit

    finding = world(Limited)["episodes"]
    advised = flags(finding.advice)
    assert (
        finding.result == "failed" and advised["collect.length"] * advised.get("world-model.action-block", 4) <= limit
    )
    assert (
        world(Limited, length=advised["collect.length"], block=advised.get("world-model.action-block", 4))[
            "episodes"
        ].result
        == "ok"
    )
    gym.register("Limited-v0", entry_point=Limited)
    try:
        assert trained_as_advised(finding.advice, "Limited-v0", tmp_path / "run")["env_steps"] > 0
    finally:
        gym.registry.pop("Limited-v0")


def test_advice_on_a_time_limit_is_accepted_by_config():
    gym.register("Limited-v0", entry_point=Drift, max_episode_steps=9)
    try:
        advice = {f.check: f for f in check(CheckArguments("Limited-v0", steps=4))}["episodes"].advice
    finally:
        gym.registry.pop("Limited-v0")
    assert flags(advice) == {"collect.length": 3, "world-model.action-block": 3}


@pytest.mark.parametrize("steps", range(1, 100))
def test_every_advised_length_passes_the_checks_of_config(steps: int):
    advised = flags(shorter_sequences(steps, 4))
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
    assert minutes == pytest.approx(4000 * 24 * 4 / rate / 60, rel=0.02) and finding.result == "ok"
    slow = speed_finding(10, 0.9, "in one environment", 24, 4)
    assert slow.result == "warning" and "frames" in slow.advice and flags(slow.advice) == {"collect.episodes": 375}
    assert "make step() faster" in speed_finding(10, 0.1, "in one environment", 24, 4).advice


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


def test_worlds_of_gymnasium_can_be_checked():
    found = {f.check: f for f in check(CheckArguments("Pendulum-v1", steps=200))}
    assert all(f.result == "ok" for name, f in found.items() if name != "rendering")


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
    assert "actions matter" in out and "The agent can be trained in TwoRooms-v0" in out and "Traceback" not in out + err


def test_output_for_people_of_a_bad_world(capfd):
    assert run("CartPole-v1") == 1
    out, err = capfd.readouterr()
    assert "The agent cannot be trained in CartPole-v1" in out and "Traceback" not in out + err
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


def test_the_last_line_says_which_commands_work(world, capfd):
    assert run("TwoRooms-v0", "--steps", "100") == 0
    own = capfd.readouterr().out.splitlines()[-1]
    assert all(name in own for name in ("train", "evaluate", "imagine", "ablate", "report", "tasks", "exact states"))
    world(Drift)
    assert run("Tested0-v0", "--steps", "100") == 0
    foreign = capfd.readouterr().out.splitlines()[-1]
    assert "Commands that work: train, report. The others (evaluate, imagine, ablate) need" in foreign


def test_a_foreign_environment_supports_exactly_the_commands_that_are_named(world, tmp_path, capfd, monkeypatch):
    world(Drift)
    assert run("Tested0-v0", "--steps", "100", "--json") == 0
    assert json.loads(capfd.readouterr().out)["commands"] == ["train", "report"]
    folder = tmp_path / "run"
    config = tiny_maze(env="Tested0-v0", env_options=())
    monkeypatch.setitem(PRESETS, "tested", lambda: config)
    train_tiny(config, folder)
    assert run_agent.main(["report", str(folder)]) == 0
    for command in ("evaluate", "imagine"):
        assert run_agent.main([command, str(folder)]) == 2
    assert run_agent.main(["ablate", "tested", "--out", str(tmp_path / "table")]) == 2


def test_same_seed_same_findings():
    def findings(seed: int) -> list[Finding]:
        found = check(CheckArguments("TwoRooms-v0", seed=seed, steps=100))
        return [f for f in found if f.check != "speed"]

    assert findings(1) == findings(1)
