"""Promises of training: the same bits from the same seed, interrupted or not, and nothing saved that is not finite."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from agent.build import tensors
from agent.console import set_quiet
from agent.errors import NonFinite, UserError
from agent.inspection.watch import Gallery
from agent.interaction import explore as exploring
from agent.learning import schedules, train, trainer
from agent.learning.schedules import learning_rate
from agent.learning.train import train_run
from agent.learning.trainer import updates_of
from agent.learning.updates import step_generator
from agent.storage.checkpoint import checkpoint_steps
from agent.storage.run import Run
from modules import losses
from tests.helpers import TINY_STEPS, born, explored, tiny, tiny_maze, train_tiny, weights_hash

ROOT = Path(__file__).resolve().parents[2]
TOTAL = sum(TINY_STEPS.values())
FIRST = TINY_STEPS["world_model_steps"]


def lines(folder: Path) -> list[dict]:
    """metrics.jsonl without the times."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "time"} for row in rows]


def final(folder: Path) -> dict[str, torch.Tensor]:
    return Run.open(folder).load_checkpoint()[0]


def checkpoint_bytes(folder: Path) -> str:
    files = sorted(p for p in (folder / "checkpoints").rglob("*") if p.is_file())
    return hashlib.sha256(b"".join(str(p).encode() + p.read_bytes() for p in files)).hexdigest()


def sigreg(config):
    return dataclasses.replace(config, losses=losses.Config(anticollapse="sigreg"))


CONFIGS = {"pixels": tiny, "sensors": tiny_maze, "sigreg": lambda: sigreg(tiny_maze())}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Uninterrupted runs by name."""
    folder, done = tmp_path_factory.mktemp("whole"), {}

    def run(name: str) -> Path:
        if name not in done:
            train_tiny(CONFIGS[name](), folder / name)
            done[name] = folder / name
        return done[name]

    return run


# The same bits


def test_two_fresh_processes_train_the_same_bits(tmp_path, whole):
    code = (
        "import sys, torch; from pathlib import Path; from tests.helpers import tiny, train_tiny, weights_hash\n"
        "train_tiny(tiny(), Path(sys.argv[1])); print(weights_hash(Path(sys.argv[1])))"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / name)], cwd=ROOT, stdout=-1, stderr=-1, text=True)
        for name in "ab"
    ]
    done = [(process, *process.communicate(timeout=300)) for process in started]
    assert all(process.returncode == 0 for process, *_ in done), done
    hashes = [out.strip().splitlines()[-1] for _, out, _ in done]
    assert hashes[0] == hashes[1] == weights_hash(whole("pixels"))
    assert lines(tmp_path / "a") == lines(tmp_path / "b") == lines(whole("pixels"))


def test_another_seed_trains_other_bits(tmp_path, whole):
    train_tiny(tiny(seed=1), tmp_path / "run")
    assert weights_hash(tmp_path / "run") != weights_hash(whole("pixels"))


@pytest.mark.parametrize("name", CONFIGS)
def test_interrupted_again_and_again_it_ends_at_the_same_bits(tmp_path, whole, name):
    """In the middle of every phase, at the border of two, and one update after it."""
    for stop in (5, FIRST, FIRST + 1, FIRST + 6, FIRST + 15, TOTAL - 3, TOTAL):
        train_tiny(CONFIGS[name](), tmp_path / "run", stop_at=stop)
        assert max(checkpoint_steps(tmp_path / "run" / "checkpoints")) == stop
    train_tiny(CONFIGS[name](), tmp_path / "run")
    assert weights_hash(tmp_path / "run") == weights_hash(whole(name))
    assert lines(tmp_path / "run") == lines(whole(name))


@pytest.mark.parametrize("stop", [1, 17, 30])
def test_interrupted_once_it_ends_at_the_same_bits(tmp_path, whole, stop):
    train_tiny(tiny_maze(), tmp_path / "run", stop_at=stop)
    train_tiny(tiny_maze(), tmp_path / "run")
    assert weights_hash(tmp_path / "run") == weights_hash(whole("sensors"))
    assert lines(tmp_path / "run") == lines(whole("sensors"))


@pytest.mark.parametrize("at", [3, 20])
def test_control_c_saves_and_the_same_command_goes_on(tmp_path, whole, monkeypatch, at):
    """The key is pressed while an update is computed."""
    calls = []

    def pressed(*arguments):
        calls.append(arguments)
        if len(calls) == at:
            raise KeyboardInterrupt
        return step_generator(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "step_generator", pressed)
        with pytest.raises(KeyboardInterrupt):
            train_tiny(tiny_maze(), tmp_path / "run")
    assert checkpoint_steps(tmp_path / "run" / "checkpoints")
    train_tiny(tiny_maze(), tmp_path / "run")
    assert weights_hash(tmp_path / "run") == weights_hash(whole("sensors"))
    assert lines(tmp_path / "run") == lines(whole("sensors"))


def test_a_finished_run_trained_again_changes_nothing(tmp_path):
    train_tiny(tiny_maze(), tmp_path / "run")
    before = weights_hash(tmp_path / "run"), lines(tmp_path / "run")
    train_tiny(tiny_maze(), tmp_path / "run")
    assert (weights_hash(tmp_path / "run"), lines(tmp_path / "run")) == before


def test_how_often_it_is_saved_does_not_change_the_result(tmp_path, whole):
    config = tiny_maze()
    often = dataclasses.replace(config, learn=dataclasses.replace(config.learn, checkpoint_seconds=0.0))
    train_tiny(often, tmp_path / "run")
    assert weights_hash(tmp_path / "run") == weights_hash(whole("sensors"))


def test_another_configuration_in_the_same_folder_is_refused_with_the_difference(tmp_path):
    train_tiny(tiny_maze(), tmp_path / "run", stop_at=3)
    before = checkpoint_bytes(tmp_path / "run")
    with pytest.raises(UserError, match=r"(?s)- seed: 0.*\+ seed: 4"):
        train_tiny(tiny_maze(seed=4), tmp_path / "run")
    assert checkpoint_bytes(tmp_path / "run") == before


# Phases


def test_every_phase_trains_its_own_weights_only(tmp_path, whole):
    folder, owners = tmp_path / "run", ["world_model", "critic", "policy", "decoder"]
    mine = {
        "world_model": ("perception.", "world_model.", "inverse."),
        "critic": ("cost.critic.", "cost.target.", "cost.trained"),
        "policy": ("actor.",),
        "decoder": ("decoder.",),
    }
    before, stop = tensors(born(tiny())[0]), 0
    for phase, steps in zip(owners, TINY_STEPS.values(), strict=True):
        stop += steps
        train_tiny(tiny(), folder, stop_at=stop)
        after = {k: v for k, v in final(folder).items() if not k.startswith(("optimiser.", "memory."))}
        moved = {k for k in before if not torch.equal(before[k], after[k])}
        assert moved and all(k.startswith(mine[phase]) for k in moved), (phase, moved)
        before = after


def test_the_intrinsic_cost_is_in_no_optimiser():
    config = tiny_maze()
    agent, _ = born(config)
    built = updates_of(agent, explored(config), config)
    assert [p.name for p in built] == ["world_model", "critic", "policy", "decoder"]
    names = {id(p): f"{m}.{k}" for m, module in agent.modules().items() for k, p in module.named_parameters()}
    groups = [{names[id(p)] for p in phase.parameters} for phase in built]
    assert sum(len(g) for g in groups) == len(set().union(*groups)), "no weight belongs to two phases"
    in_cost = {n for g in groups for n in g if n.startswith("cost.")}
    assert in_cost and all(n.startswith("cost.critic.") for n in in_cost), "of the cost, only the critic learns"
    assert set(names.values()) - set().union(*groups) == {n for n in names.values() if n.startswith("cost.target.")}
    assert sum(update.steps for update in built) == TOTAL


@pytest.mark.parametrize("phase", ["critic_steps", "policy_steps", "decoder_steps"])
def test_a_phase_of_no_steps_is_left_out(tmp_path, phase):
    config = tiny_maze()
    config = dataclasses.replace(config, learn=dataclasses.replace(config.learn, **{phase: 0}))
    train_tiny(config, tmp_path / "run")
    name = phase.removesuffix("_steps")
    assert name not in {row["phase"] for row in lines(tmp_path / "run")}
    trained = final(tmp_path / "run")
    assert bool(trained["cost.trained"]) == (name != "critic")
    assert bool(trained["actor.trained"]) == (name != "policy")


def test_the_log_holds_what_is_needed_to_judge_a_run(whole):
    rows = lines(whole("pixels"))
    assert list(dict.fromkeys(r["phase"] for r in rows)) == ["world_model", "critic", "policy", "decoder"]
    assert [r["step"] for r in rows] == sorted(r["step"] for r in rows)
    text = json.dumps(rows)
    for name in ("losses/prediction", "losses/critic", "losses/distillation", "losses/decoder", "health/grad_norm"):
        assert name in text
    assert "NaN" not in text


def test_looking_on_changes_nothing_that_is_learned(tmp_path, whole):
    """With gauges and pictures it ends at the same bits, and the first line of the log has its gauges."""
    set_quiet(True)
    train_run(tiny(), tmp_path / "run", [], watcher=Gallery)
    train_run(tiny(), tmp_path / "blind", [])
    set_quiet(False)
    assert weights_hash(tmp_path / "blind") == weights_hash(tmp_path / "run")
    assert weights_hash(tmp_path / "run") == weights_hash(whole("pixels"))
    rows = lines(tmp_path / "run")
    assert rows[0]["step"] == 1 and "collapse/effective_rank" in rows[0], "of a nearly untrained encoder"
    assert "NaN" not in json.dumps(rows)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["pictures_wall_seconds"] > 0
    assert rows == lines(whole("pixels"))


# What is not finite


def test_a_loss_that_is_not_finite_stops_and_leaves_the_checkpoint_alone(tmp_path, monkeypatch):
    train_tiny(tiny_maze(), tmp_path / "run", stop_at=5)
    before = checkpoint_bytes(tmp_path / "run")
    original = train.explore

    def broken(*arguments):
        replay = original(*arguments)
        replay.sensors.fill_(float("nan"))
        return replay

    monkeypatch.setattr(train, "explore", broken)
    with pytest.raises(NonFinite, match=r"phase world_model is nan at step 5.*prediction=nan"):
        train_tiny(tiny_maze(), tmp_path / "run")
    assert checkpoint_bytes(tmp_path / "run") == before
    monkeypatch.undo()
    train_tiny(tiny_maze(), tmp_path / "run")


def test_weights_that_are_not_finite_are_not_saved(tmp_path, monkeypatch):
    train_tiny(tiny_maze(), tmp_path / "run", stop_at=5)
    before = checkpoint_bytes(tmp_path / "run")
    monkeypatch.setattr(schedules.nn.utils, "clip_grad_norm_", lambda ps, _: ps[0].grad.fill_(float("nan")).sum())
    config = tiny_maze()
    monkeypatch.setattr(trainer, "learning_rate", lambda step, steps: float(step == steps - 1))  # seen by no later loss
    with pytest.raises(NonFinite):
        train_tiny(config, tmp_path / "run")
    assert checkpoint_bytes(tmp_path / "run") == before


def test_sensors_that_are_not_finite_are_named_before_training(tmp_path, monkeypatch):
    original = exploring.explore_simulator

    def broken(*arguments):
        pieces = original(*arguments)
        pieces["sensors"][3, 2, 1] = float("nan")
        return pieces

    monkeypatch.setattr(exploring, "explore_simulator", broken)
    with pytest.raises(NonFinite, match=r"sensor 1 is nan in episode 3, after 8 actions"):
        train_tiny(tiny_maze(), tmp_path / "run")
    assert not checkpoint_steps(tmp_path / "run" / "checkpoints")


# Parts


def test_the_generator_of_a_step_depends_on_its_arguments_only():
    arguments = [(0, 1, 2), (0, 1, 2), (0, 1, 3), (0, 2, 2), (1, 1, 2)]
    draw = [torch.rand(3, generator=step_generator(*a)).tolist() for a in arguments]
    assert draw[0] == draw[1] and len({tuple(d) for d in draw}) == 4


def test_the_schedule_warms_up_and_cools_down():
    values = [learning_rate(s, 1000) for s in range(1000)]
    top = int(np.argmax(values))
    assert values[0] == pytest.approx(1 / 50, rel=0.01) and 40 <= top <= 50 and values[top] > 0.98
    assert np.all(np.diff(values[:top]) > 0) and np.all(np.diff(values[top:]) < 0)
    assert values[-1] == pytest.approx(0.02, abs=1e-3)
    assert all(0 < learning_rate(s, n) <= 1 for n in (1, 2, 5) for s in range(n))
