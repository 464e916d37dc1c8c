"""Promise: in an environment of each family every command does its work: check, collect, train, evaluate, imagine,
ablate, report.

Trainings take seconds and learn nothing worth having; what is reached where is measured by benchmarks/control.py.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import run_agent
from agent.inspection import without_map
from tests.families import worlds

SMALL = (
    *("threads=1", "learn.window=3", "collect.length=4", "learn.batch=8"),
    *("perception.hidden=16", "perception.width=8", "world_model.hidden=16", "world_model.width=8"),
    *("configurator.samples=8", "configurator.iterations=1", "configurator.horizon_without_critic=3"),
    *("learn.world_model_steps=6", "learn.gauge_every=1000"),
)


@dataclass(frozen=True)
class Family:
    """An environment, and what is asked of it."""

    env: str
    flags: tuple[str, ...] = ()
    """Of train and ablate: --task, --goal, --wrappers, --env-options."""
    settings: tuple[str, ...] = ()
    """Fields of the configuration, field=value."""
    measure: str = "return"
    needs: str = ""
    """A package without which the test is skipped."""
    steps: int = 300
    drives: tuple[str, ...] = field(default_factory=tuple)


REWARD, REWARDED = ("--task", "reward"), ("learn.reward_steps=4",)
AIMED = ("learn.critic_steps=4", "learn.policy_steps=4", "learn.plan_episodes=4", "learn.critic_records=200")
PIXELS = ("learn.decoder_steps=4",)
FAMILIES = {
    "classic, Box actions": Family("Pendulum-v1", drives=("pendulum-upright", "survive")),
    "classic, Discrete actions": Family("CartPole-v1", drives=("cartpole-balance", "survive")),
    "MuJoCo": Family("HalfCheetah-v5", drives=("cheetah-run", "survive")),
    "reward": Family("InvertedPendulum-v5", REWARD, REWARDED, drives=("reward",)),
    "a goal in readings": Family("MountainCarContinuous-v0", ("--goal", "position=0.4"), AIMED, "success"),
    "pixels of MuJoCo": Family("tests.families.worlds:PixelPendulum-v0", REWARD, (*PIXELS, *REWARDED)),
    "goals of gymnasium-robotics": Family("PointMaze_UMaze-v3", (), AIMED, "success", "gymnasium_robotics"),
    "MiniGrid": Family("MiniGrid-Empty-5x5-v0", (), (*AIMED, *PIXELS), "success", "minigrid"),
    "partial observation": Family("tests.families.worlds:Blind-v0", REWARD, ("perception.carry=gru", *REWARDED)),
    "several choices at once": Family("tests.families.worlds:Levers-v0", REWARD, REWARDED),
    "one that fails in each way": Family("tests.families.worlds:FaultyWorld-v0", REWARD, REWARDED),
}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.timeout(240)
def test_every_command_works(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    family = FAMILIES[name]
    if family.needs and importlib.util.find_spec(family.needs) is None:
        pytest.skip(f"needs {family.needs}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(without_map, "EPISODES", 8)
    monkeypatch.setattr(without_map, "EPISODES_OF_PIXELS", 4)

    def command(*words: str) -> dict[str, Any]:
        assert run_agent.main([*words, "--json"]) == 0, " ".join(words)
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    env, steps = ("--env", family.env), ("--steps", str(family.steps))
    own = env if ":" in family.env else ()
    settings = (*SMALL, *family.settings)
    flags = [word for pair in settings for word in _flag(pair)]

    checked = command("check", family.env)
    assert {"train", "evaluate", "imagine", "ablate", "report"} <= set(checked["commands"])

    summary = command("train", *env, *steps, *family.flags, *flags, "--out", "run")
    assert summary["env_steps"] >= family.steps and (not family.drives or tuple(summary["drives"]) == family.drives)
    assert ("faults" in summary and summary["faults"]["faulty"] > 0) == ("Faulty" in family.env)
    assert summary["reward_used"] == ("reward" in summary["drives"])

    result = command("evaluate", "run", *own, "--episodes", "3", "--budget", "12", "--record", "1")
    assert result["measure"] == family.measure and result["episodes"] == 3
    assert result["return_ci_low"] <= result["return_mean"] <= result["return_ci_high"]
    assert np.isfinite([result["length_mean"], *result["reference"].values()]).all()

    imagined = command("imagine", "run", *own, "--horizon", "3", "--episodes", "1")
    assert all((tmp_path / "run" / file).stat().st_size for file in imagined["files"])
    assert set(imagined["latent_mse"]) == {"learned", "persistence", "shuffled"}

    monkeypatch.setattr(worlds.Faulty, "fails", False)  # cells with faulty episodes are no comparison
    table = command(
        "ablate", *env, *steps, *family.flags, "--set", *settings, "max_steps=12", "--without", "planner",
        "--seeds", "1", "--tasks", "2", "--out", "ablation",
    )  # fmt: skip
    assert [row["variant"] for row in table["variants"]] == ["full", "without planner"]
    assert all("iqm" in row for row in table["variants"])

    for folder in ("run", "ablation"):
        assert run_agent.main(["report", folder]) == 0
        page = (tmp_path / folder / "report.html").read_text()
        assert family.env.rpartition(":")[2] in page
    capsys.readouterr()


def _flag(setting: str) -> list[str]:
    name, _, value = setting.partition("=")
    return [f"--{name.replace('_', '-')}", value]
