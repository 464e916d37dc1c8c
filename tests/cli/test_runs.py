"""Reading a run: its environment is imported only when the user names it, and new files can go elsewhere."""

from __future__ import annotations

import errno
import importlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import envs
from agent.cli import evaluate
from agent.cli.runs import open_environment, open_variant
from agent.config import Config, options_of
from agent.errors import UserError
from agent.evaluation.tasks import task_list
from agent.interaction.environment import make_simulator
from agent.interaction.environment import open_environment as open_known
from agent.presets import PRESETS
from agent.storage import files
from agent.storage.lock import FolderLock
from tests.helpers import tiny, train_tiny

QUICK = ("--tasks", "3", "--budget", "2", "--record", "1")


# The environment of a run


@pytest.fixture
def own_world(monkeypatch, tmp_path) -> Iterator[Path]:
    """A module own_world that registers OwnRooms-v0; not imported, and forgotten afterwards. Gives its mark."""
    mark = tmp_path / "imported"
    (tmp_path / "own_world.py").write_text(
        f"import pathlib, envs\npathlib.Path({str(mark)!r}).touch()\nenvs.register('OwnRooms-v0', envs.TwoRooms)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield mark
    forget()


def forget() -> None:
    """As in a new process."""
    sys.modules.pop("own_world", None)
    envs.SIMULATORS.pop("OwnRooms-v0", None)
    gym.registry.pop("OwnRooms-v0", None)


def test_a_module_that_only_config_json_names_is_not_imported(call, run_folder, own_world):
    config = json.loads((run_folder / "config.json").read_text())
    (run_folder / "config.json").write_text(json.dumps({**config, "env": "own_world:OwnRooms-v0"}))
    for command in ("evaluate", "imagine"):
        code, out, err = call(command, run_folder)
        assert code == 2 and "Traceback" not in out + err
        assert "runs its code" in err and "--env own_world:OwnRooms-v0" in err
    assert not own_world.exists()


@pytest.mark.parametrize("trained_in", ["OwnRooms-v0", "own_world:OwnRooms-v0"])
def test_a_run_of_an_own_world_is_opened_by_naming_its_module(call, own_world, tmp_path, trained_in):
    importlib.import_module("own_world")
    train_tiny(tiny(env=trained_in), tmp_path / "run")
    forget()
    own_world.unlink()
    code, _, err = call("evaluate", tmp_path / "run", *QUICK)
    assert code == 2 and "--env" in err and ":OwnRooms-v0" in err and "did you mean" not in err
    code, out, err = call("evaluate", tmp_path / "run", *QUICK, "--env", "own_world:OwnRooms-v0", "--json")
    assert code == 0 and json.loads(out)["n_tasks"] == 3, err
    assert own_world.exists()


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("own_world:TwoRooms-v1", "another environment"),
        ("no_such_module:TwoRooms-v0", "cannot be imported"),
    ],
)
def test_a_named_environment_that_does_not_fit_is_refused(call, trained_run, tmp_path, named, words):
    code, out, err = call("evaluate", trained_run, *QUICK, "--env", named, "--out", tmp_path)
    assert code == 2 and words in err and "Traceback" not in out + err


def test_a_module_that_is_imported_already_may_be_named_by_a_file():
    assert open_environment(Config(env="envs:TwoRooms-v0")).truth is not None


# Variants of the environment


def test_a_run_is_evaluated_in_a_variant_of_its_environment(call, run_folder):
    shared = json.loads(call("evaluate", run_folder, *QUICK, "--json")[1])
    code, out, err = call("evaluate", run_folder, *QUICK, "--env-options", "random_wall=true", "--json")
    other = json.loads(out)
    assert code == 0, err
    assert other["env_options"] == ["random_wall=true"] and other["task_list_sha256"] != shared["task_list_sha256"]
    assert (run_folder / "evaluation-mode2-cem-learned-random-wall-true.json").exists()
    assert json.loads((run_folder / "evaluation-mode2-cem-learned.json").read_text())["env_options"] == []


def test_a_variant_with_other_observations_is_refused():
    maze = Config(env="PointMaze-v0", env_options=("layout=u",))
    own = open_known(maze.env, options_of(maze))
    with pytest.raises(UserError, match=r"other observations(.|\n)*pixel_shape"):
        open_variant(maze, own, ("layout=u", "pixels=true"))


# Tasks of one's own


def write_tasks(path: Path, count: int) -> Path:
    tasks, _ = task_list(make_simulator("TwoRooms-v0", {}), count)
    path.write_text(json.dumps({"start": tasks.start.tolist(), "goal": tasks.goal.tolist()}))
    return path


def test_a_file_of_tasks_is_hashed_like_the_frozen_list(call, run_folder, tmp_path):
    file = write_tasks(tmp_path / "mine.json", 3)
    frozen = json.loads(call("evaluate", run_folder, "--tasks", 3, "--budget", 4, "--json")[1])
    code, out, err = call("evaluate", run_folder, "--tasks", file, "--budget", 4, "--json")
    mine = json.loads(out)
    assert code == 0, err
    for key in ("task_list_sha256", "n_tasks", "task_steps", "success_final"):
        assert mine[key] == frozen[key]
    assert (run_folder / f"evaluation-mode2-cem-learned-tasks-{mine['task_list_sha256'][:8]}.json").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "damaged"),
        ("[]", "expected an object"),
        ('{"start": [[1, 2, 3, 4]]}', "holds something else"),
        ('{"start": [[1, 2]], "goal": [[1, 2]]}', "shape (1, 2)"),
        ('{"start": [[1, 2, 3, 4]], "goal": []}', "goal has shape"),
        ('{"start": [[1, 2, 3, NaN]], "goal": [[1, 2, 3, 4]]}', "not finite"),
        ('{"start": [[1, 2, 3], [4]], "goal": [[1, 2, 3, 4]]}', "expected"),
        ("[" * 100_000, "damaged"),
        ('{"start": [[1e9, 10, 32, 32]], "goal": [[50, 50, 32, 32]]}', "start holds a state that cannot be"),
    ],
)
def test_a_file_that_holds_no_tasks_is_refused(call, trained_run, tmp_path, content, words):
    (tmp_path / "mine.json").write_text(content)
    code, out, err = call("evaluate", trained_run, "--tasks", tmp_path / "mine.json", "--out", tmp_path)
    assert code == 2 and words in err and "Traceback" not in out + err


def test_a_file_of_tasks_that_is_not_there_is_named(call, trained_run, tmp_path):
    code, _, err = call("evaluate", trained_run, "--tasks", "no.json", "--out", tmp_path)
    assert code == 2 and "no.json is neither a number of tasks nor a file" in err


# Where files go


@pytest.fixture
def read_only(trained_run, monkeypatch) -> Path:
    """A run that cannot be written into; permissions alone would not stop a privileged user."""
    write = files.write_synced

    def refuse(path, data):
        if Path(path).is_relative_to(trained_run):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        write(path, data)

    monkeypatch.setattr(files, "write_synced", refuse)
    return trained_run


def contents(folder: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*")}


def test_a_read_only_run_is_evaluated_imagined_and_reported_elsewhere(call, read_only, tmp_path):
    before, out = contents(read_only), tmp_path / "elsewhere"
    for command in (("evaluate", read_only, *QUICK), ("imagine", read_only, "--horizon", 2), ("report", read_only)):
        code, _, err = call(*command, "--out", out)
        assert code == 0, err
    assert contents(read_only) == before
    assert {"evaluation-mode2-cem-learned.json", "imagination", "report.html"} <= {p.name for p in out.iterdir()}


@pytest.mark.parametrize("command", ["evaluate", "imagine"])
def test_a_folder_that_cannot_be_written_is_found_out_before_the_work(call, read_only, tmp_path, monkeypatch, command):
    monkeypatch.setattr(f"agent.cli.{command}.load_agent", lambda *_: pytest.fail("the work has begun"))
    (tmp_path / "file").touch()
    for flags in ((), ("--out", tmp_path / "file" / "below")):
        code, _, err = call(command, read_only, *flags)
        assert code == 2 and "cannot write" in err


def test_a_second_comparison_in_one_folder_is_refused_at_once(call, tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "small", tiny)
    out = tmp_path / "comparison"
    with FolderLock(out, "comparing"):
        code, _, err = call("ablate", "small", "--without", "warm-start", "--seeds", 1, "--tasks", 2, "--out", out)
    assert code == 2 and f"process {os.getpid()} is comparing in" in err.replace("\n", " ")
    assert [p.name for p in out.iterdir()] == ["lock"], "no failed cell"
    with FolderLock(out, "comparing"):
        pass


# What is printed


def test_decision_latency_says_what_it_is_of(call, run_folder):
    out = call("evaluate", run_folder, *QUICK)[1]
    assert "ms for one episode on one thread" in out and "ms for a batch of 3 episodes on 1 thread" in out


def test_recorded_are_the_first_tasks_of_what_is_evaluated(run_folder, call, tmp_path):
    file = write_tasks(tmp_path / "mine.json", 2)
    assert call("evaluate", run_folder, "--tasks", file, "--budget", 2, "--record", 1)[0] == 0
    (recording,) = run_folder.glob("recording-*-tasks-*.json")
    assert len(json.loads(recording.read_text())["episodes"]) == 1
    assert np.isfinite(json.loads(recording.read_text())["episodes"][0]["goal"]).all()
    assert evaluate.MAX_RECORDED >= 1


def test_a_wrapper_that_only_a_file_names_is_not_imported():
    config = Config(env="Pendulum-v1", wrappers=("nobodys_module:Wrapper",))
    with pytest.raises(UserError, match=r"nobodys_module:Wrapper.*imports no module"):
        open_environment(config)
    assert open_environment(replace(config, wrappers=("gymnasium.wrappers:FlattenObservation",))).asks is False


def test_a_variant_keeps_the_wrappers():
    config = Config(env="Pendulum-v1", wrappers=("gymnasium.wrappers:FlattenObservation",))
    own = open_environment(config)
    assert open_variant(config, own, ("g=9.0",)).spec == own.spec != open_known("Pendulum-v1", {}).spec
