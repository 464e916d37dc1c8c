"""Which settings a training reads: every field of the configuration has a phase that is the first to read it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from agent.config import Config
from agent.errors import UserError
from agent.experiments import variants as module
from agent.experiments.fields import Change, field, leaf, setting
from agent.experiments.reuse import PHASES, READ, shared, trainings
from agent.experiments.variants import ABLATIONS, ablated
from agent.presets import point_maze, two_rooms

WORLD_MODEL = {
    "env", "env_options", "wrappers", "goal", "data", "seed", "device", "threads",
    *("collect", "perception", "world_model", "losses", "actor.hidden"),
    *("cost.drives", "critic"),
    *(f"learn.{name}" for name in ("world_model_steps", "batch", "window", "learning_rate", "weight_decay", "clip")),
    *("learn.train_encoder", "learn.shuffle_actions"),
}  # fmt: skip
"""What the first training reads: data, weights of every module as they are drawn, and the world model's learning."""


def leaves(value: object, prefix: str = "") -> Iterator[str]:
    for f in dataclasses.fields(value):  # type: ignore[arg-type]
        inner, path = getattr(value, f.name), f"{prefix}{f.name}"
        yield from leaves(inner, f"{path}.") if dataclasses.is_dataclass(inner) else (path,)


def phases_of(path: str) -> set[str]:
    """The phases that list a field, or a group that it is in."""
    listed = {**READ, "world model": tuple(WORLD_MODEL)}
    return {phase for phase, paths in listed.items() if any(path == p or path.startswith(f"{p}.") for p in paths)}


@pytest.mark.parametrize("path", sorted(leaves(Config())))
def test_every_field_has_one_phase_that_is_the_first_to_read_it(path):
    """A new field fails here until it is listed in READ or, if the world model reads it, above."""
    if path == "configurator.discount":
        assert phases_of(path) == {"critic", "acting"}, "the critic reads it, and it is in a group that acting reads"
    else:
        assert len(phases_of(path)) == 1


def test_every_setting_that_is_listed_exists():
    assert set(READ) == set(PHASES) - {"world model"}
    for path in (*WORLD_MODEL, *(path for paths in READ.values() for path in paths)):
        field(Config(), path)


def test_the_names_of_phases_are_those_of_their_settings():
    for phase in ("critic", "reward", "policy", "decoder"):
        assert {f"learn.{phase}_steps", f"learn.{phase}_rate"} <= set(READ[phase])
        assert isinstance(leaf(Config(), f"learn.{phase}_steps"), int)


def rewarded(*drives: str, **learn: int) -> Config:
    """An agent that wants the environment's reward, and perhaps something else."""
    base = two_rooms()
    return dataclasses.replace(
        base,
        cost=dataclasses.replace(base.cost, drives=(*drives, "reward")),
        learn=dataclasses.replace(base.learn, **learn),
    )


def phases(config: Config) -> list[str]:
    """The phase with which each training ends, read off what it learns."""
    names = ("critic", "reward", "policy", "decoder")
    return [
        next((n for n in reversed(names) if getattr(t.learn, f"{n}_steps")), "world model")
        for t in trainings(config, config)
    ]


def test_reward_is_learned_after_the_critic_in_a_training_of_its_own():
    both = rewarded("goal")
    assert phases(both) == ["world model", "critic", "reward"]
    assert phases(rewarded()) == ["world model", "reward"], "a critic has a head for each drive, and there is none"
    assert phases(ABLATIONS["mode2"](both)) == ["world model", "critic", "reward", "policy"]
    assert phases(two_rooms()) == ["world model", "critic"], "who does not want it does not learn it"
    for number, training in enumerate(trainings(both, both)):
        assert bool(training.learn.critic_steps) == (number > 0)


@pytest.mark.parametrize(
    ("change", "weights"),
    [
        (ABLATIONS["warm-start"], "of full"),
        (setting("learn.reward_steps", 7), "world model and critic of full"),
        (setting("learn.reward_rate", 0.5), "world model and critic of full"),
        (setting("learn.critic_steps", 7), "world model of full"),
        (ABLATIONS["mode2"], "world model, critic and reward of full"),
        (setting("wrappers", ("a:B",)), "its own"),
        (setting("goal", ("x=1",)), "its own"),
        (setting("data", "here"), "its own"),
        (setting("collect.steps", 7), "its own"),
        (setting("cost.drives", ("goal",)), "its own"),
        (setting("cost.weights", {"reward": 0.5}), "of full"),
        (setting("cost.floors", {"reward": 0.5}), "of full"),
    ],
)
def test_an_agent_with_reward_shares_up_to_the_first_phase_that_differs(change: Change, weights: str):
    assert shared(change(rewarded("goal")), rewarded("goal")) == weights


def test_settings_of_a_reward_that_nobody_wants_change_nothing():
    assert shared(setting("learn.reward_steps", 7)(two_rooms()), two_rooms()) == "of full"


@pytest.mark.parametrize("field_and_value", ['wrappers=["a:B"]', 'goal=["x=1"]', "env=PointMaze-v0"])
def test_what_the_tasks_depend_on_is_the_same_in_all_rows(field_and_value: str):
    with pytest.raises(UserError, match="different environments have different tasks"):
        module.varied(field_and_value, two_rooms())


def test_an_environment_is_not_opened_for_a_term_that_is_not_in_the_loss(monkeypatch, capsys):
    monkeypatch.setattr(module, "environment_of", lambda *_: pytest.fail("the environment was opened"))
    config = two_rooms()
    without = dataclasses.replace(config, losses=dataclasses.replace(config.losses, proprio=0.0))
    assert ablated("proprio", without) is None
    assert "proprio is inactive in this configuration; row skipped" in capsys.readouterr().err


def test_an_environment_is_opened_once_for_all_variants(monkeypatch):
    opened, environment_of = [], module.environment_of
    monkeypatch.setattr(module, "environment_of", lambda *a: opened.append(a) or environment_of(*a))
    module._proprio_of.cache_clear()
    for _ in range(3):
        assert ABLATIONS["proprio"](point_maze()).losses.proprio == 0
    assert len(opened) == 1
