"""What the presets must reach, with seeds and intervals. Each trains for minutes: `make test-slow`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import run_agent

pytestmark = pytest.mark.slow


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """Run one command with --json and return its object."""
    assert run_agent.main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def trained(capsys: pytest.CaptureFixture[str], folder: Path, preset: str, seed: int) -> tuple[str, dict[str, Any]]:
    """Train a preset; returns the run folder and the summary."""
    out = str(folder / f"{preset}{seed}")
    return out, command(capsys, "train", preset, "--seed", str(seed), "--out", out)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_two_rooms(capsys: pytest.CaptureFixture[str], tmp_path: Path, seed: int) -> None:
    """99 % on unseen tasks, at most 10 minutes and 3 GB; Mode-1 90 % at a twentieth of the time; sharp imagination."""
    run, summary = trained(capsys, tmp_path, "two_rooms", seed)
    planned = command(capsys, "evaluate", run)
    policy = command(capsys, "evaluate", run, "--mode", "1")
    imagined = command(capsys, "imagine", run)
    assert planned["success"] >= 0.99, planned
    assert summary["train_wall_seconds"] <= 600
    assert summary["peak_memory_mb"] <= 3072
    assert planned["plan_ms_median"] <= 40
    assert policy["success"] >= 0.90, policy
    assert policy["plan_ms_median"] <= planned["plan_ms_median"] / 20
    assert imagined["horizon"] >= 16
    assert imagined["ratio_persistence"] < 0.5
    assert imagined["ratio_shuffled"] < 0.5


def test_two_rooms_random(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """95 % on layouts never seen, at most 40 minutes."""
    run, summary = trained(capsys, tmp_path, "two_rooms_random", 0)
    assert command(capsys, "evaluate", run)["success"] >= 0.95
    assert summary["train_wall_seconds"] <= 2400


@pytest.mark.parametrize(("preset", "bar"), [("point_maze", 0.97), ("point_maze_medium", 0.90)])
def test_point_maze(capsys: pytest.CaptureFixture[str], tmp_path: Path, preset: str, bar: float) -> None:
    """97 % in the U maze, 90 % in the medium one, at most 15 minutes."""
    run, summary = trained(capsys, tmp_path, preset, 0)
    assert command(capsys, "evaluate", run)["success"] >= bar
    assert summary["train_wall_seconds"] <= 900
