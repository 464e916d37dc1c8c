"""Memory is estimated before the work: what cannot fit is refused with the flag to change, and what fits is not."""

from __future__ import annotations

import dataclasses

import pytest

from agent.cli import limits
from agent.cli.limits import Need, check_memory, exploration, machine_memory, paths, planning, window_batch
from agent.cli.train import check_memory as check_training
from agent.errors import UserError
from agent.interaction.environment import environment_of
from agent.presets import PRESETS

GIB = 2**30


def test_a_need_is_refused_above_its_share_of_the_memory():
    check_memory([Need("x", 3 * GIB, "--x")], available=4 * GIB)
    with pytest.raises(UserError, match=r"x need at least 3\.2 GiB .*75 %.*3\.0 GiB.*lower --x or --y"):
        check_memory([Need("w", 1, "--w"), Need("x", int(3.2 * GIB), "--x or --y")], available=4 * GIB)


def test_estimates_are_the_sizes_of_the_arrays():
    assert planning(20, 16, 1000, 324, "").bytes == 3 * 4 * 20 * 16 * 1000 * 324
    assert planning(2, 3, 5, 7, "", gradient=True).bytes > 5 * planning(2, 3, 5, 7, "").bytes
    assert window_batch(64, 4, 8450, 972, 0).bytes == 4 * 64 * 4 * 3 * (8450 + 972)
    assert exploration(10, 4, 100).bytes == 10 * 5 * 100
    assert paths(3, 9).bytes == 4 * 3 * 10 * 16


def test_the_machine_has_memory():
    assert 2**28 < machine_memory() < 2**50


def test_an_evaluation_that_cannot_fit_is_refused(call, trained_run, tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "machine_memory", lambda: 8 * GIB)
    for flag, value in (("--horizon", 100_000), ("--samples", 1_000_000), ("--tasks", 10**9), ("--budget", 10**9)):
        code, out, err = call("evaluate", trained_run, flag, value, "--out", tmp_path)
        assert code == 2 and f"{flag}" in err.split("lower")[1] and "Traceback" not in out + err


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--learn.batch", 100_000), ("--collect.episodes", 10**8), ("--configurator.horizon", 10**6),
        ("--configurator.samples", 10**6),
    ],
)  # fmt: skip
def test_a_training_that_cannot_fit_is_refused(call, tmp_path, monkeypatch, flag, value):
    monkeypatch.setattr(limits, "machine_memory", lambda: 8 * GIB)
    code, out, err = call("train", "debug", flag, value, "--out", tmp_path / "run")
    assert code == 2 and flag in err.split("lower")[1] and "Traceback" not in out + err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", PRESETS)
def test_presets_fit_into_a_laptop(name, monkeypatch):
    monkeypatch.setattr(limits, "machine_memory", lambda: 8 * GIB)
    config = PRESETS[name]()
    check_training(config, environment_of(config))


def test_a_batch_twice_as_large_needs_twice_as_much(monkeypatch):
    """The check reads the configuration: with a machine just large enough, one more doubling is refused."""
    config = PRESETS["two_rooms"]()
    environment = environment_of(config)
    monkeypatch.setattr(limits, "machine_memory", lambda: 16 * GIB)
    sizes = [1024 * 2**k for k in range(12)]
    fits = []
    for batch in sizes:
        try:
            learn = dataclasses.replace(config.learn, batch=batch)
            check_training(dataclasses.replace(config, learn=learn), environment)
            fits.append(batch)
        except UserError:
            break
    assert 0 < len(fits) < len(sizes)


def test_an_exploration_by_steps_is_counted_in_steps(monkeypatch):
    """The number of episodes, which says nothing then, is larger than the memory."""
    monkeypatch.setattr(limits, "machine_memory", lambda: GIB)
    config = PRESETS["two_rooms"]()
    environment, many = environment_of(config), dataclasses.replace(config.collect, episodes=100_000)
    with pytest.raises(UserError, match="--collect"):
        check_training(dataclasses.replace(config, collect=many), environment)
    by_steps = dataclasses.replace(many, steps=5000)
    check_training(dataclasses.replace(config, collect=by_steps), environment)
