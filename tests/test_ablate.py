"""Comparisons: what is left out is left out, cells share what they can, and nothing finished is computed again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import run_agent
from agent import ablate
from agent.ablate import ABLATIONS, FULL, cells, compare, finished, setting, trained_as, variants
from agent.commands import train_run
from agent.errors import UserError
from agent.presets import PRESETS, two_rooms
from tests.conftest import tiny


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch):
    """A preset that trains in a second."""
    monkeypatch.setitem(PRESETS, "small", tiny)
    return "small"


def test_every_ablation_changes_an_agent_that_has_everything():
    weights = dataclasses.replace(two_rooms().objectives, temporal=1.0, within_episode=1.0)
    everything = dataclasses.replace(two_rooms(), objectives=weights)
    changed = {name: change(everything) for name, change in ABLATIONS.items()}
    assert all(config != everything for config in changed.values())
    assert len({ablate.digest(config) for config in changed.values()}) == len(ABLATIONS), "each in its own way"


def test_only_acting_shares_weights():
    full = two_rooms()
    for name in ("warm-start", "mode2", "goal-drive"):
        assert trained_as(ABLATIONS[name](full), full) == full
    for name in ("critic", "memory", "variance", "inverse-dynamics", "multi-step"):
        assert trained_as(ABLATIONS[name](full), full) != full
    assert trained_as(setting("configurator.discount", 0.9)(full), full) != full, "the critic's cost is discounted"


def test_values_of_a_sweep_have_the_type_of_their_field():
    found = ablate.varied("objectives.temporal=0,1", two_rooms())
    assert [c.objectives.temporal for c in found.values()] == [0.0, 1.0]
    assert all(isinstance(c.objectives.temporal, float) for c in found.values())
    named = ablate.varied("configurator.planner=mppi,cem", two_rooms())
    assert [c.configurator.planner for c in named.values()] == ["mppi", "cem"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["small", "--without", "critc"], "did you mean 'critic'"),
        (["small", "--without", "temporal"], "no temporal to leave out"),
        (["smal"], "did you mean 'small'"),
        (["small", "--against", "point_maze"], "another world"),
        (["small", "--vary", "configurator.sampels=4"], "did you mean 'samples'"),
        (["small", "--vary", "configurator=4"], "not one field"),
        (["small", "--vary", "seed.x=4"], "not one field"),
        (["small", "--vary", "configurator.samples"], "a field and its values"),
        (["small", "--vary", "configurator.samples=0"], "must be 1 or more"),
        (["small", "--seeds", "0"], "--seeds must be 1 or more"),
    ],
)
def test_what_cannot_be_compared_is_said_before_anything_is_trained(small, capsys, tmp_path, arguments, text):
    assert run_agent.main(["ablate", *arguments, "--out", str(tmp_path / "out")]) == 2
    assert text in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_a_comparison_end_to_end_and_again(small, tmp_path: Path, capsys):
    """Two seeds, a variant with weights of its own and one without; the second time nothing is trained."""
    chosen = variants(small, ["critic", "warm-start"], vary=["configurator.samples=4"])
    trained: list[Path] = []

    def train(config, folder, command):
        trained.append(folder)
        return train_run(config, folder, command)

    first = compare(chosen, 2, 3, tmp_path, train, ["me"])
    assert len(trained) == 4, "two seeds of full and of the one without a critic"
    rows = {row["variant"]: row for row in first["variants"]}
    assert list(rows) == [FULL, "without critic", "without warm-start", "configurator.samples=4"]
    assert [row["shares_weights_with_full"] for row in rows.values()] == [False, False, True, True]
    for row in rows.values():
        assert row["n_seeds"] == 2 and not row["failed"] and row["plan_ms"] > 0 and row["train_seconds"] > 0
        assert row["iqm"]["low"] <= row["iqm"]["value"] <= row["iqm"]["high"]
        assert row["task_list_sha256"] == rows[FULL]["task_list_sha256"]
    assert "difference" not in rows[FULL] and "difference" in rows["without critic"]
    assert rows["without critic"]["changes"] == "- cost.critic: true\n+ cost.critic: false"
    assert json.loads((tmp_path / "comparison.json").read_text()) == json.loads(json.dumps(first))
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")
    again = compare(chosen, 2, 3, tmp_path, train, ["me"])
    assert len(trained) == 4 and again == first
    compare(chosen, 2, 2, tmp_path, train, ["me"])
    assert len(trained) == 4, "other tasks, the same weights"


def test_a_cell_that_fails_is_shown_and_the_others_go_on(small, tmp_path: Path):
    chosen = variants(small, ["multi-step"])

    def train(config, folder, command):
        if not config.objectives.multi_step:
            raise UserError("out of luck")
        return train_run(config, folder, command)

    rows = compare(chosen, 1, 2, tmp_path, train, [])["variants"]
    assert rows[0]["n_seeds"] == 1 and rows[1]["failed"] == {0: "UserError: out of luck"} and "iqm" not in rows[1]
    cell = cells(chosen, 1, 2)[1]
    assert finished(cell, tmp_path) is None, "it is tried again next time"
    rows = compare(chosen, 1, 2, tmp_path, train_run, [])["variants"]
    assert not rows[1]["failed"] and rows[1]["n_seeds"] == 1


def test_a_damaged_or_foreign_cell_is_computed_again(small, tmp_path: Path):
    cell = cells(variants(small), 1, 2)[0]
    compare(variants(small), 1, 2, tmp_path, train_run, [])
    file = tmp_path / cell.file
    held = file.read_bytes()
    assert finished(cell, tmp_path) is not None
    file.write_bytes(held[:-5])
    assert finished(cell, tmp_path) is None
    other = dataclasses.replace(cell, config=setting("configurator.samples", 3)(cell.config))
    file.write_bytes(held)
    assert finished(other, tmp_path) is None


def test_names_become_files_inside_the_folder():
    config = tiny()
    for name in ("../../etc", "a/b", "planner.x=1", "<script>"):
        assert Path(ablate.Cell(name, config, config, 1).file).parent == Path("cells")


def test_the_seed_is_not_part_of_a_trainings_name():
    assert ablate.digest(tiny(seed=3)) == ablate.digest(tiny())
    named = {cell.run for cell in cells({FULL: tiny()}, 3, 1)}
    assert len(named) == 3 and len({run.split("__")[0] for run in named}) == 1
    assert np.all([cell.training.seed == cell.config.seed for cell in cells({FULL: tiny()}, 3, 1)])
