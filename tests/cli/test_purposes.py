"""What is wanted of an agent: a task or a goal that an environment cannot have is refused in one line, before any work.

Tasks of one's own are functions in a file; whatever can be wrong with them is told with the name of the function.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from modules.drives import DRIVES

FILE = """
import torch

def fine(x):
    return x["angular_velocity"].square()

def typo(x):
    return x["angular_velocty"].square()

def one_number(x):
    return x["angular_velocity"].square().mean()

def no_tensor(x):
    return 1.0

def root(x):
    return x["angular_velocity"].sqrt()

def steep(x):
    return (x["angular_velocity"] - x["angular_velocity"]).square().sqrt()

def flat(x):
    return (x["angular_velocity"] > 0).float()

def constant(x):
    return torch.zeros_like(x["angular_velocity"])

def raises(x):
    raise ValueError("what is this?\\nI do not know")
"""


@pytest.fixture
def tasks(tmp_path: Path):
    """A file of tasks, which are forgotten after the test."""
    known = dict(DRIVES)
    (tmp_path / "tasks.py").write_text(FILE)
    yield tmp_path / "tasks.py"
    DRIVES.clear()
    DRIVES.update(known)


def refusal(call, *arguments: object) -> str:
    """The one line with which a command refuses."""
    code, out, err = call(*arguments)
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1 and "Traceback" not in out + err, (out, err)
    return err


def train(env: str, *arguments: object) -> tuple[object, ...]:
    """Everything that is checked before training, and no training."""
    return ("train", "--env", env, *arguments, "--explain")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--task", "pendulum-uprihgt"), ["unknown task", "did you mean 'pendulum-upright'", "reward"]),
        (("--task", "rewrad"), ["did you mean 'reward'"]),
        (("--task", "goal"), ["gives no goal of its own", "--goal"]),
        (("--task", "cartpole-balance"), ["no sensor 'angle'", "did you mean 'sin_angle'"]),
        (("--goal", "angular_velocty=0"), ["no sensor 'angular_velocty'", "did you mean 'angular_velocity'"]),
        (("--goal", "ended=0"), ["no sensor 'ended'"]),
        (("--goal", "cos_angle"), ["name=value", "cos_angle=0.5"]),
        (("--goal", "cos_angle=up"), ["name=value"]),
        (("--goal", "cos_angle=nan"), ["name=value"]),
        (("--goal", "cos_angle=1", "--task", "reward"), ["ask for different things"]),
        (("--task", "nowhere.py:cost"), ["there is no file nowhere.py"]),
        (("--task", "reward", "--learn.reward-steps", "0"), ["--learn.reward-steps"]),
    ],
)
def test_a_purpose_that_the_environment_cannot_have_is_refused(call, arguments, words: list[str]):
    told = refusal(call, *train("Pendulum-v1", *arguments))
    assert all(word in told for word in words), told


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fien", ["has no function 'fien'", "did you mean 'fine'"]),
        ("typo", ["no sensor 'angular_velocty'", "did you mean 'angular_velocity'"]),
        ("one_number", ["returns () for readings of shape (2, 3, 5)"]),
        ("no_tensor", ["returns 1.0 for readings"]),
        ("root", ["returns numbers that are not finite"]),
        ("steep", ["gradients that are not finite"]),
        ("flat", ["is not differentiable"]),
        ("constant", ["is not differentiable"]),
        ("raises", ["fails: ValueError: what is this? I do not know (tasks.py:29)"]),
    ],
)
def test_a_cost_that_is_none_is_named(call, tasks: Path, name: str, words: list[str]):
    told = refusal(call, *train("Pendulum-v1", "--task", f"{tasks}:{name}"))
    assert f"{tasks}:{name}" in told and all(word in told for word in words), told


def test_a_cost_that_is_fine_is_wanted(call, tasks: Path):
    code, out, err = call(*train("Pendulum-v1", "--task", f"{tasks}:fine"))
    assert code == 0 and f"wanted is the task {tasks}:fine" in out, err


def test_a_file_that_fails_is_named(call, tmp_path: Path):
    (tmp_path / "broken.py").write_text("1 / 0\n")
    told = refusal(call, *train("Pendulum-v1", "--task", f"{tmp_path / 'broken.py'}:cost"))
    assert "broken.py fails: ZeroDivisionError" in told


def test_a_known_task_is_not_taken_where_a_wrapper_has_changed_the_sensors(call):
    """Nobody knows what the numbers mean any more, so the reward is learned."""
    flat = ("--wrappers", "gymnasium.wrappers:FlattenObservation")
    code, out, err = call(*train("Pendulum-v1", *flat))
    assert code == 0 and "wanted is the environment's own reward" in out, err
    assert "no sensor" in refusal(call, *train("Pendulum-v1", *flat, "--task", "pendulum-upright"))


def test_a_task_for_an_environment_with_a_preset_is_not_forgotten(call):
    assert "reward is used" in call(*train("PointMaze-v0", "--task", "reward"))[1]
    assert "reward is used" not in call(*train("PointMaze-v0"))[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--env", "CartPol-v1"), "did you mean 'CartPole-v1'"),
        (("--env", "CartPole-v1", "--wrappers", "gymnasium.wrappers:FlatenObservation"), "'FlattenObservation'"),
        (("--env", "CartPole-v1", "--env-options", "colour=3"), "'colour'"),
        (("--env", "no_such_module:Mine-v0"), "'no_such_module'"),
    ],
)
def test_an_environment_that_cannot_be_opened_leaves_no_folder(call, tmp_path: Path, arguments, words: str):
    for command in ("train", "ablate"):
        assert words in refusal(call, command, *arguments, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()
