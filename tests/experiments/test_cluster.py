"""Comparisons on a Ray cluster: the results of a local one, also when a machine is lost. Skipped without ray."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.errors import UserError
from agent.experiments import cluster
from agent.experiments.cells import compare
from agent.experiments.variants import Variant, setting, variants
from agent.learning.train import train_run
from agent.presets import PRESETS
from tests.helpers import tiny

ray = pytest.importorskip("ray", reason="needs ray: pip install -e '.[ray]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # ray's own


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of two machines, as far as Ray can tell."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_worker_niceness", "0")
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    monkeypatch.setenv("RAY_ADDRESS", found.address)
    yield found
    ray.shutdown()
    found.shutdown()


def without_times(folder: Path) -> dict[str, Any]:
    cells = {p.name: json.loads(p.read_text()) for p in sorted((folder / "cells").iterdir())}
    return {name: {k: v for k, v in c.items() if k not in ("plan_ms", "train_seconds")} for name, c in cells.items()}


def test_a_lost_machine_changes_nothing(machines, monkeypatch, tmp_path: Path):
    monkeypatch.setitem(PRESETS, "small", tiny)
    monkeypatch.setattr("agent.interaction.explore.SHARD", 4)
    chosen = variants("small", ["critic", "multi-step"], vary=["configurator.samples=4"])
    broken = setting("losses.temporal", 1.0)(chosen["full"].config)
    chosen["one that fails"] = Variant(dataclasses.replace(broken, max_steps=7))
    local, far = tmp_path / "local", tmp_path / "far"
    marks = tmp_path / "marks"
    marks.mkdir()
    doomed = machines.add_node(num_cpus=1)
    name_of_doomed = doomed.node_id

    def train(config, folder, command, resume_from=None, map_fn=map):
        if map_fn is not map:
            node = ray.get_runtime_context().get_node_id()
            (marks / f"{node}-{time.time_ns()}").touch()
            if node == name_of_doomed:
                time.sleep(120)  # it is lost before that
        if config.losses.temporal:
            raise UserError("out of luck")
        return train_run(config, folder, command, resume_from=resume_from, map_fn=map_fn)

    def lose() -> None:
        while not list(marks.glob(f"{name_of_doomed}-*")):
            time.sleep(0.1)
        machines.remove_node(doomed, allow_graceful=False)

    launch = cluster.launcher()
    thread = threading.Thread(target=lose, daemon=True)
    thread.start()
    rows = compare(chosen, 1, 3, far, train, [], launch=launch)["variants"]
    thread.join(timeout=30)
    assert not thread.is_alive(), "a training was on the machine that was lost"
    assert rows[-1]["failed"] == {0: "UserError: out of luck"}
    assert not any(row["failed"] for row in rows[:-1])
    compare(chosen, 1, 3, local, train, [])
    assert without_times(far) == without_times(local)
    runs = [sorted(p.name for p in (folder / "runs").iterdir()) for folder in (far, local)]
    assert len(runs[0]) == 4 and runs[0] == [r for r in runs[1] if (local / "runs" / r / "summary.json").exists()]
    before = {p: p.stat().st_mtime_ns for p in far.rglob("*.json") if p.parent != far}
    compare({k: v for k, v in chosen.items() if k != "one that fails"}, 1, 3, far, train, [], launch=launch)
    assert before == {p: p.stat().st_mtime_ns for p in far.rglob("*.json") if p.parent != far}, "nothing is done again"


def test_a_cell_that_no_machine_can_hold_is_refused(machines, monkeypatch, tmp_path: Path):
    """Ray would wait for such a machine for ever."""
    monkeypatch.setitem(PRESETS, "small", tiny)
    chosen = variants("small", settings=["threads=3"])
    with pytest.raises(UserError, match=r"needs 3 CPUs.*has 1: --set threads=1"):
        compare(chosen, 1, 2, tmp_path, train_run, [], launch=cluster.launcher())


def test_a_cluster_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(UserError, match=r"RAY_ADDRESS=127\.0\.0\.1:1"):
        cluster.launcher()
