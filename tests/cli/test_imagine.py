"""Promises of `imagine` where there is no map."""

from __future__ import annotations

import json

from agent.cli.task_file import load_task
from agent.console import set_quiet
from agent.inspection import without_map
from agent.learning.train import train_run
from modules.drives import DRIVES
from tests.inspection.drift import config_of


def test_a_task_in_a_file_is_not_imported_to_look_inside(call, tmp_path, monkeypatch):
    """The file is gone; its run is imagined all the same, with plans for the drives that are left."""
    monkeypatch.setattr(without_map, "EPISODES", 4)
    file = tmp_path / "wish.py"
    file.write_text("def cost(x):\n    return (1 - x['obs[0]']) ** 2\n")
    task = f"{file}:cost"
    load_task(task)
    set_quiet(True)
    train_run(config_of(drives=(task, "survive")), tmp_path / "run", [])
    train_run(config_of(drives=(task,)), tmp_path / "alone", [])
    set_quiet(False)
    DRIVES.pop(task)  # as in a new process
    file.unlink()
    code, out, err = call("imagine", tmp_path / "run", "--horizon", 2, "--episodes", 1, "--json")
    assert code == 0 and task not in DRIVES, err
    found = json.loads(out.splitlines()[-1])
    assert found["plans_for"] == ["survive"] and "imagination/plans.png" in found["files"]
    assert "plans are for survive alone" in err.replace("\n", " ")
    code, out, err = call("imagine", tmp_path / "alone", "--horizon", 2, "--episodes", 1, "--json")
    assert code == 0 and "there are no plans" in err.replace("\n", " ")
    assert "imagination/plans.png" not in json.loads(out.splitlines()[-1])["files"]


def test_more_than_can_be_shown_is_refused_without_a_map_too(call, tmp_path):
    set_quiet(True)
    train_run(config_of(), tmp_path / "run", [])
    code, _, err = call("imagine", tmp_path / "run", "--horizon", 129)
    assert code == 2 and "--horizon 129" in err
