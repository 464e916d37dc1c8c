"""Promises of modules/configurator.py: a guardrail cannot be undercut, and nothing untrained is relied upon."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from modules.configurator import Config, Configurator
from modules.types import Directive, State, Task

READY = {"cost": {"critic_trained": 1.0}, "actor": {"policy_trained": 1.0}}


@pytest.mark.parametrize(("asked", "floor", "got"), [(0.0, 0.5, 0.5), (-3.0, 0.5, 0.5), (2.0, 0.5, 2.0), (0, 0, 0)])
def test_no_task_weighs_contact_below_its_floor(asked, floor, got):
    directive = Configurator(Config(contact_floor=floor)).configure(Task(None, {"contact": asked}), None, READY)
    assert directive.weights["contact"] == got


def test_the_configured_weight_meets_the_floor_too():
    assert Configurator(Config(contact_weight=0.1, contact_floor=0.5)).configure(Task(None), None, READY).weights[
        "contact"
    ] == 0.5  # fmt: skip


def test_a_task_may_reweight_drives():
    directive = Configurator(Config()).configure(Task(None, {"goal": 3.0, "effort": 0.2}), None, READY)
    assert directive.weights == {"goal": 3.0, "effort": 0.2, "contact": 0.0}


@pytest.mark.parametrize("statuses", [{}, {"actor": {"policy_trained": 0.0}}, {"actor": {}}])
def test_an_untrained_policy_means_mode_2(statuses):
    assert Configurator(Config(mode=1)).configure(Task(None), None, statuses).mode == 2


def test_a_trained_policy_is_used_when_asked_for():
    assert Configurator(Config(mode=1)).configure(Task(None), None, READY).mode == 1
    assert Configurator(Config(mode=2)).configure(Task(None), None, READY).mode == 2


@pytest.mark.parametrize("statuses", [{}, {"cost": {"critic_trained": 0.0}}])
def test_an_untrained_critic_is_not_asked_and_plans_look_further(statuses):
    config = Config(horizon=4, horizon_without_critic=9)
    directive = Configurator(config).configure(Task(None), None, statuses)
    assert (directive.critic_weight, directive.horizon) == (0.0, 9)
    directive = Configurator(config).configure(Task(None), None, READY)
    assert (directive.critic_weight, directive.horizon) == (1.0, 4)
    off = Configurator(dataclasses.replace(config, critic_weight=0.0)).configure(Task(None), None, READY)
    assert (off.critic_weight, off.horizon) == (0.0, 9)


def test_all_other_settings_reach_the_directive():
    changed = {
        "discount": 0.5,
        "energy": "literal",
        "planner": "mppi",
        "samples": 7,
        "iterations": 5,
        "replan_every": 2,
        "warm_start": False,
    }
    directive = Configurator(Config(**changed)).configure(Task(None), None, READY)
    assert {k: getattr(directive, k) for k in changed} == changed
    assert isinstance(directive, Directive) and directive.goal is None


def test_without_a_configurator_the_settings_hold_whatever_is_asked_or_learned():
    goal = State(torch.ones(1, 4), torch.zeros(1, 0))
    config = Config(mode=1, effort_weight=0.1, contact_floor=0.5, horizon=4, horizon_without_critic=9, adaptive=False)
    directive = Configurator(config).configure(Task(None, {"goal": 7.0, "contact": 3.0}), goal, {})
    assert directive.weights == {"goal": 1.0, "effort": 0.1, "contact": 0.5}
    assert (directive.mode, directive.critic_weight, directive.horizon) == (1, 1.0, 4)
    assert directive.goal is goal
