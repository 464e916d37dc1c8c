"""Which settings a training reads: every field of the configuration has a phase that is the first to read it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from agent.config import Config
from agent.experiments import variants as module
from agent.experiments.fields import field, leaf
from agent.experiments.reuse import PHASES, READ
from agent.experiments.variants import ABLATIONS, ablated
from agent.presets import point_maze, two_rooms

WORLD_MODEL = {
    "env", "env_options", "seed", "device", "threads",
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
    for phase in ("critic", "policy", "decoder"):
        assert {f"learn.{phase}_steps", f"learn.{phase}_rate"} <= set(READ[phase])
        assert isinstance(leaf(Config(), f"learn.{phase}_steps"), int)


def test_an_environment_is_not_opened_for_a_term_that_is_not_in_the_loss(monkeypatch, capsys):
    monkeypatch.setattr(module, "open_environment", lambda *_: pytest.fail("the environment was opened"))
    config = two_rooms()
    without = dataclasses.replace(config, losses=dataclasses.replace(config.losses, proprio=0.0))
    assert ablated("proprio", without) is None
    assert "proprio is inactive in this configuration; row skipped" in capsys.readouterr().err


def test_an_environment_is_opened_once_for_all_variants(monkeypatch):
    opened, open_environment = [], module.open_environment
    monkeypatch.setattr(module, "open_environment", lambda *a: opened.append(a) or open_environment(*a))
    module._proprio_of.cache_clear()
    for _ in range(3):
        assert ABLATIONS["proprio"](point_maze()).losses.proprio == 0
    assert len(opened) == 1
