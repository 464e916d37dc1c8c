"""Promises of the command line: mistakes are named and cost nothing, --json ends on one line, damage is survived."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

from agent.build import setup
from agent.cli import train as commands
from agent.config import Config, from_dict, options_of
from agent.presets import PRESETS, debug
from agent.storage.checkpoint import checkpoint_steps
from tests.helpers import tiny, train_tiny

KEYS = {
    "success", "success_final", "ci_low", "ci_high", "n_tasks", "task_list_sha256", "reference", "plan_ms_median",
    "seed",
    "env_steps", "train_wall_seconds", "train_cpu_seconds",
}  # fmt: skip


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], ["'trian'", "did you mean 'train'"]),
        (["train", "two_room"], ["'two_room'", "did you mean 'two_rooms'", "debug"]),
        (["train", "debug", "--env", "TwoRoms-v0"], ["'TwoRoms-v0'", "did you mean 'TwoRooms-v0'"]),
        (["train", "debug", "--sede", "1"], ["--sede", "--seed"]),
        (["train", "debug", "--learn.bacth", "1"], ["--learn.bacth", "--learn.batch"]),
        (["train", "debug", "--seed", "one"], ["--seed", "one"]),
        (["train", "debug", "--configurator.planner", "cme"], ["cme", "cem"]),
        (["train", "debug", "--device", "gpu"], ["'gpu'", "--device"]),
        (["train", "debug", "--out"], ["--out"]),
        (["evaluate"], ["run"]),
        (["evaluate", "nowhere/at_all"], ["nowhere/at_all"]),
        (["imagine", "nowhere/at_all"], ["nowhere/at_all"]),
        (["check"], ["environment"]),
    ],
)
def test_a_mistake_is_named_in_one_message(call, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(*arguments)
    assert code == 2, (out, err)
    said = " ".join((out + err).split())
    assert "Traceback" not in said
    for word in words:
        assert word.lower() in said.lower(), said


@pytest.mark.parametrize("option", ["layout=big", "lay=u", "layout"])
def test_a_wrong_option_of_a_world_is_named(call, tmp_path, option):
    code, out, err = call("train", "point_maze", "--env-options", option, "--out", tmp_path / "x")
    assert code == 2 and "Traceback" not in out + err and {"layout=big": "big"}.get(option, "lay") in out + err


def test_a_wrong_world_leaves_no_run_behind(call, tmp_path):
    """Else the corrected command would be refused, because the folder holds another configuration."""
    code, _, _ = call("train", "debug", "--env", "TwoRoms-v0", "--out", tmp_path / "run")
    assert code == 2 and not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    ("flag", "number"),
    [
        ("--tasks", 0), ("--tasks", -3), ("--budget", 0), ("--budget", -1), ("--samples", 0), ("--iterations", 0),
        ("--horizon", 0), ("--replan-every", 0), ("--planner", "cme"), ("--mode", 3), ("--dynamics", "true"),
        ("--device", "gpu"),
    ],
)  # fmt: skip
def test_impossible_evaluations_are_refused(call, trained_run, flag, number):
    code, out, err = call("evaluate", trained_run, flag, number)
    assert code == 2 and "Traceback" not in out + err and flag.lstrip("-") in out + err


@pytest.mark.parametrize(
    "flags",
    [
        ("--perception.latent", "vector"),
        ("--collect.episodes", "0"),
        ("--collect.length", "1"),
        ("--learn.batch", "0"),
        ("--planner.elites", "-1"),
        ("--world-model.action-block", "0"),
        ("--perception.patch", "90"),
        ("--learn.learning-rate", "-1"),
        ("--configurator.discount", "1"),
        ("--cost.goal-scale", "0"),
        ("--collect.held", "2"),
        ("--memory.capacity", "0"),
        ("--planner.action-repeat", "3"),
        ("--seed", "99999999999999999999"),
    ],
)
def test_configurations_that_cannot_work_are_refused_without_a_traceback(call, tmp_path, flags):
    code, out, err = call("train", "debug", *flags, "--out", tmp_path / "run")
    assert code == 2 and "Traceback" not in out + err
    assert not (tmp_path / "run").exists(), "else the corrected command would be refused there"


def test_a_misspelt_run_is_told_the_nearest(call, run_folder):
    code, _, err = call("evaluate", run_folder.parent / "rum")
    assert code == 2 and "did you mean 'run'" in err


def test_a_run_without_a_checkpoint_is_refused(call, run_folder):
    shutil.rmtree(run_folder / "checkpoints")
    code, out, err = call("evaluate", run_folder)
    assert code == 2 and err.startswith("error: ") and "checkpoint" in err and "Traceback" not in out + err


def test_a_policy_that_was_never_trained_cannot_be_evaluated(call, tmp_path):
    train_tiny(tiny(), tmp_path / "run", stop_at=12)
    (tmp_path / "run" / "summary.json").unlink()  # as a training that is killed leaves it
    code, _, err = call("evaluate", tmp_path / "run", "--mode", 1)
    assert code == 2 and "no trained policy" in err and "is not finished" in err


def test_no_command_and_help(call):
    code, out, err = call()
    assert code == 2 and "usage" in out + err
    code, out, _ = call("--help")
    assert code == 0
    assert all(name in out for name in ("train", "evaluate", "imagine", "check", "--json"))


@pytest.mark.parametrize("command", ["train", "evaluate", "imagine", "ablate", "report", "check"])
def test_every_command_has_help(call, command):
    code, out, _ = call(command, "--help")
    assert code == 0 and "usage" in out.lower()
    flags = {"train": "--learn.batch", "evaluate": "--tasks", "imagine": "--horizon", "ablate": "--without"}
    assert flags.get(command, "--help") in out


def test_interruption_is_130(call, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "run", interrupted)
    code, _, err = call("train", "debug")
    assert code == 130 and "same command" in err


# Results


def test_evaluation_ends_on_one_json_line(call, run_folder):
    code, out, err = call("evaluate", run_folder, "--tasks", 3, "--budget", 3, "--seed", 2, "--json")
    assert code == 0, err
    lines = out.splitlines()
    assert len(lines) == 1, "standard output holds the JSON and nothing else"
    result = json.loads(lines[-1])
    assert set(result) >= KEYS
    assert result["n_tasks"] == 3 and result["seed"] == 2 and result["env_steps"] == 128
    assert set(result["reference"]) == {"random", "greedy", "expert"}
    assert 0 <= result["ci_low"] <= result["success"] + 1e-12 and result["success"] <= result["ci_high"] + 1e-12 <= 1.1
    assert result["train_wall_seconds"] > 0 and result["train_cpu_seconds"] > 0
    assert len(result["task_list_sha256"]) == 64
    saved = json.loads((run_folder / "evaluation-mode2-cem-learned.json").read_text())
    assert saved["task_list_sha256"] == result["task_list_sha256"]


@pytest.mark.parametrize(
    "flags",
    [("--planner", "mppi"), ("--planner", "gradient"), ("--mode", "1"), ("--dynamics", "oracle"), ("--seed", "5")],
)
def test_every_way_to_evaluate_works(call, run_folder, flags):
    code, out, err = call("evaluate", run_folder, "--tasks", 2, "--budget", 2, *flags, "--json")
    assert code == 0, err
    assert str(json.loads(out.splitlines()[-1])[flags[0].lstrip("-")]) == flags[1]


def test_without_json_people_get_a_table(call, run_folder):
    code, out, _ = call("evaluate", run_folder, "--tasks", 2, "--budget", 2)
    assert code == 0
    assert "reference: expert" in out and "agent, mode 2" in out and "task list" in out


def test_training_by_command_twice_is_one_training(call, tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "debug", tiny)
    monkeypatch.setattr("agent.inspection.imagination.to_tensorboard", lambda *_: None)
    for _ in range(2):
        code, out, err = call("train", "debug", "--seed", 3, "--out", tmp_path / "run", "--json")
        assert code == 0, err
        result = json.loads(out.splitlines()[-1])
        assert result["seed"] == 3 and result["env_steps"] == 128 and len(out.splitlines()) == 1
    assert max(checkpoint_steps(tmp_path / "run" / "checkpoints")) == 43
    assert len((tmp_path / "run" / "command.txt").read_text().splitlines()) == 2
    code, _, err = call("train", "debug", "--seed", 4, "--out", tmp_path / "run")
    assert code == 2 and "- seed: 3" in err and "+ seed: 4" in err


def test_the_seconds_of_training_do_not_shrink_when_it_goes_on(tmp_path):
    first = train_tiny(tiny(), tmp_path / "run")
    again = train_tiny(tiny(), tmp_path / "run")
    assert again["train_wall_seconds"] >= 0.5 * first["train_wall_seconds"]
    assert again["env_steps"] == first["env_steps"]


def test_training_saves_its_environment_options(tmp_path, call, monkeypatch):
    """`--env-options name=value` reaches the world, with numbers and truth values as such."""
    assert options_of(dataclasses.replace(debug(), env_options=("random_wall=True", "n=3", "l=u"))) == {
        "random_wall": True, "n": 3, "l": "u",
    }  # fmt: skip


# Damage


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(call, tmp_path):
    for stop in (40, None):
        train_tiny(tiny(), tmp_path / "run", stop_at=stop)
    folder = tmp_path / "run" / "checkpoints"
    older, newest = sorted(checkpoint_steps(folder))[-2:]
    flip(folder / f"{newest:08d}.safetensors")
    code, out, err = call("evaluate", tmp_path / "run", "--tasks", 2, "--budget", 2, "--json")
    assert code == 0, err
    assert f"{newest:08d}.safetensors" in err and f"step {newest}" in err and f"{older}" in err
    assert json.loads(out.splitlines()[-1])["n_tasks"] == 2
    flip(folder / f"{older:08d}.safetensors")
    code, out, err = call("evaluate", tmp_path / "run", "--tasks", 2)
    assert code == 2 and f"{older:08d}.safetensors" in err and "Traceback" not in out + err


@pytest.mark.parametrize("content", ["{", "[]", '{"seed": 0, "sede": 1}', '{"learn": {"bacth": 2}}', '{"seed": "x"}'])
def test_a_damaged_configuration_is_refused(call, run_folder, content):
    (run_folder / "config.json").write_text(content)
    code, out, err = call("evaluate", run_folder, "--tasks", 2)
    assert code == 2 and "config.json" in err and "Traceback" not in out + err


@pytest.mark.parametrize(
    ("field", "value"), [("max_steps", "8"), ("env_options", None), ("seed", 0.5), ("cost", {"goal_scale": 0.9})]
)
def test_a_configuration_that_was_edited_after_training_is_refused(call, run_folder, field, value):
    """Also where the new value is a possible one: another goal scale is another cost than the critic's."""
    config = json.loads((run_folder / "config.json").read_text())
    config[field] = {**config[field], **value} if isinstance(value, dict) else value
    (run_folder / "config.json").write_text(json.dumps(config))
    code, out, err = call("evaluate", run_folder, "--tasks", 2)
    assert code == 2 and "config.json" in err and "Traceback" not in out + err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("evaluate", "--planner", "gradient", "--dynamics", "oracle"), "cem or mppi"),
        (("evaluate", "--seed", "-1"), "--seed"),
        (("imagine", "--seed", "-1"), "--seed"),
    ],
)
def test_flags_that_cannot_work_are_refused(call, trained_run, arguments, word):
    command, *flags = arguments
    code, out, err = call(command, trained_run, *flags)
    assert code == 2 and word in err and "Traceback" not in out + err


def test_a_damaged_summary_costs_its_numbers_only(call, run_folder):
    (run_folder / "summary.json").write_text("{")
    code, out, err = call("evaluate", run_folder, "--tasks", 2, "--budget", 2, "--json")
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["env_steps"] is None


# Configurations


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name):
    config = PRESETS[name]()
    assert from_dict(Config, json.loads(json.dumps(dataclasses.asdict(config)))) == config
    assert PRESETS[name]() == config and isinstance(hash(str(config)), int)


def test_absent_fields_take_their_defaults_and_unknown_ones_are_refused():
    assert from_dict(Config, {"seed": 5}) == Config(seed=5)
    with pytest.raises(ValueError, match="sede"):
        from_dict(Config, {"sede": 5})
    with pytest.raises(ValueError, match="bacth"):
        from_dict(Config, {"learn": {"bacth": 5}})


@pytest.mark.parametrize(
    "values",
    [
        {"seed": "1"}, {"seed": True}, {"seed": 1.5}, {"env": 3}, {"env_options": {"l": "u"}}, {"env_options": [1]},
        {"learn": {"clip": "x"}}, {"configurator": {"mode": 3}}, {"planner": {"action_repeat": 1.5}},
        {"cost": []},
    ],
)  # fmt: skip
def test_values_of_another_type_are_refused(values):
    with pytest.raises(ValueError, match=r"config\.json has"):
        from_dict(Config, values)


def test_whole_numbers_are_numbers_and_lists_become_tuples():
    config = from_dict(Config, {"env_options": ["layout=u"], "learn": {"clip": 2}, "planner": {"action_repeat": None}})
    assert config.env_options == ("layout=u",) and config.learn.clip == 2 and config.planner.action_repeat is None


def test_setup_obeys_the_threads():
    setup(2)
    assert torch.get_num_threads() == 2
    setup(1)
    assert torch.get_num_threads() == 1
